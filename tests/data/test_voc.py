"""PASCAL VOC: boxes as Detectron2's loader has them, masks matched to boxes, harmless XML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from bgaug_d2.data import voc
from bgaug_d2.data.voc import load_voc, parse_split, read_image_ids
from bgaug_d2.data.voc_masks import match_boxes
from bgaug_d2.errors import DatasetError
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.object_masks import object_masks
from tests.helpers.data_trees import HEIGHT, WIDTH, trainval, voc_masks, write_voc


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_voc(tmp_path)
    return tmp_path


def to_mask(polygons: list[list[float]]) -> np.ndarray:
    encoded = coco_mask.frPyObjects(polygons, HEIGHT, WIDTH)
    return coco_mask.decode(coco_mask.merge(encoded)).astype(bool)


def test_boxes_are_those_of_detectron2(tree: Path) -> None:
    pascal_voc = pytest.importorskip("detectron2.data.datasets.pascal_voc")
    assert pascal_voc.CLASS_NAMES == voc.VOC_CLASSES
    theirs = pascal_voc.load_voc_instances(str(tree / "VOC2007"), "trainval", voc.VOC_CLASSES)
    ours = load_voc(trainval(tree))
    for their, our in zip(theirs, ours, strict=True):
        for field in ("file_name", "image_id", "height", "width"):
            assert our[field] == their[field]
        for their_object, our_object in zip(their["annotations"], our["annotations"], strict=True):
            assert their_object.items() <= our_object.items()


def test_without_masks_boxes_stay_and_masks_only_protect(tree: Path) -> None:
    with_file, without_file = load_voc(trainval(tree))
    assert [each["id"] for each in with_file["annotations"]] == [1, 2, 3]
    dog, cat, car = with_file["annotations"]
    assert dog["bbox"] == [10, 10, 30, 40]
    # The void contour, which is inside the box here, is protected with the object.
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[10:40, 10:30] = True
    np.testing.assert_array_equal(to_mask(dog["segmentation"]), expected)
    assert to_mask(cat["segmentation"]).sum() == 20 * 30
    assert "segmentation" not in car
    assert all("segmentation" not in each for each in without_file["annotations"])
    assert all("iscrowd" not in each for each in with_file["annotations"])


def test_with_masks_every_object_has_one(tree: Path) -> None:
    (only,) = load_voc(trainval(tree, masks=True))
    assert only["image_id"] == "000001"
    dog, cat, car = only["annotations"]
    np.testing.assert_array_equal(to_mask(dog["segmentation"]), voc_masks() == 2)
    np.testing.assert_array_equal(to_mask(cat["segmentation"]), voc_masks() == 1)
    assert car["iscrowd"] == 1
    assert to_mask(car["segmentation"]).sum() == 6 * 6
    masks = object_masks(
        objects_from_annotations(only["annotations"], "000001"), HEIGHT, WIDTH, "1"
    )
    assert masks.object_mask.sum() == 2 * 16 * 26 + 36
    assert masks.num_crowd == 1


def test_masks_in_the_order_of_the_xml_win_ties() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30]]
    assert match_boxes(boxes, [[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30]]) == {
        0: 0,
        1: 1,
        2: 2,
    }
    assert match_boxes(boxes, [[20, 20, 30, 30], [0, 0, 10, 10]]) == {1: 1, 2: 0}
    assert match_boxes(boxes, [[8, 8, 18, 18]]) == {}
    assert match_boxes(boxes, []) == {}


def test_image_lists(tree: Path) -> None:
    assert read_image_ids(trainval(tree)) == ["000001", "000002"]
    assert read_image_ids(trainval(tree, max_images=1)) == ["000001"]
    assert read_image_ids(trainval(tree, masks=True)) == ["000001"]
    with pytest.raises(DatasetError, match="no images that have instance masks"):
        read_image_ids(replace(trainval(tree, masks=True), split="test"))
    with pytest.raises(DatasetError, match="cannot be read"):
        read_image_ids(replace(trainval(tree), split="val"))
    (tree / "VOC2007/ImageSets/Main/trainval.txt").write_text("000001\n../../../etc/passwd\n")
    with pytest.raises(DatasetError, match="is no image id"):
        read_image_ids(trainval(tree))


@pytest.mark.parametrize("name", ["2007", "07_test", "2007_../x", "2007_test.txt", "٢٠07_test", ""])
def test_bad_split_names(name: str) -> None:
    assert parse_split("2012_trainval") == (2012, "trainval")
    with pytest.raises(DatasetError, match="is no YEAR_SPLIT"):
        parse_split(name)
