"""Run lengths: the code of pycocotools, read without it."""

from __future__ import annotations

import numpy as np
import pytest

from bgaug_d2.pixels import rle


def test_the_example_of_the_coco_api() -> None:
    """The comment on the string format in COCO's maskApi gives these two."""
    assert rle.decode_counts("61X13mN000`0") == [6, 1, 40, 4, 5, 4, 5, 4, 21]


def test_a_difference_may_be_negative() -> None:
    assert rle.decode_counts("111O") == [1, 1, 1, 0]


def test_runs_go_down_the_columns() -> None:
    expected = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
    np.testing.assert_array_equal(rle.to_mask([2, 1, 1, 2], 2, 3), expected)


def test_an_object_may_start_at_once_and_end_at_the_end() -> None:
    assert rle.to_mask([0, 6], 2, 3).all()
    assert not rle.to_mask([6], 2, 3).any()
    assert rle.validate([0, 6], (2, 3), 2, 3) == [0, 6]
    assert rle.validate([3, 0, 3], (2, 3), 2, 3) == [3, 0, 3]


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        ("6`", "ends inside a number"),
        ("\x1f1", r"holds '\\x1f' at position 0"),
        ("1p", "holds 'p' at position 1"),
        ("1\u00e4", "not ASCII"),
        ("O", "negative run -1"),
        ("o" * 30 + "0", "too long a number"),
    ],
)
def test_a_malformed_string_is_refused(counts: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        rle.decode_counts(counts)


@pytest.mark.parametrize(
    ("counts", "size", "fault"),
    [
        ([5], (2, 3), "add up to 5, the image has 6"),
        ([7], (2, 3), "add up to 7"),
        ([], (2, 3), "add up to 0"),
        ("", (2, 3), "add up to 0"),
        ([2, 2, 2], (3, 2), r"is for 3 x 2 pixels"),
        ([-1, 7], (2, 3), "the run -1"),
        ([2.0, 4.0], (2, 3), "the run 2.0"),
        ([True, 5], (2, 3), "the run True"),
        ("6", (2, 3, 1), "is for"),
    ],
)
def test_what_does_not_fit_the_image_is_refused(
    counts: str | list[int], size: tuple[int, int], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        rle.validate(counts, size, 2, 3)
