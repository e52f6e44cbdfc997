"""What a table costs before anything starts, and the commands that run it.

Rates are measured, never assumed: they come from finished runs and paintings with the same
detector and the same model (`--runs`), or from you (`--iteration-s`, `--images-per-s`). To measure
some first:
`python tools/train_net.py experiment=NAME schedule.iterations=200 output_dir=output/rates/NAME` and
`python tools/generate.py experiment=NAME dry_run=true output_dir=output/rates/NAME-painting`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.errors import ConfigError, ReportError
from bgaug_d2.report.commands import commands_for, missing_seeds
from bgaug_d2.report.cost import Estimate, Rates, detector_key, estimate, measured_rates, paint_key
from bgaug_d2.report.plan import Plan, find_plan, load_plan
from bgaug_d2.report.runs import load_runs
from bgaug_d2.runs.hydra_app import register_base, to_experiment

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", help="table1, ..., figure6, ablation, or the path of a plan")
    parser.add_argument(
        "--runs", type=Path, help="folder of runs: finished cells are not planned, rates are taken"
    )
    parser.add_argument("--iteration-s", type=float, help="seconds of an iteration, all detectors")
    parser.add_argument("--images-per-s", type=float, help="pictures one GPU paints in a second")
    parser.add_argument("--megabytes", type=float, help="size of a painted picture")
    parser.add_argument("--gpus", type=int, default=1, help="that work side by side [%(default)s]")
    parser.add_argument(
        "overrides", nargs="*", help="further settings of every run, for example debug=miniature"
    )
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        plan = load_plan(find_plan(arguments.table))
        runs = load_runs(arguments.runs) if arguments.runs else []
        rates = measured_rates(arguments.runs) if arguments.runs else Rates()
        missing = missing_seeds(plan, runs)
        cells = compose_cells(plan, list(missing), arguments.overrides)
    except (ReportError, ConfigError) as error:
        sys.exit(str(error))
    rates = with_given(rates, list(cells.values()), arguments)
    found = {cell: estimate(cells[cell], seeds, rates) for cell, seeds in missing.items()}
    print(to_text(plan, found, arguments.gpus))
    painted = [cell for cell, each in cells.items() if each.bgaug.paints]
    print("\nPaint beforehand (optional):")
    print_commands(commands_for(plan, runs, "generate", painted), arguments.overrides)
    print("\nTrain; finished runs are skipped, so the same line goes on after an interruption:")
    print_commands(commands_for(plan, runs), arguments.overrides)


def compose_cells(
    plan: Plan, cells: Sequence[str], overrides: Sequence[str]
) -> dict[str, ExperimentConfig]:
    """The settings of every cell, with its first seed."""
    register_base()
    found = {}
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for cell in cells:
            own = [f"experiment={plan.experiment(cell)}", f"seed={plan.seeds[0]}"]
            found[cell] = to_experiment(compose("train", [*own, *plan.overrides, *overrides]))
    return found


def with_given(
    rates: Rates, experiments: Sequence[ExperimentConfig], arguments: argparse.Namespace
) -> Rates:
    """The rates with those of the command line in their place."""
    iteration_s, images_per_s = dict(rates.iteration_s), dict(rates.images_per_s)
    sizes = dict(rates.bytes_per_image)
    for each in experiments:
        if arguments.iteration_s:
            iteration_s[detector_key(each)] = arguments.iteration_s
        if arguments.images_per_s:
            images_per_s[paint_key(each)] = arguments.images_per_s
        if arguments.megabytes:
            sizes[paint_key(each)] = 1e6 * arguments.megabytes
    return Rates(iteration_s, images_per_s, sizes)


def to_text(plan: Plan, found: dict[str, Estimate], gpus: int) -> str:
    """A Markdown table and its sums."""
    header = ["cell", "runs", "iterations", "training, GPU h", "pictures", "painting, GPU h", "GB"]
    lines = [f"# {plan.title}", "", _line(header), _line(["---"] * len(header))]
    for cell, each in found.items():
        numbers = [each.training_hours, each.pictures, each.painting_hours, each.gigabytes]
        counts = [str(each.runs), str(each.iterations)]
        lines.append(_line([plan.cells[cell], *counts, *map(_number, numbers)]))
    hours = [each.training_hours for each in found.values()]
    hours += [each.painting_hours for each in found.values()]
    known = [each for each in hours if each is not None]
    total = sum(known)
    lines += ["", f"{total:.3g} GPU hours, {total / gpus:.3g} h with --gpus {gpus}."]
    if unknown := len(hours) - len(known):
        lines.append(f"{unknown} figures are unknown (?) and not in the sum: give rates (--help).")
    lines.append("Pictures that cells share (same images and recipe) are painted once.")
    return "\n".join(lines)


def print_commands(commands: Sequence[str], overrides: Sequence[str]) -> None:
    for command in commands:
        print(shlex.join([*shlex.split(command), *overrides]))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    main()
