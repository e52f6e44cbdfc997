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
        waiters: For each client that waits for it, where ``STARTED`` and the reply are put.
        alone: To be painted while nothing else is; it was in flight when a worker died.
        attempt: Which seed of the pass at hand, from 0.
        prepared: Set once the image is read, and anew before each further pass.
        result: Set while a painted square waits to be finished.
    """

    job: InpaintJob
    waiters: list[SimpleQueue[dict[str, Any]]] = field(default_factory=list)
    alone: bool = False
    attempt: int = 0
    prepared: Prepared | None = None
    result: PaintResult | None = None


class TaskTable:
    """Jobs by key, each held once however often it is asked for; all methods are thread-safe.

    ``take`` gives first a started task whose painted square came back, then the oldest task that
    somebody waits for, then the youngest of the others. Those come from looking ahead, in the order
    in which training will need them: where painting is too slow for all, the oldest are needed too
    soon to be ready, and the youngest still can be. It starts no task while ``max_started`` are
    under way, or hold ``max_started_bytes``: that bounds the memory between disk and cache.

    Args:
        capacity: Tasks held at most, started or not.
        max_started: Tasks between ``take`` and ``settle``.
        max_started_bytes: Estimate of what their arrays hold; one task is always let through.
    """

    def __init__(self, capacity: int, max_started: int, max_started_bytes: int) -> None:
        self._capacity = capacity
        self._max_started = max_started
        self._max_started_bytes = max_started_bytes
        self._changed = threading.Condition()
        self._wanted: dict[str, Task] = {}  # not started, somebody waits; dicts keep their order
        self._unwanted: dict[str, Task] = {}  # not started, nobody waits
        self._started: dict[str, Task] = {}
        self._started_bytes = 0
        self._painted: deque[Task] = deque()
        self._closed = False
        self.displaced = 0

    def add(self, job: InpaintJob, alone: bool, waiter: SimpleQueue[dict[str, Any]] | None) -> bool:
        """Hold a job, or join the task that already does.

        Where there is no room it takes the place of the oldest one that nobody waits for.

        Returns:
            False if there is no such job either.
        """
        key = job.key
        with self._changed:
            task = self._started.get(key)
            if task is not None:
                if waiter is not None:
                    task.waiters.append(waiter)
                    waiter.put(STARTED)
                return True
            task = self._wanted.get(key) or self._unwanted.get(key)
            if task is None:
                if not self._make_room():
                    return False
                task = Task(job)
            task.alone = task.alone or alone
            if waiter is not None:
                task.waiters.append(waiter)
            if key not in self._wanted:
                self._unwanted.pop(key, None)  # asked for again, it is young again
                (self._wanted if task.waiters else self._unwanted)[key] = task
            self._changed.notify()
            return True

    def take(self) -> Task | None:
        """The next task to work on, as soon as there is one; None once the table is closed."""
        with self._changed:
            while not self._closed:
                if self._painted:
                    return self._painted.popleft()
                task = self._startable()
                if task is not None:
                    return self._start(task)
                self._changed.wait()
            return None

    def hand_back(self, task: Task, result: PaintResult) -> None:
        """Give a painted square to whoever takes next."""
        with self._changed:
            task.result = result
            self._painted.append(task)
            self._changed.notify()

    def settle(self, task: Task, reply: Reply) -> None:
        """Answer everybody who waits for a started task and forget it."""
        with self._changed:
            del self._started[task.job.key]
            self._started_bytes -= _estimate_bytes(task.job)
            for waiter in task.waiters:
                waiter.put(reply.to_dict())
            self._changed.notify_all()

    def close(self) -> None:
        """Start nothing any more; every ``take`` returns None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def sizes(self) -> dict[str, int]:
        """How many tasks are ``queued`` and ``started``."""
        with self._changed:
            queued = len(self._wanted) + len(self._unwanted)
            return {"queued": queued, "started": len(self._started)}

    def _make_room(self) -> bool:
        held = len(self._wanted) + len(self._unwanted) + len(self._started)
        if held < self._capacity:
            return True
        if not self._unwanted:
            return False
        del self._unwanted[next(iter(self._unwanted))]  # whoever misses that picture asks again
        self.displaced += 1
        return True

    def _startable(self) -> Task | None:
        task = next(iter(self._wanted.values()), None)
        task = task or next(reversed(self._unwanted.values()), None)
        if task is None or not self._started:
            return task
        room = self._started_bytes + _estimate_bytes(task.job) <= self._max_started_bytes
        if task.alone or len(self._started) >= self._max_started or not room:
            return None
        return None if any(other.alone for other in self._started.values()) else task

    def _start(self, task: Task) -> Task:
        key = task.job.key
        self._wanted.pop(key, None)
        self._unwanted.pop(key, None)
        self._started[key] = task
        self._started_bytes += _estimate_bytes(task.job)
        for waiter in task.waiters:
            waiter.put(STARTED)
        return task


def _estimate_bytes(job: InpaintJob) -> int:
    # Source and painted picture with their masks, at the image's size and at the model's; between
    # passes also what was painted so far, and the crowd's and one object's mask.
    pixels = job.source.height * job.source.width + job.recipe.settings.resolution**2
    return (13 if job.recipe.settings.paints_objects else 8) * pixels
