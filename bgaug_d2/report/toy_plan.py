"""The plan of the toy experiment: its cells, and the tables and plots made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bgaug_d2.keys import did_you_mean, join
from bgaug_d2.report.tables import ReportError

# Name in plans and reports -> (task, metric) in results.json, COCO's names.
METRICS = {
    f"{word} {metric}": (task, metric)
    for word, task in (("box", "bbox"), ("mask", "segm"))
    for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl")
}


@dataclass(frozen=True)
class PlannedTable:
    """One table.

    Attributes:
        title: Heading.
        cells: Names, in the order of the rows.
        text: A paragraph above the table, Markdown; may be empty.
        pairs: Cell -> the cell it is compared with in place of the plan's baseline.
        plot: File name of a plot of the differences, or None.
    """

    title: str
    cells: tuple[str, ...]
    text: str
    pairs: dict[str, str]
    plot: str | None


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
        baseline: Name of the cell that others are compared with.
        cells: Titles by name, which is the experiment's name in ``results.json``.
        tables: In the order of the report.
        plots: In the order of the report.
    """

    seeds: tuple[int, ...]
    baseline: str
    cells: dict[str, str]
    tables: tuple[PlannedTable, ...]
    plots: tuple[PlannedPlot, ...]

    def baseline_of(self, table: PlannedTable, cell: str) -> str | None:
        """What ``cell`` is compared with in ``table``: its pair, or else the plan's baseline.

        None for a cell that others are compared with, unless the pairs name one for it too.
        """
        if cell in table.pairs:
            return table.pairs[cell]
        return None if cell in {self.baseline, *table.pairs.values()} else self.baseline


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
    top = _section(content, "", ("seeds", "baseline", "cells", "tables"), ("plots",))
    titles = _named(top["cells"], "cells")
    cells = {name: _text(title, f"cells.{name}") for name, title in titles.items()}
    baseline = _one_of(top["baseline"], "baseline", cells)
    seeds = _distinct(_list(top["seeds"], "seeds", _seed), "seeds")
    tables = _list(top["tables"], "tables", lambda each, where: _table(each, where, cells))
    plots = _list(top.get("plots", []), "plots", lambda each, where: _plot(each, where, cells))
    files = [table.plot for table in tables if table.plot] + [plot.file for plot in plots]
    if len(set(files)) < len(files):
        raise ReportError(f"two plots have one file name: {', '.join(sorted(files))}")
    return Plan(seeds, baseline, cells, tables, plots)


def _table(content: object, where: str, cells: Mapping[str, Any]) -> PlannedTable:
    table = _section(content, where, ("title", "cells"), ("text", "pairs", "plot"))
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
    return PlannedTable(_text(table["title"], f"{where}.title"), names, text.strip(), pairs, plot)


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
    metrics = _list(
        plot["metrics"], f"{where}.metrics", lambda each, place: _one_of(each, place, METRICS)
    )
    _distinct(metrics, f"{where}.metrics")
    title, xlabel = (_text(plot[key], f"{where}.{key}") for key in ("title", "xlabel"))
    return PlannedPlot(title, _file_name(plot["file"], f"{where}.file"), x, series, metrics, xlabel)


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
