"""Tables from a folder of runs: baseline against augmented, mean and deviation over seeds."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Column title -> (task, metric) in results.json, COCO's names.
METRICS = {
    "box AP": ("bbox", "AP"),
    "box AP50": ("bbox", "AP50"),
    "box AP75": ("bbox", "AP75"),
    "mask AP": ("segm", "AP"),
}
BASELINE_SUFFIX = "_baseline"
AUGMENTED_MARK = "_bgaug"


class ReportError(ValueError):
    """The runs cannot be put into a table; the message names the file or folder and why."""


@dataclass(frozen=True)
class Run:
    """What a table needs of one ``results.json``.

    Attributes:
        name: Of the experiment; runs of one name differ in their seed only.
        seed: Of the run.
        iterations: Optimizer steps.
        metrics: Percent, 0..100, by task (``bbox``, ``segm``) and metric (``AP``, ``AP50``, ...).
    """

    name: str
    seed: int
    iterations: int
    metrics: dict[str, dict[str, float]]

    def value(self, column: str) -> float | None:
        """Percent, or None where the run has no such metric (or it is not a number)."""
        task, metric = METRICS[column]
        value = self.metrics.get(task, {}).get(metric)
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Cell:
    """One metric of one experiment.

    Attributes:
        mean: Percent.
        deviation: Sample standard deviation over seeds; None with fewer than two.
        count: Seeds that have the metric.
        difference: Mean difference to the baseline over the seeds that both have; None without any.
        pairs: Number of those seeds.
    """

    mean: float
    deviation: float | None
    count: int
    difference: float | None
    pairs: int


@dataclass(frozen=True)
class TableRow:
    """One experiment: its runs' seeds and iterations and a cell (or None) per column."""

    name: str
    seeds: tuple[int, ...]
    iterations: tuple[int, ...]
    cells: dict[str, Cell | None]


def load_runs(folder: Path) -> list[Run]:
    """Read every ``results.json`` below ``folder``.

    Raises:
        ReportError: There is none, one is malformed, or two runs have the same name and seed.
    """
    runs: dict[tuple[str, int], Run] = {}
    for path in sorted(folder.rglob("results.json")):
        run = _read_run(path)
        if (run.name, run.seed) in runs:
            raise ReportError(f"{path}: a second run of {run.name} with seed {run.seed}; keep one")
        runs[run.name, run.seed] = run
    if not runs:
        raise ReportError(f"{folder} holds no results.json; tools/train_net.py writes one a run")
    return list(runs.values())


def compare(runs: Sequence[Run]) -> list[TableRow]:
    """A row an experiment, each baseline before its augmented twins.

    ``toy_bgaug`` and ``toy_bgaug_expand`` are compared with ``toy_baseline``, seed by seed.

    Raises:
        ReportError: A run and its baseline differ in iterations, so that they do not compare.
    """
    by_name: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (_stem(run.name), _is_augmented(run.name), run.name)):
        by_name.setdefault(run.name, []).append(run)
    rows = []
    for name, group in by_name.items():
        baseline = by_name.get(_stem(name) + BASELINE_SUFFIX, []) if _is_augmented(name) else []
        _check_iterations(group, baseline)
        cells = {column: _cell(column, group, baseline) for column in METRICS}
        seeds = tuple(sorted(run.seed for run in group))
        iterations = tuple(sorted({run.iterations for run in group}))
        rows.append(TableRow(name, seeds, iterations, cells))
    return rows


def to_markdown(rows: Sequence[TableRow]) -> str:
    """A Markdown table; ``(+x)`` is the mean difference to the baseline over common seeds."""
    header = ["experiment", "seeds", "iterations", *METRICS]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        numbers = [str(len(row.seeds)), "/".join(map(str, row.iterations))]
        lines.append([row.name, *numbers, *(_format(cell) for cell in row.cells.values())])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def to_csv(rows: Sequence[TableRow]) -> str:
    """One line per experiment and metric, numbers unrounded."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["experiment", "metric", "seeds", "mean", "deviation", "difference_to_baseline", "pairs"]
    )
    for row in rows:
        for column, cell in row.cells.items():
            if cell is not None:
                numbers = [cell.count, cell.mean, cell.deviation, cell.difference, cell.pairs]
                writer.writerow([row.name, column, *numbers])
    return buffer.getvalue()


def _read_run(path: Path) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics = {
            task: {name: float(value) for name, value in values.items() if _is_number(value)}
            for task, values in content["metrics"].items()
        }
        return Run(str(content["name"]), int(content["seed"]), int(content["iterations"]), metrics)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(
            f"{path} is no results.json of tools/train_net.py: {type(error).__name__}: {error}"
        ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)  # not null (no ground truth), not the table per class


def _stem(name: str) -> str:
    return name.removesuffix(BASELINE_SUFFIX).split(AUGMENTED_MARK)[0]


def _is_augmented(name: str) -> bool:
    return AUGMENTED_MARK in name


def _check_iterations(group: Iterable[Run], baseline: Iterable[Run]) -> None:
    lengths = {run.iterations: run for run in [*baseline, *group]}
    if len(lengths) > 1:
        (short, a), (long, b) = sorted(lengths.items())[:2]
        raise ReportError(
            f"{a.name} (seed {a.seed}) has {short} iterations but {b.name} (seed {b.seed}) has "
            f"{long}; only runs of equal length compare"
        )


def _cell(column: str, group: Sequence[Run], baseline: Sequence[Run]) -> Cell | None:
    values = {run.seed: value for run in group if (value := run.value(column)) is not None}
    if not values:
        return None
    reference = {run.seed: value for run in baseline if (value := run.value(column)) is not None}
    differences = [values[seed] - reference[seed] for seed in sorted(values.keys() & reference)]
    return Cell(
        mean=statistics.fmean(values.values()),
        deviation=statistics.stdev(values.values()) if len(values) > 1 else None,
        count=len(values),
        difference=statistics.fmean(differences) if differences else None,
        pairs=len(differences),
    )


def _format(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    deviation = "" if cell.deviation is None else f" ± {cell.deviation:.2f}"
    difference = "" if cell.difference is None else f" ({cell.difference:+.2f})"
    return f"{cell.mean:.2f}{deviation}{difference}"
