"""The bytes of a sidecar: canonical JSON that carries its own digest.

``digest`` is the SHA-256 of the bytes without the field ``digest`` itself. A reader hashes the
bytes that it read, so a changed byte shows and nothing is written as JSON a second time. The other
files beside the entries (``source_digests``) have the same form.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from bgaug_d2.jobs.digests import canonical_json

SCHEMA = 1

# A real sidecar has a few thousand bytes; a damaged one must not fill the memory of a reader.
MAX_SIDECAR_BYTES = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")


class CorruptEntryError(Exception):
    """An entry is not what its writer stored; ``picture`` is the path of the picture to blame."""

    def __init__(self, message: str, picture: str | None = None) -> None:
        super().__init__(message)
        self.picture = picture


def encode_sidecar(content: Mapping[str, Any]) -> bytes:
    """The bytes of a sidecar: canonical JSON with ``digest`` added.

    Raises:
        ValueError, TypeError: A value is no JSON (nor are NaN and infinity), or all is too large.
    """
    data = encode_verified(content)
    if len(data) > MAX_SIDECAR_BYTES:
        raise ValueError(f"sidecar has {len(data)} bytes, at most {MAX_SIDECAR_BYTES} are allowed")
    return data


def decode_sidecar(data: bytes, key: str) -> dict[str, Any]:
    """The content of a sidecar's bytes.

    Raises:
        CorruptEntryError: They are not what ``encode_sidecar`` made for ``key``.
    """
    if len(data) > MAX_SIDECAR_BYTES:
        raise CorruptEntryError("sidecar is too large")
    try:
        content = decode_verified(data)
    except CorruptEntryError as fault:
        raise CorruptEntryError(f"sidecar: {fault}") from fault
    if content.get("key") != key or content.get("schema") != SCHEMA:
        raise CorruptEntryError("sidecar belongs to another key or schema")
    return content


def encode_verified(content: Mapping[str, Any]) -> bytes:
    """Canonical JSON of an object with ``digest`` added, the SHA-256 of the bytes without it.

    Args:
        content: At least one name sorts after ``digest``, as ``schema`` does.

    Raises:
        ValueError, TypeError: A value is no JSON (nor are NaN and infinity).
    """
    # Through JSON once, so that the order is that of the names as they are written (1 -> "1").
    plain = json.loads(canonical_json({**content, "digest": ""}))
    unsigned = {name: value for name, value in plain.items() if name != "digest"}
    plain["digest"] = hashlib.sha256(canonical_json(unsigned)).hexdigest()
    return canonical_json(plain)


def decode_verified(data: bytes) -> dict[str, Any]:
    """The content of bytes that ``encode_verified`` made.

    The digest is checked over the bytes themselves, without the field ``digest``: a hit costs no
    second serialisation, and a change of any byte shows.

    Raises:
        CorruptEntryError: They are something else.
    """
    try:
        content = _DECODER.decode(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise CorruptEntryError("not JSON") from error
    if not isinstance(content, dict) or not _SHA256.fullmatch(str(content.get("digest"))):
        raise CorruptEntryError("not an object with a digest")
    # A field of this name further inside has another value: no text holds its own SHA-256.
    field = f'"digest":"{content["digest"]}",'.encode()
    before, _, after = data.partition(field)
    if hashlib.sha256(before + after).hexdigest() != content["digest"]:
        raise CorruptEntryError("does not match its digest")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # Python reads NaN by default
