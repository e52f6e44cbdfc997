"""Answers the clients of a painting process.

Each connection has a thread of its own, so a client that is slow, silent or gone delays nobody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.jobs.job import SCHEDULER, InpaintJob
from bgaug_d2.jobs.parse import JobError, job_from_dict
from bgaug_d2.worker.counts import Counts
from bgaug_d2.worker.job_queue import JobQueue
from bgaug_d2.worker.paint_loop import PaintLoop, known_reply
from bgaug_d2.worker.protocol import (
    STARTED,
    ProtocolError,
    Reply,
    WorkerSpec,
    check_peer,
    encode_frame,
    receive_frame,
    send_frame,
)

logger = logging.getLogger(__name__)

# Seconds that a client has from a message's first byte to its last, and to take an answer.
_FRAME_S = 5.0
# Every loader process holds one, and each is a thread here. Further ones are closed at once.
_MAX_CONNECTIONS = 512


class JobServer:
    """Answers clients.

    Args:
        spec: Says which jobs are for this process.
        queue: Takes the jobs.
        loop: Works on them.
        cache: Answers for the pictures that are there already.
        counts: ``connections``, ``malformed``, ``vanished``, ``slow``, ``turned_away``, ...
    """

    def __init__(
        self,
        spec: WorkerSpec,
        queue: JobQueue,
        loop: PaintLoop,
        cache: VariantCache,
        counts: Counts,
    ) -> None:
        self._spec = spec
        self._queue = queue
        self._loop = loop
        self._cache = cache
        self._counts = counts
        self._free = threading.Semaphore(_MAX_CONNECTIONS)
        self._began = time.monotonic()

    def listen(self) -> None:
        """Bind the socket and answer in other threads.

        Raises:
            OSError: The path is too long or its folder is not there.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Bind elsewhere and rename, so that the path exists only once it accepts connections.
        unready = self._spec.socket + "~"
        # A process that died between bind and rename leaves this file, and bind would fail on it.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unready)
        listener.bind(unready)
        listener.listen(128)
        # Until now a killed process's file stays: it refuses, which tells clients of a restart.
        os.replace(unready, self._spec.socket)
        threading.Thread(target=self._accept, args=(listener,), name="accept", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:  # out of descriptors, or the client left before
                self._counts.add("turned_away")
                logger.warning("a connection failed: %s", error)
                # Out of descriptors, accept fails again at once: no busy loop.
                time.sleep(0.5)
                continue
            if not self._free.acquire(blocking=False):
                self._counts.add("turned_away")
                connection.close()
                continue
            self._counts.add("connections")
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            check_peer(connection)
            while (message := receive_frame(connection, None, _FRAME_S)) is not None:
                for answer in self._answers(message):
                    send_frame(connection, encode_frame(answer), time.monotonic() + _FRAME_S)
        except ProtocolError as error:
            self._counts.add("malformed")
            logger.warning("a connection was closed: %s", error)
        except TimeoutError:
            self._counts.add("slow")
        except OSError:
            self._counts.add("vanished")
        except Exception:  # noqa: BLE001 - one client's message must not end the process
            self._counts.add("unexpected")
            logger.exception("a connection was closed")
        finally:
            connection.close()
            self._free.release()

    def _answers(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        op = message.get("op")
        if op == "ping":
            yield self._ping()
        elif op == "stats":
            yield self._stats()
        elif op in ("request", "enqueue"):
            try:
                job = self._read_job(message)
            except JobError as error:
                self._counts.add("refused")
                # An answer, not a closed connection: the client's next job may be sound.
                yield Reply("error", str(error)).to_dict()
                return
            yield from self._request(job, message) if op == "request" else self._enqueue(job)
        else:
            raise ProtocolError(f"op {op!r} is none of request, enqueue, ping, stats")

    def _read_job(self, message: dict[str, Any]) -> InpaintJob:
        job = job_from_dict(message.get("job") or {})
        recipe, spec = job.recipe, self._spec
        wanted = (recipe.model.sha256, recipe.dtype, recipe.scheduler)
        loaded = (spec.recipe_model_sha256, spec.dtype, SCHEDULER)
        # Other weights or another format would paint other pixels than the key promises.
        if wanted != loaded:
            raise JobError(f"the job wants {wanted} (model, dtype, scheduler), loaded is {loaded}")
        try:
            job.key  # noqa: B018 - its JSON is built here, and refuses what is no finite number
        except (TypeError, ValueError) as error:
            raise JobError(f"malformed job: {error}") from error
        return job

    def _request(self, job: InpaintJob, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        reply = known_reply(self._cache, job.key)
        if reply is not None:
            yield reply.to_dict()
            return
        waiter: SimpleQueue[dict[str, Any]] = SimpleQueue()
        if not self._queue.add(job, bool(message.get("isolated")), waiter):
            self._counts.add("busy")
            yield Reply("busy", "the queue is full").to_dict()
            return
        # No time limit: the paint loop settles every job, and the client has its own deadline.
        while (answer := waiter.get()) == STARTED:
            yield answer
        yield answer

    def _enqueue(self, job: InpaintJob) -> Iterator[dict[str, Any]]:
        reply = known_reply(self._cache, job.key)
        if reply is None and self._queue.add(job, isolated=False, waiter=None):
            reply = Reply("queued")
        if reply is None:
            self._counts.add("busy")
            reply = Reply("busy", "the queue is full")
        yield reply.to_dict()

    def _ping(self) -> dict[str, Any]:
        busy = self._is_busy()
        if not busy:
            probed = self._loop.probe()
            # A job that comes now may delay the probe; its progress is the sign of life then.
            while not (probed.wait(0.05) or busy):
                busy = self._is_busy()
        return {"busy": busy, "progress": self._loop.progress}

    def _is_busy(self) -> bool:
        return any(self._queue.sizes().values())

    def _stats(self) -> dict[str, Any]:
        return {
            **self._queue.sizes(),
            "displaced": self._queue.displaced,
            "images_per_second": self._loop.images_per_second(),
            "max_batch_rows": self._loop.max_batch_rows,
            "engine": self._loop.engine_metrics(),
            "progress": self._loop.progress,
            "uptime_s": time.monotonic() - self._began,
            "pid": os.getpid(),
            "counts": self._counts.snapshot(),
        }
