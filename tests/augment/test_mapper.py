"""The mapper of the augmentations beside Detectron2's own, and how settings become one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BitMasks, PolygonMasks

from bgaug_d2.augment.affine import AffineTransform
from bgaug_d2.augment.build import build_mapper
from bgaug_d2.augment.copy_paste import CopyPaste
from bgaug_d2.augment.mapper import AugmentMapper
from bgaug_d2.config.comparison import (
    GEOMETRIC_OPS,
    AugmentConfig,
    CopyPasteConfig,
    RandAugmentConfig,
)
from bgaug_d2.data.register import register_dataset
from bgaug_d2.errors import ConfigError
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.loader import VisitedDataset, build_train_loader
from bgaug_d2.sampling.mapper import BackgroundAugMapper
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.training.loader import training_loader
from bgaug_d2.worker.painter_info import PainterInfo
from tests.helpers.dataset_dicts import annotation, coco_dicts, make_dict
from tests.helpers.factories import MODEL
from tests.helpers.index_loaders import sampler_of
from tests.helpers.mapper_setup import Setup
from tests.helpers.tool_runs import experiment_of, smoke

Sample = dict[str, Any]
NEVER = 1e-300  # a probability that copy-paste is built with but never pastes


def cfg_of(mask_on: bool = True, mask_format: str = "polygon", **sections: dict[str, Any]) -> Any:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = mask_on
    cfg.INPUT.MASK_FORMAT = mask_format
    cfg.INPUT.MIN_SIZE_TRAIN = (60,)
    cfg.INPUT.MAX_SIZE_TRAIN = 200
    for section, values in sections.items():
        for name, value in values.items():
            cfg[section][name] = value
    return cfg


def settings_of(num_ops: int = 0, p: float = 0.0, **options: Any) -> AugmentConfig:
    return AugmentConfig(RandAugmentConfig(num_ops, 10, **options), CopyPasteConfig(p))


def seeded(mapper: Callable[[Sample], Sample], one: Sample, seed: int = 0) -> Sample:
    np.random.seed(seed)
    return mapper(one)


def assert_same(ours: Sample, stock: Sample) -> None:
    assert set(ours) == set(stock)
    assert (ours["width"], ours["height"]) == (stock["width"], stock["height"])
    assert torch.equal(ours["image"], stock["image"])
    first, second = ours["instances"], stock["instances"]
    assert first.image_size == second.image_size
    assert set(first.get_fields()) == set(second.get_fields())
    assert torch.equal(first.gt_boxes.tensor, second.gt_boxes.tensor)
    assert torch.equal(first.gt_classes, second.gt_classes)
    if first.has("gt_masks"):
        assert isinstance(first.gt_masks, BitMasks)
        assert torch.equal(first.gt_masks.tensor, second.gt_masks.tensor)


@pytest.mark.parametrize("mask_on", [True, False])
def test_without_a_paste_a_sample_is_the_stock_mappers(mask_on: bool, tiny_coco_root: Path) -> None:
    """Masks are bitmaps all the same, so that a batch has one kind."""
    cfg = cfg_of(mask_on, "bitmask", INPUT={"RANDOM_FLIP": "none"})
    dicts = coco_dicts(tiny_coco_root)
    assert any(item["iscrowd"] for each in dicts for item in each["annotations"])
    ours, stock = build_mapper(cfg, settings_of(p=NEVER), dicts), DatasetMapper(cfg, True)
    crowds = [each for each in dicts if any(item["iscrowd"] for item in each["annotations"])]
    for one in [*dicts[:10], *crowds]:
        assert_same(ours(one), stock(one))


def test_masks_are_of_the_formats_asked_for(tmp_path: Path) -> None:
    one = make_dict(tmp_path, 1)
    for settings, expected in (
        (settings_of(), PolygonMasks),
        (settings_of(num_ops=1), PolygonMasks),
        (settings_of(p=1.0), BitMasks),
        (settings_of(p=NEVER), BitMasks),
        (settings_of(num_ops=1, p=NEVER), BitMasks),
    ):
        sample = build_mapper(cfg_of(), settings, [one])(one)
        assert type(sample["instances"].gt_masks) is expected
    paste = CopyPaste(CopyPasteConfig(p=1.0), [one], "BGR")
    with pytest.raises(ValueError, match="must be 'bitmask'"):
        AugmentMapper([], "BGR", True, "polygon", tight_boxes=False, copy_paste=paste)


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_boxes_are_tight_and_the_same_for_a_detector_of_boxes(
    mask_format: str, p: float, tiny_coco_root: Path
) -> None:
    dicts = coco_dicts(tiny_coco_root)[:6]
    settings = settings_of(num_ops=2, p=p, ops=list(GEOMETRIC_OPS))
    with_masks = build_mapper(cfg_of(True, mask_format), settings, dicts)
    without = build_mapper(cfg_of(False, mask_format), settings, dicts)
    for seed, one in enumerate(dicts):
        sample, boxes = seeded(with_masks, one, seed), seeded(without, one, seed)
        instances = sample["instances"]
        assert torch.equal(sample["image"], boxes["image"])
        expected = instances.gt_masks.get_bounding_boxes().tensor
        assert torch.equal(instances.gt_boxes.tensor, expected)
        assert not boxes["instances"].has("gt_masks")
        if type(instances.gt_masks) is BitMasks:
            assert torch.equal(boxes["instances"].gt_boxes.tensor, expected)
        assert (instances.gt_boxes.tensor >= 0).all()
        assert (instances.gt_boxes.tensor[:, 2] <= sample["image"].shape[2]).all()


def test_a_rotated_object_without_a_mask_has_the_box_of_its_rotated_box(tmp_path: Path) -> None:
    square = annotation(bbox=[6.0, 2.0, 20.0, 20.0], segmentation=[])
    one = {**make_dict(tmp_path, 1), "annotations": [square]}
    del square["segmentation"]
    rotation = T.RotationTransform(24, 32, 45, expand=False)
    mapper = AugmentMapper([rotation], "BGR", False, "bitmask", tight_boxes=True)
    (box,) = mapper(one)["instances"].gt_boxes.tensor
    # A diamond about (16, 12) with a half diagonal of 14.1, cut at 0 and 24 pixels of height.
    np.testing.assert_allclose(box, [2, 0, 30, 24], atol=1.01)


def shift(x: float) -> AffineTransform:
    return AffineTransform(np.array([[1, 0, x], [0, 1, 0]]), 24, 32)


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("use_masks", [True, False])
@pytest.mark.parametrize("augmentations", [[shift(20)], [shift(20), shift(-20)]])
def test_objects_that_leave_the_picture_are_gone(
    mask_format: str, use_masks: bool, augmentations: list[Any], tmp_path: Path
) -> None:
    right = annotation(2, bbox=[14, 2, 4, 6], segmentation=[[14, 2, 18, 2, 18, 8, 14, 8]])
    one = make_dict(tmp_path, 1)
    one["annotations"] = [{**right, "category_id": 5}, annotation(1, category_id=6)]
    mapper = AugmentMapper(augmentations, "BGR", use_masks, mask_format, tight_boxes=True)
    instances = mapper(one)["instances"]
    assert instances.gt_classes.tolist() == [6]
    x0, x1 = instances.gt_boxes.tensor[0, 0::2].tolist()
    assert (x0, x1) == ((24, 32) if len(augmentations) == 1 else (4, 12))
    only_right = {**one, "annotations": one["annotations"][:1]}
    empty = AugmentMapper([shift(40)], "BGR", use_masks, mask_format, tight_boxes=True)
    assert len(empty(only_right)["instances"]) == 0


def test_a_picture_without_objects(tmp_path: Path) -> None:
    """Where Detectron2's mapper fails, if it is to make boxes from masks."""
    one, other = make_dict(tmp_path, 1), make_dict(tmp_path, 2)
    for items in ([], [annotation(iscrowd=1)]):
        empty = {**one, "annotations": items}
        for settings in (settings_of(num_ops=2), settings_of(p=NEVER)):
            sample = build_mapper(cfg_of(), settings, [one])(empty)
            assert len(sample["instances"]) == 0
            assert sample["image"].shape == (3, 60, 80)
        onto_nothing = build_mapper(cfg_of(), settings_of(p=1.0), [empty, other])(empty)
        assert len(onto_nothing["instances"]) == 1


