"""What lies in a cache's folder: keys and their files, found by their names.

Only files with the cache's own names are listed, so nothing else is ever touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from bgaug_d2.cache.files import TEMP_PREFIX
from bgaug_d2.cache.sidecar_bytes import MAX_SIDECAR_BYTES

_SHARD = re.compile(r"[0-9a-f]{2}")
_OUR_FILE = re.compile(r"([0-9a-f]{64})\.(?:json|[0-9a-f]{16}\.(?:png|jpg))")


@dataclass(frozen=True)
class StoredFile:
    """A file of the cache."""

    path: str
    size: int  # bytes
    written: float  # seconds since the epoch


@dataclass
class StoredRecord:
    """The files of one key."""

    sidecar: StoredFile | None = None
    pictures: list[StoredFile] = field(default_factory=list)


@dataclass
class Folder:
    """One leaf folder: its keys and its temporaries."""

    records: dict[str, StoredRecord] = field(default_factory=dict)
    temporaries: list[StoredFile] = field(default_factory=list)


def keys(root: str) -> Iterator[str]:
    """The keys of all sidecars, ascending, unchecked."""
    for path in _leaf_paths(root):
        names = sorted(name for name in listing(path) if name.endswith(".json"))
        yield from (name[:64] for name in names if _OUR_FILE.fullmatch(name))


def folders(root: str) -> Iterator[Folder]:
    """All folders with files of the cache, in the order of their keys."""
    yield _scan(root)  # the marker's temporaries
    yield from map(_scan, _leaf_paths(root))


def _leaf_paths(root: str) -> Iterator[str]:
    for first in sorted(filter(_SHARD.fullmatch, listing(root))):
        upper = os.path.join(root, first)
        for second in sorted(filter(_SHARD.fullmatch, listing(upper))):
            yield os.path.join(upper, second)


def listing(path: str) -> list[str]:
    """The names in a folder; none where it has just been removed."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _scan(path: str) -> Folder:
    folder = Folder()
    for name in listing(path):
        ours = _OUR_FILE.fullmatch(name)
        if not ours and not name.startswith(TEMP_PREFIX):
            continue
        try:
            info = os.stat(os.path.join(path, name), follow_symlinks=False)
        except FileNotFoundError:
            continue  # renamed or evicted since it was listed
        file = StoredFile(os.path.join(path, name), info.st_size, info.st_mtime)
        if not ours:
            folder.temporaries.append(file)
            continue
        record = folder.records.setdefault(ours[1], StoredRecord())
        if name.endswith(".json"):
            record.sidecar = file
        else:
            record.pictures.append(file)
    return folder


def split_by_use(record: StoredRecord) -> tuple[list[StoredFile], list[StoredFile]]:
    """The files in use (sidecar, and its picture) and the pictures that are not."""
    if record.sidecar is None:
        return [], record.pictures
    if len(record.pictures) <= 1:
        return [record.sidecar, *record.pictures], []
    # The key was written again: only its sidecar knows which picture counts.
    try:
        with open(record.sidecar.path, "rb") as file:
            text = file.read(MAX_SIDECAR_BYTES)
    except OSError:
        return [record.sidecar, *record.pictures], []
    used = [file for file in record.pictures if os.path.basename(file.path).encode() in text]
    return [record.sidecar, *used], [file for file in record.pictures if file not in used]
