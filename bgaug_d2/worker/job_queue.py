"""The jobs that a painting process holds, by key, and which of them comes next."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.painting.engine_interface import PaintResult
from bgaug_d2.painting.passes import Prepared
from bgaug_d2.worker.protocol import STARTED, Reply


@dataclass(eq=False)
class Task:
    """One job on its way through the process.

    Attributes:
        job: What to paint.
        waiters: One queue for each client that waits; it gets ``STARTED``, then the reply.
        isolated: Whether to paint it while nothing else is painted, because it was in flight when
            a worker died.
        attempt: Which seed of the current pass, from 0.
        prepared: The image before the current pass; None until it is read.
        result: The painted square while it waits to be finished, else None.
    """

    job: InpaintJob
    waiters: list[SimpleQueue[dict[str, Any]]] = field(default_factory=list)
    isolated: bool = False
    attempt: int = 0
    prepared: Prepared | None = None
    result: PaintResult | None = None


class JobQueue:
    """Jobs by key, each held once however often it is asked for; all methods are thread-safe.

    A task is ``waiting_with_client`` (not started, a client waits for it), ``prefetch`` (not
    started, nobody waits) or ``running``; a running one is also ``decoded`` while its painted
    square waits for a CPU thread. ``take`` gives the first of these that there is:

    1. a decoded task;
    2. the oldest task with a waiting client;
    3. the youngest prefetch task. Looking ahead asks in the order in which training needs the
       pictures. Where painting is too slow for all, the oldest are needed too soon to be ready in
       time, and the youngest still can be.

    No task starts while ``max_running`` are running or hold ``max_running_bytes``: that bounds the
    memory between disk and cache.

    Args:
        capacity: Tasks held at most, running or not.
        max_running: Tasks between ``take`` and ``settle`` at most.
        max_running_bytes: Estimated bytes of their arrays at most. One task may always run.
    """

    def __init__(self, capacity: int, max_running: int, max_running_bytes: int) -> None:
        self._capacity = capacity
        self._max_running = max_running
        self._max_running_bytes = max_running_bytes
        self._changed = threading.Condition()
        # Dicts keep the order in which jobs came.
        self._waiting_with_client: dict[str, Task] = {}
        self._prefetch: dict[str, Task] = {}
        self._running: dict[str, Task] = {}
        self._running_bytes = 0
        self._decoded: deque[Task] = deque()
        self._closed = False
        self.displaced = 0

    def add(
        self, job: InpaintJob, isolated: bool, waiter: SimpleQueue[dict[str, Any]] | None
    ) -> bool:
        """Hold a job, or join the task that already holds it.

        In a full queue it takes the place of the oldest prefetch task.

        Args:
            job: What to paint.
            isolated: See ``Task``.
            waiter: Where the client that asks waits; None if it does not wait.

        Returns:
            False if the queue is full and has no prefetch task.
        """
        key = job.key
        with self._changed:
            task = self._running.get(key)
            if task is not None:
                if waiter is not None:
                    task.waiters.append(waiter)
                    # Joining late, it must still know that this job may be why a worker dies.
                    waiter.put(STARTED)
                return True
            task = self._waiting_with_client.get(key) or self._prefetch.get(key)
            if task is None:
                if not self._make_room():
                    return False
                task = Task(job)
            task.isolated = task.isolated or isolated
            if waiter is not None:
                task.waiters.append(waiter)
            if key not in self._waiting_with_client:
                # Out and in again: a job that is asked for again becomes the youngest.
                self._prefetch.pop(key, None)
                (self._waiting_with_client if task.waiters else self._prefetch)[key] = task
            self._changed.notify()
            return True

    def take(self) -> Task | None:
        """The next task to work on, as soon as there is one; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                if self._decoded:
                    return self._decoded.popleft()
                task = self._startable()
                if task is not None:
                    return self._start(task)
                self._changed.wait()
            return None

    def hand_back(self, task: Task, result: PaintResult) -> None:
        """Give a task's painted square to whoever takes next."""
        with self._changed:
            task.result = result
            self._decoded.append(task)
            self._changed.notify()

    def settle(self, task: Task, reply: Reply) -> None:
        """Answer all clients that wait for a running task and forget it."""
        with self._changed:
            del self._running[task.job.key]
            self._running_bytes -= _estimate_bytes(task.job)
            for waiter in task.waiters:
                waiter.put(reply.to_dict())
            # All threads: the room of one large picture may be enough for several small ones.
            self._changed.notify_all()

    def close(self) -> None:
        """Start no further task; every ``take`` returns None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def sizes(self) -> dict[str, int]:
        """How many tasks are ``queued`` (not started) and ``running``."""
        with self._changed:
            queued = len(self._waiting_with_client) + len(self._prefetch)
            return {"queued": queued, "running": len(self._running)}

    def _make_room(self) -> bool:
        held = len(self._waiting_with_client) + len(self._prefetch) + len(self._running)
        if held < self._capacity:
            return True
        if not self._prefetch:
            return False
        # Nothing is lost: a draw that misses this picture asks for it again.
        del self._prefetch[next(iter(self._prefetch))]
        self.displaced += 1
        return True

    def _startable(self) -> Task | None:
        task = next(iter(self._waiting_with_client.values()), None)
        task = task or next(reversed(self._prefetch.values()), None)
        if task is None or not self._running:
            return task
        # No task behind this one starts instead: small ones could keep a large one waiting long.
        room = self._running_bytes + _estimate_bytes(task.job) <= self._max_running_bytes
        if task.isolated or len(self._running) >= self._max_running or not room:
            return None
        return None if any(other.isolated for other in self._running.values()) else task

    def _start(self, task: Task) -> Task:
        key = task.job.key
        self._waiting_with_client.pop(key, None)
        self._prefetch.pop(key, None)
        self._running[key] = task
        self._running_bytes += _estimate_bytes(task.job)
        # So that the client knows whether a worker that dies was painting its job.
        for waiter in task.waiters:
            waiter.put(STARTED)
        return task


def _estimate_bytes(job: InpaintJob) -> int:
    # Source and painted picture with their masks, at the image's size and at the model's; between
    # passes also what was painted so far, and the crowd's and one object's mask.
    pixels = job.source.height * job.source.width + job.recipe.settings.resolution**2
    return (13 if job.recipe.settings.paints_objects else 8) * pixels
