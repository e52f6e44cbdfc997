from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

import bgaug_d2
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.runs.environment import versions
from bgaug_d2.runs.results import (
    add_painting_stats,
    build_results,
    is_finished,
    results_path,
    split_classes,
    write_results,
)
from bgaug_d2.sampling.outcomes import outcome_sentence
from bgaug_d2.training.progress_hook import TrainingStats


def test_classes_are_told_apart_from_summaries() -> None:
    flat = {"AP": 1.0, "APs": 2.0, "AP-cat": 3.0, "AP-hot dog": float("nan")}
    split = split_classes(flat)
    assert (split["AP"], split["APs"]) == (1.0, 2.0)
    assert set(split["per_class"]) == {"cat", "hot dog"}
    assert split_classes({"AP": 1.0}) == {"AP": 1.0}
    voc = {"AP50": 1.0, "AP50-cat": 2.0, "AP50-t-shirt": 3.0, "x-y": 4.0}
    per_class = {"cat": 2.0, "t-shirt": 3.0}
    assert split_classes(voc) == {"AP50": 1.0, "per_class_AP50": per_class, "x-y": 4.0}


def test_nan_becomes_null(tmp_path: Path) -> None:
    write_results({"a": [float("nan"), 1.5], "b": {"c": float("inf")}}, tmp_path / "r.json")
    content = (tmp_path / "r.json").read_text()
    assert json.loads(content) == {"a": [None, 1.5], "b": {"c": None}}
    assert [each.name for each in tmp_path.iterdir()] == ["r.json"]


def test_several_test_sets_are_kept_apart() -> None:
    metrics = {"one": {"bbox": {"AP": 1.0}}, "two": {"bbox": {"AP": 2.0}}}
    assert build_results(ExperimentConfig(), metrics, None, None)["metrics"] == metrics


def test_the_breakdown_is_beside_the_metrics() -> None:
    content = {"bbox": {"background": [], "classes": {}}}
    assert build_results(ExperimentConfig(), {}, None, None, content)["breakdown"] == content
    assert build_results(ExperimentConfig(), {}, None, None)["breakdown"] == {}


def test_rates_count_what_this_run_did() -> None:
    experiment = ExperimentConfig()
    experiment.schedule.images_per_batch = 8
    stats = TrainingStats(start_iter=10, end_iter=30, train_s=4.0, wait_s=1.0)
    training = build_results(experiment, {}, stats, None)["training"]
    assert training["images_per_s"] == 20 * 8 / 4.0
    assert training["data_s_per_iteration"] == 0.05


def test_a_run_that_was_complete_before_has_no_rate() -> None:
    stats = TrainingStats(start_iter=30, end_iter=30)
    training = build_results(ExperimentConfig(), {}, stats, None)["training"]
    assert (training["images_per_s"], training["data_s_per_iteration"]) == (None, None)


def test_an_evaluation_does_not_overwrite_the_training(tmp_path: Path) -> None:
    train, evaluate = (
        results_path(ExperimentConfig(output_dir=str(tmp_path), eval_only=each))
        for each in (False, True)
    )
    assert train.name == "results.json"
    assert train != evaluate


def test_only_a_run_to_be_resumed_can_be_finished_already(tmp_path: Path) -> None:
    experiment = ExperimentConfig(output_dir=str(tmp_path), resume=True)
    assert not is_finished(experiment)
    write_results(build_results(experiment, {}, TrainingStats(), None), results_path(experiment))
    assert is_finished(experiment)
    longer = dataclasses.replace(experiment.schedule, iterations=99_999)
    for change in ({"resume": False}, {"eval_only": True}, {"schedule": longer}):
        assert not is_finished(dataclasses.replace(experiment, **change))


def test_painting_stats_are_added(tmp_path: Path) -> None:
    write_results({"name": "x"}, tmp_path / "results.json")
    add_painting_stats(tmp_path / "results.json", {"restarts": 2})
    content = json.loads((tmp_path / "results.json").read_text())
    assert content == {"name": "x", "workers": {"restarts": 2}}


def test_outcomes_in_a_sentence() -> None:
    assert outcome_sentence({"original": 3, "hit": 2, "miss": 0}) == (
        "of 5 samples: 3 original, 2 hit"
    )
    assert outcome_sentence({}) == "of 0 samples: none"


def test_versions() -> None:
    found = versions()
    assert found["bgaug_d2"] == bgaug_d2.__version__
    assert found["torch"]


def test_the_commit_is_this_repositorys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "bgaug_d2"
    package.mkdir()
    monkeypatch.setattr(bgaug_d2, "__file__", str(package / "__init__.py"))
    assert versions()["git_commit"] is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = versions()["git_commit"]
    assert commit is not None
    assert len(commit) == 40
