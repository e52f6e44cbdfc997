"""Checks the content of an annotation file in COCO's format before pycocotools sees it.

pycocotools trusts its input: NaN, huge coordinates and malformed RLE crash it, or worse.
Detectron2's ``load_coco_json`` stops with an assertion, if at all. These checks give each fault one
sentence that names the image and the annotation.

Real data sets have some faults that do no harm, so these pass: empty boxes and polygons of one or
two points (Detectron2 leaves both out of training), points outside the image by up to its longer
side, and annotations of images that the file does not list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from bgaug_d2.errors import AnnotationError, DatasetError
from bgaug_d2.pixels import rle
from bgaug_d2.pixels.read import MAX_PIXELS

_MAX_OUTLINE = 4e6  # pixels; pycocotools stores 80 bytes for each


def check_categories(content: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Check the categories; return their names by id, in the order of the ids.

    Raises:
        DatasetError: There are none, or one has no whole-number id, no name, or the id of another.
    """
    names: dict[int, str] = {}
    for category in _records(content, "categories", path):
        number, name = category.get("id"), category.get("name")
        if not _is_int(number) or not isinstance(name, str):
            raise DatasetError(f"{path}: category {category!r} needs a whole-number id and a name")
        if number in names:
            raise DatasetError(f"{path}: two categories have the id {number}")
        names[number] = name
    if not names:
        raise DatasetError(f"{path} lists no categories")
    return dict(sorted(names.items()))


def check_images(content: Mapping[str, Any], path: Path) -> dict[int, Mapping[str, Any]]:
    """Check the images; return them by id, in the order of the file.

    Raises:
        DatasetError: There are none, or one lacks a field, repeats an id or has an impossible size.
    """
    images: dict[int, Mapping[str, Any]] = {}
    for image in _records(content, "images", path):
        number = image.get("id")
        if not _is_int(number):
            raise DatasetError(f"{path}: an image has the id {number!r}; expected a whole number")
        if number in images:
            raise DatasetError(f"{path}: two images have the id {number}")
        if not image.get("file_name") or not isinstance(image["file_name"], str):
            raise DatasetError(f"{path}: image {number} has no file_name")
        height, width = image.get("height"), image.get("width")
        if not (_is_int(height) and _is_int(width) and height > 0 and width > 0):
            raise DatasetError(f"{path}: image {number} has height {height!r}, width {width!r}")
        if height * width > MAX_PIXELS:
            raise DatasetError(
                f"{path}: image {number} has {height} x {width} pixels, more than {MAX_PIXELS}"
            )
        images[number] = image
    if not images:
        raise DatasetError(f"{path} lists no images")
    return images


def check_annotations(
    content: Mapping[str, Any],
    images: Mapping[int, Mapping[str, Any]],
    categories: Mapping[int, str],
    path: Path,
    evaluated: bool,
) -> dict[str, int]:
    """Check every annotation of the listed images.

    Args:
        content: The file's object; a test split may have no ``annotations``, as COCO's test-dev.
        images: As ``check_images`` returns them.
        categories: As ``check_categories`` returns them.
        path: The file, for messages.
        evaluated: Whether COCO's evaluation, which needs ``area`` and ``iscrowd``, reads the file.

    Returns:
        Counts for the log: ``objects``, ``rle_objects`` (RLE, not crowd) and ``short_polygons``.

    Raises:
        AnnotationError: A fault in one annotation.
        DatasetError: A fault of the whole list.
    """
    counts = {"objects": 0, "rle_objects": 0, "short_polygons": 0}
    # COCO's test sets come without annotations; there is nothing to check.
    if evaluated and "annotations" not in content:
        return counts
    seen: set[int] = set()
    for annotation in _records(content, "annotations", path):
        number, image_id = annotation.get("id"), annotation.get("image_id")
        try:
            if not _is_int(number) or number in seen:
                raise ValueError("its id is no whole number, or another annotation has it too")
            seen.add(number)
            if not _is_int(image_id):
                raise ValueError("its image_id is no whole number")
            # Real files list annotations of images that were removed; Detectron2 never sees these.
            if image_id not in images:
                continue
            _check_fields(annotation, categories, evaluated)
            _check_shape(annotation, images[image_id], counts, evaluated)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise AnnotationError(
                f"{path}: image {image_id}, annotation {number}: {what}"
            ) from error
        counts["objects"] += 1
    return counts


