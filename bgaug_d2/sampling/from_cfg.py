"""From Detectron2's ``cfg`` to dataset dicts, sampler and loader."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, get_detection_dataset_dicts
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import Sampler
from tqdm import tqdm

from bgaug_d2.cache.background_ratios import background_ratios
from bgaug_d2.cache.source_digests import with_digests
from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.errors import ConfigError
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.expand import expand_dataset
from bgaug_d2.sampling.loader import build_train_loader, shared_dataset
from bgaug_d2.sampling.visit_sampler import Grouping, VisitSampler

DatasetDict = dict[str, Any]
Mapper = Callable[[DatasetDict], DatasetDict]

logger = logging.getLogger(__name__)


def digested(
    dataset_dicts: Sequence[DatasetDict], settings: BgAugConfig, image_root: str
) -> list[DatasetDict]:
    """The data set with the digests that cache keys need (``cache.source_digests``)."""
    with _main_process_first():
        progress = _progress("digests of images")
        return with_digests(dataset_dicts, image_root, settings.cache.dir, progress)


def expanded(dataset_dicts: Sequence[DatasetDict], settings: BgAugConfig) -> list[DatasetDict]:
    """The data set of modes ``expand`` and ``duplicate``: the originals and their copies."""
    with _main_process_first():
        progress = _progress("background ratios")
        ratios = background_ratios(dataset_dicts, settings.cache.dir, progress)
    copies = expand_dataset(dataset_dicts, settings, ratios)
    added = len(copies) - len(dataset_dicts)
    logger.info("The data set is %d images and %d copies", len(dataset_dicts), added)
    return copies


def baseline_loader(
    cfg: CfgNode,
    mapper: Mapper | None = None,
    dataset_dicts: list[DatasetDict] | None = None,
    start_iter: int = 0,
) -> CountedLoader:
    """The same loader and the same stream of draws without augmentation."""
    dataset_dicts = train_dicts(cfg) if dataset_dicts is None else dataset_dicts
    sampler = visit_sampler(cfg, dataset_dicts, start_iter)
    dataset = shared_dataset(dataset_dicts)
    return CountedLoader(loader_from_cfg(cfg, dataset, mapper or DatasetMapper(cfg, True), sampler))


def train_dicts(cfg: CfgNode) -> list[DatasetDict]:
    """The dataset dicts that ``cfg`` trains on, filtered as Detectron2 does."""
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    dicts: list[DatasetDict] = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=keypoints if cfg.MODEL.KEYPOINT_ON else 0,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    return dicts


def visit_sampler(
    cfg: CfgNode, dataset_dicts: Sequence[DatasetDict], start_iter: int
) -> VisitSampler:
    """The sampler that ``cfg`` names, seeded with ``cfg.SEED``, from ``start_iter`` on."""
    # A negative seed means "any" to Detectron2; all training processes must still agree on it.
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    total, name = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.SAMPLER_TRAIN
    base: Sampler[int]
    if name == "TrainingSampler":
        base = TrainingSampler(len(dataset_dicts), seed=seed)
    elif name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset_dicts, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        base = RepeatFactorTrainingSampler(factors, seed=seed)
    else:
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN={name!r} is not supported; choose TrainingSampler or "
            "RepeatFactorTrainingSampler"
        )
    # Only grouping delays draws, so only then a resume has to replay them.
    grouping = Grouping.of(dataset_dicts, total) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
    # The sampler counts samples over all ranks; an iteration consumes one whole batch.
    return VisitSampler(base, len(dataset_dicts), start_iter * total, grouping)


def loader_from_cfg(
    cfg: CfgNode, dataset: Sequence[DatasetDict], mapper: Mapper, sampler: VisitSampler
) -> Iterable[list[dict[str, Any]]]:
    """The training loader with the batch size and processes that ``cfg`` names."""
    return build_train_loader(dataset, mapper, sampler, **loader_options(cfg))


def loader_options(cfg: CfgNode) -> dict[str, Any]:
    """Keyword arguments of ``build_train_loader`` and ``in_flight_draws`` that ``cfg`` decides."""
    # The same for both: the look-ahead has to know what the loader holds already.
    return {
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
    }


@contextlib.contextmanager
def _main_process_first() -> Iterator[None]:
    """The other training processes wait, and then find what the first one kept in the cache."""
    if not comm.is_main_process():
        comm.synchronize()
    yield
    if comm.is_main_process():
        comm.synchronize()


def _progress(text: str) -> Callable[[Sequence[Any]], Iterable[Any]]:
    return partial(tqdm, desc=text, unit="image", dynamic_ncols=True)
