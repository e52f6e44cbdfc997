"""The command lines that run what a plan still misses."""

from __future__ import annotations

from collections.abc import Sequence

from bgaug_d2.report.plan import Plan
from bgaug_d2.report.runs import Run

SWEEP = "resume=true 'hydra.sweep.subdir=${name}${suffix}/seed${seed}'"


def missing_seeds(plan: Plan, runs: Sequence[Run]) -> dict[str, tuple[int, ...]]:
    """The seeds that each cell of the plan still needs, cells without any left out."""
    found = {(run.name, run.seed) for run in runs}
    missing = {
        cell: tuple(seed for seed in plan.seeds if (cell, seed) not in found) for cell in plan.cells
    }
    return {cell: seeds for cell, seeds in missing.items() if seeds}


def commands_for(plan: Plan, runs: Sequence[Run] = (), tool: str = "train_net") -> list[str]:
    """One Hydra sweep for all cells that miss the same seeds.

    A run's folder in the sweep is named after its experiment and seed, so a sweep that is started
    again skips finished runs and goes on with interrupted ones.

    Args:
        plan: Names cells, seeds and the arguments of all runs.
        runs: What is there already.
        tool: ``train_net``, or ``generate`` to paint beforehand.
    """
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for cell, seeds in missing_seeds(plan, runs).items():
        by_seeds.setdefault(seeds, []).append(cell)
    commands = []
    for seeds, cells in by_seeds.items():
        names = ",".join(plan.experiment(cell) for cell in cells)
        arguments = " ".join(f"'{each}'" if "$" in each else each for each in plan.overrides)
        parts = [f"python tools/{tool}.py -m experiment={names}", f"seed={_listed(seeds)}"]
        parts += [arguments] if arguments else []
        commands.append(" ".join([*parts, f"hydra.sweep.dir={plan.folder} {SWEEP}"]))
    return commands


def _listed(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds))
