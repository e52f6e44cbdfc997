"""The look-ahead: how far it goes, what it asks for, and that nothing gets out of it."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.sampling.lookahead import LookAhead
from bgaug_d2.sampling.planner import JobPlanner
from bgaug_d2.worker.protocol import Reply
from tests.helpers.dataset_dicts import FakeClient, make_dicts, make_planner, paint

COUNT = 5


class Draws:
    """Dataset dicts by draw, as ``VisitedDataset`` gives them, without torch."""

    def __init__(self, dicts: list[dict[str, Any]]) -> None:
        self.dicts = dicts

    def __getitem__(self, draw: int) -> dict[str, Any]:
        return {**self.dicts[draw % COUNT], "bgaug_visit": draw // COUNT}


class Setup:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.dicts = make_dicts(root, COUNT)
        self.planner: JobPlanner = make_planner(root, variants=1)
        self.cache = VariantCache(str(root / "cache"))

    def job(self, index: int) -> InpaintJob:
        return self.planner.plan_variant(self.dicts[index], 1).job()

    def look_ahead(self, client: Any, look_ahead: int = 3, **options: Any) -> LookAhead:
        sampler = options.pop("sampler", itertools.count())
        planner, cache = options.pop("planner", self.planner), options.pop("cache", self.cache)
        dataset = Draws(self.dicts)
        return LookAhead(sampler, dataset, planner, cache, client, look_ahead, **options)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail("it did not happen in 20 s")


def total(look_ahead: LookAhead) -> int:
    return sum(look_ahead.counts.values())


def settled(look_ahead: LookAhead, count: int) -> None:
    """``count`` draws were looked at, and no more come by themselves."""
    wait_for(lambda: total(look_ahead) >= count)
    time.sleep(0.05)
    assert total(look_ahead) == count


def test_it_stays_as_far_ahead_as_it_was_told(setup: Setup) -> None:
    client = FakeClient("queued")
    look_ahead = setup.look_ahead(client, 3, in_flight=1)
    look_ahead.start()
    settled(look_ahead, 4)
    assert client.enqueued == [setup.job(index) for index in range(4)]
    look_ahead.advance(2)
    settled(look_ahead, 6)
    look_ahead.start()  # a second time changes nothing
    settled(look_ahead, 6)
    assert look_ahead.counts == {"queued": 6}
    look_ahead.close()


def test_it_asks_for_nothing_that_is_there_or_not_needed(setup: Setup) -> None:
    paint(setup.cache, setup.job(0), setup.root)
    assert setup.cache.reject(setup.job(1).key, "flat", {})
    setup.dicts[2]["annotations"] = []
    client = FakeClient("queued")
    look_ahead = setup.look_ahead(client, 4)
    look_ahead.start()
    settled(look_ahead, 4)
    look_ahead.close()
    assert look_ahead.counts == {"cached": 2, "original": 1, "queued": 1}
    assert client.enqueued == [setup.job(3)]


def test_painted_in_the_meantime_counts_as_cached(setup: Setup) -> None:
    look_ahead = setup.look_ahead(FakeClient("done"), 2)
    look_ahead.start()
    settled(look_ahead, 2)
    look_ahead.close()
    assert look_ahead.counts == {"cached": 2}


def test_draws_that_training_has_passed_are_left_out(setup: Setup) -> None:
    client = FakeClient("queued")
    look_ahead = setup.look_ahead(client, 2)
    look_ahead.advance(3)
    look_ahead.start()
    settled(look_ahead, 5)
    look_ahead.close()
    assert look_ahead.counts == {"late": 3, "queued": 2}
    assert client.enqueued == [setup.job(3), setup.job(4)]


class Answers:
    """Gives one reply after the other, the last one for ever."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[str] = []

    def enqueue(self, job: InpaintJob) -> Reply:
        self.asked.append(job.key)
        return Reply(self.replies.pop(0) if len(self.replies) > 1 else self.replies[0])


