"""Show what a plan needs: its cells, their cost, the commands that run it. With --run, run it.

PLAN is the name of a table of the paper or another plan of the package, or the path of a plan.
Rates are measured, never assumed: they come from finished runs and paintings in the plan's folder
with the same detector and the same model, or from you. To measure some first, run
`bgaug train ARGUMENTS OF A CELL schedule.iterations=200 output_dir=FOLDER/rates/train` and
`bgaug paint ARGUMENTS OF A CELL dry_run=true output_dir=FOLDER/rates/paint`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bgaug_d2.errors import BgAugError
from bgaug_d2.report.plan import find_plan, plan_names
from bgaug_d2.report.plan_file import load_plan
from bgaug_d2.report.write_tables import with_seeds, write_tables
from bgaug_d2.runs.run_plan import run_plan
from bgaug_d2.runs.show_plan import GivenRates, show_plan
from bgaug_d2.runs.side_by_side import end_on_sigterm


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a mistake ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="bgaug plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  bgaug plan table1\n  bgaug plan table1 --run launch.num_gpus=8\n"
        "  bgaug plan toy_tables --run --jobs 4 --cells standard,erosion --seeds 0,1",
    )
    parser.add_argument("plan", metavar="PLAN", help=f"{', '.join(plan_names())}, or a path")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="further settings of every run"
    )
    parser.add_argument("--run", action="store_true", help="run what is missing, then write tables")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="trainings at a time [%(default)s]"
    )
    parser.add_argument("--cells", metavar="A,B", help="only these cells")
    parser.add_argument("--seeds", metavar="0,1", help="only these seeds of the plan")
    parser.add_argument("--out", metavar="DIR", help="folder of the runs [the plan's own]")
    parser.add_argument(
        "--iteration-s", type=float, default=0.0, metavar="S", help="seconds of an iteration"
    )
    parser.add_argument(
        "--images-per-s", type=float, default=0.0, metavar="R", help="pictures that a GPU paints"
    )
    parser.add_argument(
        "--megabytes", type=float, default=0.0, metavar="MB", help="size of a painted picture"
    )
    parser.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="GPUs side by side, for the sum [1]"
    )
    # KEY=VALUE may stand between options, where `parse_args` would refuse it.
    arguments = parser.parse_intermixed_args(argv)
    if arguments.jobs < 1 or arguments.gpus < 1:
        parser.error("--jobs and --gpus must be at least 1")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug plan``."""
    arguments = parse_arguments(argv)
    try:
        plan = load_plan(find_plan(arguments.plan))
        seeds = parse_seeds(arguments.seeds)
        plan = plan if seeds is None else with_seeds(plan, seeds)
        plan = replace(plan, folder=arguments.out or plan.folder)
        cells = arguments.cells.split(",") if arguments.cells else None
        if not arguments.run:
            given = GivenRates(
                arguments.iteration_s, arguments.images_per_s, arguments.megabytes, arguments.gpus
            )
            # What chose the cells is repeated in the command lines that are shown.
            options = [
                f"--{name}={value}"
                for name in ("seeds", "cells", "out")
                if (value := getattr(arguments, name))
            ]
            print(show_plan(plan, cells, arguments.overrides, given, options))
            return
        # From here on there are processes that must not outlive this one.
        end_on_sigterm()
        run_plan(plan, arguments.jobs, cells, arguments.overrides)
        write_tables(arguments.plan, Path(plan.folder), seeds=seeds)
        print(f"The report is {plan.folder}/{Path(plan.name).stem}.md")
    except BgAugError as error:
        sys.exit(str(error))


def parse_seeds(text: str | None) -> list[int] | None:
    """``0,1,2`` as numbers; None for None. A mistake ends the process with status 2."""
    try:
        return None if text is None else [int(each) for each in text.split(",")]
    except ValueError:
        print(f"--seeds={text}: give whole numbers separated by commas", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
