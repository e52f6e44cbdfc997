"""The toy world in the layout of PASCAL VOC, for trying what reads that layout without the data."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from bgaug_d2.config.experiment import ToyConfig
from bgaug_d2.data.toy.world import toy_marker, write_in_place, write_world
from bgaug_d2.data.voc import VOC_CLASSES

_PALETTE = [value // 3 for value in range(768)]


def generate_toy_voc(root: str | Path, config: ToyConfig) -> None:
    """Draw the toy world into ``root`` in VOC's layout, as ``generate_toy`` does in COCO's.

    Raises:
        DatasetError: ``root`` holds something else, or cannot be written.
    """

    def write(folder: Path) -> None:
        world = folder / "world"
        world.mkdir()
        write_world(world, config)
        write_toy_voc(world, folder)
        # It was drawn only to be converted.
        shutil.rmtree(world)

    # Otherwise a world of the same settings in COCO's layout would pass for this one.
    marker = {**toy_marker(config), "layout": "voc"}
    write_in_place(Path(root), marker, lambda folder: _is_whole(folder, config), write)


def _is_whole(root: Path, config: ToyConfig) -> bool:
    # The val split is not part of this layout.
    found = [len(os.listdir(root / f"VOC{year}" / "JPEGImages")) for year in (2007, 2012)]
    return sum(found) == config.num_train + config.num_test


def write_toy_voc(world: Path, root: Path) -> None:
    """Write ``VOC2007`` (trainval, test) and ``VOC2012`` (trainval) from a generated toy world.

    Training images go to the two years in turn. The toy classes take VOC's names in the order of
    the alphabet; an object with crowd regions becomes ``difficult``. Every object has a mask.

    Args:
        world: As ``toy.generate_toy`` writes it.
        root: Created where it is missing; existing files are overwritten.
    """
    for split, targets in (
        ("train", [(2007, "trainval"), (2012, "trainval")]),
        ("test", [(2007, "test")]),
    ):
        content = json.loads((world / f"annotations/instances_{split}.json").read_text())
        numbers = sorted(each["id"] for each in content["categories"])
        classes = {number: VOC_CLASSES[place] for place, number in enumerate(numbers)}
        lists: dict[tuple[int, str], list[str]] = {target: [] for target in targets}
        for place, image in enumerate(content["images"]):
            year, name = targets[place % len(targets)]
            image_id = f"{year}_{split}_{image['id']:06d}"
            objects = [each for each in content["annotations"] if each["image_id"] == image["id"]]
            _write_image(root / f"VOC{year}", image_id, world / split, image, objects, classes)
            lists[year, name].append(image_id)
        for (year, name), ids in lists.items():
            path = root / f"VOC{year}/ImageSets/Main/{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(ids) + "\n")


def _write_image(
    folder: Path,
    image_id: str,
    pictures: Path,
    image: dict[str, Any],
    objects: list[dict[str, Any]],
    classes: dict[int, str],
) -> None:
    for name in ("Annotations", "JPEGImages", "SegmentationObject"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    height, width = image["height"], image["width"]
    indices = np.zeros((height, width), dtype=np.uint8)
    parts = []
    for number, each in enumerate(objects, start=1):
        indices[_mask(each["segmentation"], height, width)] = number
        x, y, w, h = each["bbox"]  # VOC counts pixels from 1 and includes the last one
        box = {"xmin": x + 1, "ymin": y + 1, "xmax": max(x + w, x + 1), "ymax": max(y + h, y + 1)}
        corners = "".join(f"<{key}>{round(value)}</{key}>" for key, value in box.items())
        parts.append(
            f"<object><name>{classes[each['category_id']]}</name><pose>Unspecified</pose>"
            f"<truncated>0</truncated><difficult>{each['iscrowd']}</difficult>"
            f"<bndbox>{corners}</bndbox></object>"
        )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    xml = f"<annotation>{size}{''.join(parts)}</annotation>"
    (folder / "Annotations" / f"{image_id}.xml").write_text(xml)
    with Image.open(pictures / image["file_name"]) as picture:
        picture.convert("RGB").save(folder / "JPEGImages" / f"{image_id}.jpg", quality=95)
    palette = Image.fromarray(indices, mode="P")
    palette.putpalette(_PALETTE)
    palette.save(folder / "SegmentationObject" / f"{image_id}.png")


def _mask(segmentation: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    rles = coco_mask.frPyObjects(segmentation, height, width)
    merged = coco_mask.merge(rles) if isinstance(rles, list) else rles
    return np.asarray(coco_mask.decode(merged), dtype=bool)
