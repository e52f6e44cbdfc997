"""A plan's report from a folder of runs: Markdown, CSV, LaTeX and plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bgaug_d2.errors import ReportError
from bgaug_d2.report.cells import planned_runs
from bgaug_d2.report.csv_latex import to_csv, to_latex
from bgaug_d2.report.markdown import to_markdown
from bgaug_d2.report.plan import ResultsPlan, find_plan
from bgaug_d2.report.plan_file import load_plan
from bgaug_d2.report.plan_from_runs import ALL, plan_of_runs
from bgaug_d2.report.plots import write_plots
from bgaug_d2.report.runs import Run, load_runs

AUDIT = "audit"  # audit.json and audit.md, beside the runs


def write_tables(
    plan_name: str, folder: Path, out: Path | None = None, seeds: Sequence[int] | None = None
) -> str:
    """Write PLAN.md, PLAN.csv, PLAN.tex and the plots; returns the Markdown.

    Args:
        plan_name: A plan of the package, the path of a plan, or ``all``: every run that is there,
            each arm against the baseline of its benchmark.
        folder: Folder of the runs, at any depth.
        out: Folder to write to; None means that of the runs.
        seeds: Only these of the plan's; None means all.

    Raises:
        ReportError: There is no such plan, no run, or runs of one table differ in iterations.
    """
    runs = load_runs(folder)
    plan = plan_of_runs(runs) if plan_name == ALL else load_plan(find_plan(plan_name))
    plan = plan if seeds is None else with_seeds(plan, seeds)
    command = f"bgaug table {plan_name} {folder}"
    command += "" if seeds is None else f" --seeds {','.join(map(str, seeds))}"
    # Before the folder is made, so that an error leaves nothing behind.
    text = to_markdown(plan, runs, facts(plan, runs, command)) + _audit(plan, runs, folder)
    out = out or folder
    out.mkdir(parents=True, exist_ok=True)
    # A plan that was given as a path has that path as its name.
    name = Path(plan.name).stem
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    (out / f"{name}.csv").write_text(to_csv(plan, runs), encoding="utf-8")
    (out / f"{name}.tex").write_text(to_latex(plan, runs), encoding="utf-8")
    write_plots(plan, runs, out)
    return text


def with_seeds(plan: ResultsPlan, seeds: Sequence[int]) -> ResultsPlan:
    """The plan with some of its seeds.

    Raises:
        ReportError: A seed is not the plan's.
    """
    for seed in seeds:
        if seed not in plan.seeds:
            own = ", ".join(map(str, plan.seeds))
            raise ReportError(f"plan {plan.name} has no seed {seed}; it has {own}")
    return replace(plan, seeds=tuple(seeds))


def facts(plan: ResultsPlan, runs: Sequence[Run], command: str) -> dict[str, str]:
    """How the numbers came about, from the results themselves; what is not known is left out."""
    cells = planned_runs(plan, runs, [*plan.cells])
    hours = [run.training_hours for run in cells if run.training_hours is not None]
    days = sorted(run.finished for run in cells if run.finished)
    found = {
        "command": f"`{command}`",
        "runs": f"{len(cells)} of {len(plan.cells) * len(plan.seeds)}",
        "iterations": ", ".join(map(str, sorted({run.iterations for run in cells}))),
        "training": f"{sum(hours):.1f} GPU hours in all (on a CPU those of a process)",
        "inpainter": _distinct(run.inpainter for run in cells),
        "machine": _distinct(run.machine for run in cells),
        "commit": _distinct(run.commit for run in cells),
        "date": " to ".join(dict.fromkeys(days[:1] + days[-1:])),
    }
    return {name: value for name, value in found.items() if value}


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted({each for each in values if each}))


def _audit(plan: ResultsPlan, runs: Sequence[Run], folder: Path) -> str:
    """The section of the plan's audit, where one was made."""
    path = folder / f"{AUDIT}.md"
    if plan.audit is None or not path.is_file():
        return ""
    detectors = [run for run in runs if run.name == plan.audit.detector]
    # The folder may hold an audit without the run of its detector.
    ap = f"{detectors[0].metrics['bbox']['AP']:.1f}" if detectors else "?"
    return f"\n{plan.audit.text.replace('{ap}', ap)}\n\n{path.read_text(encoding='utf-8')}"
