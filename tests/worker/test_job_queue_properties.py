"""Whatever the order of events: nobody who waits is forgotten or answered twice, limits hold."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bgaug_d2.worker.job_queue import Task, TaskTable
from bgaug_d2.worker.protocol import STARTED, Reply
from tests.helpers.factories import make_job

JOBS = [make_job(variant=variant) for variant in range(1, 9)]
CAPACITY, STARTED_LIMIT = 4, 2

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
    table = TaskTable(CAPACITY, STARTED_LIMIT, 1 << 40)
    waiters: list[tuple[str, SimpleQueue[dict[str, Any]]]] = []
    started: list[Task] = []
    suspects: set[str] = set()
    accepted = settled = 0

    def take() -> None:
        task = table.take()
        assert task is not None
        assert not started or (task.job.key not in suspects and len(started) < STARTED_LIMIT)
        assert not any(other.job.key in suspects for other in started)
        started.append(task)

    def settle(position: int) -> None:
        task = started.pop(position % len(started))
        suspects.discard(task.job.key)
        table.settle(task, Reply("done", task.job.key))

    for event, number, alone in course:
        job = JOBS[number]
        before = sum(table.sizes().values())
        if event == "enqueue":
            displaced = table.displaced
            if table.add(job, False, None):
                accepted += sum(table.sizes().values()) - before + table.displaced - displaced
        elif event == "request":
            waiter: SimpleQueue[dict[str, Any]] = SimpleQueue()
            displaced = table.displaced
            if table.add(job, alone, waiter):
                grown = sum(table.sizes().values()) - before
                accepted += grown + table.displaced - displaced
                waiters.append((job.key, waiter))
                if alone and job.key not in {task.job.key for task in started}:
                    suspects.add(job.key)
        elif event == "take" and table.sizes()["queued"] and not started:
            take()
        elif event == "take" and len(started) < STARTED_LIMIT and not suspects:
            if table.sizes()["queued"]:
                take()
        elif event == "settle" and started:
            settle(number)
            settled += 1
        assert sum(table.sizes().values()) <= CAPACITY
        assert table.sizes()["started"] == len(started)
        assert accepted == settled + table.displaced + sum(table.sizes().values())

    while started or table.sizes()["queued"]:
        if started:
            settle(0)
        else:
            take()
    for key, waiter in waiters:
        assert answers(waiter) == [STARTED, Reply("done", key).to_dict()]