@pytest.mark.parametrize("status", ["busy", "unavailable", "timeout"])
def test_it_asks_again_while_there_is_time(
    setup: Setup, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug_d2.sampling.lookahead._RETRY_S", 0.01)
    client = Answers(status, status, "queued")
    look_ahead = setup.look_ahead(client, 1)
    look_ahead.start()
    settled(look_ahead, 1)
    look_ahead.close()
    assert look_ahead.counts == {"queued": 1}
    assert client.asked == [setup.job(0).key] * 3


def test_it_gives_up_when_training_gets_there(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug_d2.sampling.lookahead._RETRY_S", 60.0)
    client = Answers("busy")
    look_ahead = setup.look_ahead(client, 2)
    look_ahead.start()
    wait_for(lambda: len(client.asked) == 1)
    look_ahead.advance(1)  # wakes it at once
    wait_for(lambda: len(client.asked) == 2)
    look_ahead.close()
    assert client.asked == [setup.job(0).key, setup.job(1).key]
    assert look_ahead.counts == {"busy": 2}


def test_a_refused_job_is_not_asked_for_again(setup: Setup) -> None:
    client = Answers("error", "queued")
    look_ahead = setup.look_ahead(client, 2)
    look_ahead.start()
    settled(look_ahead, 2)
    look_ahead.close()
    assert look_ahead.counts == {"error": 1, "queued": 1}


class RaisingClient:
    def enqueue(self, job: InpaintJob) -> Reply:
        raise RuntimeError("a bug in the client")


def test_faults_are_counted_and_the_next_draws_looked_at(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.dicts[1]["annotations"][0]["bbox"] = [float("nan")] * 4
    client = FakeClient("queued")
    look_ahead = setup.look_ahead(client, 5)
    with caplog.at_level(logging.WARNING):
        look_ahead.start()
        settled(look_ahead, 5)
        look_ahead.close()
    assert look_ahead.counts == {"queued": 4, "error": 1}
    assert "annotation" in caplog.text


def test_a_client_that_raises_does_not_flood_the_log(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    look_ahead = setup.look_ahead(RaisingClient(), 50)
    with caplog.at_level(logging.WARNING):
        look_ahead.start()
        settled(look_ahead, 50)
        look_ahead.close()
    assert look_ahead.counts == {"error": 50}
    assert 1 <= len(caplog.records) <= 20


def test_a_sampler_that_raises_ends_it_with_a_message(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Iterator[int]:
        yield 0
        raise RuntimeError("no more")

    look_ahead = setup.look_ahead(FakeClient("queued"), sampler=broken())
    look_ahead.start()
    wait_for(lambda: total(look_ahead) == 2)
    look_ahead.advance(10)
    look_ahead.close()
    assert look_ahead.counts == {"queued": 1, "error": 1}
    assert "look-ahead stopped" in caplog.text


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "bgaug-look-ahead"]


@pytest.mark.parametrize("status", ["queued", "busy"])
def test_closing_ends_the_thread_at_once(
    setup: Setup, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug_d2.sampling.lookahead._RETRY_S", 60.0)
    look_ahead = setup.look_ahead(FakeClient(status), 2)
    look_ahead.start()
    wait_for(lambda: len(threads()) == 1)
    look_ahead.close()
    assert threads() == []
    look_ahead.close()
    look_ahead.advance(5)


def test_closing_what_was_never_started(setup: Setup) -> None:
    look_ahead = setup.look_ahead(FakeClient())
    look_ahead.close()
    look_ahead.start()
    look_ahead.close()
    assert total(look_ahead) == 0


def test_closing_does_not_wait_for_a_hanging_client(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug_d2.sampling.lookahead._CLOSE_TIMEOUT_S", 0.1)
    release = threading.Event()

    class Hanging:
        def enqueue(self, job: InpaintJob) -> Reply:
            release.wait(60)
            return Reply("queued")

    look_ahead = setup.look_ahead(Hanging())
    look_ahead.start()
    began = time.monotonic()
    look_ahead.close()
    assert time.monotonic() - began < 20
    assert all(each.daemon for each in threads())
    release.set()
    wait_for(lambda: threads() == [])


@pytest.mark.parametrize(("look_ahead", "in_flight"), [(0, 0), (-1, 5), (1, -1)])
def test_a_distance_that_makes_no_sense(setup: Setup, look_ahead: int, in_flight: int) -> None:
    with pytest.raises(ValueError, match=f"look_ahead={look_ahead}"):
        setup.look_ahead(FakeClient(), look_ahead, in_flight=in_flight)
