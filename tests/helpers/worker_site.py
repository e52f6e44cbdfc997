"""A small data set with a cache, and the spec of a worker for it, for tests of workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.config.bgaug import AdvancedWorkerConfig, WorkerConfig
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.worker import engines
from bgaug_d2.worker.pool import WorkerPool
from bgaug_d2.worker.protocol import WorkerSpec
from tests.helpers.factories import MODEL, make_job, write_image

# A hang is noticed soon, but a process that has to wait for its core is not taken for one.
FAST = {"heartbeat_s": 0.1, "hang_timeout_s": 3.0, "backoff_s": 0.01, "deadline_s": 60.0}


class Site:
    """One image under ``root/data``, a cache, and the record of what the fake engine painted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.source = write_image(self.data)
        self.cache_dir = str(root / "cache")
        self.record = root / "batches.jsonl"
        self.count = 0

    @property
    def cache(self) -> VariantCache:
        return VariantCache(self.cache_dir)

    def job(self, prompt: str = "noise", **fields: Any) -> InpaintJob:
        """A job with its own key; what ``prompt`` can be, see ``fake_engines``."""
        self.count += 1
        defaults = {"source": self.source, "resolution": 32, "variant": self.count}
        return make_job(prompt=prompt, **{**defaults, **fields})

    def spec(self, builder: str = "build", spec: Any = None, **options: Any) -> WorkerSpec:
        """A worker with a fake engine; ``spec`` has fields of ``WorkerSpec``."""
        defaults: dict[str, Any] = {
            "engine": f"tests.helpers.fake_engines:{builder}",
            "engine_options": {"record": str(self.record), **options},
            "cache_dir": self.cache_dir,
            "image_root": str(self.data),
            "recipe_model_sha256": MODEL.sha256,
            "dtype": "float32",
        }
        return WorkerSpec(**defaults | (spec or {}))

    def pool(self, *specs: WorkerSpec, **advanced: Any) -> WorkerPool:
        """A pool, not started, that is quick to notice and to restart."""
        config = WorkerConfig(advanced=AdvancedWorkerConfig(**{**FAST, **advanced}))
        return WorkerPool(list(specs) or [self.spec()], config, str(self.root / "logs"))

    def painted(self) -> list[list[str]]:
        """The prompts of each batch that the fake engine took."""
        if not self.record.exists():
            return []
        return [json.loads(line) for line in self.record.read_text().splitlines()]


def use_engine(monkeypatch: pytest.MonkeyPatch, builder: str) -> None:
    """Put another engine, ``module:callable``, in the place of the default one."""
    kind = replace(engines.ENGINES["continuous"], builder=builder)
    monkeypatch.setitem(engines.ENGINES, "continuous", kind)


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Return as soon as ``condition`` holds; fail if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
