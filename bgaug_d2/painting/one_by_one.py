"""What engines without a diffusion model share: a queue, answered one picture a ``poll``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from bgaug_d2.painting.engine_interface import PaintRequest, PaintResult
from bgaug_d2.pixels.masks import Picture


class OneByOneEngine(ABC):
    """A ``PaintEngine`` around ``paint``.

    Attributes:
        max_batch_rows: Always 1.
        progress: Grows with every picture.
    """

    def __init__(self) -> None:
        self.max_batch_rows = 1
        self.progress = 0
        self._queue: deque[PaintRequest] = deque()

    @abstractmethod
    def paint(self, request: PaintRequest) -> Picture:
        """The picture, uint8 RGB (S, S, 3)."""

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
        # The request leaves the queue only once it is painted: if ``paint`` raises, it still counts
        # as pending.
        request = self._queue[0]
        image = self.paint(request)
        self._queue.popleft()
        self.progress += 1
        return [PaintResult(request.request_id, image, None)]

    def metrics(self) -> dict[str, float | None]:
        """``queue``, the requests that wait."""
        return {"queue": len(self._queue)}

    def probe(self) -> None:
        """Succeed: there is no device that could be broken."""
        self.progress += 1
