"""How training goes, counted and timed over all of its processes."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from detectron2.engine import HookBase
from detectron2.utils import comm

from bgaug_d2.sampling.counted_loader import CountedLoader

logger = logging.getLogger(__name__)

# Iterations between two sums over the training processes; Detectron2's writers do the same.
_PERIOD = 20


class CourseHook(HookBase):
    """Counts and times training and writes ``bgaug/<outcome>`` to the event storage.

    These are totals over all training processes, so hits of a whole run can be read off its end.
    """

    def __init__(self, course: Course) -> None:
        self.course = course
        self._began = 0.0

    def before_train(self) -> None:
        self.course.start_iter = self.course.end_iter = self.trainer.start_iter

    def before_step(self) -> None:
        self._began = time.perf_counter()

    def after_step(self) -> None:
        self.course.train_s += time.perf_counter() - self._began
        self.course.end_iter = self.trainer.iter + 1
        if self.course.end_iter % _PERIOD == 0:
            self._sum_up()
            for outcome, count in self.course.outcomes.items():
                self.trainer.storage.put_scalar(f"bgaug/{outcome}", count, smoothing_hint=False)

    def after_train(self) -> None:
        loader: CountedLoader = self.trainer.data_loader
        loader.close()
        if self.trainer.iter < self.trainer.max_iter:
            return  # it failed here, and the other processes would wait for ever
        self._sum_up()
        logger.info("Training showed, %s", outcome_sentence(self.course.outcomes))

    def _sum_up(self) -> None:
        loader: CountedLoader = self.trainer.data_loader
        looked = loader.look_ahead.counts if loader.look_ahead else {}
        found = comm.gather((loader.totals, dict(looked), loader.wait_s))
        if not comm.is_main_process():
            return
        outcomes: Counter[str] = Counter()
        look_ahead: Counter[str] = Counter()
        for totals, counts, _ in found:
            outcomes.update(totals)
            look_ahead.update(counts)
        self.course.outcomes, self.course.look_ahead = dict(outcomes), dict(look_ahead)
        self.course.wait_s = max(wait_s for _, _, wait_s in found)


@dataclass
class Course:
    """How training went, over all training processes.

    Attributes:
        start_iter: First iteration; above 0 after a resume.
        end_iter: Iterations completed.
        wall_s: Seconds from the first to the last iteration, evaluations included.
        train_s: Seconds within iterations.
        wait_s: Seconds of these that the slowest process waited for data.
        outcomes: Training samples by what they showed (``mapper.OUTCOMES``).
        look_ahead: Draws by what the look-ahead did about them.
    """

    start_iter: int = 0
    end_iter: int = 0
    wall_s: float = 0.0
    train_s: float = 0.0
    wait_s: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    look_ahead: dict[str, int] = field(default_factory=dict)


def outcome_sentence(outcomes: Mapping[str, int]) -> str:
    """For example ``of 80 samples: 41 original, 30 hit, 9 miss``."""
    counted = [f"{count} {name}" for name, count in outcomes.items() if count]
    return f"of {sum(outcomes.values())} samples: {', '.join(counted) or 'none'}"
