"""From the painted square of a pass back to the image's size.

Shapes: H, W the image; S the side of the square that the model paints (see ``pixels.masks``).
"""

from __future__ import annotations

import cv2
import numpy as np

from bgaug_d2.painting.passes import Finished, Prepared
from bgaug_d2.painting.quality import changed_share, judge_background
from bgaug_d2.pixels.encode import resize
from bgaug_d2.pixels.masks import Picture, composite


def finish(prepared: Prepared, painted: Picture) -> Finished:
    """Bring the painted square of a pass back to the image's size and put back what must stay.

    A background is judged, and then the objects are put back if the recipe says ``paste_back``.
    After the pass of an object all other pixels are put back, bit for bit.

    Args:
        prepared: The job before the pass.
        painted: The engine's picture, uint8 RGB (S, S, 3).

    Raises:
        ValueError: ``painted`` has another shape or dtype.
    """
    S = prepared.job.recipe.settings.resolution
    if painted.shape != (S, S, 3) or painted.dtype != np.uint8:
        raise ValueError(f"painted is {painted.dtype} {painted.shape}, not uint8 {(S, S, 3)}")
    height, width = prepared.source.shape[:2]
    image = resize(painted, height, width, cv2.INTER_CUBIC)  # (H, W, 3)
    if prepared.painted_object is None:
        return _finish_background(prepared, image)
    return _finish_object(prepared, image, prepared.painted_object)


def _finish_background(prepared: Prepared, image: Picture) -> Finished:
    recipe, source = prepared.job.recipe.settings, prepared.source
    object_mask = prepared.masks.object_mask
    eroded = cv2.resize(
        prepared.background_mask.astype(np.uint8),
        source.shape[1::-1],
        interpolation=cv2.INTER_NEAREST,
    )
    # The eroded rim around objects is not judged: the model keeps it, so it cannot change.
    painted_mask = eroded.astype(bool) & ~object_mask
    # Judged before the objects are put back, so that ``object_drift`` can be measured.
    qc, rejected = judge_background(image, source, painted_mask, object_mask, recipe.quality)
    if recipe.paste_back:
        image = composite(image, source, object_mask)
    return Finished(image, qc, rejected)


def _finish_object(prepared: Prepared, image: Picture, index: int) -> Finished:
    image = composite(image, prepared.canvas, ~prepared.object_pixels(index))
    if not prepared.is_last:
        return Finished(image, {}, None)
    painted_mask = prepared.masks.object_mask & ~prepared.crowd_mask
    threshold = prepared.job.recipe.settings.quality.changed_threshold
    share = changed_share(image, prepared.source, painted_mask, threshold)
    return Finished(image, {"object_changed_share": share}, None)
