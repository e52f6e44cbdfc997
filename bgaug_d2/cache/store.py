"""The cache of painted pictures, which loader workers read and painting processes write.

A look-up opens one sidecar and one picture, however many entries there are. Nothing is indexed in
memory, nothing is locked, no handle stays open. ``files`` holds the format on disk, ``upkeep`` the
work on all entries.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bgaug_d2.cache import upkeep
from bgaug_d2.cache.files import (
    MARKER,
    CacheEntry,
    Rejection,
    check_key,
    folder_of,
    open_cache_folder,
    picture_name,
    quarantine,
    read_record,
    sidecar_path,
    write_atomically,
)
from bgaug_d2.cache.sidecar_bytes import SCHEMA, CorruptEntryError, encode_sidecar
from bgaug_d2.errors import CacheError

logger = logging.getLogger(__name__)

# After a failed write the cache only reads for this long. Then one write finds out if it can again.
_PAUSE_S = 60.0
# A writer sweeps when it has added the first share of the quota, and sweeps down to the second. The
# room between holds what other writers add meanwhile, and evicted pictures in their grace time.
_SWEEP_EVERY, _SWEEP_TO = 1 / 64, 15 / 16
# Damaged entries that are logged as warnings. A dying disk would flood the log with more.
_LOUD_FAULTS = 10

_JPEG_START = b"\xff\xd8\xff"
_OWN_FIELDS = ("sha256", "file", "num_bytes", "rejected", "digest")


class VariantCache:
    """Pictures by key (64 hex digits, ``InpaintJob.key``), each with a JSON sidecar.

    A sidecar holds ``schema``, ``key``, ``sha256``, ``file`` and ``num_bytes`` of the picture,
    ``digest`` over all the rest, and what the writer gave (``painting.sidecar``): ``source``,
    ``objects``, ``recipe``, ``prompt``, ``variant``, ``seed``, ``T_hat``, ``background_ratio``,
    ``object_passes``, ``model``, ``qc``, ``created``. A rejection has ``rejected`` in place of the
    picture's fields.

    Forked, spawned and threaded readers and writers need no coordination. ``counts`` (hits, misses,
    rejections, corrupt, unreadable, written, refused) are of this process alone.

    Args:
        root: Folder; made when missing.
        max_bytes: Quota for pictures and sidecars, oldest go first; 0 means none. Beyond the third
            writer each can exceed it by 1/64.

    Raises:
        CacheError: ``root`` is not, and cannot become, a cache.
    """

    def __init__(self, root: str, max_bytes: int = 0) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes={max_bytes!r} must be 0 (no quota) or more")
        # Absolute, so that it stays right if the process changes its folder.
        self.root = os.path.abspath(root)
        self.max_bytes = int(max_bytes)
        self._reset()
        error = open_cache_folder(self.root)
        if error is not None:
            self._pause(error)

    def _reset(self) -> None:
        self.counts: Counter[str] = Counter()
        self._paused_until = float("-inf")
        self._warned = False
        # A new process does not know how full the cache is, so its first write looks.
        self._unswept_bytes = self.max_bytes

    def __getstate__(self) -> dict[str, Any]:
        # Counters and pauses belong to one process and do not travel to another.
        return {"root": self.root, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def read_only(self) -> bool:
        """Whether a write failed within the last minute, so that ``put`` refuses without trying."""
        return time.monotonic() < self._paused_until

    def contains(self, key: str) -> bool:
        """Whether there is an entry or a rejection, unchecked; the cost of one ``stat``."""
        return os.path.exists(sidecar_path(self.root, check_key(key)))

    def get(self, key: str, verify: bool = True) -> CacheEntry | Rejection | None:
        """The entry or rejection of ``key``, or None for a miss.

        A damaged entry is moved to ``<root>/quarantine``, counted, and a miss.

        Args:
            key: 64 hex digits.
            verify: Whether the picture is hashed; otherwise only its size is checked.
        """
        check_key(key)
        try:
            record = read_record(self.root, key, verify)
        except (FileNotFoundError, NotADirectoryError):
            self.counts["misses"] += 1
            return None
        except CorruptEntryError as fault:
            self._quarantine(key, fault)
            return None
        except OSError as error:
            self.counts["unreadable"] += 1
            self._log_fault("cache entry %s cannot be read: %s", key, error)
            return None
        self.counts["rejections" if isinstance(record, Rejection) else "hits"] += 1
        return record

    def put(self, key: str, picture: bytes, sidecar: Mapping[str, Any]) -> bool:
        """Store a picture; it replaces an earlier entry of ``key``.

        Args:
            key: 64 hex digits.
            picture: PNG or JPEG.
            sidecar: JSON values; the fields that describe the file are added here.

        Returns:
            Whether it is stored; False while the folder cannot be written to (full, read-only).

        Raises:
            ValueError, TypeError: ``sidecar`` has another ``key`` or is no JSON (NaN included).
        """
        sha256 = hashlib.sha256(picture).hexdigest()
        # By the bytes themselves, so that no caller can name them wrongly.
        suffix = ".jpg" if picture.startswith(_JPEG_START) else ".png"
        name = picture_name(check_key(key), sha256, suffix)
        fields = {"sha256": sha256, "file": name, "num_bytes": len(picture)}
        return self._write(key, sidecar, fields, {name: picture})

    def reject(self, key: str, reason: str, sidecar: Mapping[str, Any]) -> bool:
        """Record that ``key`` gets no picture and why, so that nobody asks again; see ``put``."""
        check_key(key)
        if not reason:
            raise ValueError("a rejection needs a reason, got an empty string")
        return self._write(key, sidecar, {"rejected": reason}, {})

    def entries(self) -> Iterator[CacheEntry | Rejection]:
        """All sound records in the order of their keys; pictures are not hashed."""
        return upkeep.entries(self.root)

    def stats(self) -> dict[str, Any]:
        """What the folder holds (see ``upkeep.stats``) and this process's ``counts``."""
        return {
            **upkeep.stats(self.root),
            "max_bytes": self.max_bytes,
            "process": dict(self.counts),
        }

    def verify(self, progress: upkeep.Progress = iter) -> upkeep.VerifyReport:
        """Check every entry and quarantine the damaged ones; see ``upkeep.verify``."""
        return upkeep.verify(self.root, progress)

    def gc(
        self,
        max_bytes: int | None = None,
        temp_age_s: float = upkeep.TEMP_AGE_S,
        grace_s: float = upkeep.GRACE_S,
    ) -> upkeep.GcReport:
        """Sweep and evict down to ``max_bytes`` (default: the quota); see ``upkeep.gc``."""
        limit = self.max_bytes if max_bytes is None else max_bytes
        return upkeep.gc(self.root, limit, temp_age_s, grace_s)

    def _write(
        self,
        key: str,
        sidecar: Mapping[str, Any],
        fields: Mapping[str, Any],
        pictures: Mapping[str, bytes],
    ) -> bool:
        if sidecar.get("key", key) != key:
            raise ValueError(f"sidecar of key {sidecar['key']!r} cannot be stored under {key!r}")
        # What describes the file is decided here, whatever the caller's sidecar says.
        given = {name: value for name, value in sidecar.items() if name not in _OWN_FIELDS}
        encoded = encode_sidecar({**given, **fields, "schema": SCHEMA, "key": key})
        if self.read_only:
            self.counts["refused"] += 1
            return False
        folder = folder_of(self.root, key)
        contents = {os.path.join(folder, name): data for name, data in pictures.items()}
        contents[sidecar_path(self.root, key)] = encoded  # last: it is the commit point
        try:
            os.makedirs(folder, exist_ok=True)
            write_atomically(contents)
        except OSError as error:
            self.counts["refused"] += 1
            self._pause(error)
            return False
        self.counts["written"] += 1
        self._keep_quota(sum(map(len, contents.values())))
        return True

    def _keep_quota(self, added: int) -> None:
        if not self.max_bytes:
            return
        self._unswept_bytes += added
        if self._unswept_bytes >= self.max_bytes * _SWEEP_EVERY:
            # Reset before the sweep, so that other threads do not start one too.
            self._unswept_bytes = 0
            try:
                # The picture is stored already, so a fault of the sweep is only reported.
                upkeep.gc(self.root, int(self.max_bytes * _SWEEP_TO))
            except OSError as error:
                logger.warning("cache %s cannot be swept: %s", self.root, error)

    def _pause(self, error: OSError) -> None:
        self._paused_until = time.monotonic() + _PAUSE_S
        # Once: a disk that stays full would repeat it every minute.
        if not self._warned:
            self._warned = True
            logger.warning(
                "cache %s cannot be written to (%s); it serves what it has and tries again in %d s",
                self.root,
                error.strerror,
                _PAUSE_S,
            )

    def _quarantine(self, key: str, fault: CorruptEntryError) -> None:
        self.counts["corrupt"] += 1
        moved = quarantine(self.root, key, fault)
        where = "moved to quarantine" if moved else "it cannot be moved"
        self._log_fault("cache entry %s is damaged: %s; %s", key, fault, where)

    def _log_fault(self, message: str, *values: object) -> None:
        faults = self.counts["corrupt"] + self.counts["unreadable"]
        logger.log(logging.WARNING if faults <= _LOUD_FAULTS else logging.DEBUG, message, *values)


def open_existing(root: str) -> VariantCache:
    """The cache in ``root``; unlike ``VariantCache`` it makes none where there is none.

    Raises:
        CacheError: ``root`` is no cache.
    """
    if not os.path.isfile(os.path.join(root, MARKER)):
        raise CacheError(f"{root} is no cache of bgaug_d2 (it has no {MARKER})")
    return VariantCache(root)
