"""The painting processes of one machine, and what training processes have to know about them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bgaug_d2.config.bgaug import BgAugConfig, InpainterConfig, WorkerConfig
from bgaug_d2.errors import ConfigError, WorkerStartError
from bgaug_d2.inpaint.model.identity import TOY_BACKGROUNDS, identify, resolve_dtype
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.worker.client import WorkerClient
from bgaug_d2.worker.pool import WorkerPool
from bgaug_d2.worker.protocol import WorkerSpec

logger = logging.getLogger(__name__)

ENGINE = "bgaug_d2.inpaint.build:build_engine"
DRAWING_ENGINE = "bgaug_d2.data.toy.drawing_engine:build_drawing_engine"


@dataclass(frozen=True)
class Painting:
    """What a training process has to know about painting: plain values, picklable.

    Attributes:
        identity: Which weights paint; part of every cache key.
        dtype: ``float32`` or ``bfloat16``, as the painting processes run; part of every key.
        image_root: Folder that holds all images; nothing outside it is opened.
        addresses: Sockets of this machine's painting processes; empty where none runs.
    """

    identity: ModelIdentity
    dtype: str
    image_root: str
    addresses: tuple[str, ...] = ()

    @classmethod
    def from_mapping(cls, content: dict[str, Any]) -> Painting:
        """The inverse of ``dataclasses.asdict``, with lists for tuples."""
        fields = {**content, "identity": ModelIdentity(**content["identity"])}
        return cls(**{**fields, "addresses": tuple(content["addresses"])})


class PaintingWorkers:
    """The painting processes of one machine while they run.

    Attributes:
        painting: For the training processes.
        pool: The processes; None where none could be, or need be, started.
    """

    def __init__(self, painting: Painting, pool: WorkerPool | None) -> None:
        self.painting = painting
        self.pool = pool

    def stats(self) -> dict[str, Any] | None:
        """``WorkerPool.stats``: restarts, counters of each process; None if none was started."""
        return self.pool.stats() if self.pool else None


@contextlib.contextmanager
def painting_workers(
    settings: BgAugConfig,
    inpainter: InpainterConfig,
    image_root: str,
    model: tuple[ModelIdentity, Path] | None = None,
    log_dir: str | None = None,
    alone: bool = False,
) -> Iterator[PaintingWorkers]:
    """Start the painting processes of this machine and stop them at the end.

    Call it before training processes are launched. With ``on_miss=error`` nothing is ever asked
    for, so nothing is started. With ``on_miss=original`` a start that fails is a warning: training
    goes on with what the cache has.

    Args:
        settings: Cache, painting processes, and what a draw does on a miss.
        inpainter: The model.
        image_root: Folder that holds all images of the data set.
        model: What ``identify(inpainter)`` returned, where it was called already.
        log_dir: Folder for the processes' logs; None keeps them until the end only.
        alone: Nothing trains meanwhile: where a CPU paints, it does with all of its cores, else
            with half of them.

    Raises:
        ConfigError: The inpainter cannot paint the recipe's target.
        ModelError: The model cannot be had. Without it not even a cache key is known.
        WorkerStartError: A process did not start, and ``on_miss`` is ``wait``.
    """
    devices = worker_devices(settings.worker)
    identity, model_path = model or identify(inpainter)
    _check_target(settings, identity)
    painting = Painting(identity, resolve_dtype(inpainter, devices[0]), image_root)
    pool = None
    if settings.on_miss != "error":
        specs = [_worker_spec(settings, painting, model_path, each, alone) for each in devices]
        pool = _start(WorkerPool(specs, settings.worker, log_dir), settings)
    try:
        addresses = tuple(pool.addresses) if pool else ()
        yield PaintingWorkers(replace(painting, addresses=addresses), pool)
    finally:
        if pool:
            pool.stop()


def painting_without_workers(
    settings: BgAugConfig, inpainter: InpainterConfig, image_root: str, identity: ModelIdentity
) -> Painting:
    """What is needed to look pictures up, but not to ask for them.

    Raises:
        ConfigError: The inpainter cannot paint the recipe's target.
    """
    _check_target(settings, identity)
    device = worker_devices(settings.worker)[0]
    return Painting(identity, resolve_dtype(inpainter, device), image_root)


def worker_devices(worker: WorkerConfig) -> list[str]:
    """The torch devices that paint; ``auto`` means every GPU, or the CPU where there is none.

    Raises:
        ConfigError: ``auto`` beside others, or CPU and GPUs mixed: all have one number format.
    """
    devices = list(worker.devices)
    if devices == ["auto"]:
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    if "auto" in devices or len({each.partition(":")[0] for each in devices}) > 1:
        raise ConfigError(
            f"worker.devices={devices} is not allowed; give [auto], or CPUs only, or GPUs only"
        )
    return devices


def worker_client(addresses: Sequence[str], worker: WorkerConfig) -> WorkerClient | None:
    """The way to the painting processes, or None where none runs."""
    if not addresses:
        return None
    return WorkerClient(
        list(addresses), worker.deadline_s, worker.breaker_failures, worker.breaker_cooldown_s
    )


def cache_bytes(settings: BgAugConfig) -> int:
    """The cache's quota in bytes; 0 means none."""
    return int(settings.cache.max_gb * 1e9)


def _check_target(settings: BgAugConfig, identity: ModelIdentity) -> None:
    if settings.recipe.paints_objects and identity.id == TOY_BACKGROUNDS:
        raise ConfigError(
            f"inpainter.model={TOY_BACKGROUNDS!r} draws backgrounds only, and bgaug.recipe.target="
            f"{settings.recipe.target!r} wants objects; choose inpainter=tiny or target=background"
        )


def _start(pool: WorkerPool, settings: BgAugConfig) -> WorkerPool | None:
    try:
        pool.start()
    except WorkerStartError as error:
        if settings.on_miss != "original":
            raise
        logger.warning(
            "no painting process could be started (%s); training goes on with the pictures that "
            "the cache %s already has, all other draws show their originals",
            error,
            settings.cache.dir,
        )
        return None
    return pool


def _worker_spec(
    settings: BgAugConfig, painting: Painting, model_path: Path, device: str, alone: bool
) -> WorkerSpec:
    options = {
        "model_path": str(model_path),
        "identity": asdict(painting.identity),
        "device": device,
        "dtype": painting.dtype,
        "max_batch_rows": settings.worker.rows,
    }
    if settings.worker.compile:
        options["compile"] = settings.recipe.resolution
        options["cuda_graphs"] = settings.worker.cuda_graphs
    if device == "cpu":
        cores = len(os.sched_getaffinity(0)) // (1 if alone else 2)
        options["threads"] = max(1, cores // len(settings.worker.devices))
    return WorkerSpec(
        engine=DRAWING_ENGINE if painting.identity.id == TOY_BACKGROUNDS else ENGINE,
        engine_options=options,
        cache_dir=settings.cache.dir,
        image_root=painting.image_root,
        recipe_model_sha256=painting.identity.sha256,
        dtype=painting.dtype,
        cache_max_bytes=cache_bytes(settings),
        threads=settings.worker.threads,
        queue_size=settings.worker.queue_size,
    )
