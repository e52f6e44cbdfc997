"""Weights & Biases and MLflow as event writers: stand-ins, and the real ones where installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from detectron2.utils.events import EventStorage

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.errors import ConfigError
from bgaug_d2.training.trackers import check_tracking, tracker_writers


class Service:
    """Stands for both packages and keeps what it is given."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.parameters: dict[str, Any] = {}
        self.ended = 0
        self.id = "run7"
        self.info = SimpleNamespace(run_id="run7")

    def init(self, **settings: Any) -> Service:
        self.started.append(settings)
        return self

    def start_run(self, **settings: Any) -> Service:
        self.started.append(settings)
        return self

    def set_experiment(self, name: str) -> None:
        self.project = name

    def log_params(self, parameters: dict[str, Any]) -> None:
        assert len(parameters) <= 100
        self.parameters |= parameters

    def log(self, scalars: dict[str, float], step: int) -> None:
        self.logged.append((step, scalars))

    log_metrics = log

    def finish(self) -> None:
        self.ended += 1

    end_run = finish


@pytest.fixture(params=["wandb", "mlflow"])
def tracking(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def service(tracking: str, monkeypatch: pytest.MonkeyPatch) -> Service:
    found = Service()
    monkeypatch.setitem(sys.modules, tracking, found)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:somewhere")
    return found


def experiment_in(folder: Path, tracking: str, resume: bool = False) -> ExperimentConfig:
    return ExperimentConfig(
        name="toy-expand", seed=3, output_dir=str(folder), tracking=tracking, resume=resume
    )


def test_off_by_default(tmp_path: Path) -> None:
    assert ExperimentConfig().tracking == "none"
    assert tracker_writers(experiment_in(tmp_path, "none")) == []
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_name_and_a_missing_package_are_one_sentence(
    tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="tracking='wandbs' is not allowed"):
        ExperimentConfig(tracking="wandbs")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"pip install 'bgaug_d2\[{tracking}\]'"):
        check_tracking(tracking)


def test_mlflow_has_to_know_where(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        check_tracking("mlflow")
    check_tracking("wandb")


def test_scalars_go_there_once_with_their_iterations(
    service: Service, tracking: str, tmp_path: Path
) -> None:
    (writer,) = tracker_writers(experiment_in(tmp_path, tracking))
    with EventStorage(start_iter=0) as storage:
        storage.put_scalar("total_loss", 2.0)
        writer.write()
        writer.write()
        storage.iter = 20
        storage.put_scalar("total_loss", 2.0)
        storage.put_scalar("lr", 0.1, smoothing_hint=False)
        writer.write()
    writer.close()
    assert service.logged == [(0, {"total_loss": 2.0}), (20, {"total_loss": 2.0, "lr": 0.1})]
    assert service.ended == 1


def test_the_settings_go_there_once_and_a_resumed_run_goes_on(
    service: Service, tracking: str, tmp_path: Path
) -> None:
    tracker_writers(experiment_in(tmp_path, tracking))
    given = service.started[0]
    assert given.get("name", given.get("run_name")) == "toy-expand-seed3"
    settings = given["config"] if tracking == "wandb" else service.parameters
    assert settings["seed"] == 3
    assert given["id" if tracking == "wandb" else "run_id"] is None
    service.parameters.clear()
    tracker_writers(experiment_in(tmp_path, tracking, resume=True))
    assert service.started[1]["id" if tracking == "wandb" else "run_id"] == "run7"
    assert service.parameters == {}


@pytest.mark.parametrize("tracking", ["mlflow"], indirect=True)
def test_names_that_mlflow_refuses_are_changed(
    service: Service, tracking: str, tmp_path: Path
) -> None:
    (writer,) = tracker_writers(experiment_in(tmp_path, tracking))
    with EventStorage(start_iter=0) as storage:
        storage.put_scalar("bbox/AP-b(a)ll", 2.0)
        storage.put_scalar("bbox/AP-hot dog", 3.0)
        writer.write()
    assert service.logged == [(0, {"bbox/AP-b_a_ll": 2.0, "bbox/AP-hot dog": 3.0})]


def test_a_real_mlflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    for resume in (False, True):
        (writer,) = tracker_writers(experiment_in(tmp_path, "mlflow", resume))
        with EventStorage(start_iter=20 * resume) as storage:
            storage.put_scalar("total_loss", 2.0 - resume)
            writer.write()
        writer.close()
    (run,) = mlflow.MlflowClient().search_runs(
        [mlflow.get_experiment_by_name("bgaug_d2").experiment_id]
    )
    assert run.data.metrics == {"total_loss": 1.0}
    assert run.data.params["schedule.iterations"] == "90000"
    assert run.info.status == "FINISHED"


def test_a_real_wandb_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (writer,) = tracker_writers(experiment_in(tmp_path, "wandb"))
    with EventStorage(start_iter=0) as storage:
        storage.put_scalar("total_loss", 2.0)
        writer.write()
    writer.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
