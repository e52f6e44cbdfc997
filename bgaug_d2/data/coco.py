"""Data sets in COCO's format: fractions and folds, captions, loading through Detectron2."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bgaug_d2.data.coco_check import check_annotations, check_categories, check_images
from bgaug_d2.data.files import check_image_files, find_inside, read_json
from bgaug_d2.errors import DatasetError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoSplit:
    """One split of a data set in COCO's format.

    Attributes:
        root: Folder of the data set; the paths below are relative to it.
        json_file: Annotation file.
        image_folder: Folder of the images.
        caption_file: Caption file; empty for none. A file that does not exist counts as none.
        percent, fold: Share of the images, see ``fold_indices``; 100 takes all.
        max_images: Number of these to keep, the lowest ids first; 0 keeps all.
        evaluated: Whether COCO's evaluation reads the annotations.
    """

    root: str
    json_file: str
    image_folder: str
    caption_file: str = ""
    percent: float = 100.0
    fold: int = 1
    max_images: int = 0
    evaluated: bool = False


def fold_indices(n_images: int, percent: float, fold: int) -> npt.NDArray[np.int64]:
    """Choose the images of a fraction of COCO, as STAC, Soft Teacher and MMDetection do.

    The result is that of ``np.random.seed(fold)`` and then ``np.random.choice(n_images,
    int(percent / 100 * n_images), replace=False)``, without touching the global generator.

    Args:
        n_images: Images in the annotation file.
        percent: Share in (0, 100].
        fold: 1..5 in the literature; the seed.

    Returns:
        int64 (n,): places in the order of the annotation file.

    Raises:
        DatasetError: ``percent`` is out of range, or so small that no image is left.
    """
    if not 0 < percent <= 100:
        raise DatasetError(f"dataset.coco.percent={percent!r} must be in (0, 100]")
    count = int(percent / 100 * n_images)
    if count == 0:
        raise DatasetError(f"dataset.coco.percent={percent!r} of {n_images} images is no image")
    # The legacy generator, on purpose: the published folds were drawn with it.
    chosen = np.random.RandomState(fold).choice(n_images, count, replace=False)
    return np.asarray(chosen, dtype=np.int64)


def read_categories(split: CocoSplit) -> dict[int, str]:
    """Names of a split's categories by id, in the order of the ids; raises DatasetError."""
    path = find_inside(Path(split.root), split.json_file)
    return check_categories(read_json(path), path)


def load_coco(
    split: CocoSplit, name: str, categories: Mapping[int, str] | None = None
) -> list[dict[str, Any]]:
    """Dataset dicts of a split, in Detectron2's format.

    This checks the file, then Detectron2's own ``load_coco_json`` reads it. Beyond its fields a
    dict has ``annotations[].id`` and, where there is a caption file, ``captions`` (list of str).
    Images without annotations are kept; Detectron2 leaves them out of training.

    Args:
        split: What to load.
        name: Name in Detectron2's catalogue; its metadata get the classes.
        categories: The categories that the file must have, by id; None accepts any.

    Raises:
        DatasetError, AnnotationError: The files are missing, malformed or do not belong together.
    """
    from detectron2.data.datasets.coco import load_coco_json  # slow to import: torch

    root = Path(split.root)
    path = find_inside(root, split.json_file)
    ids = _checked_ids(split, root, path, categories)
    captions = _read_captions(split, root)
    folder = find_inside(root, split.image_folder)
    dicts = load_coco_json(str(path), str(folder), name, extra_annotation_keys=["id"])
    # Detectron2 reads all images; a fraction keeps those that were chosen.
    dicts = [each for each in dicts if each["image_id"] in ids]
    if captions is not None:
        for each in dicts:
            each["captions"] = captions.get(each["image_id"], [])
    return dicts


def _checked_ids(
    split: CocoSplit, root: Path, path: Path, categories: Mapping[int, str] | None
) -> set[int]:
    """Check the annotation file and the image files; return the ids of the images to keep."""
    content = read_json(path)
    own_categories = check_categories(content, path)
    # Otherwise a class number would mean one thing in training and another in testing.
    if categories is not None and own_categories != categories:
        raise DatasetError(
            f"{path} has other categories than the test split; they must be the same"
        )
    images = check_images(content, path)
    counts = check_annotations(content, images, own_categories, path, split.evaluated)
    ids = list(images)
    if split.percent < 100:
        ids = [ids[index] for index in fold_indices(len(ids), split.percent, split.fold)]
    # By id, so that the same images are kept whatever the order of the file.
    ids = sorted(ids)[: split.max_images or None]
    check_image_files((images[each] for each in ids), root, split.image_folder, path)
    logger.info("%s: %d of %d images, %d objects", path, len(ids), len(images), counts["objects"])
    if counts["short_polygons"]:
        logger.warning("%s: %d polygons of 1 or 2 points", path, counts["short_polygons"])
    if counts["rle_objects"]:
        logger.warning(
            "%s: %d objects have RLE masks; Mask R-CNN then needs INPUT.MASK_FORMAT=bitmask",
            path,
            counts["rle_objects"],
        )
    return set(ids)


def _read_captions(split: CocoSplit, root: Path) -> dict[int, list[str]] | None:
    """Captions by image id; None where there is no caption file."""
    if not split.caption_file:
        return None
    path = find_inside(root, split.caption_file)
    # Only some prompts need captions, and those complain where one is missing.
    if not path.is_file():
        logger.info("%s does not exist: no captions", path)
        return None
    records = read_json(path).get("annotations")
    captions: dict[int, list[str]] = {}
    try:
        for record in records or ():
            captions.setdefault(record["image_id"], []).append(str(record["caption"]))
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path} is no caption file in COCO's format: {error!r}") from error
    return captions
