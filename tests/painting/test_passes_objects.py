"""Objects painted one by one: what changes, what stays, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.jobs.digests import canonical_json
from bgaug_d2.jobs.job import InpaintJob, JobObject
from bgaug_d2.painting.engine_interface import PaintRequest
from bgaug_d2.painting.finish import finish
from bgaug_d2.painting.passes import Finished, Prepared
from bgaug_d2.painting.prepare import SkipImage, prepare
from bgaug_d2.painting.sidecar import sidecar
from bgaug_d2.pixels import masks
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.pixels.object_masks import object_masks
from tests.helpers.factories import make_job, make_object, noise, source_of, write_image
from tests.helpers.tiny_models import drain, tiny_loaded

CREATED = "2026-01-02T03:04:05Z"
APART = (make_object((2, 2, 20, 16)), make_object((40, 20, 12, 20)))
CROWD = make_object((30, 0, 20, 24), iscrowd=True)


def object_job(source: Any, objects: Sequence[JobObject], **settings: Any) -> InpaintJob:
    prompts = ["" if each.iscrowd else f"object {place}" for place, each in enumerate(objects)]
    settings = {"target": "objects", "resolution": 64} | settings
    return make_job(source, objects, object_prompts=prompts, **settings)


def prepared(root: Path, objects: Sequence[JobObject], **settings: Any) -> Prepared:
    return prepare(object_job(write_image(root), objects, **settings), root)


def paint_all(
    ready: Prepared, paint: Callable[[PaintRequest], np.ndarray]
) -> tuple[list[PaintRequest], Prepared, Finished]:
    """All passes: the requests, the job before the last pass and what that gave."""
    requests = []
    while True:
        requests.append(ready.request())
        finished = finish(ready, paint(requests[-1]))
        assert finished.rejected is None
        following = ready.following(finished, 0)
        if following is None:
            return requests, ready, finished
        ready = following


def of_colours(request: PaintRequest) -> np.ndarray:
    """Pass n paints all of the square in the grey level n."""
    number = int(request.request_id.split("/")[1])
    return np.full_like(request.image, number)


def own(item: JobObject) -> np.ndarray:
    return object_masks([item], 48, 64, 1).object_mask


def with_engine(unet_channels: int) -> Callable[[PaintRequest], np.ndarray]:
    """A real model with random weights."""
    engine = Engine(tiny_loaded(unet_channels), max_batch_rows=2)

    def paint(request: PaintRequest) -> np.ndarray:
        engine.submit(request)
        (result,) = drain(engine).values()
        assert result.image is not None
        return result.image

    return paint


@pytest.mark.parametrize("unet_channels", [4, 9])
def test_a_real_model_changes_the_objects_and_nothing_else(
    tmp_path: Path, unet_channels: int
) -> None:
    objects = (*APART, CROWD, make_object((60, 44, 1, 1)))
    ready = prepared(tmp_path, objects, num_inference_steps=2)
    requests, last, finished = paint_all(ready, with_engine(unet_channels))
    assert [each.prompt for each in requests] == ["object 0", "object 1", "object 3"]
    painted = np.any([own(each) for each in (*APART, objects[3])], axis=0) & ~own(CROWD)
    changed = np.any(finished.image != ready.source, axis=2)
    assert not changed[~painted].any()
    assert changed[painted].mean() > 0.9
    assert changed[44, 60]
    assert finished.qc["object_changed_share"] > 0.5


def test_both_targets_paint_the_background_first(tmp_path: Path) -> None:
    settings = {"target": "objects_and_background", "num_inference_steps": 4}
    ready = prepared(tmp_path, [*APART, CROWD], **settings)
    background = prepare(make_job(ready.job.source, [*APART, CROWD], resolution=64), tmp_path)
    first = ready.request()
    np.testing.assert_array_equal(first.painted_mask, background.request().painted_mask)
    assert (first.touched_cells, first.prompt) == (False, "Generate a clean background")
    assert first.T_hat == ready.T_hat == 3  # 4 * (1 - 0.5 * ratio)
    requests, _, finished = paint_all(ready, with_engine(4))
    assert [each.T_hat for each in requests] == [3, 4, 4]
    union = ready.masks.object_mask
    np.testing.assert_array_equal(finished.image[own(CROWD)], ready.source[own(CROWD)])
    changed = np.any(finished.image != ready.source, axis=2)
    assert changed[~union].mean() > 0.9
    assert changed[union & ~own(CROWD)].mean() > 0.9


def test_each_pass_paints_on_the_one_before(tmp_path: Path) -> None:
    ready = prepared(tmp_path, APART)
    (first, second), last, finished = paint_all(ready, of_colours)
    np.testing.assert_array_equal(first.image, ready.request().image)
    assert (first.T_hat, second.T_hat) == (25, 25)
    assert first.touched_cells
    assert [each.request_id for each in (first, second)] == [
        f"{ready.job.key}/{number}/0" for number in (0, 1)
    ]
    assert first.seed != second.seed
    assert (last.canvas[own(APART[0])] == 0).all()
    assert second.image[10, 10].tolist() == [0, 0, 0]  # of the first object, at 64 x 64
    assert (finished.image[own(APART[1])] == 1).all()


def test_of_two_that_overlap_the_later_has_the_pixels(tmp_path: Path) -> None:
    objects = [make_object((4, 4, 20, 20)), make_object((14, 14, 20, 20))]
    image = paint_all(prepared(tmp_path, objects), of_colours)[2].image
    assert (image[own(objects[1])] == 1).all()
    assert (image[own(objects[0]) & ~own(objects[1])] == 0).all()
    image = paint_all(prepared(tmp_path, objects[::-1]), of_colours)[2].image
    assert (image[own(objects[0])] == 1).all()


def test_an_object_of_one_pixel_is_painted(tmp_path: Path) -> None:
    """Also where the square has fewer pixels than the image."""
    source = write_image(tmp_path)
    path = tmp_path / "train" / "wide.png"
    path.write_bytes(encode_picture(noise(300, 500), "png"))
    for each, resolution in ((source, 64), (source_of(path, tmp_path), 64)):
        job = object_job(each, [make_object((33, 21, 1, 1))], resolution=resolution)
        ready = prepare(job, tmp_path)
        request = ready.request()
        assert masks.touched_latent_mask(request.painted_mask, 8).sum() in (1, 2, 4)
        image = paint_all(ready, of_colours)[2].image
        assert np.argwhere(np.any(image != ready.source, axis=2)).tolist() == [[21, 33]]


def test_crowd_regions_stay_and_hide_objects(tmp_path: Path) -> None:
    within = make_object((32, 2, 4, 4))
    half = make_object((44, 10, 12, 12))
    ready = prepared(tmp_path, [within, CROWD, half])
    assert ready.passes == (2,)
    image = paint_all(ready, lambda request: np.zeros_like(request.image))[2].image
    np.testing.assert_array_equal(image[own(CROWD)], ready.source[own(CROWD)])
    assert (image[own(half) & ~own(CROWD)] == 0).all()


def test_rules_of_painted_objects(tmp_path: Path) -> None:
    source = write_image(tmp_path)
    within = make_object((32, 2, 4, 4))
    for objects in ([CROWD], [CROWD, within], []):
        with pytest.raises(SkipImage) as caught:
            prepare(object_job(source, objects), tmp_path)
        assert caught.value.reason == "no_objects"
    both = object_job(source, [CROWD], target="objects_and_background")
    assert prepare(both, tmp_path).passes == (None,)
    everything = [make_object((0, 0, 64, 48))]
    assert prepare(object_job(source, everything), tmp_path).passes == (0,)
    with pytest.raises(SkipImage, match="small_background"):
        prepare(object_job(source, everything, target="objects_and_background"), tmp_path)
    with pytest.raises(SkipImage, match="crowd"):
        prepare(object_job(source, [*APART, CROWD], crowd="skip_image"), tmp_path)


def test_a_flat_object_is_no_fault(tmp_path: Path) -> None:
    """Walked without a refusal above all; the share of changed pixels is recorded all the same."""
    ready = prepared(tmp_path, APART)
    unchanged = paint_all(ready, lambda request: request.image)[2]
    assert 0.0 <= unchanged.qc["object_changed_share"] <= 1.0
    assert paint_all(ready, of_colours)[2].qc["object_changed_share"] > 0.9


def test_sixty_objects(tmp_path: Path) -> None:
    objects = [make_object((x, y, 4, 4)) for y in range(0, 48, 8) for x in range(0, 60, 6)]
    requests, _, finished = paint_all(prepared(tmp_path, objects), of_colours)
    assert len({each.request_id for each in requests}) == len(objects) == 60
    for number, item in enumerate(objects):
        assert (finished.image[own(item)] == number).all()


def test_sidecar_names_the_passes(tmp_path: Path) -> None:
    ready = prepared(tmp_path, [*APART, CROWD], target="objects_and_background")
    job = ready.job
    background = finish(ready, noise(64, 64, 5))
    following = ready.following(background, 2)
    assert following is not None
    first = finish(following, noise(64, 64, 6))
    assert first.qc == {}
    last = following.following(first, 0)
    assert last is not None
    finished = finish(last, noise(64, 64, 7))
    assert last.following(finished, 1) is None
    record = sidecar(last, finished, 1, CREATED)
    canonical_json(record)
    assert record["seed"] == job.seed(2)
    assert record["object_passes"] == [
        {"object": 0, "prompt": "object 0", "seed": job.seed(0, 1)},
        {"object": 1, "prompt": "object 1", "seed": job.seed(1, 2)},
    ]
    assert record["recipe"]["settings"]["target"] == "objects_and_background"
    assert record["qc"] == background.qc | finished.qc
    assert set(finished.qc) == {"object_changed_share"}
    np.testing.assert_array_equal(
        masks.mask_from_rle(record["object_mask"]), ready.masks.object_mask
    )


BOXES = st.tuples(
    st.integers(0, 63), st.integers(0, 47), st.integers(1, 64), st.integers(1, 48), st.booleans()
)


@given(st.lists(BOXES, min_size=1, max_size=6))
def test_every_pixel_is_of_the_last_object_that_has_it_or_of_the_source(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[int, int, int, int, bool]]
) -> None:
    objects = [make_object(each[:4], iscrowd=each[4]) for each in boxes]
    root = tmp_path_factory.getbasetemp() / "any_objects"
    try:
        ready = prepared(root, objects)
    except SkipImage:
        expected = [own(each) for each in objects if not each.iscrowd]
        crowds = [own(each) for each in objects if each.iscrowd]
        assert not expected or not (np.any(expected, axis=0) & ~np.any(crowds, axis=0)).any()
        return
    expected_image = ready.source.copy()
    for number, index in enumerate(ready.passes):
        assert index is not None
        expected_image[own(objects[index]) & ~ready.crowd_mask] = number
    np.testing.assert_array_equal(paint_all(ready, of_colours)[2].image, expected_image)