def test_the_input_is_not_changed(tmp_path: Path) -> None:
    """Not even arrays, which Detectron2's flips and resizes write into."""
    one = make_dict(tmp_path, 1)
    box = np.array(one["annotations"][0]["bbox"])
    polygon = np.array(one["annotations"][0]["segmentation"][0])
    one["annotations"] = [annotation(bbox=box, segmentation=[polygon]), annotation(2, iscrowd=1)]
    before = copy.deepcopy(one)
    cfg = cfg_of()
    for settings in (settings_of(num_ops=3), settings_of(num_ops=1, p=1.0), settings_of(p=NEVER)):
        mapper = build_mapper(cfg, settings, [one])
        for seed in range(4):
            seeded(mapper, one, seed)
    np.testing.assert_equal(one, before)


@pytest.mark.parametrize("settings", [settings_of(num_ops=1), settings_of(p=1.0)])
def test_an_unreadable_image_is_the_stock_mappers_error(
    settings: AugmentConfig, tmp_path: Path
) -> None:
    one = make_dict(tmp_path, 1)
    mapper, stock = build_mapper(cfg_of(), settings, [one]), DatasetMapper(cfg_of(), True)
    for broken, error in (
        ({**one, "file_name": str(tmp_path / "absent.png")}, FileNotFoundError),
        ({**one, "width": 33}, SizeMismatchError),
    ):
        for each in (mapper, stock):
            with pytest.raises(error):
                each(broken)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_loader_processes(num_workers: int, tmp_path: Path) -> None:
    dicts = [make_dict(tmp_path, index) for index in range(4)]
    mapper = build_mapper(cfg_of(), settings_of(num_ops=1, p=1.0), dicts)
    pickle.dumps(mapper)
    loader = build_train_loader(dicts, mapper, sampler_of(4), 2, num_workers, False)
    batches = iter(loader)
    samples = [each for _ in range(3) for each in next(batches)]
    assert {type(each["instances"].gt_masks) for each in samples} == {BitMasks}


