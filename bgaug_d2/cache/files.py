"""How the cache lies on disk: names, atomic writes and checked reads.

``<root>/<key[:2]>/<key[2:4]>/<key>.json`` is the sidecar and, beside it, ``<key>.<digits>.png``
(or ``.jpg``) the picture; the 16 digits begin the picture's SHA-256. With the content in the name,
two writers of one key can never pair the picture of one with the sidecar of the other. The picture
is in place before the sidecar is, so a sidecar means a whole entry.

Nothing is flushed to the device before the rename: a power cut can leave a short file behind, and
the digests turn that into a miss.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bgaug_d2.cache.sidecar_bytes import (
    MAX_SIDECAR_BYTES,
    SCHEMA,
    CorruptEntryError,
    decode_sidecar,
)
from bgaug_d2.errors import CacheError
from bgaug_d2.jobs.digests import canonical_json, digest_file

MARKER = "bgaug_cache.json"
QUARANTINE = "quarantine"
# Folders of files that are kept beside the entries, named like the modules that write them.
BACKGROUND_RATIOS = "background_ratios"
SOURCE_DIGESTS = "source_digests"
# Hidden, so that a leftover does not make `_is_ours` call the folder foreign.
TEMP_PREFIX = ".tmp-"
PICTURE_SUFFIXES = (".png", ".jpg")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"[0-9a-f]{2}")


@dataclass(frozen=True)
class CacheEntry:
    """A finished picture.

    Attributes:
        path: The picture, uint8 RGB of the source's size. It may vanish once it is evicted.
        sidecar: Provenance; the fields are listed in ``VariantCache``.
    """

    path: str
    sidecar: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.sidecar["key"])


@dataclass(frozen=True)
class Rejection:
    """A job that will not get a picture, and why (``reason`` is the sidecar's ``rejected``)."""

    reason: str
    sidecar: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.sidecar["key"])


def check_key(key: str) -> str:
    """Return ``key``, which becomes a path; ValueError if it is not 64 lower-case hex digits."""
    if not isinstance(key, str) or not _SHA256.fullmatch(key):
        raise ValueError(f"cache key {key!r} must be 64 lower-case hex digits")
    return key


def folder_of(root: str, key: str) -> str:
    """Where the files of ``key`` lie."""
    # Two levels of up to 256 folders, so that none of them grows large.
    return os.path.join(root, key[:2], key[2:4])


def sidecar_path(root: str, key: str) -> str:
    """The file whose presence means that there is an entry."""
    return os.path.join(root, key[:2], key[2:4], f"{key}.json")


def picture_name(key: str, sha256: str, suffix: str) -> str:
    """File name of a picture with this digest (64 hex digits); ``suffix`` of ``PICTURE_SUFFIXES``.

    Names are for people and tools: readers go by what a file holds.
    """
    return f"{key}.{sha256[:16]}{suffix}"


def open_cache_folder(root: str) -> OSError | None:
    """Make ``root`` a cache, or see that it is one.

    Returns:
        None, or the error when an existing, empty folder cannot be written to.

    Raises:
        CacheError: ``root`` holds something else, has another schema or cannot be made.
    """
    try:
        os.makedirs(root, exist_ok=True)
        names = os.listdir(root)
    except OSError as error:
        raise CacheError(f"cache folder {root} cannot be used: {error.strerror}") from error
    if MARKER in names:
        _check_marker(os.path.join(root, MARKER))
        return None
    foreign = [name for name in names if not _is_ours(name)]
    if foreign:
        raise CacheError(
            f"{root} has no {MARKER} but holds other files, such as {min(foreign)!r}; "
            "give an empty folder or one that bgaug_d2 made"
        )
    try:
        # Flushed, unlike entries: a damaged marker closes the whole cache, not one entry.
        write_atomically(
            {os.path.join(root, MARKER): canonical_json({"schema": SCHEMA})}, sync=True
        )
    except OSError as error:
        # Not raised: a full disk must not end a training; the cache then has misses only.
        return error
    return None


