"""Measure this machine: engine, loader, training, hit path and cache; Markdown, JSON and a plot.

What is compared runs in one process and in turns, and medians are given, so that other work on the
machine hits all sides of a comparison alike. `--model sd21_base` and `--model sd2_inpainting` are
the full shapes of Stable Diffusion with random weights, for a GPU; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch

from bgaug_d2.benchmarks.baselines import BenchmarkSize
from bgaug_d2.benchmarks.suite import (
    FULL_SIZE,
    LARGE,
    PARTS,
    SMALL,
    BenchmarkOptions,
    default_size,
    run_benchmarks,
)
from bgaug_d2.errors import BgAugError
from bgaug_d2.runs.hydra_app import config_dir

SIZES = fields(BenchmarkSize)


def parse_arguments(argv: Sequence[str] | None) -> BenchmarkOptions:
    """The command line; a mistake ends the process with status 2."""
    defaults = BenchmarkOptions(configs=config_dir())
    parser = argparse.ArgumentParser(prog="bgaug bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} [all]")
    parser.add_argument(
        "--model",
        default=defaults.model,
        help=f"tiny, {', '.join(FULL_SIZE)}, or a folder [%(default)s]",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto [%(default)s]")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="", help="[bfloat16 on a GPU]"
    )
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")
    parser.add_argument(
        "--coco", default="", help="a COCO folder for part hits [toy pictures of 640 px]"
    )
    _add_sizes(parser, defaults)
    given = vars(parser.parse_args(argv))
    size = {each.name: given.pop(each.name) for each in SIZES}
    # What was not given keeps the default for the chosen model.
    size = {name: value for name, value in size.items() if value is not None}
    given["parts"] = given["parts"] or PARTS
    if given["device"] == "auto":
        given["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    return replace(defaults, **given, size=replace(default_size(given["model"]), **size))


def _add_sizes(parser: argparse.ArgumentParser, defaults: BenchmarkOptions) -> None:
    for each in SIZES:
        small, large = getattr(SMALL, each.name), getattr(LARGE, each.name)
        text = f"[{small}]" if small == large else f"[{small} with tiny, else {large}]"
        # Names and types come from the dataclass, so a new size needs no line here.
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), help=text)
    parser.add_argument(
        "--iterations",
        type=int,
        default=defaults.iterations,
        help="of each loader in part training [%(default)s]",
    )
    parser.add_argument(
        "--num-workers",
        type=int,
        default=defaults.num_workers,
        help="loader processes of each loader in part training [%(default)s]",
    )
    parser.add_argument(
        "--entries",
        type=int,
        nargs="+",
        default=defaults.entries,
        help="sizes of the cache in part scale, rising [%(default)s]",
    )
    parser.add_argument(
        "--out", type=Path, default=defaults.out, help="JSON file, and a plot [%(default)s]"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug bench``."""
    options = parse_arguments(argv)
    try:
        print(run_benchmarks(options))
    except BgAugError as error:
        sys.exit(str(error))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
