"""Reading a plan: YAML to dataclasses, with every mistake named by its entry."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bgaug_d2.config.parse import did_you_mean, join
from bgaug_d2.errors import ReportError
from bgaug_d2.report.plan import (
    DEFAULT_METRICS,
    METRICS,
    PLANS,
    PlannedAudit,
    PlannedCell,
    PlannedPlot,
    PlannedTable,
    ResultsPlan,
    product_of,
)

_TEXTS = ("title", "text", "folder")  # optional ones of a plan


def load_plan(path: Path) -> ResultsPlan:
    """Read a plan as YAML.

    A cell is ``NAME: TITLE`` with NAME = BENCHMARK-ARM[-ABLATION], which chooses the run, or
    ``NAME: {title: TITLE, run: ARGUMENTS}`` with any name and the arguments of ``bgaug train``.

    Raises:
        ReportError: The file cannot be read, or an entry is missing, unknown or wrong; the message
            names the file and the entry.
    """
    # `find_plan` finds a plan of the package by its name and any other by its path.
    name = path.stem if path.parent == PLANS else str(path)
    try:
        return _plan(yaml.safe_load(path.read_text(encoding="utf-8")), name)
    # Our own errors too: each gets the name of the file in front.
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ReportError) as error:
        raise ReportError(f"{path}: {error}") from error


def _plan(content: object, name: str) -> ResultsPlan:
    optional = ("plots", "title", "text", "overrides", "folder", "paper", "audit")
    top = _section(content, "", ("seeds", "baseline", "cells", "tables"), optional)
    named = _named(top["cells"], "cells")
    cells = {cell: _cell(cell, value) for cell, value in named.items()}
    tables = _list(top["tables"], "tables", lambda each, where: _table(each, where, cells))
    plots = _list(top.get("plots", []), "plots", lambda each, where: _plot(each, where, cells))
    files = [table.plot for table in tables if table.plot] + [plot.file for plot in plots]
    # The second plot would overwrite the first.
    if len(set(files)) < len(files):
        raise ReportError(f"two plots have one file name: {', '.join(sorted(files))}")
    return ResultsPlan(
        name=name,
        seeds=_distinct(_list(top["seeds"], "seeds", _seed), "seeds"),
        baseline=_one_of(top["baseline"], "baseline", cells),
        cells=cells,
        tables=tables,
        plots=plots,
        overrides=_list(top.get("overrides", []), "overrides", _text),
        paper=_paper(top.get("paper", {}), cells),
        audit=_audit(top["audit"], cells) if "audit" in top else None,
        **{key: _text(top[key], key).strip() for key in _TEXTS if key in top},
    )


def _cell(name: str, content: object) -> PlannedCell:
    where = f"cells.{name}"
    if isinstance(content, dict):
        cell = _section(content, where, ("title", "run"))
        title = _text(cell["title"], f"{where}.title")
        return PlannedCell(title, run=_arguments(cell["run"], f"{where}.run"))
    product = product_of(name)
    if product is None:
        raise ReportError(
            f"{where}: the name is not BENCHMARK-ARM[-ABLATION], so say what is run: "
            f"{name}: {{title: ..., run: benchmark=... arm=...}}"
        )
    return PlannedCell(_text(content, where), product)


def _audit(content: object, cells: Mapping[str, Any]) -> PlannedAudit:
    required = ("detector", "run", "seed", "cells", "text")
    audit = _section(content, "audit", required, ("overrides",))
    return PlannedAudit(
        detector=_text(audit["detector"], "audit.detector"),
        run=_arguments(audit["run"], "audit.run"),
        seed=_seed(audit["seed"], "audit.seed"),
        cells=_distinct(_cell_names(audit["cells"], "audit.cells", cells), "audit.cells"),
        overrides=_list(audit.get("overrides", []), "audit.overrides", _text),
        text=_text(audit["text"], "audit.text").strip(),
    )


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
    # A line joins the points in their order.
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


def _arguments(value: object, where: str) -> tuple[str, ...]:
    # Split as a shell would, so that a command line can be copied into a plan.
    return tuple(shlex.split(_text(value, where)))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ReportError(f"{where}={value!r} must be text; quote it if YAML reads it as another")
    return value


def _number(value: object, where: str) -> float:
    # `true` is a bool, which Python counts among the integers.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ReportError(f"{where}={value!r} must be a number")
    return float(value)


def _seed(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ReportError(f"{where}={value!r} must be a whole number, 0 or more")
    return value


def _file_name(value: object, where: str) -> str:
    name = _text(value, where)
    # The name is joined to the folder of the report; a path could lead out of it.
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
