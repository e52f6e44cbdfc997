"""Listing, figures, verification, sweeps and the quota."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.cache import upkeep as cache_upkeep
from bgaug_d2.cache.store import VariantCache
from tests.helpers.cache_keys import KEY, OTHER, age, entry_of, key, sidecar_file


@pytest.fixture
def cache(tmp_path: Path) -> VariantCache:
    return VariantCache(str(tmp_path / "cache"))


def test_entries_are_sorted_and_skip_damage(cache: VariantCache) -> None:
    for number in range(6):
        cache.put(key(number), b"picture", {"number": number})
    cache.reject(key(6), "flat", {})
    sidecar_file(cache, key(0)).write_bytes(b"")
    found = [record.key for record in cache.entries()]
    assert found == sorted(key(number) for number in range(1, 7))


def test_stats(cache: VariantCache) -> None:
    cache.put(KEY, b"x" * 1000, {})
    cache.put(OTHER, b"x" * 2000, {})
    for number, reason in enumerate(["flat", "flat", "no_objects"]):
        cache.reject(key(number), reason, {})
    sidecar_file(cache, OTHER).unlink()
    Path(cache.root, ".tmp-1").touch()
    cache.get(KEY)
    stats = cache.stats()
    used = sum(path.stat().st_size for path in Path(cache.root, "aa").rglob("*.*"))
    used += sum(sidecar_file(cache, key(number)).stat().st_size for number in range(3))
    assert stats == {
        "pictures": 1,
        "bytes": used,
        "orphans": 1,
        "temporaries": 1,
        "rejections": {"flat": 2, "no_objects": 1},
        "quarantined": 0,
        "max_bytes": 0,
        "process": {"written": 5, "hits": 1},
    }


def test_verify_reports_and_quarantines(cache: VariantCache) -> None:
    for number in range(5):
        cache.put(key(number), b"picture", {})
    cache.reject(KEY, "flat", {})
    Path(entry_of(cache, key(3)).path).write_bytes(b"damaged")
    shown: list[str] = []

    def progress(keys: Any) -> Any:
        for each in keys:
            shown.append(each)
            yield each

    report = cache.verify(progress)
    assert (report.pictures, report.rejections) == (4, 1)
    assert report.corrupt == {key(3): "picture does not match its digest"}
    assert len(shown) == 6
    assert cache.verify().corrupt == {}
    assert not cache.contains(key(3))


def test_entry_evicted_during_verification_is_no_damage(cache: VariantCache) -> None:
    cache.put(KEY, b"picture", {})

    def progress(keys: Any) -> Any:
        for each in keys:
            sidecar_file(cache, each).unlink()
            yield each

    report = cache.verify(progress)
    assert (report.pictures, report.corrupt) == (0, {})


def test_gc_removes_leftovers_only_when_they_are_old(cache: VariantCache) -> None:
    cache.put(KEY, b"picture", {})
    cache.put(OTHER, b"orphan", {})
    orphan = Path(entry_of(cache, OTHER).path)
    sidecar_file(cache, OTHER).unlink()
    temporary = orphan.parent / ".tmp-0123"
    temporary.write_bytes(b"12345")
    report = cache.gc()
    assert (report.temporaries, report.orphans, report.freed_bytes) == (0, 0, 0)
    age(orphan, 61)
    age(temporary, 3601)
    report = cache.gc()
    assert (report.temporaries, report.orphans, report.freed_bytes) == (1, 1, 11)
    assert not orphan.exists()
    assert not temporary.exists()
    assert report.entries == 1
    assert entry_of(cache)


def test_replaced_picture_stays_for_its_readers(cache: VariantCache) -> None:
    cache.put(KEY, b"old", {})
    old = Path(entry_of(cache).path)
    age(old, 10_000)
    cache.put(KEY, b"new", {})
    assert cache.gc().orphans == 0  # a reader may have asked a moment before the second put
    assert old.read_bytes() == b"old"
    age(sidecar_file(cache), 61)
    assert cache.gc().orphans == 1
    assert not old.exists()
    assert Path(entry_of(cache).path).read_bytes() == b"new"


def test_gc_leaves_other_files_alone(cache: VariantCache) -> None:
    cache.put(KEY, b"picture", {})
    folder = Path(entry_of(cache).path).parent
    strangers = [folder / "notes.txt", folder / f"{KEY}.png", folder / f"{KEY}.json.bak"]
    strangers.append(Path(cache.root, "ratios.json"))
    for path in strangers:
        path.write_text("mine")
        age(path, 1e6)
    cache.gc(max_bytes=1, temp_age_s=0, grace_s=0)
    cache.gc(max_bytes=1, temp_age_s=0, grace_s=0)
    assert all(path.exists() for path in strangers)
    assert not list(folder.glob("*.*.png"))


def test_eviction_is_oldest_first_and_leaves_pictures_for_a_while(cache: VariantCache) -> None:
    for number in range(10):
        cache.put(key(number), b"x" * 1000, {})
        age(sidecar_file(cache, key(number)), 1000 - number)
        age(entry_of(cache, key(number)).path, 1000 - number)
    paths = [Path(entry_of(cache, key(number)).path) for number in range(10)]
    size = cache.stats()["bytes"] // 10
    report = cache.gc(max_bytes=4 * size + 10)
    assert (report.entries, report.evicted) == (4, 6)
    assert report.bytes <= 4 * size + 10
    assert [cache.contains(key(number)) for number in range(10)] == [False] * 6 + [True] * 4
    assert all(path.exists() for path in paths)
    assert cache.gc().orphans == 0
    for path in paths[:6]:
        age(path, 61)
    assert cache.gc().orphans == 6
    assert [path.exists() for path in paths] == [False] * 6 + [True] * 4


def test_what_may_not_be_evicted_stays_in_the_report(
    cache: VariantCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, b"picture", {})
    monkeypatch.setattr(cache_upkeep, "remove", lambda path: False)
    report = cache.gc(max_bytes=1)
    assert (report.entries, report.evicted) == (1, 0)


def test_quota_is_kept_by_put_without_a_walk_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = 200_000
    cache = VariantCache(str(tmp_path / "cache"), max_bytes=quota)
    sweeps = []
    sweep = cache_upkeep.gc
    monkeypatch.setattr(
        cache_upkeep, "gc", lambda root, limit: sweeps.append(sweep(root, limit, grace_s=0))
    )
    for number in range(1000):
        cache.put(key(number), b"x" * 700, {})
        if number % 50 == 0:
            disk = sum(path.stat().st_size for path in Path(cache.root).rglob("*.*"))
            assert disk <= quota
    assert cache.contains(key(999))
    assert not cache.contains(key(0))
    assert 100 <= cache.stats()["pictures"] < 200
    assert 100 < len(sweeps) < 400  # about one in 1/64 of the quota, which is three entries here


def test_no_quota_means_no_sweep(cache: VariantCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_upkeep, "gc", lambda *args: pytest.fail("swept"))
    for number in range(20):
        assert cache.put(key(number), b"x" * 100_000, {})


def test_sweep_that_fails_does_not_fail_the_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    cache = VariantCache(str(tmp_path / "cache"), max_bytes=100_000)
    monkeypatch.setattr(cache_upkeep, "gc", fail)
    assert cache.put(KEY, b"picture", {})
    assert "cannot be swept" in caplog.text
