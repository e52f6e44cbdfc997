"""From Hydra to ``ExperimentConfig`` to Detectron2's ``CfgNode``; nothing else knows both.

The keys and their defaults live in the dataclasses of ``config`` and ``experiment_config``. Hydra
gets them as one plain mapping named ``base``, so the files in ``configs/`` hold only what differs,
and every message about a wrong key or value is ours. Detectron2 is imported late: the checks of a
command line take no seconds and need no Detectron2.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bgaug_d2.cache import CacheError
from bgaug_d2.config import ConfigError
from bgaug_d2.data.errors import DatasetError
from bgaug_d2.experiment_config import ExperimentConfig, scaled
from bgaug_d2.inpaint.errors import ModelError
from bgaug_d2.jobs import AnnotationError
from bgaug_d2.keys import (
    did_you_mean,
    experiment_from_mapping,
    join,
    plain,
    unknown_key,
    valid_keys,
)
from bgaug_d2.mapper import MissError
from bgaug_d2.supervisor import WorkerStartError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

# What a user can mend: told in a sentence, without a traceback.
USER_ERRORS = (
    ConfigError,
    DatasetError,
    AnnotationError,
    ModelError,
    WorkerStartError,
    CacheError,
    MissError,
)

TOY_BACKBONE = Path(__file__).parent / "data" / "toy_backbone.safetensors"

# augment.sampler -> Detectron2's name.
SAMPLERS = {"uniform": "TrainingSampler", "repeat_factor": "RepeatFactorTrainingSampler"}

_OPTS = "detector.opts"
_PRIMARY = "train"

# --- Hydra -> ExperimentConfig ---


def hydra_app(
    job: Callable[[DictConfig], None],
    config_dir: Path,
    argv: Sequence[str],
    user_errors: tuple[type[Exception], ...],
) -> list[str]:
    """Compose the configuration of a command line and call ``job`` with it; in a sweep, often.

    Args:
        job: Gets the composed, unresolved configuration.
        config_dir: Folder with ``train.yaml`` and the groups.
        argv: The command line without the program's name.
        user_errors: What ``job`` raises for a user's mistakes; ``HYDRA_FULL_ERROR=1`` lets them
            through, with their tracebacks.

    Returns:
        One sentence per job that failed by a user's mistake.
    """
    try:
        check_overrides(argv, config_dir)
    except ConfigError as error:
        return [str(error)]
    register_base()
    failures = []

    def guarded(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except user_errors as error:
            # A launcher plugin runs the job elsewhere, where nobody reads `failures`.
            elsewhere = "hydra._internal" not in HydraConfig.get().launcher._target_
            if elsewhere or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            # An error from a loader process carries a traceback before its own sentence.
            failures.append(str(error).strip().splitlines()[-1])

    hydra.main(version_base="1.3", config_path=str(config_dir.resolve()), config_name=_PRIMARY)(
        guarded
    )()
    return failures


def register_base() -> None:
    """Give Hydra all keys with their defaults as ``base``, which ``train.yaml`` starts from."""
    base = OmegaConf.create(asdict(ExperimentConfig()))
    # So that `detector.opts.MODEL.X=1` needs no `+`; to_cfg checks these keys against Detectron2's.
    OmegaConf.set_struct(base.detector.opts, False)
    ConfigStore.instance().store(name="base", node=base)


def to_experiment(cfg: DictConfig) -> ExperimentConfig:
    """Check a composed configuration and turn it into dataclasses.

    Raises:
        ConfigError: As ``keys.experiment_from_mapping``; also an interpolation that leads nowhere.
    """
    try:
        content = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise ConfigError(f"the configuration must be a mapping, not a {type(content).__name__}")
    experiment = experiment_from_mapping({str(key): value for key, value in content.items()})
    experiment.schedule = scaled(experiment.schedule)
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        # The jobs of a sweep may differ in any key, so each has the folder that Hydra gives it.
        experiment.output_dir = HydraConfig.get().runtime.output_dir
    return experiment


def save_configs(cfg: DictConfig, experiment: ExperimentConfig) -> None:
    """Write ``config.yaml`` (as asked, with its interpolations) and ``config_resolved.yaml``."""
    folder = Path(experiment.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    OmegaConf.save(OmegaConf.create(asdict(experiment)), folder / "config_resolved.yaml")


def check_overrides(argv: Sequence[str], config_dir: Path | None = None) -> None:
    """Find a misspelt key or group choice on a command line before Hydra does.

    Hydra's own message names no similar key, and with ``+`` it takes any.

    Args:
        argv: The command line without the program's name; options (``-m``) are passed over.
        config_dir: Folder whose subfolders are the config groups.

    Raises:
        ConfigError: One sentence with the nearest valid keys or choices.
    """
    groups = _group_choices(config_dir) if config_dir else {}
    keys = [*valid_keys(), *groups]
    for argument in argv:
        key, equals, value = argument.partition("=")
        key = key.lstrip("+~").partition("@")[0]
        if argument.startswith("-") or not equals or key.startswith(("hydra.", "hydra/")):
            continue
        if key in groups:
            _check_group_choice(key, value, groups[key])
        elif key not in keys and not key.startswith(f"{_OPTS}."):
            raise unknown_key(key, keys)


def _group_choices(config_dir: Path) -> dict[str, list[str]]:
    """The options of each group, with ``folder/`` before those in one; ``_`` hides a file."""
    folders = sorted(each for each in config_dir.iterdir() if each.is_dir())
    return {
        each.name: sorted(
            file.relative_to(each).with_suffix("").as_posix()
            for file in each.rglob("*.yaml")
            if not file.name.startswith("_")
        )
        for each in folders
    }


def _check_group_choice(group: str, value: str, choices: Sequence[str]) -> None:
    if any(mark in value for mark in "([{$"):
        return  # a sweep, a mapping or an interpolation: Hydra's business
    for choice in value.split(","):
        name = choice.strip().strip("'\"").removesuffix(".yaml")
        if name == "null":  # Hydra answers this with a traceback
            raise ConfigError(f"{group}=null is not allowed; to leave the group out write ~{group}")
        if name not in choices:
            raise ConfigError(
                f"{group}={name} does not exist{did_you_mean(name, choices)}"
                f" There are {', '.join(choices)}"
            )


# --- ExperimentConfig -> CfgNode ---


@dataclass(frozen=True)
class _Setting:
    """A Detectron2 setting that one of our keys owns."""

    key: str
    value: Any
    owner: str


def to_cfg(
    experiment: ExperimentConfig, train: Sequence[str], test: Sequence[str], device: str
) -> CfgNode:
    """Detectron2's configuration of a run, with the whole experiment in its subtree ``BGAUG``.

    Args:
        experiment: The run.
        train: Names in Detectron2's catalogues, registered already; the classes are taken there.
        test: The same of the test sets.
        device: ``cuda`` or ``cpu``.

    Raises:
        ConfigError: An unknown model-zoo name or Detectron2 key, a key in ``detector.opts`` that
            another of our keys owns, or masks wanted from a data set of boxes.
    """
    from detectron2.config import CfgNode

    from bgaug_d2.swin import check_swin

    cfg = _detector_cfg(experiment.detector.config_file)
    # Polygons are Detectron2's (and COCO's) default; the other sets have masks as run lengths.
    cfg.INPUT.MASK_FORMAT = "polygon" if experiment.dataset.kind == "coco" else "bitmask"
    settings = _settings(experiment, train, test, device)
    owners = {each.key: each.owner for each in settings}
    for key, value in _leaves(experiment.detector.opts, cfg):
        if key in owners:
            raise ConfigError(f"{_OPTS}.{key} is set by {owners[key]}; set that instead")
        _merge(cfg, key, value)
    for each in settings:
        _merge(cfg, each.key, each.value)
    check_swin(cfg.MODEL.SWIN.VARIANT, cfg.MODEL.SWIN.DROP_PATH)
    if cfg.MODEL.MASK_ON and experiment.dataset.kind == "voc" and not experiment.dataset.voc.masks:
        raise ConfigError(
            "the detector predicts masks but this VOC data set has boxes only; "
            "set dataset=voc_masks or detector=faster_rcnn_r50_fpn"
        )
    cfg.BGAUG = CfgNode(plain(asdict(experiment)))
    return cfg


def experiment_from_cfg(cfg: CfgNode) -> ExperimentConfig:
    """The experiment that ``to_cfg`` put into ``cfg.BGAUG``."""
    return experiment_from_mapping(plain(cfg.BGAUG))


def _detector_cfg(config_file: str) -> CfgNode:
    from detectron2 import model_zoo
    from detectron2.config import get_cfg

    from bgaug_d2.swin import add_swin_config

    zoo = Path(model_zoo.__file__).parent / "configs"
    path = Path(config_file) if Path(config_file).is_file() else zoo / config_file
    if not path.is_file() or path.suffix not in {".yaml", ".yml"}:
        names = [str(each.relative_to(zoo)) for each in sorted(zoo.rglob("*.yaml"))]
        near = [each for each in names if Path(each).name == Path(config_file).name]
        near = near or difflib.get_close_matches(config_file, names, n=3, cutoff=0.5)
        raise ConfigError(
            f"detector.config_file={config_file!r} is neither a YAML file nor in the model zoo"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
    cfg = get_cfg()
    add_swin_config(cfg)
    try:
        cfg.merge_from_file(str(path))
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f"detector.config_file={config_file!r}: {error.args[0]}") from error
    return cfg


def _settings(
    experiment: ExperimentConfig, train: Sequence[str], test: Sequence[str], device: str
) -> list[_Setting]:
    schedule, num_classes = experiment.schedule, _num_classes(train[0])
    augment = experiment.augment
    # Detectron2 stops at a drop that falls on the end, where it changes nothing.
    steps = tuple(step for step in schedule.steps if step < schedule.iterations)
    return [
        _Setting("DATASETS.TRAIN", tuple(train), "dataset"),
        _Setting("DATASETS.TEST", tuple(test), "dataset"),
        _Setting("MODEL.ROI_HEADS.NUM_CLASSES", num_classes, "dataset"),
        _Setting("MODEL.RETINANET.NUM_CLASSES", num_classes, "dataset"),
        _Setting("MODEL.WEIGHTS", weights_path(experiment.detector.weights), "detector.weights"),
        _Setting("MODEL.DEVICE", device, "launch.device"),
        _Setting("SOLVER.MAX_ITER", schedule.iterations, "schedule.iterations"),
        _Setting("SOLVER.IMS_PER_BATCH", schedule.images_per_batch, "schedule.images_per_batch"),
        _Setting("SOLVER.BASE_LR", schedule.base_lr, "schedule.base_lr"),
        _Setting("SOLVER.WEIGHT_DECAY", schedule.weight_decay, "schedule.weight_decay"),
        # Biases decay like weights, those of normalisation do not: the default of newer versions.
        _Setting("SOLVER.WEIGHT_DECAY_BIAS", None, "schedule.weight_decay"),
        _Setting("SOLVER.STEPS", steps, "schedule.steps"),
        _Setting("SOLVER.WARMUP_ITERS", schedule.warmup_iters, "schedule.warmup_iters"),
        _Setting(
            "SOLVER.CHECKPOINT_PERIOD", schedule.checkpoint_period, "schedule.checkpoint_period"
        ),
        _Setting("TEST.EVAL_PERIOD", schedule.eval_period, "schedule.eval_period"),
        _Setting("DATALOADER.NUM_WORKERS", schedule.num_workers, "schedule.num_workers"),
        _Setting("DATALOADER.SAMPLER_TRAIN", SAMPLERS[augment.sampler], "augment.sampler"),
        _Setting(
            "DATALOADER.REPEAT_THRESHOLD", augment.repeat_threshold, "augment.repeat_threshold"
        ),
        _Setting("OUTPUT_DIR", experiment.output_dir, "output_dir"),
        _Setting("SEED", experiment.seed, "seed"),
    ]


def weights_path(weights: str) -> str:
    """``detector.weights`` as Detectron2 takes it: ``toy`` is a file of this package."""
    return str(TOY_BACKBONE) if weights == "toy" else weights


def _num_classes(name: str) -> int:
    from detectron2.data import MetadataCatalog

    classes = MetadataCatalog.get(name).get("thing_classes")
    if not classes:
        raise ConfigError(f"the data set {name!r} has no `thing_classes` in Detectron2's catalogue")
    return len(classes)


def _leaves(opts: Mapping[str, Any], node: CfgNode, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted Detectron2 keys and values of ``detector.opts``."""
    for name, value in opts.items():
        key = join(path, name)
        if name not in node:
            near = difflib.get_close_matches(str(name).upper(), list(node), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(node)}"
            raise ConfigError(f"{_OPTS}.{key}: Detectron2 has no such setting; {hint}")
        if isinstance(value, Mapping) and isinstance(node[name], Mapping):
            yield from _leaves(value, node[name], key)
        else:
            yield key, value


def _merge(cfg: CfgNode, key: str, value: Any) -> None:
    *sections, name = key.split(".")
    node = cfg
    for section in sections:
        node = node[section]
    if isinstance(node[name], float) and type(value) is int:
        value = float(value)  # yacs takes no 1 for 1.0
    try:
        # repr: yacs evaluates text as Python literals, and the text "1" must stay text.
        cfg.merge_from_list([key, repr(value) if isinstance(value, str) else value])
    except ValueError as error:
        wanted = type(node[name]).__name__
        raise ConfigError(f"{_OPTS}.{key}={value!r}: Detectron2 wants a {wanted}") from error
