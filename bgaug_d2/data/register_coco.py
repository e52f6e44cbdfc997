"""Registers data sets in COCO's layout: COCO, folders like it, and the toy world."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bgaug_d2.config.experiment import DatasetConfig
from bgaug_d2.data.catalogue import (
    DatasetHandle,
    add_to_catalogue,
    check_root,
    real_root,
    short_digest,
)
from bgaug_d2.data.coco import CocoSplit, load_coco, read_categories
from bgaug_d2.data.files import check_not_truncated, find_inside
from bgaug_d2.data.toy.world import size_limits
from bgaug_d2.errors import DatasetError


def check_coco(config: DatasetConfig) -> None:
    """Check that the files and folders are there; raises DatasetError, which shows the layout."""
    coco = config.coco
    layout = f"{{{coco.train_json}, {coco.test_json}, {coco.train_images}/, {coco.test_images}/}}"
    expected = f"expected layout: {config.root}/{layout}"
    root = check_root(config, expected)
    for relative in (coco.train_json, coco.test_json):
        path = find_inside(root, relative)
        if not path.is_file():
            raise DatasetError(f"dataset.root={config.root!r} has no file {relative}; {expected}")
        check_not_truncated(path)
    for relative in (coco.train_images, coco.test_images):
        folder = find_inside(root, relative)
        if not folder.is_dir() or not any(folder.iterdir()):
            raise DatasetError(
                f"dataset.root={config.root!r} has no folder {relative} with images; {expected}"
            )


def register_coco(config: DatasetConfig) -> DatasetHandle:
    """Register the training and the test split.

    Raises:
        DatasetError: The test split's annotation file, which names the classes, is malformed.
    """
    train, test = _coco_splits(config)
    # The test split decides the classes; ``load_coco`` refuses a training split of others.
    categories = read_categories(test)
    class_names = list(categories.values())
    metadata = {
        "thing_classes": class_names,
        "thing_dataset_id_to_contiguous_id": {each: i for i, each in enumerate(categories)},
        "evaluator_type": "coco",
    }
    names = []
    for part, split in (("train", train), ("test", test)):
        share = f"{split.percent:g}pct_fold{split.fold}_" if split.percent < 100 else ""
        # Two toy worlds in one folder, one after the other, are two data sets.
        drawn = asdict(config.toy) if config.kind == "toy" else {}
        name = f"{config.kind}_{part}_{share}{short_digest([asdict(split), drawn])}"
        extra: dict[str, Any] = {"image_root": split.root}
        if config.kind == "toy":
            extra["size_limits"] = size_limits(config.toy.image_size)
        # COCOEvaluator reads this file. It must not count the images that a shortened split leaves
        # out, so without the file it converts the dicts.
        if part == "test" and not split.max_images:
            extra["json_file"] = str(find_inside(Path(split.root), split.json_file))
        add_to_catalogue(name, partial(load_coco, split, name, categories), {**metadata, **extra})
        names.append(name)
    return DatasetHandle([names[0]], [names[1]], train.root, "coco", class_names)


def _coco_splits(config: DatasetConfig) -> tuple[CocoSplit, CocoSplit]:
    root = str(real_root(config))
    most_train, most_test = config.max_train_images, config.max_test_images
    if config.kind == "toy":
        captions = "annotations/captions_train.json"
        return (
            CocoSplit(
                root, "annotations/instances_train.json", "train", captions, max_images=most_train
            ),
            CocoSplit(
                root,
                f"annotations/instances_{config.toy.evaluate_on}.json",
                config.toy.evaluate_on,
                max_images=most_test,
                evaluated=True,
            ),
        )
    coco = config.coco
    return (
        CocoSplit(
            root,
            coco.train_json,
            coco.train_images,
            coco.train_captions,
            coco.percent,
            # All of the images are one data set, so the fold must not give it several names.
            coco.fold if coco.percent < 100 else 1,
            most_train,
        ),
        CocoSplit(root, coco.test_json, coco.test_images, max_images=most_test, evaluated=True),
    )
