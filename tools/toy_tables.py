"""Runs the experiments on the toy world, audits what was painted, and writes the report.

What is finished is skipped, so an interrupted run goes on when it is started again. All of it is in
configs/toy_tables.yaml and configs/experiment/toy_tables/; any cell can be run by hand as well:
`python tools/train_net.py experiment=toy_tables/adaptive seed=0`.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose, initialize_config_dir

from bgaug_d2.errors import ReportError
from bgaug_d2.report.markdown import to_markdown
from bgaug_d2.report.plan import Plan, load_plan
from bgaug_d2.report.plots import write_plots
from bgaug_d2.report.runs import Run, load_runs
from bgaug_d2.runs.environment import machine
from bgaug_d2.runs.hydra_app import register_base, to_experiment

TOOLS = Path(__file__).resolve().parent
CONFIGS = TOOLS.parent / "configs"
PLAN = CONFIGS / "toy_tables.yaml"
OUT = Path("output/toy_tables")  # configs/experiment/toy_tables/_base.yaml says so too
# Whose pictures are audited, unpasted: the objects as the model left them.
AUDITED = ("caption", "clean", "erosion", "adaptive")
AUDIT_TEXT = (
    "## What is wrong with painted pictures\n\n"
    "A Mask R-CNN of the same kind, trained on 3,000 unbiased images (box AP {ap} on the test "
    "split), looks at 128 painted pictures a recipe and at their originals; objects are not pasted "
    "back. *Extra object*: pictures in which it finds an object where none is labelled. *Outside*: "
    "how much of a labelled object it finds beyond the mask, as a share of the object. In brackets "
    "the 95 % interval of the change (bootstrap over pictures).\n\n"
)
RAW = ("bgaug.recipe.paste_back=false", "dataset.max_train_images=128")


@dataclass(frozen=True)
class Task:
    """One process: what it is called, its command line, the folder for its output."""

    name: str
    arguments: tuple[str, ...]
    folder: Path


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time [%(default)s]"
    )
    parser.add_argument("--plan", type=Path, default=PLAN, help="[configs/toy_tables.yaml]")
    parser.add_argument("--cells", help="run only these, separated by commas")
    parser.add_argument("--seeds", help="run and report only these, separated by commas")
    parser.add_argument("--report-only", action="store_true", help="of what is there; run nothing")
    parser.add_argument(
        "--report", type=Path, default=OUT / "toy.md", help="Markdown file to write [%(default)s]"
    )
    parser.add_argument(
        "overrides", nargs="*", help="further settings of every run, for example debug=cpu_smoke"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    plan = load_plan(arguments.plan)
    if arguments.seeds:
        plan = replace(plan, seeds=tuple(map(int, arguments.seeds.split(","))))
    audited = set(AUDITED) <= set(plan.cells)
    if not arguments.report_only:
        cells = arguments.cells.split(",") if arguments.cells else list(plan.cells)
        if unknown := [each for each in cells if each not in plan.cells]:
            sys.exit(
                f"{arguments.plan} has no cell {unknown[0]!r}; there are {', '.join(plan.cells)}"
            )
        run_cells(cells, plan.seeds, arguments.jobs, arguments.overrides)
        if audited:
            audit(arguments.jobs, arguments.overrides)
    write_report(plan, arguments.report, audited, command(arguments.plan, arguments.seeds))


def command(plan: Path, seeds: str | None) -> str:
    """The command line that gives a report."""
    own = [] if plan == PLAN else [f"--plan={os.path.relpath(plan, TOOLS.parent)}"]
    own += [f"--seeds={seeds}"] if seeds else []
    return f'make toy-tables ARGS="{" ".join(own)}"' if own else "make toy-tables"


def run_cells(
    cells: Sequence[str], seeds: Sequence[int], jobs: int, overrides: Sequence[str]
) -> None:
    """Paint and train what has no results yet."""
    missing = [
        (cell, seed)
        for seed, cell in itertools.product(seeds, cells)
        if not (run_folder(cell, seed) / "results.json").is_file()
    ]
    painting = []
    for seed in seeds:
        painted = [cell for cell, each in missing if each == seed and is_painted(cell)]
        if painted:
            painting.append(painting_task(painted, seed, f"seed{seed}", overrides, OUT / "runs"))
    run_all(painting, jobs)
    run_all([training_task(*each, overrides) for each in missing], jobs)


def audit(jobs: int, overrides: Sequence[str]) -> None:
    """Have a detector that saw plenty of images look for faults in unpasted pictures."""
    if (OUT / "audit.json").is_file():
        return
    raw = f"bgaug.cache.dir={OUT / 'cache' / 'raw'}"
    tasks = [painting_task(AUDITED, 0, "raw", [*RAW, *overrides, raw], OUT / "audit")]
    if not (run_folder("plenty", 0) / "results.json").is_file():
        tasks.append(training_task("plenty", 0, overrides))
    run_all(tasks, jobs)
    world = OUT / "worlds" / "seed0"
    places = ("--cache", f"{OUT / 'cache' / 'raw'}", "--image-root", f"{world}")
    annotations = ("--annotations", f"{world / 'annotations' / 'instances_train.json'}")
    out = ("--out", f"{OUT / 'audit.json'}")
    arguments = ("audit.py", f"{run_folder('plenty', 0)}", *places, *annotations, *out)
    run_all([Task("audit", arguments, OUT / "audit")], jobs)


def write_report(plan: Plan, path: Path, audited: bool, told: str) -> None:
    found = load_runs(OUT / "runs")
    runs = found if audited else [run for run in found if run.name in plan.cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = to_markdown(plan, runs, facts(plan, runs, told))
    if audited and (OUT / "audit.md").is_file():
        plenty = next((run for run in runs if run.name == "plenty"), None)
        text += "\n" + AUDIT_TEXT.format(
            ap="?" if plenty is None else f"{plenty.metrics['bbox']['AP']:.1f}"
        )
        text += (OUT / "audit.md").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    write_plots(plan, runs, path.parent)
    print(f"The report is {path}")


def facts(plan: Plan, runs: Sequence[Run], told: str) -> dict[str, str]:
    """How the numbers came about, from the results themselves."""
    cells = [run for run in runs if run.name in plan.cells and run.seed in plan.seeds]
    paths = [run_folder(run.name, run.seed) / "results.json" for run in cells]
    found = [json.loads(path.read_text()) for path in paths]
    commits = sorted({str(each["versions"]["git_commit"])[:7] for each in found})
    hours = sum(each["training"]["wall_s"] for each in found) / 3600
    days = sorted({finished(path) for path in paths})
    return {
        "command": f"`{told}`",
        "runs": f"{len(cells)} of {len(plan.cells) * len(plan.seeds)}",
        "iterations": ", ".join(map(str, sorted({run.iterations for run in cells}))),
        "training": f"{hours:.1f} hours in all, a thread each",
        "inpainter": ", ".join(
            sorted({each["inpainter"]["id"] for each in found if each["inpainter"]})
        ),
        "machine": machine(),
        "commit": ", ".join(commits),
        "date": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "",
    }


def finished(path: Path) -> str:
    """The day of a run, ISO 8601; older results do not tell it, but their file does."""
    content = json.loads(path.read_text())
    day = datetime.date.fromtimestamp(path.stat().st_mtime).isoformat()
    return str(content.get("finished", day))[:10]


def run_folder(cell: str, seed: int) -> Path:
    return OUT / "runs" / cell / f"seed{seed}"


def is_painted(cell: str) -> bool:
    """Whether a cell's experiment needs pictures."""
    register_base()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return to_experiment(compose("train", [f"experiment=toy_tables/{cell}"])).bgaug.paints


