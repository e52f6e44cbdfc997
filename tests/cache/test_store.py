"""Storing, finding and opening a cache when nothing goes wrong, and its answers to mistakes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.cache import files as cache_files
from bgaug_d2.cache.store import Rejection, VariantCache
from bgaug_d2.errors import CacheError
from bgaug_d2.jobs.digests import canonical_json
from tests.helpers.cache_keys import KEY, OTHER, SIDECAR, age, entry_of, key, sidecar_file


@pytest.fixture
def cache(tmp_path: Path) -> VariantCache:
    return VariantCache(str(tmp_path / "cache"))


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


def test_a_jpeg_is_kept_as_such(cache: VariantCache) -> None:
    picture = b"\xff\xd8\xff\xe0 a picture"
    assert cache.put(KEY, picture, SIDECAR)
    entry = entry_of(cache)
    assert entry.path.endswith(".jpg")
    assert Path(entry.path).read_bytes() == picture
    assert cache.put(KEY, b"a PNG", SIDECAR)  # the old picture stays for its readers, then goes
    assert entry_of(cache).path.endswith(".png")
    age(Path(entry.path), 61)
    age(sidecar_file(cache), 61)
    assert cache.gc().orphans == 1
    assert not Path(entry.path).exists()
    assert cache.stats()["pictures"] == 1


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


def test_names_that_are_numbers_are_stored_as_json_has_them(cache: VariantCache) -> None:
    cache.put(KEY, b"picture", {"qc": {10: "ten", 2: "two"}})  # sorted otherwise as text
    assert entry_of(cache).sidecar["qc"] == {"10": "ten", "2": "two"}


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


def test_file_in_the_place_of_a_folder_is_a_miss(cache: VariantCache) -> None:
    Path(cache.root, KEY[:2]).touch()
    assert cache.get(KEY) is None
    assert cache.counts == {"misses": 1}
    assert not cache.contains(KEY)
    assert not cache.put(KEY, b"picture", {})
    assert cache.stats()["pictures"] == 0


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
