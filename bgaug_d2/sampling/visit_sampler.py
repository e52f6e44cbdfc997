"""A sampler whose draws know how often their image was drawn before."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.utils import comm
from torch.utils.data import Sampler


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
        # As AspectRatioGroupedDataset does it: a square goes with the portraits.
        landscape = [each["width"] > each["height"] for each in dataset_dicts]
        return cls(rank_batch_size(total_batch_size), landscape)


class VisitSampler(Sampler[int]):
    """Turns the indices of a Detectron2 training sampler into draws, for this rank.

    Args:
        base: ``TrainingSampler`` or ``RepeatFactorTrainingSampler``, made with an explicit seed:
            a resumed run has to draw the same stream.
        size: Number of images.
        start: Samples that training has consumed on all ranks, iterations times total batch size.
            It may be set until the first iteration.
        grouping: Needed for an exact resume where batches are grouped by aspect ratio; else None.
    """

    def __init__(
        self, base: Sampler[int], size: int, start: int = 0, grouping: Grouping | None = None
    ) -> None:
        # Private, but the only stream of all ranks; iterating the sampler gives one rank's part.
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
        # Local to the iterator: loader processes may iterate one sampler several times at once.
        visits = array("q", bytes(8 * self.size))
        for index in self.base._infinite_indices():
            yield visits[index] * self.size + index
            visits[index] += 1


def _after_batches(
    draws: Iterator[int], num_batches: int, size: int, grouping: Grouping
) -> Iterator[int]:
    """All draws after ``num_batches`` batches, preceded by those that no batch has used yet.

    At any time some draws wait for their group to fill up. They are drawn again first: they fill no
    group on their own, so the state is that of a run that was never interrupted.
    """
    groups: tuple[list[int], list[int]] = ([], [])
    while num_batches:
        draw = next(draws)
        group = groups[grouping.landscape[draw % size]]
        group.append(draw)
        # Detectron2 hands out a group as soon as it fills a batch.
        if len(group) == grouping.batch_size:
            group.clear()
            num_batches -= 1
    return itertools.chain(*groups, draws)


def rank_batch_size(total_batch_size: int) -> int:
    """Images per batch of this rank; ValueError unless the ranks share the total evenly."""
    world_size = comm.get_world_size()
    batch_size, rest = divmod(total_batch_size, world_size)
    if batch_size < 1 or rest:
        raise ValueError(
            f"total_batch_size={total_batch_size} must be a positive multiple of the number of "
            f"training processes, {world_size}"
        )
    return batch_size
