"""``results.json``: what a run measured, and everything needed to know what it measured it with."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.parse import plain
from bgaug_d2.inpaint.model.identity import RANDOM_LICENSE
from bgaug_d2.runs.environment import machine, versions
from bgaug_d2.training.progress_hook import TrainingStats
from bgaug_d2.worker.painter_info import PainterInfo

SCHEMA = 1
_PER_CLASS = {"AP": "per_class", "AP50": "per_class_AP50"}


def build_results(
    experiment: ExperimentConfig,
    metrics: Mapping[str, Any],
    stats: TrainingStats | None,
    painting: PainterInfo | None,
    breakdown: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything about a run except what only the launching process knows (``add_painting_stats``).

    Args:
        experiment: As configured.
        metrics: Of Detectron2's evaluators: ``bbox`` (and ``segm``) with ``AP``, ``AP50``,
            ``AP75``, ``APs``, ``APm``, ``APl``, ``AP-<class>`` (of VOC ``AP50-<class>``); with
            several sets a level more.
        stats: How training went; None when only an evaluation was run.
        painting: Which model painted; None for a baseline.
        breakdown: Of ``data.breakdown``, by task; with several sets a level more.
    """
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "name": experiment.name,
        "seed": experiment.seed,
        "eval_only": experiment.eval_only,
        "iterations": experiment.schedule.iterations,
        "images_per_batch": experiment.schedule.images_per_batch,
        "training_processes": experiment.launch.num_gpus * experiment.launch.num_machines,
        "dataset": _dataset(experiment),
        "detector": experiment.detector.config_file,
        "bgaug": _augmentation(experiment),
        "metrics": {task: split_classes(values) for task, values in metrics.items()},
        "breakdown": plain(breakdown or {}),
        "training": None if stats is None else _training(experiment, stats),
        "outcomes": {} if stats is None else stats.outcomes,
        "look_ahead": {} if stats is None else stats.look_ahead,
        "inpainter": None if painting is None else _inpainter(painting),
        "machine": machine(),
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return results


def split_classes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Detectron2's flat metrics with the entries of single classes in tables of their own.

    ``AP-<class>`` is in ``per_class``, ``AP50-<class>`` in ``per_class_AP50``.
    """
    split: dict[str, Any] = {}
    for name, value in values.items():
        metric, dash, class_name = name.partition("-")
        if dash and metric in _PER_CLASS:
            split.setdefault(_PER_CLASS[metric], {})[class_name] = value
        else:
            split[name] = plain(value)
    return split


def results_path(experiment: ExperimentConfig) -> Path:
    """``results.json``; of an evaluation alone another name, beside those of the training."""
    name = "results_eval_only.json" if experiment.eval_only else "results.json"
    return Path(experiment.output_dir) / name


def is_finished(experiment: ExperimentConfig) -> bool:
    """Whether a run that is to be resumed has its results already, for as many iterations."""
    path = results_path(experiment)
    if not experiment.resume or experiment.eval_only or not path.is_file():
        return False
    iterations = json.loads(path.read_text())["iterations"]
    return bool(iterations == experiment.schedule.iterations)


def write_results(results: Mapping[str, Any], path: Path) -> None:
    """Write the file at once or not at all; NaN, which JSON has not, becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(_finite(results), indent=2, allow_nan=False) + "\n")
    os.replace(draft, path)


def add_painting_stats(path: Path, workers: Mapping[str, Any] | None) -> None:
    """Add what the painting processes counted to the results that a training process wrote."""
    write_results({**json.loads(path.read_text()), "workers": workers}, path)


def _dataset(experiment: ExperimentConfig) -> dict[str, Any]:
    dataset = experiment.dataset
    found: dict[str, Any] = {"kind": dataset.kind, "root": dataset.root}
    if dataset.kind == "coco":
        found |= {"percent": dataset.coco.percent, "fold": dataset.coco.fold}
    if dataset.kind == "registered":
        found |= {"train": dataset.train_names, "test": dataset.test_names}
    return found


def _augmentation(experiment: ExperimentConfig) -> dict[str, Any]:
    settings = experiment.bgaug
    by_mode: dict[str, dict[str, Any]] = {
        "none": {},
        "duplicate": {"alpha": settings.alpha, "weighting": settings.weighting},
        "replace": {"p": settings.p, "variants": settings.variants},
        "expand": {"alpha": settings.alpha, "weighting": settings.weighting},
    }
    common = {"on_miss": settings.on_miss} if settings.paints else {}
    return {"mode": settings.mode, **by_mode[settings.mode], **common}


def _training(experiment: ExperimentConfig, stats: TrainingStats) -> dict[str, Any]:
    iterations = stats.end_iter - stats.start_iter
    images = iterations * experiment.schedule.images_per_batch
    return {
        "start_iter": stats.start_iter,
        "end_iter": stats.end_iter,
        "wall_s": round(stats.wall_s, 3),
        "train_s": round(stats.train_s, 3),
        "data_s": round(stats.wait_s, 3),
        "data_s_per_iteration": round(stats.wait_s / iterations, 5) if iterations else None,
        "images_per_s": round(images / stats.train_s, 3) if stats.train_s > 0 else None,
    }


def _inpainter(painting: PainterInfo) -> dict[str, Any]:
    identity = painting.identity
    return {
        "id": identity.id,
        "revision": identity.revision,
        "sha256": identity.sha256,
        "license": identity.license,
        "dtype": painting.dtype,
        "random_weights": identity.license == RANDOM_LICENSE,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
