"""Reading source images exactly as Detectron2 does, but refusing what is broken; writing pictures.

What is read follows ``detectron2.data.detection_utils.read_image(path, "RGB")`` bit for bit: the
EXIF orientation is applied; palette, grey, bilevel, CMYK and YCbCr pictures become RGB; alpha is
dropped; an animation shows its first frame; colour of 16 bits per channel keeps the high byte.
Refused with an ``ImageError``: 16-bit grey, 32-bit and float pictures (conversion to RGB would clip
nearly every pixel to white), truncated files, decompression bombs, and file formats whose decoder
starts other programs.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zlib
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from bgaug_d2.jobs import SourceImage

# Pillow's own limit for its warning; Detectron2 would go on to decode such a file.
MAX_PIXELS = 178_956_970 // 2
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
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


class ImageError(ValueError):
    """An image file cannot be used; the message names the file and the fault."""


def resolve_inside(root: str | Path, relative: str) -> Path:
    """The real path of a file that a data set names, which must lie inside the data set's root.

    Args:
        root: Folder of the data set; may itself be a symbolic link.
        relative: Path with ``/``, relative to ``root``.

    Raises:
        ImageError: The path is absolute, has ``..``, or a symbolic link leads out of ``root``.
    """
    if not isinstance(relative, str) or not relative or "\0" in relative:
        raise ImageError(f"file name {relative!r} is not a path")
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise ImageError(
            f"file name {relative!r} must be relative to the data set's root, without '..'"
        )
    try:
        real_root = Path(root).resolve()
        path = (real_root / relative).resolve()
    except (OSError, RuntimeError) as error:  # a loop of symbolic links
        raise ImageError(f"file name {relative!r} cannot be resolved: {error}") from error
    if not path.is_relative_to(real_root):
        raise ImageError(
            f"file name {relative!r} leads to {path}, outside the data set's root {real_root}; "
            "choose a root that holds the images themselves"
        )
    return path


def relative_name(path: str | Path, root: str | Path) -> str:
    """The name of an image relative to the data set's root, with ``/``, for ``resolve_inside``.

    Raises:
        ImageError: The file lies outside ``root``.
    """
    absolute, absolute_root = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    if not absolute.is_relative_to(absolute_root):  # the same folder may have two names
        absolute, absolute_root = Path(path).resolve(), Path(root).resolve()
    if not absolute.is_relative_to(absolute_root):
        raise ImageError(f"{path} lies outside the data set's root {root}")
    name = absolute.relative_to(absolute_root).as_posix()
    resolve_inside(root, name)
    return name


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an image file as uint8 RGB (H, W, 3), bit for bit as Detectron2 reads it.

    Args:
        path: The file.
        max_pixels: Larger pictures are refused from their header, before any pixel is decoded.

    Raises:
        ImageError: The file is missing, no image, truncated, too large or of a refused kind.
    """
    try:
        _check_regular(path, os.stat(path))
        with open(path, "rb") as file:
            return _decode(file, str(path), max_pixels)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_bytes(path: str | Path, num_bytes: int) -> bytes:
    """The content of a file that must have ``num_bytes`` bytes.

    Raises:
        ImageError: The file is missing, no regular file, or of another size (then it is not read).
    """
    try:
        info = os.stat(path)
        _check_regular(path, info)
        if info.st_size != num_bytes:
            raise ImageError(
                f"{path}: has {info.st_size} bytes, not {num_bytes}; the file has changed"
            )
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode_image(
    content: bytes, name: str | Path, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """Decode the bytes of an image file as ``read_image`` does; ``name`` is for messages."""
    return _decode(BytesIO(content), str(name), max_pixels)


def read_source(source: SourceImage, image_root: str | Path) -> npt.NDArray[np.uint8]:
    """Read a job's image, uint8 RGB (H, W, 3), and check that it is the one asked for.

    The bytes that are hashed are those that are decoded, so a file that changes meanwhile cannot
    end up under the key of its predecessor.

    Raises:
        ImageError: The file is unusable or not the one that the job was made for.
    """
    path = resolve_inside(image_root, source.file_name)
    content = read_bytes(path, source.num_bytes)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != source.sha256:
        raise ImageError(
            f"{path}: has SHA-256 {sha256[:12]}..., the job expects {source.sha256[:12]}...; "
            "the file has changed"
        )
    image = decode_image(content, path)
    if image.shape[:2] != (source.height, source.width):
        raise ImageError(
            f"{path}: is {image.shape[1]} x {image.shape[0]} pixels, "
            f"the data set says {source.width} x {source.height}"
        )
    return image


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
    """Encode uint8 RGB (H, W, 3): ``png`` is lossless, and fast rather than small; ``jpeg`` is not.

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


def _check_regular(path: str | Path, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
        raise ImageError(f"{path}: is not a regular file")


def _decode(file: BinaryIO, name: str, max_pixels: int) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(file, formats=_FORMATS) as image:
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
