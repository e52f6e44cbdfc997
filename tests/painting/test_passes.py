"""One job before and after the model, on noise and on real images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgaug_d2.config.recipe import QualityConfig
from bgaug_d2.errors import AnnotationError, ImageError
from bgaug_d2.jobs.digests import canonical_json
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.painting.finish import finish
from bgaug_d2.painting.passes import Prepared
from bgaug_d2.painting.prepare import SKIP_REASONS, SkipImage, prepare
from bgaug_d2.painting.quality import REJECT_REASONS
from bgaug_d2.painting.sidecar import job_sidecar, sidecar
from bgaug_d2.pixels import masks
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.pixels.read import decode_image, read_image
from tests.helpers.factories import (
    make_job,
    make_object,
    noise,
    objects_of,
    source_of,
    tiny_coco,
    write_image,
)

CREATED = "2026-01-02T03:04:05Z"


def prepared(root: Path, height: int = 48, width: int = 64, **settings: Any) -> Prepared:
    """Noise with one object, 16 x 12 at (8, 8), painted at 64."""
    source = write_image(root, height, width)
    return prepare(make_job(source, **{"resolution": 64} | settings), root)


def test_prepare(tmp_path: Path) -> None:
    ready = prepared(tmp_path)
    np.testing.assert_array_equal(ready.source, noise(48, 64))
    assert ready.masks.object_mask.sum() == 16 * 12
    assert ready.background_ratio == 1 - 16 * 12 / (48 * 64)
    assert ready.T_hat == 13  # 25 * (1 - 0.5 * 0.9375) = 13.28
    kept = ~ready.background_mask
    assert kept.shape == (64, 64)
    assert np.argwhere(kept).min(axis=0).tolist() == [10 - 3, 8 - 3]  # rows are 48 -> 64
    assert np.argwhere(kept).max(axis=0).tolist() == [26 + 3, 23 + 3]


def test_requests(tmp_path: Path) -> None:
    ready = prepared(tmp_path, negative_prompt="people", guidance_scale=3)
    first, second = ready.request(), ready.request(attempt=1)
    assert first.request_id == f"{ready.job.key}/0/0"
    assert second.request_id == f"{ready.job.key}/0/1"
    assert first.seed == ready.job.seed(0) != second.seed
    assert first.image.shape == (64, 64, 3)
    assert first.image.dtype == np.uint8
    np.testing.assert_array_equal(first.image, second.image)
    assert (first.prompt, first.T_hat) == ("Generate a clean background", ready.T_hat)
    assert first.settings == ready.job.recipe.settings.diffusion
    assert (first.settings.negative_prompt, first.settings.guidance_scale) == ("people", 3.0)
    assert first.settings.num_inference_steps == 25
    assert first.settings.timestep_spacing == "linspace"


def test_squashing_keeps_places_and_colours(tmp_path: Path) -> None:
    """Large shrinking must average: sampling would alias the stripes into a flat picture."""
    stripes = np.zeros((600, 900, 3), dtype=np.uint8)
    stripes[::2] = 200
    stripes[:300, :, 0] = 255
    (tmp_path / "1.png").write_bytes(encode_picture(stripes, "png"))
    job = make_job(source_of(tmp_path / "1.png", tmp_path), resolution=64)
    image = prepare(job, tmp_path).request().image.astype(int)
    assert np.abs(image[:, :, 1] - 100).max() <= 10
    assert image[:31, :, 0].min() == 255
    assert np.abs(image[33:, :, 0] - 100).max() <= 10


def skipped(job: InpaintJob, root: Path) -> str:
    with pytest.raises(SkipImage) as caught:
        prepare(job, root)
    assert str(job.source.image_id) in str(caught.value)
    assert caught.value.reason in SKIP_REASONS
    return caught.value.reason


def test_images_that_are_skipped_by_rule(tmp_path: Path) -> None:
    source = write_image(tmp_path)
    crowd = make_object(iscrowd=True)
    nearly_all = make_object((0, 0, 64, 47))
    gaps = [make_object((x, 0, 2, 48)) for x in range(0, 64, 6)]  # all gone after erosion
    assert skipped(make_job(source, []), tmp_path) == "no_objects"
    assert skipped(make_job(source, [crowd], crowd="skip_image"), tmp_path) == "crowd"
    assert skipped(make_job(source, [nearly_all]), tmp_path) == "small_background"
    assert skipped(make_job(source, gaps, resolution=64), tmp_path) == "small_background"
    prepare(make_job(source, [crowd]), tmp_path)
    prepare(make_job(source, [nearly_all], min_background=0.01, erosion_kernel=1), tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sha256": "0" * 64}, "has SHA-256 .* the file has changed"),
        ({"num_bytes": 7}, "has .* bytes, not 7"),
        ({"height": 64, "width": 48}, "is 64 x 48 pixels, the data set says 48 x 64"),
        ({"file_name": "train/none.png"}, "No such file"),
        ({"file_name": "../0.png"}, "without '..'"),
    ],
)
def test_a_file_that_is_not_the_jobs(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    source = replace(write_image(tmp_path), **change)
    with pytest.raises(ImageError, match=fault):
        prepare(make_job(source), tmp_path)


def test_a_broken_annotation_is_named(tmp_path: Path) -> None:
    outside = make_object((100, 100, 5, 5), annotation_id=77)
    with pytest.raises(AnnotationError, match="annotation 77"):
        prepare(make_job(write_image(tmp_path), [make_object(), outside]), tmp_path)


def test_finish_puts_the_objects_back(tmp_path: Path) -> None:
    ready = prepared(tmp_path)
    finished = finish(ready, noise(64, 64, seed=5))
    object_mask = ready.masks.object_mask
    assert finished.rejected is None
    assert finished.image.shape == (48, 64, 3)
    np.testing.assert_array_equal(finished.image[object_mask], ready.source[object_mask])
    assert (finished.image[~object_mask] != ready.source[~object_mask]).mean() > 0.9
    assert set(finished.qc) == {"background_std", "changed_share", "object_drift"}
    assert float(finished.qc["object_drift"]) > 10
    assert {type(value) for value in finished.qc.values()} == {float}
    assert type(ready.background_ratio) is float
    again = decode_image(encode_picture(finished.image, "png"), "png")
    np.testing.assert_array_equal(again[object_mask], ready.source[object_mask])


def test_paste_back_can_be_off(tmp_path: Path) -> None:
    """The paper-faithful arm keeps what the model's autoencoder makes of the objects."""
    ready = prepared(tmp_path, 64, 64, paste_back=False)
    painted = noise(64, 64, seed=5)
    np.testing.assert_array_equal(finish(ready, painted).image, painted)


