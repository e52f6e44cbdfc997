"""Cells of a plan against their baselines: means, intervals, paired differences and tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from bgaug_d2.errors import ReportError
from bgaug_d2.report.long_table import values_by_seed
from bgaug_d2.report.plan import METRICS, PlannedTable, ResultsPlan
from bgaug_d2.report.runs import BACKGROUNDS, Run
from bgaug_d2.report.statistics import (
    LEVEL,
    Interval,
    PairedTest,
    holm,
    mean_interval,
    paired_test,
)

# Shown beside what is compared: by object size, and by the images' background ratio.
BREAKDOWN = {
    **{"box APs": "small", "box APm": "medium", "box APl": "large"},
    **{f"box {name}": f"background {share}" for name, share in BACKGROUNDS.items()},
}
Number = TypeVar("Number", int, float)
COVERAGE = f"{100 * LEVEL:.0f} %"  # of all intervals shown


@dataclass(frozen=True)
class Mean:
    """One metric of one cell: mean and interval in percent, and how many seeds have the metric."""

    interval: Interval
    count: int


@dataclass(frozen=True)
class MeasuredCost:
    """What all runs of a cell took; None where some run does not say.

    Attributes:
        iterations: Optimizer steps of one run; None without a run.
        training_hours: Hours of one GPU.
        painted: Pictures.
        painting_hours: Hours of one GPU.
    """

    iterations: int | None
    training_hours: float | None
    painted: int | None
    painting_hours: float | None


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
        p: p-value of the table's first metric, adjusted after Holm over the table; None without a
            test.
        paper: What the paper gives, in percent by metric; empty where it has no such cell.
        cost: What the runs found took.
    """

    cell: str
    title: str
    baseline: str | None
    found: tuple[int, ...]
    means: dict[str, Mean | None]
    differences: dict[str, PairedTest | None]
    p: float | None
    paper: dict[str, float]
    cost: MeasuredCost


def compare_cells(plan: ResultsPlan, table: PlannedTable, runs: Sequence[Run]) -> list[CellRow]:
    """The rows of one table, from the runs that there are.

    Raises:
        ReportError: Runs of the table, baselines included, differ in iterations.
    """
    baselines = {cell: plan.baseline_of(table, cell) for cell in table.cells}
    # Baselines too: they may be cells of another table.
    check_iterations(plan, runs, [*table.cells, *filter(None, baselines.values())])
    values = values_by_seed(plan, runs)
    differences = {
        cell: {metric: _difference(values, cell, other, metric) for metric in table.metrics}
        for cell, other in baselines.items()
    }
    # Holm's correction is over the first metric alone: the others are shown without a p.
    tests = [differences[cell][table.metrics[0]] for cell in table.cells]
    adjusted = holm([None if test is None else test.p for test in tests])
    shown = [*table.metrics, *BREAKDOWN]
    return [
        CellRow(
            cell=cell,
            title=plan.cells[cell].title,
            baseline=baselines[cell],
            found=tuple(sorted(run.seed for run in planned_runs(plan, runs, [cell]))),
            means={metric: mean_of(values, cell, metric) for metric in shown},
            differences=differences[cell],
            p=p,
            paper=plan.paper.get(cell, {}),
            cost=_cost(planned_runs(plan, runs, [cell])),
        )
        for cell, p in zip(table.cells, adjusted, strict=True)
    ]


def cell_difference(
    plan: ResultsPlan, runs: Sequence[Run], cell: str, other: str, metric: str = "box AP"
) -> PairedTest | None:
    """``cell`` minus ``other`` in percentage points, paired over the seeds that both have.

    The p-value stands alone: a caller who asks for several corrects them with ``holm``.

    Args:
        plan: Names the cells and seeds.
        runs: Those of other cells and seeds do not count.
        cell: Name in the plan.
        other: Name in the plan.
        metric: One of ``plan.METRICS``.

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
    return _difference(values_by_seed(plan, runs), cell, other, metric)


def mean_of(values: pd.DataFrame, cell: str, metric: str) -> Mean | None:
    """One metric of one cell over the plan's seeds; None where no run has it.

    Args:
        values: From ``values_by_seed``.
        cell: Name in the plan.
        metric: One of ``plan.METRICS``.
    """
    found = values[cell, metric].dropna().tolist()
    return Mean(mean_interval(found), len(found)) if found else None


def planned_runs(plan: ResultsPlan, runs: Iterable[Run], cells: Sequence[str]) -> list[Run]:
    """The runs of these cells with one of the plan's seeds."""
    return [run for run in runs if run.name in cells and run.seed in plan.seeds]


def check_iterations(plan: ResultsPlan, runs: Sequence[Run], cells: Sequence[str]) -> None:
    """Refuse to compare runs of unequal length.

    Raises:
        ReportError: Two runs of these cells differ in iterations.
    """
    # One run of each length is enough for the message.
    lengths = {run.iterations: run for run in planned_runs(plan, runs, cells)}
    if len(lengths) > 1:
        (short, a), (long, b) = sorted(lengths.items())[:2]
        raise ReportError(
            f"{a.name} (seed {a.seed}) has {short} iterations but {b.name} (seed {b.seed}) has "
            f"{long}; only runs of equal length belong into one table or plot"
        )


def _difference(
    values: pd.DataFrame, cell: str, other: str | None, metric: str
) -> PairedTest | None:
    if other is None:
        return None
    # A pair needs the same seed in both cells.
    both = values[[(other, metric), (cell, metric)]].dropna()
    if both.empty:
        return None
    return paired_test(both[other, metric].tolist(), both[cell, metric].tolist())


def _cost(runs: Sequence[Run]) -> MeasuredCost:
    return MeasuredCost(
        # `check_iterations` has made sure that all runs have as many.
        iterations=runs[0].iterations if runs else None,
        training_hours=_sum([run.training_hours for run in runs]) if runs else None,
        painted=_sum([run.painted for run in runs]),
        painting_hours=_sum([run.painting_hours for run in runs]),
    )


def _sum(values: Sequence[Number | None]) -> Number | None:
    """None where one is missing."""
    # The sum of a part would pass for the cost of the whole cell.
    known = [each for each in values if each is not None]
    return sum(known) if len(known) == len(values) else None
