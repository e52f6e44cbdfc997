"""The toy world: exact masks, the shortcut, determinism, and safety of what is on disk."""

from __future__ import annotations

import json
import multiprocessing
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from bgaug_d2.config.experiment import ToyConfig
from bgaug_d2.data.toy.backgrounds import BACKGROUNDS, paint_background
from bgaug_d2.data.toy.scene import BIASED_BACKGROUNDS, CROWD_EVERY, draw_scene
from bgaug_d2.data.toy.shapes import SHAPES, draw_sprite
from bgaug_d2.data.toy.world import SPLITS, generate_toy, size_limits
from bgaug_d2.errors import DatasetError
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.object_masks import object_masks

SMALL = ToyConfig(image_size=64, num_train=9, num_val=3, num_test=4, seed=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "world"
    generate_toy(root, ToyConfig(num_train=48, num_val=24, num_test=24))
    return root


def read(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "annotations" / f"{name}.json").read_bytes())


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def picture(root: Path, split: str, image: dict[str, Any]) -> np.ndarray:
    with Image.open(root / split / image["file_name"]) as file:
        return np.asarray(file.convert("RGB"))


def by_image(content: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    return {
        image["id"]: [each for each in content["annotations"] if each["image_id"] == image["id"]]
        for image in content["images"]
    }


@pytest.mark.parametrize("split", SPLITS)
def test_annotations_are_exact_and_do_not_overlap(world: Path, split: str) -> None:
    content = read(world, f"instances_{split}")
    annotations = by_image(content)
    for image in content["images"]:
        height, width = image["height"], image["width"]
        assert picture(world, split, image).shape == (height, width, 3)
        total = np.zeros((height, width), dtype=int)
        for each in annotations[image["id"]]:
            encoded = coco_mask.frPyObjects(each["segmentation"], height, width)
            if not each["iscrowd"]:
                encoded = coco_mask.merge(encoded)
            total += coco_mask.decode(encoded)
            assert each["area"] == coco_mask.area(encoded)
            assert each["bbox"] == coco_mask.toBbox(encoded).tolist()
        assert total.max() == 1
        masks = object_masks(
            objects_from_annotations(annotations[image["id"]], image["id"]),
            height,
            width,
            image["id"],
        )
        np.testing.assert_array_equal(masks.object_mask, total == 1)


def test_masks_lie_on_the_drawn_pixels() -> None:
    # The same background with and without objects: what differs much is object or its shadow, and
    # inside the masks nearly everything differs.
    rng = np.random.default_rng([0, 1, 5])
    before = rng.bit_generator.state
    drawn, placed, kind = draw_scene(rng, 5, 128, bias=0.0)
    rng.bit_generator.state = before
    rng.random(), rng.integers(8)  # the draws of the kind
    background = paint_background(kind, rng, *drawn.shape[:2])
    objects = np.any([each.visible for each in placed], axis=0)
    changed = np.abs(drawn - background).max(axis=2) > 60
    far = cv2.dilate(objects.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    assert changed[objects].mean() > 0.9
    assert changed[far].mean() < 0.05


def test_world_is_varied(world: Path) -> None:
    for split, count in (("train", 48), ("val", 24), ("test", 24)):
        content = read(world, f"instances_{split}")
        numbers = [
            sum(not each["iscrowd"] for each in items) for items in by_image(content).values()
        ]
        assert min(numbers) >= 1
        assert max(numbers) == 6
        assert sum(each["iscrowd"] for each in content["annotations"]) == count // CROWD_EVERY
        shapes = Counter(each["category_id"] for each in content["annotations"])
        assert set(shapes) == set(range(1, len(SHAPES) + 1))
        assert len({(image["height"], image["width"]) for image in content["images"]}) == 3
        areas = [each["area"] for each in content["annotations"]]
        assert min(areas) < 100
        assert max(areas) > 1500


def test_training_split_has_the_shortcut_and_the_others_have_not(world: Path) -> None:
    matches = {}
    for split in SPLITS:
        captions = {
            each["image_id"]: each["caption"]
            for each in read(world, f"captions_{split}")["annotations"]
            if each["caption"].startswith("A picture of")
        }
        kinds = {
            image_id: next(kind for kind, (_, words) in BACKGROUNDS.items() if words in caption)
            for image_id, caption in captions.items()
        }
        shown = set(kinds.values())
        assert len(shown) > 5 or split == "train"
        usual = [kind in BIASED_BACKGROUNDS for kind in kinds.values()]
        assert np.mean(usual) > 0.85 if split == "train" else np.mean(usual) < 0.6
        hits = [
            SHAPES[each["category_id"] - 1] in BIASED_BACKGROUNDS.get(kinds[each["image_id"]], ())
            for each in read(world, f"instances_{split}")["annotations"]
            if kinds[each["image_id"]] in BIASED_BACKGROUNDS
        ]
        matches[split] = np.mean(hits)
    assert matches["train"] > 0.75
    assert max(matches["val"], matches["test"]) < 0.6


def test_bias_of_one_leaves_no_exception_and_of_zero_nothing() -> None:
    def seen(bias: float) -> list[tuple[str, str]]:
        scenes = [draw_scene(np.random.default_rng(i), 1, 64, bias) for i in range(60)]
        return [(kind, each.shape) for _, placed, kind in scenes for each in placed]

    assert all(shape in BIASED_BACKGROUNDS[kind] for kind, shape in seen(1.0))
    free = seen(0.0)
    assert {kind for kind, _ in free} == set(BACKGROUNDS)
    bricks = [shape in BIASED_BACKGROUNDS["bricks"] for kind, shape in free if kind == "bricks"]
    assert 0.1 < np.mean(bricks) < 0.7


def test_seeds_share_what_is_measured_with(tmp_path: Path) -> None:
    generate_toy(tmp_path / "a", SMALL)
    generate_toy(tmp_path / "b", replace(SMALL, seed=SMALL.seed + 1, bias=0.1))
    first, second = (files(tmp_path / name) for name in "ab")
    same = {name for name in first if first[name] == second[name]}
    assert same == {name for name in first if re.search("val|test", name)}
    assert len(same) == 3 + 4 + 4


def test_size_limits_share_objects_out_as_coco_does(world: Path) -> None:
    areas = [
        each["area"]
        for split in SPLITS
        for each in read(world, f"instances_{split}")["annotations"]
        if not each["iscrowd"]
    ]
    shares = np.diff(np.searchsorted(np.sort(areas), [0, *size_limits(128), 1e9])) / len(areas)
    np.testing.assert_allclose(shares, [0.41, 0.34, 0.24], atol=0.07)


def test_captions_name_what_is_there(world: Path) -> None:
    shapes = {
        image_id: [SHAPES[each["category_id"] - 1] for each in annotations]
        for image_id, annotations in by_image(read(world, "instances_train")).items()
    }
    captions = read(world, "captions_train")["annotations"]
    assert len(captions) == 2 * 48
    for each in captions:
        assert "a orange" not in each["caption"]
        if each["caption"].startswith("A picture of"):
            assert all(shape in each["caption"] for shape in shapes[each["image_id"]])


@pytest.mark.parametrize("kind", list(BACKGROUNDS))
def test_every_background_is_a_picture_and_muted(kind: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        background = paint_background(kind, rng, 64, 96)
        assert background.shape == (64, 96, 3)
        assert background.dtype == np.float32
        assert np.isfinite(background).all()
        assert background.min() >= 0
        assert background.max() <= 255
        assert background.std() > 3
        saturation = cv2.cvtColor(background.astype(np.uint8), cv2.COLOR_RGB2HSV)[:, :, 1]
        assert saturation.mean() < 130


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_vivid_and_in_one_piece(shape: str) -> None:
    for seed in range(8):
        sprite = draw_sprite(np.random.default_rng(seed), shape, 40)
        solid = (sprite.alpha >= 0.5).astype(np.uint8)
        assert cv2.connectedComponents(solid)[0] == 2  # the outside and the shape
        assert solid[[0, -1]].sum() + solid[:, [0, -1]].sum() == 0  # nothing is cut off
        assert 0.1 < solid.sum() / 40**2 < 0.85
        assert shape in sprite.words


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape='blob'"):
        draw_sprite(np.random.default_rng(0), "blob", 20)


def test_same_settings_give_the_same_bytes_and_other_seeds_do_not(tmp_path: Path) -> None:
    generate_toy(tmp_path / "a", SMALL)
    generate_toy(tmp_path / "b" / "deep", SMALL)
    generate_toy(tmp_path / "c", replace(SMALL, seed=4))
    first, second, third = (files(tmp_path / name) for name in ("a", "b/deep", "c"))
    assert first == second
    assert first.keys() == third.keys()
    assert all(first[name] != third[name] for name in first if "train" in name)
    assert len(set(first.values())) == len(first)


def test_first_images_do_not_depend_on_how_many_follow(tmp_path: Path) -> None:
    generate_toy(tmp_path / "a", SMALL)
    generate_toy(tmp_path / "b", replace(SMALL, num_train=3, num_val=1, num_test=1))
    few, many = files(tmp_path / "b"), files(tmp_path / "a")
    assert all(many[name] == data for name, data in few.items() if name.endswith(".png"))


def test_a_complete_world_is_left_alone_and_a_damaged_or_other_one_replaced(tmp_path: Path) -> None:
    root = tmp_path / "world"
    generate_toy(root, SMALL)
    before, first = files(root), root / "train" / "000001.png"
    stamp = first.stat().st_mtime_ns
    generate_toy(root, SMALL)
    assert first.stat().st_mtime_ns == stamp
    first.unlink()
    generate_toy(root, SMALL)
    assert files(root) == before
    generate_toy(root, replace(SMALL, num_train=2))
    assert len(list((root / "train").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["world"]  # no temporaries


def test_an_empty_folder_is_used_and_a_foreign_one_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    generate_toy(tmp_path / "empty", SMALL)
    assert (tmp_path / "empty" / "train").is_dir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(DatasetError, match="is no toy world"):
        generate_toy(tmp_path / "mine", SMALL)
    assert files(tmp_path / "mine") == {"thesis.txt": b"precious"}
    with pytest.raises(DatasetError, match="is no toy world"):
        generate_toy(tmp_path / "mine" / "thesis.txt", SMALL)
    with pytest.raises(DatasetError, match="cannot write"):
        generate_toy(tmp_path / "mine" / "thesis.txt" / "world", SMALL)


@pytest.mark.parametrize("earlier", [False, True])
def test_several_processes_may_draw_the_same_world(tmp_path: Path, earlier: bool) -> None:
    if earlier:
        generate_toy(tmp_path / "world", replace(SMALL, num_train=2))
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=generate_toy, args=(tmp_path / "world", SMALL)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    generate_toy(tmp_path / "alone", SMALL)
    assert files(tmp_path / "world") == files(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "world"]
