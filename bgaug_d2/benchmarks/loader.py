"""Measures how long training waits for its loader, and how many draws are augmented.

A step of training is a pause of a given length; painting is ``paced_engine`` at a given speed. Each
augmented draw asks for a new picture, so the cache stays cold unless look-ahead fills it.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from bgaug_d2.augmentation import BackgroundAugmentation
from bgaug_d2.config.bgaug import BgAugConfig, CacheConfig, WorkerConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.catalogue import DatasetHandle
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.from_cfg import baseline_loader, train_dicts
from bgaug_d2.worker.painter_info import PainterInfo
from bgaug_d2.worker.pool import WorkerPool
from bgaug_d2.worker.protocol import WorkerSpec

ENGINE = "bgaug_d2.benchmarks.paced_engine:build_paced_engine"
_IDENTITY = ModelIdentity("paced", "", "0" * 64, "none")
_NEW_EVERY_TIME = 10_000  # variants of an image: a draw hardly ever repeats one


@dataclass(frozen=True)
class Pace:
    """What is simulated.

    Attributes:
        step_s: Seconds of a training step.
        images_per_batch: Images of a step.
        p: Share of draws that are augmented.
        steps: Steps measured, after ``warm_up`` others.
        warm_up: Steps before.
        look_ahead: Draws looked ahead in the situations with look-ahead.
        num_workers: Loader processes.
    """

    step_s: float = 0.2
    images_per_batch: int = 4
    p: float = 0.5
    steps: int = 40
    warm_up: int = 20
    look_ahead: int = 64
    num_workers: int = 1

    @property
    def needed(self) -> float:
        """Painted pictures a second that training asks for."""
        return self.p * self.images_per_batch / self.step_s


@dataclass(frozen=True)
class Situation:
    """One line: what a miss does, and the painting's speed as a share of what is needed."""

    on_miss: str
    look_ahead: bool
    speed: float


SITUATIONS = tuple(
    Situation(on_miss, look_ahead, speed)
    for on_miss in ("original", "wait")
    for look_ahead in (False, True)
    for speed in (0.5, 1.5)
)


def measure_loader(
    handle: DatasetHandle, pace: Pace, situations: Sequence[Situation] = SITUATIONS
) -> list[dict[str, Any]]:
    """A line per situation, after one for Detectron2's own mapper.

    Returns:
        Each line has its situation, ``images_per_s``, ``stall_share`` (the share of time that
        training waited, 0..1) and ``augmented_share`` (painted draws among those that the policy
        wanted augmented, 0..1).
    """
    cfg = _cfg(handle, pace)
    plain = baseline_loader(cfg, dataset_dicts=train_dicts(cfg))
    lines = [{"on_miss": "none", **_train(plain, pace)}]
    for situation in situations:
        # A new folder each time: a situation must not find pictures of the one before.
        with tempfile.TemporaryDirectory(prefix="bgaug-loader-") as folder:
            lines.append(asdict(situation) | _measure(handle, cfg, pace, situation, folder))
    return lines


def _measure(
    handle: DatasetHandle, cfg: CfgNode, pace: Pace, situation: Situation, folder: str
) -> dict[str, float]:
    settings = BgAugConfig(
        mode="replace",
        p=pace.p,
        variants=_NEW_EVERY_TIME,
        on_miss=situation.on_miss,
        look_ahead=pace.look_ahead if situation.look_ahead else 0,
        cache=CacheConfig(dir=str(Path(folder) / "cache")),
        worker=WorkerConfig(devices=["cpu"]),
        recipe=RecipeConfig(resolution=64),  # small: only the given pace is to take time
    )
    with paced_painting(settings, handle, situation.speed * pace.needed) as painting:
        augmentation = BackgroundAugmentation(settings, painting)
        try:
            return _train(augmentation.train_loader(cfg), pace)
        finally:
            augmentation.close()


@contextlib.contextmanager
def paced_painting(
    settings: BgAugConfig, handle: DatasetHandle, images_per_s: float
) -> Iterator[PainterInfo]:
    """A painting process of a given speed, for a data set and the cache of ``settings``."""
    painting = PainterInfo(_IDENTITY, "float32", handle.image_root)
    spec = WorkerSpec(
        engine=ENGINE,
        engine_options={"images_per_s": images_per_s},
        cache_dir=settings.cache.dir,
        image_root=handle.image_root,
        recipe_model_sha256=_IDENTITY.sha256,
        dtype=painting.dtype,
    )
    with WorkerPool([spec], settings.worker) as pool:
        yield replace(painting, addresses=tuple(pool.addresses))


def _train(loader: CountedLoader, pace: Pace) -> dict[str, float]:
    batches = iter(loader)
    for _ in range(pace.warm_up):
        next(batches)
        time.sleep(pace.step_s)
    before, waited, began = Counter(loader.totals), loader.wait_s, time.perf_counter()
    for _ in range(pace.steps):
        next(batches)
        time.sleep(pace.step_s)
    seconds = time.perf_counter() - began
    outcomes = Counter(loader.totals) - before
    # The outcome original is the policy's choice; a miss, too, shows an original but was wanted.
    wanted = outcomes.total() - outcomes["original"]
    return {
        "images_per_s": pace.steps * pace.images_per_batch / seconds,
        "stall_share": (loader.wait_s - waited) / seconds,
        "augmented_share": outcomes["hit"] / wanted if wanted else 0.0,
    }


def _cfg(handle: DatasetHandle, pace: Pace) -> CfgNode:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = tuple(handle.train)
    cfg.DATALOADER.NUM_WORKERS = pace.num_workers
    cfg.SOLVER.IMS_PER_BATCH = pace.images_per_batch
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)  # no resizing: the loader is not to be the bottleneck
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.SEED = 0  # the same draws in all situations
    return cfg
