"""The mapper around Detectron2's own: nothing differs but the pixels, and it costs little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from PIL import Image

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.sampling.mapper import BackgroundAugMapper
from tests.helpers.dataset_dicts import coco_dicts, make_planner, paint
from tests.helpers.mapper_setup import Sample, Setup


def detectron2_mapper(**options: Any) -> Callable[[Sample], Sample]:
    augmentations = [T.RandomFlip(), T.ResizeShortestEdge([64, 96], 128, "choice")]
    mapper: Callable[[Sample], Sample] = DatasetMapper(
        True, augmentations=augmentations, image_format="BGR", **options
    )
    return mapper


def seeded(mapper: Callable[[Sample], Sample], draw: Sample) -> Sample:
    np.random.seed(0)
    return mapper(draw)


def test_detectron2s_mapper_sees_nothing_but_other_pixels(
    tmp_path: Path, tiny_coco_root: Path
) -> None:
    stock = detectron2_mapper(use_instance_mask=True)
    planner = make_planner(tiny_coco_root, variants=1)
    cache = VariantCache(str(tmp_path))
    mapper = BackgroundAugMapper(stock, planner, cache, None, "error", 1.0)
    dicts = [each for each in coco_dicts(tiny_coco_root) if not _only_crowd(each)][:8]
    for each in dicts:
        paint(cache, planner.plan_variant(each, 1).job(), tiny_coco_root)
        draw = {**each, "bgaug_visit": 0}
        plain, shown = seeded(stock, draw), seeded(mapper, draw)
        assert shown["bgaug"] == "hit"
        assert set(shown) == set(plain) | {"bgaug", "bgaug_source"}
        assert (shown["height"], shown["width"]) == (plain["height"], plain["width"])
        assert shown["image"].shape == plain["image"].shape
        # The stand-in inverts colours, and resizing an inverted picture rounds the other way.
        difference = (255 - shown["image"].int() - plain["image"].int()).abs()
        assert difference.max() <= 1
        first, second = plain["instances"], shown["instances"]
        assert (first.gt_boxes.tensor == second.gt_boxes.tensor).all()
        assert (first.gt_classes == second.gt_classes).all()
        for ours, theirs in zip(second.gt_masks.polygons, first.gt_masks.polygons, strict=True):
            assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))


def _only_crowd(dataset_dict: Sample) -> bool:
    return all(each["iscrowd"] for each in dataset_dict["annotations"])


def test_semantic_labels_stay_those_of_the_source(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.paint()
    labels = setup.root / "labels.png"
    Image.fromarray(np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)).save(labels)
    draw = {**setup.draw, "sem_seg_file_name": str(labels)}
    stock = detectron2_mapper()
    plain, shown = seeded(stock, draw), seeded(setup.mapper("error", None, stock), draw)
    assert shown["bgaug"] == "hit"
    assert (shown["sem_seg"] == plain["sem_seg"]).all()
    assert not (shown["image"] == plain["image"]).all()
