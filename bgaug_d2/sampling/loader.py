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

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detectron2.data.build import trivial_batch_collator, worker_init_reset_seed
from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList
from torch.utils.data import BatchSampler, DataLoader, Dataset

from bgaug_d2.sampling.visit_sampler import VisitSampler, rank_batch_size

# DataLoader's own default, written here because the look-ahead has to know it.
_PREFETCH_FACTOR = 2


class VisitedDataset(Dataset[dict[str, Any]]):
    """Looks up draws: the dataset dict of the index, with ``bgaug_visit``.

    Args:
        dataset: Dataset dicts by index, for example Detectron2's ``DatasetFromList``.
        mapper: Applied to each dict, where given. Detectron2's ``MapDataset`` is not used for it:
            it remembers every index that it was asked for, and draws never repeat.
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


def shared_dataset(dataset_dicts: list[dict[str, Any]]) -> DatasetFromList:
    """Dataset dicts as one serialised block, which loader processes and look-ahead share."""
    # Each look-up unpickles a new dict, so Detectron2 need not copy it as well.
    return DatasetFromList(dataset_dicts, copy=False)


def build_train_loader(
    dataset: Sequence[dict[str, Any]],
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
    sampler: VisitSampler,
    total_batch_size: int,
    num_workers: int,
    aspect_ratio_grouping: bool,
) -> Iterable[list[dict[str, Any]]]:
    """Detectron2's training loader, with visits.

    Args:
        dataset: Dataset dicts in Detectron2's format, usually from ``shared_dataset``.
        mapper: Makes a sample; with aspect-ratio grouping the sample must keep ``width`` and
            ``height``.
        sampler: Over as many images as ``dataset`` has.
        total_batch_size: Images per iteration on all ranks.
        num_workers: Loader processes of this rank; 0 loads in the training process.
        aspect_ratio_grouping: Whether a batch holds either landscape or portrait images only.

    Returns:
        Endless batches of this rank, lists of samples.

    Raises:
        ValueError: The batch cannot be shared out, or the sampler is for another number of images.
    """
    batch_size = rank_batch_size(total_batch_size)
    if sampler.size != len(dataset):
        raise ValueError(
            f"the sampler is for {sampler.size} images, the data set has {len(dataset)}"
        )
    options: dict[str, Any] = {
        "num_workers": num_workers,
        "worker_init_fn": worker_init_reset_seed,
        # DataLoader refuses a prefetch factor where it has no processes.
        "prefetch_factor": _PREFETCH_FACTOR if num_workers else None,
    }
    visited = VisitedDataset(dataset, mapper)
    if aspect_ratio_grouping:
        # Batches of one, unpacked: images are grouped after they come from the loader processes.
        one_by_one = operator.itemgetter(0)
        samples = DataLoader(visited, sampler=sampler, collate_fn=one_by_one, **options)
        return AspectRatioGroupedDataset(samples, batch_size)
    # The stream of draws never ends, so `drop_last` drops nothing.
    batches = BatchSampler(sampler, batch_size, drop_last=True)
    return DataLoader(visited, batch_sampler=batches, collate_fn=trivial_batch_collator, **options)


def in_flight_draws(total_batch_size: int, num_workers: int, aspect_ratio_grouping: bool) -> int:
    """Draws of this rank that ``build_train_loader`` holds ahead of training, at most."""
    batch_size = rank_batch_size(total_batch_size)
    if aspect_ratio_grouping:
        # Each of the two groups can hold a batch that lacks one image.
        return _PREFETCH_FACTOR * num_workers + 2 * (batch_size - 1)
    return _PREFETCH_FACTOR * num_workers * batch_size
