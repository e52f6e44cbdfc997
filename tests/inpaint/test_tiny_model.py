"""The trained model that comes with the package: what it is, and that it knows the toy world."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from bgaug_d2.config.bgaug import InpainterConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.toy.backgrounds import BACKGROUNDS
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.identity import TINY_MODEL, identify, model_files
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from tools.pretrain.assess import paint_backgrounds
from tools.pretrain.pictures import CLEAN_PROMPT, draw_pictures
from tools.pretrain.stages import through_autoencoder


@cache
def loaded() -> InpaintModel:
    identity, folder = identify(InpainterConfig(model="tiny"))
    return load_model(folder, "cpu", "float32", identity)


def test_it_is_part_of_the_package_and_small() -> None:
    identity, folder = identify(InpainterConfig(model="tiny"))
    assert folder == TINY_MODEL
    assert (identity.id, identity.license) == ("tiny", "Apache-2.0")
    sizes = {name: (folder / name).stat().st_size for name in model_files(folder)}
    assert sum(size for name, size in sizes.items() if name.endswith(".safetensors")) < 12_000_000
    card = (folder / "README.md").read_text()
    for part in ("Data", "Training", "Licence", "Losses", "samples.jpg", "taken for its kind"):
        assert part in card


def test_diffusers_own_pipeline_loads_it() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(str(TINY_MODEL), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(CLEAN_PROMPT, num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (128, 128, 3)
    assert np.isfinite(picture).all()


def test_words_of_the_world_are_one_token_each() -> None:
    tokenizer = loaded().prompts._tokenizer
    captions = [text for each in draw_pictures(range(200), 64) for text in each.captions]
    for text in captions:
        words = text.lower().replace(",", " ,").replace(".", " .").split()
        assert tokenizer.tokenize(text) == [f"{word}</w>" for word in words]
        assert len(tokenizer(text).input_ids) <= tokenizer.model_max_length
    assert (
        tokenizer.decode(tokenizer("Zebra, 東京!").input_ids[1:-1]).replace(" ", "")
        == "zebra,東京!"
    )


def test_its_autoencoder_keeps_pictures() -> None:
    images = [each.image for each in draw_pictures(range(2_000_000, 2_000_016), 128)]
    decoded = through_autoencoder(loaded(), images)
    error = np.stack(images).astype(float) - decoded
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 25  # PSNR, dB


@pytest.mark.parametrize("kind", ["hills", "gradient"])
def test_a_caption_decides_the_background(kind: str) -> None:
    # Hills are bright above and dark below, a gradient has no edges: numbers that need no judge.
    settings = RecipeConfig(num_inference_steps=10, guidance_scale=3)
    prompts = [f"{CLEAN_PROMPT} of {BACKGROUNDS[kind][1]}"] * 4
    painted = paint_backgrounds(Engine(loaded(), 4), prompts, 128, settings, seed=7).astype(float)
    steps = np.abs(np.diff(painted, axis=1)).mean()
    if kind == "hills":
        assert painted[:, :40].mean() > painted[:, 90:].mean() + 30
    else:
        assert steps < 6
    assert painted.std(axis=0).mean() > 5  # four seeds, four pictures
