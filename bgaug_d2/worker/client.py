"""Asks the painting processes for pictures; safe to pickle, to fork and to share between threads.

No fault of a worker raises here: every call comes back with a ``Reply`` before its deadline.

A job goes to the worker that its key names, or to the next one if that is down. A client notices a
worker's end within milliseconds, because its connection closes. After that the socket either
refuses (the worker is restarting, and ``request`` waits for it) or is gone (the worker was given
up).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bgaug_d2.config.bgaug import WorkerConfig
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.worker.connections import (
    Connections,
    WorkerDied,
    WorkerRemoved,
    WorkerRestarting,
)
from bgaug_d2.worker.protocol import ProtocolError, Reply, encode_frame

# A worker answers ``enqueue`` and ``stats`` at once; one that does not is hanging.
_ANSWER_S = 2.0
# Seconds from one try to the next while a worker restarts or is busy; the pause doubles.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.01, 0.5
# A job whose worker died this often while painting it is taken for the cause. Once is not enough:
# another job of the same batch may have killed the worker. The second time the job was alone.
_MAX_DEATHS = 2

_NOBODY = Reply("unavailable", "no worker answers")


@dataclass
class _Breaker:
    """Stops asking a worker after ``limit`` failures in a row, except one call per ``pause``.

    It has no lock, because a fork could leave a lock locked. A count lost to a race does no harm.
    """

    limit: int
    pause: float
    failures: int = 0
    paused_until: float = 0.0

    def allows(self) -> bool:
        if self.failures < self.limit:
            return True
        now = time.monotonic()
        if now < self.paused_until:
            return False
        self.paused_until = now + self.pause  # other calls wait for the outcome of this one
        return True

    def record(self, success: bool) -> None:
        if success:
            self.failures = 0
            return
        self.failures += 1
        if self.failures >= self.limit:
            self.paused_until = time.monotonic() + self.pause


@dataclass
class _Attempt:
    """The state of one ``request``.

    Attributes:
        frame: What is sent to a worker.
        deadline: ``time.monotonic()`` at which to give up.
        deaths: Workers that died while they painted the job.
        last: The reply if the deadline came now.
        waiting_for: Workers of the last round that may answer later: busy or restarting.
    """

    frame: bytes
    deadline: float
    deaths: int = 0
    last: Reply = _NOBODY
    waiting_for: set[int] = field(default_factory=set)


class WorkerClient:
    """The way to a pool of painting processes.

    Every process and thread makes its own connections at their first use.

    Args:
        addresses: Paths of the workers' sockets.
        deadline_s: How long ``request`` waits, in seconds.
        breaker_failures: Failures in a row after which a worker is not asked for a while.
        breaker_cooldown_s: How long that is, in seconds.
    """

    def __init__(
        self,
        addresses: list[str],
        deadline_s: float = 120.0,
        breaker_failures: int = 5,
        breaker_cooldown_s: float = 30.0,
    ) -> None:
        if not addresses:
            raise ValueError("addresses is empty; give the path of at least one worker's socket")
        self._arguments = (list(addresses), deadline_s, breaker_failures, breaker_cooldown_s)
        self.addresses = list(addresses)
        self.deadline_s = deadline_s
        self._breakers = [_Breaker(breaker_failures, breaker_cooldown_s) for _ in addresses]
        self._connections = Connections(self.addresses)

    def __reduce__(self) -> tuple[Any, ...]:
        # Sockets cannot be pickled; a copy makes its own connections.
        return WorkerClient, self._arguments

    def request(self, job: InpaintJob, deadline_s: float | None = None) -> Reply:
        """Have a picture painted and wait for it.

        When a worker crashes, the client waits for its restart and sends the job again, to be
        painted isolated. So of all the jobs in a batch that crashed, the harmless ones get their
        pictures, and the one that crashes its worker gets an ``error`` after the second crash. A
        worker without room is asked again until the deadline.

        Args:
            job: The picture.
            deadline_s: Seconds to wait at most; None means the client's ``deadline_s``.

        Returns:
            ``done``, ``rejected``, ``error``, ``busy``, ``timeout`` or ``unavailable``.
        """
        deadline = time.monotonic() + (self.deadline_s if deadline_s is None else deadline_s)
        try:
            attempt = _Attempt(_request_frame(job, isolated=False), deadline)
        except ProtocolError as error:
            return Reply("error", str(error))
        pause = _FIRST_PAUSE_S
        while (reply := self._ask_each(job, attempt)) is None:
            # Rather an answer one pause too early than one after the deadline.
            if time.monotonic() + pause >= deadline:
                self._record_failures(attempt)
                return attempt.last
            time.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_S)
        return reply

    def enqueue(self, job: InpaintJob) -> Reply:
        """Ask for a picture without waiting for it.

        Returns:
            ``queued``, ``done`` (it is there already), ``busy``, ``error``, ``timeout`` or
            ``unavailable``; within two seconds whatever happens.
        """
        deadline = time.monotonic() + _ANSWER_S
        last = _NOBODY
        try:
            frame = encode_frame({"op": "enqueue", "job": job.to_dict()})
        except ProtocolError as error:
            return Reply("error", str(error))
        for index in self._order(job.key):
            if not self._breakers[index].allows():
                continue
            try:
                reply = Reply.from_dict(self._connections.exchange(index, frame, deadline))
            except TimeoutError:
                last = Reply("timeout", "the worker does not answer")
            except (WorkerRemoved, WorkerRestarting, WorkerDied, ProtocolError) as error:
                last = Reply("unavailable", str(error))
            else:
                self._breakers[index].record(success=True)
                if reply.status != "busy":
                    return reply
                last = reply
                continue
            self._breakers[index].record(success=False)
        return last

    def stats(self) -> list[dict[str, Any] | None]:
        """The counters of each worker, in the order of ``addresses``; None where one is down."""
        return [self._command(index, "stats", _ANSWER_S) for index in range(len(self.addresses))]

    def ping(self, timeout_s: float) -> list[dict[str, Any] | None]:
        """Ask each worker for a sign of life, in the order of ``addresses``.

        Args:
            timeout_s: Seconds to wait for each. An idle worker runs the model before it answers.

        Returns:
            For each worker ``busy`` (bool) and ``progress`` (int, grows with every step of work),
            or None if it is down.
        """
        return [self._command(index, "ping", timeout_s) for index in range(len(self.addresses))]

    def close(self) -> None:
        """Close this thread's connections; the next call makes new ones."""
        self._connections.close()

    def _order(self, key: str) -> list[int]:
        # The same key goes to the same worker first, so that a picture is not painted twice when
        # several loader processes ask for it.
        count = len(self.addresses)
        # A key is a digest, so its digits spread the jobs evenly over the workers.
        first = int(key[:8], 16) % count
        return [(first + step) % count for step in range(count)]

    def _ask_each(self, job: InpaintJob, attempt: _Attempt) -> Reply | None:
        """One round over the workers: a final reply, or None to try again after a pause."""
        attempt.waiting_for.clear()
        for index in self._order(job.key):
            if not self._breakers[index].allows():
                continue
            try:
                reply = Reply.from_dict(
                    self._connections.exchange(index, attempt.frame, attempt.deadline)
                )
            except TimeoutError:
                self._breakers[index].record(success=False)
                # As a rule the whole request's deadline: no time is left for another worker.
                return Reply("timeout", "the picture was not ready in time")
            except WorkerRemoved as error:
                self._breakers[index].record(success=False)
                attempt.last = Reply("unavailable", str(error))
                continue
            except WorkerDied as error:
                attempt.last = Reply("unavailable", str(error))
                # A job that only waited in the queue cannot have killed the worker.
                if error.started:
                    attempt.deaths += 1
                    attempt.frame = _request_frame(job, isolated=True)
                    if attempt.deaths == _MAX_DEATHS:
                        return Reply("error", f"its worker died {_MAX_DEATHS} times painting it")
            except (WorkerRestarting, ProtocolError) as error:
                attempt.last = Reply("unavailable", str(error))
            else:
                self._breakers[index].record(success=True)
                if reply.status != "busy":
                    return reply
                attempt.last = reply
            attempt.waiting_for.add(index)
        return None if attempt.waiting_for else attempt.last

    def _record_failures(self, attempt: _Attempt) -> None:
        # A worker that is busy works, so it has not failed when no room becomes free.
        if attempt.last.status != "busy":
            for index in attempt.waiting_for:
                self._breakers[index].record(success=False)

    def _command(self, index: int, op: str, timeout_s: float) -> dict[str, Any] | None:
        try:
            deadline = time.monotonic() + timeout_s
            return self._connections.exchange(index, encode_frame({"op": op}), deadline)
        except (TimeoutError, WorkerRemoved, WorkerRestarting, WorkerDied, ProtocolError):
            return None


def _request_frame(job: InpaintJob, isolated: bool) -> bytes:
    return encode_frame({"op": "request", "job": job.to_dict(), "isolated": isolated})


def worker_client(addresses: Sequence[str], worker: WorkerConfig) -> WorkerClient | None:
    """A client of the painting processes with the configured patience; None where none runs."""
    if not addresses:
        return None
    advanced = worker.advanced
    return WorkerClient(
        list(addresses),
        advanced.deadline_s,
        advanced.breaker_failures,
        advanced.breaker_cooldown_s,
    )
