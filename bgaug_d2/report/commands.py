"""The command lines that run what a plan still misses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bgaug_d2.report.plan import Plan
from bgaug_d2.report.runs import Run

_SUBDIR = "hydra.sweep.subdir=${name}${suffix}/seed${seed}"


def missing_seeds(plan: Plan, runs: Sequence[Run]) -> dict[str, tuple[int, ...]]:
    """The seeds that each cell of the plan still needs, cells without any left out."""
    found = {(run.name, run.seed) for run in runs}
    missing = {
        cell: tuple(seed for seed in plan.seeds if (cell, seed) not in found) for cell in plan.cells
    }
    return {cell: seeds for cell, seeds in missing.items() if seeds}


def commands_for(
    plan: Plan,
    runs: Sequence[Run] = (),
    tool: str = "train_net",
    cells: Sequence[str] | None = None,
) -> list[str]:
    """One Hydra sweep for all cells that miss the same seeds.

    Started again, a sweep skips finished runs and goes on with interrupted ones.

    Args:
        plan: Names cells, seeds and the arguments of all runs.
        runs: What is there already.
        tool: ``train_net``, or ``generate`` to paint beforehand.
        cells: Only these; None means all.
    """
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for cell, seeds in missing_seeds(plan, runs).items():
        if cells is None or cell in cells:
            by_seeds.setdefault(seeds, []).append(cell)
    return [
        shlex.join(["python", f"tools/{tool}.py", *sweep(plan, names, seeds)])
        for seeds, names in by_seeds.items()
    ]


def sweep(plan: Plan, cells: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The arguments of a sweep over cells and seeds.

    A run's folder is named after its experiment and seed, and ``resume`` leaves finished runs as
    they are.
    """
    experiments = ",".join(map(plan.experiment, cells))
    own = ["-m", f"experiment={experiments}", f"seed={','.join(map(str, seeds))}"]
    return [*own, *plan.overrides, "resume=true", f"hydra.sweep.dir={plan.folder}", _SUBDIR]
