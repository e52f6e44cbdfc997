"""Damaged files and failing writes, one at a time; ``test_faults`` kills writers at random."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bgaug_d2.cache import files as cache_files
from bgaug_d2.cache import store as cache_module
from bgaug_d2.cache import upkeep as cache_upkeep
from bgaug_d2.cache.sidecar_bytes import CorruptEntryError, decode_sidecar
from bgaug_d2.cache.store import CacheEntry, VariantCache
from tests.helpers.cache_keys import KEY, OTHER, SIDECAR, entry_of, forge, key, sidecar_file


@pytest.fixture
def cache(tmp_path: Path) -> VariantCache:
    return VariantCache(str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda c: Path(entry_of(c).path).write_bytes(b"pictura"), "does not match its digest"),
        (lambda c: Path(entry_of(c).path).unlink(), "picture is missing"),
        (lambda c: sidecar_file(c).write_bytes(b""), "not JSON"),
        (lambda c: sidecar_file(c).write_bytes(b"{}"), "not an object with a digest"),
        (lambda c: sidecar_file(c).write_bytes(b"[1]"), "not an object"),
        (lambda c: sidecar_file(c).write_bytes(b'{"a":NaN}'), "not JSON"),
        (lambda c: sidecar_file(c).write_bytes(b"[" * 100_000), "not JSON"),
        (lambda c: sidecar_file(c).write_bytes(b" " * (1 << 21)), "too large"),
        (lambda c: sidecar_file(c).write_bytes(sidecar_file(c).read_bytes() + b"\n"), "its digest"),
        (lambda c: forge(c, key=OTHER), "another key"),
        (lambda c: forge(c, schema=2), "another key or schema"),
        (lambda c: forge(c, file="x.png"), "no picture of its key"),
        (lambda c: forge(c, sha256="e" * 64), "no picture of its key"),
        (
            lambda c: forge(c, sha256="/../../x", file=f"{KEY}./../../x.png"),
            "no picture of its key",
        ),
    ],
)
def test_damaged_entry_is_a_miss_and_quarantined(
    cache: VariantCache, damage: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put(KEY, b"picture", SIDECAR)
    damage(cache)
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY) is None
    assert fault in caplog.text
    assert cache.counts["corrupt"] == 1
    assert not cache.contains(KEY)  # so that it is asked for again
    assert f"{KEY}.json" in cache_upkeep.quarantined(cache.root)
    assert cache.get(KEY) is None
    assert cache.counts["corrupt"] == 1
    assert cache.put(KEY, b"picture", SIDECAR)
    assert Path(entry_of(cache).path).read_bytes() == b"picture"


def test_damaged_picture_goes_to_quarantine_and_others_stay(cache: VariantCache) -> None:
    cache.put(KEY, b"first", SIDECAR)
    first = Path(entry_of(cache).path)
    cache.put(KEY, b"second", SIDECAR)
    second = Path(entry_of(cache).path)
    second.write_bytes(b"damage")
    assert cache.get(KEY) is None
    assert cache_upkeep.quarantined(cache.root) == sorted([f"{KEY}.json", second.name])
    assert first.exists()
    assert not second.exists()


def test_quarantine_by_two_readers_at_once(cache: VariantCache) -> None:
    fault = CorruptEntryError("not JSON")
    cache.put(KEY, b"picture", SIDECAR)
    assert cache_files.quarantine(cache.root, KEY, fault)
    assert cache_files.quarantine(cache.root, KEY, fault)  # the other was faster


def test_unverified_look_up_still_sees_size_and_absence(cache: VariantCache) -> None:
    cache.put(KEY, b"picture", SIDECAR)
    path = Path(entry_of(cache).path)
    path.write_bytes(b"pictura")
    assert isinstance(cache.get(KEY, verify=False), CacheEntry)
    path.write_bytes(b"pict")
    assert cache.get(KEY, verify=False) is None


def test_entry_evicted_in_the_middle_of_a_look_up_is_a_plain_miss(
    cache: VariantCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, b"picture", SIDECAR)
    picture = entry_of(cache).path

    def evict(data: bytes, name: str) -> dict[str, Any]:
        sidecar_file(cache).unlink()
        os.unlink(picture)
        return decode_sidecar(data, name)

    monkeypatch.setattr(cache_files, "decode_sidecar", evict)
    assert cache.get(KEY) is None
    assert (cache.counts["misses"], cache.counts["corrupt"]) == (1, 0)


@pytest.mark.timeout(20)
def test_pipe_in_place_of_a_picture_does_not_block(cache: VariantCache) -> None:
    cache.put(KEY, b"", SIDECAR)
    path = entry_of(cache).path
    os.unlink(path)
    os.mkfifo(path)
    assert cache.get(KEY) is None


def test_warnings_do_not_flood_the_log(
    cache: VariantCache, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(30):
        cache.put(key(number), b"picture", {})
        sidecar_file(cache, key(number)).write_bytes(b"")
        cache.get(key(number))
    assert cache.counts["corrupt"] == 30
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 10


def test_read_error_is_a_counted_miss_and_moves_nothing(
    cache: VariantCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, b"picture", {})

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(cache_files, "digest_file", fail)
        assert cache.get(KEY) is None
    assert cache.counts["unreadable"] == 1
    assert entry_of(cache)


# Writing fails


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EIO, errno.ESTALE]
)
def test_failed_write_makes_it_read_only_for_a_while(
    cache: VariantCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    cache.put(KEY, b"picture", {})
    attempts = []

    def fail(*args: Any) -> None:
        attempts.append(args)
        raise OSError(code, os.strerror(code))

    clock = [1000.0]
    monkeypatch.setattr(cache_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "write_atomically", fail)
        assert not cache.put(OTHER, b"picture", {})
        assert not cache.reject(OTHER, "flat", {})
        assert cache.read_only
        assert len(attempts) == 1  # the second call did not try
        assert entry_of(cache)
        clock[0] += 61
        assert not cache.put(OTHER, b"picture", {})
        assert len(attempts) == 2
    assert os.strerror(code) in caplog.text
    assert len(caplog.records) == 1
    assert cache.counts["refused"] == 3
    clock[0] += 61
    assert cache.put(OTHER, b"picture", {})
    assert not cache.read_only


def test_empty_folder_that_cannot_be_written_is_read_only_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache_files, "write_atomically", fail)
    cache = VariantCache(str(tmp_path))
    assert cache.read_only
    assert "Read-only file system" in caplog.text
    assert cache.get(KEY) is None