def _check_marker(path: str) -> None:
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(MAX_SIDECAR_BYTES))
        schema = content["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path} is damaged ({error}); delete it, the entries stay valid"
        ) from error
    if schema != SCHEMA:
        raise CacheError(
            f"{path} says schema {schema!r}, this version reads {SCHEMA}; use another folder"
        )


def _is_ours(name: str) -> bool:
    # A fresh volume has lost+found; hidden files belong to the system or are our own temporaries.
    known = (QUARANTINE, BACKGROUND_RATIOS, SOURCE_DIGESTS, "lost+found")
    return name.startswith(".") or name in known or bool(_SHARD.fullmatch(name))


def read_record(root: str, key: str, verify: bool = True) -> CacheEntry | Rejection:
    """Read and check one entry.

    Args:
        root: The cache's folder.
        key: 64 hex digits.
        verify: Whether the picture is hashed; otherwise only its size is checked.

    Raises:
        FileNotFoundError: There is no such entry, or it was removed.
        CorruptEntryError: There is one, and it is damaged.
        OSError: It cannot be read now.
    """
    path = sidecar_path(root, key)
    with open(path, "rb") as file:
        # One byte more than allowed is enough to see that the file is too large.
        sidecar = decode_sidecar(file.read(MAX_SIDECAR_BYTES + 1), key)
    if "rejected" in sidecar:
        return Rejection(str(sidecar["rejected"]), sidecar)
    sha256 = str(sidecar.get("sha256"))
    # The name becomes a path, so only those that its key and digest give are accepted.
    names = [picture_name(key, sha256, suffix) for suffix in PICTURE_SUFFIXES]
    if not _SHA256.fullmatch(sha256) or sidecar.get("file") not in names:
        raise CorruptEntryError("sidecar names no picture of its key")
    picture = os.path.join(os.path.dirname(path), sidecar["file"])
    try:
        info = os.stat(picture)
        # Opening a pipe would block.
        sound = stat.S_ISREG(info.st_mode) and info.st_size == sidecar.get("num_bytes")
        sound = sound and (not verify or digest_file(picture) == sha256)
    except FileNotFoundError:
        # Eviction takes the sidecar first: if it is gone too, this is a plain miss.
        os.stat(path)
        raise CorruptEntryError("picture is missing") from None
    if not sound:
        raise CorruptEntryError("picture does not match its digest", picture)
    return CacheEntry(picture, sidecar)


def write_atomically(contents: Mapping[str, bytes], sync: bool = False) -> None:
    """Write all temporaries, then rename in order: a full disk shows before anything is visible.

    Args:
        contents: Bytes by path; the folders exist.
        sync: Flush to the device before renaming.

    Raises:
        OSError: Nothing or a first part of ``contents`` is in place; no temporary is left.
    """
    # Random names: two writers of one key never share a temporary.
    temporaries = {
        path: os.path.join(os.path.dirname(path), f"{TEMP_PREFIX}{secrets.token_hex(12)}")
        for path in contents
    }
    try:
        for path, data in contents.items():
            with open(temporaries[path], "xb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    # Ctrl-C as well: nobody else removes a temporary before `TEMP_AGE_S`.
    except BaseException:
        for temporary in temporaries.values():
            remove(temporary)
        raise


def remove(path: str) -> bool:
    """Whether ``path`` was there and could be removed."""
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def quarantine(root: str, key: str, fault: CorruptEntryError) -> bool:
    """Move the sidecar, then the damaged picture, out of the way; whether ``key`` is a miss now.

    A picture that the fault does not name stays: another writer may be about to finish it, and
    without a sidecar it is swept in the end.
    """
    sidecar = sidecar_path(root, key)
    target = os.path.join(root, QUARANTINE)
    try:
        os.makedirs(target, exist_ok=True)
        for path in filter(None, (sidecar, fault.picture)):
            os.replace(path, os.path.join(target, os.path.basename(path)))
    except OSError:
        return not os.path.exists(sidecar)  # another reader was faster, or the folder is read-only
    return True
