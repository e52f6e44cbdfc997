"""The whole way on real COCO images: painted by the tool, judged here, trained on by the tool.

The tiny model knows the toy world only: what is tested is which pixels it may touch, not what it
paints.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bgaug_d2.cache.store import CacheEntry, Rejection, VariantCache
from bgaug_d2.config.recipe import QualityConfig, RecipeConfig
from bgaug_d2.pixels.masks import background_ratio, erode_background
from bgaug_d2.pixels.object_masks import object_masks
from bgaug_d2.pixels.read import read_image
from tests.helpers.factories import objects_of, tiny_coco

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_coco_root: Path) -> VariantCache:
    """One variant of each of the 50 training images, painted by `bgaug paint`."""
    folder = tmp_path_factory.mktemp("tiny_coco")
    run_tool("generate.py", tiny_coco_root, folder, "benchmark=tiny_coco", "arm=replace")
    return VariantCache(str(folder / "cache"))


def run_tool(name: str, data: Path, folder: Path, *arguments: str) -> str:
    common = [
        f"dataset.root={data}",
        f"bgaug.cache.dir={folder / 'cache'}",
        f"output_dir={folder / 'run'}",
        "bgaug.variants=1",
    ]
    command = [sys.executable, TOOLS / name, *arguments, *common]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_every_training_image_is_painted_or_skipped_by_rule(
    cache: VariantCache, tiny_coco_root: Path
) -> None:
    expected = Counter(reason for *_, reason in training_images(tiny_coco_root))
    painted = [each for each in cache.entries() if isinstance(each, CacheEntry)]
    refused = Counter(each.reason for each in cache.entries() if isinstance(each, Rejection))
    assert len(painted) == expected.pop("painted")
    # Images without objects never become a job.
    expected.pop("no_objects", None)
    assert refused == expected


def test_objects_and_crowds_are_bit_identical_and_the_background_is_not(
    cache: VariantCache, tiny_coco_root: Path
) -> None:
    images = {record_id: rest for record_id, *rest in training_images(tiny_coco_root)}
    kernel = RecipeConfig().erosion_kernel
    threshold = QualityConfig().changed_threshold
    crowds = 0
    for entry in cache.entries():
        if not isinstance(entry, CacheEntry):
            continue
        source, found, _ = images[entry.sidecar["source"]["image_id"]]
        picture = read_image(entry.path)
        assert picture.shape == source.shape
        assert (picture[found.object_mask] == source[found.object_mask]).all()
        crowds += found.num_crowd
        # The rim: k pixels of the painted square and the cells of its latent grid that it cuts.
        scale = max(source.shape[:2]) / entry.sidecar["recipe"]["settings"]["resolution"]
        rim = 2 * round(scale * (kernel + 8) / 2) + 1
        outside = erode_background(~found.object_mask, 2 * (rim // 2) + 1)
        changed = (np.abs(picture.astype(int) - source) > threshold).any(axis=2)
        if outside.any():
            assert changed[outside].mean() >= 0.9, entry.sidecar["source"]["file_name"]
    assert crowds > 0


@pytest.mark.parametrize("arm", ["replace", "expand"])
def test_mask_rcnn_trains_on_the_pictures_and_results_agree_with_the_log(
    arm: str, cache: VariantCache, tiny_coco_root: Path
) -> None:
    folder = Path(cache.root).parent
    small = [
        "launch.device=cpu",
        "detector=toy_mask_rcnn",  # from scratch: no weights have to be fetched
        "+detector.opts.MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.0",  # few steps, faint predictions
        "schedule.iterations=12",
        "schedule.images_per_batch=2",
        "schedule.warmup_iters=0",
        "schedule.lr_drops=[]",
        "bgaug.on_miss=error",
        "schedule.num_workers=1",
    ]
    log = run_tool(
        "train_net.py", tiny_coco_root, folder, "benchmark=tiny_coco", f"arm={arm}", *small
    )
    results = json.loads((folder / "run" / "results.json").read_text())
    assert results["iterations"] == 12
    assert sum(results["outcomes"].values()) == 24
    assert results["outcomes"]["hit"] > 0
    assert results["outcomes"]["miss"] == 0
    assert set(results["metrics"]) == {"bbox", "segm"}
    logged = re.findall(r"copypaste: ([\d.,nan]+)$", log, re.MULTILINE)
    for task, line in zip(("bbox", "segm"), logged, strict=True):
        values = [results["metrics"][task][name] for name in ("AP", "AP50", "AP75")]
        for value, text in zip(values, line.split(",")[:3], strict=True):
            assert text == "nan" if value is None else abs(value - float(text)) < 5e-5


def training_images(root: Path) -> Iterator[tuple]:
    """Of each image: id, pixels, masks, and what has to become of it."""
    settings = RecipeConfig()
    for record, items, path in tiny_coco(root):
        if path.parent.name != "train2017":
            continue
        source = read_image(path)
        objects = objects_of(items, record["id"])
        found = object_masks(objects, *source.shape[:2], record["id"])
        reason = "painted"
        # Detectron2 trains on images with at least one object that is no crowd.
        if not any(not each["iscrowd"] for each in items):
            reason = "no_objects"
        elif background_ratio(found.object_mask) < settings.min_background:
            reason = "small_background"
        yield record["id"], source, found, reason
