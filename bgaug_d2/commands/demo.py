"""Go the whole way in minutes on a laptop: toy world, painted backgrounds, two detectors, a table.

One seed and a short training: it shows that every part works. Whether augmentation helps is what
`bgaug plan toy_tables` measures.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bgaug_d2.commands import gallery
from bgaug_d2.errors import BgAugError
from bgaug_d2.report.plan import find_plan
from bgaug_d2.report.plan_file import load_plan
from bgaug_d2.report.write_tables import write_tables
from bgaug_d2.runs.run_plan import missing_runs, paint_runs, train_runs
from bgaug_d2.runs.side_by_side import end_on_sigterm

PLAN = "demo"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a mistake ends the process with status 2."""
    parser = argparse.ArgumentParser(prog="bgaug demo", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("output/demo"), metavar="DIR", help="[%(default)s]"
    )
    parser.add_argument(
        "--iterations", type=int, default=300, metavar="N", help="of both runs [%(default)s]"
    )
    parser.add_argument(
        "--limit", type=int, default=64, metavar="N", help="at most N training images [%(default)s]"
    )
    arguments = parser.parse_args(argv)
    if arguments.iterations < 1 or arguments.limit < 8:
        parser.error("--iterations must be at least 1 and --limit at least 8")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug demo``."""
    arguments = parse_arguments(argv)
    # Otherwise the painting and training processes would outlive this one.
    end_on_sigterm()
    try:
        _demo(arguments.out, arguments.iterations, arguments.limit)
    except BgAugError as error:
        sys.exit(str(error))


def _demo(out: Path, iterations: int, images: int) -> None:
    # They win over the plan's own, which name other folders and sizes.
    overrides = [
        f"dataset.root={out / 'toy'}",
        f"dataset.toy.num_train={images}",
        f"bgaug.cache.dir={out / 'cache'}",
        f"schedule.iterations={iterations}",
        # The plan drops the rate at 240 of 300 iterations, the same share.
        f"schedule.lr_drops=[{4 * iterations // 5}]",
        f"schedule.checkpoint_period={iterations}",
    ]
    runs_folder = out / "runs"
    # The runs alone: the cache stays, so a second demo does not paint again.
    shutil.rmtree(runs_folder, ignore_errors=True)
    plan = replace(load_plan(find_plan(PLAN)), folder=str(runs_folder))
    runs = missing_runs(plan, overrides=overrides)
    announce("1/4  A toy world, and new backgrounds for it by a worker process")
    paint_runs(runs, runs_folder)
    announce("2/4  Mask R-CNN without and with the painted backgrounds, at equal iterations")
    train_runs(runs, jobs=len(runs))
    announce("3/4  The table (one seed and a short training: no conclusion can be drawn)")
    print(write_tables(PLAN, runs_folder))
    announce("4/4  The gallery")
    pictures = ["--cache", str(out / "cache"), "--image-root", str(out / "toy")]
    gallery.main([*pictures, "--out", str(out / "gallery"), "--title", "Toy world, tiny model"])
    print(f"\nOpen {(out / 'gallery' / 'index.html').resolve()} in a browser.")


def announce(text: str) -> None:
    """A heading on the terminal, at once."""
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
