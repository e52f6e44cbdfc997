"""Weights & Biases and MLflow as writers of Detectron2's events; both are optional packages.

TensorBoard's files are written in any case. ``tracking: wandb`` or ``mlflow`` sends the same
scalars to one of these services as well; its own environment variables say where it is
(``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ``WANDB_PROJECT``, ...).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.errors import ConfigError

PROJECT = "bgaug_d2"
_MODULES = {"wandb": "wandb", "mlflow": "mlflow"}
_WINDOW = 20  # iterations over which Detectron2 takes the median of a noisy scalar
_RUN_ID = "tracking_run.txt"  # in output_dir, so that a resumed run goes on in the same place
_MLFLOW_PARAMETERS = 100  # that one call of MLflow takes
_MLFLOW_NAME = re.compile(r"[^\w\-. :/]")  # what MLflow refuses in the name of a scalar


def check_tracking(tracking: str) -> None:
    """Find out before a run whether the package is there and knows where to send scalars.

    Raises:
        ConfigError: It is not, or does not; the sentence says what to do.
    """
    module = _MODULES.get(tracking)
    if module and importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"tracking={tracking} needs a package that is not installed: "
            f"`pip install 'bgaug_d2[{tracking}]'`, or set tracking=none"
        )
    # Without it MLflow takes a database whose driver its small package lacks.
    if tracking == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise ConfigError(
            "tracking=mlflow needs the environment variable MLFLOW_TRACKING_URI: the address of a "
            "server, or file:FOLDER together with MLFLOW_ALLOW_FILE_STORE=true"
        )


def tracker_writers(experiment: ExperimentConfig) -> list[EventWriter]:
    """The writer that the experiment asks for, started; none for ``tracking: none``."""
    check_tracking(experiment.tracking)
    if experiment.tracking == "wandb":
        return [WandbWriter(experiment)]
    if experiment.tracking == "mlflow":
        return [MlflowWriter(experiment)]
    return []


class TrackerWriter(EventWriter):
    """Sends every scalar that is newer than the last ones sent.

    Detectron2 calls ``write`` every 20 iterations and after the evaluation, then ``close``.
    """

    def __init__(self) -> None:
        self._sent = -1  # the newest iteration sent

    def write(self) -> None:
        """Send what is new in the event storage, iteration by iteration."""
        by_iteration: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in (
            get_event_storage().latest_with_smoothing_hint(_WINDOW).items()
        ):
            if iteration > self._sent:
                by_iteration[iteration][name] = float(value)
        for iteration in sorted(by_iteration):  # Weights & Biases drops what is older
            self.send(by_iteration[iteration], iteration)
            self._sent = iteration

    @abstractmethod
    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Hand the scalars of one iteration to the service."""


class WandbWriter(TrackerWriter):
    """A run of Weights & Biases, in the project of ``WANDB_PROJECT`` or ``bgaug_d2``."""

    def __init__(self, experiment: ExperimentConfig) -> None:
        super().__init__()
        self._run = importlib.import_module("wandb").init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=_run_name(experiment),
            config=asdict(experiment),
            dir=experiment.output_dir,
            id=_saved_id(experiment),
            resume="allow",
        )
        _save_id(experiment, self._run.id)

    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Log the scalars at their iteration."""
        self._run.log(dict(scalars), step=iteration)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MlflowWriter(TrackerWriter):
    """A run of MLflow, in the experiment of ``MLFLOW_EXPERIMENT_NAME`` or ``bgaug_d2``."""

    def __init__(self, experiment: ExperimentConfig) -> None:
        super().__init__()
        self._mlflow = importlib.import_module("mlflow")
        self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        saved = _saved_id(experiment)
        run = self._mlflow.start_run(run_id=saved, run_name=_run_name(experiment))
        _save_id(experiment, run.info.run_id)
        if saved is None:  # MLflow refuses parameters that change
            parameters = list(_flat(asdict(experiment)))
            for start in range(0, len(parameters), _MLFLOW_PARAMETERS):
                self._mlflow.log_params(dict(parameters[start : start + _MLFLOW_PARAMETERS]))

    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Log the scalars at their iteration."""
        allowed = {_MLFLOW_NAME.sub("_", name): value for name, value in scalars.items()}
        self._mlflow.log_metrics(allowed, step=iteration)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


def _run_name(experiment: ExperimentConfig) -> str:
    return f"{experiment.name}-seed{experiment.seed}"


def _saved_id(experiment: ExperimentConfig) -> str | None:
    path = Path(experiment.output_dir) / _RUN_ID
    return path.read_text().strip() if experiment.resume and path.is_file() else None


def _save_id(experiment: ExperimentConfig, run_id: str) -> None:
    (Path(experiment.output_dir) / _RUN_ID).write_text(f"{run_id}\n")


def _flat(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
