"""Profiles are measured on what was painted with their settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.toy.backgrounds import BACKGROUNDS
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.identity import TINY_MODEL
from bgaug_d2.inpaint.model.load import load_model
from tests.helpers.tiny_models import IDENTITY
from tools.pretrain import assess, profiles
from tools.pretrain.profiles import PROFILES, measure_profiles


def test_every_profile_is_painted_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, RecipeConfig]] = []

    def paint(
        engine: Engine, prompts: Sequence[str], size: int, recipe: RecipeConfig, seed: int
    ) -> np.ndarray:
        asked.append((prompts[0], recipe))
        shape = (len(prompts), size, size, 3)
        flat = recipe.num_inference_steps == 1
        noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        return np.full(shape, 90, np.uint8) if flat else noise

    monkeypatch.setattr(profiles, "paint_backgrounds", paint)
    monkeypatch.setattr(assess, "_STEPS", 4)
    model = load_model(TINY_MODEL, "cpu", "float32", IDENTITY)
    chosen = {"one step": {"num_inference_steps": 1}, "first order": {"solver_order": 1}}
    found = measure_profiles(model, 4, chosen)
    assert list(found) == ["one step", "first order"]
    scenes = [scene for _, scene in BACKGROUNDS.values()]
    for (prompt, _), scene in zip(asked, [*scenes, *scenes], strict=True):
        assert prompt.endswith(f"of {scene}")
    assert {each.num_inference_steps for _, each in asked[:8]} == {1}
    assert {each.solver_order for _, each in asked[8:]} == {1}
    # Flat pictures differ from each other in nothing, noise does.
    assert found["one step"]["diversity"] < 1e-3 < found["first order"]["diversity"]


def test_the_first_profile_is_the_one_to_compare_with() -> None:
    assert next(iter(PROFILES.values())) == {}
