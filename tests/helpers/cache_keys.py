"""Keys and short cuts for tests of the cache."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from bgaug_d2.cache import files as cache_files
from bgaug_d2.cache.sidecar_bytes import encode_sidecar
from bgaug_d2.cache.store import CacheEntry, VariantCache

KEY, OTHER = "a" * 64, "b" * 64
SIDECAR = {"prompt": "Generate a clean background", "variant": 1, "qc": {"background_std": 41.5}}


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
    sidecar_file(cache).write_bytes(encode_sidecar(content))
