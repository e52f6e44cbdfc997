"""Whatever is stored comes back; whatever is changed is noticed; any history ends consistent."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bgaug_d2.cache.files import sidecar_path
from bgaug_d2.cache.sidecar_bytes import CorruptEntryError, decode_sidecar, encode_sidecar
from bgaug_d2.cache.store import CacheEntry, Rejection, VariantCache
from bgaug_d2.painting.sidecar import job_sidecar
from tests.helpers.factories import make_job

KEYS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(4)]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.text(max_size=8).filter(lambda name: name not in ("schema", "key", "digest"))
sidecars = st.dictionaries(names, json_values, max_size=6)


def sealed(content: dict[str, Any], key: str = KEYS[0]) -> bytes:
    return encode_sidecar({**content, "schema": 1, "key": key})


@given(sidecars)
def test_sealed_content_comes_back(content: dict[str, Any]) -> None:
    opened = decode_sidecar(sealed(content), KEYS[0])
    digest = opened.pop("digest")
    assert len(digest) == 64
    assert opened == {**content, "schema": 1, "key": KEYS[0]}
    assert sealed(opened) == sealed(content)


@given(sidecars, st.data())
def test_any_changed_byte_of_a_sidecar_is_noticed(content: dict[str, Any], data: Any) -> None:
    before = sealed(content)
    at = data.draw(st.integers(0, len(before) - 1))
    kind = data.draw(st.sampled_from(["replace", "insert", "delete", "truncate"]))
    byte = bytes([data.draw(st.integers(0, 255))])
    after = {
        "replace": before[:at] + byte + before[at + 1 :],
        "insert": before[:at] + byte + before[at:],
        "delete": before[:at] + before[at + 1 :],
        "truncate": before[:at],
    }[kind]
    if after == before:
        return
    with pytest.raises(CorruptEntryError):
        decode_sidecar(after, KEYS[0])


def test_every_flipped_byte_of_a_real_sidecar_is_noticed() -> None:
    job = make_job()
    more = {"T_hat": 12, "qc": {"digest": "0" * 64, "note": '"digest":"x",', "std": 41.5}}
    before = sealed({**job_sidecar(job, 0, "2024-01-01T00:00:00Z"), **more}, job.key)
    assert decode_sidecar(before, job.key)["T_hat"] == 12
    for at in range(len(before)):
        for flip in (0x01, 0x08, 0x20, 0x80, 0xFF):
            after = bytearray(before)
            after[at] ^= flip
            with pytest.raises(CorruptEntryError):
                decode_sidecar(bytes(after), job.key)


@pytest.mark.parametrize(
    "content", [{"a": {"digest": "0" * 64}}, {"a": '"digest":"', "b": [{"digest": None}]}]
)
def test_other_fields_may_be_named_digest(content: dict[str, Any]) -> None:
    opened = decode_sidecar(sealed(content), KEYS[0])
    assert {name: opened[name] for name in content} == content


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_sidecar(data: bytes) -> None:
    with pytest.raises(CorruptEntryError):
        decode_sidecar(data, KEYS[0])


@given(sidecars)
def test_sidecar_of_another_key_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(CorruptEntryError):
        decode_sidecar(sealed(content, KEYS[1]), KEYS[0])


@given(json_values)
def test_valid_json_that_is_not_sealed_is_refused(value: Any) -> None:
    with pytest.raises(CorruptEntryError):
        decode_sidecar(json.dumps(value).encode(), KEYS[0])


class CacheMachine(RuleBasedStateMachine):
    """The cache against a dictionary: ``model`` maps a key to what ``get`` must give."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp()
        self.cache = VariantCache(f"{self.root}/cache")
        self.model: dict[str, bytes | str] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    keys = st.sampled_from(KEYS)

    @rule(key=keys, png=st.binary(max_size=40))
    def put(self, key: str, png: bytes) -> None:
        assert self.cache.put(key, png, {"length": len(png)})
        self.model[key] = png

    @rule(key=keys, reason=st.sampled_from(["flat", "crowd"]))
    def reject(self, key: str, reason: str) -> None:
        assert self.cache.reject(key, reason, {})
        self.model[key] = reason

    @rule(key=keys, which=st.sampled_from(["json", "png"]), data=st.binary(max_size=40))
    def damage(self, key: str, which: str, data: bytes) -> None:
        entry = self.cache.get(key)
        path = Path(sidecar_path(self.cache.root, key))
        if which == "png" and isinstance(entry, CacheEntry):
            path = Path(entry.path)
        if not path.exists() or path.read_bytes() == data:
            return
        path.write_bytes(data)
        self.model.pop(key, None)

    @rule(key=keys)
    def lose_sidecar(self, key: str) -> None:
        Path(sidecar_path(self.cache.root, key)).unlink(missing_ok=True)
        self.model.pop(key, None)

    @rule()
    def sweep(self) -> None:
        self.cache.gc(temp_age_s=0, grace_s=0)

    @rule(limit=st.integers(1, 3000))
    def evict(self, limit: int) -> None:
        report = self.cache.gc(limit, grace_s=0)
        assert report.bytes <= limit
        self.model = {key: value for key, value in self.model.items() if self.cache.contains(key)}

    @rule()
    def reopen(self) -> None:
        self.cache = VariantCache(self.cache.root)

    @rule()
    def verify(self) -> None:
        report = self.cache.verify()
        assert report.pictures == sum(isinstance(value, bytes) for value in self.model.values())
        assert report.rejections == sum(isinstance(value, str) for value in self.model.values())

    @invariant()
    def same_as_model(self) -> None:
        for key in KEYS:
            record, expected = self.cache.get(key), self.model.get(key)
            assert self.cache.contains(key) == (expected is not None)
            if isinstance(expected, bytes):
                assert isinstance(record, CacheEntry)
                assert Path(record.path).read_bytes() == expected
            elif isinstance(expected, str):
                assert isinstance(record, Rejection)
                assert record.reason == expected
            else:
                assert record is None


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
