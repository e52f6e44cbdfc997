"""The plots of a plan: metrics along an axis, and differences to the baseline."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bgaug_d2.errors import ReportError
from bgaug_d2.report.cells import (
    COVERAGE,
    CellRow,
    check_iterations,
    compare_cells,
    mean_of,
)
from bgaug_d2.report.long_table import values_by_seed
from bgaug_d2.report.plan import METRICS, PlannedPlot, PlannedTable, ResultsPlan
from bgaug_d2.report.runs import Run
from bgaug_d2.report.statistics import Interval

DPI = 100
WIDTH = 9.0  # inches, 900 px
# Okabe and Ito (2008): distinguishable with any colour vision; yellow is left out as too light.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#767676"
_SIZES = {"APs": "AP, small objects", "APm": "AP, medium objects", "APl": "AP, large objects"}


def write_plots(plan: ResultsPlan, runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draw every plot of the plan, 900 pixels wide, from the runs that there are.

    Returns:
        The PNG files, those of the tables first.

    Raises:
        ReportError: Runs within one table or plot differ in iterations, or a table with a plot
            holds only baselines.
    """
    figures = {
        table.plot: draw_differences(plan, table, compare_cells(plan, table, runs))
        for table in plan.tables
        if table.plot is not None
    }
    figures |= {plot.file: draw_series(plan, plot, runs) for plot in plan.plots}
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=DPI)
    return [folder / name for name in figures]


def draw_series(plan: ResultsPlan, plot: PlannedPlot, runs: Sequence[Run]) -> Figure:
    """A panel per metric: means over seeds with their intervals, a line per series.

    Raises:
        ReportError: The runs differ in iterations.
    """
    check_iterations(plan, runs, [cell for cells in plot.series.values() for cell in cells])
    columns = min(2, len(plot.metrics))
    rows = -(-len(plot.metrics) // columns)
    figure = _figure(1.1 + 2.9 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(plot.metrics) :]:
        panel.set_axis_off()
    values = values_by_seed(plan, runs)
    for panel, metric in zip(panels, plot.metrics, strict=False):
        _draw_metric(panel, plot, values, metric)
    figure.suptitle(plot.title, fontsize=12)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(4, len(labels)),
        title=f"mean over seeds and its {COVERAGE} interval",
    )
    return figure


def draw_differences(plan: ResultsPlan, table: PlannedTable, rows: Sequence[CellRow]) -> Figure:
    """A line per cell, a panel per metric: the difference to the cell's baseline.

    Raises:
        ReportError: The table holds only baselines.
    """
    compared = [row for row in rows if row.baseline is not None]
    if not compared:
        raise ReportError(
            f"table {table.title!r} has a plot of differences but no cell with a baseline; take "
            "out `plot` or add a cell"
        )
    titles = [plan.cells[row.baseline].title for row in compared if row.baseline is not None]
    # The first metric always has its panel: it is the one that is tested.
    metrics = [table.metrics[0]]
    metrics += [
        each for each in table.metrics[1:] if any(row.differences[each] for row in compared)
    ]
    figure = _figure(1.5 + 0.5 * len(compared))
    panels = figure.subplots(1, len(metrics), sharex=True, sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        _draw_forest(panel, compared, metric)
    labels = [
        _wrap(row.title) + ("" if len(set(titles)) == 1 else "\n" + _wrap(f"(to {title})"))
        for row, title in zip(compared, titles, strict=True)
    ]
    panels[0].set_yticks(range(len(labels)), labels)
    # Downwards, so that the first row of the table is on top.
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    figure.suptitle(table.title, fontsize=12)
    baseline = titles[0] if len(set(titles)) == 1 else "the baseline"
    figure.supxlabel(
        f"difference to {baseline} in percentage points, mean and {COVERAGE} interval", fontsize=10
    )
    return figure


def _figure(height: float) -> Figure:
    # Not pyplot, which keeps every figure open until it is closed.
    figure = Figure(figsize=(WIDTH, height))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure


def _draw_metric(panel: Axes, plot: PlannedPlot, values: pd.DataFrame, metric: str) -> None:
    step = 0.012 * (plot.x[-1] - plot.x[0])  # side by side where series share a cell
    drawn = 0
    for index, (label, cells) in enumerate(plot.series.items()):
        shift = step * (index - (len(plot.series) - 1) / 2)
        found = [
            (x + shift, mean.interval)
            for x, cell in zip(plot.x, cells, strict=True)
            if (mean := mean_of(values, cell, metric)) is not None
        ]
        drawn += len(found)
        panel.errorbar(
            [x for x, _ in found],
            [interval.mean for _, interval in found],
            yerr=_half_widths(interval for _, interval in found),
            label=label,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=1.5,
            capsize=3,
        )
    if not drawn:
        panel.text(0.5, 0.5, "missing", transform=panel.transAxes, ha="center", color=_GREY)
    panel.set_title(_metric_title(metric), fontsize=11)
    panel.set_xticks(plot.x, [f"{x:g}" for x in plot.x])
    margin = 0.05 * (plot.x[-1] - plot.x[0]) or 0.5  # of the axis, whatever is missing
    panel.set_xlim(plot.x[0] - margin, plot.x[-1] + margin)
    panel.set_xlabel(plot.xlabel)
    panel.set_ylabel("AP (%)")
    _tidy(panel, "y")


def _draw_forest(panel: Axes, rows: Sequence[CellRow], metric: str) -> None:
    found = [
        (place, test.difference)
        for place, row in enumerate(rows)
        if (test := row.differences[metric]) is not None
    ]
    panel.axvline(0, color=_GREY, linewidth=1)
    for place in sorted({*range(len(rows))} - {place for place, _ in found}):
        panel.annotate(
            "missing", (0, place), (5, 0), textcoords="offset points", va="center", color=_GREY
        )
    panel.errorbar(
        [interval.mean for _, interval in found],
        [place for place, _ in found],
        xerr=_half_widths(interval for _, interval in found),
        color=COLOURS[0],
        marker="o",
        linestyle="none",
        capsize=3,
    )
    panel.set_title(_metric_title(metric), fontsize=11)
    panel.tick_params(axis="y", length=0)
    _tidy(panel, "x")


def _metric_title(metric: str) -> str:
    word, _, name = metric.partition(" ")
    return f"{word} {_SIZES.get(METRICS[metric][1], name)}"


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 30))


def _half_widths(intervals: Iterable[Interval]) -> list[float]:
    """For error bars; NaN draws none."""
    return [
        float("nan") if interval.high is None else interval.high - interval.mean
        for interval in intervals
    ]


def _tidy(panel: Axes, axis: str) -> None:
    panel.grid(axis=axis, color="#DDDDDD", linewidth=0.8)  # type: ignore[arg-type]
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
