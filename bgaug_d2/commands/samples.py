"""Draw training samples as the detector gets them, with boxes and masks, as one PNG.

Nothing is trained or painted: with background augmentation, the pictures that are in the cache are
shown. All other arguments are those of `bgaug train`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from bgaug_d2.commands.hydra_command import override_help
from bgaug_d2.data.register import check_dataset, register_dataset
from bgaug_d2.runs.hydra_app import Composed, config_dir, hydra_app, to_experiment
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.worker.engines import identify_inpainter

EXAMPLE = "example:\n  bgaug samples --limit 8 benchmark=toy arm=copy_paste\n\n"


def job(cfg: Composed, limit: int, out: Path) -> None:
    """Build the training loader of a run and draw its first ``limit`` samples."""
    experiment = to_experiment(cfg)
    experiment.schedule.num_workers = 0
    # No painting process runs here, so there is none to wait for.
    experiment.bgaug.on_miss = "original"
    check_dataset(experiment.dataset)
    identity = None
    if experiment.bgaug.paints:
        identity, _ = identify_inpainter(experiment.inpainter, experiment.dataset.is_toy)
    # Imported here, so that a mistake above is reported before seconds of imports.
    from detectron2.data import MetadataCatalog
    from detectron2.utils.env import seed_all_rng

    from bgaug_d2.inspection.samples import write_sample_sheet
    from bgaug_d2.training.loader import training_loader
    from bgaug_d2.worker.start import painting_without_workers

    handle = register_dataset(experiment.dataset)
    cfg_d2 = to_cfg(experiment, handle.train, handle.test, "cpu")
    painter = None
    if identity is not None:
        painter = painting_without_workers(
            experiment.bgaug, experiment.inpainter, handle.image_root, identity
        )
    # The augmentations draw from global generators.
    seed_all_rng(experiment.seed)
    loader = training_loader(cfg_d2, experiment, painter)
    shown = list(itertools.islice(itertools.chain.from_iterable(loader), limit))
    loader.close()
    names = MetadataCatalog.get(handle.train[0]).thing_classes
    write_sample_sheet(shown, names, cfg_d2.INPUT.FORMAT, out)
    print(f"{len(shown)} samples: {out}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug samples``."""
    parser = argparse.ArgumentParser(
        prog="bgaug samples",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--limit N] [--out PNG] [GROUP=OPTION ...] [KEY=VALUE ...]",
        epilog=EXAMPLE + override_help(),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--limit", type=int, default=16, metavar="N", help="at most N samples [%(default)s]"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("output/samples.png"),
        metavar="PNG",
        help="picture to write [%(default)s]",
    )
    arguments, overrides = parser.parse_known_args(argv)
    if arguments.limit < 1:
        parser.error("--limit must be at least 1")
    # Hydra reads sys.argv; the last two settings keep it from leaving a folder of a run behind.
    sys.argv = [parser.prog, *overrides, "hydra.run.dir=.", "hydra.output_subdir=null"]
    hydra_app(functools.partial(job, limit=arguments.limit, out=arguments.out), config_dir())


if __name__ == "__main__":
    main()
