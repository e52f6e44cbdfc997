"""COCO's format: folds, dicts as Detectron2 makes them, and one sentence for each fault."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from bgaug_d2.data.coco import CocoSplit, fold_indices, load_coco
from bgaug_d2.errors import DatasetError
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.object_masks import object_masks
from tests.helpers.data_trees import (
    HEIGHT,
    WIDTH,
    coco_content,
    load_train,
    train_split,
    write_coco,
)

pytest.importorskip("detectron2")


# Folds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_images", [50, 999, 117_266, 118_287])
@pytest.mark.parametrize("percent", [1, 5, 10, 25, 0.5, 99.9, 100])
@pytest.mark.parametrize("fold", [1, 2, 5])
def test_folds_are_those_of_the_literature(n_images: int, percent: float, fold: int) -> None:
    count = int(percent / 100 * n_images)
    if count == 0:
        with pytest.raises(DatasetError, match="is no image"):
            fold_indices(n_images, percent, fold)
        return
    before = str(np.random.get_state(legacy=False))
    ours = fold_indices(n_images, percent, fold)
    assert str(np.random.get_state(legacy=False)) == before  # the position, above all
    np.random.seed(fold)
    np.testing.assert_array_equal(ours, np.random.choice(n_images, count, replace=False))


def test_folds_do_not_change_between_versions() -> None:
    # 118,287 images: COCO train2017, fold 1, on which others train, too.
    assert len(fold_indices(118_287, 1, 1)) == 1182
    assert fold_indices(118_287, 1, 1)[:4].tolist() == [105285, 107335, 49358, 65744]


@pytest.mark.parametrize("percent", [0, -1, 100.1, float("nan")])
def test_an_impossible_percentage_is_refused(percent: float) -> None:
    with pytest.raises(DatasetError, match="must be in"):
        fold_indices(100, percent, 1)


def test_a_fold_counts_places_in_the_file_not_ids(tmp_path: Path) -> None:
    content = coco_content(6)
    write_coco(tmp_path, content, content)
    chosen = fold_indices(6, 50, 2)
    expected = sorted(content["images"][place]["id"] for place in chosen)
    assert [each["image_id"] for each in load_train(tmp_path, percent=50.0, fold=2)] == expected
    other = sorted(sorted(image["id"] for image in content["images"])[place] for place in chosen)
    assert expected != other  # the file is not sorted by id


# What Detectron2 gets -----------------------------------------------------------------------------


def test_dicts_are_detectron2s_with_ids_and_captions(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content(), coco_content())
    dicts = load_train(tmp_path)
    assert [each["image_id"] for each in dicts] == [10, 11, 12]
    first = dicts[0]
    assert (first["height"], first["width"]) == (HEIGHT, WIDTH)
    assert first["file_name"] == str(tmp_path / "train" / "10.png")
    assert [each["captions"] for each in dicts] == [["a cat", "a dog"], [], []]
    assert [each["id"] for each in first["annotations"]] == [1000, 1001, 1002]
    assert [each["category_id"] for each in first["annotations"]] == [0, 1, 1]
    assert [each["iscrowd"] for each in first["annotations"]] == [0, 1, 0]
    polygon, crowd, box = first["annotations"]
    assert polygon["segmentation"] == [[10, 10, 30, 10, 30, 30, 10, 30]]
    assert coco_mask.area(crowd["segmentation"]) == 4
    assert "segmentation" not in box


def test_images_without_annotations_and_unlisted_images_are_kept_and_left_out(
    tmp_path: Path,
) -> None:
    content = coco_content(3)
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 11]
    content["annotations"].append({**content["annotations"][0], "id": 5, "image_id": 99})
    write_coco(tmp_path, content, content)
    assert [len(each["annotations"]) for each in load_train(tmp_path)] == [3, 0, 3]


def test_max_images_takes_the_first_ids_and_needs_only_their_files(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content(4), coco_content())
    (tmp_path / "train" / "13.png").unlink()
    assert [each["image_id"] for each in load_train(tmp_path, max_images=3)] == [10, 11, 12]
    with pytest.raises(DatasetError, match="1 of the images .* first is '13.png'"):
        load_train(tmp_path)


def test_a_missing_caption_file_means_no_captions(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content(), coco_content())
    (tmp_path / "annotations/captions.json").unlink()
    assert "captions" not in load_train(tmp_path)[0]
    assert "captions" not in load_train(tmp_path, caption_file="")[0]
    (tmp_path / "annotations/captions.json").write_text('{"annotations": [{"caption": "x"}]}')
    with pytest.raises(DatasetError, match="no caption file"):
        load_train(tmp_path, max_images=1)


def test_images_in_folders_and_links_inside_the_root(tmp_path: Path) -> None:
    content = coco_content(2)
    content["images"][0]["file_name"] = "sub/a.png"
    write_coco(tmp_path, content, content)
    (tmp_path / "train" / "sub").mkdir()
    (tmp_path / "train" / "11.png").rename(tmp_path / "train" / "sub" / "a.png")
    assert load_train(tmp_path)[1]["file_name"].endswith("train/sub/a.png")
    (tmp_path / "train" / "10.png").unlink()
    (tmp_path / "train" / "10.png").symlink_to(tmp_path / "train" / "sub" / "a.png")
    assert len(load_train(tmp_path)) == 2


def test_sloppiness_of_real_coco_is_tolerated(tmp_path: Path) -> None:
    content = coco_content(1)
    square, _, box = content["annotations"]
    square["segmentation"] = [[-1.5, 10, 83, 10, 30, 30], [1, 2, 3, 4]]  # a bit outside; 2 points
    square["bbox"] = [10, 10, 5, 0]  # train2017 has such
    box["segmentation"] = []
    write_coco(tmp_path, content, content)
    (loaded,) = load_train(tmp_path)
    assert loaded["annotations"][0]["segmentation"] == [[-1.5, 10, 83, 10, 30, 30]]


def test_categories_must_be_those_of_the_test_split(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content(), coco_content())
    load_coco(train_split(tmp_path), f"coco_{tmp_path}", {3: "cat", 7: "dog"})
    with pytest.raises(DatasetError, match="other categories"):
        load_coco(train_split(tmp_path), f"coco_{tmp_path}_2", {3: "cat", 8: "dog"})


@pytest.mark.parametrize("part", ["train", "val"])
def test_real_coco_loads_and_all_its_masks_pass(tiny_coco_root: Path, part: str) -> None:
    split = CocoSplit(
        str(tiny_coco_root),
        f"annotations/instances_{part}2017.json",
        f"{part}2017",
        f"annotations/captions_{part}2017.json",
        evaluated=part == "val",
    )
    dicts = load_coco(split, f"tiny_coco_{part}")
    content = json.loads((tiny_coco_root / split.json_file).read_bytes())
    assert len(dicts) == 50
    assert sum(len(each["annotations"]) for each in dicts) == len(content["annotations"])
    assert sum(a["iscrowd"] for each in dicts for a in each["annotations"]) == 5
    assert all(len(each["captions"]) == 5 for each in dicts)
    known = {each["id"]: each for each in content["annotations"]}
    for each in dicts:
        objects = objects_from_annotations(each["annotations"], each["image_id"])
        masks = object_masks(objects, each["height"], each["width"], each["image_id"])
        assert masks.object_mask.any() == bool(objects)
        assert {item.annotation_id for item in objects} <= known.keys()
