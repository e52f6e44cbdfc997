"""From ``ExperimentConfig`` to Detectron2's ``CfgNode``.

Detectron2 is imported inside functions, so that the checks of a command line are quick and do not
need it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.parse import OPTS, join
from bgaug_d2.errors import ConfigError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

TOY_BACKBONE = Path(__file__).parents[1] / "data" / "toy_backbone.safetensors"

# augment.sampler -> Detectron2's name.
SAMPLERS = {"uniform": "TrainingSampler", "repeat_factor": "RepeatFactorTrainingSampler"}


@dataclass(frozen=True)
class _Setting:
    """A Detectron2 setting that one of our keys owns."""

    key: str
    value: Any
    owner: str


def to_cfg(
    experiment: ExperimentConfig, train: Sequence[str], test: Sequence[str], device: str
) -> CfgNode:
    """Detectron2's configuration of a run.

    Args:
        experiment: The run.
        train: Names in Detectron2's catalogues, registered already; the classes are taken there.
        test: The same of the test sets.
        device: ``cuda`` or ``cpu``.

    Raises:
        ConfigError: An unknown model-zoo name or Detectron2 key, a key in ``detector.opts`` that
            another of our keys owns, or masks wanted from a data set of boxes.
    """
    from bgaug_d2.training.swin import check_swin

    cfg = _detector_cfg(experiment.detector.config_file)
    # Polygons are Detectron2's (and COCO's) default; the other sets have masks as run lengths.
    cfg.INPUT.MASK_FORMAT = "polygon" if experiment.dataset.kind == "coco" else "bitmask"
    settings = _settings(experiment, train, test, device)
    owners = {each.key: each.owner for each in settings}
    for key, value in _leaves(experiment.detector.opts, cfg):
        if key in owners:
            raise ConfigError(f"{OPTS}.{key} is set by {owners[key]}; set that instead")
        _merge(cfg, key, value)
    for each in settings:
        _merge(cfg, each.key, each.value)
    check_swin(cfg.MODEL.SWIN.VARIANT, cfg.MODEL.SWIN.DROP_PATH)
    if cfg.MODEL.MASK_ON and experiment.dataset.kind == "voc" and not experiment.dataset.voc.masks:
        raise ConfigError(
            "the detector predicts masks but this VOC data set has boxes only; "
            "set dataset=voc_masks or detector=faster_rcnn_r50_fpn"
        )
    return cfg


def _detector_cfg(config_file: str) -> CfgNode:
    from detectron2 import model_zoo
    from detectron2.config import get_cfg

    from bgaug_d2.training.swin import add_swin_config

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
    # Before the merge, so that the file may set the backbone's keys.
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
    steps = tuple(step for step in schedule.lr_drops if step < schedule.iterations)
    return [
        _Setting("DATASETS.TRAIN", tuple(train), "dataset"),
        _Setting("DATASETS.TEST", tuple(test), "dataset"),
        # Both kinds of heads get the number; a detector reads that of its own.
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
        _Setting("SOLVER.STEPS", steps, "schedule.lr_drops"),
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
            raise ConfigError(f"{OPTS}.{key}: Detectron2 has no such setting; {hint}")
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
        raise ConfigError(f"{OPTS}.{key}={value!r}: Detectron2 wants a {wanted}") from error
