"""An engine of a given speed that paints nothing worth seeing: for measuring what is around one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from bgaug_d2.painting import PaintRequest, PaintResult


class PacedEngine:
    """Answers with the colours inverted, one picture every ``1 / images_per_s`` seconds.

    Attributes:
        rows: Always 1.
        progress: Grows with every picture.
    """

    def __init__(self, images_per_s: float) -> None:
        if not images_per_s > 0:
            raise ValueError(f"images_per_s={images_per_s!r} must be positive")
        self.rows = 1
        self.progress = 0
        self._pause_s = 1 / images_per_s
        self._due = 0.0
        self._queue: deque[PaintRequest] = deque()

    @property
    def pending(self) -> int:
        """Requests not yet answered."""
        return len(self._queue)

    def submit(self, request: PaintRequest) -> None:
        """Queue a request."""
        self._queue.append(request)

    def poll(self) -> list[PaintResult]:
        """Answer the oldest request when it is time; empty when idle."""
        if not self._queue:
            return []
        # A late answer does not make the next one late as well.
        self._due = max(self._due, time.monotonic() - self._pause_s) + self._pause_s
        time.sleep(max(self._due - time.monotonic(), 0))
        request = self._queue.popleft()
        self.progress += 1
        return [PaintResult(request.request_id, 255 - request.image, None)]

    def metrics(self) -> dict[str, float | None]:
        """``queue``, the requests that wait."""
        return {"queue": len(self._queue)}

    def probe(self) -> None:
        """There is no device that could be broken."""
        self.progress += 1


def build_paced_engine(options: Mapping[str, Any]) -> PacedEngine:
    """The engine, from ``images_per_s``."""
    return PacedEngine(float(options["images_per_s"]))
