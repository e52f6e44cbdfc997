"""Counts what an engine does: rows, pictures, and how long requests take."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

_RECENT = 512  # requests whose latency is kept


@dataclass(frozen=True)
class Reading:
    """Totals since the start, and times of the last 512 requests.

    Attributes:
        calls, rows: UNet calls, and rows evaluated in them.
        pictures: Requests answered.
        occupancy: Share of the calls' rows that were in use, 0..1; None before the first call.
        rows_per_s, images_per_s: While there was something to do.
        latency_p50_s, latency_p99_s: From submission to answer; None before the first answer.
    """

    calls: int
    rows: int
    pictures: int
    occupancy: float | None
    rows_per_s: float
    images_per_s: float
    latency_p50_s: float | None
    latency_p99_s: float | None


class Meter:
    """The engine reports each event; any thread may ``read``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._submitted: dict[str, float] = {}
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._calls = self._rows = self._capacity = self._pictures = 0
        self._busy_s = 0.0  # time with requests under way, up to ``_busy_since``
        self._busy_since: float | None = None

    def submitted(self, request_id: str) -> None:
        """A request has come."""
        with self._lock:
            now = self._clock()
            if not self._submitted:
                self._busy_since = now
            self._submitted[request_id] = now

    def stepped(self, rows: int, max_batch_rows: int) -> None:
        """UNet calls of at most ``max_batch_rows`` rows have evaluated ``rows`` rows in all."""
        with self._lock:
            # Rounded up: the last call may have empty rows, and occupancy is to show them.
            calls = -(-rows // max_batch_rows)
            self._calls += calls
            self._rows += rows
            self._capacity += calls * max_batch_rows

    def answered(self, request_id: str) -> None:
        """A request's result is handed out."""
        with self._lock:
            now = self._clock()
            self._latencies.append(now - self._submitted.pop(request_id, now))
            self._pictures += 1
            if not self._submitted and self._busy_since is not None:
                self._busy_s += now - self._busy_since
                self._busy_since = None

    def read(self) -> Reading:
        """The numbers up to now."""
        with self._lock:
            since = self._busy_since
            busy_s = self._busy_s + (0.0 if since is None else self._clock() - since)
            latencies = sorted(self._latencies)
            # Rates count busy time only: an idle engine is not a slow one.
            return Reading(
                calls=self._calls,
                rows=self._rows,
                pictures=self._pictures,
                occupancy=self._rows / self._capacity if self._capacity else None,
                rows_per_s=self._rows / busy_s if busy_s else 0.0,
                images_per_s=self._pictures / busy_s if busy_s else 0.0,
                latency_p50_s=_quantile(latencies, 0.5),
                latency_p99_s=_quantile(latencies, 0.99),
            )


def _quantile(ordered: list[float], share: float) -> float | None:
    """The quantile by nearest rank; None without values."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else None
