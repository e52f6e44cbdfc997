"""Reads the source image of a job and checks that it is the one the job names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bgaug_d2.errors import ImageError
from bgaug_d2.jobs.job import SourceImage
from bgaug_d2.pixels.paths import resolve_inside
from bgaug_d2.pixels.read import check_regular, decode_image


def read_bytes(path: str | Path, num_bytes: int) -> bytes:
    """The content of a file that must have ``num_bytes`` bytes.

    Raises:
        ImageError: The file is missing, no regular file, or of another size (then it is not read).
    """
    try:
        # Before it is opened: a pipe would block, and a changed size spares reading and hashing.
        info = os.stat(path)
        check_regular(path, info)
        if info.st_size != num_bytes:
            raise ImageError(
                f"{path}: has {info.st_size} bytes, not {num_bytes}; the file has changed"
            )
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_source(source: SourceImage, image_root: str | Path) -> npt.NDArray[np.uint8]:
    """Read a job's image, uint8 RGB (H, W, 3), and check that it is the one asked for.

    The bytes that are hashed are those that are decoded, so a file that changes in between
    cannot end up under the key of its predecessor.

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
    # Masks are drawn at the data set's size, so they would not fit a picture of another.
    if image.shape[:2] != (source.height, source.width):
        raise ImageError(
            f"{path}: is {image.shape[1]} x {image.shape[0]} pixels, "
            f"the data set says {source.width} x {source.height}"
        )
    return image
