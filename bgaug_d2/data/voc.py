"""PASCAL VOC in its own layout: lists of images, and boxes from XML.

Boxes follow Detectron2's ``load_voc_instances``: pixels counted from 1 become coordinates from 0,
and "difficult" objects are kept. This reader adds what Detectron2 lacks: instance masks
(``voc_masks``), and XML that can do no harm.
"""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgaug_d2.data.files import find_inside
from bgaug_d2.data.voc_masks import add_polygons, read_instance_masks
from bgaug_d2.errors import AnnotationError, DatasetError

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_XYXY_ABS = 0  # detectron2.structures.BoxMode
_MAX_XML_BYTES = 1 << 20  # VOC's largest is 20 kB
_MAX_SIDE = 1 << 14  # VOC's images have up to 500 pixels


@dataclass(frozen=True)
class VocSplit:
    """One ``YEAR_SPLIT`` of PASCAL VOC.

    Attributes:
        root: Folder that holds ``VOC2007`` and the like.
        year: 2007 or 2012, for example.
        split: Name of a list in ``ImageSets/Main``: ``trainval``, ``test``.
        masks: Keep only images with instance masks, and give every object one.
        max_images: Number of images to keep, from the first on; 0 keeps all.
        evaluated: Whether Detectron2's VOC evaluator reads the XML, which needs more fields.
    """

    root: str
    year: int
    split: str
    masks: bool = False
    max_images: int = 0
    evaluated: bool = False

    @property
    def folder(self) -> Path:
        """``VOC{year}`` in the root."""
        return find_inside(Path(self.root), f"VOC{self.year}")


def parse_split(name: str) -> tuple[int, str]:
    """Year and split of a ``YEAR_SPLIT`` name; raises DatasetError."""
    match = re.fullmatch(r"(20\d\d)_([A-Za-z]+)", name, flags=re.ASCII)
    if not match:
        raise DatasetError(f"dataset.voc: {name!r} is no YEAR_SPLIT such as '2007_trainval'")
    return int(match[1]), match[2]


def missing_parts(split: VocSplit) -> list[str]:
    """Files and folders of a split's layout that do not exist, relative to the root."""
    parts = ["Annotations", "JPEGImages", f"ImageSets/Main/{split.split}.txt"]
    if split.masks:
        parts.append("SegmentationObject")
    return [f"VOC{split.year}/{part}" for part in parts if not (split.folder / part).exists()]


def read_image_ids(split: VocSplit) -> list[str]:
    """Ids of a split's images, in the order of its list.

    Raises:
        DatasetError: The list cannot be read, holds something that is no id, or leaves no image.
    """
    path = find_inside(Path(split.root), f"VOC{split.year}/ImageSets/Main/{split.split}.txt")
    try:
        ids = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    for image_id in ids:
        if not re.fullmatch(r"\w+", image_id, flags=re.ASCII):
            raise DatasetError(f"{path}: {image_id!r} is no image id")
    if split.masks:
        # One listing of the folder instead of a look at thousands of files.
        with_masks = _file_stems(split.folder / "SegmentationObject", ".png")
        ids = [image_id for image_id in ids if image_id in with_masks]
    ids = ids[: split.max_images or None]
    if not ids:
        wanted = " that have instance masks" if split.masks else ""
        raise DatasetError(f"{path} lists no images{wanted}")
    return ids


def load_voc(split: VocSplit) -> list[dict[str, Any]]:
    """Dataset dicts of a split, in Detectron2's format.

    ``annotations[].id`` counts the objects of an image from 1. With ``masks`` every object has
    polygons; one that the mask file does not show is marked as crowd, so it is protected but not
    trained on. Without ``masks`` an object has polygons where there is a mask file: they protect it
    more closely than its box. The void contour is protected too, since the object's rim lies in it.

    Raises:
        DatasetError, AnnotationError: Files are missing or malformed.
    """
    ids = read_image_ids(split)
    existing = _file_stems(split.folder / "JPEGImages", ".jpg")
    missing = [image_id for image_id in ids if image_id not in existing]
    if missing:
        raise DatasetError(
            f"{len(missing)} images of VOC {split.year} {split.split} are missing in "
            f"{split.folder / 'JPEGImages'}, the first is {missing[0] + '.jpg'!r}"
        )
    with_masks = _file_stems(split.folder / "SegmentationObject", ".png")
    return [_load_image(split, image_id, image_id in with_masks) for image_id in ids]


