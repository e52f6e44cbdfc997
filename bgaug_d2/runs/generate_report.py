"""What became of the pictures that ``generate`` was to paint."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bgaug_d2.config.parse import plain
from bgaug_d2.errors import IncompleteError
from bgaug_d2.runs.announce import announce_rate
from bgaug_d2.sampling.planner import DrawPlan

logger = logging.getLogger(__name__)

_EXAMPLES = 3


@dataclass(frozen=True)
class PictureOutcome:
    """What became of one picture.

    Attributes:
        kind: ``painted``, ``cached``, ``missing``, ``skipped`` (by a rule), ``rejected`` (by the
            quality rules), ``error`` or ``unavailable`` (no painting process is left).
        reason: Why, for the last four kinds.
        image: File name of the source, relative to the data set's images.
        num_bytes: Size of the picture.
        plan: Of the picture, when it is ``missing``.
    """

    kind: str
    reason: str = ""
    image: str = ""
    num_bytes: int = 0
    plan: DrawPlan | None = None


@dataclass
class PaintingReport:
    """Counts over all pictures of an experiment, as ``generate_report.json`` has them.

    Attributes:
        total: Pictures that the experiment can ask for.
        counts: By ``PictureOutcome.kind``.
        reasons: For ``skipped``, ``rejected`` and ``error``: by reason.
        examples: For each reason some file names.
        seconds: Spent painting.
        num_bytes: Size of the pictures painted now.
        workers: What the painting processes counted and measured; None if none was started.
    """

    total: int
    counts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    num_bytes: int = 0
    workers: dict[str, Any] | None = None

    def add(self, outcome: PictureOutcome) -> None:
        """Count one picture."""
        self.counts[outcome.kind] += 1
        self.num_bytes += outcome.num_bytes
        if outcome.reason:
            self.reasons.setdefault(outcome.kind, Counter())[outcome.reason] += 1
            examples = self.examples.setdefault(outcome.reason, [])
            if len(examples) < _EXAMPLES:
                examples.append(outcome.image)

    @property
    def images_per_s(self) -> float:
        """Pictures painted per second."""
        return self.counts["painted"] / self.seconds if self.seconds else 0.0

    def lines(self) -> list[str]:
        """The report for people."""
        rate = f" ({self.images_per_s:.2f} images/s)" if self.counts["painted"] else ""
        kinds = ("painted", "cached", "skipped", "rejected", "error", "unavailable", "missing")
        counted = ", ".join(f"{self.counts[kind]} {kind}" for kind in kinds if self.counts[kind])
        lines = [f"{self.total} pictures: {counted or 'none'}{rate}"]
        for kind, reasons in self.reasons.items():
            for reason, count in reasons.most_common():
                names = ", ".join(self.examples[reason])
                lines.append(f"  {kind}: {count} x {reason} (for example {names})")
        return lines


def announce_rest(missing: int, report: PaintingReport) -> None:
    """Say what the rest takes, going by the sample that a dry run has painted."""
    painted = report.counts["painted"]
    if not missing:
        logger.info("dry run: nothing is missing")
    elif not painted:
        logger.info("dry run: time unknown, no picture of the sample was painted")
    else:
        announce_rate(painted, report.seconds, report.num_bytes, missing - painted)


def check_complete(report: PaintingReport, output_dir: str) -> None:
    """Raise IncompleteError if some pictures could not be painted."""
    faults = report.counts["error"] + report.counts["unavailable"]
    if faults:
        raise IncompleteError(
            f"{faults} pictures could not be painted; the reasons are above and in "
            f"{output_dir}/generate_report.json"
        )


def finish(report: PaintingReport, output_dir: str) -> None:
    """Log the report and write ``generate_report.json``."""
    for line in report.lines():
        logger.info("%s", line)
    path = Path(output_dir) / "generate_report.json"
    earlier = _earlier(path)
    content = {**plain(vars(report)), "images_per_s": report.images_per_s, "earlier": earlier}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _earlier(path: Path) -> list[dict[str, Any]]:
    """What earlier calls with this folder painted, so that the cost of a painting is not lost."""
    try:
        last = json.loads(path.read_text())
        kept: list[dict[str, Any]] = list(last.pop("earlier", []))
        return kept + [last] if last["counts"].get("painted") else kept
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is no report and is written over (%s)", path, error)
        return []
