"""Gallery: one safe file, from a cache alone or with its sources."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.inspection.gallery import CAPTION, CELL, collect, write_contact_sheet, write_page
from bgaug_d2.inspection.recipes import target_of
from bgaug_d2.painting.finish import finish
from bgaug_d2.painting.prepare import prepare
from bgaug_d2.painting.sidecar import job_sidecar, sidecar
from bgaug_d2.pixels.encode import encode_picture
from tests.helpers.factories import make_job, noise, source_of
from tests.helpers.tool_runs import bgaug

CREATED = "2026-01-01T00:00:00+00:00"
HOSTILE = "<img src=x onerror=alert(1)>.png"


def fill(root: Path, cache: VariantCache, names: list[str], **settings: Any) -> None:
    """Two variants of each image and one refusal."""
    for number, name in enumerate(names):
        root.mkdir(exist_ok=True)
        (root / name).write_bytes(encode_picture(noise(48, 64, number), "png"))
        source = source_of(root / name, root, number)
        for variant in (2, 1):
            job = make_job(source, variant=variant, resolution=64, **settings)
            prepared = prepare(job, root)
            finished = finish(prepared, noise(64, 64, 100 + variant))
            while (following := prepared.following(finished, 0)) is not None:
                prepared, finished = following, finish(following, noise(64, 64, 200 + variant))
            record = sidecar(prepared, finished, 0, CREATED)
            assert cache.put(job.key, encode_picture(finished.image, "png"), record)
        job = make_job(source, variant=3)
        assert cache.reject(job.key, "flat", job_sidecar(job, 0, CREATED))


@pytest.fixture
def cache(tmp_path: Path) -> VariantCache:
    return VariantCache(str(tmp_path / "cache"))


def test_rows_hold_original_outline_and_ordered_variants(
    tmp_path: Path, cache: VariantCache
) -> None:
    fill(tmp_path / "data", cache, ["b.png", "a.png"])
    gallery = collect(cache, str(tmp_path / "data"), max_images=5, max_variants=5)
    assert [row.file_name for row in gallery.rows] == ["a.png", "b.png"]
    assert gallery.rejections == {"flat": 2}
    assert gallery.pictures == 4
    row = gallery.rows[0]
    assert [each.sidecar["variant"] for each in row.variants] == [1, 2]
    assert row.original is not None
    np.testing.assert_array_equal(row.original, noise(48, 64, 1))
    drawn = (row.outline != row.original).any(axis=2)
    assert drawn[8, 8:24].all()  # the upper edge of the factory's box, (8, 8, 16, 12)
    assert not drawn[24:].any()


def test_without_sources_the_outline_is_drawn_on_a_variant(
    tmp_path: Path, cache: VariantCache
) -> None:
    fill(tmp_path / "data", cache, ["a.png"])
    (row,) = collect(cache, None, 5, 5).rows
    assert row.original is None
    np.testing.assert_array_equal(row.outline[30:], row.variants[0].image[30:])


def test_page_is_one_safe_file(tmp_path: Path, cache: VariantCache) -> None:
    fill(tmp_path / "data", cache, [HOSTILE])
    page = tmp_path / "index.html"
    write_page(collect(cache, str(tmp_path / "data"), 5, 5), page, "<b>title</b>")
    html = page.read_text()
    assert "&lt;img src=x" in html
    assert "<b>title" not in html
    assert "<script" not in html
    assert "default-src 'none'" in html
    sources = re.findall(r'(?:src|href)="?([^" >]{0,22})', html.replace(HOSTILE, ""))
    assert set(sources) - {"x"} == {"data:image/jpeg;base64"[:22]}


def test_page_does_not_claim_bit_exact_objects_without_paste_back(
    tmp_path: Path, cache: VariantCache
) -> None:
    fill(tmp_path / "data", cache, ["a.png"], paste_back=False)
    page = tmp_path / "index.html"
    write_page(collect(cache, None, 5, 5), page, "t")
    assert "paste_back is off" in page.read_text()


def test_recipes_of_one_cache_are_told_apart(tmp_path: Path, cache: VariantCache) -> None:
    page = tmp_path / "index.html"
    fill(tmp_path / "data", cache, ["a.png"])
    write_page(collect(cache, None, 5, 5), page, "t")
    assert "erosion_kernel" not in page.read_text()
    fill(tmp_path / "data", cache, ["a.png"], erosion_kernel=1)
    gallery = collect(cache, None, 5, 5)
    assert gallery.differing == ["erosion_kernel"]
    write_page(gallery, page, "t")
    assert "erosion_kernel 1<" in page.read_text()
    assert "erosion_kernel 7<" in page.read_text()


def test_painted_objects_are_told_apart(tmp_path: Path, cache: VariantCache) -> None:
    page, prompts = tmp_path / "index.html", ["A photo of a cat"]
    fill(tmp_path / "data", cache, ["a.png"])
    write_page(collect(cache, None, 5, 5), page, "t")
    assert "which are protected" in page.read_text()
    fill(tmp_path / "data", cache, ["a.png"], target="objects", object_prompts=prompts)
    both = {"target": "objects_and_background", "object_prompts": prompts}
    fill(tmp_path / "data", cache, ["a.png"], **both)
    gallery = collect(cache, None, 5, 10)
    assert Counter(each.target for each in gallery.rows[0].variants) == {
        "background": 2,
        "objects": 2,
        "objects + background": 2,
    }
    write_page(gallery, page, "t")
    html = page.read_text()
    assert html.count("variant 1, objects:") == html.count("variant 1, objects + background:") == 1
    assert html.count("A photo of a cat\u201d") == 4
    assert "which are protected" not in html
    write_contact_sheet(gallery, tmp_path / "sheet.png")


def test_a_picture_older_than_the_setting_is_of_a_background() -> None:
    assert target_of({"recipe": {"settings": {}}}) == "background"


def test_contact_sheet_has_a_row_an_image(tmp_path: Path, cache: VariantCache) -> None:
    fill(tmp_path / "data", cache, ["a.png", "b.png"])
    sheet = tmp_path / "sheet.png"
    write_contact_sheet(collect(cache, str(tmp_path / "data"), 5, 5), sheet)
    assert cv2.imread(str(sheet)).shape == (2 * (CELL + CAPTION), 4 * CELL, 3)


def test_the_command_writes_both_files_and_refuses_an_empty_cache(
    tmp_path: Path, cache: VariantCache
) -> None:
    command = ["gallery", "--cache", cache.root, "--out", str(tmp_path / "out")]
    empty = bgaug(*command, cwd=tmp_path)
    assert empty.returncode == 1
    assert "holds no picture" in empty.stderr
    assert "Traceback" not in empty.stderr
    fill(tmp_path / "data", cache, ["a.png"])
    assert bgaug(*command, cwd=tmp_path).returncode == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.html",
        "contact_sheet.png",
    }
