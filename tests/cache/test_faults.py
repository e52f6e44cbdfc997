"""The cache under SIGKILL, damage, full disks and races: a reader sees a whole entry or a miss."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.cache import files as cache_files
from bgaug_d2.cache import upkeep as cache_upkeep
from bgaug_d2.cache.store import CacheEntry, VariantCache

HARNESS = Path(__file__).parents[1] / "helpers" / "cache_torture.py"
NOT_PERMITTED = 77
KEY = "a" * 64


def harness(test: str, root: Path, *options: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    command = [*prefix, sys.executable, str(HARNESS), test, str(root), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=250)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("no permission to mount a file system of its own")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# SIGKILL


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed_writers_leave_no_torn_entry(tmp_path: Path, count: int) -> None:
    found = harness("kills", tmp_path / "cache", "--count", str(count))
    assert found["torn"] == 0
    assert found["corrupt"] == 0
    assert found["hits"] > count
    assert found["temporaries"] > count / 10  # many were killed in the middle of a write
    assert found["temporaries_after_gc"] == 0
    assert found["pictures_after_gc"] == 4


def test_kills_find_the_faults_of_a_naive_cache(tmp_path: Path) -> None:
    assert harness("kills", tmp_path / "cache", "--count", "60", "--kind", "naive")["torn"] > 10


# Damage


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_all_damage_is_detected(tmp_path: Path, count: int) -> None:
    found = harness("mutations", tmp_path / "cache", "--count", str(count))
    assert found["undetected"] == 0
    assert found["false_alarms"] == 0
    assert len(found["kinds"]) == 13


def test_mutations_find_the_faults_of_a_naive_cache(tmp_path: Path) -> None:
    found = harness("mutations", tmp_path / "cache", "--count", "200", "--kind", "naive")
    assert found["undetected"] > 50


# Full and read-only file systems


def test_full_then_read_only_file_system(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no permission for a mount namespace (unshare -rm)")
    found = harness("full-disk", tmp_path / "disk", prefix=("unshare", "-rm"))
    assert found["stored"] == [True, True, False, False, False, False]  # 1 MB holds two of 400 kB
    assert found["read_only"]
    assert found["temporaries"] == 0
    assert found["readable"] == found["stored"]
    assert len(found["warnings_full"]) == 1
    assert "No space left" in found["warnings_full"][0]
    assert found["stored_after_freeing"]
    assert found["stored_on_read_only"] == [False, False, False]
    assert found["readable_on_read_only"] == [True]
    assert found["damaged_on_read_only"] == [True, True]
    assert len(found["warnings_read_only"]) == 1
    assert "Read-only file system" in found["warnings_read_only"][0]


@pytest.mark.parametrize("failing", ["open", "write", "replace 1", "replace 2"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_write_that_fails_midway_keeps_the_old_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, code: int
) -> None:
    cache = VariantCache(str(tmp_path / "cache"))
    cache.put(KEY, b"old", {"number": 1})
    error = OSError(code, os.strerror(code))
    with monkeypatch.context() as patch:
        if failing == "open":
            patch.setattr("builtins.open", _failing_at(1, open, error))
        elif failing == "write":
            patch.setattr("builtins.open", _opening_full_files(error))
        else:
            call = int(failing.split()[1])
            patch.setattr(cache_files.os, "replace", _failing_at(call, os.replace, error))
        assert not cache.put(KEY, b"new", {"number": 2})
    entry = cache.get(KEY)
    assert isinstance(entry, CacheEntry)
    assert entry.sidecar["number"] == 1
    assert Path(entry.path).read_bytes() == b"old"
    assert not list(Path(cache.root).rglob(".tmp-*"))
    assert cache.gc(grace_s=0).orphans == (failing == "replace 2")


def _failing_at(number: int, function: Callable[..., Any], error: OSError) -> Callable[..., Any]:
    calls = iter(range(1, 1000))

    def call(*args: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise error
        return function(*args, **options)

    return call


def _opening_full_files(error: OSError) -> Callable[..., Any]:
    real = open

    def call(*args: Any, **options: Any) -> Any:
        file = real(*args, **options)
        file.close()  # the name is there, as with a full disk
        return _FullFile(error)

    return call


class _FullFile:
    def __init__(self, error: OSError) -> None:
        self.error = error

    def __enter__(self) -> _FullFile:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def write(self, data: bytes) -> int:
        raise self.error


def test_interrupted_write_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    cache = VariantCache(str(tmp_path / "cache"))
    monkeypatch.setattr(cache_files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(KEY, b"picture", {})
    assert not list(Path(cache.root).rglob(".tmp-*"))


# Races


def _key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _run_together(*tasks: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guard(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the test
            errors.append(error)

    threads = [threading.Thread(target=guard, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_writers_of_one_key_never_mix(tmp_path: Path) -> None:
    cache = VariantCache(str(tmp_path / "cache"))
    done = threading.Event()
    hits = []

    def write(number: int) -> Callable[[], None]:
        def task() -> None:
            for _ in range(150):
                assert cache.put(KEY, bytes([number]) * 50_000, {"number": number})

        return task

    def read() -> None:
        while not done.is_set():
            entry = cache.get(KEY)
            if entry is not None:
                assert isinstance(entry, CacheEntry)
                assert Path(entry.path).read_bytes() == bytes([entry.sidecar["number"]]) * 50_000
                hits.append(entry)

    def write_all() -> None:
        try:
            _run_together(*(write(number) for number in range(4)))
        finally:
            done.set()

    _run_together(read, read, write_all)
    assert cache.counts["corrupt"] == 0
    assert len(hits) > 50


def test_eviction_breaks_no_reader(tmp_path: Path) -> None:
    """Readers open what they were given although a sweep evicts all the time."""
    cache = VariantCache(str(tmp_path / "cache"))
    done = threading.Event()
    opened = []

    def write() -> None:
        for turn in range(600):
            cache.put(_key(turn % 40), b"x" * (2000 + turn), {})
        done.set()

    def read() -> None:
        number = 0
        while not done.is_set():
            number += 1
            entry = cache.get(_key(number % 40))
            if entry is not None:
                assert isinstance(entry, CacheEntry)
                data = Path(entry.path).read_bytes()  # the grace time covers this
                assert hashlib.sha256(data).hexdigest() == entry.sidecar["sha256"]
                opened.append(entry.key)

    evicted = []

    def sweep() -> None:
        while not done.is_set():
            evicted.append(cache_upkeep.gc(cache.root, 10_000, grace_s=30).evicted)

    _run_together(write, read, read, sweep, sweep)
    assert cache.counts["corrupt"] == 0
    assert sum(evicted) > 50
    assert len(opened) > 50


def test_two_sweeps_do_not_evict_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = VariantCache(str(tmp_path / "cache"))
    for number in range(40):
        cache.put(_key(number), b"x" * 1000, {})
    limit = cache.stats()["bytes"] // 2
    remove = cache_upkeep.remove

    def after_another_process(path: str) -> bool:
        monkeypatch.setattr(cache_upkeep, "remove", remove)
        cache_upkeep.gc(cache.root, limit)
        return remove(path)

    monkeypatch.setattr(cache_upkeep, "remove", after_another_process)
    report = cache_upkeep.gc(cache.root, limit)
    assert (report.evicted, report.entries) == (0, 20)
    assert cache.stats()["pictures"] == 20


def test_writer_between_its_two_renames_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = VariantCache(str(tmp_path / "cache"))
    replace = os.replace

    def slow(source: str, target: str) -> None:
        replace(source, target)
        reports.append(cache_upkeep.gc(cache.root, 0))  # another process, with the usual ages

    reports: list[cache_upkeep.GcReport] = []
    monkeypatch.setattr(cache_files.os, "replace", slow)
    assert cache.put(KEY, b"picture", {})
    assert isinstance(cache.get(KEY), CacheEntry)
    assert [report.entries for report in reports] == [0, 1]
