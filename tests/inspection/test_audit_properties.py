"""What holds of any detections: order is nothing, stricter is less, a match stays in bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgaug_d2.inspection.audit_summary import Pair, aggregate
from bgaug_d2.inspection.faults import (
    Detections,
    Labels,
    Measured,
    Thresholds,
    extra_objects,
    object_growth,
)
from bgaug_d2.inspection.faults import measure as measure_picture

SIZE = 12, 16
shares = st.floats(0, 1)


@st.composite
def rectangles(draw: st.DrawFn, most: int = 5) -> np.ndarray:
    """Masks bool (n, H, W), none of them empty."""
    height, width = SIZE
    masks = np.zeros((draw(st.integers(0, most)), *SIZE), dtype=bool)
    for mask in masks:
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
        mask[top:bottom, left:right] = True
    return masks


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    masks = draw(rectangles())
    scores = draw(st.lists(shares, min_size=len(masks), max_size=len(masks)))
    return Detections(masks, np.zeros(len(masks), np.int64), np.array(scores, np.float64))


def union(masks: np.ndarray) -> np.ndarray:
    return masks.any(axis=0) if len(masks) else np.zeros(SIZE, dtype=bool)


def pick(found: Detections, order: list[int]) -> Detections:
    return Detections(found.masks[order], found.classes[order], found.scores[order])


@given(detections(), rectangles(), shares, shares, st.integers(0, 4), st.integers(0, 60))
def test_stricter_thresholds_find_fewer_extra_objects(
    found: Detections,
    objects: np.ndarray,
    min_score: float,
    max_overlap: float,
    dilation: int,
    min_pixels: int,
) -> None:
    object_mask = union(objects)
    count = extra_objects(found, object_mask, min_score, max_overlap, dilation, min_pixels)
    assert 0 <= count <= len(found.scores)
    stricter = [
        extra_objects(found, object_mask, (min_score + 1) / 2, max_overlap, dilation, min_pixels),
        extra_objects(found, object_mask, min_score, max_overlap / 2, dilation, min_pixels),
        extra_objects(found, object_mask, min_score, max_overlap, dilation + 1, min_pixels),
        extra_objects(found, object_mask, min_score, max_overlap, dilation, min_pixels + 1),
    ]
    assert max(stricter) <= count
    everywhere = np.ones(SIZE, dtype=bool)
    assert extra_objects(found, everywhere, min_score, 0.99, dilation, min_pixels) == 0


@given(detections(), rectangles(), st.randoms(use_true_random=False))
def test_extra_objects_are_counted_one_by_one(
    found: Detections, objects: np.ndarray, random: object
) -> None:
    object_mask = union(objects)
    singles = [extra_objects(pick(found, [i]), object_mask) for i in range(len(found.scores))]
    assert extra_objects(found, object_mask) == sum(singles)


@given(detections(), rectangles(), st.floats(0.05, 1))
def test_a_match_stays_in_bounds(found: Detections, instances: np.ndarray, min_iou: float) -> None:
    matched, outside = object_growth(found, instances, union(instances), 0.5, min_iou)
    assert (np.isnan(outside) == ~matched).all()
    assert matched.sum() <= (found.scores >= 0.5).sum()
    assert (outside[matched] >= 0).all()
    assert (outside[matched] <= 1 / min_iou - 1 + 1e-9).all()


@given(rectangles(), rectangles())
def test_exact_detections_match_all_and_show_no_growth(
    instances: np.ndarray, others: np.ndarray
) -> None:
    number = len(instances)
    found = Detections(instances, np.zeros(number, np.int64), np.ones(number))
    matched, outside = object_growth(found, instances, union(instances) | union(others))
    assert matched.all()
    assert (outside == 0).all()


@given(detections(), rectangles(), st.data())
def test_order_of_detections_is_nothing_where_ious_differ(
    found: Detections, instances: np.ndarray, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(found.scores))))
    object_mask = union(instances)
    assert extra_objects(found, object_mask) == extra_objects(pick(found, order), object_mask)
    # Equal masks compete for an instance on equal terms, so one of each is enough.
    _, first = np.unique(found.masks.reshape(-1, math.prod(SIZE)), axis=0, return_index=True)
    ious = [
        (mask & each).sum() / (mask | each).sum()
        for mask in found.masks[first]
        for each in instances
    ]
    ious = [each for each in ious if each >= 0.5]  # others never match
    if len(set(ious)) < len(ious):
        return
    one = object_growth(pick(found, sorted(first.tolist())), instances, object_mask)
    kept = set(first.tolist())
    two = object_growth(pick(found, [i for i in order if i in kept]), instances, object_mask)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    def measured(count: int) -> Measured:
        outside = np.array([draw(shares | st.just(math.nan)) for _ in range(count)], np.float64)
        return Measured(draw(st.integers(0, 2)), ~np.isnan(outside), outside)

    count = draw(st.integers(0, 3))
    return Pair(draw(st.sampled_from("abcd")), measured(count), measured(count))


@settings(max_examples=50)
@given(st.lists(pairs(), min_size=1, max_size=6), st.data())
def test_a_summary_is_consistent(given_pairs: list[Pair], data: st.DataObject) -> None:
    audit = aggregate(given_pairs, resamples=50)
    assert audit.instances <= min(audit.found, audit.found_original) <= audit.labelled
    for painted, original, difference in (
        (
            audit.extra_objects_share,
            audit.extra_objects_share_original,
            audit.extra_objects_difference,
        ),
        (audit.object_growth, audit.object_growth_original, audit.object_growth_difference),
    ):
        expected = painted.value - original.value
        assert difference.value == pytest.approx(expected, abs=1e-9, nan_ok=True)
        for each in (painted, original, difference):
            assert not each.low > each.high
            assert -1 <= each.value <= 1 or math.isnan(each.value)
    assert math.isnan(audit.object_growth.value) == (audit.instances == 0)
    shuffled = aggregate(data.draw(st.permutations(given_pairs)), resamples=50)
    for name in ("value", "low", "high"):
        values = [getattr(each.extra_objects_difference, name) for each in (audit, shuffled)]
        assert values[0] == pytest.approx(values[1], abs=0, nan_ok=True)
    assert shuffled.object_growth.value == pytest.approx(audit.object_growth.value, nan_ok=True)


@settings(max_examples=50)
@given(detections(), rectangles())
def test_a_picture_against_itself_has_no_difference(
    found: Detections, instances: np.ndarray
) -> None:
    labels = Labels(instances, union(instances))
    measured = measure_picture(found, labels, Thresholds(min_pixels=1))
    audit = aggregate([Pair(name, measured, measured) for name in "abc"], resamples=20)
    assert (audit.extra_objects_difference.low, audit.extra_objects_difference.high) == (0, 0)
    if measured.matched.any():
        difference = audit.object_growth_difference
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
