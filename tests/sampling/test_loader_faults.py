"""Rule 4 with everything real but the model: loader processes, look-ahead and painting processes.

Whatever happens to the painting processes and the cache, the same draws arrive, and each sample
says what it shows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler

from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.loader import VisitedDataset, build_train_loader, in_flight_draws
from bgaug_d2.sampling.lookahead import LookAhead
from bgaug_d2.sampling.mapper import BackgroundAugMapper
from bgaug_d2.sampling.visit_sampler import VisitSampler
from bgaug_d2.worker.client import WorkerClient
from bgaug_d2.worker.pool import WorkerPool
from tests.helpers.dataset_dicts import make_dicts, make_planner, reading_mapper
from tests.helpers.worker_site import Site

IMAGES, BATCH, ITERATIONS = 6, 3, 30


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Run:
    """A training run of ``ITERATIONS`` batches with two loader processes, without a model to train.

    ``during`` is called before the batch of that number.
    """

    def __init__(
        self,
        site: Site,
        addresses: list[str],
        on_miss: str,
        prompt: str = "noise",
        during: dict[int, Callable[[], Any]] | None = None,
        deadline_s: float = 10.0,
    ) -> None:
        self.planner = make_planner(
            site.data, variants=2, p=0.8, recipe={"prompt_text": prompt, "resolution": 32}
        )
        dataset = DatasetFromList(make_dicts(site.data, IMAGES), copy=False)
        client = WorkerClient(addresses, deadline_s, breaker_failures=3, breaker_cooldown_s=0.2)
        cache = site.cache
        mapper = BackgroundAugMapper(
            reading_mapper, self.planner, cache, client, on_miss, deadline_s
        )
        sampler = VisitSampler(TrainingSampler(IMAGES, seed=1), IMAGES)
        draws = VisitedDataset(dataset)
        in_flight = in_flight_draws(BATCH, 2, False)
        look_ahead = LookAhead(sampler, draws, self.planner, cache, client, 6, in_flight)
        loader = CountedLoader(
            build_train_loader(dataset, mapper, sampler, BATCH, 2, False), look_ahead
        )
        self.samples: list[dict[str, Any]] = []
        for iteration, batch in enumerate(loader):
            (during or {}).get(iteration, lambda: None)()
            self.samples += batch
            if iteration + 1 == ITERATIONS:
                break
        loader.close()
        self.totals = {name: count for name, count in loader.totals.items() if count}

    def outcomes(self) -> set[str]:
        """Check what holds for every run; the outcomes that there were."""
        assert len(self.samples) == ITERATIONS * BATCH
        drawn = [(sample["image_id"], sample["bgaug_visit"]) for sample in self.samples]
        indices = iter(TrainingSampler(IMAGES, seed=1))
        assert [image for image, _ in drawn] == [next(indices) for _ in drawn]
        for sample in self.samples:
            shown = Path(sample["file_name"]).parent.name == "train"
            assert shown == (sample["bgaug"] != "hit")
            assert (self.planner.variant(sample) == 0) == (sample["bgaug"] == "original")
        counted = dict.fromkeys(self.totals, 0)
        for sample in self.samples:
            counted[sample["bgaug"]] += 1
        assert counted == self.totals
        return set(self.totals)


@contextmanager
def started(site: Site, **options: Any) -> Iterator[WorkerPool]:
    pool = site.pool(site.spec(**options))
    pool.start()
    try:
        yield pool
    finally:
        pool.stop()


def kill_workers() -> int:
    """Kill the painting processes of this process; returns how many there were."""
    killed = 0
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if arguments[1:4] == [b"-m", b"bgaug_d2.worker.process", str(os.getpid()).encode()]:
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
        except OSError:  # it ended in the meantime
            continue
    return killed


def test_waiting_shows_every_picture(site: Site) -> None:
    with started(site) as pool:
        assert Run(site, pool.addresses, "wait").outcomes() == {"original", "hit"}


def test_not_waiting_shows_some(site: Site) -> None:
    with started(site) as pool:
        outcomes = Run(site, pool.addresses, "original").outcomes()
        again = Run(site, pool.addresses, "wait")
    assert outcomes <= {"original", "hit", "miss"}
    assert again.outcomes() == {"original", "hit"}


@pytest.mark.parametrize("on_miss", ["original", "wait"])
def test_a_painting_process_is_killed_again_and_again(site: Site, on_miss: str) -> None:
    killed: list[int] = []

    def kill() -> None:
        killed.append(kill_workers())

    with started(site, delay_s=0.02) as pool:
        during = dict.fromkeys((1, 5, 10, 20), kill)
        outcomes = Run(site, pool.addresses, on_miss, during=during).outcomes()
    assert sum(killed) >= 1
    allowed = {"original": {"miss", "unavailable"}, "wait": {"unavailable", "error"}}
    assert outcomes <= {"original", "hit"} | allowed[on_miss]


def test_the_painting_processes_go_away_for_good(site: Site) -> None:
    with started(site) as pool:
        run = Run(site, pool.addresses, "wait", during={0: pool.stop})
    assert "unavailable" in run.outcomes()


@pytest.mark.parametrize("on_miss", ["original", "wait"])
def test_there_never_was_a_painting_process(site: Site, on_miss: str) -> None:
    run = Run(site, [str(site.root / "nobody")], on_miss)
    assert run.outcomes() == {"original", "unavailable"}


@pytest.mark.parametrize(
    ("prompt", "outcomes"),
    [("flat", {"rejected"}), ("error", {"error"}), ("shape", {"error"})],
)
def test_a_model_that_paints_nothing_usable(site: Site, prompt: str, outcomes: set[str]) -> None:
    with started(site) as pool:
        run = Run(site, pool.addresses, "wait", prompt)
    assert run.outcomes() == {"original"} | outcomes


def test_a_model_that_ends_its_process(site: Site) -> None:
    """At first its jobs fail, then the painting process is given up."""
    with started(site) as pool:
        run = Run(site, pool.addresses, "wait", "raise no")
    assert run.outcomes() <= {"original", "error", "unavailable"}


def test_a_model_that_hangs(site: Site) -> None:
    with started(site) as pool:
        run = Run(site, pool.addresses, "wait", "hang", deadline_s=0.2)
    assert run.outcomes() <= {"original", "timeout", "unavailable", "error"}
    assert "timeout" in run.totals


def test_the_cache_is_deleted_while_training(site: Site) -> None:
    def delete() -> None:
        shutil.rmtree(site.cache_dir, ignore_errors=True)

    with started(site) as pool:
        during = dict.fromkeys(range(2, ITERATIONS, 5), delete)
        run = Run(site, pool.addresses, "wait", during=during)
    assert run.outcomes() <= {"original", "hit", "miss", "error"}
    assert "hit" in run.totals


def test_the_pictures_are_damaged_while_training(site: Site) -> None:
    def damage() -> None:
        for picture in Path(site.cache_dir).glob("??/??/*.png"):
            with contextlib.suppress(FileNotFoundError):  # just found damaged, and cleared away
                picture.write_bytes(picture.read_bytes()[:-9])

    with started(site) as pool:
        during = dict.fromkeys(range(2, ITERATIONS, 5), damage)
        run = Run(site, pool.addresses, "wait", during=during)
    assert run.outcomes() <= {"original", "hit", "miss", "error"}
    assert "hit" in run.totals


def test_an_image_is_missing_for_the_painting_process(site: Site) -> None:
    """The painting process reads another root, where the images are missing."""
    elsewhere = site.root / "elsewhere"
    elsewhere.mkdir()
    with started(site, spec={"image_root": str(elsewhere)}) as pool:
        run = Run(site, pool.addresses, "wait")
    assert run.outcomes() == {"original", "error"}
