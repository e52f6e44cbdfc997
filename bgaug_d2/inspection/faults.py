"""Two faults of painted pictures, counted with a detector that was trained on the same classes.

Extra objects: the model painted a further object, which has no label, into the background.
Object growth: the model continued a labelled object beyond its mask. A detector makes errors of its
own, so each measure is taken on the original too, with the same labels. What counts is the paired
difference, painted minus original.

Growth counts only objects that the detector finds in both pictures, with an IoU of ``min_iou`` or
more. With 0.5 an object that more than doubled is lost instead of counted, so growth reads low; the
audit reports how many objects were found in each picture.

Shapes: N detections, K labelled instances, H, W height and width of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]


# eq=False, here and below: comparing arrays gives arrays, not a truth value.
@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one picture.

    Attributes:
        masks: bool (N, H, W).
        classes: Integer (N,), the detector's own numbers from 0.
        scores: Float (N,), 0..1.

    Raises:
        ValueError: Another dtype or shape, or a score out of range.
    """

    masks: BoolMask
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise ValueError(f"masks are {self.masks.dtype} {self.masks.shape}, not bool (N, H, W)")
        number = len(self.masks)
        if self.classes.shape != (number,) or self.classes.dtype.kind not in "iu":
            raise ValueError(
                f"classes are {self.classes.dtype} {self.classes.shape}, not integer ({number},)"
            )
        if self.scores.shape != (number,) or self.scores.dtype.kind != "f":
            raise ValueError(
                f"scores are {self.scores.dtype} {self.scores.shape}, not float ({number},)"
            )
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("a score is not in 0..1")


@dataclass(frozen=True, eq=False)
class Labels:
    """The labelled objects of one picture.

    Attributes:
        instances: bool (K, H, W), the objects whose growth is measured; no crowd regions.
        object_mask: bool (H, W), the union of all objects, crowd regions included.

    Raises:
        ValueError: Another dtype or shape, or an instance reaches beyond ``object_mask``.
    """

    instances: BoolMask
    object_mask: BoolMask

    def __post_init__(self) -> None:
        if self.object_mask.ndim != 2 or self.object_mask.dtype != np.bool_:
            raise ValueError(
                f"object_mask is {self.object_mask.dtype} {self.object_mask.shape}, not bool (H, W)"
            )
        _check_masks("instances", self.instances, self.object_mask)
        # Otherwise growth would count pixels of the object itself as outside.
        if self.instances[:, ~self.object_mask].any():
            raise ValueError("an instance reaches beyond object_mask, which must be their union")


@dataclass(frozen=True)
class Thresholds:
    """What counts as a detection, an extra object and a match.

    Attributes:
        min_score: Detections with a lower score are left out, 0..1.
        max_overlap: Largest share of an extra object's mask, 0..1, on labelled objects.
        dilation: Labelled objects are widened by these pixels, for the overlap alone; 0 or more.
        min_pixels: Smallest area of an extra object, in pixels.
        min_iou: Smallest IoU, in (0, 1], of a detection and the instance that it matches.

    Raises:
        ValueError: A value out of range.
    """

    min_score: float = 0.5
    max_overlap: float = 0.2
    dilation: int = 2
    min_pixels: int = 20
    min_iou: float = 0.5

    def __post_init__(self) -> None:
        for name in ("min_score", "max_overlap", "min_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be in 0..1")
        if self.min_iou == 0:
            raise ValueError("min_iou=0 would match masks that do not meet; give more")
        if self.dilation < 0 or self.min_pixels < 0:
            raise ValueError(
                f"dilation={self.dilation!r} and min_pixels={self.min_pixels!r} must be 0 or more"
            )


@dataclass(frozen=True, eq=False)
class Measured:
    """Both measures of one picture.

    Attributes:
        extra: Number of extra objects.
        matched, outside: Per instance, as ``object_growth`` returns them.
    """

    extra: int
    matched: BoolMask
    outside: npt.NDArray[np.float64]


