"""Digests of image files and objects, computed once and carried by the dataset dicts.

A cache key needs both digests. Loader processes share the dataset dicts (Detectron2 keeps them in
one serialised list), so digests that lie there exist once per machine. For all of COCO they would
take about 50 MB in each loader process otherwise.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

from bgaug_d2.cache.files import (
    SOURCE_DIGESTS,
    open_cache_folder,
    write_atomically,
)
from bgaug_d2.cache.sidecar_bytes import CorruptEntryError, decode_verified, encode_verified
from bgaug_d2.errors import AnnotationError, ImageError
from bgaug_d2.jobs.digests import digest_file
from bgaug_d2.jobs.job import SCHEMA as JOB_SCHEMA
from bgaug_d2.jobs.job import objects_digest
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.paths import relative_name
from bgaug_d2.pixels.read import check_regular

logger = logging.getLogger(__name__)

DatasetDict = Mapping[str, Any]
# The name relative to the root, SHA-256, size in bytes, time of modification in ns. A plain tuple:
# it is pickled with every dataset dict, and a class would add its name to each.
FileDigest = tuple[str, str, int, int]

# Called with the dataset dicts, returns them for iteration: ``tqdm`` for a bar, ``iter`` for none.
Progress = Callable[[Sequence[DatasetDict]], Iterable[DatasetDict]]

# Keys of a dataset dict.
FILE_KEY = "bgaug_file"  # a FileDigest
OBJECTS_KEY = "bgaug_objects_sha256"  # 64 hex digits

_SCHEMA = 1
# Reading waits for disks and networks, and hashing releases Python's lock.
_THREADS = 16
_CHUNK = 16
# A file that changed twice within one tick of a coarse clock has the same time of modification
# twice. A digest is kept for later runs only when the file's last change is older than this.
_SETTLED_NS = 2_000_000_000


@dataclass
class _Kept:
    """Digests of earlier runs.

    Attributes:
        files: ``[sha256, size, mtime_ns]`` by name relative to the root.
        objects: SHA-256 of objects by the fingerprint of their annotations.
        changed: Whether there is something new to write.
    """

    files: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    changed: bool = False

    def add(self, found: _Found) -> None:
        if found.file is not None:
            name, sha256, size, mtime_ns = found.file
            row = [sha256, size, mtime_ns]
            if self.files.get(name) != row and time.time_ns() - mtime_ns > _SETTLED_NS:
                self.files[name], self.changed = row, True
        if found.objects is not None and found.fingerprint not in self.objects:
            self.objects[found.fingerprint], self.changed = found.objects, True


@dataclass(frozen=True)
class _Found:
    """The digests of one dataset dict; None where one cannot be computed."""

    file: FileDigest | None
    fingerprint: str
    objects: str | None


def with_digests(
    dataset_dicts: Sequence[DatasetDict],
    image_root: str,
    cache_dir: str,
    progress: Progress = iter,
) -> list[dict[str, Any]]:
    """Add the digests of image file and objects to dataset dicts.

    Files are read in parallel. The result is kept in the cache's folder, so a second start reads
    no image that is unchanged (same name, size and time of modification).

    Args:
        dataset_dicts: Detectron2's format.
        image_root: Folder that holds all images.
        cache_dir: Folder of the cache.
        progress: Shows the progress.

    Returns:
        Shallow copies with ``bgaug_file`` and ``bgaug_objects_sha256``. A digest that cannot be
        computed is left out; the draw of that image then reports the fault.

    Raises:
        CacheError: ``cache_dir`` holds something else than a cache.
    """
    open_cache_folder(cache_dir)
    # Names are relative to the root, so each root has its own file.
    root_digest = hashlib.sha256(os.path.abspath(image_root).encode()).hexdigest()
    path = os.path.join(cache_dir, SOURCE_DIGESTS, f"{root_digest[:16]}.json")
    kept = _load(path)
    copies = []
    with ThreadPool(_THREADS) as pool:
        digests = pool.imap(partial(_digests, image_root, kept), dataset_dicts, _CHUNK)
        for each, found in zip(progress(dataset_dicts), digests, strict=True):
            kept.add(found)
            added = {FILE_KEY: found.file, OBJECTS_KEY: found.objects}
            known = {name: value for name, value in added.items() if value is not None}
            copies.append({**each, **known})
    if kept.changed:
        _save(path, kept)
    return copies


def file_digest(path: str, image_root: str, status: os.stat_result) -> FileDigest:
    """Read and hash an image file.

    Args:
        path: The file.
        image_root: Folder that holds all images.
        status: The file's status, taken before this call: if the file changes while it is read,
            its next look-up sees another time of modification and reads it again.

    Raises:
        ImageError: The file is outside the root or no regular file.
        OSError: It cannot be read.
    """
    check_regular(path, status)
    name = relative_name(path, image_root)
    return name, digest_file(path), status.st_size, status.st_mtime_ns


def objects_sha256(dataset_dict: DatasetDict) -> str:
    """``objects_digest`` of a dataset dict's annotations; raises AnnotationError."""
    annotations = dataset_dict.get("annotations") or ()
    return objects_digest(objects_from_annotations(annotations, dataset_dict["image_id"]))


def _digests(image_root: str, kept: _Kept, dataset_dict: DatasetDict) -> _Found:
    # The canonical JSON of a crowded image costs a millisecond, its pickle some microseconds. The
    # pickle is only hashed, never read: equal bytes mean equal annotations, and annotations that
    # are equal but pickle differently are merely computed twice.
    pickled = pickle.dumps(dataset_dict.get("annotations"), -1)
    fingerprint = hashlib.blake2b(pickled, digest_size=16).hexdigest()
    objects = kept.objects.get(fingerprint)
    try:
        objects = objects or objects_sha256(dataset_dict)
    except (AnnotationError, KeyError):
        objects = None
    try:
        file = _file_digest(dataset_dict["file_name"], image_root, kept)
    except (ImageError, OSError, KeyError):
        file = None
    return _Found(file, fingerprint, objects)


def _file_digest(path: str, image_root: str, kept: _Kept) -> FileDigest:
    status = os.stat(path)
    name = relative_name(path, image_root)
    sha256, *state = kept.files.get(name, [""])
    if state == [status.st_size, status.st_mtime_ns]:
        return name, sha256, status.st_size, status.st_mtime_ns
    return file_digest(path, image_root, status)


def _load(path: str) -> _Kept:
    """What earlier runs kept; nothing where the file cannot be used."""
    try:
        with open(path, "rb") as file:
            content = decode_verified(file.read())
        if content["schema"] != [_SCHEMA, JOB_SCHEMA]:
            return _Kept()
        return _Kept(content["files"], content["objects"])
    except FileNotFoundError:
        return _Kept()
    except (OSError, KeyError, CorruptEntryError) as error:
        logger.warning("%s cannot be used (%s); its digests are computed again", path, error)
        return _Kept()


def _save(path: str, kept: _Kept) -> None:
    schema = [_SCHEMA, JOB_SCHEMA]
    content = {"schema": schema, "files": kept.files, "objects": kept.objects}
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomically({path: encode_verified(content)})
    except OSError as error:  # a full or read-only cache costs the time again, no more
        logger.warning("%s cannot be written (%s)", path, error.strerror)