def test_objects_go_onto_a_painted_background(tmp_path: Path) -> None:
    """The target is the painted copy, the donor an original."""
    setup = Setup(tmp_path)
    setup.paint()
    cfg = cfg_of(INPUT={"FORMAT": "RGB", "RANDOM_FLIP": "none", "MIN_SIZE_TRAIN": (24,)})
    mapper = setup.mapper(wrapped=build_mapper(cfg, settings_of(p=1.0), [setup.one]))
    sample = seeded(mapper, setup.draw)
    assert sample["bgaug"] == "hit"
    image = sample["image"].numpy().transpose(1, 2, 0)
    painted = (image == setup.picture).all(axis=2)
    pasted = sample["instances"].gt_masks.tensor[-1].numpy()
    assert len(sample["instances"]) >= 1
    np.testing.assert_array_equal(painted, ~pasted)


# --- build_mapper ---


def test_nothing_asked_for_is_detectron2s_own_mapper(tmp_path: Path) -> None:
    one = make_dict(tmp_path, 1)
    mapper = build_mapper(cfg_of(), AugmentConfig(), [one])
    assert type(mapper) is DatasetMapper
    ours, stock = seeded(mapper, one), seeded(DatasetMapper(cfg_of(), True), one)
    assert torch.equal(ours["image"], stock["image"])


def test_the_augmentations_of_cfg_come_after_ours(tmp_path: Path) -> None:
    cfg = cfg_of()
    cfg.INPUT.CROP.ENABLED = True
    mapper = build_mapper(cfg, settings_of(num_ops=2), [make_dict(tmp_path, 1)])
    names = [type(each).__name__ for each in mapper.augmentations.augs]  # type: ignore[attr-defined]
    assert names == ["RandAugment", "RandomCrop", "ResizeShortestEdge", "RandomFlip"]
    assert mapper.augmentations.augs[0].image_format == "BGR"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"MODEL": {"KEYPOINT_ON": True}}, "KEYPOINT_ON"),
        ({"MODEL": {"LOAD_PROPOSALS": True}}, "LOAD_PROPOSALS"),
        ({"MODEL": {"META_ARCHITECTURE": "PanopticFPN"}}, "semantic segmentation"),
        ({"INPUT": {"FORMAT": "YUV-BT.601"}}, "must be RGB or BGR"),
    ],
)
@pytest.mark.parametrize("settings", [settings_of(num_ops=1), settings_of(p=1.0)])
def test_what_is_not_supported_is_an_error(
    sections: dict[str, Any], message: str, settings: AugmentConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_mapper(cfg_of(**sections), settings, [make_dict(tmp_path, 1)])


def toy_loader(
    folder: Path, arm: str, *overrides: str, painter: PainterInfo | None = None
) -> CountedLoader:
    experiment = experiment_of(*smoke(folder, f"toy-{arm}", *overrides))
    handle = register_dataset(experiment.dataset)
    cfg = to_cfg(experiment, handle.train, handle.test, "cpu")
    return training_loader(cfg, experiment, painter)


@pytest.mark.parametrize(
    ("arm", "expected"),
    [("baseline", DatasetMapper), ("randaugment", AugmentMapper), ("copy_paste", AugmentMapper)],
)
def test_training_draws_augmented_samples(arm: str, expected: type, tmp_path: Path) -> None:
    p = ["augment.copy_paste.p=1"] if arm == "copy_paste" else []
    loader = toy_loader(tmp_path, arm, *p)
    assert type(mapper_in(loader)) is expected
    for each in next(iter(loader)):
        assert type(each["instances"].gt_masks) is BitMasks


def test_painted_backgrounds_are_augmented_too(tmp_path: Path) -> None:
    painter = PainterInfo(MODEL, "float32", str(tmp_path / "toy"))
    loader = toy_loader(tmp_path, "replace", "augment.copy_paste.p=0.5", painter=painter)
    wrapper = mapper_in(loader)
    assert type(wrapper) is BackgroundAugMapper
    assert type(wrapper.mapper) is AugmentMapper


def mapper_in(loader: CountedLoader) -> Any:
    batches: Any = loader.loader
    while not isinstance(batches, VisitedDataset):
        batches = batches.dataset
    return batches.mapper
