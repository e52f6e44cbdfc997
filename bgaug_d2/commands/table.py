"""Make tables from a folder of finished runs: those of a plan, or of whatever runs there are.

PLAN is a table of the paper (its numbers stand beside ours), another plan of the package, the path
of a plan, or `all`: every run in the folder, each arm against the baseline of its benchmark.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bgaug_d2.commands.plan import parse_seeds
from bgaug_d2.errors import BgAugError
from bgaug_d2.report.plan import plan_names
from bgaug_d2.report.write_tables import write_tables


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a mistake ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="bgaug table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  bgaug table all output\n  bgaug table table1 output/paper",
    )
    parser.add_argument("plan", metavar="PLAN", help=f"all, {', '.join(plan_names())}, or a path")
    parser.add_argument(
        "runs", type=Path, metavar="RUNS", help="folder that holds the runs, at any depth"
    )
    parser.add_argument("--seeds", metavar="0,1", help="only these seeds of the plan")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for PLAN.md, .csv, .tex and plots [RUNS]"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug table``."""
    arguments = parse_arguments(argv)
    seeds = parse_seeds(arguments.seeds)
    try:
        print(write_tables(arguments.plan, arguments.runs, arguments.out, seeds))
    except BgAugError as error:
        sys.exit(str(error))
    # A plan may be given as a path; the files have its name alone.
    out, name = arguments.out or arguments.runs, Path(arguments.plan).stem
    print(f"Written to {out / name}.md, .csv and .tex")


if __name__ == "__main__":
    main()
