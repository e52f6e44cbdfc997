"""The toy world in VOC's layout says what it says in COCO's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bgaug_d2.config.experiment import DatasetConfig, ToyConfig, VocConfig
from bgaug_d2.data.register import check_dataset, register_dataset
from bgaug_d2.data.toy.voc_layout import write_toy_voc
from bgaug_d2.data.toy.world import generate_toy
from bgaug_d2.data.voc import VOC_CLASSES, VocSplit, load_voc


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy_voc")
    generate_toy(folder / "world", ToyConfig(image_size=64, num_train=6, num_val=2, num_test=3))
    write_toy_voc(folder / "world", folder / "voc")
    return folder


def test_boxes_and_classes_are_those_of_the_world(root: Path) -> None:
    content = json.loads((root / "world/annotations/instances_test.json").read_text())
    numbers = sorted(each["id"] for each in content["categories"])
    dicts = load_voc(VocSplit(str(root / "voc"), 2007, "test"))
    assert len(dicts) == len(content["images"]) == 3
    for found, image in zip(dicts, content["images"], strict=True):
        assert (found["height"], found["width"]) == (image["height"], image["width"])
        own = [each for each in content["annotations"] if each["image_id"] == image["id"]]
        assert [each["category_id"] for each in found["annotations"]] == [
            numbers.index(each["category_id"]) for each in own
        ]
        for voc, coco in zip(found["annotations"], own, strict=True):
            x, y, w, h = coco["bbox"]
            np.testing.assert_allclose(voc["bbox"], [x, y, x + w, y + h], atol=1.01)


def test_training_images_go_to_both_years_with_their_masks(root: Path) -> None:
    for year in (2007, 2012):
        dicts = load_voc(VocSplit(str(root / "voc"), year, "trainval", masks=True))
        assert len(dicts) == 3
        assert all("segmentation" in each for found in dicts for each in found["annotations"])
    assert len(VOC_CLASSES) == 20


def test_the_data_set_draws_itself_at_first_use(tmp_path: Path) -> None:
    world = ToyConfig(image_size=64, num_train=4, num_val=1, num_test=2)
    config = DatasetConfig("voc", str(tmp_path / "voc"), toy=world, voc=VocConfig(toy=True))
    assert config.is_toy
    check_dataset(config)
    assert not (tmp_path / "voc").exists()
    handle = register_dataset(config)
    images = sorted((tmp_path / "voc").rglob("*.jpg"))
    assert (len(images), len(handle.train)) == (6, 2)
    assert not (tmp_path / "voc" / "world").exists()
    before = [each.stat().st_mtime_ns for each in images]
    assert register_dataset(config) == handle
    assert [each.stat().st_mtime_ns for each in images] == before
    config.toy.seed = 1  # another world takes its place
    register_dataset(config)
    after = [each.stat().st_mtime_ns for each in sorted((tmp_path / "voc").rglob("*.jpg"))]
    assert len(after) == 6
    assert not set(after) & set(before)
