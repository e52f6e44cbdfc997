"""A job's way through a painting process: CPU threads before and after the model, one for it.

    take -> cache? -> prepare -> engine -> finish -> cache.put -> settle
                                   ^         |
                                   +- retry -+   with another seed, up to ``quality.max_retries``
                                   +- next --+   next pass, where objects are painted

A retry repeats only the pass that failed. The result of a pass is kept in memory only. If the
process dies, the picture is painted from the start when somebody asks for it again.

Every job is settled once, with a ``Reply``, and counted, whatever happens to it. A job that is
painted reads no picture back: what ``cache.put`` wrote needs no check by its writer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from queue import Empty, SimpleQueue
from typing import Any

from bgaug_d2.cache.store import CacheEntry, VariantCache
from bgaug_d2.errors import AnnotationError, ImageError
from bgaug_d2.painting.engine_interface import PaintEngine, PaintRequest, PaintResult
from bgaug_d2.painting.finish import finish
from bgaug_d2.painting.passes import Prepared
from bgaug_d2.painting.prepare import SkipImage, prepare
from bgaug_d2.painting.sidecar import job_sidecar, sidecar
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.worker.counts import Counts
from bgaug_d2.worker.job_queue import JobQueue, Task
from bgaug_d2.worker.protocol import Reply

logger = logging.getLogger(__name__)

_NO_WRITE = Reply("error", "the cache cannot be written to, so nothing is painted")


class PaintLoop:
    """Takes tasks from ``queue`` and settles them.

    Args:
        engine: Paints; used by the thread that calls ``run_engine`` only.
        queue: Holds the tasks.
        cache: Stores the pictures.
        image_root: Folder that the jobs' file names are relative to.
        counts: Gets ``painted``, ``retries``, ``rejected/<reason>``, ``errors``, ``unexpected``,
            ``engine_errors``, ``stray_results``.
        on_painted: Called after each picture that the cache took.
    """

    def __init__(
        self,
        engine: PaintEngine,
        queue: JobQueue,
        cache: VariantCache,
        image_root: str,
        counts: Counts,
        on_painted: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._cache = cache
        self._image_root = image_root
        self._counts = counts
        self._on_painted = on_painted
        # To the engine's thread: what to paint, and events to set after a probe.
        self._inbox: SimpleQueue[tuple[Task, PaintRequest] | threading.Event] = SimpleQueue()
        self._in_engine: dict[str, Task] = {}
        self._steps = 0
        # A few only: the rate is that of now, not of the whole run.
        self._painted_at: deque[float] = deque(maxlen=64)

    @property
    def progress(self) -> int:
        """Grows with every step of work: the sign of life of a busy process."""
        return self._engine.progress + self._steps

    @property
    def max_batch_rows(self) -> int:
        """Rows of a UNet call; the engine lowers them when memory runs out."""
        return self._engine.max_batch_rows

    def engine_metrics(self) -> dict[str, float | None]:
        """The engine's numbers about its work."""
        return self._engine.metrics()

    def images_per_second(self) -> float:
        """Pictures per second, from the first of the last 64 until now."""
        # A copy, because other threads add to it. Until now, so that a stop lowers the rate.
        times = list(self._painted_at)
        return len(times) / (time.monotonic() - times[0]) if len(times) > 1 else 0.0

    def probe(self) -> threading.Event:
        """Run the model once; the event is set when that succeeded."""
        done = threading.Event()
        self._inbox.put(done)
        return done

    def run_engine(self) -> None:
        """Paint without end.

        An exception of the engine ends it, because after a CUDA error only a new process helps.
        """
        while True:
            self._read_inbox()
            for result in self._engine.poll():
                self._accept(result)
            # A request that the engine forgot would leave its clients waiting until their deadline.
            if self._in_engine and not self._engine.pending:
                for request_id in list(self._in_engine):
                    self._accept(PaintResult(request_id, None, "the engine lost the request"))

    def run_cpu(self) -> None:
        """Prepare and finish tasks until the queue is closed; several threads run this."""
        while (task := self._queue.take()) is not None:
            try:
                reply = self._prepare(task) if task.result is None else self._finish(task)
            except (ImageError, AnnotationError, OSError) as error:
                reply = Reply("error", str(error))
            except Exception as error:  # noqa: BLE001 - one job's fault must not end the others
                logger.exception("job %s", task.job.key)
                self._counts.add("unexpected")
                reply = Reply("error", f"{type(error).__name__}: {error}")
            # Without a lock: a lost count does no harm, because only growth is looked at.
            self._steps += 1
            if reply is not None:
                self._settle(task, reply)

    def _read_inbox(self) -> None:
        """Submit what is in the inbox; wait for an item if the engine has nothing to do."""
        wait = not self._engine.pending
        while True:
            try:
                item = self._inbox.get(block=wait)
            except Empty:
                return
            # The rest without waiting, so that all that has come can share the next UNet call.
            wait = False
            if isinstance(item, threading.Event):
                if not self._engine.pending:  # a busy engine shows its progress
                    self._engine.probe()
                item.set()
            else:
                task, request = item
                self._in_engine[request.request_id] = task
                self._engine.submit(request)

    def _accept(self, result: PaintResult) -> None:
        task = self._in_engine.pop(result.request_id, None)
        if task is None:
            self._counts.add("stray_results")
            logger.error("the engine answered %s, which nobody requested", result.request_id)
        else:
            self._queue.hand_back(task, result)

    def _prepare(self, task: Task) -> Reply | None:
        """Send a task to the engine and return None, or return the reply if nothing is to paint."""
        # The server has found nothing, but since then another process can have painted it.
        reply = known_reply(self._cache, task.job.key)
        if reply is not None:
            return reply
        if self._cache.read_only:  # the painted picture could not be stored
            return _NO_WRITE
        try:
            prepared = prepare(task.job, self._image_root)
        except SkipImage as skip:
            return self._reject(task, skip.reason, job_sidecar(task.job, 0, _now()))
        self._send(task, prepared, attempt=0)
        return None

    def _send(self, task: Task, prepared: Prepared, attempt: int) -> None:
        """Have the engine paint the next pass of ``prepared``."""
        task.prepared, task.attempt = prepared, attempt
        self._inbox.put((task, prepared.request(attempt)))

    def _finish(self, task: Task) -> Reply | None:
        """Finish a pass; the reply, or None if the task goes to the engine once more."""
        prepared, result = task.prepared, task.result
        if prepared is None or result is None:
            raise RuntimeError(f"job {task.job.key} cannot be finished before it is painted")
        task.result = None  # frees the square while further passes run
        if result.image is None:
            self._counts.add("engine_errors")
            # Another seed may help: values that are not finite can depend on the noise.
            again = self._retry(task, prepared)
            return None if again else Reply("error", str(result.error))
        finished = finish(prepared, result.image)
        if finished.rejected is not None:
            if self._retry(task, prepared):
                return None
            record = sidecar(prepared, finished, task.attempt, _now())
            return self._reject(task, finished.rejected, record)
        following = prepared.following(finished, task.attempt)
        if following is not None:
            self._send(task, following, attempt=0)
            return None
        picture = encode_picture(finished.image, task.job.recipe.picture_format)
        record = sidecar(prepared, finished, task.attempt, _now())
        if not self._cache.put(task.job.key, picture, record):
            return _NO_WRITE
        self._counts.add("painted")
        self._painted_at.append(time.monotonic())
        # Now that the cache has it: the supervisor takes this for proof that the worker works.
        self._on_painted()
        return Reply("done")

    def _retry(self, task: Task, prepared: Prepared) -> bool:
        if task.attempt >= task.job.recipe.settings.quality.max_retries:
            return False
        self._counts.add("retries")
        self._send(task, prepared, task.attempt + 1)
        return True

    def _reject(self, task: Task, reason: str, record: dict[str, Any]) -> Reply:
        self._counts.add(f"rejected/{reason}")
        self._cache.reject(task.job.key, reason, record)
        return Reply("rejected", reason)

    def _settle(self, task: Task, reply: Reply) -> None:
        if reply.status == "error":
            self._counts.add("errors")
            logger.warning("job %s: %s", task.job.key, reply.reason)
        self._queue.settle(task, reply)


def known_reply(cache: VariantCache, key: str) -> Reply | None:
    """``done`` or ``rejected`` if the cache has a sound record of a job, else None.

    The picture is read and hashed, so whoever gets ``done`` need not verify it again. Where there
    is no record this costs one failed ``open``.
    """
    known = cache.get(key)
    if known is None:
        return None
    return Reply("done") if isinstance(known, CacheEntry) else Reply("rejected", known.reason)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
