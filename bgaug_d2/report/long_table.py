"""Runs as one long table, and the values of a plan's cells by seed.

Everything that is shown of metrics is computed from this table.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bgaug_d2.report.plan import METRICS, ResultsPlan
from bgaug_d2.report.runs import Run

COLUMNS = ["run", "seed", "cell", "task", "metric", "value"]


def long_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run and metric.

    Returns:
        Columns ``run`` (folder), ``seed``, ``cell`` (name), ``task`` (``bbox``, ``segm``),
        ``metric`` (``AP``, ...) and ``value`` (percent).
    """
    rows = [
        (run.folder, run.seed, run.name, task, metric, value)
        for run in runs
        for task, metrics in run.metrics.items()
        for metric, value in metrics.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def values_by_seed(plan: ResultsPlan, runs: Sequence[Run]) -> pd.DataFrame:
    """The plan's cells: a row per seed, a column per cell and metric of ``METRICS``, percent.

    NaN stands where a run or a metric is missing.
    """
    table = long_table(runs)
    # The folder may hold runs of other plans too.
    table = table[table["cell"].isin(plan.cells) & table["seed"].isin(plan.seeds)]
    names = {each: name for name, each in METRICS.items()}
    keys = zip(table["task"], table["metric"], strict=True)
    # Metrics that no plan can ask for have no name here and are dropped.
    table = table.assign(metric=[names.get(each) for each in keys]).dropna(subset=["metric"])
    columns = pd.MultiIndex.from_product([plan.cells, METRICS], names=["cell", "metric"])
    wide = table.pivot(index="seed", columns=["cell", "metric"], values="value")
    # A place for every seed, cell and metric: what is missing shows as NaN.
    return wide.reindex(index=sorted(plan.seeds), columns=columns)
