"""How training goes, counted and timed over all of its processes."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from detectron2.engine import HookBase
from detectron2.utils import comm

from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.outcomes import outcome_sentence

logger = logging.getLogger(__name__)

# Iterations between two sums over the training processes; Detectron2's writers do the same.
_PERIOD = 20


@dataclass
class TrainingStats:
    """How training went, over all training processes.

    Attributes:
        start_iter: First iteration; above 0 after a resume.
        end_iter: Iterations completed.
        wall_s: Seconds from the first to the last iteration, evaluations included.
        train_s: Seconds within iterations.
        wait_s: Seconds of these that the slowest process waited for data.
        outcomes: Training samples by what they showed (``sampling.outcomes.OUTCOMES``).
        look_ahead: Draws by what the look-ahead did about them.
    """

    start_iter: int = 0
    end_iter: int = 0
    wall_s: float = 0.0
    train_s: float = 0.0
    wait_s: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    look_ahead: dict[str, int] = field(default_factory=dict)


class TrainingStatsHook(HookBase):
    """Counts and times training and writes ``bgaug/<outcome>`` to the event storage.

    These are totals over all training processes, so hits of a whole run can be read off its end.
    """

    def __init__(self, stats: TrainingStats) -> None:
        self.stats = stats
        self._began = 0.0

    def before_train(self) -> None:
        self.stats.start_iter = self.stats.end_iter = self.trainer.start_iter

    def before_step(self) -> None:
        self._began = time.perf_counter()

    def after_step(self) -> None:
        self.stats.train_s += time.perf_counter() - self._began
        self.stats.end_iter = self.trainer.iter + 1
        if self.stats.end_iter % _PERIOD == 0:
            self._sum_up()
            for outcome, count in self.stats.outcomes.items():
                # A total needs no median over the last iterations.
                self.trainer.storage.put_scalar(f"bgaug/{outcome}", count, smoothing_hint=False)

    def after_train(self) -> None:
        loader: CountedLoader = self.trainer.data_loader
        loader.close()
        if self.trainer.iter < self.trainer.max_iter:
            return  # it failed here, and the other processes would never answer
        self._sum_up()
        logger.info("Training showed, %s", outcome_sentence(self.stats.outcomes))

    def _sum_up(self) -> None:
        loader: CountedLoader = self.trainer.data_loader
        looked = loader.look_ahead.counts if loader.look_ahead else {}
        # Every process takes part, though only the first keeps the sums.
        found = comm.gather((loader.totals, dict(looked), loader.wait_s))
        if not comm.is_main_process():
            return
        outcomes: Counter[str] = Counter()
        look_ahead: Counter[str] = Counter()
        for totals, counts, _ in found:
            outcomes.update(totals)
            look_ahead.update(counts)
        self.stats.outcomes, self.stats.look_ahead = dict(outcomes), dict(look_ahead)
        # The others wait for the slowest process in every step.
        self.stats.wait_s = max(wait_s for _, _, wait_s in found)
