"""Instance masks of PASCAL VOC, from the pictures in ``SegmentationObject``.

A mask file numbers its objects; which box of the XML each number belongs to is found by overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bgaug_d2.errors import DatasetError
from bgaug_d2.pixels.polygons import mask_to_polygons

_VOID = 255  # palette index of the contour between an object and what surrounds it
# Least IoU of a mask's box with the box in the XML. It is low, because the void contour makes the
# masks of small objects much smaller than their boxes.
_MIN_IOU = 0.25


def read_instance_masks(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Read a mask file.

    Returns:
        Palette indices, uint8 (H, W): 0 background, 255 void, else one number per object.

    Raises:
        DatasetError: The file cannot be decoded, or is no palette picture of this size.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.size != (width, height) or image.mode not in ("P", "L"):
                raise DatasetError(
                    f"{path}: a {image.mode} picture of {image.size} (width, height); expected a "
                    f"palette picture (P) of {(width, height)}"
                )
            return np.asarray(image, dtype=np.uint8)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be decoded: {error}") from error


def add_polygons(
    annotations: list[dict[str, Any]], indices: npt.NDArray[np.uint8], masks: bool
) -> None:
    """Give the objects of one image their ``segmentation``, in place.

    Args:
        annotations: Objects with ``bbox`` (x0, y0, x1, y1).
        indices: From ``read_instance_masks``.
        masks: Whether every object needs a mask: one without becomes a crowd region of its box, so
            it is protected but not trained on. If not, the masks include the void contour.
    """
    numbers = [int(number) for number in np.unique(indices) if number not in (0, _VOID)]
    matches = match_boxes(
        [each["bbox"] for each in annotations], [_extent(indices == n) for n in numbers]
    )
    for place, annotation in enumerate(annotations):
        x0, y0, x1, y1 = annotation["bbox"]
        # Without a match an object keeps its box, or becomes a crowd region.
        if place in matches:
            object_mask = indices == numbers[matches[place]]
            if not masks:
                left, top = max(int(x0), 0), max(int(y0), 0)
                box = np.s_[top : math.ceil(y1), left : math.ceil(x1)]
                # Only inside the box: the void also surrounds the neighbours.
                object_mask[box] |= indices[box] == _VOID
            annotation["segmentation"] = mask_to_polygons(object_mask)
        elif masks:
            annotation["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            annotation["iscrowd"] = 1


def _extent(mask: npt.NDArray[np.bool_]) -> list[float]:
    """Box (x0, y0, x1, y1) of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def match_boxes(
    boxes: Sequence[Sequence[float]], extents: Sequence[Sequence[float]]
) -> dict[int, int]:
    """Pairs of a box and an extent, best overlap (IoU) first, each used once.

    The numbers of a mask file mostly follow the order of the objects in the XML, so ties go to the
    pair whose places are closest.
    """
    overlaps = sorted(
        (-_iou(box, extent), abs(i - j), i, j)
        for i, box in enumerate(boxes)
        for j, extent in enumerate(extents)
    )
    pairs: dict[int, int] = {}
    for negative_iou, _, i, j in overlaps:
        if -negative_iou >= _MIN_IOU and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def _iou(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)
