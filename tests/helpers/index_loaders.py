"""Samplers and loaders of a small data set without image files, for tests of the loader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm

from bgaug_d2.sampling.loader import build_train_loader
from bgaug_d2.sampling.visit_sampler import Grouping, VisitSampler
from tests.helpers.dataset_dicts import bare_dicts

SIZE = 11
Batch = list[dict[str, Any]]


class Ranks:
    """Pretends to be one of several training processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def be(self, rank: int, world_size: int) -> None:
        self._monkeypatch.setattr(comm, "get_rank", lambda: rank)
        self._monkeypatch.setattr(comm, "get_world_size", lambda: world_size)


def sampler_of(size: int = SIZE, **options: Any) -> VisitSampler:
    return VisitSampler(TrainingSampler(size, seed=3), size, **options)


def take(iterable: Iterable[Any], count: int) -> list[Any]:
    return list(itertools.islice(iterable, count))


def draws_of(batches: Iterable[Batch], count: int) -> list[list[tuple[int, int]]]:
    """(image id, visit) of each sample of the first batches."""
    return [
        [(sample["image_id"], sample["bgaug_visit"]) for sample in batch]
        for batch in take(batches, count)
    ]


def unchanged(dataset_dict: dict[str, Any]) -> dict[str, Any]:
    return dataset_dict


def loader_of(
    total_batch_size: int = 4,
    num_workers: int = 0,
    grouped: bool = False,
    start: int = 0,
    mapper: Any = unchanged,
) -> Iterable[Batch]:
    dicts = bare_dicts(SIZE)
    grouping = Grouping.of(dicts, total_batch_size) if grouped else None
    sampler = sampler_of(start=start, grouping=grouping)
    return build_train_loader(dicts, mapper, sampler, total_batch_size, num_workers, grouped)
