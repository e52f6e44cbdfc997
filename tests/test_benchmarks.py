"""The loader's benchmark measures what it says; how fast anything is, is not tested."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from bgaug_d2.benchmarks.loader import Pace, Situation, measure_loader
from bgaug_d2.benchmarks.paced_engine import PacedEngine, build_paced_engine
from bgaug_d2.benchmarks.training import measure_training
from bgaug_d2.data.register import register_dataset
from bgaug_d2.experiment_config import DatasetConfig, ToyConfig
from tests.inpaint_parts import make_request
from tests.runs import experiment_of, smoke


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


def test_the_parts_of_an_iteration_are_compared(tmp_path: Path) -> None:
    experiment = experiment_of(*smoke(tmp_path, "toy_baseline"))
    found = measure_training(experiment, "cpu", 2, tmp_path / "caches")
    assert set(found) == {
        *("baseline_ms", "hits_ms", "on_the_fly_ms", "hits_ratio", "on_the_fly_ratio")
    }
    assert all(0 < each < 1e5 for each in found.values())
