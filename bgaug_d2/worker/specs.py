"""From settings to what one painting process gets when it starts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.worker.devices import cpu_threads
from bgaug_d2.worker.engines import EngineKind
from bgaug_d2.worker.painter_info import PainterInfo
from bgaug_d2.worker.protocol import WorkerSpec


def worker_spec(
    settings: BgAugConfig,
    engine: EngineKind,
    painter: PainterInfo,
    model_path: Path,
    device: str,
    use_all_cores: bool,
) -> WorkerSpec:
    """The spec of the painting process on one device.

    Args:
        settings: Cache, recipe and painting processes.
        engine: What paints.
        painter: Model and data set.
        model_path: The folder that ``EngineKind.identify`` found.
        device: ``cpu``, or ``cuda:N``.
        use_all_cores: See ``cpu_threads``; matters on a CPU only.
    """
    worker = settings.worker
    options = {
        "model_path": str(model_path),
        "identity": asdict(painter.identity),
        "device": device,
        "dtype": painter.dtype,
        "max_batch_rows": worker.max_batch_rows,
    }
    if worker.compile:  # the UNet is compiled for pictures of one size
        options["compile"] = settings.recipe.resolution
        options["cuda_graphs"] = worker.cuda_graphs
    if device == "cpu":
        # By itself torch would take all cores in each of the processes.
        options["threads"] = cpu_threads(len(worker.devices), use_all_cores)
    return WorkerSpec(
        engine=engine.builder,
        engine_options=options,
        cache_dir=settings.cache.dir,
        image_root=painter.image_root,
        recipe_model_sha256=painter.identity.sha256,
        dtype=painter.dtype,
        cache_max_bytes=settings.cache.max_bytes,
        threads=worker.threads,
        queue_size=worker.queue_size,
    )
