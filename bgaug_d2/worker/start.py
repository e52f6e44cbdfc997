"""Starts the painting processes of one machine and ends them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bgaug_d2.config.bgaug import BgAugConfig, InpainterConfig
from bgaug_d2.errors import WorkerStartError
from bgaug_d2.inpaint.model.identity import resolve_dtype
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.worker.devices import worker_devices
from bgaug_d2.worker.engines import ENGINES, check_target, identify_inpainter
from bgaug_d2.worker.painter_info import PainterInfo
from bgaug_d2.worker.pool import WorkerPool
from bgaug_d2.worker.specs import worker_spec

logger = logging.getLogger(__name__)


class PaintingSession:
    """The painting processes of one machine while they run.

    Attributes:
        painter: For the training processes.
        pool: The processes; None if none is needed or none could start.
    """

    def __init__(self, painter: PainterInfo, pool: WorkerPool | None) -> None:
        self.painter = painter
        self.pool = pool

    def stats(self) -> dict[str, Any] | None:
        """``WorkerPool.stats``: restarts, counters of each process; None if there is no pool."""
        return self.pool.stats() if self.pool else None


@contextlib.contextmanager
def painting_workers(
    settings: BgAugConfig,
    inpainter: InpainterConfig,
    image_root: str,
    model: tuple[ModelIdentity, Path] | None = None,
    log_dir: str | None = None,
    use_all_cores: bool = False,
) -> Iterator[PaintingSession]:
    """Start the painting processes of this machine and stop them at the end.

    Call it before training processes are launched. With ``on_miss=error`` nobody asks for a
    picture, so nothing is started. With ``on_miss=original`` a failed start is a warning: training
    goes on with what the cache has.

    Args:
        settings: Cache, painting processes, and what a draw does on a miss.
        inpainter: The model.
        image_root: Folder that holds all images of the data set.
        model: What ``identify_inpainter`` returned, if the caller has called it already.
        log_dir: Folder for the processes' logs; None deletes them at the end.
        use_all_cores: Whether painting on a CPU takes all of its cores, because nothing trains
            meanwhile, or half of them.

    Raises:
        ConfigError: No inpainter is chosen, or it cannot paint the recipe's target.
        ModelError: The model cannot be found or fetched. Without it not even a cache key is known.
        WorkerStartError: A process did not start, and ``on_miss`` is ``wait``.
    """
    devices = worker_devices(settings.worker)
    # To identify a model can mean to read all of its weights, so it is not done twice.
    identity, model_path = model or identify_inpainter(inpainter)
    check_target(inpainter, settings.recipe)
    # The first device stands for all: `worker_devices` allows one kind only.
    painter = PainterInfo(identity, resolve_dtype(inpainter, devices[0]), image_root)
    pool = None
    if settings.on_miss != "error":  # else nobody would ask the processes for anything
        engine = ENGINES[inpainter.engine]
        specs = [
            worker_spec(settings, engine, painter, model_path, device, use_all_cores)
            for device in devices
        ]
        pool = _start(WorkerPool(specs, settings.worker, log_dir), settings)
    try:
        addresses = tuple(pool.addresses) if pool else ()
        yield PaintingSession(replace(painter, addresses=addresses), pool)
    finally:
        if pool:
            pool.stop()


def painting_without_workers(
    settings: BgAugConfig, inpainter: InpainterConfig, image_root: str, identity: ModelIdentity
) -> PainterInfo:
    """What is needed to look pictures up, but not to ask for them.

    Raises:
        ConfigError: The inpainter cannot paint the recipe's target.
    """
    check_target(inpainter, settings.recipe)
    # Also without painting: the device may decide the dtype, which is in every key.
    device = worker_devices(settings.worker)[0]
    return PainterInfo(identity, resolve_dtype(inpainter, device), image_root)


def _start(pool: WorkerPool, settings: BgAugConfig) -> WorkerPool | None:
    try:
        pool.start()
    except WorkerStartError as error:
        # With on_miss=original no fault of painting may end training (rule 4 of docs/design.md).
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
