"""Rule 4: whatever is wrong with cache, worker and picture, a draw gives a sample and a reason."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.pixels.read import read_image
from bgaug_d2.sampling.mapper import BackgroundAugMapper
from bgaug_d2.sampling.outcomes import OUTCOMES
from bgaug_d2.worker.protocol import STATUSES, Reply
from tests.helpers.dataset_dicts import make_dict, make_planner, paint, reading_mapper, recoloured

FAULTS = st.sampled_from([OSError("io"), MemoryError(), ValueError("v"), KeyError("k"), EOFError()])
REASONS = st.sampled_from(["flat", "unchanged", "no_objects", "small_background", "crowd", "", "?"])
REPLIES = st.builds(Reply, st.sampled_from(STATUSES), REASONS) | FAULTS
# What happens to the files of the entry, before the look-up or right after it.
DAMAGE = st.sampled_from(["none", "absent", "flip", "truncate", "unlink", "sidecar", "rejected"])
MAPPER_FAULTS = st.none() | FAULTS | st.just("returns None")


class ScriptedClient:
    def __init__(self, reply: Reply | Exception) -> None:
        self.reply = reply

    def enqueue(self, job: Any) -> Reply:
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    def request(self, job: Any, deadline_s: float | None = None) -> Reply:
        return self.enqueue(job)


def damage(root: Path, how: str) -> None:
    for suffix in ("png", "json"):
        if how in ("flip", "truncate", "unlink") and suffix == "json":
            continue
        if how == "sidecar" and suffix == "png":
            continue
        for path in root.glob(f"cache/??/??/*.{suffix}"):
            content = path.read_bytes()
            if how in ("flip", "sidecar"):
                middle = len(content) // 2
                path.write_bytes(
                    content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
                )
            elif how == "truncate":
                path.write_bytes(content[:-7])
            elif how == "unlink":
                path.unlink()


@settings(max_examples=150)
@given(
    on_miss=st.sampled_from(["original", "wait"]),
    before=DAMAGE,
    after=DAMAGE,
    reply=REPLIES,
    fault=MAPPER_FAULTS,
    mode=st.sampled_from(["replace", "expand", "none"]),
)
def test_a_draw_always_gives_a_sample(
    on_miss: str,
    before: str,
    after: str,
    reply: Reply | Exception,
    fault: Exception | str | None,
    mode: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        one = make_dict(root, 1)
        one_variant = {"p": 1.0, "variants": 1} if mode == "replace" else {}
        planner = make_planner(root, mode=mode, **one_variant)
        cache = VariantCache(str(root / "cache"))
        job = planner.plan_variant(one, 1).job()
        if before == "rejected":
            cache.reject(job.key, "flat", {})
        elif before != "absent":
            paint(cache, job, root)
        damage(root, before)

        def wrapped(dataset_dict: dict[str, Any]) -> Any:
            if "cache" in dataset_dict["file_name"]:
                damage(root, after)
                if isinstance(fault, Exception):
                    raise fault
                if fault is not None:
                    return None
            return reading_mapper(dataset_dict)

        client: Any = ScriptedClient(reply)
        mapper = BackgroundAugMapper(wrapped, planner, cache, client, on_miss, 1.0)
        sample = mapper({**one, "bgaug_visit": 0, "bgaug_variant": 1})

        assert sample["bgaug"] in OUTCOMES
        if mode == "none":
            assert sample["bgaug"] == "original"
        elif before == "none" and after == "none" and fault is None:
            assert sample["bgaug"] == "hit"
        if sample["bgaug"] != "hit":
            np.testing.assert_array_equal(sample["image"], read_image(one["file_name"]))
            return
        assert fault is None
        # A flip after the look-up may go unnoticed by the decoder, but not by more than a few
        # pixels.
        if after not in ("flip", "truncate"):
            np.testing.assert_array_equal(sample["image"], recoloured(job, root))


def test_the_faults_above_are_faults() -> None:
    """A damaged picture must not be readable by accident, or the test above would test nothing."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        one = make_dict(root, 1)
        planner = make_planner(root, variants=1)
        for how in ("flip", "truncate", "unlink", "sidecar"):
            cache = VariantCache(str(root / "cache"))
            paint(cache, planner.plan_variant(one, 1).job(), root)
            damage(root, how)
            assert cache.get(planner.plan_variant(one, 1).key) is None, how
