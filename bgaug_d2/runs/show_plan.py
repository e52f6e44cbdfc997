"""What a plan costs before anything starts, and the commands that run it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.report.commands import commands_for, missing_seeds
from bgaug_d2.report.cost import (
    CostEstimate,
    Rates,
    detector_key,
    estimate_cost,
    measured_rates,
    paint_key,
)
from bgaug_d2.report.plan import ResultsPlan
from bgaug_d2.report.runs import Run, load_runs
from bgaug_d2.runs.run_plan import checked_cells, compose_cell


@dataclass(frozen=True)
class GivenRates:
    """Rates that a user measured; 0 means that measured ones are taken from finished runs.

    Attributes:
        iteration_s: Seconds of an iteration on one GPU, of all detectors.
        images_per_s: Pictures that one GPU paints in a second.
        megabytes: Size of a painted picture, in 10**6 bytes.
        gpus: GPUs that work side by side.
    """

    iteration_s: float = 0.0
    images_per_s: float = 0.0
    megabytes: float = 0.0
    gpus: int = 1


def show_plan(
    plan: ResultsPlan,
    cells: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    given: GivenRates | None = None,
    options: Sequence[str] = (),
) -> str:
    """Markdown: a line of costs per cell that misses runs, their sum, and the commands.

    Args:
        plan: What is to be run; ``dataclasses.replace`` changes its seeds and folder. Finished
            runs in the folder are not planned, and rates are taken from them.
        cells: Only these; None means all.
        overrides: Further arguments of every run.
        given: Rates that win over those of finished runs.
        options: Options of ``bgaug plan`` that chose seeds, cells and folder, to be repeated.

    Raises:
        ReportError: An unknown cell, or a malformed file in the folder.
        ConfigError: A cell does not compose.
    """
    given = given or GivenRates()
    runs, rates = _known(Path(plan.folder))
    chosen = list(plan.cells) if cells is None else checked_cells(plan, cells)
    experiments = {
        cell: [run.experiment for run in compose_cell(plan, cell, overrides, seeds)]
        for cell, seeds in missing_seeds(plan, runs).items()
        if cell in chosen
    }
    first = [each[0] for each in experiments.values()]
    rates = _with_given(rates, first, given)
    costs = {cell: estimate_cost(each, rates) for cell, each in experiments.items()}
    if not costs:
        return f"# {plan.title}\n\nNothing is missing: `bgaug table {plan.name} {plan.folder}`"
    painted = [cell for cell, each in experiments.items() if each[0].bgaug.paints]
    names = [*experiments]
    parts = [
        f"# {plan.title}",
        _table(plan, costs, given.gpus),
        "Run all of it here, painting first; the same line goes on after an interruption:",
        f"    {shlex.join(['bgaug', 'plan', plan.name, '--run', *options, *overrides])}",
    ]
    if painted:
        parts += ["Or line by line, for example on a cluster. Paint beforehand (optional):"]
        parts += _indented(commands_for(plan, runs, "paint", painted, overrides))
    parts += ["Train; finished runs are skipped:"]
    parts += _indented(commands_for(plan, runs, "train", names, overrides))
    return "\n\n".join(parts)


def _known(folder: Path) -> tuple[list[Run], Rates]:
    """Finished runs, and rates that they and paintings measured."""
    runs = load_runs(folder) if any(folder.rglob("results.json")) else []
    return runs, measured_rates(folder)


def _with_given(rates: Rates, experiments: Sequence[ExperimentConfig], given: GivenRates) -> Rates:
    """Measured rates, with those of the user in their place."""
    iteration_s, images_per_s = dict(rates.iteration_s), dict(rates.images_per_s)
    sizes = dict(rates.bytes_per_image)
    for each in experiments:
        if given.iteration_s:
            iteration_s[detector_key(each)] = given.iteration_s
        if given.images_per_s:
            images_per_s[paint_key(each)] = given.images_per_s
        if given.megabytes:
            sizes[paint_key(each)] = 1e6 * given.megabytes
    return Rates(iteration_s, images_per_s, sizes)


def _table(plan: ResultsPlan, costs: Mapping[str, CostEstimate], gpus: int) -> str:
    header = ["cell", "runs", "iterations", "training, GPU h", "pictures", "painting, GPU h", "GB"]
    lines = [_line(header), _line(["---"] * len(header))]
    for cell, each in costs.items():
        numbers = [each.training_hours, each.pictures, each.painting_hours, each.gigabytes]
        counts = [str(each.runs), str(each.iterations)]
        lines.append(_line([plan.cells[cell].title, *counts, *map(_number, numbers)]))
    hours = [each.training_hours for each in costs.values()]
    hours += [each.painting_hours for each in costs.values()]
    known = [each for each in hours if each is not None]
    total = sum(known)
    lines += ["", f"{total:.3g} GPU hours, {total / gpus:.3g} h with --gpus {gpus}."]
    if unknown := len(hours) - len(known):
        lines.append(f"{unknown} figures are unknown (?) and not in the sum: give rates (--help).")
    lines.append("Pictures that cells share (same images and recipe) are painted once.")
    return "\n".join(lines)


def _indented(commands: Sequence[str]) -> list[str]:
    return [f"    {command}" for command in commands]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"
