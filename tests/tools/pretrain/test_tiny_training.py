"""How the tiny model is trained: pictures, the loop, the numbers that judge it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bgaug_d2.data.toy.backgrounds import BACKGROUNDS
from tools.pretrain import assess as assessing
from tools.pretrain import loop
from tools.pretrain.assess import assess
from tools.pretrain.autoencoder import reconstruction_loss
from tools.pretrain.pictures import CLEAN_PROMPT, draw_pictures
from tools.pretrain.train_tiny_inpainter import main


def test_pictures_are_backgrounds_and_scenes_in_turn() -> None:
    pictures = draw_pictures(range(12), 64)
    again = draw_pictures(range(4, 6), 64)
    assert all(each.image.shape == (64, 64, 3) for each in pictures)
    np.testing.assert_array_equal(pictures[5].image, again[1].image)
    for number, each in enumerate(pictures):
        assert (CLEAN_PROMPT in each.captions) == (number % 2 == 0)
        scene = BACKGROUNDS[each.kind][1]
        assert sum(scene in text.lower() for text in each.captions) == 2


class _Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))


def _train(folder: Path, steps: int, stop: int | None = None) -> torch.Tensor:
    """Fit a line to noisy points; ``stop`` breaks the training off at a step."""
    line, count = _Line(), [0]

    def step(rng: torch.Generator) -> torch.Tensor:
        count[0] += 1
        if stop is not None and count[0] > stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=rng)
        return ((x * line.weight).sum(1) - x.sum(1)).square().mean()

    loop.train("line", folder, line, step, steps, 0.05, seed=3)
    return line.weight.detach()


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = _train(whole, 250)
    with pytest.raises(KeyboardInterrupt):
        _train(parts, 250, stop=120)
    torch.testing.assert_close(_train(parts, 250), expected, rtol=0, atol=0)
    torch.testing.assert_close(expected, torch.ones(3), rtol=0, atol=0.05)
    lines = [json.loads(line) for line in (whole / "line.jsonl").read_text().splitlines()]
    assert [each["step"] for each in lines] == [100, 200, 250]
    assert lines[-1]["loss"] < lines[0]["loss"]
    torch.testing.assert_close(_train(whole, 250), expected, rtol=0, atol=0)  # nothing left to do


def test_blur_costs_more_than_an_equal_shift() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 3, 16, 16)
    shifted, blurred = stripes + 0.5, torch.full_like(stripes, 0.5)
    assert reconstruction_loss(stripes, stripes) == 0
    assert reconstruction_loss(shifted, stripes) == pytest.approx(0.5)
    assert reconstruction_loss(blurred, stripes) > 0.9


def test_judges_tell_noise_from_the_family_but_not_the_family_from_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assessing, "_STEPS", 150)
    size, per_kind = 64, 8
    real = draw_pictures(range(0, 4 * per_kind * len(BACKGROUNDS), 2), size)
    more = draw_pictures(range(100_000, 100_000 + 8 * per_kind * len(BACKGROUNDS), 2), size)
    same = {
        kind: np.stack([each.image for each in more if each.kind == kind][:per_kind])
        for kind in BACKGROUNDS
    }
    noise = np.random.default_rng(0).integers(0, 256, (per_kind, size, size, 3), dtype=np.uint8)
    images = np.stack([each.image for each in real])
    found = assess(real, images, same, seed=0)
    assert np.mean(list(found.recognised.values())) > 0.6
    assert found.discriminator_accuracy < 0.75
    assert 0.7 < np.mean(list(found.diversity.values())) < 1.4
    assert found.discriminator_accuracy_autoencoder == pytest.approx(0.5, abs=0.2)
    found = assess(real, 255 - images, dict.fromkeys(BACKGROUNDS, noise), seed=0)
    assert np.mean(list(found.recognised.values())) == pytest.approx(1 / 8)
    assert found.discriminator_accuracy > 0.95
    flat = np.repeat(images[:1], per_kind, axis=0)
    flat_found = assess(real, images, dict.fromkeys(BACKGROUNDS, flat), seed=0)
    assert max(flat_found.diversity.values()) < 0.05


@pytest.mark.slow
def test_the_whole_command_writes_a_model_and_its_card(tmp_path: Path) -> None:
    effort = ["--pictures", "32", "--vae-steps", "2", "--unet-steps", "2", "--samples", "4"]
    folders = ["--work", str(tmp_path / "work"), "--model", str(tmp_path / "model")]
    main([*effort, *folders])
    card = (tmp_path / "model" / "README.md").read_text()
    assert "32 procedural pictures of 128 x 128 px" in card
    assert card.count("| 2 | 0.") == 2  # one line, for both stages
    assert (tmp_path / "model" / "samples.jpg").stat().st_size > 10_000
