"""Tables from a folder of runs: those of the paper, with its numbers beside ours, or any other."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bgaug_d2.errors import ReportError
from bgaug_d2.report.csv_latex import to_csv, to_latex
from bgaug_d2.report.markdown import to_markdown
from bgaug_d2.report.plan import PLANS, Plan, find_plan, load_plan
from bgaug_d2.report.plan_from_runs import plan_of_runs
from bgaug_d2.report.plots import write_plots
from bgaug_d2.report.runs import Run, load_runs

ALL = "all"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    known = ", ".join(sorted(each.stem for each in PLANS.glob("*.yaml")))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "table",
        help=f"{known}; the path of a plan; or `{ALL}`: every run that is there, each arm against "
        "the baseline of its experiment",
    )
    parser.add_argument("runs", type=Path, help="folder that holds the runs, at any depth")
    parser.add_argument("--out", type=Path, help="folder for TABLE.md, .csv, .tex and plots [RUNS]")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        runs = load_runs(arguments.runs)
        if arguments.table == ALL:
            plan, name = plan_of_runs(runs), ALL
        else:
            path = find_plan(arguments.table)
            plan, name = load_plan(path), path.stem
        print(write(plan, runs, arguments.out or arguments.runs, name))
    except ReportError as error:
        sys.exit(str(error))


def write(plan: Plan, runs: list[Run], out: Path, name: str) -> str:
    """Write all formats and the plots; the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    table = to_markdown(plan, runs, {})
    (out / f"{name}.md").write_text(table, encoding="utf-8")
    (out / f"{name}.csv").write_text(to_csv(plan, runs), encoding="utf-8")
    (out / f"{name}.tex").write_text(to_latex(plan, runs), encoding="utf-8")
    write_plots(plan, runs, out)
    return f"{table}\nWritten to {out / name}.md, .csv and .tex"


if __name__ == "__main__":
    main()
