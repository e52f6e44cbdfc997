"""Canonical JSON, and SHA-256 digests of values and files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def canonical_json(content: Any) -> bytes:
    """The one byte string of a JSON value. Raises ValueError on NaN and infinity."""
    # Sorted, because a digest must not depend on the order in which a dict was filled.
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def digest_file(path: str | Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_json(content: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON value in canonical form."""
    return hashlib.sha256(canonical_json(content)).hexdigest()
