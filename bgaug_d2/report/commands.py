"""The command lines that run what a plan still misses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bgaug_d2.report.plan import ResultsPlan
from bgaug_d2.report.runs import Run

# Values of benchmark, arm and ablation: a sweep runs every combination.
_Product = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def missing_seeds(plan: ResultsPlan, runs: Sequence[Run]) -> dict[str, tuple[int, ...]]:
    """The seeds that each cell of the plan still needs, cells without any left out."""
    found = {(run.name, run.seed) for run in runs}
    missing = {
        cell: tuple(seed for seed in plan.seeds if (cell, seed) not in found) for cell in plan.cells
    }
    return {cell: seeds for cell, seeds in missing.items() if seeds}


def run_arguments(plan: ResultsPlan, cell: str, overrides: Sequence[str] = ()) -> list[str]:
    """What chooses a cell on the command line of ``bgaug train``, except its seed and folder.

    Args:
        plan: Names the cell and the arguments of all runs.
        cell: Name in the plan.
        overrides: Further arguments; they win over the plan's.
    """
    return [*plan.cells[cell].arguments, f"name={cell}", *plan.overrides, *overrides]


def commands_for(
    plan: ResultsPlan,
    runs: Sequence[Run] = (),
    command: str = "train",
    cells: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Few command lines that run all cells with the seeds they miss; mostly Hydra sweeps.

    Started again, a line skips finished runs and goes on with interrupted ones.

    Args:
        plan: Names cells, seeds and the arguments of all runs.
        runs: What is there already.
        command: ``train``, or ``paint`` to paint beforehand.
        cells: Only these; None means all.
        overrides: Further arguments of every run.
    """
    # Hydra fills in name and seed in each run of a sweep.
    folder = f"output_dir={plan.folder}/${{name}}/seed${{seed}}"
    # Painting skips what the cache holds, so only training is resumed.
    rest = [*plan.overrides, *overrides, folder, *(["resume=true"] if command == "train" else [])]
    products: dict[tuple[int, ...], list[_Product]] = {}
    lines: list[tuple[list[str], tuple[int, ...]]] = []
    for name, seeds in missing_seeds(plan, runs).items():
        cell = plan.cells[name]
        # A cell made from finished runs: nobody knows how they were started.
        if not cell.arguments or (cells is not None and name not in cells):
            continue
        if cell.product is None:
            lines.append(([*cell.run, f"name={name}"], seeds))
        else:
            benchmark, arm, ablation = cell.product
            # A sweep runs all its cells with the same seeds, so these must miss the same ones.
            products.setdefault(seeds, []).append(((benchmark,), (arm,), (ablation,)))
    sweeps = [
        (_choices(product), seeds) for seeds, each in products.items() for product in _merged(each)
    ]
    return [_line(command, chosen, seeds, rest) for chosen, seeds in [*sweeps, *lines]]


def _merged(products: list[_Product]) -> list[_Product]:
    """The same combinations in fewer products: those that differ in one axis become one."""
    for axis in (1, 0, 2):  # arms of a benchmark, benchmarks with the same arms, ablations
        groups: dict[tuple[tuple[str, ...], ...], tuple[str, ...]] = {}
        for product in products:
            others = product[:axis] + product[axis + 1 :]
            groups[others] = groups.get(others, ()) + product[axis]
        products = [(*key[:axis], values, *key[axis:]) for key, values in groups.items()]  # type: ignore[misc]
    return products


def _choices(product: _Product) -> list[str]:
    benchmarks, arms, ablations = (",".join(each) for each in product)
    chosen = [f"benchmark={benchmarks}", f"arm={arms}"]
    return chosen if ablations == "none" else [*chosen, f"ablation={ablations}"]


def _line(command: str, chosen: list[str], seeds: tuple[int, ...], rest: Sequence[str]) -> str:
    choices = [*chosen, f"seed={','.join(map(str, seeds))}"]
    sweep = ["-m"] if any("," in each for each in choices) else []
    return shlex.join(["bgaug", command, *sweep, *choices, *rest])
