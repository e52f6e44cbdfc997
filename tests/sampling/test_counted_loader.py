"""What the samples of a run show: the same for any number of processes, and counted exactly."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.loader import VisitedDataset, build_train_loader, in_flight_draws
from bgaug_d2.sampling.lookahead import LookAhead
from bgaug_d2.sampling.mapper import BackgroundAugMapper
from bgaug_d2.sampling.outcomes import OUTCOMES
from bgaug_d2.sampling.visit_sampler import VisitSampler
from tests.helpers.dataset_dicts import (
    FakeClient,
    bare_dicts,
    make_dicts,
    make_planner,
    paint,
    reading_mapper,
)
from tests.helpers.index_loaders import (
    SIZE,
    Batch,
    draws_of,
    loader_of,
    sampler_of,
    take,
    unchanged,
)


def half_painted(root: Path, dicts: Batch) -> BackgroundAugMapper:
    planner = make_planner(root, p=0.6, variants=3)
    cache = VariantCache(str(root / "cache"))
    for each, variant in planner.all_jobs(dicts):
        if (each["image_id"] + variant) % 2:
            paint(cache, planner.plan_variant(each, variant).job(), root)
    dicts[0]["annotations"] = []
    return BackgroundAugMapper(reading_mapper, planner, cache, None, "original", 1.0)


def test_pictures_and_counts_do_not_depend_on_processes_or_resume(tmp_path: Path) -> None:
    dicts = make_dicts(tmp_path, 6)
    mapper = half_painted(tmp_path, dicts)

    def run(num_workers: int, start: int = 0) -> tuple[list[Any], dict[str, int]]:
        sampler = VisitSampler(TrainingSampler(6, seed=1), 6, start=start)
        loader = CountedLoader(build_train_loader(dicts, mapper, sampler, 3, num_workers, False))
        batches = take(loader, 20 - start // 3)
        samples = [sample for batch in batches for sample in batch]
        return [(s["file_name"], s["bgaug"], s["image"].sum()) for s in samples], loader.totals

    expected, totals = run(0)
    assert Counter(outcome for _, outcome, _ in expected) == +Counter(totals)
    assert {"hit", "miss", "original", "no_objects"} <= set(+Counter(totals))
    for num_workers in (1, 4):
        assert run(num_workers) == (expected, totals)
    assert run(2, start=15)[0] == expected[15:]


def outcomes(*rows: str) -> list[Batch]:
    return [[{"bgaug": outcome} for outcome in row.split()] for row in rows]


def test_every_consumed_sample_is_counted_once() -> None:
    batches = outcomes("hit hit original", "miss hit original", "error error hit")
    loader = CountedLoader(batches)
    assert loader.totals == dict.fromkeys(OUTCOMES, 0)
    iterator = iter(loader)
    assert next(iterator) is batches[0]
    assert loader.totals == dict.fromkeys(OUTCOMES, 0) | {"hit": 2, "original": 1}
    next(iterator)
    assert loader.totals == dict.fromkeys(OUTCOMES, 0) | {"hit": 3, "original": 2, "miss": 1}
    assert len(list(iterator)) == 1
    assert sum(loader.totals.values()) == 9


def test_samples_of_a_plain_mapper_count_as_originals() -> None:
    loader = CountedLoader([[{"image": 0}, {"image": 1}]])
    assert len(list(loader)) == 1
    assert loader.totals["original"] == 2


def test_intervals_add_up_to_the_totals() -> None:
    loader = CountedLoader(outcomes("hit miss", "hit hit", "crowd hit", "timeout original"))
    iterator = iter(loader)
    parts = []
    for steps in (1, 2, 0, 1):
        take(iterator, steps)
        parts.append(loader.interval())
    assert parts[0]["hit"] == 1
    assert parts[1]["hit"] == 3
    assert {parts[2][outcome] for outcome in OUTCOMES} == {0}
    for outcome in OUTCOMES:
        assert sum(part[outcome] for part in parts) == loader.totals[outcome]
    assert sum(part["wait_s"] for part in parts) == pytest.approx(loader.wait_s)


def test_waiting_for_data_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("bgaug_d2.sampling.counted_loader.time.perf_counter", lambda: clock[0])

    def slow() -> Iterator[Batch]:
        for batch in outcomes("hit", "hit"):
            clock[0] += 0.5
            yield batch

    loader = CountedLoader(slow())
    for _ in loader:
        clock[0] += 7.0  # training itself does not count
    assert loader.wait_s == 1.0
    assert loader.interval()["wait_s"] == 1.0
    assert loader.interval()["wait_s"] == 0.0


def test_nothing_is_loaded_before_the_first_batch_is_asked_for() -> None:
    """Detectron2 0.5 makes the iterator before it knows from which iteration it resumes."""
    sampler = sampler_of()
    dicts = bare_dicts(SIZE)
    iterator = iter(CountedLoader(build_train_loader(dicts, unchanged, sampler, 4, 0, False)))
    sampler.start = 20
    assert draws_of(iterator, 3) == draws_of(loader_of(), 8)[5:]


class RecordingLookAhead:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self) -> None:
        self.calls.append("start")

    def advance(self, draws: int) -> None:
        self.calls.append(draws)

    def close(self) -> None:
        self.calls.append("close")


def test_the_look_ahead_starts_with_the_first_batch_and_follows() -> None:
    look_ahead: Any = RecordingLookAhead()

    def source() -> Iterator[Batch]:
        look_ahead.calls.append("forked")
        yield from outcomes("hit hit", "hit miss")

    loader = CountedLoader(source(), look_ahead)
    iterator = iter(loader)
    assert look_ahead.calls == []
    take(iterator, 2)
    loader.close()
    assert look_ahead.calls == ["forked", "start", 2, "start", 2, "close"]


def test_closing_without_a_look_ahead() -> None:
    CountedLoader([]).close()


@pytest.mark.parametrize(
    ("num_workers", "grouped", "expected"),
    [(0, False, 0), (3, False, 24), (0, True, 6), (3, True, 12)],
)
def test_draws_in_flight(num_workers: int, grouped: bool, expected: int) -> None:
    assert in_flight_draws(4, num_workers, grouped) == expected


def test_look_ahead_asks_for_what_the_loader_will_draw(tmp_path: Path) -> None:
    dicts = make_dicts(tmp_path, 6)
    planner = make_planner(tmp_path, p=0.5)
    cache = VariantCache(str(tmp_path / "cache"))
    client: Any = FakeClient("queued")
    mapper = BackgroundAugMapper(reading_mapper, planner, cache, None, "original", 1.0)
    sampler = VisitSampler(TrainingSampler(6, seed=1), 6)
    dataset = DatasetFromList(dicts, copy=False)
    look_ahead = LookAhead(sampler, VisitedDataset(dataset), planner, cache, client, 7)
    loader = CountedLoader(build_train_loader(dataset, mapper, sampler, 3, 0, False), look_ahead)
    samples = [sample for batch in take(loader, 2) for sample in batch]
    for _ in range(500):  # 6 consumed, 7 ahead
        if sum(look_ahead.counts.values()) == 13:
            break
        threading.Event().wait(0.01)
    loader.close()
    assert sum(look_ahead.counts.values()) == 13
    drawn = [VisitedDataset(dicts)[draw] for draw in take(sampler, 13)]
    ahead = {planner.plan(each).key for each in drawn[6:]} - {None}
    asked = {job.key for job in client.enqueued}
    assert ahead <= asked <= {planner.plan(each).key for each in drawn}
    assert [each["image_id"] for each in drawn[:6]] == [each["image_id"] for each in samples]