def extra_objects(
    detections: Detections,
    object_mask: BoolMask,
    min_score: float = 0.5,
    max_overlap: float = 0.2,
    dilation: int = 2,
    min_pixels: int = 20,
) -> int:
    """Count the detections that lie beside the labelled objects.

    Args:
        detections: Detections in one picture.
        object_mask: bool (H, W), the union of all labelled objects.
        min_score: As in ``Thresholds``, like the arguments after it.
        max_overlap: Largest share of an extra object's mask on labelled objects.
        dilation: In pixels.
        min_pixels: In pixels.

    Raises:
        ValueError: The masks have different sizes.
    """
    _check_masks("detections", detections.masks, object_mask)
    window = np.ones((2 * dilation + 1, 2 * dilation + 1), dtype=np.uint8)
    # A detector's masks are coarse at the rim, so a little beside an object still is that object.
    near = cv2.dilate(object_mask.astype(np.uint8), window).astype(bool)
    masks = detections.masks[detections.scores >= min_score]
    areas = np.count_nonzero(masks, axis=(1, 2))
    inside = np.count_nonzero(masks & near, axis=(1, 2))
    # An empty mask is no object, even if min_pixels is 0.
    extra = (areas >= max(min_pixels, 1)) & (inside <= max_overlap * areas)
    return int(np.count_nonzero(extra))


def object_growth(
    detections: Detections,
    instance_masks: BoolMask,
    object_mask: BoolMask,
    min_score: float = 0.5,
    min_iou: float = 0.5,
) -> tuple[BoolMask, npt.NDArray[np.float64]]:
    """Measure how far the detection of each instance reaches beyond the labelled objects.

    Instances are matched with detections of any class, the pair of highest IoU first and each
    detection once: a grown object may look like another class.

    Args:
        detections: Detections in one picture.
        instance_masks: bool (K, H, W), without crowd regions.
        object_mask: bool (H, W), the union of all labelled objects.
        min_score: As in ``Thresholds``, like ``min_iou``.
        min_iou: In (0, 1].

    Returns:
        ``matched`` bool (K,) and ``outside`` float64 (K,): pixels of the instance's detection
        outside ``object_mask``, as a share of the instance's own area; NaN without a match. It is
        at most ``1 / min_iou - 1``.

    Raises:
        ValueError: The masks have different sizes.
    """
    _check_masks("detections", detections.masks, object_mask)
    _check_masks("instance_masks", instance_masks, object_mask)
    masks = detections.masks[detections.scores >= min_score]
    areas = np.count_nonzero(instance_masks, axis=(1, 2))
    matched = np.zeros(len(instance_masks), dtype=bool)
    # NaN, not 0: an instance that was not found says nothing about growth.
    outside = np.full(len(instance_masks), np.nan)
    for instance, detection in _match(_ious(instance_masks, masks), min_iou):
        matched[instance] = True
        # Pixels on a neighbour do not count: the detector may have joined two labelled objects.
        beyond = np.count_nonzero(masks[detection] & ~object_mask)
        outside[instance] = beyond / areas[instance]
    return matched, outside


def measure(detections: Detections, labels: Labels, thresholds: Thresholds) -> Measured:
    """Both measures of one picture."""
    extra = extra_objects(
        detections,
        labels.object_mask,
        thresholds.min_score,
        thresholds.max_overlap,
        thresholds.dilation,
        thresholds.min_pixels,
    )
    matched, outside = object_growth(
        detections, labels.instances, labels.object_mask, thresholds.min_score, thresholds.min_iou
    )
    return Measured(extra, matched, outside)


def _check_masks(name: str, masks: BoolMask, object_mask: BoolMask) -> None:
    if masks.dtype != np.bool_ or masks.ndim != 3 or masks.shape[1:] != object_mask.shape:
        raise ValueError(
            f"{name}: {masks.dtype} {masks.shape} is no bool stack of masks of "
            f"{object_mask.shape}, the object mask's size"
        )


def _ious(instances: BoolMask, masks: BoolMask) -> npt.NDArray[np.float64]:
    """IoU of each instance and each detection, (K, N); 0 for empty masks."""
    areas = np.count_nonzero(masks, axis=(1, 2))
    found = np.zeros((len(instances), len(masks)))
    for row, instance in enumerate(instances):
        common = np.count_nonzero(masks & instance, axis=(1, 2))
        # One instance at a time: all pairs at once would need (K, N, H, W) booleans.
        union = areas + np.count_nonzero(instance) - common
        # Two empty masks have no union to divide by.
        found[row] = common / np.maximum(union, 1)
    return found


def _match(ious: npt.NDArray[np.float64], min_iou: float) -> list[tuple[int, int]]:
    """Pairs (instance, detection), the highest IoU first, each of both at most once."""
    pairs: list[tuple[int, int]] = []
    left = np.where(ious >= min_iou, ious, 0.0)
    while left.any():
        instance, detection = divmod(int(left.argmax()), left.shape[1])
        pairs.append((instance, detection))
        # Neither of the two can be matched again.
        left[instance] = left[:, detection] = 0
    return pairs
