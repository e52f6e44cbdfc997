"""Named counters that several threads increase."""

from __future__ import annotations

import threading
from collections import Counter


class Counts:
    """Counters by name, each from 0."""

    def __init__(self) -> None:
        # `+=` reads and then writes: without the lock, two threads could lose a count.
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Increase one counter by one."""
        with self._lock:
            self._counts[name] += 1

    def snapshot(self) -> dict[str, int]:
        """A copy of all counters above zero."""
        with self._lock:
            return dict(self._counts)
