"""Rule 5 for any data set, batch size, number of ranks and point of resume."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any
from unittest import mock

import torch
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from hypothesis import given, settings
from hypothesis import strategies as st

from bgaug_d2.sampling.visit_sampler import Grouping, VisitSampler

SEEDS = st.integers(0, 2**31 - 1)


def sampler_of(
    size: int,
    seed: int,
    rank: int,
    world_size: int,
    repeats: list[float] | None = None,
    **options: Any,
) -> VisitSampler:
    with (
        mock.patch.object(comm, "get_rank", return_value=rank),
        mock.patch.object(comm, "get_world_size", return_value=world_size),
    ):
        if repeats is None:
            return VisitSampler(TrainingSampler(size, seed=seed), size, **options)
        base = RepeatFactorTrainingSampler(torch.tensor(repeats), seed=seed)
        return VisitSampler(base, size, **options)


def take(iterable: Iterable[Any], count: int) -> list[Any]:
    return list(itertools.islice(iterable, count))


@given(
    size=st.integers(1, 40),
    seed=SEEDS,
    world_size=st.integers(1, 8),
    consumed=st.integers(0, 60),
    data=st.data(),
)
def test_ranks_and_resumes_share_one_stream(
    size: int, seed: int, world_size: int, consumed: int, data: st.DataObject
) -> None:
    repeats = data.draw(
        st.none() | st.lists(st.floats(1, 4, width=32), min_size=size, max_size=size)
    )
    whole = take(sampler_of(size, seed, 0, 1, repeats), (consumed + 10) * world_size)
    start = consumed * world_size
    shares = [
        take(sampler_of(size, seed, rank, world_size, repeats, start=start), 10)
        for rank in range(world_size)
    ]
    assert [draw for row in zip(*shares, strict=True) for draw in row] == whole[start:]
    assert max(Counter(whole).values()) == 1  # no draw comes twice
    for index in range(size):  # visits count up without a gap
        visits = [draw // size for draw in whole if draw % size == index]
        assert visits == list(range(len(visits)))


def grouped(sampler: VisitSampler, landscape: list[bool], batch_size: int, count: int) -> list[Any]:
    """The batches that Detectron2 makes of a sampler's draws."""
    size = len(landscape)
    samples = (
        {"draw": draw, "width": 2 if landscape[draw % size] else 1, "height": 1} for draw in sampler
    )
    batches = take(AspectRatioGroupedDataset(samples, batch_size), count)
    return [[sample["draw"] for sample in batch] for batch in batches]


@settings(max_examples=60)
@given(
    landscape=st.lists(st.booleans(), min_size=1, max_size=30),
    seed=SEEDS,
    batch_size=st.integers(1, 7),
    world_size=st.integers(1, 3),
    iteration=st.integers(0, 30),
)
def test_a_resume_restores_the_groups(
    landscape: list[bool], seed: int, batch_size: int, world_size: int, iteration: int
) -> None:
    grouping = Grouping(batch_size, landscape)
    start = iteration * batch_size * world_size
    for rank in range(world_size):
        uninterrupted = sampler_of(len(landscape), seed, rank, world_size)
        resumed = sampler_of(len(landscape), seed, rank, world_size, start=start, grouping=grouping)
        expected = grouped(uninterrupted, landscape, batch_size, iteration + 12)[iteration:]
        assert grouped(resumed, landscape, batch_size, 12) == expected
