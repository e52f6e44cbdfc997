"""Trains the tiny model that comes with the package, from nothing but this repository.

After an interruption, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from dataclasses import fields
from pathlib import Path

import torch

from bgaug_d2.inpaint.model.identity import TINY_MODEL
from bgaug_d2.runs.environment import machine, versions
from tools.pretrain.card import Training
from tools.pretrain.loop import set_up
from tools.pretrain.stages import SIZE, TrainingSize, describe_tiny, train_tiny, write_tiny

COMMAND = "python -m tools.pretrain.train_tiny_inpainter"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("output/tiny_training"), help="checkpoints [%(default)s]"
    )
    parser.add_argument(
        "--model", type=Path, default=TINY_MODEL, help="folder to write [the package's own]"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads [all]")
    # An option for each field, so that the tool and the dataclass always agree.
    for field in fields(TrainingSize):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=int,
            default=field.default,
            help="[%(default)s]",
        )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    set_up(arguments.work, arguments.threads)
    size = TrainingSize(
        **{each.name: getattr(arguments, each.name) for each in fields(TrainingSize)}
    )
    parts = train_tiny(arguments.work, size)
    write_tiny(parts, arguments.work, arguments.model)
    training = Training(
        command=" ".join([COMMAND, *(argv or sys.argv[1:])]),
        machine=f"{machine()}, {torch.get_num_threads()} threads",
        pictures=size.pictures,
        size=SIZE,
        seed=size.seed,
        commit=str(versions()["git_commit"])[:7],
        date=datetime.date.today().isoformat(),
    )
    describe_tiny(arguments.work, arguments.model, size.samples, training)
    print(f"The model and its card are in {arguments.model}")


if __name__ == "__main__":
    main()
