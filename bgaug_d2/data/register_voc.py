"""Registers PASCAL VOC, one name of the catalogue for each ``YEAR_SPLIT``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from bgaug_d2.config.experiment import DatasetConfig
from bgaug_d2.data import voc
from bgaug_d2.data.catalogue import (
    DatasetHandle,
    add_to_catalogue,
    check_root,
    real_root,
    short_digest,
)
from bgaug_d2.errors import DatasetError


def check_voc(config: DatasetConfig) -> None:
    """Check that files and folders are there; raises DatasetError, which shows the layout."""
    if config.is_toy:
        return  # drawn at first use
    parts = "Annotations/, JPEGImages/, ImageSets/Main/*.txt"
    expected = (
        f"expected layout: {config.root}/{{VOC2007,VOC2012}}/{{{parts}, SegmentationObject/}}"
    )
    check_root(config, expected)
    for split in _voc_splits(config, config.voc.train) + _voc_splits(config, config.voc.test):
        missing = voc.missing_parts(split)
        if missing:
            raise DatasetError(f"dataset.root={config.root!r} has no {missing[0]}; {expected}")


def register_voc(config: DatasetConfig) -> DatasetHandle:
    """Register the training and the test splits; raises DatasetError."""
    # VOC's evaluator knows no masks, and would count the images that max_test_images leaves out.
    evaluator = "coco" if config.voc.masks or config.max_test_images else "voc"
    classes = list(voc.VOC_CLASSES)
    names: dict[str, list[str]] = {"train": [], "test": []}
    for part, wanted, most in (
        ("train", config.voc.train, config.max_train_images),
        ("test", config.voc.test, config.max_test_images),
    ):
        for split in _shortened(_voc_splits(config, wanted), most):
            evaluated = part == "test" and evaluator == "voc"
            split = replace(split, evaluated=evaluated)
            masks = "masks_" if split.masks else ""
            name = f"voc_{split.year}_{split.split}_{masks}{short_digest(asdict(split))}"
            metadata: dict[str, Any] = {
                "thing_classes": classes,
                "dirname": str(split.folder),
                "year": split.year,
                "split": split.split,
                "evaluator_type": "pascal_voc" if evaluator == "voc" else "coco",
            }
            add_to_catalogue(name, partial(voc.load_voc, split), metadata)
            names[part].append(name)
    return DatasetHandle(names["train"], names["test"], str(real_root(config)), evaluator, classes)


def _voc_splits(config: DatasetConfig, wanted: Sequence[str]) -> list[voc.VocSplit]:
    if not wanted:
        raise DatasetError("dataset.voc.train and dataset.voc.test each need a YEAR_SPLIT")
    root = str(real_root(config))
    return [voc.VocSplit(root, *voc.parse_split(name), config.voc.masks) for name in wanted]


def _shortened(splits: list[voc.VocSplit], most: int) -> list[voc.VocSplit]:
    """The splits with the first ``most`` images of all, the last one shortened; 0 keeps all."""
    if not most:
        return splits
    kept = []
    for split in splits:
        if most > 0:
            kept.append(replace(split, max_images=most))
            # The limit is for all splits together, in their order.
            most -= len(voc.read_image_ids(split))
    return kept
