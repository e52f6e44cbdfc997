"""Broken annotation files in COCO's format: one sentence for each fault, and no crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.errors import AnnotationError, DatasetError
from tests.helpers.data_trees import HEIGHT, WIDTH, coco_content, load_train, write_coco

pytest.importorskip("detectron2")

Edit = Callable[[dict[str, Any]], Any]


def first(content: dict[str, Any]) -> dict[str, Any]:
    return content["annotations"][0]


ANNOTATION_FAULTS: dict[str, tuple[Edit, str]] = {
    "polygon with NaN": (lambda c: first(c)["segmentation"][0].append(float("nan")), "even count"),
    "NaN": (lambda c: first(c)["segmentation"][0].__setitem__(3, float("nan")), "not finite"),
    "infinity": (lambda c: first(c)["segmentation"][0].__setitem__(3, float("inf")), "not finite"),
    "huge": (lambda c: first(c)["segmentation"][0].__setitem__(3, 1e8), "far outside"),
    "huge int": (lambda c: first(c)["segmentation"][0].__setitem__(3, 10**400), "too large"),
    "far": (lambda c: first(c)["segmentation"][0].__setitem__(0, -81), "far outside"),
    "text": (lambda c: first(c)["segmentation"][0].__setitem__(0, "7"), "unsupported operand"),
    "null": (lambda c: first(c)["segmentation"][0].__setitem__(0, None), "unsupported operand"),
    "nested": (lambda c: first(c)["segmentation"][0].__setitem__(0, [1]), "unsupported operand"),
    "odd": (lambda c: first(c)["segmentation"][0].pop(), "even count"),
    "flat": (lambda c: first(c).update(segmentation=[1, 2, 3, 4, 5, 6]), "even count"),
    "string": (lambda c: first(c).update(segmentation="1 2 3"), "is a str; expected polygons"),
    "short NaN": (lambda c: first(c)["segmentation"].append([1, float("nan")]), "not finite"),
    "endless": (lambda c: first(c)["segmentation"].append([0, 0, 150, 9] * 15000), "pixels long"),
    "no box": (lambda c: first(c).pop("bbox"), "no 'bbox'"),
    "box of 3": (lambda c: first(c).update(bbox=[1, 2, 3]), "is not .x, y, width, height"),
    "box NaN": (lambda c: first(c).update(bbox=[1, 2, float("nan"), 4]), "not finite"),
    "box negative": (lambda c: first(c).update(bbox=[1, 2, -3, 4]), "negative width"),
    "category": (lambda c: first(c).update(category_id=4), "category_id 4 is not among"),
    "no category": (lambda c: first(c).pop("category_id"), "no 'category_id'"),
    "category list": (lambda c: first(c).update(category_id=[3]), "unhashable"),
    "crowd 2": (lambda c: first(c).update(iscrowd=2), "iscrowd is 2"),
    "ignore": (lambda c: first(c).update(ignore=1), "'ignore' is set"),
    "area NaN": (lambda c: first(c).update(area=float("nan")), "area nan"),
    "area text": (lambda c: first(c).update(area="4"), "not supported between"),
    "same id": (lambda c: first(c).update(id=1101), "another annotation"),
    "no id": (lambda c: first(c).pop("id"), "whole number"),
    "image id": (lambda c: first(c).update(image_id="11"), "image_id is no whole number"),
}
RLE_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"size": [WIDTH, HEIGHT]}, "RLE is for"),
    "size of 1": ({"size": [HEIGHT]}, "not .height, width"),
    "float size": ({"size": [60.0, 80.0]}, "not .height, width"),
    "short": ({"counts": [100, 20]}, "add up to 120"),
    "long": ({"counts": [HEIGHT * WIDTH, 20]}, "add up to"),
    "negative": ({"counts": [-5, HEIGHT * WIDTH + 5]}, "the run -5"),
    "float": ({"counts": [0.5, HEIGHT * WIDTH - 0.5]}, "the run 0.5"),
    "NaN": ({"counts": [float("nan")]}, "the run nan"),
    "null": ({"counts": None}, "counts are a NoneType"),
    "compressed, short": ({"counts": "Vd2"}, "add up to"),
    "compressed, torn": ({"counts": "Vd2`"}, "ends inside a number"),
    "compressed, bad letter": ({"counts": "Vd2 "}, "compressed RLE holds ' '"),
    "compressed, not ASCII": ({"counts": "Vd2é"}, "not ASCII"),
}


def assert_refused(root: Path, content: dict[str, Any], error: type[Exception], match: str) -> None:
    write_coco(root, content, content)
    for evaluated in (False, True):
        with pytest.raises(error, match=match) as caught:
            load_train(root, evaluated=evaluated)
        assert "\n" not in str(caught.value)
        assert "train.json" in str(caught.value) or "train" in str(caught.value)
    if error is AnnotationError:
        assert "image 1" in str(caught.value)
        assert ", annotation " in str(caught.value)


@pytest.mark.parametrize("fault", ANNOTATION_FAULTS)
def test_a_broken_annotation_is_named(tmp_path: Path, fault: str) -> None:
    edit, match = ANNOTATION_FAULTS[fault]
    content = coco_content(2)
    edit(content)
    if fault == "image id":
        write_coco(tmp_path, content, content)
        with pytest.raises(AnnotationError, match=match):
            load_train(tmp_path)
    else:
        assert_refused(tmp_path, content, AnnotationError, match)


@pytest.mark.parametrize("fault", RLE_FAULTS)
def test_a_broken_rle_is_named(tmp_path: Path, fault: str) -> None:
    change, match = RLE_FAULTS[fault]
    content = coco_content(1)
    content["annotations"][1]["segmentation"].update(change)
    assert_refused(tmp_path, content, AnnotationError, f"image 10, annotation 1001: .*{match}")


FILE_FAULTS: dict[str, tuple[Edit, str]] = {
    "parent folder": (
        lambda c: c["images"][0].update(file_name="../../secret.png"),
        "without '..'",
    ),
    "absolute": (lambda c: c["images"][0].update(file_name="/etc/passwd"), "must be relative"),
    "own folder": (lambda c: c["images"][0].update(file_name="."), "missing"),
    "upper folder": (lambda c: c["images"][0].update(file_name=".."), "missing"),
    "NUL": (lambda c: c["images"][0].update(file_name="a\0b.png"), "missing"),
    "NUL folder": (lambda c: c["images"][0].update(file_name="a\0b/c.png"), "is not a path"),
    "missing": (lambda c: c["images"][0].update(file_name="gone.png"), "first is 'gone.png'"),
    "missing folder": (lambda c: c["images"][0].update(file_name="x/gone.png"), "missing"),
    "no name": (lambda c: c["images"][0].pop("file_name"), "no file_name"),
    "empty name": (lambda c: c["images"][0].update(file_name=""), "no file_name"),
    "name list": (lambda c: c["images"][0].update(file_name=["a"]), "no file_name"),
    "height": (lambda c: c["images"][0].update(height=0), "height 0"),
    "width": (lambda c: c["images"][0].update(width=80.5), "width 80.5"),
    "bomb": (lambda c: c["images"][0].update(width=10**9), "more than"),
    "same image id": (lambda c: c["images"].append(c["images"][0]), "two images have the id"),
    "image id text": (lambda c: c["images"][0].update(id="10"), "an image has the id '10'"),
    "no images": (lambda c: c.pop("images"), "not in COCO's format"),
    "empty": (lambda c: c.update(images=[]), "lists no images"),
    "images as ids": (lambda c: c.update(images=[1, 2]), "not in COCO's format"),
    "no annotations": (lambda c: c.update(annotations=None), "not in COCO's format"),
    "no categories": (lambda c: c.update(categories=[]), "lists no categories"),
    "category id": (lambda c: c["categories"][0].update(id=None), "whole-number id"),
    "same category id": (lambda c: c["categories"][0].update(id=3), "two categories have the id 3"),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_broken_file_is_one_sentence(tmp_path: Path, fault: str) -> None:
    edit, match = FILE_FAULTS[fault]
    content = coco_content(2)
    original = json.loads(json.dumps(content))
    edit(content)
    write_coco(tmp_path, original, original)
    (tmp_path / "annotations/train.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=match) as caught:
        load_train(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"images": [{"id"', "no valid JSON"),
        ("", "no valid JSON"),
        ("[1, 2]", "holds a JSON list"),
        ("[" * 100_000, "no valid JSON"),
        ('{"a": "\udcff"}', "no valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "no valid JSON"),
    ],
)
def test_what_is_no_json_object_is_one_sentence(tmp_path: Path, text: str, match: str) -> None:
    write_coco(tmp_path, coco_content(), coco_content())
    path = tmp_path / "annotations/train.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=match):
        load_train(tmp_path)


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_coco(root, coco_content(), coco_content())
    outside = tmp_path / "outside.png"
    (root / "train" / "10.png").rename(outside)
    (root / "train" / "10.png").symlink_to(outside)
    with pytest.raises(DatasetError, match="outside the data set's root"):
        load_train(root)
    (root / "train" / "10.png").unlink()
    (root / "train" / "10.png").symlink_to(root / "nowhere.png")
    with pytest.raises(DatasetError, match="first is '10.png'"):
        load_train(root)
    (root / "train").rename(tmp_path / "train")
    (root / "train").symlink_to(tmp_path / "train")
    with pytest.raises(DatasetError, match="outside the data set's root"):
        load_train(root)
    with pytest.raises(DatasetError, match="without '..'"):
        load_train(root, json_file="../outside.json")


@pytest.mark.parametrize("field", ["area", "iscrowd"])
def test_fields_that_only_the_evaluation_needs(tmp_path: Path, field: str) -> None:
    content = coco_content(1)
    del content["annotations"][0][field]
    write_coco(tmp_path, content, content)
    assert len(load_train(tmp_path)) == 1
    with pytest.raises(AnnotationError, match=f"no '{field}'"):
        load_train(tmp_path, evaluated=True)


@pytest.mark.parametrize("polygons", [[[]], [[1, 2]], [[1, 2, 3, 4], [1, 1, 5, 5, 1, 5]]])
def test_polygons_that_only_training_can_skip(tmp_path: Path, polygons: list[list[int]]) -> None:
    content = coco_content(1)
    content["annotations"][0]["segmentation"] = polygons
    write_coco(tmp_path, content, content)
    (loaded,) = load_train(tmp_path)
    assert len(loaded["annotations"]) == 2 + (len(polygons) == 2)
    with pytest.raises(AnnotationError, match="annotation 1000: a polygon has fewer than 3 points"):
        load_train(tmp_path, evaluated=True)


def test_a_test_file_may_come_without_annotations(tmp_path: Path) -> None:
    content = coco_content(2)
    del content["annotations"]
    write_coco(tmp_path, content, content)
    assert [each["annotations"] for each in load_train(tmp_path, evaluated=True)] == [[], []]
    with pytest.raises(DatasetError, match="'annotations'"):
        load_train(tmp_path)
