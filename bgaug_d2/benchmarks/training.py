"""Measures what augmentation costs an iteration: baseline, all hits, and painting on the fly.

One detector is trained from three loaders in turn, an iteration each, so that other work on the
machine hits all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage

from bgaug_d2.augmentation import BackgroundAugmentation
from bgaug_d2.benchmarks.loader import paced_painting
from bgaug_d2.config.bgaug import BgAugConfig, CacheConfig, WorkerConfig
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.catalogue import DatasetHandle
from bgaug_d2.data.register import register_dataset
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.pixels.read import read_image
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.from_cfg import baseline_loader, train_dicts
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.training.trainer import BgAugTrainer, build_optimizer

_WARM_UP = 3
_PAINTED_PER_S = 4.0  # on the fly, beside training


def measure_training(
    experiment: ExperimentConfig, device: str, iterations: int, folder: Path
) -> dict[str, float]:
    """Median milliseconds of an iteration, data included, and each against the baseline.

    Args:
        experiment: Data set, detector and batch; its augmentation does not matter.
        device: ``cpu`` or ``cuda``.
        iterations: How many each loader gets.
        folder: For caches.

    Returns:
        ``baseline_ms``, ``hits_ms``, ``on_the_fly_ms``, ``hits_ratio`` and ``on_the_fly_ratio``:
        the median of the ratios of neighbouring iterations.
    """
    handle = register_dataset(experiment.dataset)
    cfg = to_cfg(experiment, handle.train, handle.test, device)
    filled = _settings(folder / "filled", "error")
    empty = _settings(folder / "empty", "original")
    with (
        paced_painting(filled, handle, 1.0) as nobody,
        paced_painting(empty, handle, _PAINTED_PER_S) as painter,
    ):
        hits = BackgroundAugmentation(filled, nobody)
        on_the_fly = BackgroundAugmentation(empty, painter)
        _fill(hits, handle, cfg)
        loaders = {
            "baseline": baseline_loader(cfg, dataset_dicts=train_dicts(cfg)),
            "hits": hits.train_loader(cfg),
            "on_the_fly": on_the_fly.train_loader(cfg),
        }
        try:
            seconds = _train_in_turns(cfg, loaders, iterations)
        finally:
            hits.close()
            on_the_fly.close()
    found = {f"{name}_ms": 1e3 * statistics.median(each) for name, each in seconds.items()}
    for name in ("hits", "on_the_fly"):
        pairs = zip(seconds[name], seconds["baseline"], strict=True)
        # Of neighbours in time: what slows the machine for a while cancels out.
        found[f"{name}_ratio"] = statistics.median(one / other for one, other in pairs)
    return found


def _settings(folder: Path, on_miss: str) -> BgAugConfig:
    return BgAugConfig(
        mode="replace",
        p=1.0,
        variants=1,
        on_miss=on_miss,
        cache=CacheConfig(dir=str(folder)),
        worker=WorkerConfig(devices=["cpu"]),
        recipe=RecipeConfig(resolution=64),
    )


def _fill(augmentation: BackgroundAugmentation, handle: DatasetHandle, cfg: CfgNode) -> None:
    """Put a picture for every image into the cache; inverted colours cost as much to read."""
    planner = augmentation.planner(MetadataCatalog.get(handle.train[0]).thing_classes)
    for each in DatasetCatalog.get(handle.train[0]):
        picture = encode_picture(255 - read_image(each["file_name"]), "png")
        plan = planner.plan_variant(each, 1)
        if plan.key is not None:
            augmentation.cache.put(plan.key, picture, {})


def _train_in_turns(
    cfg: CfgNode, loaders: dict[str, CountedLoader], iterations: int
) -> dict[str, list[float]]:
    model = BgAugTrainer.build_model(cfg).train()
    optimizer = build_optimizer(cfg, model, "sgd")
    # One model for all loaders: only the loading differs.
    batches = {name: iter(loader) for name, loader in loaders.items()}
    seconds: dict[str, list[float]] = defaultdict(list)
    with EventStorage():
        for iteration in range(_WARM_UP + iterations):
            for name, each in batches.items():
                began = time.perf_counter()
                # The next batch is part of what is timed: waiting for it is the cost in question.
                loss = sum(model(next(each)).values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if cfg.MODEL.DEVICE == "cuda":  # its calls return before they are done
                    torch.cuda.synchronize()
                if iteration >= _WARM_UP:
                    seconds[name].append(time.perf_counter() - began)
    return seconds
