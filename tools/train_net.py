"""Trains and evaluates a detector, with or without background augmentation; `--help` says how."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from bgaug_d2.bridge import hydra_app, save_configs, to_experiment
from bgaug_d2.data.register import check_dataset
from bgaug_d2.inpaint.identity import identify

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def job(cfg: DictConfig) -> None:
    experiment = to_experiment(cfg)
    check_dataset(experiment.dataset)
    paints = experiment.bgaug.paints and not experiment.eval_only
    model = identify(experiment.inpainter) if paints else None
    save_configs(cfg, experiment)
    from bgaug_d2.trainer import run  # late: a mistake above is told before seconds of imports

    run(experiment, model)


def main() -> None:
    hydra_app(job, CONFIGS)


if __name__ == "__main__":
    main()
