"""Background shares, how they are kept, and the data set of mode ``expand``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgaug_d2.cache import background_ratios as ratios_module
from bgaug_d2.cache.background_ratios import background_ratios
from bgaug_d2.cache.files import BACKGROUND_RATIOS
from bgaug_d2.cache.store import VariantCache
from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import AnnotationError, CacheError
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.object_masks import object_masks
from bgaug_d2.sampling.expand import eligible, expand_dataset
from tests.helpers.dataset_dicts import annotation, bare_dicts, coco_dicts


def boxed(width: float, image_id: int = 1, **fields: Any) -> dict[str, Any]:
    """An image of 10 x 20 pixels with one object of the full height."""
    item = annotation(image_id, bbox=[0.0, 0.0, width, 10.0], segmentation=None, **fields)
    return {
        "file_name": f"{image_id}.png",
        "image_id": image_id,
        "height": 10,
        "width": 20,
        "annotations": [item],
    }


def test_ratio_is_the_share_of_background() -> None:
    empty = {**boxed(5), "annotations": []}
    unlabelled = {name: value for name, value in empty.items() if name != "annotations"}
    dicts = [boxed(5), boxed(20), empty, unlabelled]
    assert background_ratios(dicts, None) == [0.75, 0.0, 1.0, 1.0]


def test_crowd_is_no_background() -> None:
    one = boxed(5)
    one["annotations"].append(annotation(2, bbox=[10, 0, 10, 10], segmentation=None, iscrowd=1))
    assert background_ratios([one], None) == [0.25]


def test_real_images(tiny_coco_root: Path, tmp_path: Path) -> None:
    dicts = coco_dicts(tiny_coco_root)
    found = background_ratios(dicts, str(tmp_path))
    for each, ratio in zip(dicts, found, strict=True):
        objects = objects_from_annotations(each["annotations"], each["image_id"])
        masks = object_masks(objects, each["height"], each["width"], each["image_id"])
        assert ratio == pytest.approx(1 - masks.object_mask.mean())
    assert 0.2 < float(np.mean(found)) < 0.9
    assert background_ratios(dicts, str(tmp_path)) == found


def test_a_broken_annotation_is_named() -> None:
    with pytest.raises(AnnotationError, match="image 3, annotation 3"):
        background_ratios([boxed(5), boxed(-5, image_id=3)], None)


class Computed:
    """Counts for how many images ratios were computed."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, dataset_dicts: Any) -> Any:
        self.images += len(dataset_dicts)
        return iter(dataset_dicts)


def test_ratios_are_kept_until_something_changes(tmp_path: Path) -> None:
    computed = Computed()
    dicts = [boxed(5, 1), boxed(8, 2)]

    def ratios(*chosen: dict[str, Any]) -> list[float]:
        return background_ratios(chosen, str(tmp_path), computed)

    assert ratios(*dicts) == ratios(*dicts) == [0.75, 0.6]
    assert computed.images == 2
    assert ratios(*reversed(dicts)) == [0.6, 0.75]  # another order is another input
    assert computed.images == 4
    assert ratios({**dicts[0], "width": 40}, dicts[1]) == [0.875, 0.6]
    dicts[0]["annotations"][0]["bbox"][2] = 6.0
    assert ratios(*dicts) == [0.7, 0.6]
    assert computed.images == 8
    assert ratios(dicts[0]) == [0.7]


def test_they_do_not_get_in_the_way_of_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    background_ratios([boxed(5)], str(folder))  # before the cache is first opened
    cache = VariantCache(str(folder))
    assert cache.reject("ab" * 32, "flat", {})
    assert len(list(cache.entries())) == 1
    cache.gc(max_bytes=1, temp_age_s=0, grace_s=0)
    computed = Computed()
    assert background_ratios([boxed(5)], str(folder), computed) == [0.75]
    assert computed.images == 0


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CacheError, match=r"thesis\.tex"):
        background_ratios([boxed(5)], str(tmp_path))


