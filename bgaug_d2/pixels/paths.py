"""File names inside a data set's folder; nothing outside it is opened."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from bgaug_d2.errors import ImageError


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
