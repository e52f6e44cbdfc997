"""Draws and batches: the same for any number of processes and ranks, and after a resume."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from detectron2.data import DatasetFromList, MapDataset, build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bgaug_d2.sampling.loader import VisitedDataset, build_train_loader
from bgaug_d2.sampling.visit_sampler import VisitSampler
from tests.helpers.dataset_dicts import bare_dicts
from tests.helpers.index_loaders import (
    SIZE,
    Ranks,
    draws_of,
    loader_of,
    sampler_of,
    take,
    unchanged,
)


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    return Ranks(monkeypatch)


# --- VisitSampler ---------------------------------------------------------------------------------


def test_draws_are_the_indices_with_their_visits() -> None:
    indices = take(TrainingSampler(SIZE, seed=3), 5 * SIZE)
    draws = take(sampler_of(), 5 * SIZE)
    assert [draw % SIZE for draw in draws] == indices
    seen: Counter[int] = Counter()
    for draw in draws:
        assert type(draw) is int
        assert draw // SIZE == seen[draw % SIZE]
        seen[draw % SIZE] += 1
    assert len(set(draws)) == len(draws)


def test_repeated_images_have_visits_of_their_own() -> None:
    base = RepeatFactorTrainingSampler(torch.tensor([1.0, 2.5, 1.0]), seed=3)
    draws = take(VisitSampler(base, 3), 200)
    visits: dict[int, list[int]] = {}
    for draw in draws:
        visits.setdefault(draw % 3, []).append(draw // 3)
    for each in visits.values():
        assert each == list(range(len(each)))
    assert len(visits[1]) > 2 * len(visits[0]) - 5


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_one_stream(ranks: Ranks, world_size: int) -> None:
    expected = take(sampler_of(), 10 * world_size)
    shares = []
    for rank in range(world_size):
        ranks.be(rank, world_size)
        shares.append(take(sampler_of(), 10))
    assert [draw for each in zip(*shares, strict=True) for draw in each] == expected


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_start_skips_what_was_consumed(ranks: Ranks, world_size: int) -> None:
    for rank in range(world_size):
        ranks.be(rank, world_size)
        assert take(sampler_of(start=8 * world_size), 30) == take(sampler_of(), 38)[8:]


def test_start_may_be_set_late() -> None:
    sampler = sampler_of()
    iterator = iter(sampler_of(start=5))
    sampler.start = 5
    assert take(sampler, 9) == take(iterator, 9)


@pytest.mark.parametrize("start", [-4, 3])
def test_a_start_that_no_run_can_have_reached(ranks: Ranks, start: int) -> None:
    ranks.be(0, 2)
    with pytest.raises(ValueError, match=f"start={start}"):
        iter(sampler_of(start=start))


def test_iterators_share_no_state() -> None:
    sampler = sampler_of()
    first, second = iter(sampler), iter(sampler)
    pairs = [(next(first), next(second)) for _ in range(3 * SIZE)]
    assert all(a == b for a, b in pairs)


def test_other_samplers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"SequentialSampler.*TrainingSampler"):
        VisitSampler(torch.utils.data.SequentialSampler([1, 2]), 2)


# --- VisitedDataset -------------------------------------------------------------------------------


def test_a_draw_is_looked_up_and_mapped() -> None:
    dicts = bare_dicts(3)
    dataset = VisitedDataset(dicts)
    assert len(dataset) == 3
    assert dataset[2] == {**dicts[2], "bgaug_visit": 0}
    assert dataset[5 * 3 + 1] == {**dicts[1], "bgaug_visit": 5}
    assert "bgaug_visit" not in dicts[1]
    mapped = VisitedDataset(dicts, lambda each: {"twice": 2 * each["bgaug_visit"]})
    assert mapped[7] == {"twice": 4}


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
def test_batches_do_not_depend_on_loader_processes(grouped: bool) -> None:
    expected = draws_of(loader_of(num_workers=0, grouped=grouped), 20)
    for num_workers in (1, 4):
        assert draws_of(loader_of(num_workers=num_workers, grouped=grouped), 20) == expected


@pytest.mark.parametrize("grouped", [False, True])
def test_batches_are_those_of_detectron2(grouped: bool) -> None:
    theirs = build_detection_train_loader(
        DatasetFromList(bare_dicts(SIZE), copy=False),
        mapper=unchanged,
        sampler=TrainingSampler(SIZE, seed=3),
        total_batch_size=4,
        aspect_ratio_grouping=grouped,
        num_workers=0,
    )
    images = [[sample["image_id"] for sample in batch] for batch in take(theirs, 20)]
    ours = draws_of(loader_of(grouped=grouped), 20)
    assert [[image for image, _ in batch] for batch in ours] == images
    if grouped:
        assert {len({image % 3 == 2 for image in batch}) for batch in images} == {1}


@pytest.mark.parametrize("world_size", [2, 4])
def test_an_iteration_sees_the_same_draws_on_any_number_of_ranks(
    ranks: Ranks, world_size: int
) -> None:
    expected = draws_of(loader_of(), 20)
    shares = []
    for rank in range(world_size):
        ranks.be(rank, world_size)
        shares.append(draws_of(loader_of(), 20))
    for iteration, batch in enumerate(expected):
        assert sorted(draw for share in shares for draw in share[iteration]) == sorted(batch)
        assert {len(share[iteration]) for share in shares} == {4 // world_size}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_resumed_run_goes_on_with_the_same_batches(
    ranks: Ranks, world_size: int, grouped: bool
) -> None:
    for rank in range(world_size):
        ranks.be(rank, world_size)
        whole = draws_of(loader_of(grouped=grouped), 40)
        for iteration in (0, 1, 7, 23):
            resumed = loader_of(grouped=grouped, start=4 * iteration)
            assert draws_of(resumed, 40 - iteration) == whole[iteration:]


def test_a_resumed_run_with_processes() -> None:
    whole = draws_of(loader_of(grouped=True), 20)
    assert draws_of(loader_of(grouped=True, start=4 * 6, num_workers=2), 14) == whole[6:]


def test_a_dataset_can_be_shared() -> None:
    shared = DatasetFromList(bare_dicts(SIZE), copy=False)
    loader = build_train_loader(shared, unchanged, sampler_of(), 4, 0, False)
    assert draws_of(loader, 9) == draws_of(loader_of(), 9)


@pytest.mark.parametrize("total_batch_size", [0, -2, 3])
def test_a_batch_that_cannot_be_shared_out(ranks: Ranks, total_batch_size: int) -> None:
    ranks.be(0, 2)
    with pytest.raises(ValueError, match=f"total_batch_size={total_batch_size}"):
        build_train_loader(bare_dicts(SIZE), unchanged, sampler_of(), total_batch_size, 0, False)


def test_a_sampler_for_another_data_set() -> None:
    with pytest.raises(ValueError, match="11 images, the data set has 5"):
        build_train_loader(bare_dicts(5), unchanged, sampler_of(), 4, 0, False)


# --- newer versions of Detectron2 -----------------------------------------------------------------


class ShardedInWorkers(IterableDataset):
    """Does what newer versions of Detectron2 do to a map-style dataset and its sampler.

    Each loader process iterates the whole sampler by itself. The stream is cut into chunks that are
    dealt out to the processes in turn; a process reads its chunks by opening as many iterators of
    the sampler as a chunk has places, each of which sees one place of each of its chunks.
    """

    def __init__(self, dataset: Any, sampler: Iterable[int], chunk_size: int) -> None:
        self.dataset, self.sampler, self.chunk_size = dataset, sampler, chunk_size

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        count, mine = (1, 0) if info is None else (info.num_workers, info.id)
        places = [
            itertools.islice(
                self.sampler, mine * self.chunk_size + place, None, count * self.chunk_size
            )
            for place in range(self.chunk_size)
        ]
        for row in zip(*places, strict=False):
            yield from (self.dataset[draw] for draw in row)


@pytest.mark.parametrize("num_workers", [0, 2, 4])
def test_draws_survive_sharding_within_loader_processes(num_workers: int) -> None:
    dataset = MapDataset(VisitedDataset(bare_dicts(SIZE)), unchanged)
    sharded = ShardedInWorkers(dataset, sampler_of(), chunk_size=4)
    loader = DataLoader(sharded, batch_size=4, num_workers=num_workers, collate_fn=list)
    assert draws_of(loader, 20) == draws_of(loader_of(), 20)


def test_a_rank_is_kept_in_loader_processes(ranks: Ranks) -> None:
    ranks.be(1, 2)
    sampler = sampler_of()
    expected = take(sampler, 20)
    ranks.be(0, 1)  # a loader process is in no process group
    assert take(sampler, 20) == expected


@pytest.mark.parametrize("grouped", [False, True])
def test_detectron2s_own_builder_takes_sampler_and_dataset(grouped: bool) -> None:
    loader = build_detection_train_loader(
        VisitedDataset(DatasetFromList(bare_dicts(SIZE), copy=False)),
        mapper=unchanged,
        sampler=sampler_of(),
        total_batch_size=4,
        aspect_ratio_grouping=grouped,
        num_workers=0,
    )
    assert draws_of(loader, 20) == draws_of(loader_of(grouped=grouped), 20)
