"""What the runs of a plan will take, in GPU hours and disk, by rates that were measured."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

import yaml

from bgaug_d2.config.experiment import CocoConfig, DatasetConfig, ExperimentConfig
from bgaug_d2.config.parse import experiment_from_mapping
from bgaug_d2.errors import ReportError

# Images with objects, which Detectron2 trains on: COCO 2017 train, VOC 2007 + 2012 trainval, and
# those of the latter that have instance masks.
_COCO_IMAGES, _VOC_IMAGES, _VOC_MASK_IMAGES = 117_266, 16_551, 2_913


@dataclass(frozen=True)
class Rates:
    """Measured rates; what is not known is left out or None.

    Attributes:
        iteration_s: Seconds of an iteration on one GPU, by ``detector_key``.
        images_per_s: Pictures that one GPU paints in a second, by ``paint_key``.
        bytes_per_image: Size of a painted picture, by ``paint_key``.
    """

    iteration_s: dict[str, float] = field(default_factory=dict)
    images_per_s: dict[str, float] = field(default_factory=dict)
    bytes_per_image: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CostEstimate:
    """What the missing runs of one cell will take; None where no rate is known.

    Attributes:
        runs: Number of runs.
        iterations: Optimizer steps of one run.
        training_hours: GPU hours of all runs.
        pictures: Pictures to paint for all runs, if no other cell has had the same ones painted;
            None where the size of the data set is not known.
        painting_hours: GPU hours.
        gigabytes: Size of the pictures, in 10**9 bytes.
    """

    runs: int
    iterations: int
    training_hours: float | None
    pictures: int | None
    painting_hours: float | None
    gigabytes: float | None


def detector_key(experiment: ExperimentConfig) -> str:
    """Runs with one key need the same time for an iteration: same detector, same batch."""
    detector = asdict(experiment.detector)
    # Start weights change what is learnt, not how long a step takes.
    del detector["weights"]
    return json.dumps([detector, experiment.schedule.images_per_batch], sort_keys=True)


def paint_key(experiment: ExperimentConfig) -> str:
    """Runs with one key paint equally fast: same model, same amount of work a picture."""
    recipe = experiment.bgaug.recipe
    work = [
        recipe.num_inference_steps,
        recipe.step_policy,
        recipe.D,
        recipe.resolution,
        recipe.target,
    ]
    work += [recipe.deepcache_interval]
    # Guidance doubles the work of a step, whatever its scale.
    guidance = [recipe.guidance_scale > 1, recipe.guidance_interval]
    inpainter = [experiment.inpainter.engine, experiment.inpainter.model]
    return json.dumps([*inpainter, experiment.dataset.kind, *work, *guidance])


def measured_rates(folder: Path) -> Rates:
    """Medians over all runs and paintings below a folder.

    Raises:
        ReportError: A file is malformed.
    """
    iteration_s: dict[str, list[float]] = {}
    images_per_s: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for path in sorted(folder.rglob("results.json")):
        with _named(path):
            if experiment := _experiment(path.with_name("config_resolved.yaml")):
                _add_training(path, experiment, iteration_s)
    for path in sorted(folder.rglob("generate_report.json")):
        # `bgaug paint` keeps its configuration apart from the training's in the same folder.
        with _named(path):
            if experiment := _experiment(path.parent / "painting" / "config_resolved.yaml"):
                _add_painting(path, experiment, images_per_s, sizes)
    return Rates(*(_medians(each) for each in (iteration_s, images_per_s, sizes)))


def estimate_cost(experiments: Sequence[ExperimentConfig], rates: Rates) -> CostEstimate:
    """What the runs of one cell take.

    Pictures depend on the images, not on the seed: runs that share their images share them.

    Args:
        experiments: A run per seed; they differ in the seed, and in their images where these go
            with the seed (folds of COCO, toy worlds).
        rates: Measured ones.
    """
    first, count = experiments[0], len(experiments)
    iterations = first.schedule.iterations
    iteration_s = rates.iteration_s.get(detector_key(first))
    hours = None if iteration_s is None else count * iterations * iteration_s / 3600
    if not first.bgaug.paints:
        return CostEstimate(count, iterations, hours, 0, 0.0, 0.0)
    images, settings = num_images(first.dataset), first.bgaug
    if images is None:
        return CostEstimate(count, iterations, hours, None, None, None)
    per_image = settings.alpha if settings.mode == "expand" else settings.variants
    image_sets = {json.dumps(asdict(each.dataset), sort_keys=True) for each in experiments}
    pictures, key = images * per_image * len(image_sets), paint_key(first)
    rate, size = rates.images_per_s.get(key), rates.bytes_per_image.get(key)
    return CostEstimate(
        runs=count,
        iterations=iterations,
        training_hours=hours,
        pictures=pictures,
        painting_hours=None if rate is None else pictures / rate / 3600,
        gigabytes=None if size is None else pictures * size / 1e9,
    )


def num_images(dataset: DatasetConfig) -> int | None:
    """Training images by what is known of the public data sets, without reading any; else None."""
    if dataset.is_toy:
        count = dataset.toy.num_train
    # Another file of annotations has another number of images.
    elif dataset.kind == "coco" and dataset.coco == replace(
        CocoConfig(), percent=dataset.coco.percent, fold=dataset.coco.fold
    ):
        count = int(_COCO_IMAGES * dataset.coco.percent / 100)
    elif dataset.kind == "voc":
        count = _VOC_MASK_IMAGES if dataset.voc.masks else _VOC_IMAGES
    else:
        return None
    return min(count, dataset.max_train_images) if dataset.max_train_images else count


def _experiment(path: Path) -> ExperimentConfig | None:
    return experiment_from_mapping(yaml.safe_load(path.read_text())) if path.is_file() else None


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in the error about its content."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ReportError(f"{path}: {type(error).__name__}: {error}") from error


def _add_training(path: Path, experiment: ExperimentConfig, found: dict[str, list[float]]) -> None:
    content = json.loads(path.read_text())
    # A run that only evaluated has no training to measure.
    training = content.get("training") or {"start_iter": 0, "end_iter": 0}
    done = training["end_iter"] - training["start_iter"]
    if done:
        # As on one GPU: N processes share the batch, so together they take N times their time.
        seconds = training["train_s"] / done * content["training_processes"]
        found.setdefault(detector_key(experiment), []).append(seconds)


def _add_painting(
    path: Path,
    experiment: ExperimentConfig,
    images_per_s: dict[str, list[float]],
    sizes: dict[str, list[float]],
) -> None:
    report = json.loads(path.read_text())
    painted = report.get("counts", {}).get("painted", 0)
    if not painted:
        return
    # The report's rate is that of all painting processes together.
    key, workers = paint_key(experiment), len(report["workers"]["workers"])
    images_per_s.setdefault(key, []).append(report["images_per_s"] / workers)
    sizes.setdefault(key, []).append(report["num_bytes"] / painted)


def _medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    # A median, so that one run on a busy machine does not count much.
    return {key: median(values) for key, values in found.items()}
