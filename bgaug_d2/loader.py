"""The training loader: draws know how often their image was drawn before, outcomes are counted.

Words used here:
    index   of an image in the data set, ``0..size - 1``
    visit   how often that index was drawn before, over all ranks, from 0
    draw    ``visit * size + index``: one integer, so that it passes wherever an index passes
There is one stream of draws for all ranks; rank r of R takes every R-th of it, from the r-th on.

``build_train_loader`` makes the DataLoader itself and so gives the same batches under every
version of Detectron2 and for any number of processes. ``VisitSampler`` and ``VisitedDataset``
also work in Detectron2's own ``build_detection_train_loader``, which in newer versions iterates
the sampler within each loader process, several times at once: iterators share no state here.
"""

from __future__ import annotations

import itertools
import operator
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.data.build import trivial_batch_collator, worker_init_reset_seed
from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from bgaug_d2.lookahead import LookAhead
from bgaug_d2.mapper import OUTCOMES
from bgaug_d2.ratios import expand_dataset

__all__ = [
    "CountedLoader",
    "Grouping",
    "LookAhead",
    "VisitSampler",
    "VisitedDataset",
    "build_train_loader",
    "expand_dataset",
    "in_flight_draws",
]

# DataLoader's own default, spelt out because the look-ahead has to know it.
_PREFETCH_FACTOR = 2


@dataclass(frozen=True)
class Grouping:
    """How Detectron2 groups images by aspect ratio, which a resumed sampler has to replay.

    Attributes:
        batch_size: Images per batch of one rank.
        landscape: For each index, whether the image is wider than high.
    """

    batch_size: int
    landscape: Sequence[bool]

    @classmethod
    def of(cls, dataset_dicts: Sequence[dict[str, Any]], total_batch_size: int) -> Grouping:
        """The grouping of ``build_train_loader(..., aspect_ratio_grouping=True)`` on this rank."""
        landscape = [each["width"] > each["height"] for each in dataset_dicts]
        return cls(_rank_batch_size(total_batch_size), landscape)


class VisitSampler(Sampler[int]):
    """Turns the indices of a Detectron2 training sampler into draws, for this rank.

    Args:
        base: ``TrainingSampler`` or ``RepeatFactorTrainingSampler``, made with an explicit seed:
            a random one would not come back after a resume.
        size: Number of images.
        start: Samples that training has consumed on all ranks, iterations times total batch size.
            It may be set until the first iteration.
        grouping: Needed for an exact resume where batches are grouped by aspect ratio; else None.
    """

    def __init__(
        self, base: Sampler[int], size: int, start: int = 0, grouping: Grouping | None = None
    ) -> None:
        if not hasattr(base, "_infinite_indices"):
            raise TypeError(
                f"{type(base).__name__} is not an infinite sampler of Detectron2; use "
                "TrainingSampler or RepeatFactorTrainingSampler"
            )
        self.base = base
        self.size = size
        self.start = start
        self.grouping = grouping
        # Taken here: newer versions of Detectron2 iterate samplers in processes without a rank.
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        consumed, rest = divmod(self.start, self._world_size)
        if consumed < 0 or rest:
            raise ValueError(
                f"start={self.start} must be iterations times total batch size, "
                f"a multiple of the {self._world_size} ranks"
            )
        draws = itertools.islice(self._all_draws(), self._rank, None, self._world_size)
        if self.grouping is None:
            return itertools.islice(draws, consumed, None)
        return _after_batches(draws, consumed // self.grouping.batch_size, self.size, self.grouping)

    def _all_draws(self) -> Iterator[int]:
        visits = array("q", bytes(8 * self.size))
        for index in self.base._infinite_indices():
            yield visits[index] * self.size + index
            visits[index] += 1


def _after_batches(
    draws: Iterator[int], num_batches: int, size: int, grouping: Grouping
) -> Iterator[int]:
    """Draws that bring a fresh grouping to where it was after so many batches, and all that follow.

    At any time some draws wait for their group to fill up. They are drawn again first: they fill no
    group on their own, so the state is that of a run that was never interrupted.
    """
    groups: tuple[list[int], list[int]] = ([], [])
    while num_batches:
        draw = next(draws)
        group = groups[grouping.landscape[draw % size]]
        group.append(draw)
        if len(group) == grouping.batch_size:
            group.clear()
            num_batches -= 1
    return itertools.chain(*groups, draws)


class VisitedDataset(Dataset[dict[str, Any]]):
    """Looks draws up: the dataset dict of the index, with ``bgaug_visit``.

    Args:
        dataset: Dataset dicts by index, for example Detectron2's ``DatasetFromList``.
        mapper: Applied to each dict, where given. Detectron2's ``MapDataset`` would do as well,
            but it remembers every index that it was ever asked for, and draws never repeat.
    """

    def __init__(
        self,
        dataset: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: int) -> dict[str, Any]:
        visit, index = divmod(int(draw), len(self.dataset))
        sample = {**self.dataset[index], "bgaug_visit": visit}
        return sample if self.mapper is None else self.mapper(sample)


def build_train_loader(
    dataset_dicts: Sequence[dict[str, Any]],
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
    sampler: VisitSampler,
    total_batch_size: int,
    num_workers: int,
    aspect_ratio_grouping: bool,
) -> Iterable[list[dict[str, Any]]]:
    """Detectron2's training loader, with visits.

    Args:
        dataset_dicts: Detectron2's format; a list, or a dataset such as ``DatasetFromList(dicts,
            copy=False)``, which a look-ahead can then share.
        mapper: Makes a sample; with aspect-ratio grouping the sample must keep ``width`` and
            ``height``.
        sampler: Over as many images as there are dataset dicts.
        total_batch_size: Images per iteration on all ranks.
        num_workers: Loader processes of this rank; 0 loads in the training process.
        aspect_ratio_grouping: Whether a batch holds either landscape or portrait images only.

    Returns:
        Endless batches of this rank, lists of samples.

    Raises:
        ValueError: The batch cannot be shared out, or the sampler is for another number of images.
    """
    batch_size = _rank_batch_size(total_batch_size)
    if sampler.size != len(dataset_dicts):
        raise ValueError(
            f"the sampler is for {sampler.size} images, the data set has {len(dataset_dicts)}"
        )
    options: dict[str, Any] = {
        "num_workers": num_workers,
        "worker_init_fn": worker_init_reset_seed,
        "prefetch_factor": _PREFETCH_FACTOR if num_workers else None,
    }
    if isinstance(dataset_dicts, list):  # serialised, so that processes share its memory
        dataset_dicts = DatasetFromList(dataset_dicts, copy=False)
    dataset = VisitedDataset(dataset_dicts, mapper)
    if aspect_ratio_grouping:
        one_by_one = operator.itemgetter(0)
        samples = DataLoader(dataset, sampler=sampler, collate_fn=one_by_one, **options)
        return AspectRatioGroupedDataset(samples, batch_size)
    batches = BatchSampler(sampler, batch_size, drop_last=True)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=trivial_batch_collator, **options)