def training_task(cell: str, seed: int, overrides: Sequence[str]) -> Task:
    arguments = ("train_net.py", f"experiment=toy_tables/{cell}", f"seed={seed}", *overrides)
    return Task(f"{cell}, seed {seed}", arguments, run_folder(cell, seed))


def painting_task(
    cells: Sequence[str], seed: int, name: str, overrides: Sequence[str], reports: Path
) -> Task:
    """What these cells need with one seed, painted in one process.

    Each cell's report of painting goes to ``reports``, in the folder that its run will have there.
    """
    folder = OUT / "painting" / name
    choices = ",".join(f"toy_tables/{cell}" for cell in cells)
    places = (f"hydra.sweep.dir={reports}", "hydra.sweep.subdir=${name}/seed${seed}")
    arguments = ("-m", f"experiment={choices}", f"seed={seed}", *places, *overrides)
    return Task(f"painting {name}", ("generate.py", *arguments), folder)


def run_all(tasks: list[Task], jobs: int) -> None:
    """Run tasks, ``jobs`` at a time with a thread each; the first failure ends all."""
    waiting, running = deque(tasks), dict[Task, subprocess.Popen[bytes]]()
    began, finished = time.monotonic(), 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.popleft()
                running[task] = start(task)
            time.sleep(0.5)
            for task, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[task]
                if process.returncode:
                    sys.exit(f"{task.name} failed, see {task.folder / 'output.txt'}")
                finished += 1
                minutes = (time.monotonic() - began) / 60
                left = minutes / finished * (len(tasks) - finished)
                print(
                    f"{task.name} is done; {finished} of {len(tasks)} in {minutes:.0f} min, "
                    f"about {left:.0f} min to go",
                    flush=True,
                )
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def start(task: Task) -> subprocess.Popen[bytes]:
    task.folder.mkdir(parents=True, exist_ok=True)
    with open(task.folder / "output.txt", "wb") as output:
        return subprocess.Popen(
            [sys.executable, str(TOOLS / task.arguments[0]), *task.arguments[1:]],
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that runs under way are ended
    try:
        main()
    except ReportError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
