from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.parse import experiment_from_mapping, valid_keys
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.config.schedule import ScheduleConfig
from bgaug_d2.errors import ConfigError
from bgaug_d2.runs.hydra_app import check_overrides, to_experiment

KEYS = valid_keys()
# One letter of a shorter name is too much of it.
LONG_KEYS = [each for each in KEYS if len(each.rpartition(".")[2]) > 3]


@given(st.sampled_from(LONG_KEYS), st.data())
def test_a_key_with_one_letter_wrong_is_found(key: str, data: st.DataObject) -> None:
    section, dot, name = key.rpartition(".")
    at = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from(["", *"aexz_"]))
    wrong = f"{section}{dot}{name[:at]}{letter}{name[at + 1 :]}"
    assume(wrong not in KEYS)
    with pytest.raises(ConfigError) as caught:
        check_overrides([f"{data.draw(st.sampled_from(['', '+', '++']))}{wrong}=1"])
    assert key in str(caught.value).partition("did you mean")[2]


# YAML reads control characters and line separators as line breaks.
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=8)
experiments = st.builds(
    ExperimentConfig,
    name=TEXT,
    seed=st.integers(0, 2**31 - 1),
    schedule=st.builds(
        ScheduleConfig,
        base_lr=st.floats(0, 10),
        lr_drops=st.lists(st.integers(0, 10**6), max_size=3),
    ),
    bgaug=st.builds(
        BgAugConfig,
        mode=st.just("replace"),
        p=st.floats(0, 1),
        recipe=st.builds(
            RecipeConfig,
            prompt=st.just("scene"),
            scenes=st.lists(TEXT, min_size=1, max_size=2),
        ),
    ),
)


@given(experiments)
def test_an_experiment_survives_being_plain_values(experiment: ExperimentConfig) -> None:
    assert experiment_from_mapping(asdict(experiment)) == experiment


@given(experiments)
def test_an_experiment_survives_omegaconfs_yaml(experiment: ExperimentConfig) -> None:
    assume(not any("${" in each for each in [experiment.name, *experiment.bgaug.recipe.scenes]))
    text = OmegaConf.to_yaml(OmegaConf.create(asdict(experiment)))
    found = OmegaConf.create(text)
    assert to_experiment(found) == experiment  # type: ignore[arg-type]