def _check_fields(
    annotation: Mapping[str, Any], categories: Mapping[int, str], evaluated: bool
) -> None:
    if annotation["category_id"] not in categories:
        raise ValueError(f"category_id {annotation['category_id']!r} is not among the categories")
    if annotation.get("iscrowd", 0) not in (0, 1):
        raise ValueError(f"iscrowd is {annotation['iscrowd']!r}; expected 0 or 1")
    # Detectron2 stops with an assertion here, which does not name the annotation.
    if annotation.get("ignore", 0) != 0:
        raise ValueError("'ignore' is set, which Detectron2 does not know; use iscrowd")
    if evaluated and "iscrowd" not in annotation:
        raise ValueError("no 'iscrowd', which COCO's evaluation needs")
    if (evaluated or "area" in annotation) and not 0 <= annotation["area"] < math.inf:
        raise ValueError(f"area {annotation['area']!r} is not a number of pixels")


def _check_shape(
    annotation: Mapping[str, Any],
    image: Mapping[str, Any],
    counts: dict[str, int],
    evaluated: bool,
) -> None:
    height, width = image["height"], image["width"]
    # Annotators' tools leave points outside the image; far outside they are a fault.
    margin = max(height, width)
    bbox = annotation["bbox"]
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"bbox {bbox!r} is not [x, y, width, height]")
    _check_numbers(bbox, margin)
    if bbox[2] < 0 or bbox[3] < 0:
        raise ValueError(f"bbox {bbox} has a negative width or height")
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return
    if isinstance(segmentation, dict):
        _check_rle(segmentation, height, width)
        counts["rle_objects"] += not annotation.get("iscrowd", 0)
    elif isinstance(segmentation, list):
        for polygon in segmentation:
            _check_polygon(polygon, margin)
            counts["short_polygons"] += len(polygon) < 6
        sizes = {len(polygon) for polygon in segmentation}
        # pycocotools takes polygons for boxes where the first has 4 numbers, and then all must.
        if evaluated and (min(sizes) < 4 or (len(segmentation[0]) == 4 and len(sizes) > 1)):
            raise ValueError(
                "a polygon has fewer than 3 points, which COCO's evaluation cannot read"
            )
    else:
        raise ValueError(
            f"segmentation is a {type(segmentation).__name__}; expected polygons or RLE"
        )


def _check_rle(segmentation: Mapping[str, Any], height: int, width: int) -> None:
    size, counts = segmentation["size"], segmentation["counts"]
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_int, size))):
        raise ValueError(f"RLE size {size!r} is not [height, width]")
    if not isinstance(counts, (str, list)):
        raise ValueError(f"RLE counts are a {type(counts).__name__}; expected a string or a list")
    # pycocotools trusts the runs; what they can do to it, see ``pixels.rle``.
    rle.validate(counts, (size[0], size[1]), height, width)


def _check_polygon(polygon: Any, margin: int) -> None:
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise ValueError("a polygon is not a list of an even count of numbers")
    if not polygon:
        return
    _check_numbers(polygon, margin)
    if len(polygon) / 2 * 3 * margin > _MAX_OUTLINE:  # else no order of the points makes it longer
        steps = (
            max(abs(polygon[i] - polygon[i - 2]), abs(polygon[i + 1] - polygon[i - 1]))
            for i in range(0, len(polygon), 2)
        )
        outline = sum(steps)
        if outline > _MAX_OUTLINE:
            raise ValueError(f"a polygon's outline is {outline:g} pixels long")


def _check_numbers(numbers: Sequence[float], margin: int) -> None:
    """Coordinates may lie outside the image by ``margin``, its longer side."""
    # Sums, minima and maxima run in C: a full COCO has 50 million coordinates.
    if not math.isfinite(sum(numbers)) or min(numbers) < -margin or max(numbers) > 2 * margin:
        shown = ", ".join(map(repr, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
        raise ValueError(f"a coordinate of {shown} is not finite or far outside the image")


def _records(content: Mapping[str, Any], field: str, path: Path) -> list[dict[str, Any]]:
    records = content.get(field)
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise DatasetError(f"{path} has no list of objects {field!r}; it is not in COCO's format")
    return records


def _is_int(value: Any) -> TypeGuard[int]:
    # JSON's true is an int in Python.
    return isinstance(value, int) and not isinstance(value, bool)
