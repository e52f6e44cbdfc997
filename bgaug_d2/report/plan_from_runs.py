"""A plan made from the runs that there are: every arm against the baseline of its benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from bgaug_d2.report.plan import DEFAULT_METRICS, PlannedCell, PlannedTable, ResultsPlan
from bgaug_d2.report.runs import Run

ALL = "all"  # the plan's name
_BASELINE = "-baseline"


def plan_of_runs(runs: Sequence[Run]) -> ResultsPlan:
    """A table per benchmark: its arms, with and without ablation, against ``BENCHMARK-baseline``.

    Runs without a baseline come last, each in a table of its own.
    """
    names = sorted({run.name for run in runs})
    baselines = [name for name in names if _BASELINE in name]
    groups = {baseline: [baseline] for baseline in baselines}
    alone = []
    for name in names:
        baseline = _baseline_of(name, baselines)
        if baseline is None:
            alone.append(name)
        elif baseline != name:
            groups[baseline].append(name)
    tables = [
        _table(f"Against {names[0]}", names, dict.fromkeys(names[1:], names[0]))
        for names in groups.values()
    ]
    tables += [_table(f"{name}, without a baseline", [name], {}) for name in alone]
    return ResultsPlan(
        name=ALL,
        seeds=tuple(sorted({run.seed for run in runs})),
        baseline=None,
        # How they were started nobody knows, so the report names no command for missing seeds.
        cells={name: PlannedCell(name) for name in names},
        tables=tuple(tables),
    )


def _baseline_of(name: str, baselines: Sequence[str]) -> str | None:
    """The baseline of a run: the same benchmark, and the same suffix of a debug setting.

    ``toy-expand-D25`` belongs to ``toy-baseline``, ``toy-expand-smoke`` to ``toy-baseline-smoke``.
    """
    if name in baselines:
        return name
    fitting = []
    for baseline in baselines:
        benchmark, _, debug = baseline.partition(_BASELINE)
        if name.startswith(f"{benchmark}-") and name.endswith(debug):
            fitting.append((len(benchmark), len(debug), baseline))
    # The longest that fits: a name given by hand may have dashes of its own.
    return max(fitting)[-1] if fitting else None


def _table(title: str, names: Sequence[str], pairs: dict[str, str]) -> PlannedTable:
    return PlannedTable(title, tuple(names), "", pairs, None, (*DEFAULT_METRICS, "box AP50"))
