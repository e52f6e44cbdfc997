"""The loader that an experiment trains from."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import CfgNode

from bgaug_d2.augment.build import build_mapper
from bgaug_d2.augmentation import BackgroundAugmentation
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.from_cfg import baseline_loader, expanded, train_dicts
from bgaug_d2.worker.painter_info import PainterInfo


def training_loader(
    cfg: CfgNode, experiment: ExperimentConfig, painter: PainterInfo | None
) -> CountedLoader:
    """Batches of this training process; a baseline has the same stream of draws.

    Args:
        cfg: From ``to_cfg(experiment, ...)``.
        experiment: Augmentations, seed, and whether the run is resumed.
        painter: Who paints; None where the experiment shows originals only.
    """
    # The sampler is built before the checkpoint is loaded, and has to start at its iteration.
    start_iter = next_iteration(cfg.OUTPUT_DIR) if experiment.resume else 0
    dicts = train_dicts(cfg)
    # From the originals, before copies are added: they are the donors of copy-paste.
    mapper = build_mapper(cfg, experiment.augment, dicts)
    if painter is None:
        if experiment.bgaug.mode == "duplicate":
            dicts = expanded(dicts, experiment.bgaug)
        return baseline_loader(cfg, mapper, dicts, start_iter)
    augmentation = BackgroundAugmentation(experiment.bgaug, painter, experiment.seed)
    return augmentation.train_loader(cfg, mapper, dicts, start_iter)


def next_iteration(output_dir: str) -> int:
    """The iteration that a resumed run begins with; 0 where there is no checkpoint."""
    folder = Path(output_dir)
    try:
        name = (folder / "last_checkpoint").read_text().strip()
    except FileNotFoundError:
        return 0
    # Mapped, not read: one number is wanted, not the weights.
    checkpoint = torch.load(folder / name, map_location="cpu", mmap=True, weights_only=True)
    return int(checkpoint["iteration"]) + 1
