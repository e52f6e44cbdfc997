"""``bgaug cache`` as a user meets it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from bgaug_d2.cache.store import CacheEntry, VariantCache
from bgaug_d2.commands.cache import main
from tests.helpers.tool_runs import bgaug

KEYS = [f"{number:064x}" for number in range(4)]


@pytest.fixture
def cache(tmp_path: Path) -> VariantCache:
    cache = VariantCache(str(tmp_path / "cache"))
    for number, key in enumerate(KEYS[:3]):
        cache.put(key, b"x" * 100_000, {})
        entry = cache.get(key)
        assert isinstance(entry, CacheEntry)
        then = time.time() - 1000 + number
        for path in Path(entry.path).parent.glob(f"{key}.*"):
            os.utime(path, (then, then))
    cache.reject(KEYS[3], "flat", {})
    return cache


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code


def test_stats(cache: VariantCache, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", "--cache", cache.root) == 0
    out = capsys.readouterr().out
    assert re.search(r"pictures +3\n", out)
    assert re.search(r"flat +1\n", out)
    assert "0.30" in out


def test_verify_tells_damage_and_fails_once(
    cache: VariantCache, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", "--cache", cache.root) == 0
    assert "3 pictures and 1 rejections are sound, 0 entries" in capsys.readouterr().out
    entry = cache.get(KEYS[1])
    assert isinstance(entry, CacheEntry)
    Path(entry.path).write_bytes(b"y" * 100_000)
    assert run("verify", "--cache", cache.root) == 1
    out = capsys.readouterr().out
    assert f"{KEYS[1]}: picture does not match its digest" in out
    assert "2 pictures and 1 rejections are sound, 1 entries were damaged" in out
    assert run("verify", "--cache", cache.root) == 0


def test_gc_evicts_and_lists_the_quarantine(
    cache: VariantCache, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = cache.get(KEYS[2])
    assert isinstance(entry, CacheEntry)
    Path(entry.path).write_bytes(b"")
    cache.get(KEYS[2])
    arguments = ("gc", "--cache", cache.root, "--max-gb", "0.00015", "--grace", "0")
    assert run(*arguments) == 0
    out = capsys.readouterr().out
    assert "evicted 1 entries of 0.100 MB" in out
    assert "2 entries of 0.101 MB stay" in out
    assert "2 files in " in out
    assert run(*arguments) == 0
    assert "1 orphaned pictures" in capsys.readouterr().out
    assert [cache.contains(key) for key in KEYS] == [False, True, False, True]


def test_gc_without_a_limit_evicts_nothing(cache: VariantCache) -> None:
    assert run("gc", "--cache", cache.root) == 0
    assert all(map(cache.contains, KEYS))


@pytest.mark.parametrize("command", ["stats", "verify", "gc"])
def test_folder_that_is_no_cache_is_told_in_one_sentence(tmp_path: Path, command: str) -> None:
    folder = tmp_path / "typo"
    message = run(command, "--cache", str(folder))
    assert isinstance(message, str)  # sys.exit(text): printed to stderr, status 1
    assert "is no cache of bgaug_d2" in message
    assert "\n" not in message
    assert not folder.exists()


def test_export_mistake_is_told_in_one_sentence(cache: VariantCache, tmp_path: Path) -> None:
    message = run(
        *("export-coco", "--cache", cache.root, "--annotations", str(tmp_path / "no.json")),
        *("--image-dir", str(tmp_path), "--out", str(tmp_path / "out"), "--where", "variant=1"),
    )
    assert message == f"{tmp_path / 'no.json'} cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gc", "--max-gb", "0"], "more than 0"),
        (["gc", "--max-gb", "nan"], "more than 0"),
        (["gc", "--grace", "-1"], "0 or more"),
        (["export-coco", "--where", "prompt"], "FIELD=VALUE"),
        ([], "COMMAND"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_from_a_command_line(cache: VariantCache, tmp_path: Path) -> None:
    for arguments, status, text in [
        (["--help"], 0, "usage: bgaug cache "),
        (["export-coco", "--help"], 0, "--originals"),
        (["stats", "--cache", cache.root], 0, "pictures"),
        (["stats", "--cache", str(tmp_path)], 1, "is no cache"),
    ]:
        done = bgaug("cache", *arguments, cwd=tmp_path)
        assert done.returncode == status, done.stderr
        assert text in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
