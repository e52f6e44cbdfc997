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
    groups = {name.removesuffix(_BASELINE): [name] for name in names if name.endswith(_BASELINE)}
    alone = []
    for name in names:
        # The longest benchmark that fits: a name given by hand may have dashes of its own.
        fitting = [each for each in groups if name.startswith(f"{each}-")]
        if not fitting:
            alone.append(name)
        elif not name.endswith(_BASELINE):
            groups[max(fitting, key=len)].append(name)
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


def _table(title: str, names: Sequence[str], pairs: dict[str, str]) -> PlannedTable:
    return PlannedTable(title, tuple(names), "", pairs, None, (*DEFAULT_METRICS, "box AP50"))
