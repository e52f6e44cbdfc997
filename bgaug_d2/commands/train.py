"""Train and evaluate a detector, with or without background augmentation."""

from __future__ import annotations

from collections.abc import Sequence

from bgaug_d2.commands.hydra_command import run_with_hydra
from bgaug_d2.data.register import check_dataset
from bgaug_d2.runs.hydra_app import Composed, save_configs, to_experiment
from bgaug_d2.worker.engines import identify_inpainter

USAGE = """\
usage: bgaug train [GROUP=OPTION ...] [KEY=VALUE ...] [-m]

Train and evaluate a detector, with or without background augmentation.

examples:
  bgaug train benchmark=toy arm=expand                      no data, no GPU, no download
  bgaug train benchmark=own_coco arm=expand dataset.root=FOLDER inpainter=sd21_base
  bgaug train benchmark=coco10_faster_rcnn arm=expand launch.num_gpus=8
  bgaug train benchmark=toy arm=expand resume=true          go on from the last checkpoint
  bgaug train benchmark=toy arm=expand eval_only=true resume=true
  bgaug train -m benchmark=toy arm=baseline,expand seed=0,1,2
  bgaug train benchmark=NAME arm=NAME debug=cpu_smoke       seconds on a CPU

A run writes into output_dir: config.yaml (as asked), config_resolved.yaml (every value),
detectron2.yaml, log.txt, metrics.json, TensorBoard's events, checkpoints and results.json.
output_dir is output/BENCHMARK-ARM[-ABLATION]/seedSEED. Jobs of a sweep that differ in other keys
need a folder each, for example output_dir='output/${name}/lr${schedule.base_lr}/seed${seed}'.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug train``."""
    run_with_hydra(USAGE, job, argv)


def job(cfg: Composed) -> None:
    """One run; a mistake of the user's is found before anything slow is imported."""
    experiment = to_experiment(cfg)
    check_dataset(experiment.dataset)
    # An evaluation shows no painted picture, so it needs no model.
    paints = experiment.bgaug.paints and not experiment.eval_only
    model = None
    if paints:
        model = identify_inpainter(experiment.inpainter, experiment.dataset.is_toy)
    save_configs(cfg, experiment)
    from bgaug_d2.runs.train import run

    run(experiment, model)


if __name__ == "__main__":
    main()
