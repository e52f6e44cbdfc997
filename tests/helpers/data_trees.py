"""Miniature data sets on disk, in the layouts of COCO and PASCAL VOC."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bgaug_d2.config.experiment import CocoConfig, DatasetConfig, VocConfig
from bgaug_d2.data.coco import CocoSplit, load_coco
from bgaug_d2.data.voc import VocSplit
from tests.helpers.factories import noise

HEIGHT, WIDTH = 60, 80
COCO_FILES = CocoConfig(
    "annotations/train.json", "train", "annotations/test.json", "test", "annotations/captions.json"
)


def coco_content(n_images: int = 3) -> dict[str, Any]:
    """Instances of ``n_images`` images: a polygon, a crowd RLE and a box in each; ids with gaps."""
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    for index in reversed(range(n_images)):  # not in the order of the ids
        image_id = 10 + index
        image = {"id": image_id, "file_name": f"{image_id}.png", "height": HEIGHT, "width": WIDTH}
        content["images"].append(image)
        square = [[10, 10, 30, 10, 30, 30, 10, 30]]
        # One row of four pixels at the top of columns 40..43, as runs down the columns.
        crowd = {"size": [HEIGHT, WIDTH], "counts": [40 * HEIGHT, 1, 59, 1, 59, 1, 59, 1]}
        crowd["counts"].append(HEIGHT * WIDTH - sum(crowd["counts"]))
        shapes = (
            (3, 0, [10, 10, 20, 20], 400, square),
            (7, 1, [40, 0, 4, 1], 4, crowd),
            (7, 0, [50, 20, 10, 30], 300, None),
        )
        for number, (category, iscrowd, bbox, area, segmentation) in enumerate(shapes):
            annotation = {
                "id": 100 * image_id + number,
                "image_id": image_id,
                "category_id": category,
                "iscrowd": iscrowd,
                "bbox": bbox,
                "area": area,
            }
            if segmentation is not None:
                annotation["segmentation"] = segmentation
            content["annotations"].append(annotation)
    return content


def write_coco(root: Path, train: dict[str, Any], test: dict[str, Any]) -> DatasetConfig:
    """Write annotation files and an image for each listed file name."""
    (root / "annotations").mkdir(parents=True)
    captions = [{"image_id": 10, "caption": "a cat"}, {"image_id": 10, "caption": "a dog"}]
    (root / "annotations/captions.json").write_text(json.dumps({"annotations": captions}))
    for name, content in (("train", train), ("test", test)):
        (root / "annotations" / f"{name}.json").write_text(json.dumps(content))
        (root / name).mkdir()
        for image in content["images"]:
            Image.fromarray(noise(HEIGHT, WIDTH)).save(root / name / f"{image['id']}.png")
    return DatasetConfig(kind="coco", root=str(root), coco=COCO_FILES)


def train_split(root: Path, **fields: Any) -> CocoSplit:
    split = CocoSplit(str(root), "annotations/train.json", "train", "annotations/captions.json")
    return replace(split, **fields)


def load_train(root: Path, **fields: Any) -> list[dict[str, Any]]:
    return load_coco(train_split(root, **fields), f"coco_{root}_{sorted(fields.items())}")


def voc_xml(objects: Sequence[tuple[str, Sequence[float]]], difficult: int = 0) -> str:
    """One image's annotation; boxes as VOC counts them, from 1, the last pixel included."""
    parts = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
        "</bndbox></part></object>"
        for name, (x0, y0, x1, y1) in objects
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation>{size}{parts}</annotation>"


def voc_masks() -> np.ndarray:
    """Palette indices for the objects of ``write_voc``, each within a contour of void."""
    indices = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    # The numbers are not in the order of the XML; the third object has no mask.
    for number, (x0, y0, x1, y1) in ((2, (10, 10, 30, 40)), (1, (50, 20, 70, 50))):
        indices[y0:y1, x0:x1] = 255
        indices[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = number
    return indices


def write_voc(root: Path, with_masks: Sequence[str] = ("000001",)) -> DatasetConfig:
    """VOC2007 (trainval 2, test 2 images) and VOC2012 (trainval 2), with three objects in each."""
    objects = [("dog", (11, 11, 30, 40)), ("cat", (51, 21, 70, 50)), ("car", (1, 1, 6, 6))]
    splits = {
        2007: {"trainval": ["000001", "000002"], "test": ["000003", "000004"]},
        2012: {"trainval": ["2008_000001", "2008_000002"]},
    }
    for year, lists in splits.items():
        folder = root / f"VOC{year}"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main", "SegmentationObject"):
            (folder / name).mkdir(parents=True)
        for split, ids in lists.items():
            (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(ids) + "\n")
            for image_id in ids:
                (folder / "Annotations" / f"{image_id}.xml").write_text(voc_xml(objects))
                picture = Image.fromarray(noise(HEIGHT, WIDTH))
                picture.save(folder / "JPEGImages" / f"{image_id}.jpg")
                if image_id in with_masks:
                    palette = Image.fromarray(voc_masks(), mode="P")
                    palette.putpalette([value // 3 for value in range(768)])
                    palette.save(folder / "SegmentationObject" / f"{image_id}.png")
    return DatasetConfig(kind="voc", root=str(root), voc=VocConfig())


def trainval(root: Path, **fields: Any) -> VocSplit:
    return replace(VocSplit(str(root), 2007, "trainval"), **fields)