def in_flight_draws(total_batch_size: int, num_workers: int, aspect_ratio_grouping: bool) -> int:
    """Draws of this rank that ``build_train_loader`` holds ahead of training, at most."""
    batch_size = _rank_batch_size(total_batch_size)
    if aspect_ratio_grouping:
        return _PREFETCH_FACTOR * num_workers + 2 * (batch_size - 1)
    return _PREFETCH_FACTOR * num_workers * batch_size


def _rank_batch_size(total_batch_size: int) -> int:
    world_size = comm.get_world_size()
    batch_size, rest = divmod(total_batch_size, world_size)
    if batch_size < 1 or rest:
        raise ValueError(
            f"total_batch_size={total_batch_size} must be a positive multiple of the number of "
            f"training processes, {world_size}"
        )
    return batch_size


class CountedLoader:
    """A loader whose consumed samples are counted by what they show; it drives the look-ahead too.

    Args:
        loader: Batches, lists of samples with ``bgaug`` (one of ``OUTCOMES``; "original" where
            absent).
        look_ahead: Started with the first batch, when the loader has forked its processes, and
            told of each batch; ended by ``close``.
    """

    def __init__(
        self, loader: Iterable[list[dict[str, Any]]], look_ahead: LookAhead | None = None
    ) -> None:
        self.loader = loader
        self.look_ahead = look_ahead
        self.wait_s = 0.0
        self._counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._reported: Counter[str] = Counter()
        self._reported_wait_s = 0.0

    @property
    def totals(self) -> dict[str, int]:
        """Samples handed to training so far, by outcome; the sum is their number."""
        return dict(self._counts)

    def interval(self) -> dict[str, float]:
        """What happened since the last call, for the event storage.

        Returns:
            Samples by outcome, and ``wait_s``, the seconds that training waited for data.
        """
        numbers: dict[str, float] = {
            outcome: count - self._reported[outcome] for outcome, count in self._counts.items()
        }
        numbers["wait_s"] = self.wait_s - self._reported_wait_s
        self._reported = self._counts.copy()
        self._reported_wait_s = self.wait_s
        return numbers

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Batches of the wrapped loader; nothing is loaded before the first is asked for."""
        batches = iter(self.loader)
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.wait_s += time.perf_counter() - began
            self._counts.update(sample.get("bgaug", "original") for sample in batch)
            if self.look_ahead is not None:
                self.look_ahead.start()
                self.look_ahead.advance(len(batch))
            yield batch

    def close(self) -> None:
        """Stop looking ahead."""
        if self.look_ahead is not None:
            self.look_ahead.close()
