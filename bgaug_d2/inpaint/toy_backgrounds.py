"""An engine that draws real backgrounds of the toy world: the ceiling for any model.

Chosen with ``inpainter=toy_backgrounds``, for the toy world only. It does not look at the prompt,
nor at T_hat: the new background has nothing of the old one. It cannot draw objects, so
``painters`` refuses recipes that want them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bgaug_d2.data.toy_backgrounds import BACKGROUNDS, paint_background
from bgaug_d2.painting import PaintRequest, PaintResult


class DrawingEngine:
    """Draws one background a ``poll``; the interface is that of ``engine.Engine``.

    Attributes:
        rows: Always 1.
        progress: Grows with every picture.
    """

    def __init__(self) -> None:
        self.rows = 1
        self.progress = 0
        self._queue: list[PaintRequest] = []

    @property
    def pending(self) -> int:
        """Requests not yet answered."""
        return len(self._queue)

    def submit(self, request: PaintRequest) -> None:
        """Queue a request."""
        self._queue.append(request)

    def poll(self) -> list[PaintResult]:
        """Answer the oldest request; empty when idle."""
        if not self._queue:
            return []
        request = self._queue.pop(0)
        rng = np.random.default_rng(request.seed)
        kind = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
        side = len(request.image)
        drawn = np.round(paint_background(kind, rng, side, side)).astype(np.uint8)
        image = np.where(request.background_mask[:, :, None], drawn, request.image)
        self.progress += 1
        return [PaintResult(request.request_id, image, None)]

    def metrics(self) -> dict[str, float | None]:
        """Nothing worth telling."""
        return {}

    def probe(self) -> None:
        """There is no device that could be broken."""
        self.progress += 1


def build_drawing_engine(options: Mapping[str, Any]) -> DrawingEngine:
    """The engine; it has no options of its own, those of a model are left aside."""
    return DrawingEngine()
