"""How good a painted picture is: figures for its sidecar, and the rules that refuse a background.

Shapes: H, W the image.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from bgaug_d2.config.recipe import QualityConfig
from bgaug_d2.pixels.masks import BoolMask, Picture

REJECT_REASONS = ("flat", "unchanged")


def judge_background(
    image: Picture,
    source: Picture,
    painted_mask: BoolMask,
    object_mask: BoolMask,
    quality: QualityConfig,
) -> tuple[dict[str, float], str | None]:
    """Measure a painted background before the objects are put back.

    Args:
        image: Painted, uint8 RGB (H, W, 3).
        source: The same before painting.
        painted_mask: bool (H, W), the background without the eroded rim, which the model keeps.
        object_mask: bool (H, W).
        quality: The rules.

    Returns:
        ``background_std``, the standard deviation over the painted pixels, averaged over the
        channels, in grey levels; ``changed_share`` of the painted pixels, 0..1; ``object_drift``,
        the mean absolute difference inside the objects, in grey levels: what the model's
        autoencoder would have done to them. And why the picture must not be used, one of
        ``REJECT_REASONS``, or None.
    """
    background_std = float(cv2.meanStdDev(image, mask=painted_mask.astype(np.uint8))[1].mean())
    changed = changed_share(image, source, painted_mask, quality.changed_threshold)
    # [:3], because OpenCV gives four channels whatever the picture has.
    difference = cv2.mean(cv2.absdiff(image, source), mask=object_mask.astype(np.uint8))[:3]
    figures = {
        "background_std": background_std,
        "changed_share": changed,
        "object_drift": float(np.mean(difference)),
    }
    if background_std < quality.min_std:
        return figures, "flat"
    if changed < quality.min_changed:
        return figures, "unchanged"
    return figures, None


def changed_share(image: Picture, source: Picture, painted_mask: BoolMask, threshold: int) -> float:
    """Share of ``painted_mask``, 0..1, that differs by more than ``threshold`` in some channel.

    Args:
        image: uint8 RGB (H, W, 3).
        source: The same before painting.
        painted_mask: bool (H, W); where it is empty the share is 0.
        threshold: Grey levels.
    """
    alike = cv2.inRange(cv2.absdiff(image, source), (0, 0, 0), (threshold,) * 3)  # 0 or 255
    changed: npt.NDArray[np.bool_] = (alike == 0) & painted_mask
    # At least 1, so that an empty mask gives 0 and no division by zero.
    return int(np.count_nonzero(changed)) / max(int(np.count_nonzero(painted_mask)), 1)
