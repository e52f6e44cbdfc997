"""Paints backgrounds before training: every picture that an experiment can ask for, into the cache.

What was painted earlier is found there, so an interrupted run goes on when it is started again.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from bgaug_d2.augmentation import BackgroundAugmentation
from bgaug_d2.cache.store import CacheEntry, Rejection, VariantCache
from bgaug_d2.config.bgaug import CPU_ROWS, GPU_ROWS, WorkerConfig
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.data.register import DatasetHandle, register_dataset
from bgaug_d2.errors import AnnotationError, ConfigError, ImageError, PromptError
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.painting.prepare import SKIP_REASONS
from bgaug_d2.runs.announce import (
    RATE_AFTER,
    announce_pictures,
    announce_rate,
    announce_recipe,
)
from bgaug_d2.runs.generate_report import (
    PaintingReport,
    PictureOutcome,
    announce_rest,
    finish,
)
from bgaug_d2.runs.output_folder import PAINTING
from bgaug_d2.sampling.from_cfg import digested, expanded, train_dicts
from bgaug_d2.sampling.planner import DrawPlan, JobPlanner
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.worker.client import WorkerClient, worker_client
from bgaug_d2.worker.devices import worker_devices
from bgaug_d2.worker.engines import check_inpainter, identify_inpainter
from bgaug_d2.worker.start import painting_without_workers, painting_workers

logger = logging.getLogger(__name__)

# A dataset dict and the number of the variant to paint, from 1.
WantedPicture = tuple[Mapping[str, Any], int]

T = TypeVar("T")
R = TypeVar("R")

# Faults of one image, which end nothing but its own task.
_TASK_FAULTS = (ImageError, AnnotationError, PromptError, OSError)
_SCAN_THREADS = 8
# Requests under way per process and row of a UNet call. With guidance a picture takes two rows: a
# quarter of the requests is painted, a quarter is ready, the rest is in preparation.
_IN_FLIGHT_PER_ROW = 2
# Each is a thread with a connection to every process, and a process takes 512.
_MAX_IN_FLIGHT = 400
# Long: a process that hangs is killed and restarted before, one that is given up answers at once.
_DEADLINE_S = 3600.0


def generate(
    experiment: ExperimentConfig, model: tuple[ModelIdentity, Path] | None = None
) -> PaintingReport:
    """Paint what is missing, or with ``dry_run`` only a small sample of it, and report.

    On several machines (``launch.num_machines``) each paints its share of the pictures.

    Args:
        experiment: Data set, recipe, cache and painting processes.
        model: What ``identify_inpainter`` found already; None looks for it here.

    Raises:
        ConfigError, DatasetError, ModelError, WorkerStartError: A mistake of the user's.
        KeyboardInterrupt: What was painted so far is in the cache.
    """
    if not experiment.bgaug.paints:
        raise ConfigError(
            f"arm={experiment.arm} (bgaug.mode={experiment.bgaug.mode}) paints nothing; choose an "
            "arm that does, for example arm=replace or arm=expand"
        )
    check_inpainter(experiment.inpainter, experiment.dataset.is_toy)
    model = model or identify_inpainter(experiment.inpainter)
    handle = register_dataset(experiment.dataset)
    settings = dataclasses.replace(experiment.bgaug, on_miss="wait")  # whatever training does
    painting = painting_without_workers(settings, experiment.inpainter, handle.image_root, model[0])
    augmentation = BackgroundAugmentation(settings, painting, experiment.seed)
    planner, cache = augmentation.planner(handle.class_names), augmentation.cache
    wanted = _wanted(experiment, handle, planner)

    report = PaintingReport(len(wanted))
    missing = _look_up(wanted, _Painter(planner, cache, None), report)
    announce_recipe(settings, model[0])
    sizes = [(each.source.height, each.source.width) for each in missing if each.source]
    announce_pictures(sizes, len(wanted), cache.root, settings.cache.max_gb)
    in_flight = _in_flight(settings.worker)
    sample = missing[:in_flight] if experiment.dry_run else missing
    if sample:
        logs = str(Path(experiment.output_dir) / PAINTING)
        with painting_workers(
            settings, experiment.inpainter, handle.image_root, model, logs, use_all_cores=True
        ) as workers:
            client = worker_client(workers.painter.addresses, settings.worker)
            _paint(sample, _Painter(planner, cache, client), in_flight, report)
            report.workers = workers.stats()
    report.counts["missing"] = report.total - report.counts.total()
    if experiment.dry_run:
        announce_rest(len(missing), report)
    finish(report, experiment.output_dir)
    return report


def _wanted(
    experiment: ExperimentConfig, handle: DatasetHandle, planner: JobPlanner
) -> list[WantedPicture]:
    """All pictures that the run can ask for; of several machines this one's share."""
    settings = experiment.bgaug
    dataset_dicts = train_dicts(to_cfg(experiment, handle.train, handle.test, "cpu"))
    dataset_dicts = digested(dataset_dicts, settings, handle.image_root)
    if settings.mode == "expand":
        dataset_dicts = expanded(dataset_dicts, settings)
    launch = experiment.launch
    return list(planner.all_jobs(dataset_dicts))[launch.machine_rank :: launch.num_machines]


