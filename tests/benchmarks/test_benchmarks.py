"""The loader's benchmark measures what it says; how fast anything is, is not tested."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode

from bgaug_d2.benchmarks import training
from bgaug_d2.benchmarks.loader import Pace, Situation, measure_loader
from bgaug_d2.benchmarks.paced_engine import PacedEngine, build_paced_engine
from bgaug_d2.benchmarks.training import measure_training
from bgaug_d2.config.experiment import DatasetConfig, ToyConfig
from bgaug_d2.data.register import register_dataset
from bgaug_d2.sampling.counted_loader import CountedLoader
from tests.helpers.tiny_models import make_request
from tests.helpers.tool_runs import experiment_of, smoke


def test_the_engine_keeps_its_pace_and_inverts_colours() -> None:
    engine = build_paced_engine({"images_per_s": 50})
    assert engine.poll() == []
    for number in range(5):
        engine.submit(make_request(f"{number}"))
    assert engine.metrics() == {"queue": 5}
    began = time.monotonic()
    results = [engine.poll()[0] for _ in range(5)]
    assert time.monotonic() - began >= 4 / 50  # the first may be due at once
    assert [each.request_id for each in results] == list("01234")
    image = results[0].image
    assert image is not None
    np.testing.assert_array_equal(image, 255 - make_request().image)
    assert (engine.pending, engine.progress) == (0, 5)


def test_a_pace_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="images_per_s=0.0 must be positive"):
        PacedEngine(0.0)


def test_waiting_for_slow_painting_is_seen_as_waiting(tmp_path: Path) -> None:
    toy = ToyConfig(image_size=64, num_train=8, num_val=1, num_test=1)
    handle = register_dataset(DatasetConfig(root=str(tmp_path / "toy"), toy=toy))
    pace = Pace(step_s=0.02, images_per_batch=2, p=1.0, steps=4, warm_up=1, num_workers=0)
    slow = Situation("wait", look_ahead=False, speed=0.2)
    plain, waiting = measure_loader(handle, pace, [slow])
    assert plain["augmented_share"] == 0
    assert waiting["augmented_share"] == 1
    assert waiting["stall_share"] > plain["stall_share"]
    assert waiting["images_per_s"] < plain["images_per_s"]
    assert waiting["on_miss"] == "wait"


def test_the_parts_of_an_iteration_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = {}

    def train(
        cfg: CfgNode, loaders: dict[str, CountedLoader], iterations: int
    ) -> dict[str, list[float]]:
        for name, loader in loaders.items():
            for _, batch in zip(range(iterations), loader, strict=False):
                outcomes[name] = {each.get("bgaug") for each in batch}
        return {"baseline": [1.0, 2.0, 1.0], "hits": [2.0, 6.0, 1.0], "on_the_fly": [1.0, 1.0, 7.0]}

    monkeypatch.setattr(training, "_train_in_turns", train)
    experiment = experiment_of(*smoke(tmp_path, "toy-baseline"))
    found = measure_training(experiment, "cpu", 2, tmp_path / "caches")
    assert (outcomes["baseline"], outcomes["hits"]) == ({None}, {"hit"})
    assert "hit" not in outcomes["on_the_fly"]  # nothing has been painted before
    # Medians of the ratios of neighbours, not ratios of medians.
    assert found == {
        "baseline_ms": 1000,
        "hits_ms": 2000,
        "on_the_fly_ms": 1000,
        "hits_ratio": 2,
        "on_the_fly_ratio": 1,
    }


def test_iterations_are_timed_in_turns(tmp_path: Path) -> None:
    experiment = experiment_of(*smoke(tmp_path, "toy-baseline"))
    found = measure_training(experiment, "cpu", 2, tmp_path / "caches")
    assert all(0 < each < 1e5 for each in found.values())
