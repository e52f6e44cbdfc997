"""Ask for pictures before training needs them: the stream of draws is known in advance."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.sampling.outcomes import REPLIES
from bgaug_d2.sampling.planner import JobPlanner
from bgaug_d2.worker.client import WorkerClient

logger = logging.getLogger(__name__)

# Seconds before a busy or absent painting process is asked again.
_RETRY_S = 0.5
# A thread that hangs in a request must not hold up the end of training.
_CLOSE_TIMEOUT_S = 5.0
# Faults that are logged as warnings: a lasting one hits every draw and would flood the log.
_LOUD_FAULTS = 10


class Draws(Protocol):
    """Turns an index of the sampler into a dataset dict, as ``loader.VisitedDataset`` does."""

    def __getitem__(self, draw: int) -> dict[str, Any]: ...


class LookAhead:
    """A thread that replays this rank's draws ahead of training and enqueues what is missing.

    No fault of it reaches training. ``counts`` says what became of the draws it looked at:
    ``original`` (no picture needed), ``cached``, ``late`` (training was there first), ``error``,
    or what the reply means (``outcomes.REPLIES``); ``busy``, ``unavailable`` and ``timeout`` say
    that it asked until training got there.

    Start it after the loader has forked its processes: a fork copies the locks that other threads
    hold.

    Args:
        sampler: Yields the same indices as the loader's sampler; iterated here a second time.
        dataset: Gives the dataset dict of an index, with ``bgaug_visit``.
        planner, cache, client: As in the mapper.
        look_ahead: Draws of this rank to be ahead of the loader, 1 or more.
        in_flight: Draws that the loader itself holds ahead of training (its prefetch).
    """

    def __init__(
        self,
        sampler: Iterable[int],
        dataset: Draws,
        planner: JobPlanner,
        cache: VariantCache,
        client: WorkerClient,
        look_ahead: int,
        in_flight: int = 0,
    ) -> None:
        if look_ahead < 1 or in_flight < 0:
            raise ValueError(
                f"look_ahead={look_ahead} must be 1 or more and in_flight={in_flight} 0 or more; "
                "build no LookAhead where it is switched off"
            )
        self.counts: Counter[str] = Counter()
        self._sampler = sampler
        self._dataset = dataset
        self._planner = planner
        self._cache = cache
        self._client = client
        self._ahead = look_ahead + in_flight
        self._consumed = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread is None:
            # A daemon, so that it never keeps a finished process alive.
            self._thread = threading.Thread(target=self._run, name="bgaug-look-ahead", daemon=True)
            self._thread.start()

    def advance(self, draws: int) -> None:
        """Training has consumed ``draws`` more draws of this rank."""
        with self._changed:
            self._consumed += draws
            self._changed.notify_all()

    def close(self) -> None:
        """Stop; waits for the thread unless it hangs in a request. Further calls do nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        try:
            for position, draw in enumerate(self._sampler):
                if not self._wait_for_turn(position):
                    return
                self.counts[self._outcome(position, draw)] += 1
        except Exception:  # noqa: BLE001 - reported; training goes on without looking ahead
            self.counts["error"] += 1
            logger.exception(
                "look-ahead stopped; missing pictures are asked for when they are drawn"
            )

    def _wait_for_turn(self, position: int) -> bool:
        """Wait until ``position`` is near enough to training; False when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or position < self._consumed + self._ahead)
            return not self._closed

    def _outcome(self, position: int, draw: int) -> str:
        """Look at one draw and ask for its picture where it is missing."""
        # Training has had this draw: a picture would come too late for it.
        if position < self._consumed:
            return "late"
        try:
            return self._ask_for(position, draw)
        except Exception as error:  # noqa: BLE001 - counted and reported
            loud = self.counts["error"] < _LOUD_FAULTS
            logger.log(
                logging.WARNING if loud else logging.DEBUG,
                "look-ahead cannot ask for draw %d: %s: %s",
                draw,
                type(error).__name__,
                error,
            )
            return "error"

    def _ask_for(self, position: int, draw: int) -> str:
        dataset_dict = self._dataset[draw]
        plan = self._planner.plan(dataset_dict)
        if plan.key is None:
            return "original"
        # Unchecked, at the cost of one `stat`: the draw itself reads and verifies the picture.
        if self._cache.contains(plan.key):
            return "cached"
        # Only now: parsing the objects would be wasted where the picture is there.
        job = plan.job()
        while True:
            meaning = REPLIES[self._client.enqueue(job).status]
            if not meaning.ask_again or not self._pause(position):
                return meaning.looked_ahead

    def _pause(self, position: int) -> bool:
        """Wait before asking again; False when closed or when training has come to ``position``."""
        with self._changed:
            passed = self._changed.wait_for(
                lambda: self._closed or position < self._consumed, _RETRY_S
            )
            return not passed
