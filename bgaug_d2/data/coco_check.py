"""Checks of an annotation file in COCO's format, before pycocotools sees it.

pycocotools trusts its input: NaN, huge coordinates and malformed RLE crash it, or worse.
Detectron2's ``load_coco_json`` stops with an assertion, if at all. Here each fault gets one
sentence that names the image and the annotation.

Tolerated, because real data sets have it: empty boxes, polygons of one or two points (Detectron2
leaves both out of training), points up to the image's longer side outside it, annotations of images
that the file does not list.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from bgaug_d2.errors import AnnotationError, DatasetError, ImageError
from bgaug_d2.pixels import rle
from bgaug_d2.pixels.paths import resolve_inside
from bgaug_d2.pixels.read import MAX_PIXELS

_MAX_OUTLINE = 4e6  # pixels; pycocotools stores 80 bytes for each
_TAIL_BYTES = 64


def find_inside(root: Path, relative: str) -> Path:
    """``images.resolve_inside`` for a path from the settings.

    Raises:
        DatasetError: The path leads out of the root.
    """
    try:
        return resolve_inside(root, relative)
    except ImageError as error:
        raise DatasetError(f"dataset.root={str(root)!r}: {error}") from error


def check_ending(path: Path) -> None:
    """A cheap test for a download that was cut off: a JSON object ends with a brace.

    Raises:
        DatasetError: It does not, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read().rstrip()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    if not tail.endswith(b"}"):
        raise DatasetError(
            f"{path} ({size} bytes) does not end like a JSON object; it is cut off, get it again"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DatasetError: The file cannot be read, is no JSON, or holds something other than an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is no valid JSON, perhaps cut off: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds a JSON {type(content).__name__}; expected an object")
    return content


def check_categories(content: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Names of the categories by id, in the order of the ids.

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
    """The images by id, in the order of the file.

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


def check_files(images: Iterable[Mapping[str, Any]], root: Path, folder: str, path: Path) -> None:
    """That all image files exist inside the root; it costs no more than listing their folders.

    Raises:
        DatasetError: A name leads out of the root, or files are missing.
    """
    listings: dict[str, dict[str, bool]] = {}
    missing: list[str] = []
    for image in images:
        name = PurePosixPath(folder, image["file_name"])
        parent = str(name.parent)
        if parent not in listings:
            listings[parent] = _list_folder(find_inside(root, parent))
        is_link = listings[parent].get(name.name)
        if is_link is None or (is_link and not find_inside(root, str(name)).is_file()):
            missing.append(image["file_name"])
    if missing:
        raise DatasetError(
            f"{len(missing)} of the images that {path} lists are missing in {root / folder}, "
            f"the first is {missing[0]!r}"
        )


def _list_folder(folder: Path) -> dict[str, bool]:
    """Names of the files in a folder, each with whether it is a link; empty without a folder."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: entry.is_symlink()
                for entry in entries
                if entry.is_symlink() or entry.is_file(follow_symlinks=False)
            }
    except OSError:
        return {}


def check_annotations(
    content: Mapping[str, Any],
    images: Mapping[int, Mapping[str, Any]],
    categories: Mapping[int, str],
    path: Path,
    evaluated: bool,
) -> dict[str, int]:
    """Check every annotation of the listed images.

    Args:
        content: The file's object; ``annotations`` may be missing where it is only to be tested on.
        images: As ``check_images`` returns them.
        categories: As ``check_categories`` returns them.
        path: For messages.
        evaluated: Whether COCO's evaluation, which needs ``area`` and ``iscrowd``, reads the file.

    Returns:
        Counts for the log: ``objects``, ``rle_objects`` (RLE, not crowd) and ``short_polygons``.

    Raises:
        AnnotationError: A fault in one annotation.
        DatasetError: A fault of the whole list.
    """
    counts = {"objects": 0, "rle_objects": 0, "short_polygons": 0}
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
    return isinstance(value, int) and not isinstance(value, bool)
