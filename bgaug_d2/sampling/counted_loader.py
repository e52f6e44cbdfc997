"""A loader that counts what its samples show and drives the look-ahead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from bgaug_d2.sampling.lookahead import LookAhead
from bgaug_d2.sampling.outcomes import OUTCOMES


class CountedLoader:
    """A loader whose consumed samples are counted by what they show; it drives the look-ahead too.

    Args:
        loader: Batches, lists of samples with ``bgaug`` (one of ``OUTCOMES``; "original" where
            absent).
        look_ahead: Starts with the first batch, when the loader has forked its processes, is
            notified of each batch, and ends with ``close``.
    """

    def __init__(
        self, loader: Iterable[list[dict[str, Any]]], look_ahead: LookAhead | None = None
    ) -> None:
        self.loader = loader
        self.look_ahead = look_ahead
        self.wait_s = 0.0
        self._counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        # What `interval` has returned already; the totals themselves keep growing.
        self._reported: Counter[str] = Counter()
        self._reported_wait_s = 0.0

    @property
    def totals(self) -> dict[str, int]:
        """Samples handed to training so far, by outcome; the sum is their number."""
        return dict(self._counts)

    def interval(self) -> dict[str, float]:
        """What happened since the last call, for the event storage.

        Returns:
            Samples by outcome, and ``wait_s``, the seconds that training waited for data.
        """
        numbers: dict[str, float] = {
            outcome: count - self._reported[outcome] for outcome, count in self._counts.items()
        }
        numbers["wait_s"] = self.wait_s - self._reported_wait_s
        self._reported = self._counts.copy()
        self._reported_wait_s = self.wait_s
        return numbers

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Batches of the wrapped loader; nothing is loaded before the first is asked for."""
        batches = iter(self.loader)
        while True:
            # The clock runs for `next` alone: training's own time passes at the `yield`.
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.wait_s += time.perf_counter() - began
            # A baseline's mapper adds no `bgaug`: all its samples are originals.
            self._counts.update(sample.get("bgaug", "original") for sample in batch)
            if self.look_ahead is not None:
                # After the first `next`: a fork would copy the locks that the thread holds.
                self.look_ahead.start()
                self.look_ahead.advance(len(batch))
            yield batch

    def close(self) -> None:
        """Stop looking ahead."""
        if self.look_ahead is not None:
            self.look_ahead.close()
