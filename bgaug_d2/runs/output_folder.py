"""The folder of a run: its configuration files, and who may write into it.

A run keeps its configuration in its folder. So the next run can see whether it is the same run
(which is trained again, or resumed) or another one, whose results would be lost or mixed up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.parse import join
from bgaug_d2.errors import ConfigError

RESOLVED = "config_resolved.yaml"
PAINTING = "painting"  # subfolder of what `bgaug paint` and the painting processes write
EVALUATION = "eval_only"  # subfolder of an evaluation's configuration

# Keys and sections that decide no result: names and places, processes, patience.
_DECIDE_NOTHING = (
    *("benchmark", "arm", "suffix", "name", "output_dir"),
    *("resume", "eval_only", "dry_run", "tracking"),
    *("launch", "schedule.num_workers", "schedule.checkpoint_period", "schedule.eval_period"),
    *("bgaug.on_miss", "bgaug.look_ahead", "bgaug.worker", "bgaug.cache.dir"),
    *("bgaug.cache.max_gb", "inpainter.license", "inpainter.allow_toy_model"),
)
# These decide pictures, so nothing where none is painted.
_DECIDE_PICTURES = ("inpainter", "bgaug.recipe", "bgaug.cache")
_FINISHED = ("results.json", "last_checkpoint")  # one of them makes a folder hold a run


def check_folder(experiment: ExperimentConfig) -> None:
    """Refuse to train into a folder that holds a run with other settings.

    Settings that decide no result may differ. What `bgaug paint` left in the folder is no run, nor
    is a training that was cut off before its first checkpoint.

    Raises:
        ConfigError: The message names the keys that differ and the ways out.
    """
    folder = Path(experiment.output_dir)
    path = folder / RESOLVED
    if not path.is_file() or not any((folder / name).exists() for name in _FINISHED):
        return
    try:
        there = _deciding(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}), so nobody knows whether {folder} holds another run; "
            "choose another output_dir or remove the folder"
        ) from error
    here = _deciding(asdict(experiment))
    differences = [
        f"{key} ({there[key]!r} there, {value!r} now)"
        for key, value in here.items()
        if key in there and there[key] != value
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ConfigError(
            f"{folder} holds a run with other settings: {', '.join(differences[:3])}{more}; give "
            f"this run a name of its own (name={experiment.name}-2) or another output_dir, or "
            "remove the folder"
        )


def config_folder(experiment: ExperimentConfig, painting: bool) -> Path:
    """Where the configuration of a training, an evaluation or a painting is kept.

    Painting and evaluation have places of their own: neither may change what the training in the
    same folder says of itself.
    """
    if painting:
        return Path(experiment.output_dir) / PAINTING
    if experiment.eval_only:
        return Path(experiment.output_dir) / EVALUATION
    return Path(experiment.output_dir)


def _deciding(content: Mapping[str, Any]) -> dict[str, Any]:
    paints = content["bgaug"]["mode"] in ("replace", "expand")
    ignored = _DECIDE_NOTHING if paints else (*_DECIDE_NOTHING, *_DECIDE_PICTURES)
    return {
        key: value
        for key, value in _leaves(content, "")
        if not any(key == each or key.startswith(f"{each}.") for each in ignored)
    }


def _leaves(content: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, join(path, key))
        else:
            yield join(path, key), value
