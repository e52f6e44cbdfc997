"""Work on the whole cache: listing, figures, verification, the sweep that keeps the quota."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bgaug_d2.cache.files import (
    PICTURE_SUFFIXES,
    QUARANTINE,
    CacheEntry,
    Rejection,
    quarantine,
    read_record,
    remove,
    sidecar_path,
)
from bgaug_d2.cache.scan import StoredFile, folders, keys, listing, split_by_use
from bgaug_d2.cache.sidecar_bytes import CorruptEntryError

# Temporaries that are older belong to writers that died, in seconds.
TEMP_AGE_S = 3600.0
# A reader that got a path just before its entry was evicted has this long to open it, in seconds.
GRACE_S = 60.0

Progress = Callable[[Sequence[str]], Iterable[str]]


@dataclass
class VerifyReport:
    """Numbers of sound records; ``corrupt`` and ``unreadable`` map a key to its fault."""

    pictures: int = 0
    rejections: int = 0
    corrupt: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass
class GcReport:
    """What a sweep found and did; sizes in bytes.

    Attributes:
        entries, bytes: What stays in use.
        evicted, evicted_bytes: Entries over the limit; a later sweep removes their pictures.
        temporaries, orphans, freed_bytes: Files removed.
        quarantined: File names in the quarantine, which is left to the user.
    """

    entries: int = 0
    bytes: int = 0
    evicted: int = 0
    evicted_bytes: int = 0
    temporaries: int = 0
    orphans: int = 0
    freed_bytes: int = 0
    quarantined: list[str] = field(default_factory=list)


def entries(root: str) -> Iterator[CacheEntry | Rejection]:
    """All sound records in the order of their keys; pictures are not hashed."""
    for key in keys(root):
        try:
            yield read_record(root, key, verify=False)
        except (OSError, CorruptEntryError):
            continue


def stats(root: str) -> dict[str, Any]:
    """Counts and bytes of pictures, rejections by reason, leftovers and quarantined files."""
    found: Counter[str] = Counter(pictures=0, bytes=0, orphans=0, temporaries=0)
    reasons: Counter[str] = Counter()
    for folder in folders(root):
        found["temporaries"] += len(folder.temporaries)
        for key, record in folder.records.items():
            current, stale = split_by_use(record)
            found["bytes"] += sum(file.size for file in current)
            found["orphans"] += len(stale)
            if len(current) == 2:
                found["pictures"] += 1
            elif current:
                reasons[_reason(root, key)] += 1
    return {
        **found,
        "rejections": dict(sorted(reasons.items())),
        "quarantined": len(quarantined(root)),
    }


def quarantined(root: str) -> list[str]:
    """File names in the quarantine, sorted."""
    return sorted(listing(os.path.join(root, QUARANTINE)))


def verify(root: str, progress: Progress = iter) -> VerifyReport:
    """Read and hash every entry; move the damaged ones to the quarantine.

    Args:
        root: The cache's folder.
        progress: Wraps the list of keys, for example ``tqdm``.
    """
    report = VerifyReport()
    # A list, so that a progress bar knows its length.
    for key in progress(list(keys(root))):
        try:
            record = read_record(root, key)
        except FileNotFoundError:
            continue  # evicted since it was listed
        except CorruptEntryError as fault:
            report.corrupt[key] = str(fault)
            quarantine(root, key, fault)
        except OSError as error:
            report.unreadable[key] = str(error)
        else:
            if isinstance(record, Rejection):
                report.rejections += 1
            else:
                report.pictures += 1
    return report


def gc(
    root: str, max_bytes: int, temp_age_s: float = TEMP_AGE_S, grace_s: float = GRACE_S
) -> GcReport:
    """Remove what dead writers left, then evict the oldest entries until ``max_bytes`` are in use.

    Eviction unlinks the sidecar, which makes the entry a miss. The picture stays for ``grace_s``
    seconds, for readers that already have its path; the next sweep removes it. (On POSIX systems a
    reader that has it open can still read it then.)

    Args:
        root: The cache's folder.
        max_bytes: Limit for pictures and sidecars; 0 means none.
        temp_age_s: Age in seconds from which a temporary is a leftover.
        grace_s: The same for a picture that has no sidecar or that its sidecar does not name.
    """
    report = GcReport(quarantined=quarantined(root))
    aged: list[tuple[float, int, str]] = []  # time of writing, bytes, key
    for folder in folders(root):
        # For each folder: the listing of a large cache takes long, and writers go on.
        now = time.time()
        for file in folder.temporaries:
            if now - file.written >= temp_age_s and _free(file, report):
                report.temporaries += 1
        for key, record in folder.records.items():
            current, stale = split_by_use(record)
            if record.sidecar and current:
                size = sum(file.size for file in current)
                aged.append((record.sidecar.written, size, key))
            for file in stale:
                if now - _unused_since(root, key, file) >= grace_s and _free(file, report):
                    report.orphans += 1
    report.entries, report.bytes = len(aged), sum(size for _, size, _ in aged)
    if max_bytes:
        _evict(root, max_bytes, sorted(aged), report)
    return report


def _evict(root: str, max_bytes: int, aged: list[tuple[float, int, str]], report: GcReport) -> None:
    for _, size, key in aged:
        if report.bytes <= max_bytes:
            return
        path = sidecar_path(root, key)
        _start_grace(os.path.dirname(path), key)
        if remove(path):
            report.evicted += 1
            report.evicted_bytes += size
        elif os.path.exists(path):
            continue  # not permitted
        report.entries -= 1
        report.bytes -= size


def _start_grace(folder: str, key: str) -> None:
    """Make the pictures young before the sidecar goes, so that no other sweep takes them now."""
    for name in listing(folder):
        if name.startswith(f"{key}.") and name.endswith(PICTURE_SUFFIXES):
            with contextlib.suppress(OSError):  # another process was faster
                os.utime(os.path.join(folder, name))


def _unused_since(root: str, key: str, picture: StoredFile) -> float:
    # A picture that was replaced may have readers from before its key was written again. This also
    # spares one whose sidecar was put in place while the folder was listed.
    try:
        return max(picture.written, os.stat(sidecar_path(root, key)).st_mtime)
    except FileNotFoundError:
        return picture.written


def _free(file: StoredFile, report: GcReport) -> bool:
    removed = remove(file.path)
    report.freed_bytes += file.size * removed
    return removed


def _reason(root: str, key: str) -> str:
    try:
        record = read_record(root, key, verify=False)
    except (OSError, CorruptEntryError):
        return "damaged"
    return record.reason if isinstance(record, Rejection) else "damaged"
