"""Registration: early checks, stable names, and the registered sets in Detectron2's own hands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgaug_d2.config.experiment import CocoConfig, DatasetConfig, ToyConfig, VocConfig
from bgaug_d2.data.catalogue import DatasetHandle
from bgaug_d2.data.register import check_dataset, register_dataset
from bgaug_d2.errors import DatasetError
from tests.helpers.data_trees import COCO_FILES, coco_content, write_coco, write_voc

pytest.importorskip("detectron2")
TOY = ToyConfig(image_size=96, num_train=4, num_val=2, num_test=3)


def toy_config(root: Path, **fields: Any) -> DatasetConfig:
    return DatasetConfig(root=str(root / "toy"), toy=TOY, **fields)


def dicts_of(names: list[str]) -> list[dict[str, Any]]:
    from detectron2.data import get_detection_dataset_dicts

    return get_detection_dataset_dicts(names, filter_empty=False)


def evaluate(handle: DatasetHandle, output_dir: Path, with_masks: bool) -> dict[str, Any]:
    """The score of predictions that are the truth, by the evaluator that the handle names."""
    import torch
    from detectron2.data import DatasetMapper
    from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
    from detectron2.structures import Instances

    (name,) = handle.test
    if handle.evaluator == "voc":
        evaluator = PascalVOCDetectionEvaluator(name)
    else:
        evaluator = COCOEvaluator(
            name, distributed=False, output_dir=str(output_dir), use_fast_impl=False
        )
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=with_masks,
        instance_mask_format="bitmask",
    )
    evaluator.reset()
    for each in dicts_of([name]):
        truth = mapper(each)["instances"]
        found = Instances(truth.image_size)
        found.pred_boxes, found.pred_classes = truth.gt_boxes, truth.gt_classes
        found.scores = torch.linspace(0.9, 0.5, len(truth))
        if truth.has("gt_masks"):
            found.pred_masks = truth.gt_masks.tensor
        evaluator.process([each], [{"instances": found}])
    return evaluator.evaluate()


# Early checks -------------------------------------------------------------------------------------


def test_checking_imports_neither_torch_nor_detectron2(tmp_path: Path) -> None:
    code = (
        "import sys; from bgaug_d2.data.register import check_dataset; "
        "from bgaug_d2.config.experiment import DatasetConfig; "
        f"check_dataset(DatasetConfig(kind='toy', root={str(tmp_path)!r})); "
        "sys.exit(bool({'torch', 'detectron2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_coco_shows_the_layout(tmp_path: Path) -> None:
    config = DatasetConfig(kind="coco", root=str(tmp_path / "coco"))
    for missing in (
        "is no folder",
        "has no file annotations/instances_train2017.json",
        "has no file annotations/instances_val2017.json",
        "has no folder train2017 with images",
        "has no folder val2017 with images",
    ):
        with pytest.raises(DatasetError, match=missing) as caught:
            check_dataset(config)
        assert "coco/{annotations/instances_train2017.json, " in str(caught.value)
        assert "train2017/, val2017/}" in str(caught.value)
        root = tmp_path / "coco"
        if missing == "is no folder":
            root.mkdir()
        elif "file" in missing:
            path = root / missing.split()[-1]
            path.parent.mkdir(exist_ok=True)
            path.write_text('{"images": []}\n')
        else:
            (root / missing.split()[3]).mkdir()
            (root / missing.split()[3] / "1.jpg").touch()
    check_dataset(config)


def test_coco_that_was_cut_off(tmp_path: Path) -> None:
    config = write_coco(tmp_path, coco_content(), coco_content())
    check_dataset(config)
    path = tmp_path / "annotations/test.json"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="is cut off"):
        check_dataset(config)
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"\(0 bytes\)"):
        check_dataset(config)
    path.write_text(json.dumps(coco_content()))
    for image in (tmp_path / "train").iterdir():
        image.unlink()
    with pytest.raises(DatasetError, match="no folder train with images"):
        register_dataset(config)


def test_coco_paths_stay_inside_the_root(tmp_path: Path) -> None:
    config = write_coco(tmp_path / "root", coco_content(), coco_content())
    for coco in (
        replace(COCO_FILES, train_json="../elsewhere"),
        replace(COCO_FILES, test_images="../elsewhere"),
    ):
        bad = replace(config, coco=coco)
        with pytest.raises(DatasetError, match="without '..'"):
            check_dataset(bad)


@pytest.mark.parametrize("kind", ["coco", "voc", "toy"])
def test_a_root_that_cannot_be_read(kind: str) -> None:
    with pytest.raises(DatasetError, match=r"cannot be read|cannot write"):
        register_dataset(DatasetConfig(kind=kind, root="x" * 300))


def test_missing_voc_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no folder; expected layout: .*VOC2007,VOC2012"):
        check_dataset(DatasetConfig(kind="voc", root=str(tmp_path / "none")))
    config = write_voc(tmp_path)
    check_dataset(config)
    with pytest.raises(DatasetError, match="has no VOC2012/ImageSets/Main/test.txt"):
        check_dataset(replace(config, voc=VocConfig(test=["2012_test"])))
    with pytest.raises(DatasetError, match="has no VOC2005/Annotations"):
        register_dataset(replace(config, voc=VocConfig(train=["2005_train"])))
    with pytest.raises(DatasetError, match="no YEAR_SPLIT"):
        check_dataset(replace(config, voc=VocConfig(train=["trainval"])))
    with pytest.raises(DatasetError, match="each need"):
        check_dataset(replace(config, voc=VocConfig(train=[])))
    (tmp_path / "VOC2007/SegmentationObject/000001.png").unlink()
    (tmp_path / "VOC2007/SegmentationObject").rmdir()
    with pytest.raises(DatasetError, match="has no VOC2007/SegmentationObject"):
        check_dataset(replace(config, voc=VocConfig(masks=True)))


# Names --------------------------------------------------------------------------------------------


def test_registering_twice_changes_nothing_and_settings_have_their_own_names(
    tmp_path: Path,
) -> None:
    config = toy_config(tmp_path)
    handle = register_dataset(config)
    assert register_dataset(config) == handle
    assert len(dicts_of(handle.train)) == 4
    assert len(dicts_of(handle.train)) == 4  # loading twice agrees with the metadata
    assert register_dataset(config) == handle
    shortened = register_dataset(replace(config, max_train_images=2, max_test_images=1))
    assert len(dicts_of(shortened.train)) == 2
    assert len(dicts_of(shortened.test)) == 1
    coco = write_coco(tmp_path / "coco", coco_content(10), coco_content())
    handles = [
        register_dataset(replace(coco, coco=replace(COCO_FILES, percent=percent, fold=fold)))
        for percent, fold in ((100.0, 1), (100.0, 2), (20.0, 1), (20.0, 2))
    ]
    assert handles[0] == handles[1]
    assert len({each.train[0] for each in handles}) == 3
    assert len({each.test[0] for each in handles}) == 1
    assert "20pct_fold2" in handles[3].train[0]
    assert len(dicts_of(handles[3].train)) == 2
    assert handles[0].class_names == ["cat", "dog"]


def test_train_and_test_must_have_the_same_categories(tmp_path: Path) -> None:
    train = coco_content()
    train["categories"][0]["name"] = "wolf"
    handle = register_dataset(write_coco(tmp_path, train, coco_content()))
    with pytest.raises(DatasetError, match="other categories"):
        dicts_of(handle.train)


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    write_coco(tmp_path / "real", coco_content(), coco_content())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    handle = register_dataset(
        DatasetConfig(kind="coco", root=str(tmp_path / "link"), coco=COCO_FILES)
    )
    assert all(
        Path(each["file_name"]).is_relative_to(handle.image_root) for each in dicts_of(handle.train)
    )


def test_voc_years_train_together(tmp_path: Path) -> None:
    config = write_voc(tmp_path)
    handle = register_dataset(config)
    assert len(handle.train) == 2
    assert handle.evaluator == "voc"
    ids = [each["image_id"] for each in dicts_of(handle.train)]
    assert ids == ["000001", "000002", "2008_000001", "2008_000002"]
    assert handle.image_root == str(tmp_path)
    for most, expected in ((1, ids[:1]), (2, ids[:2]), (3, ids[:3]), (9, ids)):
        shortened = register_dataset(replace(config, max_train_images=most))
        assert [each["image_id"] for each in dicts_of(shortened.train)] == expected


# Names that the user has registered ---------------------------------------------------------------


def test_registered_names(tmp_path: Path) -> None:
    from detectron2.data.datasets import register_coco_instances

    write_coco(tmp_path, coco_content(4), coco_content())
    for part in ("train", "test"):
        path = tmp_path / "annotations" / f"{part}.json"
        register_coco_instances(f"mine_{part}", {}, str(path), str(tmp_path / part))
    config = DatasetConfig(kind="registered", train_names=["mine_train"], test_names=["mine_test"])
    handle = register_dataset(config)
    assert handle == DatasetHandle(
        ["mine_train"], ["mine_test"], str(tmp_path / "train"), "coco", ["cat", "dog"]
    )
    both = register_dataset(replace(config, train_names=["mine_train", "mine_test"]))
    assert both.image_root == str(tmp_path)
    for _ in range(2):
        shortened = register_dataset(
            replace(config, train_names=both.train, max_train_images=5, max_test_images=2)
        )
        assert [len(dicts_of([name])) for name in shortened.train] == [4, 1]
        assert [len(dicts_of([name])) for name in shortened.test] == [2]
    assert evaluate(shortened, tmp_path / "out", False)["bbox"]["AP"] == pytest.approx(100)
    with pytest.raises(DatasetError, match="'mine_trian' is not .* did you mean mine_train"):
        register_dataset(replace(config, train_names=["mine_trian"]))
    with pytest.raises(DatasetError, match="register it first"):
        register_dataset(replace(config, test_names=["xyzzy!"]))


# Detectron2's own mapper and evaluators -----------------------------------------------------------


@pytest.mark.parametrize("most", [0, 2])
def test_toy_scores_100_when_the_truth_is_predicted(tmp_path: Path, most: int) -> None:
    handle = register_dataset(toy_config(tmp_path, max_test_images=most))
    results = evaluate(handle, tmp_path / "out", with_masks=True)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("kind", ["toy", "voc"])
def test_masks_suit_detectron2s_default_format(tmp_path: Path, kind: str) -> None:
    from detectron2.data import DatasetMapper

    config = toy_config(tmp_path)
    if kind == "voc":
        voc = VocConfig(["2007_trainval"], masks=True)
        config = replace(write_voc(tmp_path, ("000001", "000004")), voc=voc)
    handle = register_dataset(config)
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="polygon",
    )
    for each in dicts_of(handle.train):
        instances = mapper(each)["instances"]
        assert len(instances) == sum(not a.get("iscrowd") for a in each["annotations"])
        assert instances.has("gt_masks")


@pytest.mark.parametrize("most", [0, 6])
def test_real_coco_scores_100_when_the_truth_is_predicted(
    tiny_coco_root: Path, tmp_path: Path, most: int
) -> None:
    config = DatasetConfig(
        kind="coco", root=str(tiny_coco_root), coco=CocoConfig(), max_test_images=most
    )
    handle = register_dataset(config)
    assert len(handle.class_names) == 80
    results = evaluate(handle, tmp_path / "out", with_masks=most == 0)
    assert results["bbox"]["AP"] == pytest.approx(100, abs=1.5)
    if most == 0:
        assert results["segm"]["AP"] > 98


def test_voc_boxes_under_vocs_evaluator(tmp_path: Path) -> None:
    handle = register_dataset(write_voc(tmp_path))
    results = evaluate(handle, tmp_path / "out", with_masks=False)["bbox"]
    assert results["AP50"] == pytest.approx(100 * 3 / 20)  # three of twenty classes occur
    assert results["AP75"] == results["AP50"]


def test_a_shortened_voc_is_measured_by_coco(tmp_path: Path) -> None:
    config = replace(write_voc(tmp_path), max_test_images=1)
    handle = register_dataset(config)
    assert handle.evaluator == "coco"
    assert evaluate(handle, tmp_path / "out", False)["bbox"]["AP"] == pytest.approx(100)


def test_voc_masks_under_cocos_evaluator(tmp_path: Path) -> None:
    config = write_voc(tmp_path, with_masks=("000001", "000003", "2008_000002"))
    handle = register_dataset(replace(config, voc=VocConfig(masks=True)))
    assert handle.evaluator == "coco"
    assert [each["image_id"] for each in dicts_of(handle.train)] == ["000001", "2008_000002"]
    results = evaluate(handle, tmp_path / "out", with_masks=True)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    # The object without a mask counts as crowd: neither trained on nor missed.
    assert np.isnan(results["bbox"]["AP-car"])
