"""Profiles are measured on the tiny model: a few pictures, no judgement of their quality."""

from __future__ import annotations

import pytest

from bgaug_d2.inpaint.identity import TINY_MODEL
from bgaug_d2.inpaint.models import load_model
from bgaug_d2.inpaint.tiny_training import assess
from bgaug_d2.inpaint.tiny_training.profiles import PROFILES, measure_profiles
from tests.inpaint_parts import IDENTITY


def test_every_profile_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assess, "_STEPS", 4)
    model = load_model(TINY_MODEL, "cpu", "float32", IDENTITY)
    profiles = {"1 step": {"num_inference_steps": 1}, "2": {"num_inference_steps": 2}}
    found = measure_profiles(model, 4, profiles)
    assert list(found) == ["1 step", "2"]
    for each in found.values():
        assert each["images_per_s"] > 0
        assert 0 <= each["recognised"] <= 1
        assert each["diversity"] >= 0  # not NaN: there are real ones of every kind
    assert next(iter(PROFILES.values())) == {}
