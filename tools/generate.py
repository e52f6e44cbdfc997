"""Paints backgrounds before training, with the arguments of tools/train_net.py; `--help` says how.

`dry_run=true` looks up what is missing, paints a small sample and says what time and room the rest
takes. Interrupted in any way, it goes on where it was when it is started again.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from bgaug_d2.data.register import check_dataset
from bgaug_d2.errors import IncompleteError
from bgaug_d2.runs.hydra_app import hydra_app, save_configs, to_experiment
from bgaug_d2.worker.engines import check_inpainter, identify_inpainter

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def job(cfg: DictConfig) -> None:
    experiment = to_experiment(cfg)
    check_dataset(experiment.dataset)
    model = None
    if experiment.bgaug.paints:  # else `generate` says that nothing is to be painted
        check_inpainter(experiment.inpainter, experiment.dataset.kind)
        model = identify_inpainter(experiment.inpainter)
    save_configs(cfg, experiment)
    # Late: a mistake above is told before seconds of imports.
    from bgaug_d2.runs.generate import generate
    from bgaug_d2.runs.train import log_to

    log_to(experiment.output_dir)
    report = generate(experiment, model)
    faults = report.counts["error"] + report.counts["unavailable"]
    if faults:
        raise IncompleteError(
            f"{faults} pictures could not be painted; the reasons are above and in "
            f"{experiment.output_dir}/generate_report.json"
        )


def main() -> None:
    hydra_app(job, CONFIGS)


if __name__ == "__main__":
    main()
