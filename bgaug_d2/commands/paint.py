"""Paint backgrounds before training, with the arguments of ``bgaug train``."""

from __future__ import annotations

from collections.abc import Sequence

from bgaug_d2.commands.hydra_command import run_with_hydra
from bgaug_d2.data.register import check_dataset
from bgaug_d2.runs.hydra_app import Composed, save_configs, to_experiment
from bgaug_d2.worker.engines import identify_inpainter

USAGE = """\
usage: bgaug paint [GROUP=OPTION ...] [KEY=VALUE ...] [-m]

Paint every background that a training with the same arguments can ask for, into the cache
(bgaug.cache.dir). Pictures that are there are skipped, so the same line goes on after an
interruption.

examples:
  bgaug paint benchmark=toy arm=expand                      no data, no GPU, no download
  bgaug paint benchmark=coco10_faster_rcnn arm=expand dry_run=true
      paint a small sample and estimate the time and the disk space of the rest
  bgaug paint benchmark=own_coco arm=expand dataset.root=FOLDER inpainter=sd21_base
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug paint``."""
    run_with_hydra(USAGE, job, argv)


def job(cfg: Composed) -> None:
    """Paint for one run; a mistake of the user's is found before anything slow is imported."""
    experiment = to_experiment(cfg)
    check_dataset(experiment.dataset)
    model = None
    if experiment.bgaug.paints:  # otherwise `generate` says that nothing is to be painted
        model = identify_inpainter(experiment.inpainter, experiment.dataset.is_toy)
    # Apart from the training's configuration, which may lie in the same folder.
    save_configs(cfg, experiment, painting=True)
    from bgaug_d2.runs.generate import generate
    from bgaug_d2.runs.generate_report import check_complete
    from bgaug_d2.runs.train import log_to

    log_to(experiment.output_dir)
    # Last: one picture that cannot be painted does not stop the others.
    check_complete(generate(experiment, model), experiment.output_dir)


if __name__ == "__main__":
    main()
