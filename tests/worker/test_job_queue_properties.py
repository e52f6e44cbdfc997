"""Whatever the order of events: nobody who waits is forgotten or answered twice, limits hold."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bgaug_d2.worker.job_queue import JobQueue, Task
from bgaug_d2.worker.protocol import STARTED, Reply
from tests.helpers.factories import make_job

JOBS = [make_job(variant=variant) for variant in range(1, 9)]
CAPACITY, RUNNING_LIMIT = 4, 2

events = st.one_of(
    st.tuples(st.just("enqueue"), st.integers(0, 7), st.just(False)),
    st.tuples(st.just("request"), st.integers(0, 7), st.booleans()),
    st.tuples(st.sampled_from(["take", "settle"]), st.integers(0, 7), st.just(False)),
)


def answers(waiter: SimpleQueue[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    while not waiter.empty():
        found.append(waiter.get())
    return found


@given(st.lists(events, max_size=60))
def test_everybody_who_was_let_in_is_answered_once(course: list[tuple[str, int, bool]]) -> None:
    queue = JobQueue(CAPACITY, RUNNING_LIMIT, 1 << 40)
    waiters: list[tuple[str, SimpleQueue[dict[str, Any]]]] = []
    running: list[Task] = []
    suspects: set[str] = set()
    accepted = settled = 0

    def take() -> None:
        task = queue.take()
        assert task is not None
        assert not running or (task.job.key not in suspects and len(running) < RUNNING_LIMIT)
        assert not any(other.job.key in suspects for other in running)
        running.append(task)

    def settle(position: int) -> None:
        task = running.pop(position % len(running))
        suspects.discard(task.job.key)
        queue.settle(task, Reply("done", task.job.key))

    for event, number, isolated in course:
        job = JOBS[number]
        before = sum(queue.sizes().values())
        if event == "enqueue":
            displaced = queue.displaced
            if queue.add(job, False, None):
                accepted += sum(queue.sizes().values()) - before + queue.displaced - displaced
        elif event == "request":
            waiter: SimpleQueue[dict[str, Any]] = SimpleQueue()
            displaced = queue.displaced
            if queue.add(job, isolated, waiter):
                grown = sum(queue.sizes().values()) - before
                accepted += grown + queue.displaced - displaced
                waiters.append((job.key, waiter))
                if isolated and job.key not in {task.job.key for task in running}:
                    suspects.add(job.key)
        elif event == "take" and queue.sizes()["queued"] and not running:
            take()
        elif event == "take" and len(running) < RUNNING_LIMIT and not suspects:
            if queue.sizes()["queued"]:
                take()
        elif event == "settle" and running:
            settle(number)
            settled += 1
        assert sum(queue.sizes().values()) <= CAPACITY
        assert queue.sizes()["running"] == len(running)
        assert accepted == settled + queue.displaced + sum(queue.sizes().values())

    while running or queue.sizes()["queued"]:
        if running:
            settle(0)
        else:
            take()
    for key, waiter in waiters:
        assert answers(waiter) == [STARTED, Reply("done", key).to_dict()]
