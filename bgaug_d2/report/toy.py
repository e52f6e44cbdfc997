"""The report of the toy experiment: every cell against its baseline, seed by seed, with tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bgaug_d2.report.statistics import (
    LEVEL,
    Interval,
    PairedTest,
    holm,
    mean_interval,
    paired_test,
)
from bgaug_d2.report.tables import ReportError, Run
from bgaug_d2.report.toy_plan import METRICS, Plan, PlannedTable

# Compared with the baseline, in tables and in plots of differences; the first one is tested.
COMPARED = ("box AP", "mask AP")
SIZES = {"box APs": "small", "box APm": "medium", "box APl": "large"}
COVERAGE = f"{100 * LEVEL:.0f} %"  # of all intervals shown
_NOTHING = "–"


@dataclass(frozen=True)
class Mean:
    """One metric of one cell: mean and interval in percent, and how many seeds have the metric."""

    interval: Interval
    count: int


@dataclass(frozen=True)
class CellRow:
    """One cell of a table.

    Attributes:
        cell: Its name.
        title: Its title.
        baseline: Name of the cell it is compared with; None for a baseline.
        found: Seeds of the plan that have a run.
        means: By metric; None where no run has it.
        differences: Cell minus baseline in percentage points by metric, over the seeds that both
            have; None where there is no such seed or no baseline.
        p: Of the first of ``COMPARED``, adjusted after Holm over the table; None without a test.
    """

    cell: str
    title: str
    baseline: str | None
    found: tuple[int, ...]
    means: dict[str, Mean | None]
    differences: dict[str, PairedTest | None]
    p: float | None


def compare_cells(plan: Plan, table: PlannedTable, runs: Sequence[Run]) -> list[CellRow]:
    """The rows of one table, from the runs that there are.

    Raises:
        ReportError: Runs of the table, baselines included, differ in iterations.
    """
    baselines = {cell: plan.baseline_of(table, cell) for cell in table.cells}
    check_iterations(plan, runs, [*table.cells, *filter(None, baselines.values())])
    differences = {
        cell: {metric: _difference(plan, runs, cell, other, metric) for metric in COMPARED}
        for cell, other in baselines.items()
    }
    tests = [differences[cell][COMPARED[0]] for cell in table.cells]
    adjusted = holm([None if test is None else test.p for test in tests])
    return [
        CellRow(
            cell=cell,
            title=plan.cells[cell],
            baseline=baselines[cell],
            found=tuple(sorted(run.seed for run in planned_runs(plan, runs, [cell]))),
            means={metric: mean_of(plan, runs, cell, metric) for metric in [*COMPARED, *SIZES]},
            differences=differences[cell],
            p=p,
        )
        for cell, p in zip(table.cells, adjusted, strict=True)
    ]


def cell_difference(
    plan: Plan, runs: Sequence[Run], cell: str, other: str, metric: str = COMPARED[0]
) -> PairedTest | None:
    """``cell`` minus ``other`` in percentage points, paired over the seeds that both have.

    The p-value stands alone: a caller who asks for several corrects them with ``holm``.

    Args:
        plan: Names the cells and seeds.
        runs: Those of other cells and seeds do not count.
        cell: Name in the plan.
        other: Name in the plan.
        metric: One of ``toy_plan.METRICS``.

    Returns:
        None where the two have no seed in common.

    Raises:
        ReportError: An unknown name, or runs of unequal iterations.
    """
    for name in (cell, other):
        if name not in plan.cells:
            raise ReportError(f"{name!r} is no cell of the plan; it has {', '.join(plan.cells)}")
    if metric not in METRICS:
        raise ReportError(f"{metric!r} is no metric; there are {', '.join(METRICS)}")
    check_iterations(plan, runs, [cell, other])
    return _difference(plan, runs, cell, other, metric)


def mean_of(plan: Plan, runs: Sequence[Run], cell: str, metric: str) -> Mean | None:
    """One metric of one cell over the plan's seeds; None where no run has it."""
    values = _values(plan, runs, cell, metric)
    return Mean(mean_interval([*values.values()]), len(values)) if values else None


def planned_runs(plan: Plan, runs: Iterable[Run], cells: Sequence[str]) -> list[Run]:
    """The runs of these cells with one of the plan's seeds."""
    return [run for run in runs if run.name in cells and run.seed in plan.seeds]


def check_iterations(plan: Plan, runs: Sequence[Run], cells: Sequence[str]) -> None:
    """Refuse to compare runs of unequal length.

    Raises:
        ReportError: Two runs of these cells differ in iterations.
    """
    lengths = {run.iterations: run for run in planned_runs(plan, runs, cells)}
    if len(lengths) > 1:
        (short, a), (long, b) = sorted(lengths.items())[:2]
        raise ReportError(
            f"{a.name} (seed {a.seed}) has {short} iterations but {b.name} (seed {b.seed}) has "
            f"{long}; only runs of equal length belong into one table or plot"
        )


