"""Objects as annotations in Detectron2's format, and their masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from detectron2.structures import BoxMode, polygons_to_bitmask
from pycocotools import mask as coco_mask

from bgaug_d2.errors import DatasetError
from bgaug_d2.pixels.masks import BoolMask, mask_to_rle

Annotation = dict[str, Any]


def objects_of(annotations: Iterable[Mapping[str, Any]]) -> list[Annotation]:
    """Copy all annotations except those of crowds, with the fields that boxes and masks need.

    The copies share no memory with the input, because Detectron2's transforms change them in place.

    Returns:
        ``category_id``, ``bbox`` (x0, y0, x1, y1) in pixels, ``bbox_mode`` and ``segmentation``:
        polygons or a compressed RLE. An object without a segmentation gets its box as a polygon.
    """
    return [_object(each) for each in annotations if not each.get("iscrowd", 0)]


def object_mask(item: Annotation, height: int, width: int) -> BoolMask:
    """The pixels of one of ``objects_of``, bool (H, W), rasterised as Detectron2 does it.

    An object that covers no pixel's centre (a sliver) takes the pixels that its box touches.

    Raises:
        DatasetError: An RLE has another size than the image.
    """
    segmentation = item["segmentation"]
    if isinstance(segmentation, dict):
        # Decoded it would be an array of another shape, and fail far from here.
        if tuple(segmentation["size"]) != (height, width):
            raise DatasetError(
                f"an RLE of size {list(segmentation['size'])} is in the annotations of an image "
                f"of size {[height, width]} (height, width)"
            )
        pixels: BoolMask = coco_mask.decode(segmentation).astype(bool)
    else:
        pixels = polygons_to_bitmask(segmentation, height, width)
    if not pixels.any():
        x0, y0, x1, y1 = item["bbox"]
        left, top = (int(min(max(v, 0), n - 1)) for v, n in ((x0, width), (y0, height)))
        pixels[top : max(int(np.ceil(y1)), top + 1), left : max(int(np.ceil(x1)), left + 1)] = True
    return pixels


def object_from_mask(category_id: int, pixels: BoolMask) -> Annotation:
    """Make an object as in ``objects_of`` of exactly these pixels, bool (H, W), not all False."""
    rows, columns = pixels.nonzero()
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return {
        "category_id": category_id,
        "bbox": [float(each) for each in box],
        "bbox_mode": BoxMode.XYXY_ABS,
        "segmentation": mask_to_rle(pixels),
    }


def _object(annotation: Mapping[str, Any]) -> Annotation:
    x0, y0, x1, y1 = BoxMode.convert(
        [float(each) for each in annotation["bbox"]], annotation["bbox_mode"], BoxMode.XYXY_ABS
    )
    segmentation = annotation.get("segmentation")
    # A box is the best that is known of the object's pixels.
    if not segmentation:
        segmentation = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):  # Detectron2 takes compressed RLE only
            segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    else:
        segmentation = [np.array(each, np.float64) for each in segmentation]
    return {
        "category_id": annotation["category_id"],
        "bbox": [x0, y0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        "segmentation": segmentation,
    }
