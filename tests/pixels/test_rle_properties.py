"""Our reader of run lengths against pycocotools' writer, and against arbitrary input."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from bgaug_d2.pixels import rle


@st.composite
def blocky_masks(draw: st.DrawFn) -> np.ndarray:
    """Masks with long runs, whose numbers take several groups of 5 bits."""
    coarse = draw(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
    factors = st.integers(1, 60)
    return coarse.repeat(draw(factors), axis=0).repeat(draw(factors), axis=1)


@given(blocky_masks())
def test_reads_what_pycocotools_writes(mask: np.ndarray) -> None:
    height, width = mask.shape
    counts = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    runs = rle.validate(counts, (height, width), height, width)
    np.testing.assert_array_equal(rle.to_mask(runs, height, width), mask)
    assert rle.validate(runs, (height, width), height, width) == runs


@given(st.text(alphabet=[chr(code) for code in range(40, 120)], max_size=60))
def test_any_text_is_runs_or_an_error(counts: str) -> None:
    try:
        runs = rle.decode_counts(counts)
    except ValueError:
        return
    assert all(run >= 0 for run in runs)


@given(
    st.lists(st.integers(-2, 30), max_size=12),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_whatever_passes_fills_the_image_exactly(runs: list[int], height: int, width: int) -> None:
    valid = sum(runs) == height * width and min(runs, default=0) >= 0
    try:
        checked = rle.validate(runs, (height, width), height, width)
    except ValueError:
        assert not valid
        return
    assert valid
    mask = rle.to_mask(checked, height, width)
    assert mask.shape == (height, width)
    assert mask.sum() == sum(runs[1::2])
