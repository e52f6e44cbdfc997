"""Reads source images exactly as Detectron2 does, and refuses what is broken.

What is read follows ``detectron2.data.detection_utils.read_image(path, "RGB")`` bit for bit: the
EXIF orientation is applied; palette, grey, bilevel, CMYK and YCbCr pictures become RGB; alpha is
dropped; an animation shows its first frame; colour of 16 bits per channel keeps the high byte.
Refused with an ``ImageError``: 16-bit grey, 32-bit and float pictures (conversion to RGB would clip
nearly every pixel to white), truncated files, decompression bombs, and file formats whose decoder
starts other programs.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from bgaug_d2.errors import ImageError

# Pillow's own limit for its warning; Detectron2 would go on to decode such a file.
MAX_PIXELS = 178_956_970 // 2
# Not all that Pillow reads: for EPS, for example, it starts Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_EXIF_ORIENTATION = 0x0112
_TRANSPOSITIONS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's decoders let any of these out when a file is damaged.
_DECODER_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an image file as uint8 RGB (H, W, 3), bit for bit as Detectron2 reads it.

    Args:
        path: The file.
        max_pixels: Larger pictures are refused from their header, before any pixel is decoded.

    Raises:
        ImageError: The file is missing, no image, truncated, too large or of a refused kind.
    """
    try:
        check_regular(path, os.stat(path))
        with open(path, "rb") as file:
            return _decode(file, str(path), max_pixels)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode_image(
    content: bytes, name: str | Path, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """Decode the bytes of an image file as ``read_image`` does; ``name`` is for messages."""
    return _decode(BytesIO(content), str(name), max_pixels)


def check_regular(path: str | Path, info: os.stat_result) -> None:
    """Raise ImageError unless ``info``, of the file at ``path``, is that of a regular file."""
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would block
        raise ImageError(f"{path}: is not a regular file")


def _decode(file: BinaryIO, name: str, max_pixels: int) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            # Pillow has read no more than the header yet, so a bomb is still harmless here.
            _check_header(image, name, max_pixels)
            return np.array(_orient(image).convert("RGB"))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: is no image in a format that is read ({', '.join(_FORMATS)})"
        ) from error
    except _DECODER_ERRORS as error:
        raise ImageError(f"{name}: cannot be decoded: {error or type(error).__name__}") from error


def _check_header(image: ImageFile.ImageFile, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: has {width} x {height} pixels, more than the {max_pixels} allowed "
            "(a decompression bomb?)"
        )
    if image.mode not in _MODES:
        raise ImageError(
            f"{name}: pixel mode {image.mode} is not supported; convert it to 8 bits per channel"
        )


def _orient(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says; damaged EXIF counts as none, as in Detectron2."""
    try:
        method = _TRANSPOSITIONS.get(image.getexif().get(_EXIF_ORIENTATION))
    except _DECODER_ERRORS:
        return image
    return image if method is None else image.transpose(method)
