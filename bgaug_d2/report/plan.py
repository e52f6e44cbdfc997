"""Plans: the cells of an experiment, and the tables and plots made of them.

The plans of the paper's tables are in ``plans/``; the toy tables have theirs in ``configs/``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bgaug_d2.config.parse import did_you_mean, join
from bgaug_d2.errors import ReportError
from bgaug_d2.report.runs import BACKGROUNDS

# Name in plans and reports -> (task, metric) in results.json, COCO's names.
# The last ones are of images by their background ratio, see BACKGROUNDS.
METRICS = {
    f"{word} {metric}": (task, metric)
    for word, task in (("box", "bbox"), ("mask", "segm"))
    for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl", *BACKGROUNDS)
}


_TEXTS = ("title", "text", "experiments", "folder")  # optional ones of a plan
# Of a table that names none; the first metric of a table is tested.
DEFAULT_METRICS = ("box AP", "mask AP")
PLANS = Path(__file__).parent / "plans"


@dataclass(frozen=True)
class PlannedTable:
    """One table.

    Attributes:
        title: Heading.
        cells: Names, in the order of the rows.
        text: A paragraph above the table, Markdown; may be empty.
        pairs: Cell -> the cell it is compared with in place of the plan's baseline.
        plot: File name of a plot of the differences, or None.
        metrics: Keys of ``METRICS`` that are compared.
    """

    title: str
    cells: tuple[str, ...]
    text: str
    pairs: dict[str, str]
    plot: str | None
    metrics: tuple[str, ...] = DEFAULT_METRICS


@dataclass(frozen=True)
class PlannedPlot:
    """One plot: a panel per metric, a line per series.

    Attributes:
        title: Heading.
        file: File name, ``*.png``.
        x: Rising positions on the x axis.
        series: Label -> a cell's name for each ``x``.
        metrics: Keys of ``METRICS``.
        xlabel: What ``x`` is, with its unit.
    """

    title: str
    file: str
    x: tuple[float, ...]
    series: dict[str, tuple[str, ...]]
    metrics: tuple[str, ...]
    xlabel: str


@dataclass(frozen=True)
class Plan:
    """The whole experiment.

    Attributes:
        seeds: Of every cell.
        baseline: Name of the cell that others are compared with; None where only pairs are.
        cells: Titles by name, which is the experiment's name in ``results.json``.
        tables: In the order of the report.
        plots: In the order of the report.
        title: Of the report.
        text: A paragraph below it, Markdown; may be empty.
        overrides: Arguments that every run of the plan has beside experiment and seed.
        experiments: Folder of the experiments in ``configs/experiment``; empty for none.
        folder: Where the plan's commands put their runs.
        paper: Cell -> metric -> what the paper gives, in percent.
    """

    seeds: tuple[int, ...]
    baseline: str | None
    cells: dict[str, str]
    tables: tuple[PlannedTable, ...]
    plots: tuple[PlannedPlot, ...]
    title: str = "Results"
    text: str = ""
    overrides: tuple[str, ...] = ()
    experiments: str = ""
    folder: str = "output/runs"
    paper: dict[str, dict[str, float]] = field(default_factory=dict)

    def experiment(self, cell: str) -> str:
        """What ``experiment=`` names the cell."""
        return f"{self.experiments}/{cell}" if self.experiments else cell

    def baseline_of(self, table: PlannedTable, cell: str) -> str | None:
        """What ``cell`` is compared with in ``table``: its pair, or else the plan's baseline.

        None for a cell that others are compared with, unless the pairs name one for it too.
        """
        if cell in table.pairs:
            return table.pairs[cell]
        return None if cell in {self.baseline, *table.pairs.values()} else self.baseline


def find_plan(name: str) -> Path:
    """The plan of that name in the package, or a path.

    Raises:
        ReportError: There is neither.
    """
    known = sorted(each.stem for each in PLANS.glob("*.yaml"))
    if name in known:
        return PLANS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    raise ReportError(
        f"there is no table {name!r}{did_you_mean(name, known)} There are {', '.join(known)}; "
        "or give the path of a plan"
    )


def load_plan(path: Path) -> Plan:
    """Read a plan as YAML.

    Raises:
        ReportError: The file cannot be read, or an entry is missing, unknown or wrong; the message
            names the file and the entry.
    """
    try:
        return _plan(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ReportError) as error:
        raise ReportError(f"{path}: {error}") from error


def _plan(content: object) -> Plan:
    optional = ("plots", "title", "text", "overrides", "experiments", "folder", "paper")
    top = _section(content, "", ("seeds", "baseline", "cells", "tables"), optional)
    titles = _named(top["cells"], "cells")
    cells = {name: _text(title, f"cells.{name}") for name, title in titles.items()}
    baseline = _one_of(top["baseline"], "baseline", cells)
    seeds = _distinct(_list(top["seeds"], "seeds", _seed), "seeds")
    tables = _list(top["tables"], "tables", lambda each, where: _table(each, where, cells))
    plots = _list(top.get("plots", []), "plots", lambda each, where: _plot(each, where, cells))
    files = [table.plot for table in tables if table.plot] + [plot.file for plot in plots]
    if len(set(files)) < len(files):
        raise ReportError(f"two plots have one file name: {', '.join(sorted(files))}")
    texts = {key: _text(top[key], key).strip() for key in _TEXTS if key in top}
    overrides = _list(top.get("overrides", []), "overrides", _text)
    paper = _paper(top.get("paper", {}), cells)
    return Plan(seeds, baseline, cells, tables, plots, overrides=overrides, paper=paper, **texts)


def _paper(content: object, cells: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    paper = {}
    for cell, values in _named(content, "paper").items():
        _one_of(cell, "paper", cells)
        paper[cell] = {
            _one_of(metric, f"paper.{cell}", METRICS): _number(value, f"paper.{cell}.{metric}")
            for metric, value in _named(values, f"paper.{cell}").items()
        }
    return paper


def _table(content: object, where: str, cells: Mapping[str, Any]) -> PlannedTable:
    table = _section(content, where, ("title", "cells"), ("text", "pairs", "plot", "metrics"))
    names = _cell_names(table["cells"], f"{where}.cells", cells)
    _distinct(names, f"{where}.cells")
    pairs = _named(table.get("pairs", {}), f"{where}.pairs")
    for cell, other in pairs.items():
        _one_of(cell, f"{where}.pairs", names)
        _one_of(other, f"{where}.pairs.{cell}", cells)
        if cell == other:
            raise ReportError(f"{where}.pairs.{cell}={other!r} compares a cell with itself")
    plot = None if table.get("plot") is None else _file_name(table["plot"], f"{where}.plot")
    text = "" if table.get("text") is None else _text(table["text"], f"{where}.text")
    metrics = _metrics(table.get("metrics", [*DEFAULT_METRICS]), f"{where}.metrics")
    title = _text(table["title"], f"{where}.title")
    return PlannedTable(title, names, text.strip(), pairs, plot, metrics)


def _plot(content: object, where: str, cells: Mapping[str, Any]) -> PlannedPlot:
    keys = ("title", "file", "x", "series", "metrics", "xlabel")
    plot = _section(content, where, keys)
    x = _distinct(_list(plot["x"], f"{where}.x", _number), f"{where}.x")
    if any(a >= b for a, b in zip(x, x[1:], strict=False)):
        raise ReportError(f"{where}.x={list(x)} must rise")
    series = {}
    for label, names in _named(plot["series"], f"{where}.series").items():
        series[label] = _cell_names(names, f"{where}.series.{label}", cells)
        if len(series[label]) != len(x):
            raise ReportError(
                f"{where}.series.{label} has {len(series[label])} cells for {len(x)} positions x; "
                "name one each"
            )
    if not series:
        raise ReportError(f"{where}.series is empty; give a label and its cells")
    metrics = _metrics(plot["metrics"], f"{where}.metrics")
    title, xlabel = (_text(plot[key], f"{where}.{key}") for key in ("title", "xlabel"))
    return PlannedPlot(title, _file_name(plot["file"], f"{where}.file"), x, series, metrics, xlabel)


def _metrics(value: object, where: str) -> tuple[str, ...]:
    names = _list(value, where, lambda each, place: _one_of(each, place, METRICS))
    return _distinct(names, where)


def _section(
    value: object, where: str, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Any]:
    keys = [*required, *optional]
    if not isinstance(value, dict):
        raise ReportError(
            f"{where or 'the plan'} must be a mapping with the keys {', '.join(keys)}"
        )
    for key in value:
        if key not in keys:
            raise ReportError(f"unknown key {join(where, key)!r}{did_you_mean(str(key), keys)}")
    for key in required:
        if key not in value:
            raise ReportError(f"{join(where, key)} is missing")
    return value


def _named(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ReportError(f"{where}={value!r} must be a mapping from names")
    for name in value:
        _text(name, f"a name in {where}")
    return value


def _list(value: object, where: str, item: Callable[[object, str], Any]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ReportError(f"{where}={value!r} must be a list, for example [a, b]")
    return tuple(item(each, f"{where}[{i}]") for i, each in enumerate(value))


def _cell_names(value: object, where: str, cells: Mapping[str, Any]) -> tuple[str, ...]:
    return _list(value, where, lambda each, place: _one_of(each, place, cells))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ReportError(f"{where}={value!r} must be text; quote it if YAML reads it as another")
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ReportError(f"{where}={value!r} must be a number")
    return float(value)


def _seed(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ReportError(f"{where}={value!r} must be a whole number, 0 or more")
    return value


def _file_name(value: object, where: str) -> str:
    name = _text(value, where)
    if not re.fullmatch(r"[\w-][\w.-]*\.png", name, re.ASCII):
        raise ReportError(f"{where}={name!r} must be a plain file name like alpha.png, no folder")
    return name


def _one_of(value: object, where: str, names: Mapping[str, Any] | Sequence[str]) -> str:
    if not isinstance(value, str) or value not in names:
        raise ReportError(
            f"{where}={value!r} is none of {', '.join(names)}{did_you_mean(str(value), [*names])}"
        )
    return value


def _distinct(values: Sequence[Any], where: str) -> tuple[Any, ...]:
    if not values or len(set(values)) < len(values):
        raise ReportError(f"{where}={list(values)} must hold one or more, each of them once")
    return tuple(values)
