"""Trains and evaluates a detector, with or without background augmentation; `--help` says how."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from bgaug_d2.data.register import check_dataset
from bgaug_d2.runs.hydra_app import hydra_app, save_configs, to_experiment
from bgaug_d2.worker.engines import check_inpainter, identify_inpainter

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def job(cfg: DictConfig) -> None:
    experiment = to_experiment(cfg)
    check_dataset(experiment.dataset)
    paints = experiment.bgaug.paints and not experiment.eval_only
    model = None
    if paints:
        check_inpainter(experiment.inpainter, experiment.dataset.kind)
        model = identify_inpainter(experiment.inpainter)
    save_configs(cfg, experiment)
    from bgaug_d2.runs.train import run

    run(experiment, model)


def main() -> None:
    hydra_app(job, CONFIGS)


if __name__ == "__main__":
    main()
