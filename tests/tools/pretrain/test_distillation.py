"""The few-step copy of the tiny model learns what its guided teacher does in more steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bgaug_d2.inpaint.denoise.dpm_solver import advance, solver_table
from bgaug_d2.inpaint.model.identity import TINY_MODEL
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from tests.helpers.tiny_models import IDENTITY
from tools.pretrain.distil_tiny_inpainter import main
from tools.pretrain.distillation import (
    SPACING,
    FewSteps,
    Target,
    distil,
    distillation_loss,
    predictor,
)

CAPTIONS = [["a"], ["b", "c"]]


@pytest.fixture(scope="module")
def model() -> InpaintModel:
    return load_model(TINY_MODEL, "cpu", "float32", IDENTITY)


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_a_teacher_of_equal_steps_without_guidance_is_its_own_student(model: InpaintModel) -> None:
    few = FewSteps(steps=4, substeps=1, guidance_scale=1.0, batch=3)
    loss = distillation_loss(model, predictor(model.unet), noise(2), CAPTIONS, few)
    assert float(loss(torch.Generator().manual_seed(0))) < 1e-6
    more = FewSteps(steps=4, substeps=3, guidance_scale=3.0, batch=3)
    loss = distillation_loss(model, predictor(model.unet), noise(2), CAPTIONS, more)
    assert float(loss(torch.Generator().manual_seed(0))) > 1e-4


def test_the_targets_step_ends_where_the_teacher_ends(model: InpaintModel) -> None:
    few = FewSteps(steps=3, substeps=2, guidance_scale=2.0)
    places, embeddings = torch.tensor([0, 1, 2]), model.prompts(["a", "b", "c"])
    start = noise(3)
    with torch.inference_mode():
        v = Target(model, few)(start, places, embeddings)
        coarse = solver_table(model.noise_config, 3, SPACING)
        landed, _ = advance(start, start, v, torch.from_numpy(coarse.first_steps))

        fine, nothing = solver_table(model.noise_config, 6, SPACING), model.prompts([""] * 3)
        unet, latents = predictor(model.unet), start
        for substep in (0, 1):
            index = places * 2 + substep
            timesteps = torch.tensor(fine.timesteps)[index]
            with_text, without = (
                unet(latents, timesteps, embeddings),
                unet(latents, timesteps, nothing),
            )
            guided = without + 2.0 * (with_text - without)
            lines = torch.from_numpy(fine.first_steps)[index]
            latents, _ = advance(latents, latents, guided, lines)
    torch.testing.assert_close(landed, latents, rtol=1e-3, atol=1e-3)


def test_the_student_learns_and_the_teacher_does_not_change(
    model: InpaintModel, tmp_path: Path
) -> None:
    few = FewSteps(steps=2, substeps=2, guidance_scale=3.0, batch=2)
    before = {name: each.clone() for name, each in model.unet.state_dict().items()}
    student = distil(model, noise(2), CAPTIONS, tmp_path, few, training_steps=2, seed=0)
    assert all(torch.equal(before[name], each) for name, each in model.unet.state_dict().items())
    changed = [name for name, each in student.state_dict().items() if not each.equal(before[name])]
    assert len(changed) > len(before) / 2


@pytest.mark.slow
def test_the_command_writes_a_model_that_can_be_loaded(tmp_path: Path) -> None:
    work, folder = tmp_path / "work", tmp_path / "model"
    main(
        [
            *("--pictures", "8", "--training-steps", "2"),
            *("--work", str(work), "--model", str(folder)),
        ]
    )
    distilled = load_model(folder, "cpu", "float32", IDENTITY)
    assert distilled.noise_config == load_model(TINY_MODEL, "cpu", "float32", IDENTITY).noise_config
    assert "2 training steps on 8 procedural backgrounds" in (folder / "README.md").read_text()
