"""Which job comes next, who is told about it, and what is not taken at all."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.painting.engine_interface import PaintResult
from bgaug_d2.worker.job_queue import Task, TaskTable
from bgaug_d2.worker.protocol import STARTED, Reply
from tests.helpers.factories import make_job, make_source
from tests.helpers.worker_parts import wait_until

Waiter = SimpleQueue[dict[str, Any]]
DONE = Reply("done")


def table_of(capacity: int = 100, started: int = 100, started_bytes: int = 1 << 40) -> TaskTable:
    return TaskTable(capacity, started, started_bytes)


def jobs(count: int) -> list[InpaintJob]:
    return [make_job(variant=variant) for variant in range(1, count + 1)]


def take(table: TaskTable) -> Task:
    task = table.take()
    assert task is not None
    return task


def taken_soon(table: TaskTable) -> Task | None:
    """What ``take`` gives at once; None if it would wait. A waiting thread is left behind."""
    found: list[Task | None] = []
    thread = threading.Thread(target=lambda: found.append(table.take()), daemon=True)
    thread.start()
    thread.join(0.1)
    return found[0] if found else None


def test_the_youngest_comes_first_but_after_those_with_a_waiter_in_their_order() -> None:
    table, (a, b, c, d) = table_of(), jobs(4)
    assert table.add(a, False, None)
    assert table.add(b, False, None)
    assert table.add(c, False, SimpleQueue())
    assert table.add(d, False, SimpleQueue())
    assert [take(table).job for _ in range(4)] == [c, d, b, a]


def test_a_job_that_is_asked_for_again_moves_up() -> None:
    table, (a, b, c) = table_of(), jobs(3)
    table.add(a, False, None)
    table.add(b, False, None)
    table.add(a, False, None)
    assert take(table).job is a
    table.add(a, False, None)
    table.add(c, False, None)
    table.add(b, False, SimpleQueue())
    assert [take(table).job for _ in range(2)] == [b, c]


def test_everybody_who_waits_is_told_and_a_job_is_held_once() -> None:
    table, (job, *_) = table_of(), jobs(1)
    early: Waiter = SimpleQueue()
    late: Waiter = SimpleQueue()
    table.add(job, False, None)
    table.add(job, False, early)
    task = take(table)
    assert early.get() == STARTED
    table.add(job, False, late)
    assert late.get() == STARTED
    assert table.add(job, False, None)
    assert table.sizes() == {"queued": 0, "started": 1}
    table.settle(task, DONE)
    assert early.get() == late.get() == DONE.to_dict()
    assert table.sizes() == {"queued": 0, "started": 0}


def test_a_full_table_gives_up_the_oldest_unwanted_job_or_refuses() -> None:
    table, (a, b, c, d, e) = table_of(capacity=2), jobs(5)
    assert table.add(a, False, None)
    assert table.add(b, False, None)
    assert table.add(c, False, None)  # in the place of a
    assert table.add(b, False, None)  # it is there already
    assert table.displaced == 1
    assert table.add(d, False, SimpleQueue())  # in the place of c
    assert table.add(e, False, SimpleQueue())
    assert table.displaced == 3
    assert not table.add(c, False, None)
    assert not table.add(c, False, SimpleQueue())
    assert [take(table).job for _ in range(2)] == [d, e]
    assert table.sizes() == {"queued": 0, "started": 2}
    assert not table.add(c, False, SimpleQueue())  # started ones count, and are not given up


def test_no_more_start_than_allowed_until_one_is_settled() -> None:
    table = table_of(started=2)
    for job in jobs(3):
        table.add(job, False, None)
    first, _ = take(table), take(table)
    assert taken_soon(table) is None
    table.settle(first, DONE)
    wait_until(lambda: table.sizes() == {"queued": 0, "started": 2})  # the thread left behind


def test_large_pictures_start_one_at_a_time_but_do_start() -> None:
    large = [make_job(make_source(height=1000, width=1000), variant=v) for v in (1, 2)]
    table = table_of(started_bytes=1_000_000)
    for job in large:
        table.add(job, False, None)
    first = take(table)
    assert taken_soon(table) is None
    table.settle(first, DONE)
    wait_until(lambda: table.sizes() == {"queued": 0, "started": 1})


def test_a_suspect_starts_alone_and_nothing_joins_it() -> None:
    table, (a, b, c) = table_of(), jobs(3)
    table.add(a, False, SimpleQueue())
    first = take(table)
    table.add(b, True, SimpleQueue())
    assert taken_soon(table) is None  # waits for a to end; this thread gets b then
    table.settle(first, DONE)
    wait_until(lambda: table.sizes() == {"queued": 0, "started": 1})
    table.add(c, False, SimpleQueue())
    assert taken_soon(table) is None
    assert table.sizes() == {"queued": 1, "started": 1}


def test_a_painted_square_goes_before_new_work_and_despite_the_limit() -> None:
    table, (a, b) = table_of(started=1), jobs(2)
    table.add(a, False, None)
    table.add(b, False, SimpleQueue())
    task = take(table)
    assert task.job is b
    result = PaintResult("b/0", None, "bad")
    table.hand_back(task, result)
    assert take(table) is task
    assert task.result is result


def test_close_ends_every_take() -> None:
    table = table_of()
    threads = [threading.Thread(target=table.take, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    table.close()
    for thread in threads:
        thread.join(2.0)
    assert not any(thread.is_alive() for thread in threads)
    assert table.take() is None
