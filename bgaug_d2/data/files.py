"""Files of a data set's folder: paths that stay inside it, JSON, and images that are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bgaug_d2.errors import DatasetError, ImageError
from bgaug_d2.pixels.paths import resolve_inside

# A JSON object ends with a brace, and files may have some blanks after it.
_TAIL_BYTES = 64


def find_inside(root: Path, relative: str) -> Path:
    """``resolve_inside`` of ``pixels.paths`` for a path from the settings.

    Raises:
        DatasetError: The path leads out of the root.
    """
    try:
        return resolve_inside(root, relative)
    except ImageError as error:
        raise DatasetError(f"dataset.root={str(root)!r}: {error}") from error


def check_not_truncated(path: Path) -> None:
    """Look at the end of a JSON file for a download that was cut off, without reading all of it.

    Raises:
        DatasetError: The file does not end with a brace, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            # Annotation files have hundreds of megabytes, and this runs before every training.
            tail = file.read().rstrip()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    if not tail.endswith(b"}"):
        raise DatasetError(
            f"{path} ({size} bytes) does not end like a JSON object; it is cut off, get it again"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        DatasetError: The file cannot be read, is no JSON, or holds something other than an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    # Deeply nested brackets exhaust Python's stack.
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is no valid JSON, perhaps cut off: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds a JSON {type(content).__name__}; expected an object")
    return content


def check_image_files(
    images: Iterable[Mapping[str, Any]], root: Path, folder: str, path: Path
) -> None:
    """Check that all image files exist inside the root.

    It lists each folder once, because looking at 118 000 files one by one is slow.

    Args:
        images: Images in COCO's format, with ``file_name`` relative to ``folder``.
        root: Folder of the data set.
        folder: Folder of the images, relative to the root.
        path: The annotation file, for messages.

    Raises:
        DatasetError: A name leads out of the root, or files are missing.
    """
    listings: dict[str, dict[str, bool]] = {}
    missing: list[str] = []
    for image in images:
        name = PurePosixPath(folder, image["file_name"])
        parent = str(name.parent)
        if parent not in listings:
            listings[parent] = _list_folder(find_inside(root, parent))
        # Only a link can lead out of the root here, so only links are followed.
        is_link = listings[parent].get(name.name)
        if is_link is None or (is_link and not find_inside(root, str(name)).is_file()):
            missing.append(image["file_name"])
    if missing:
        raise DatasetError(
            f"{len(missing)} of the images that {path} lists are missing in {root / folder}, "
            f"the first is {missing[0]!r}"
        )


def _list_folder(folder: Path) -> dict[str, bool]:
    """Whether each file of a folder is a link, by name; empty without a folder."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: entry.is_symlink()
                for entry in entries
                if entry.is_symlink() or entry.is_file(follow_symlinks=False)
            }
    except OSError:
        return {}