def _file_stems(folder: Path, suffix: str) -> set[str]:
    """Names without suffix of the files in a folder; empty if there is no such folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return set()
    return {name[: -len(suffix)] for name in names if name.endswith(suffix)}


def _load_image(split: VocSplit, image_id: str, has_masks: bool) -> dict[str, Any]:
    relative = f"VOC{split.year}"
    root = Path(split.root)
    path = find_inside(root, f"{relative}/Annotations/{image_id}.xml")
    tree = _parse_xml(path)
    height, width = (_side(tree, name, path) for name in ("height", "width"))
    annotations = []
    for number, item in enumerate(tree.findall("object"), start=1):
        try:
            annotations.append({"id": number, **_object(item, height, width, split.evaluated)})
        except (ValueError, TypeError) as error:
            raise AnnotationError(
                f"{path}: image {image_id}, annotation {number}: {error}"
            ) from error
    if has_masks and annotations:
        indices = read_instance_masks(
            find_inside(root, f"{relative}/SegmentationObject/{image_id}.png"), height, width
        )
        add_polygons(annotations, indices, split.masks)
    return {
        "file_name": str(find_inside(root, f"{relative}/JPEGImages/{image_id}.jpg")),
        "image_id": image_id,
        "height": height,
        "width": width,
        "annotations": annotations,
    }


class _SafeTreeBuilder(ET.TreeBuilder):
    """Refuses a document type declaration: without one there are no entities that could explode."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DatasetError("declares a document type, which VOC never does")


def _parse_xml(path: Path) -> ET.Element:
    try:
        with path.open("rb") as file:
            # One byte more than allowed is enough to see that the file is too large.
            content = file.read(_MAX_XML_BYTES + 1)
        if len(content) > _MAX_XML_BYTES:
            raise DatasetError(f"is larger than {_MAX_XML_BYTES} bytes")
        return ET.fromstring(content, ET.XMLParser(target=_SafeTreeBuilder()))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except ET.ParseError as error:
        raise DatasetError(f"{path} is no valid XML: {error}") from error
    except (DatasetError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise DatasetError(f"{path}: {error}") from error


def _side(tree: ET.Element, name: str, path: Path) -> int:
    text = tree.findtext(f"size/{name}") or ""
    if not re.fullmatch(r"\s*\d{1,6}\s*", text, re.ASCII) or not 0 < int(text) <= _MAX_SIDE:
        raise DatasetError(f"{path}: the image's {name} is {text[:20]!r}; expected 1..{_MAX_SIDE}")
    return int(text)


def _object(item: ET.Element, height: int, width: int, evaluated: bool) -> dict[str, Any]:
    name = item.findtext("name") or ""
    if name not in VOC_CLASSES:
        raise ValueError(f"{name!r} is none of VOC's classes")
    texts = [item.findtext(f"bndbox/{side}") or "" for side in ("xmin", "ymin", "xmax", "ymax")]
    x0, y0, x1, y1 = (float(text) for text in texts)
    # VOC counts pixels from 1 and includes the last one, so its (1, W) is all of [0, W].
    x0, y0 = x0 - 1, y0 - 1
    # ``float`` reads 'nan' and 'inf', and every comparison below is False for NaN.
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise ValueError(f"box {texts} is not finite")
    # A pixel beyond the image does no harm: tools differ in where they begin to count.
    if not (-1 <= x0 < x1 <= width + 1 and -1 <= y0 < y1 <= height + 1):
        raise ValueError(f"box {texts} is empty or not inside the image, {width} x {height}")
    if evaluated:
        _check_evaluated(item, texts)
    return {
        "category_id": VOC_CLASSES.index(name),
        "bbox": [x0, y0, x1, y1],
        "bbox_mode": _XYXY_ABS,
    }


def _check_evaluated(item: ET.Element, texts: Sequence[str]) -> None:
    """Check what Detectron2's VOC evaluator assumes: it would fail after hours of training."""
    if item.find("pose") is None:
        raise ValueError("no <pose>, which VOC's evaluation needs")
    for text in (*texts, item.findtext("truncated") or "", item.findtext("difficult") or ""):
        try:
            int(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is no whole number, which VOC's evaluation needs of box, truncated and "
                "difficult; dataset.max_test_images switches to COCO's"
            ) from None
