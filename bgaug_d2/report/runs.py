"""Finished runs, from their ``results.json`` and ``generate_report.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bgaug_d2.data.breakdown import BACKGROUND_BINS
from bgaug_d2.errors import ReportError

# AP of the images whose background ratio lies in one bin, and what the bin holds.
BACKGROUNDS = {
    f"APbg{place}": f"{100 * low:.0f}-{100 * high:.0f} %"
    for place, (low, high) in enumerate(pairwise(BACKGROUND_BINS))
}


@dataclass(frozen=True)
class Run:
    """What a table needs of one run.

    Attributes:
        name: The experiment's name; runs of one name differ in their seed only.
        seed: The run's seed.
        iterations: Optimizer steps.
        metrics: Percent, 0..100, by task (``bbox``, ``segm``) and metric (``AP``, ``AP50``, ...,
            and those of ``BACKGROUNDS``).
        training_hours: Hours of one GPU (or of one process on a CPU); None where it is not known.
        painted: Pictures painted for it, beforehand or meanwhile; those found in the cache count
            where they were painted. None where it was shown some but no report says who painted
            them.
        painting_hours: Hours of one GPU that painting processes ran for it; None as above.
        folder: The folder that holds ``results.json``.
        finished: Day of its end, ISO 8601; empty where it is not known.
        commit: This package's commit, seven digits; empty where it is not known.
        inpainter: Id of the model that painted; empty for none.
        machine: Processor and cores; empty where it is not known.
    """

    name: str
    seed: int
    iterations: int
    metrics: dict[str, dict[str, float]]
    training_hours: float | None = None
    painted: int | None = 0
    painting_hours: float | None = 0.0
    folder: str = ""
    finished: str = ""
    commit: str = ""
    inpainter: str = ""
    machine: str = ""


def load_runs(folder: Path) -> list[Run]:
    """Read every ``results.json`` below ``folder``, and the report of painting beside it.

    Raises:
        ReportError: There is none, one is malformed, or two runs have the same name and seed.
    """
    runs: dict[tuple[str, int], Run] = {}
    for path in sorted(folder.rglob("results.json")):
        run = _read_run(path)
        # Which of the two counts would depend on the names of their folders.
        if (run.name, run.seed) in runs:
            raise ReportError(f"{path}: a second run of {run.name} with seed {run.seed}; keep one")
        runs[run.name, run.seed] = run
    if not runs:
        raise ReportError(f"{folder} holds no results.json; `bgaug train` writes one a run")
    return list(runs.values())


def _read_run(path: Path) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics = {
            task: {name: float(value) for name, value in values.items() if _is_number(value)}
            for task, values in content["metrics"].items()
        }
        for task, found in content.get("breakdown", {}).items():
            metrics[task] |= _by_background(found)
        reports = _painting_reports(path, content)
        # Painted pictures were shown, so without a report their cost is unknown, not nothing.
        painting_is_known = bool(reports) or not content.get("outcomes", {}).get("hit")
        painting = [_painting(each) for each in reports]
        return Run(
            name=str(content["name"]),
            seed=int(content["seed"]),
            iterations=int(content["iterations"]),
            metrics=metrics,
            training_hours=_training_hours(content),
            folder=str(path.parent),
            finished=str(content.get("finished", ""))[:10],
            commit=str(content.get("versions", {}).get("git_commit") or "")[:7],
            inpainter=str((content.get("inpainter") or {}).get("id", "")),
            machine=str(content.get("machine", "")),
            painted=sum(painted for painted, _ in painting) if painting_is_known else None,
            painting_hours=sum(seconds for _, seconds in painting) / 3600
            if painting_is_known
            else None,
        )
    # JSON may have any shape: a list has no `items`, a text no keys.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(
            f"{path} is no results.json of `bgaug train`: {type(error).__name__}: {error}"
        ) from error


def _by_background(found: Mapping[str, Any]) -> dict[str, float]:
    """AP by background ratio; nothing with several test sets, which have a level more."""
    bins = zip(BACKGROUNDS, found.get("background", ()), strict=False)
    return {name: float(each["AP"]) for name, each in bins if each["AP"] is not None}


def _training_hours(content: Mapping[str, Any]) -> float | None:
    training = content.get("training")
    if not training:
        return None
    return float(training["wall_s"]) * int(content["training_processes"]) / 3600


def _painting_reports(path: Path, content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Statistics of the painting processes of the run itself and of those before it."""
    reports = [content["workers"]] if content.get("workers") else []
    before = path.with_name("generate_report.json")
    if before.is_file():
        report = json.loads(before.read_text(encoding="utf-8"))
        # Every earlier call of `bgaug paint` with this folder counts too.
        reports += [each.get("workers") or {} for each in (report, *report.get("earlier", ()))]
    return reports


def _painting(stats: Mapping[str, Any]) -> tuple[int, float]:
    """Pictures and seconds of all painting processes; they ran from their start to the end."""
    workers = stats.get("workers", [])
    painted = sum(int(each["counts"].get("painted", 0)) for each in workers)
    return painted, sum(float(each["uptime_s"]) for each in workers)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)  # not null (no ground truth), not the table per class
