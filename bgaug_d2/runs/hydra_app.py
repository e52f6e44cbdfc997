"""From Hydra to ``ExperimentConfig``; nothing else in the package knows Hydra.

The keys and their defaults live in the dataclasses of ``bgaug_d2.config``. Hydra gets them as one
plain mapping named ``base``, so the files in ``configs/`` hold only what differs, and every message
about a wrong key or value is ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import bgaug_d2
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.parse import (
    OPTS,
    experiment_from_mapping,
    nearest_of,
    unknown_key,
    valid_keys,
)
from bgaug_d2.config.schedule import scaled
from bgaug_d2.errors import BgAugError, ConfigError
from bgaug_d2.runs.output_folder import RESOLVED, check_folder, config_folder

Composed = DictConfig  # a composed, unresolved configuration

_PRIMARY = "train"
_OPTIONS = "bgaug."  # where the options are that only some modes read


def hydra_app(job: Callable[[DictConfig], None], config_dir: Path) -> NoReturn:
    """Compose the configuration of the command line, call ``job`` with it (each of a sweep), exit.

    The process ends with status 0, 130 after Ctrl-C, or 1 with a sentence for each job that failed
    by a user's mistake.

    Args:
        job: Gets the composed, unresolved configuration. ``HYDRA_FULL_ERROR=1`` lets its errors
            through, with their tracebacks.
        config_dir: Folder with ``train.yaml`` and the groups.
    """
    try:
        check_overrides(sys.argv[1:], config_dir)
    except ConfigError as error:
        sys.exit(str(error))
    register_base()
    failures: list[str] = []

    def guarded(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except BgAugError as error:
            # A launcher plugin runs the job elsewhere, where nobody reads `failures`.
            elsewhere = "hydra._internal" not in HydraConfig.get().launcher._target_
            if elsewhere or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            # An error from a loader process carries a traceback before its own sentence.
            failures.append(str(error).strip().splitlines()[-1])

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir.resolve()), config_name=_PRIMARY)(
            guarded
        )()
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit("\n".join(failures) or 0)


def config_dir() -> Path:
    """The folder of ``train.yaml`` and the groups.

    ``configs/`` lies at the top of a checkout, which an editable install uses as well; a wheel has
    it inside the package.
    """
    package = Path(bgaug_d2.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def compose_run(arguments: Sequence[str]) -> tuple[Composed, ExperimentConfig]:
    """The run that ``bgaug train`` with these arguments would start, as composed and checked.

    Raises:
        ConfigError: As ``check_overrides`` and ``to_experiment``.
    """
    check_overrides(arguments, config_dir())
    register_base()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose(_PRIMARY, list(arguments))
    return cfg, to_experiment(cfg, arguments)


def compose_seeds(arguments: Sequence[str], seeds: Iterable[int]) -> list[ExperimentConfig]:
    """One run per seed, composed once: a plan has many runs, and composing takes half a second.

    Raises:
        ConfigError: As ``compose_run``.
    """
    cfg, _ = compose_run(arguments)
    experiments = []
    for seed in seeds:
        cfg.seed = seed  # interpolations follow when they are resolved
        experiments.append(to_experiment(cfg, arguments))
    return experiments


def register_base() -> None:
    """Give Hydra all keys with their defaults as ``base``, which ``train.yaml`` starts from."""
    base = OmegaConf.create(asdict(ExperimentConfig()))
    # So that `detector.opts.MODEL.X=1` needs no `+`; ``to_cfg`` checks them against Detectron2's.
    OmegaConf.set_struct(base.detector.opts, False)
    ConfigStore.instance().store(name="base", node=base)


def to_experiment(cfg: DictConfig, arguments: Sequence[str] | None = None) -> ExperimentConfig:
    """Check a composed configuration and turn it into dataclasses.

    Args:
        cfg: As Hydra composed it.
        arguments: The command line; None takes that of the Hydra application, if this is one.

    Raises:
        ConfigError: As ``parse.experiment_from_mapping``; also an interpolation that leads nowhere,
            or an option on the command line that means nothing in the mode.
    """
    try:
        content = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise ConfigError(f"the configuration must be a mapping, not a {type(content).__name__}")
    experiment = experiment_from_mapping({str(key): value for key, value in content.items()})
    experiment.schedule = scaled(experiment.schedule)
    if arguments is None:
        known = HydraConfig.initialized()
        arguments = list(HydraConfig.get().overrides.task) if known else []
    # The dataclass refuses values other than the default; whoever gives an option expects an
    # effect even of the default.
    given = [each.lstrip("+").partition("=")[0] for each in arguments]
    experiment.bgaug.check_options(
        each.removeprefix(_OPTIONS) for each in given if each.startswith(_OPTIONS)
    )
    return experiment


def save_configs(cfg: DictConfig, experiment: ExperimentConfig, painting: bool = False) -> None:
    """Write ``config.yaml`` (as asked, with its interpolations) and ``config_resolved.yaml``.

    Args:
        cfg: As Hydra composed it.
        experiment: The same as dataclasses.
        painting: Whether the run only paints (`bgaug paint`).

    Raises:
        ConfigError: The run is to train into a folder that holds a run with other settings.
    """
    if not painting and not experiment.eval_only:
        check_folder(experiment)
    folder = config_folder(experiment, painting)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    OmegaConf.save(OmegaConf.create(asdict(experiment)), folder / RESOLVED)


def check_overrides(argv: Sequence[str], folder: Path | None = None) -> None:
    """Find a misspelt key or group choice on a command line before Hydra does.

    Hydra's own message names no similar key, and with ``+`` it takes any.

    Args:
        argv: The command line without the program's name; options (``-m``) are passed over.
        folder: Folder whose subfolders are the config groups.

    Raises:
        ConfigError: One sentence with the nearest valid keys or choices.
    """
    groups = group_choices(folder) if folder else {}
    keys = [*valid_keys(), *groups]
    for argument in argv:
        key, equals, value = argument.partition("=")
        key = key.lstrip("+~").partition("@")[0]
        if argument.startswith("-") or not equals or key.startswith(("hydra.", "hydra/")):
            continue
        if key in groups:
            _check_group_choice(key, value, groups[key])
        elif key not in keys and not key.startswith(f"{OPTS}."):
            raise unknown_key(key, keys)


def group_choices(folder: Path) -> dict[str, list[str]]:
    """The options of each group."""
    groups = sorted(each for each in folder.iterdir() if any(each.glob("*.yaml")))
    return {each.name: sorted(file.stem for file in each.glob("*.yaml")) for each in groups}


def _check_group_choice(group: str, value: str, choices: Sequence[str]) -> None:
    if any(mark in value for mark in "([{$"):
        return  # a sweep, a mapping or an interpolation: Hydra's business
    for choice in value.split(","):
        name = choice.strip().strip("'\"").removesuffix(".yaml")
        if name == "null":  # Hydra answers this with a traceback
            raise ConfigError(f"{group}=null is not allowed; to leave the group out write ~{group}")
        if name not in choices:
            raise ConfigError(f"{group}={name} does not exist{nearest_of(name, choices)}")
