"""From annotations to the pixels of objects, with every check that pycocotools leaves out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from bgaug_d2.errors import AnnotationError
from bgaug_d2.jobs.job import JobObject, Rle
from bgaug_d2.pixels import rle
from bgaug_d2.pixels.masks import BoolMask
from bgaug_d2.pixels.read import MAX_PIXELS

MASK_SOURCES = ("polygon", "rle", "compressed_rle", "box")
_MAX_COORDINATE = 1e8  # pycocotools crashes from here on
_MAX_OUTLINE = 4e6  # pixels; pycocotools stores 5 samples, 80 bytes in all, for each


@dataclass(frozen=True, eq=False)
class ObjectMasks:
    """The protected pixels of one image.

    Attributes:
        object_mask: bool (H, W), the union of all objects.
        sources: How many objects got their pixels from each of ``MASK_SOURCES``.
        num_objects: Objects, crowd regions left out.
        num_crowd: Crowd regions.
    """

    object_mask: BoolMask
    sources: dict[str, int]
    num_objects: int
    num_crowd: int


def object_masks(
    objects: Sequence[JobObject], height: int, width: int, image_id: int | str
) -> ObjectMasks:
    """The union of all objects of an image, rasterised as pycocotools (and so Detectron2) does it.

    Real annotations are a little sloppy, and that is tolerated. Points may lie outside the image by
    up to its longer side. An object that covers no pixel centre (a sliver) takes all pixels that
    its extent touches. The box of an object with a segmentation may be empty.

    Args:
        objects: What to protect, crowd regions included.
        height: Pixels of the image.
        width: Pixels of the image.
        image_id: For messages.

    Raises:
        AnnotationError: A value that is broken: not finite, huge, an odd or too short polygon, an
            RLE that does not fit the image, an object wholly outside it, an empty box with no
            segmentation.
    """
    _check_size(height, width, image_id)
    object_mask = np.zeros((height, width), dtype=bool)
    sources = dict.fromkeys(MASK_SOURCES, 0)
    polygons: list[list[float]] = []
    extents: list[tuple[int, tuple[float, float, float, float]]] = []  # of polygons, by object
    for index, item in enumerate(objects):
        try:
            _check_numbers(item.bbox)
            if isinstance(item.segmentation, Rle):
                source = _add_rle(object_mask, item.segmentation, item.bbox)
            elif item.segmentation:
                source = "polygon"
                for polygon in item.segmentation:
                    extents.append((index, _polygon_extent(polygon, height, width)))
                    polygons.append(list(polygon))
            else:
                source = "box"
                _fill_extent(object_mask, _box_extent(item.bbox, height, width))
        except (ValueError, TypeError) as error:
            raise AnnotationError(
                f"image {image_id}, annotation {item.annotation_id}: {error}"
            ) from error
        sources[source] += 1
    if polygons:
        _add_polygons(object_mask, polygons, extents)
    num_crowd = sum(item.iscrowd for item in objects)
    return ObjectMasks(object_mask, sources, len(objects) - num_crowd, num_crowd)


def _check_size(height: int, width: int, image_id: int | str) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise AnnotationError(
            f"image {image_id}: {width} x {height} pixels is not allowed; "
            f"the product must be in 1..{MAX_PIXELS}"
        )


def _check_numbers(numbers: Sequence[float]) -> None:
    for number in numbers:
        if not math.isfinite(number) or abs(number) >= _MAX_COORDINATE:
            raise ValueError(f"coordinate {number!r} is not a usable number")


def _add_rle(object_mask: BoolMask, encoded: Rle, bbox: tuple[float, float, float, float]) -> str:
    height, width = object_mask.shape
    runs = rle.validate(encoded.counts, (encoded.height, encoded.width), height, width)
    if not any(runs[1::2]):  # it holds no pixel at all
        _fill_extent(object_mask, _box_extent(bbox, height, width))
        return "box"
    object_mask |= rle.to_mask(runs, height, width)
    return "compressed_rle" if isinstance(encoded.counts, str) else "rle"


def _add_polygons(
    object_mask: BoolMask,
    polygons: list[list[float]],
    extents: list[tuple[int, tuple[float, float, float, float]]],
) -> None:
    encoded = coco_mask.frPyObjects(polygons, *object_mask.shape)
    areas = coco_mask.area(encoded)
    object_mask |= coco_mask.decode(coco_mask.merge(encoded)).astype(bool)
    # Without this, an object whose polygons cover no pixel centre would not be protected.
    visible = {owner for (owner, _), area in zip(extents, areas, strict=True) if area}
    for owner, extent in extents:
        if owner not in visible:
            _fill_extent(object_mask, extent)


def _polygon_extent(
    polygon: Sequence[float], height: int, width: int
) -> tuple[float, float, float, float]:
    """Check a polygon and return its extent, (x0, y0, x1, y1) in pixels."""
    if len(polygon) % 2 or len(polygon) < 6:
        raise ValueError(
            f"a polygon has {len(polygon)} numbers; it needs an even count of at least 6"
        )
    _check_numbers(polygon)
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    margin = max(height, width)
    if min(x0, y0) < -margin or x1 > width + margin or y1 > height + margin:
        raise ValueError(
            f"a polygon spans {x0:g}..{x1:g} x {y0:g}..{y1:g}, far outside the image, "
            f"{width} x {height}"
        )
    # pycocotools takes its samples along the longer axis of each edge.
    outline = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum()
    if outline > _MAX_OUTLINE:
        raise ValueError(f"a polygon's outline is {outline:g} pixels long, over {_MAX_OUTLINE:g}")
    extent = float(x0), float(y0), float(x1), float(y1)
    if x0 > width or y0 > height or x1 < 0 or y1 < 0:  # one that touches the border is kept
        raise _outside(extent, height, width)
    return extent


def _box_extent(
    bbox: tuple[float, float, float, float], height: int, width: int
) -> tuple[float, float, float, float]:
    """Check a box (x, y, w, h) and return its extent, (x0, y0, x1, y1) in pixels."""
    x, y, w, h = bbox
    if w <= 0 or h <= 0:
        raise ValueError(f"box {bbox} (x, y, w, h) is empty, and there is no segmentation")
    extent = x, y, x + w, y + h
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise _outside(extent, height, width)
    return extent


def _outside(extent: tuple[float, float, float, float], height: int, width: int) -> ValueError:
    x0, y0, x1, y1 = extent
    return ValueError(
        f"object at {x0:g}..{x1:g} x {y0:g}..{y1:g} lies outside the image, {width} x {height}"
    )


def _fill_extent(object_mask: BoolMask, extent: tuple[float, float, float, float]) -> None:
    """Set all pixels that an extent touches, at least one."""
    height, width = object_mask.shape
    x0, y0, x1, y1 = extent
    left, top = (min(max(math.floor(v), 0), n - 1) for v, n in ((x0, width), (y0, height)))
    object_mask[top : max(math.ceil(y1), top + 1), left : max(math.ceil(x1), left + 1)] = True
