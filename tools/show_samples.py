"""Draws training samples of an experiment as the detector gets them, with boxes and masks.

Nothing is trained or painted: with background augmentation, pictures are shown that are in the
cache. All other arguments are those of tools/train_net.py, whose `--help` lists them, for example
`python tools/show_samples.py --out /tmp/samples.png experiment=toy_baseline augment=copy_paste`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from pathlib import Path

from omegaconf import DictConfig

from bgaug_d2.data.register import check_dataset, register_dataset
from bgaug_d2.runs.hydra_app import hydra_app, to_experiment
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.worker.engines import check_inpainter, identify_inpainter

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def job(cfg: DictConfig, samples: int, out: Path) -> None:
    experiment = to_experiment(cfg)
    experiment.schedule.num_workers = 0
    experiment.bgaug.on_miss = "original"
    check_dataset(experiment.dataset)
    identity = None
    if experiment.bgaug.paints:
        check_inpainter(experiment.inpainter, experiment.dataset.kind)
        identity, _ = identify_inpainter(experiment.inpainter)
    # Late: a mistake above is told before seconds of imports.
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
    seed_all_rng(experiment.seed)
    loader = training_loader(cfg_d2, experiment, painter)
    shown = list(itertools.islice(itertools.chain.from_iterable(loader), samples))
    loader.close()
    names = MetadataCatalog.get(handle.train[0]).thing_classes
    write_sample_sheet(shown, names, cfg_d2.INPUT.FORMAT, out)
    print(f"{len(shown)} samples: {out}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--samples N] [--out PNG] [experiment=NAME] [KEY=VALUE ...]",
        allow_abbrev=False,
    )
    parser.add_argument("--samples", type=int, default=16, help="[%(default)s]")
    parser.add_argument(
        "--out", type=Path, default=Path("output/samples.png"), help="[%(default)s]"
    )
    arguments, overrides = parser.parse_known_args()
    if arguments.samples < 1:
        parser.error("--samples must be at least 1")
    # Hydra reads sys.argv; it is to leave no folder of a run behind.
    sys.argv[1:] = [*overrides, "hydra.run.dir=.", "hydra.output_subdir=null"]
    show = functools.partial(job, samples=arguments.samples, out=arguments.out)
    hydra_app(show, CONFIGS)


if __name__ == "__main__":
    main()