def to_markdown(plan: Plan, runs: Sequence[Run], facts: Mapping[str, str]) -> str:
    """The whole report; plots are named as ``toy_plots.write_plots`` writes them.

    Args:
        plan: What was to be run and shown.
        runs: What is there; the report names what is missing or not planned.
        facts: Shown first, as they are: command, commit, machine, date, wall time, ...

    Raises:
        ReportError: Runs within one table differ in iterations.
    """
    parts = ["# The toy experiment", _how_to_read(plan), _facts(facts)]
    for table in plan.tables:
        rows = compare_cells(plan, table, runs)
        parts += [f"## {table.title}", table.text, _against(plan, rows), _rows(plan, rows)]
        parts += [_image(table.title, table.plot)] if table.plot else []
    for plot in plan.plots:
        parts += [f"## {plot.title}", _image(plot.title, plot.file)]
    parts.append(_left_out(plan, runs))
    return "\n\n".join(part for part in parts if part) + "\n"


def _values(plan: Plan, runs: Sequence[Run], cell: str, metric: str) -> dict[int, float]:
    task, name = METRICS[metric]
    found = {
        run.seed: run.metrics.get(task, {}).get(name, math.nan)
        for run in planned_runs(plan, runs, [cell])
    }
    return {seed: value for seed, value in sorted(found.items()) if math.isfinite(value)}


def _difference(
    plan: Plan, runs: Sequence[Run], cell: str, other: str | None, metric: str
) -> PairedTest | None:
    if other is None:
        return None
    first, second = (_values(plan, runs, name, metric) for name in (other, cell))
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        return None
    return paired_test([first[seed] for seed in seeds], [second[seed] for seed in seeds])


def _how_to_read(plan: Plan) -> str:
    return (
        f"Each cell of the experiment was to be trained with {len(plan.seeds)} seeds "
        f"({', '.join(map(str, plan.seeds))}). AP is COCO's, in percent, as the mean over seeds "
        f"with its {COVERAGE} interval (Student's t) in square brackets. A difference is the cell "
        "minus its baseline in percentage points, taken seed by seed over the seeds that both "
        "have, with the interval of the mean difference; intervals are not corrected for the "
        "number of cells. p is of the paired t-test of box AP, two-sided, corrected after Holm "
        "over the cells of its table. Small, medium and large are box AP by COCO's object sizes. "
        f"{_NOTHING} is what cannot be computed; numbers in round brackets tell where fewer seeds "
        "or pairs count than the cell has runs."
    )


def _facts(facts: Mapping[str, str]) -> str:
    return _table(["fact", "value"], facts.items()) if facts else ""


def _against(plan: Plan, rows: Sequence[CellRow]) -> str:
    by_baseline: dict[str, list[str]] = {}
    for row in rows:
        if row.baseline is not None:
            by_baseline.setdefault(row.baseline, []).append(row.title)
    if len(by_baseline) < 2:
        return "".join(f"Baseline: *{plan.cells[name]}*." for name in by_baseline)
    each = [
        f"*{plan.cells[name]}* of {', '.join(f'*{title}*' for title in of)}"
        for name, of in by_baseline.items()
    ]
    return f"Baselines: {'; '.join(each)}."


def _rows(plan: Plan, rows: Sequence[CellRow]) -> str:
    box, mask = COMPARED
    interval = f"[{COVERAGE} interval]"
    header = ["cell", "seeds", f"{box} {interval}", f"difference {interval}", "p (Holm)"]
    header += [f"{mask} {interval}", f"difference {interval}", *SIZES.values()]
    lines = []
    for row in rows:
        runs = len(row.found)
        line = [row.title, _seeds(plan, row), _mean(row.means[box], runs)]
        line += [_paired(row.differences[box], runs), _p(row.p)]
        line += [_mean(row.means[mask], runs), _paired(row.differences[mask], runs)]
        lines.append(line + [_bare_mean(row.means[metric], runs) for metric in SIZES])
    return _table(header, lines)


def _seeds(plan: Plan, row: CellRow) -> str:
    missing = len(plan.seeds) - len(row.found)
    note = f", missing ({missing} of {len(plan.seeds)} seeds)" if missing else ""
    return f"{len(row.found)}{note}"


def _mean(mean: Mean | None, runs: int) -> str:
    if mean is None:
        return _NOTHING
    return _interval(mean.interval, "") + _fewer(mean.count, runs, "seed")


def _bare_mean(mean: Mean | None, runs: int) -> str:
    if mean is None:
        return _NOTHING
    return f"{mean.interval.mean:.2f}" + _fewer(mean.count, runs, "seed")


def _paired(test: PairedTest | None, runs: int) -> str:
    if test is None:
        return _NOTHING
    return _interval(test.difference, "+") + _fewer(test.count, runs, "pair")


def _interval(interval: Interval, sign: str) -> str:
    text = f"{interval.mean:{sign}.2f}"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{interval.low:{sign}.2f}, {interval.high:{sign}.2f}]"


def _fewer(count: int, runs: int, word: str) -> str:
    return f" ({count} {word}{'' if count == 1 else 's'})" if count < runs else ""


def _p(p: float | None) -> str:
    if p is None:
        return _NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _image(title: str, file: str) -> str:
    return f"![{title}]({file})"


def _left_out(plan: Plan, runs: Sequence[Run]) -> str:
    planned = planned_runs(plan, runs, [*plan.cells])
    others = sorted(f"{run.name} (seed {run.seed})" for run in runs if run not in planned)
    return f"Runs that the plan does not name, left out: {', '.join(others)}." if others else ""


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(map(_escape, row)) + " |" for row in rows)


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
