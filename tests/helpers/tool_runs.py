"""Experiments composed from configs/, small enough for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.runs.hydra_app import group_choices, register_base, to_experiment

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"


def options_of(group: str) -> list[str]:
    return group_choices(CONFIGS)[group]


def composed(*overrides: str) -> DictConfig:
    register_base()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


def experiment_of(*overrides: str) -> ExperimentConfig:
    return to_experiment(composed(*overrides))


def smoke(folder: Path, name: str, *overrides: str) -> list[str]:
    """Arguments of a run (BENCHMARK-ARM) of seconds that writes into ``folder`` only."""
    benchmark, _, arm = name.partition("-")
    return [
        *(f"benchmark={benchmark}", f"arm={arm}", "debug=cpu_smoke", f"output_dir={folder}/run"),
        *(f"dataset.root={folder}/toy", f"bgaug.cache.dir={folder}/cache"),
        *("dataset.toy.image_size=64", "bgaug.recipe.num_inference_steps=2"),
        "bgaug.worker.max_batch_rows=2",
        *overrides,
    ]


def tool(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``tools/<name>.py`` in a process of its own."""
    return _run(str(REPOSITORY / "tools" / f"{name}.py"), *arguments, cwd=cwd)


def bgaug(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``bgaug`` in a process of its own."""
    return _run("-m", "bgaug_d2.commands.main", *arguments, cwd=cwd)


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
