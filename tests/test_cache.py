"""The cache's behaviour when nothing goes wrong, and its answers to mistakes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bgaug_d2 import cache as cache_module
from bgaug_d2 import cache_files, cache_upkeep
from bgaug_d2.cache import CacheEntry, CacheError, Rejection, VariantCache
from bgaug_d2.jobs import canonical_json

KEY, OTHER = "a" * 64, "b" * 64
SIDECAR = {"prompt": "Generate a clean background", "variant": 1, "qc": {"background_std": 41.5}}


@pytest.fixture
def cache(tmp_path: Path) -> VariantCache:
    return VariantCache(str(tmp_path / "cache"))


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def entry_of(cache: VariantCache, name: str = KEY) -> CacheEntry:
    entry = cache.get(name)
    assert isinstance(entry, CacheEntry)
    return entry


def age(path: str | Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def sidecar_file(cache: VariantCache, name: str = KEY) -> Path:
    return Path(cache_files.sidecar_path(cache.root, name))


def forge(cache: VariantCache, **changes: Any) -> None:
    """A sidecar with changed fields and a digest that matches them."""
    content = json.loads(sidecar_file(cache).read_bytes()) | changes
    sidecar_file(cache).write_bytes(cache_files.seal(content))


def test_stores_and_finds_a_picture(cache: VariantCache) -> None:
    assert cache.get(KEY) is None
    assert not cache.contains(KEY)
    assert cache.put(KEY, b"picture", SIDECAR)
    entry = entry_of(cache)
    assert cache.contains(KEY)
    assert Path(entry.path).read_bytes() == b"picture"
    assert entry.key == KEY
    assert {name: entry.sidecar[name] for name in SIDECAR} == SIDECAR
    assert cache.counts == {"misses": 1, "written": 1, "hits": 1}


def test_layout_and_sidecar_on_disk(cache: VariantCache) -> None:
    name = "0123" + "f" * 60
    cache.put(name, b"picture", SIDECAR)
    sha256 = hashlib.sha256(b"picture").hexdigest()
    folder = Path(cache.root, "01", "23")
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.json",
        f"{name}.{sha256[:16]}.png",
    }
    text = (folder / f"{name}.json").read_bytes()
    content = json.loads(text)
    digest = content.pop("digest")
    assert hashlib.sha256(canonical_json(content)).hexdigest() == digest
    assert content == {
        **SIDECAR,
        "schema": 1,
        "key": name,
        "sha256": sha256,
        "file": f"{name}.{sha256[:16]}.png",
        "num_bytes": 7,
    }


def test_rejection_is_kept_without_a_picture(cache: VariantCache) -> None:
    assert cache.reject(KEY, "flat", SIDECAR)
    record = cache.get(KEY)
    assert isinstance(record, Rejection)
    assert (record.reason, record.key, record.sidecar["variant"]) == ("flat", KEY, 1)
    assert cache.contains(KEY)
    assert cache.counts["rejections"] == 1
    assert {"sha256", "file", "num_bytes"}.isdisjoint(record.sidecar)


def test_picture_replaces_rejection_and_back(cache: VariantCache) -> None:
    cache.reject(KEY, "flat", SIDECAR)
    record = cache.get(KEY)
    assert record is not None
    cache.put(KEY, b"picture", record.sidecar)  # the old record's own fields do not survive
    entry = entry_of(cache)
    assert "rejected" not in entry.sidecar
    cache.reject(KEY, "unchanged", entry.sidecar)
    assert isinstance(cache.get(KEY), Rejection)


@pytest.mark.parametrize(
    "bad", ["", "a" * 63, "a" * 65, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"]
)
def test_key_that_is_no_digest_is_refused(cache: VariantCache, bad: str) -> None:
    for call in (
        lambda: cache.get(bad),
        lambda: cache.contains(bad),
        lambda: cache.put(bad, b"", {}),
        lambda: cache.reject(bad, "flat", {}),
    ):
        with pytest.raises(ValueError, match="64 lower-case hex digits"):
            call()


def test_sidecar_mistakes_are_refused_and_leave_nothing(cache: VariantCache) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache.put(KEY, b"picture", {"qc": {"std": float("nan")}})
    with pytest.raises(TypeError):
        cache.put(KEY, b"picture", {"qc": b"bytes"})
    with pytest.raises(ValueError, match="cannot be stored under"):
        cache.put(KEY, b"picture", {"key": OTHER})
    with pytest.raises(ValueError, match="at most 1048576"):
        cache.put(KEY, b"picture", {"prompt": "x" * (1 << 20)})
    with pytest.raises(ValueError, match="reason"):
        cache.reject(KEY, "", {})
    assert os.listdir(cache.root) == [cache_files.MARKER]


def test_new_files_follow_the_umask(cache: VariantCache) -> None:
    before = os.umask(0o027)
    try:
        cache.put(KEY, b"picture", {})
    finally:
        os.umask(before)
    for path in (sidecar_file(cache), Path(entry_of(cache).path)):
        assert path.stat().st_mode & 0o777 == 0o640  # a cache may be shared by a group


# Opening a folder


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CacheError, match=r"thesis\.tex.*empty folder"):
        VariantCache(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_as_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(CacheError, match="cannot be used"):
        VariantCache(str(tmp_path / "cache"))


def test_marker_of_another_schema_or_damaged_is_refused(cache: VariantCache) -> None:
    marker = Path(cache.root, cache_files.MARKER)
    marker.write_text('{"schema":2}')
    with pytest.raises(CacheError, match="schema 2, this version reads 1"):
        VariantCache(cache.root)
    for damaged in ("", "[]", "{}"):
        marker.write_text(damaged)
        with pytest.raises(CacheError, match="is damaged"):
            VariantCache(cache.root)


def test_lost_marker_is_made_anew(cache: VariantCache) -> None:
    cache.put(KEY, b"picture", {})
    Path(cache.root, cache_files.MARKER).unlink()
    Path(cache.root, "lost+found").mkdir()  # a file system of its own
    assert entry_of(VariantCache(cache.root))
    assert Path(cache.root, cache_files.MARKER).exists()


def test_root_may_vanish_and_come_back(cache: VariantCache) -> None:
    os.rename(cache.root, cache.root + ".away")
    assert cache.get(KEY) is None
    assert cache.put(KEY, b"picture", {})
    assert entry_of(VariantCache(cache.root))


def test_relative_root_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = VariantCache("cache")
    cache.put(KEY, b"picture", {})
    monkeypatch.chdir("/")
    assert entry_of(pickle.loads(pickle.dumps(cache)))


def test_negative_quota_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes=-1"):
        VariantCache(str(tmp_path / "cache"), -1)


# Damage


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda c: Path(entry_of(c).path).write_bytes(b"pictura"), "does not match its digest"),
        (lambda c: Path(entry_of(c).path).unlink(), "picture is missing"),
        (lambda c: sidecar_file(c).write_bytes(b""), "not JSON"),
        (lambda c: sidecar_file(c).write_bytes(b"{}"), "does not match its digest"),
        (lambda c: sidecar_file(c).write_bytes(b"[1]"), "not canonical"),
        (lambda c: sidecar_file(c).write_bytes(b'{"a":NaN}'), "not JSON"),
        (lambda c: sidecar_file(c).write_bytes(b"[" * 100_000), "not JSON"),
        (lambda c: sidecar_file(c).write_bytes(b" " * (1 << 21)), "too large"),
        (lambda c: sidecar_file(c).write_bytes(sidecar_file(c).read_bytes() + b"\n"), "canonical"),
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
    picture, unseal = entry_of(cache).path, cache_files.unseal

    def evict(data: bytes, name: str) -> dict[str, Any]:
        sidecar_file(cache).unlink()
        os.unlink(picture)
        return unseal(data, name)

    monkeypatch.setattr(cache_files, "unseal", evict)
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


# Processes


def test_pickled_copy_starts_with_fresh_counts(tmp_path: Path) -> None:
    cache = VariantCache(str(tmp_path / "cache"), max_bytes=1000)
    cache.get(KEY)
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.root, copy.max_bytes, copy.counts) == (cache.root, 1000, {})
    assert len(pickle.dumps(cache)) < 500


def _exchange(cache: VariantCache) -> None:
    cache.put(OTHER, Path(entry_of(cache).path).read_bytes() + b" of the child", {})


@pytest.mark.parametrize(
    "process",
    [multiprocessing.get_context("fork").Process, multiprocessing.get_context("spawn").Process],
)
def test_works_in_child_processes(cache: VariantCache, process: Any) -> None:
    cache.put(KEY, b"picture", {})
    child = process(target=_exchange, args=(cache,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert Path(entry_of(cache, OTHER).path).read_bytes() == b"picture of the child"


def test_look_up_lists_no_folder(cache: VariantCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        cache.put(key(number), b"picture", {})

    def fail(*args: Any) -> None:
        raise AssertionError("a look-up must not depend on the number of entries")

    monkeypatch.setattr(os, "listdir", fail)
    monkeypatch.setattr(os, "scandir", fail)
    assert entry_of(cache, key(7))
    assert cache.contains(key(8))
    assert cache.get(KEY) is None
    assert cache.put(KEY, b"picture", {})


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


# Upkeep


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
