"""What kills, damages and fills the cache, as a program of one thread that prints one JSON line.

``kills``: writers are killed at random times while a reader reads. ``mutations``: files are damaged
behind the cache's back. Both run on the real cache and on a deliberately naive one, which shows
that they can find something. ``full-disk`` needs a mount namespace of its own (``unshare -rm``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bgaug_d2.cache.files import QUARANTINE  # noqa: E402
from bgaug_d2.cache.store import CacheEntry, Rejection, VariantCache  # noqa: E402

# Exit status when the machine does not let us run a test.
NOT_PERMITTED = 77

KEYS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(6)]
PAYLOADS = 5  # different contents that each key is given in turn
PAYLOAD_BYTES = 400_000


class Cache(Protocol):
    """What both caches offer here."""

    def put(self, key: str, png: bytes, sidecar: Mapping[str, Any]) -> bool: ...

    def get(self, key: str) -> CacheEntry | Rejection | None: ...


class NaiveCache:
    """Writes in place, trusts what it finds."""

    def __init__(self, root: str) -> None:
        self.root = root

    def put(self, key: str, png: bytes, sidecar: Mapping[str, Any]) -> bool:
        with open(os.path.join(self.root, f"{key}.png"), "wb") as file:
            for start in range(0, len(png), 1 << 16):  # as an encoder writes
                file.write(png[start : start + (1 << 16)])
        with open(os.path.join(self.root, f"{key}.json"), "w") as file:
            json.dump(dict(sidecar), file)
        return True

    def get(self, key: str) -> CacheEntry | None:
        path = os.path.join(self.root, f"{key}.png")
        try:
            with open(os.path.join(self.root, f"{key}.json")) as file:
                sidecar = json.load(file)
            os.stat(path)
        except (OSError, ValueError):
            return None
        return CacheEntry(path, sidecar)


def payload(key: str, number: int) -> bytes:
    """A content that tells which key and number it was made for."""
    return random.Random(f"{key}/{number}").randbytes(PAYLOAD_BYTES)


def make_cache(kind: str, root: str) -> Cache:
    os.makedirs(root, exist_ok=True)
    return VariantCache(root) if kind == "real" else NaiveCache(root)


def kills(kind: str, root: str, count: int, seed: int) -> dict[str, int]:
    """Kill ``count`` writers; read all keys while they write and after each kill."""
    cache, rng = make_cache(kind, root), random.Random(seed)
    contents = {(key, n): payload(key, n) for key in KEYS[:4] for n in range(PAYLOADS)}
    seen: Counter[str] = Counter(hits=0, misses=0, torn=0)
    for start in range(0, count, 2):
        writers = [_fork_writer(cache, contents, f"{seed}/{start}/{i}") for i in range(2)]
        end = time.monotonic() + rng.uniform(0.001, 0.03)
        while time.monotonic() < end:
            _read(cache, rng.choice(KEYS[:4]), contents, seen)
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for key in KEYS[:4]:
            _read(cache, key, contents, seen)
    seen["temporaries"] = len(list(Path(root).rglob(".tmp-*")))
    if isinstance(cache, VariantCache):
        cache.gc(temp_age_s=0, grace_s=0)
        seen["temporaries_after_gc"] = len(list(Path(root).rglob(".tmp-*")))
        seen["pictures_after_gc"] = len(list(Path(root).rglob("*.png")))
        seen["corrupt"] = len(cache.verify().corrupt) + cache.counts["corrupt"]
    return dict(seen)


def _fork_writer(cache: Cache, contents: Mapping[tuple[str, int], bytes], seed: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        rng = random.Random(seed)
        while True:
            (key, number), png = rng.choice(list(contents.items()))
            cache.put(key, png, {"number": number})
    finally:
        os._exit(1)  # never reached: the writer is killed


def _read(
    cache: Cache, key: str, contents: Mapping[tuple[str, int], bytes], seen: Counter[str]
) -> None:
    entry = cache.get(key)
    if not isinstance(entry, CacheEntry):
        seen["misses"] += 1
    elif Path(entry.path).read_bytes() != contents.get((key, entry.sidecar["number"])):
        seen["torn"] += 1
    else:
        seen["hits"] += 1


def mutations(kind: str, root: str, count: int, seed: int) -> dict[str, Any]:
    """Damage an entry in ``count`` ways; a victim that is read nevertheless is ``undetected``."""
    cache, rng = make_cache(kind, root), random.Random(seed)
    seen: Counter[str] = Counter(undetected=0, false_alarms=0)
    kinds: Counter[str] = Counter()
    contents = {key: random.Random(key).randbytes(3000) for key in KEYS}
    for key in KEYS:
        cache.put(key, contents[key], {"number": 0})
    for _ in range(count):
        victim, other = rng.sample(KEYS, 2)
        name, mutate = rng.choice(list(MUTATIONS.items()))
        kinds[name] += 1
        hurt = mutate(rng, _files(root, victim), _files(root, other))
        victims = {victim, other} if hurt == 2 else {victim}
        for key in KEYS:
            found = cache.get(key) is not None
            seen["undetected"] += found and key in victims
            seen["false_alarms"] += not found and key not in victims
        for key in (victim, other):  # heal
            shutil.rmtree(os.path.join(root, QUARANTINE), ignore_errors=True)
            for path in _files(root, key).values():
                path.unlink()
            cache.put(key, contents[key], {"number": 0})
    return {**seen, "kinds": dict(kinds)}


def _files(root: str, key: str) -> dict[str, Path]:
    return {path.suffix: path for path in Path(root).rglob(f"{key}.*")}


Files = dict[str, Path]
Mutation = Callable[[random.Random, Files, Files], int]


def _on_one(change: Callable[[random.Random, bytes], bytes], suffix: str) -> Mutation:
    def mutate(rng: random.Random, victim: Files, other: Files) -> int:
        path = victim[suffix]
        before = path.read_bytes()
        after = change(rng, before)
        if after == before:
            raise RuntimeError("the harness changed nothing")
        path.write_bytes(after)
        return 1

    return mutate


def _flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _append(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice([b"\0", b" ", b"\n", b"}", data])


def _zero(rng: random.Random, data: bytes) -> bytes:
    size = rng.randrange(8, len(data))  # random bytes: eight of them are not all zero
    at = rng.randrange(len(data) - size + 1)
    return data[:at] + bytes(size) + data[at + size :]


def _delete(suffix: str) -> Mutation:
    def mutate(rng: random.Random, victim: Files, other: Files) -> int:
        victim[suffix].unlink()
        return 1

    return mutate


def _swap(*suffixes: str) -> Mutation:
    def mutate(rng: random.Random, victim: Files, other: Files) -> int:
        for suffix in suffixes:
            ours, theirs = victim[suffix].read_bytes(), other[suffix].read_bytes()
            victim[suffix].write_bytes(theirs)
            other[suffix].write_bytes(ours)
        return 2

    return mutate


MUTATIONS: dict[str, Mutation] = {
    **{
        f"{change.__name__[1:]} {suffix}": _on_one(change, suffix)
        for change in (_flip, _truncate, _append, _zero)
        for suffix in (".png", ".json")
    },
    "delete .png": _delete(".png"),
    "delete .json": _delete(".json"),
    "swap .png": _swap(".png"),
    "swap .json": _swap(".json"),
    "swap both": _swap(".png", ".json"),
}


def full_disk(root: str) -> dict[str, Any]:
    """Fill a file system of 1 MB, free it again, make it read-only; the reader must not care."""
    os.makedirs(root, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", root]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        sys.exit(NOT_PERMITTED)
    warnings = _CountingHandler()
    logging.getLogger("bgaug_d2").addHandler(warnings)
    cache = VariantCache(root)
    stored = [cache.put(key, payload(key, 0), {"number": 0}) for key in KEYS]
    result: dict[str, Any] = {"stored": stored, "read_only": cache.read_only}
    result["temporaries"] = len(list(Path(root).rglob(".tmp-*")))
    result["readable"] = [_sound(cache, key) for key in KEYS]
    result["warnings_full"] = warnings.records[:]
    Path(cache.get(KEYS[0]).path).unlink()  # type: ignore[union-attr]
    result["stored_after_freeing"] = VariantCache(root).put(KEYS[2], payload(KEYS[2], 0), {})
    subprocess.run(["mount", "-o", "remount,ro", root], check=True)
    warnings.records.clear()
    frozen = VariantCache(root)
    result["stored_on_read_only"] = [frozen.put(KEYS[3], b"x", {}) for _ in range(3)]
    result["readable_on_read_only"] = [_sound(frozen, KEYS[1])]
    result["damaged_on_read_only"] = [frozen.get(KEYS[0]) is None for _ in range(2)]
    result["warnings_read_only"] = [each for each in warnings.records if "written to" in each]
    return result


class _CountingHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())


def _sound(cache: VariantCache, key: str) -> bool:
    entry = cache.get(key)
    return isinstance(entry, CacheEntry) and Path(entry.path).read_bytes() == payload(key, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("test", choices=("kills", "mutations", "full-disk"))
    parser.add_argument("root", help="an empty folder")
    parser.add_argument("--kind", choices=("real", "naive"), default="real")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.test == "full-disk":
        result = full_disk(args.root)
    else:
        test = kills if args.test == "kills" else mutations
        logging.getLogger("bgaug_d2").setLevel(logging.ERROR)
        result = test(args.kind, args.root, args.count, args.seed)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
