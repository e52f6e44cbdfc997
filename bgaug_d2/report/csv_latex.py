"""A plan's tables as CSV (numbers unrounded) and as LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bgaug_d2.report.cells import BREAKDOWN, CellRow, compare_cells
from bgaug_d2.report.plan import PlannedTable, ResultsPlan
from bgaug_d2.report.runs import Run
from bgaug_d2.report.statistics import Interval

_COLUMNS = (
    *("table", "cell", "title", "metric", "seeds", "mean", "low", "high"),
    *("baseline", "pairs", "difference", "difference_low", "difference_high", "p_holm"),
    *("paper", "ours_minus_paper"),
    *("iterations", "training_gpu_hours", "painted", "painting_gpu_hours"),
)
# Titles are free text, in which these would be commands.
_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "–": "--"}


def to_csv(plan: ResultsPlan, runs: Sequence[Run]) -> str:
    """One line per table, cell and metric; what cannot be computed is empty.

    Raises:
        ReportError: Runs within one table differ in iterations.
    """
    buffer = io.StringIO()
    # Without `lineterminator` the module ends lines with \r\n.
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in plan.tables:
        for row in compare_cells(plan, table, runs):
            for metric in [*table.metrics, *BREAKDOWN]:
                writer.writerow(_record(table, row, metric))
    return buffer.getvalue()


def to_latex(plan: ResultsPlan, runs: Sequence[Run]) -> str:
    """A ``tabular`` per table (package booktabs): mean, interval, difference, paper.

    Raises:
        ReportError: Runs within one table differ in iterations.
    """
    return "\n".join(_tabular(table, compare_cells(plan, table, runs)) for table in plan.tables)


def _record(table: PlannedTable, row: CellRow, metric: str) -> dict[str, object]:
    mean, test = row.means[metric], row.differences.get(metric)
    record: dict[str, object] = {
        "table": table.title,
        "cell": row.cell,
        "title": row.title,
        "metric": metric,
        "seeds": 0 if mean is None else mean.count,
        "baseline": row.baseline,
        "paper": row.paper.get(metric),
        "iterations": row.cost.iterations,
        "training_gpu_hours": row.cost.training_hours,
        "painted": row.cost.painted,
        "painting_gpu_hours": row.cost.painting_hours,
    }
    if mean is not None:
        record |= dict(zip(("mean", "low", "high"), _numbers(mean.interval), strict=True))
    if mean is not None and metric in row.paper:
        record["ours_minus_paper"] = mean.interval.mean - row.paper[metric]
    if test is not None:
        names = ("difference", "difference_low", "difference_high")
        record |= {"pairs": test.count, **dict(zip(names, _numbers(test.difference), strict=True))}
        # Only the first metric of a table is tested.
        record["p_holm"] = row.p if metric == table.metrics[0] else None
    return record


def _numbers(interval: Interval) -> tuple[float | None, float | None, float | None]:
    return interval.mean, interval.low, interval.high


def _tabular(table: PlannedTable, rows: Sequence[CellRow]) -> str:
    header = ["cell"]
    for metric in table.metrics:
        header += [metric, "difference"]
        header += ["paper"] if any(metric in row.paper for row in rows) else []
    lines = [f"% {table.title}", rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
    lines += [_latex_line(header), r"\midrule"]
    for row in rows:
        line = [row.title]
        for metric in table.metrics:
            mean, test = row.means[metric], row.differences[metric]
            line.append("–" if mean is None else _latex_interval(mean.interval, ""))
            line.append("–" if test is None else _latex_interval(test.difference, "+"))
            if any(metric in each.paper for each in rows):
                line.append(f"{row.paper[metric]:.1f}" if metric in row.paper else "–")
        lines.append(_latex_line(line))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_interval(interval: Interval, sign: str) -> str:
    text = f"{interval.mean:{sign}.1f}"
    # One seed or one pair has no interval.
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


def _latex_line(texts: Sequence[str]) -> str:
    # Character by character, so that what was put in is not escaped again.
    escaped = ["".join(_LATEX.get(each, each) for each in text) for text in texts]
    return " & ".join(escaped) + r" \\"
