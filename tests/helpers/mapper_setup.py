"""One image with planner, cache and mapper, for tests of the mapper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.painting.sidecar import job_sidecar
from bgaug_d2.pixels.read import read_image
from bgaug_d2.sampling.mapper import BackgroundAugMapper
from bgaug_d2.sampling.outcomes import OUTCOMES
from bgaug_d2.sampling.planner import JobPlanner
from tests.helpers.dataset_dicts import make_dict, make_planner, paint, reading_mapper, recoloured

Sample = dict[str, Any]


class Setup:
    """One image, its planner and cache; ``mapper(...)`` wraps ``reading_mapper`` by default."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.one = make_dict(root, 7)
        self.draw = {**self.one, "bgaug_visit": 0}
        self.planner: JobPlanner = make_planner(root, variants=1)
        self.cache = VariantCache(str(root / "cache"))
        self.job = self.planner.plan_variant(self.one, 1).job()
        self.original = read_image(self.one["file_name"])
        self.picture = recoloured(self.job, root)

    def mapper(
        self,
        on_miss: str = "original",
        client: Any = None,
        wrapped: Callable[[Sample], Any] = reading_mapper,
    ) -> BackgroundAugMapper:
        return BackgroundAugMapper(wrapped, self.planner, self.cache, client, on_miss, 3.0)

    def paint(self) -> None:
        paint(self.cache, self.job, self.root)

    def reject(self, reason: str) -> None:
        assert self.cache.reject(self.job.key, reason, job_sidecar(self.job, 0, "now"))

    def cached_picture(self) -> Path:
        (picture,) = (self.root / "cache").glob("??/??/*.png")
        return picture

    def check_original(self, sample: Sample, outcome: str) -> None:
        assert sample["bgaug"] == outcome
        assert sample["bgaug"] in OUTCOMES
        assert sample["file_name"] == self.one["file_name"]
        assert "bgaug_source" not in sample
        np.testing.assert_array_equal(sample["image"], self.original)