def kept_file(folder: Path) -> Path:
    (path,) = (folder / BACKGROUND_RATIOS).iterdir()
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-5],
        lambda content: content.replace(b"0.75", b"0.25"),
        lambda content: content.replace(b"0.75", b'"x"'),
        lambda content: content.replace(b"0.75", b"NaN"),
        lambda content: json.dumps({**json.loads(content), "ratios": [0.75, 0.75]}).encode(),
        lambda content: json.dumps({**json.loads(content), "digest": "ab"}).encode(),
        lambda content: b"[1, 2]",
        lambda content: b"\xff" + content,
    ],
)
def test_a_damaged_file_is_computed_anew(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dicts = [boxed(5)]
    background_ratios(dicts, str(tmp_path))
    path = kept_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert background_ratios(dicts, str(tmp_path)) == [0.75]
    assert path.name in caplog.text
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    VariantCache(str(tmp_path))

    def full(contents: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ratios_module, "write_atomically", full)
    assert background_ratios([boxed(5)], str(tmp_path)) == [0.75]
    assert "No space left" in caplog.text


def test_eligible_images() -> None:
    crowd = boxed(5)
    crowd["annotations"].append(annotation(2, iscrowd=1))
    dicts = [boxed(5), boxed(19.5), {**boxed(5), "annotations": []}, crowd]
    ratios = [0.75, 0.025, 1.0, 0.75]
    assert eligible(dicts, ratios, RecipeConfig()) == [True, False, False, True]
    assert eligible(dicts, ratios, RecipeConfig(crowd="skip_image"))[3] is False
    assert eligible(dicts, ratios, RecipeConfig(min_background=0.0))[1] is True
    assert eligible(dicts, ratios, RecipeConfig(target="objects")) == [True, True, False, True]
    with pytest.raises(ValueError, match="3 ratios for 4 images"):
        eligible(dicts, ratios[:3], RecipeConfig())


def copies(expanded: list[dict[str, Any]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for each in expanded:
        found.setdefault(each["image_id"], []).append(each["bgaug_variant"])
    return found


def test_uniform_expansion() -> None:
    dicts = [boxed(5, 1), boxed(8, 2), {**boxed(5, 3), "annotations": []}, boxed(19.5, 4)]
    ratios = background_ratios(dicts, None)
    expanded = expand_dataset(dicts, BgAugConfig(mode="expand", alpha=2), ratios)
    assert copies(expanded) == {1: [0, 1, 2], 2: [0, 1, 2], 3: [0], 4: [0]}
    assert [each["image_id"] for each in expanded[:4]] == [1, 2, 3, 4]
    assert "bgaug_variant" not in dicts[0]
    assert expanded[4]["annotations"] is dicts[0]["annotations"]  # no second copy in memory


def test_nonuniform_expansion_has_the_same_total() -> None:
    dicts = [boxed(2, 1), boxed(10, 2), boxed(18, 3), {**boxed(5, 4), "annotations": []}]
    ratios = background_ratios(dicts, None)  # 0.9, 0.5, 0.1, 1.0
    settings = BgAugConfig(mode="expand", alpha=5, weighting="nonuniform")
    expanded = expand_dataset(dicts, settings, ratios)
    assert copies(expanded) == {
        1: [0, *range(1, 10)],
        2: [0, *range(1, 6)],
        3: [0, 1],
        4: [0],
    }
    uniform = expand_dataset(dicts, BgAugConfig(mode="expand", alpha=5), ratios)
    assert len(expanded) == len(uniform)


def test_expansion_of_real_images(tiny_coco_root: Path) -> None:
    dicts = coco_dicts(tiny_coco_root)
    ratios = background_ratios(dicts, None)
    settings = BgAugConfig(mode="expand", alpha=3, weighting="nonuniform")
    expanded = expand_dataset(dicts, settings, ratios)
    chosen = eligible(dicts, ratios, settings.recipe)
    assert len(expanded) == len(dicts) + 3 * sum(chosen)
    counts = Counter(each["image_id"] for each in expanded)
    order = np.argsort([ratio if ok else -1 for ratio, ok in zip(ratios, chosen, strict=True)])
    ranked = [counts[dicts[index]["image_id"]] for index in order]
    assert ranked == sorted(ranked)


def test_expanding_an_unlabelled_data_set() -> None:
    assert len(expand_dataset(bare_dicts(4), BgAugConfig(mode="expand"), [1.0] * 4)) == 4