class _Painter:
    """Works on one task in any thread; what goes wrong with it is its outcome."""

    def __init__(
        self, planner: JobPlanner, cache: VariantCache, client: WorkerClient | None
    ) -> None:
        self.planner = planner
        self.cache = cache
        self.client = client

    def look_up(self, task: WantedPicture) -> PictureOutcome:
        """``missing``, or what the cache has; the picture is verified."""
        dataset_dict, variant = task
        image = self._name(dataset_dict)
        try:
            plan = self.planner.plan_variant(dataset_dict, variant)
        except _TASK_FAULTS as error:
            return PictureOutcome("error", str(error), image)
        if plan.key is None:
            return _rejection(str(plan.reason), image)
        record = self.cache.get(plan.key)
        if record is None:
            return PictureOutcome("missing", image=image, plan=plan)
        if isinstance(record, Rejection):
            return _rejection(record.reason, image)
        return PictureOutcome("cached")

    def paint(self, plan: DrawPlan) -> PictureOutcome:
        """Have it painted and wait."""
        if self.client is None:
            raise ValueError("this painter has no client; it can only look up")
        try:
            job = plan.job()
        except _TASK_FAULTS as error:
            return PictureOutcome("error", str(error), plan.source.file_name if plan.source else "")
        image = job.source.file_name
        reply = self.client.request(job, _DEADLINE_S)
        if reply.status == "done":
            return self._painted(job.key, image)
        if reply.status == "rejected":
            return _rejection(reply.reason, image)
        kind = "unavailable" if reply.status == "unavailable" else "error"
        return PictureOutcome(kind, reply.reason or reply.status, image)

    def _name(self, dataset_dict: Mapping[str, Any]) -> str:
        return os.path.relpath(str(dataset_dict["file_name"]), self.planner.image_root)

    def _painted(self, key: str, image: str) -> PictureOutcome:
        record = self.cache.get(key, verify=False)
        if not isinstance(record, CacheEntry):
            return PictureOutcome("error", "it was painted but is not in the cache", image)
        return PictureOutcome("painted", num_bytes=int(record.sidecar["num_bytes"]))


def _rejection(reason: str, image: str) -> PictureOutcome:
    return PictureOutcome("skipped" if reason in SKIP_REASONS else "rejected", reason, image)


def _look_up(
    wanted: Sequence[WantedPicture], painter: _Painter, report: PaintingReport
) -> list[DrawPlan]:
    """The plans of the pictures that are not in the cache, roughly in their order."""
    missing = []
    with ThreadPoolExecutor(_SCAN_THREADS) as executor:
        outcomes = _unordered(executor, painter.look_up, wanted, 16 * _SCAN_THREADS)
        for outcome in _bar(outcomes, len(wanted), "looking up"):
            if outcome.plan is None:
                report.add(outcome)
            else:
                missing.append(outcome.plan)
    return missing


def _paint(
    plans: Sequence[DrawPlan], painter: _Painter, in_flight: int, report: PaintingReport
) -> None:
    executor = ThreadPoolExecutor(in_flight)
    began = time.monotonic()
    try:
        # A few more are submitted than run, so that no thread waits for this one.
        outcomes = _unordered(executor, painter.paint, plans, in_flight + 16)
        for outcome in _bar(outcomes, len(plans), "painting"):
            report.add(outcome)
            report.seconds = time.monotonic() - began
            first = outcome.kind == "painted" and report.counts["painted"] == RATE_AFTER
            if first and (rest := len(plans) - report.counts.total()) > 0:
                # The progress bar shows the rate as well, but not the disk that the rest takes.
                announce_rate(RATE_AFTER, report.seconds, report.num_bytes, rest)
            if outcome.kind == "unavailable":
                logger.error("no painting process is left (%s); stopped", outcome.reason)
                break
    except KeyboardInterrupt:
        logger.warning(
            "interrupted; %d pictures were painted and are kept", report.counts["painted"]
        )
        raise
    finally:
        # Without waiting: requests under way end when the painting processes do.
        executor.shutdown(wait=False, cancel_futures=True)


def _unordered(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], limit: int
) -> Iterator[R]:
    """Results as they come; at most ``limit`` items are submitted at any time."""
    pending: set[Future[R]] = set()
    for item in items:
        pending.add(executor.submit(function, item))
        if len(pending) >= limit:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in done)
    for each in as_completed(pending):
        yield each.result()


def _bar(outcomes: Iterable[PictureOutcome], total: int, text: str) -> Iterator[PictureOutcome]:
    with logging_redirect_tqdm([logging.getLogger("bgaug_d2")]):
        yield from tqdm(outcomes, text, total, unit=" images", smoothing=0.05, dynamic_ncols=True)


def _in_flight(worker: WorkerConfig) -> int:
    devices = worker_devices(worker)
    rows = worker.max_batch_rows or (CPU_ROWS if devices[0] == "cpu" else GPU_ROWS)
    wanted = len(devices) * min(_IN_FLIGHT_PER_ROW * rows, worker.queue_size)
    return min(wanted, _MAX_IN_FLIGHT)
