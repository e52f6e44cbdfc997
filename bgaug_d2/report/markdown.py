"""The report of a plan in Markdown: its tables, what is missing, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bgaug_d2.report.cells import BREAKDOWN, COVERAGE, CellRow, Mean, compare_cells
from bgaug_d2.report.commands import commands_for
from bgaug_d2.report.plan import PlannedTable, ResultsPlan
from bgaug_d2.report.runs import Run
from bgaug_d2.report.statistics import Interval, PairedTest

_NOTHING = "–"
_NAMES = 5  # of runs that are left out; a folder may hold those of many plans


def to_markdown(plan: ResultsPlan, runs: Sequence[Run], facts: Mapping[str, str]) -> str:
    """The whole report; plots are named as ``plots.write_plots`` writes them.

    Args:
        plan: What was to be run and shown.
        runs: What is there; the report names what is missing or not planned.
        facts: Shown first, as they are: command, commit, machine, date, ...

    Raises:
        ReportError: Runs within one table differ in iterations.
    """
    parts = [f"# {plan.title}", plan.text, _how_to_read(plan), _facts(facts)]
    rows_of: dict[str, CellRow] = {}
    for table in plan.tables:
        rows = compare_cells(plan, table, runs)
        # A cell may be in several tables; its cost is shown once.
        rows_of |= {row.cell: row for row in rows}
        parts += [f"## {table.title}", table.text, _against(plan, rows), _rows(plan, table, rows)]
        parts += [_image(table.title, table.plot)] if table.plot else []
    for plot in plan.plots:
        parts += [f"## {plot.title}", _image(plot.title, plot.file)]
    parts += ["## What it cost", _costs(rows_of.values())]
    parts += [_missing(plan, runs), _left_out(plan, runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _how_to_read(plan: ResultsPlan) -> str:
    return (
        f"Each cell of the experiment was to be trained with {_count(len(plan.seeds), 'seed')} "
        f"({', '.join(map(str, plan.seeds))}). AP is COCO's, in percent, as the mean over seeds "
        f"with its {COVERAGE} interval (Student's t) in square brackets. A difference is the cell "
        "minus its baseline in percentage points, taken seed by seed over the seeds that both "
        "have, with the interval of the mean difference; intervals are not corrected for the "
        "number of cells. p is of the paired t-test of the first metric, two-sided, corrected "
        "after Holm over the cells of its table. The last columns are box AP by "
        "object size and by the background ratio of the images. "
        f"{_NOTHING} is what cannot be computed; a number in round brackets says how many seeds or "
        "pairs count where they are fewer than the cell's runs."
    )


def _facts(facts: Mapping[str, str]) -> str:
    return _table(["fact", "value"], facts.items()) if facts else ""


def _against(plan: ResultsPlan, rows: Sequence[CellRow]) -> str:
    by_baseline: dict[str, list[str]] = {}
    for row in rows:
        if row.baseline is not None:
            by_baseline.setdefault(row.baseline, []).append(row.title)
    # With one baseline there is no need to say which cells it belongs to.
    if len(by_baseline) < 2:
        return "".join(f"Baseline: *{plan.cells[name].title}*." for name in by_baseline)
    each = [
        f"*{plan.cells[name].title}* of {', '.join(f'*{title}*' for title in of)}"
        for name, of in by_baseline.items()
    ]
    return f"Baselines: {'; '.join(each)}."


def _rows(plan: ResultsPlan, table: PlannedTable, rows: Sequence[CellRow]) -> str:
    interval = f"[{COVERAGE} interval]"
    first = table.metrics[0]
    # A breakdown that no run has would be a column of dashes.
    parts = [metric for metric in BREAKDOWN if any(row.means[metric] for row in rows)]
    header = ["cell", "seeds"]
    for metric in table.metrics:
        header += [f"{metric} {interval}", f"difference {interval}"]
        header += ["p (Holm)"] if metric == first else []
        header += ["paper", "ours - paper"] if _in_paper(rows, metric) else []
    lines = []
    for row in rows:
        runs = len(row.found)
        line = [row.title, _seeds(plan, row)]
        for metric in table.metrics:
            line += [_mean(row.means[metric], runs), _paired(row.differences[metric], runs)]
            line += [_p(row.p)] if metric == first else []
            line += _paper(row, metric) if _in_paper(rows, metric) else []
        lines.append(line + [_bare_mean(row.means[metric], runs) for metric in parts])
    return _table([*header, *(BREAKDOWN[metric] for metric in parts)], lines)


def _in_paper(rows: Sequence[CellRow], metric: str) -> bool:
    return any(metric in row.paper for row in rows)


def _paper(row: CellRow, metric: str) -> list[str]:
    """The paper's number, and ours minus it."""
    if metric not in row.paper:
        return [_NOTHING, _NOTHING]
    mean, paper = row.means[metric], row.paper[metric]
    difference = _NOTHING if mean is None else f"{mean.interval.mean - paper:+.2f}"
    return [f"{paper:.1f}", difference]


def _costs(rows: Iterable[CellRow]) -> str:
    """A line per cell, over all of its runs."""
    header = ["cell", "runs", "iterations", "training, GPU hours", "pictures painted"]
    lines = []
    for row in rows:
        cost = row.cost
        counts = [
            _NOTHING if each is None else str(each) for each in (cost.iterations, cost.painted)
        ]
        hours = [
            _NOTHING if each is None else f"{each:.2f}"
            for each in (cost.training_hours, cost.painting_hours)
        ]
        lines.append([row.title, str(len(row.found)), counts[0], hours[0], counts[1], hours[1]])
    note = (
        "Over all runs of a cell; on a CPU an hour is that of one process. Pictures that several "
        "runs share count for the run that had them painted."
    )
    return _table([*header, "painting, GPU hours"], lines) + f"\n\n{note}"


def _missing(plan: ResultsPlan, runs: Sequence[Run]) -> str:
    commands = commands_for(plan, runs)
    if not commands:
        return ""
    return "## What is missing\n\n```bash\n" + "\n".join(commands) + "\n```"


def _seeds(plan: ResultsPlan, row: CellRow) -> str:
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
    return f" ({_count(count, word)})" if count < runs else ""


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _p(p: float | None) -> str:
    if p is None:
        return _NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _image(title: str, file: str) -> str:
    return f"![{title}]({file})"


def _left_out(plan: ResultsPlan, runs: Sequence[Run]) -> str:
    """Runs of the folder that are in no table: other names, and other seeds of the plan's cells."""
    detector = plan.audit.detector if plan.audit else None
    # The detector of the audit is no cell, but the plan names it.
    names = sorted({run.name for run in runs} - {*plan.cells, detector})
    others = names[:_NAMES] + ([f"{len(names) - _NAMES} more names"] if names[_NAMES:] else [])
    for cell in sorted(plan.cells):
        seeds = [run.seed for run in runs if run.name == cell and run.seed not in plan.seeds]
        if seeds:
            listed = ", ".join(map(str, sorted(seeds)))
            others.append(f"{cell} (seed{'s' if len(seeds) > 1 else ''} {listed})")
    return f"Runs that the plan does not name, left out: {', '.join(others)}." if others else ""


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(map(_escape, row)) + " |" for row in rows)


def _escape(text: str) -> str:
    # A line break or a bar would end the cell.
    return " ".join(text.split()).replace("|", "\\|")
