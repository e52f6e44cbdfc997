"""A plan made from the runs that there are: every arm against the baseline of its experiment."""

from __future__ import annotations

from collections.abc import Sequence

from bgaug_d2.report.plan import DEFAULT_METRICS, Plan, PlannedTable
from bgaug_d2.report.runs import Run

_BASELINE = "_baseline"


def plan_of_runs(runs: Sequence[Run]) -> Plan:
    """One table per baseline: ``toy_bgaug``, ``toy_duplicate`` and so on against ``toy_baseline``.

    Runs without a baseline come last, each in a table of its own.
    """
    names = sorted({run.name for run in runs})
    stems = [name.removesuffix(_BASELINE) for name in names if name.endswith(_BASELINE)]
    groups: dict[str, list[str]] = {stem: [stem + _BASELINE] for stem in stems}
    others = []
    for name in names:
        # The longest stem: coco10_mask_rcnn_swin_bgaug is no arm of coco10_mask_rcnn_baseline.
        stem = max((each for each in stems if name.startswith(f"{each}_")), key=len, default=None)
        if stem is None:
            others.append(name)
        elif name != stem + _BASELINE:
            groups[stem].append(name)
    tables = [
        _table(f"Against {names[0]}", names, dict.fromkeys(names[1:], names[0]))
        for names in groups.values()
    ]
    tables += [_table(f"{name}, without a baseline", [name], {}) for name in others]
    seeds = tuple(sorted({run.seed for run in runs}))
    return Plan(seeds, None, {name: name for name in names}, tuple(tables), ())


def _table(title: str, names: Sequence[str], pairs: dict[str, str]) -> PlannedTable:
    return PlannedTable(title, tuple(names), "", pairs, None, (*DEFAULT_METRICS, "box AP50"))
