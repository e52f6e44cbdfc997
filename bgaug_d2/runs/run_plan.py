"""Runs the cells of a plan with its seeds: paint, train, audit.

What is finished is skipped and what was cut off is resumed, so an interrupted call goes on when it
is made again.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.parse import nearest_of
from bgaug_d2.errors import ReportError
from bgaug_d2.report.commands import run_arguments
from bgaug_d2.report.plan import PlannedAudit, PlannedCell, ResultsPlan
from bgaug_d2.report.write_tables import AUDIT
from bgaug_d2.runs.hydra_app import compose_seeds
from bgaug_d2.runs.side_by_side import (
    BGAUG,
    ProcessTask,
    iterations_done,
    pictures_done,
    run_side_by_side,
)


@dataclass(frozen=True)
class CellRun:
    """One cell with one seed.

    Attributes:
        cell: Name in the plan.
        arguments: Command line of ``bgaug train``, but for ``resume=true``.
        experiment: What these compose to.
    """

    cell: str
    arguments: tuple[str, ...]
    experiment: ExperimentConfig

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.experiment.output_dir)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.cell}, seed {self.experiment.seed}"


def run_plan(
    plan: ResultsPlan,
    jobs: int = 1,
    cells: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Run what is missing: paint everything first, then train, then audit.

    Args:
        plan: Cells, seeds, folder; ``dataclasses.replace`` changes them.
        jobs: Trainings at a time, each with its share of the CPU's threads. Painting takes all
            devices, so one process paints at a time.
        cells: Only these; None means all.
        overrides: Further arguments of every run.

    Raises:
        ReportError: An unknown cell, or one without arguments.
        ConfigError: A cell does not compose.
        RunFailedError: A process failed; all others were ended.
    """
    runs = missing_runs(plan, cells, overrides)
    paint_runs(runs, Path(plan.folder))
    train_runs(runs, jobs)
    if plan.audit is not None and set(plan.audit.cells) <= set(cells or plan.cells):
        _audit(plan, plan.audit, overrides)


def missing_runs(
    plan: ResultsPlan, cells: Sequence[str] | None = None, overrides: Sequence[str] = ()
) -> list[CellRun]:
    """The runs without results, seed by seed: so all cells can be compared early with few seeds.

    Raises:
        ReportError: An unknown cell.
        ConfigError: A cell does not compose.
    """
    chosen = list(plan.cells) if cells is None else checked_cells(plan, cells)
    runs = [run for cell in chosen for run in compose_cell(plan, cell, overrides)]
    missing = [run for run in runs if not (run.folder / "results.json").is_file()]
    return sorted(missing, key=lambda run: plan.seeds.index(run.experiment.seed))


def checked_cells(plan: ResultsPlan, cells: Sequence[str]) -> list[str]:
    """The names, if the plan has them all.

    Raises:
        ReportError: It has one not.
    """
    for cell in cells:
        if cell not in plan.cells:
            raise ReportError(
                f"plan {plan.name} has no cell {cell!r}{nearest_of(cell, list(plan.cells))}"
            )
    return list(cells)


def compose_cell(
    plan: ResultsPlan, cell: str, overrides: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> list[CellRun]:
    """The runs of one cell.

    Args:
        plan: Names the cell, its arguments and the folder of the runs.
        cell: Name in the plan.
        overrides: Further arguments; they win over the plan's.
        seeds: None means all of the plan.

    Raises:
        ConfigError: The arguments do not compose to a run.
    """
    chosen = plan.seeds if seeds is None else seeds
    common = run_arguments(plan, cell, overrides)
    place = f"output_dir={plan.folder}/{cell}/seed${{seed}}"
    experiments = compose_seeds([*common, place], chosen)
    return [
        CellRun(cell, (*common, f"seed={seed}", f"output_dir={experiment.output_dir}"), experiment)
        for seed, experiment in zip(chosen, experiments, strict=True)
    ]


def paint_runs(runs: Sequence[CellRun], folder: Path) -> None:
    """Paint what the runs need; those that share a cache do so in one process, in turn.

    Args:
        runs: Those that paint nothing are passed over.
        folder: Logs go into ``painting/`` there.

    Raises:
        RunFailedError: Painting failed, or some pictures could not be painted.
    """
    by_cache: dict[str, list[CellRun]] = {}
    for run in runs:
        if not run.experiment.bgaug.paints:
            continue
        by_cache.setdefault(run.experiment.bgaug.cache.dir, []).append(run)
    tasks = []
    for place, (cache, sharing) in enumerate(by_cache.items()):
        log = folder / "painting" / f"{place}.txt"
        orders = log.with_suffix(".json")
        log.parent.mkdir(parents=True, exist_ok=True)
        orders.write_text(json.dumps([run.arguments for run in sharing], indent=1))
        command = (sys.executable, "-m", "bgaug_d2.runs.paint_cells", str(orders))
        progress = functools.partial(pictures_done, log)
        tasks.append(ProcessTask(f"painting into {cache}", command, log, progress))
    run_side_by_side(tasks, 1, "painting", "images")


def train_runs(runs: Sequence[CellRun], jobs: int) -> None:
    """Train, ``jobs`` runs at a time; one that was cut off goes on from its last checkpoint.

    Raises:
        RunFailedError: A run failed; the others were ended.
    """
    run_side_by_side([_training(run) for run in runs], jobs, "training", "iterations")


def _training(run: CellRun) -> ProcessTask:
    progress = functools.partial(iterations_done, run.folder, run.experiment.schedule.iterations)
    command = (*BGAUG, "train", *run.arguments, "resume=true")
    return ProcessTask(run.title, command, run.folder / "output.txt", progress)


def _audit(plan: ResultsPlan, audit: PlannedAudit, overrides: Sequence[str]) -> None:
    """Have a detector look for faults in pictures that are painted for this alone."""
    folder = Path(plan.folder)
    out = folder / f"{AUDIT}.json"
    if out.is_file():
        return
    detector_plan = replace(
        plan, cells={audit.detector: PlannedCell(audit.detector, run=audit.run)}
    )
    (detector,) = compose_cell(detector_plan, audit.detector, overrides, [audit.seed])
    cache = folder / AUDIT / "cache"
    own = [*overrides, *audit.overrides, f"bgaug.cache.dir={cache}"]
    audit_plan = replace(plan, folder=str(folder / AUDIT))
    runs = [compose_cell(audit_plan, cell, own, [audit.seed])[0] for cell in audit.cells]
    paint_runs(runs, folder / AUDIT)
    if not (detector.folder / "results.json").is_file():
        train_runs([detector], 1)
    image_root, annotations = _training_images(runs[0].experiment)
    places = ("--image-root", image_root, "--annotations", annotations, "--out", str(out))
    command = (*BGAUG, "audit", str(detector.folder), "--cache", str(cache), *places)
    task = ProcessTask("the audit", command, folder / AUDIT / "output.txt")
    run_side_by_side([task], 1, "audit", "pictures")


def _training_images(experiment: ExperimentConfig) -> tuple[str, str]:
    """Folder of the training images, and their annotation file in COCO's format."""
    dataset = experiment.dataset
    if dataset.kind == "toy":
        return dataset.root, f"{dataset.root}/annotations/instances_train.json"
    if dataset.kind == "coco":
        return dataset.root, f"{dataset.root}/{dataset.coco.train_json}"
    raise ReportError(
        f"an audit needs annotations in COCO's format, but dataset.kind={dataset.kind!r}"
    )
