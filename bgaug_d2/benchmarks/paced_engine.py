"""A stand-in for the engine, of a given speed: for measuring all that is around an engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bgaug_d2.painting.engine_interface import PaintRequest
from bgaug_d2.painting.one_by_one import OneByOneEngine
from bgaug_d2.pixels.masks import Picture


class PacedEngine(OneByOneEngine):
    """Answers with the colours inverted, one picture every ``1 / images_per_s`` seconds."""

    def __init__(self, images_per_s: float) -> None:
        if not images_per_s > 0:
            raise ValueError(f"images_per_s={images_per_s!r} must be positive")
        super().__init__()
        self._pause_s = 1 / images_per_s
        self._due = 0.0

    def paint(self, request: PaintRequest) -> Picture:
        """The picture, uint8 RGB (S, S, 3), when it is due."""
        # A late answer does not make the next one late as well.
        self._due = max(self._due, time.monotonic() - self._pause_s) + self._pause_s
        time.sleep(max(self._due - time.monotonic(), 0))
        return 255 - request.image


def build_paced_engine(options: Mapping[str, Any]) -> PacedEngine:
    """The engine, from ``images_per_s``."""
    return PacedEngine(float(options["images_per_s"]))
