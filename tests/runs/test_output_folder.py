"""Who may write into the folder of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import ConfigError
from bgaug_d2.runs.output_folder import RESOLVED, check_folder, config_folder


def experiment_in(folder: Path, mode: str = "expand") -> ExperimentConfig:
    return ExperimentConfig(output_dir=str(folder), bgaug=BgAugConfig(mode=mode))


def run_in(folder: Path, mode: str = "expand") -> ExperimentConfig:
    """A finished run, and the same run again."""
    experiment = experiment_in(folder, mode)
    (folder / RESOLVED).write_text(yaml.safe_dump(asdict(experiment)))
    (folder / "results.json").write_text("{}")
    return experiment


def test_the_same_run_may(tmp_path: Path) -> None:
    check_folder(experiment_in(tmp_path))
    experiment = run_in(tmp_path)
    check_folder(experiment)
    experiment.resume, experiment.name, experiment.launch.num_gpus = True, "other", 4
    experiment.schedule.num_workers = 0
    experiment.bgaug.on_miss, experiment.bgaug.look_ahead = "error", 0
    experiment.bgaug.worker.devices, experiment.bgaug.cache.dir = ["cpu"], "elsewhere"
    check_folder(experiment)


def test_another_run_may_not_and_the_keys_are_named(tmp_path: Path) -> None:
    experiment = run_in(tmp_path)
    experiment.seed, experiment.schedule.base_lr = 3, 0.5
    with pytest.raises(ConfigError) as caught:
        check_folder(experiment)
    message = str(caught.value)
    assert "seed (0 there, 3 now), schedule.base_lr (0.02 there, 0.5 now); give" in message
    assert "name=custom-2" in message
    assert "\n" not in message
    experiment.dataset.root, experiment.bgaug.recipe.D = "elsewhere", 0.25
    with pytest.raises(ConfigError, match="and 1 more; give"):
        check_folder(experiment)


def test_what_decides_pictures_decides_nothing_without_any(tmp_path: Path) -> None:
    experiment = run_in(tmp_path, "none")
    experiment.bgaug.recipe, experiment.inpainter.model = RecipeConfig(D=0.25), "other"
    check_folder(experiment)
    experiment.bgaug.mode = "duplicate"
    with pytest.raises(ConfigError, match=r"bgaug\.mode \('none' there, 'duplicate' now\)"):
        check_folder(experiment)


def test_a_training_without_checkpoint_is_no_run(tmp_path: Path) -> None:
    experiment = run_in(tmp_path)
    (tmp_path / "results.json").unlink()
    experiment.seed = 3
    check_folder(experiment)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    with pytest.raises(ConfigError, match="seed"):
        check_folder(experiment)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    experiment = run_in(tmp_path)
    (tmp_path / RESOLVED).write_text("[")
    with pytest.raises(ConfigError, match=f"{RESOLVED} cannot be read"):
        check_folder(experiment)


def test_painting_and_evaluation_keep_their_configuration_apart(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    places = {config_folder(experiment, painting) for painting in (False, True)}
    experiment.eval_only = True
    places.add(config_folder(experiment, painting=False))
    assert places == {tmp_path, tmp_path / "painting", tmp_path / "eval_only"}