def test_a_square_of_the_images_size_is_not_resampled(tmp_path: Path) -> None:
    ready = prepared(tmp_path, 64, 64)
    np.testing.assert_array_equal(ready.request().image, ready.source)
    painted = noise(64, 64, seed=5)
    background = ~ready.masks.object_mask
    np.testing.assert_array_equal(finish(ready, painted).image[background], painted[background])


def painted_with(ready: Prepared, value: Any) -> np.ndarray:
    """The source square with ``value`` on what is painted."""
    painted = ready.request().image.copy()
    painted[ready.background_mask] = value
    return painted


def test_a_flat_picture_is_rejected(tmp_path: Path) -> None:
    """Also in colour: its values differ between channels, not between pixels."""
    ready = prepared(tmp_path, 64, 64)
    for value in (0, 128, (255, 0, 90)):
        finished = finish(ready, painted_with(ready, value))
        assert finished.rejected == "flat"
        assert finished.qc["background_std"] == 0.0
        assert finished.qc["object_drift"] == 0.0


def test_what_the_figures_mean(tmp_path: Path) -> None:
    """Half the painted pixels at 100, half at 120, in one channel: deviations 10, 0 and 0."""
    ready = prepared(tmp_path, 64, 64)
    places = np.argwhere(ready.background_mask)
    painted = painted_with(ready, 100)
    for row, column in places[: len(places) // 2]:
        painted[row, column, 0] = 120
    qc = finish(ready, painted).qc
    assert qc["background_std"] == pytest.approx(10 / 3, rel=1e-4)
    within = ready.background_mask
    differs = np.any(np.abs(painted.astype(int) - ready.source) > 4, axis=2)
    assert qc["changed_share"] == differs[within].mean()
    shifted = np.where(ready.source > 127, ready.source - 30, ready.source + 30).astype(np.uint8)
    assert finish(ready, shifted).qc["object_drift"] == 30.0


def test_an_unchanged_picture_is_rejected(tmp_path: Path) -> None:
    ready = prepared(tmp_path, 64, 64)
    finished = finish(ready, ready.source)
    assert (finished.rejected, finished.qc["changed_share"]) == ("unchanged", 0.0)
    nearly = np.clip(ready.source.astype(int) + 4, 0, 255).astype(np.uint8)
    assert finish(ready, nearly).rejected == "unchanged"
    more = np.where(ready.source > 127, ready.source - 5, ready.source + 5).astype(np.uint8)
    finished = finish(ready, more)
    assert (finished.rejected, finished.qc["changed_share"]) == (None, 1.0)
    assert finished.qc["object_drift"] == 5.0


def test_a_change_in_one_channel_is_a_change(tmp_path: Path) -> None:
    ready = prepared(tmp_path, 64, 64)
    painted = ready.source.copy()
    painted[:, :, 2] ^= 128
    assert finish(ready, painted).qc["changed_share"] == 1.0


def test_thresholds_are_settings(tmp_path: Path) -> None:
    quality = QualityConfig(min_std=0, min_changed=0)
    ready = prepared(tmp_path, 64, 64, quality=quality)
    assert finish(ready, ready.source).rejected is None
    ready = prepared(tmp_path, 64, 64, quality=QualityConfig(min_std=128))
    assert finish(ready, noise(64, 64, 5)).rejected == "flat"
    assert {"flat", "unchanged"} == set(REJECT_REASONS)


@pytest.mark.parametrize(
    "painted",
    [noise(64, 63), noise(32, 32), noise(64, 64)[:, :, :1], noise(64, 64).astype(np.float32)],
)
def test_what_is_no_painted_square_is_refused(painted: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not uint8 \(64, 64, 3\)"):
        finish(prepared(tmp_path), painted)


def test_sidecar(tmp_path: Path) -> None:
    ready = prepared(tmp_path)
    record = sidecar(ready, finish(ready, noise(64, 64, 5)), attempt=2, created=CREATED)
    canonical_json(record)
    job = ready.job
    assert record["key"] == job.key
    assert record["schema"] == 3
    assert record["seed"] == job.seed(2)
    assert record["created"] == CREATED
    assert record["source"] == {
        "file_name": "train/0.png",
        "sha256": job.source.sha256,
        "image_id": 0,
        "height": 48,
        "width": 64,
    }
    assert record["objects"] == {"polygon": 0, "rle": 0, "compressed_rle": 0, "box": 1}
    object_mask = masks.mask_from_rle(record["object_mask"])
    np.testing.assert_array_equal(object_mask, ready.masks.object_mask)
    assert record["model"] == {
        "id": "tiny",
        "revision": "",
        "sha256": "ab" * 32,
        "license": "Apache-2.0",
    }
    assert record["recipe"]["settings"]["resolution"] == 64
    assert (record["recipe"]["dtype"], record["variant"]) == ("float32", 1)
    assert (record["T_hat"], record["background_ratio"]) == (13, ready.background_ratio)
    assert record["object_passes"] == []
    assert set(record["qc"]) == {"background_std", "changed_share", "object_drift"}
    assert not {"sha256", "file", "digest", "rejected"} & set(record)


def test_sidecar_of_what_was_not_painted(tmp_path: Path) -> None:
    job = make_job()
    record = job_sidecar(job, 0, CREATED)
    canonical_json(record)
    ready = prepared(tmp_path)
    full = sidecar(ready, finish(ready, noise(64, 64)), 0, CREATED)
    assert set(full) - set(record) == {
        "objects",
        "object_mask",
        "T_hat",
        "background_ratio",
        "object_passes",
        "qc",
    }


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_real_images_from_end_to_end(step: int, tiny_coco_root: Path) -> None:
    """Object pixels of the PNG equal what the reader gives, bit for bit, of the JPEG nearly."""
    painted, errors = noise(512, 512), []
    for record, annos, path in list(tiny_coco(tiny_coco_root))[::step]:
        job = make_job(source_of(path, tiny_coco_root), objects_of(annos, record["id"]))
        if not annos:
            assert skipped(job, tiny_coco_root) == "no_objects"
            continue
        ready = prepare(job, tiny_coco_root)
        finished = finish(ready, painted)
        assert finished.rejected is None
        copy = decode_image(encode_picture(finished.image, "png"), path)
        object_mask = ready.masks.object_mask
        source = read_image(path)
        np.testing.assert_array_equal(copy[object_mask], source[object_mask])
        jpeg = decode_image(encode_picture(finished.image, "jpeg"), path)
        error = np.abs(jpeg.astype(int) - source)[object_mask]
        assert error.mean() <= 3.0
        errors.append(error.mean())
        assert not masks.latent_background_mask(ready.background_mask, 8).all()
        assert 13 <= ready.T_hat <= 25
    assert np.mean(errors) <= 1.5
