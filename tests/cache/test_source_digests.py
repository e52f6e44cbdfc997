"""Digests in dataset dicts: the same as computed, kept for later runs, never in the way."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.cache import source_digests as module
from bgaug_d2.cache.files import SOURCE_DIGESTS
from bgaug_d2.cache.source_digests import FILE_KEY, OBJECTS_KEY, with_digests
from bgaug_d2.cache.store import VariantCache
from bgaug_d2.errors import CacheError
from bgaug_d2.jobs.digests import digest_file
from bgaug_d2.jobs.job import objects_digest
from bgaug_d2.jobs.parse import objects_from_annotations
from tests.helpers.dataset_dicts import annotation, make_dict, make_dicts, make_planner

Dicts = list[dict[str, Any]]


class Set:
    """Three images that were last changed long ago, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.root, self.cache = folder / "images", folder / "cache"
        self.dicts = make_dicts(self.root, 3)
        for number, each in enumerate(self.dicts):
            os.utime(each["file_name"], ns=(number, number))

    def digest(self) -> Dicts:
        return with_digests(self.dicts, str(self.root), str(self.cache))

    @property
    def kept(self) -> Path:
        (path,) = (self.cache / SOURCE_DIGESTS).iterdir()
        return path


@pytest.fixture
def images(tmp_path: Path) -> Set:
    return Set(tmp_path)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the digests that are computed, in any order."""
    calls: list[str] = []
    for name in ("digest_file", "objects_digest"):
        genuine = getattr(module, name)

        def counted(value: Any, name: str = name, genuine: Any = genuine) -> str:
            calls.append(name)
            return str(genuine(value))

        monkeypatch.setattr(module, name, counted)
    return calls


def test_dicts_get_the_digests_of_their_file_and_objects(images: Set) -> None:
    for before, after in zip(images.dicts, images.digest(), strict=True):
        status = os.stat(before["file_name"])
        name = f"train/{before['image_id']}.png"
        sha256 = digest_file(before["file_name"])
        assert after[FILE_KEY] == (name, sha256, status.st_size, status.st_mtime_ns)
        objects = objects_from_annotations(before["annotations"], before["image_id"])
        assert after[OBJECTS_KEY] == objects_digest(objects)
        assert {name: after[name] for name in before} == before
        assert FILE_KEY not in before
        assert after["annotations"] is before["annotations"]  # no second copy in memory
        assert len(pickle.dumps(after)) - len(pickle.dumps(before)) < 300


def test_keys_are_the_same_with_and_without(images: Set) -> None:
    planner = make_planner(images.root)
    for _ in range(2):  # computed, and kept
        for before, after in zip(images.dicts, images.digest(), strict=True):
            key = planner.plan_variant(after, 1).key
            assert key == planner.plan_variant(before, 1).key == after_key(planner, after)


def after_key(planner: Any, dataset_dict: dict[str, Any]) -> str:
    return str(planner.plan_variant(dataset_dict, 1).job().key)


def test_a_second_start_computes_nothing(images: Set, computed: list[str]) -> None:
    first = images.digest()
    assert sorted(computed) == ["digest_file"] * 3 + ["objects_digest"] * 3
    written = images.kept.stat().st_mtime_ns
    computed.clear()
    assert images.digest() == first
    assert computed == []
    assert images.kept.stat().st_mtime_ns == written


def test_only_what_changed_is_computed_again(images: Set, computed: list[str]) -> None:
    first = images.digest()
    computed.clear()
    with open(images.dicts[0]["file_name"], "ab") as file:
        file.write(b"x")
    os.utime(images.dicts[1]["file_name"], ns=(9, 9))  # touched, not changed
    images.dicts[2]["annotations"].append(annotation(9))
    second = images.digest()
    assert sorted(computed) == ["digest_file"] * 2 + ["objects_digest"]
    assert second[0][FILE_KEY][1] != first[0][FILE_KEY][1]
    assert second[1][FILE_KEY][1] == first[1][FILE_KEY][1]
    assert second[2][OBJECTS_KEY] != first[2][OBJECTS_KEY]


def test_a_file_that_is_still_changing_is_not_kept(images: Set, computed: list[str]) -> None:
    path = images.dicts[0]["file_name"]
    os.utime(path)  # now: a coarse clock may give the next change the same time
    first = images.digest()
    content = bytearray(Path(path).read_bytes())
    content[-1] ^= 1
    Path(path).write_bytes(bytes(content))
    os.utime(path, ns=(first[0][FILE_KEY][3], first[0][FILE_KEY][3]))
    computed.clear()
    assert images.digest()[0][FILE_KEY][1] == digest_file(path) != first[0][FILE_KEY][1]
    assert computed == ["digest_file"]


def test_two_roots_share_a_cache(images: Set, tmp_path: Path) -> None:
    images.digest()
    other = make_dict(tmp_path / "other", 0)
    Path(other["file_name"]).write_bytes(Path(images.dicts[1]["file_name"]).read_bytes())
    size = os.path.getsize(images.dicts[0]["file_name"])
    with open(other["file_name"], "r+b") as file:
        file.truncate(size)
    os.utime(other["file_name"], ns=(0, 0))  # same name, size and time as in the first root
    (found,) = with_digests([other], str(tmp_path / "other"), str(images.cache))
    assert found[FILE_KEY][1] == digest_file(other["file_name"])


@pytest.mark.parametrize("fault", ["missing", "outside", "folder", "no_name", "annotation"])
def test_what_cannot_be_digested_is_left_out(images: Set, tmp_path: Path, fault: str) -> None:
    one = images.dicts[1]
    if fault == "missing":
        os.unlink(one["file_name"])
    elif fault == "outside":
        one["file_name"] = make_dict(tmp_path / "elsewhere", 1)["file_name"]
    elif fault == "folder":
        one["file_name"] = str(images.root / "train")
    elif fault == "no_name":
        del one["file_name"]
    else:
        one["annotations"][0]["bbox"] = [1]
    found = images.digest()
    left_out = OBJECTS_KEY if fault == "annotation" else FILE_KEY
    assert left_out not in found[1]
    assert all({FILE_KEY, OBJECTS_KEY} <= set(each) for each in (found[0], found[2]))
    with pytest.raises((ValueError, OSError)) as expected:
        make_planner(images.root).plan({**one, "bgaug_visit": 0})
    with pytest.raises(type(expected.value)):  # the draw reports it as without digests
        make_planner(images.root).plan({**found[1], "bgaug_visit": 0})


@pytest.mark.timeout(20)
def test_a_pipe_does_not_block(images: Set) -> None:
    path = images.dicts[1]["file_name"]
    os.unlink(path)
    os.mkfifo(path)
    assert FILE_KEY not in images.digest()[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-5],
        lambda content: content.replace(b"train/0.png", b"train/1.png"),
        lambda content: b"[1, 2]",
        lambda content: b"\xff" + content,
    ],
)
def test_a_damaged_file_is_computed_again(
    images: Set, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = images.digest()
    whole = images.kept.read_bytes()
    images.kept.write_bytes(damage(whole))
    assert images.digest() == first
    assert images.kept.name in caplog.text
    assert images.kept.read_bytes() == whole


def test_a_folder_that_cannot_be_written_to(
    images: Set, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    VariantCache(str(images.cache))

    def full(contents: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    assert FILE_KEY in images.digest()[0]
    assert "No space left" in caplog.text


def test_they_do_not_get_in_the_way_of_the_cache(images: Set, computed: list[str]) -> None:
    images.digest()  # before the cache is first opened
    cache = VariantCache(str(images.cache))
    assert cache.reject("ab" * 32, "flat", {})
    cache.gc(max_bytes=1, temp_age_s=0, grace_s=0)
    computed.clear()
    images.digest()
    assert computed == []
    (images.cache / "thesis.tex").touch()
    (images.cache / "bgaug_cache.json").unlink()
    with pytest.raises(CacheError, match=r"thesis\.tex"):
        images.digest()


def test_progress_sees_every_image(images: Set) -> None:
    seen: Dicts = []

    def progress(dataset_dicts: Any) -> Any:
        for each in dataset_dicts:
            seen.append(each)
            yield each

    with_digests(images.dicts, str(images.root), str(images.cache), progress)
    assert seen == images.dicts
