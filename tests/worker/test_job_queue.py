"""Which job comes next, who hears of it, and what is not taken at all."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.painting.engine_interface import PaintResult
from bgaug_d2.worker.job_queue import JobQueue, Task
from bgaug_d2.worker.protocol import STARTED, Reply
from tests.helpers.factories import make_job, make_source
from tests.helpers.worker_site import wait_until

Waiter = SimpleQueue[dict[str, Any]]
DONE = Reply("done")


def queue_of(capacity: int = 100, running: int = 100, running_bytes: int = 1 << 40) -> JobQueue:
    return JobQueue(capacity, running, running_bytes)


def jobs(count: int) -> list[InpaintJob]:
    return [make_job(variant=variant) for variant in range(1, count + 1)]


def take(queue: JobQueue) -> Task:
    task = queue.take()
    assert task is not None
    return task


def taken_soon(queue: JobQueue) -> Task | None:
    """What ``take`` gives at once; None if it would wait. A waiting thread is left behind."""
    found: list[Task | None] = []
    thread = threading.Thread(target=lambda: found.append(queue.take()), daemon=True)
    thread.start()
    thread.join(0.1)
    return found[0] if found else None


def test_the_youngest_comes_first_but_after_those_with_a_waiter_in_their_order() -> None:
    queue, (a, b, c, d) = queue_of(), jobs(4)
    assert queue.add(a, False, None)
    assert queue.add(b, False, None)
    assert queue.add(c, False, SimpleQueue())
    assert queue.add(d, False, SimpleQueue())
    assert [take(queue).job for _ in range(4)] == [c, d, b, a]


def test_a_job_that_is_asked_for_again_moves_up() -> None:
    queue, (a, b, c) = queue_of(), jobs(3)
    queue.add(a, False, None)
    queue.add(b, False, None)
    queue.add(a, False, None)
    assert take(queue).job is a
    queue.add(a, False, None)
    queue.add(c, False, None)
    queue.add(b, False, SimpleQueue())
    assert [take(queue).job for _ in range(2)] == [b, c]


def test_everybody_who_waits_gets_an_answer_and_a_job_is_held_once() -> None:
    queue, (job, *_) = queue_of(), jobs(1)
    early: Waiter = SimpleQueue()
    late: Waiter = SimpleQueue()
    queue.add(job, False, None)
    queue.add(job, False, early)
    task = take(queue)
    assert early.get() == STARTED
    queue.add(job, False, late)
    assert late.get() == STARTED
    assert queue.add(job, False, None)
    assert queue.sizes() == {"queued": 0, "running": 1}
    queue.settle(task, DONE)
    assert early.get() == late.get() == DONE.to_dict()
    assert queue.sizes() == {"queued": 0, "running": 0}


def test_a_full_queue_gives_up_the_oldest_prefetch_job_or_refuses() -> None:
    queue, (a, b, c, d, e) = queue_of(capacity=2), jobs(5)
    assert queue.add(a, False, None)
    assert queue.add(b, False, None)
    assert queue.add(c, False, None)  # in the place of a
    assert queue.add(b, False, None)  # it is there already
    assert queue.displaced == 1
    assert queue.add(d, False, SimpleQueue())  # in the place of c
    assert queue.add(e, False, SimpleQueue())
    assert queue.displaced == 3
    assert not queue.add(c, False, None)
    assert not queue.add(c, False, SimpleQueue())
    assert [take(queue).job for _ in range(2)] == [d, e]
    assert queue.sizes() == {"queued": 0, "running": 2}
    assert not queue.add(c, False, SimpleQueue())  # running ones count, and are not given up


def test_no_more_start_than_allowed_until_one_is_settled() -> None:
    queue = queue_of(running=2)
    for job in jobs(3):
        queue.add(job, False, None)
    first, _ = take(queue), take(queue)
    assert taken_soon(queue) is None
    queue.settle(first, DONE)
    wait_until(lambda: queue.sizes() == {"queued": 0, "running": 2})  # the thread left behind


def test_large_pictures_start_one_at_a_time_but_do_start() -> None:
    large = [make_job(make_source(height=1000, width=1000), variant=v) for v in (1, 2)]
    queue = queue_of(running_bytes=1_000_000)
    for job in large:
        queue.add(job, False, None)
    first = take(queue)
    assert taken_soon(queue) is None
    queue.settle(first, DONE)
    wait_until(lambda: queue.sizes() == {"queued": 0, "running": 1})


def test_a_suspect_starts_isolated_and_nothing_joins_it() -> None:
    queue, (a, b, c) = queue_of(), jobs(3)
    queue.add(a, False, SimpleQueue())
    first = take(queue)
    queue.add(b, True, SimpleQueue())
    assert taken_soon(queue) is None  # waits for a to end; this thread gets b then
    queue.settle(first, DONE)
    wait_until(lambda: queue.sizes() == {"queued": 0, "running": 1})
    queue.add(c, False, SimpleQueue())
    assert taken_soon(queue) is None
    assert queue.sizes() == {"queued": 1, "running": 1}


def test_a_painted_square_goes_before_new_work_and_despite_the_limit() -> None:
    queue, (a, b) = queue_of(running=1), jobs(2)
    queue.add(a, False, None)
    queue.add(b, False, SimpleQueue())
    task = take(queue)
    assert task.job is b
    result = PaintResult("b/0", None, "bad")
    queue.hand_back(task, result)
    assert take(queue) is task
    assert task.result is result


def test_close_ends_every_take() -> None:
    queue = queue_of()
    threads = [threading.Thread(target=queue.take, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.close()
    for thread in threads:
        thread.join(2.0)
    assert not any(thread.is_alive() for thread in threads)
    assert queue.take() is None
