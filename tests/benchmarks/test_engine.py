"""The benchmark runs, and its numbers are of what it says; how large they are is not tested."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bgaug_d2.benchmarks.baselines import BenchmarkSize, make_requests
from bgaug_d2.benchmarks.engine import (
    measure_engine,
    measure_ladder,
    occupancy_trace,
    solver_error,
)
from bgaug_d2.benchmarks.hardware import count_flops
from bgaug_d2.commands.bench import main
from tests.helpers.tiny_models import tiny_folder, tiny_loaded

SIZE = BenchmarkSize(images=3, resolution=64, num_inference_steps=3, max_batch_rows=4, repeats=1)


def test_requests_spread_over_T_hat_and_repeat() -> None:
    requests = make_requests(replace(SIZE, images=200, num_inference_steps=25))
    T_hats = [each.T_hat for each in requests]
    assert min(T_hats) >= 12
    assert max(T_hats) <= 21
    assert sum(T_hats) / 200 == pytest.approx(16.7, abs=0.4)
    again = make_requests(replace(SIZE, images=200, num_inference_steps=25))
    assert all((a.image == b.image).all() for a, b in zip(requests, again, strict=True))


@pytest.mark.parametrize("unet_channels", [4, 9])
def test_all_programs_paint_the_same_and_are_compared(unet_channels: int) -> None:
    found = measure_engine(tiny_loaded(unet_channels), tiny_folder(unet_channels), SIZE)
    for name in ("diffusers_per_image", "diffusers_grouped", "engine"):
        rates = found[name]
        rows = sum(2 * each.T_hat for each in make_requests(SIZE))
        assert rates["rows_per_s"] == pytest.approx(rates["images_per_s"] * rows / 3)
        assert 0 < rates["share"] == pytest.approx(rates["tflops"] / found["matmul_tflops"])
    ratio = found["engine"]["images_per_s"] / found["diffusers_per_image"]["images_per_s"]
    assert found["speedup"]["per_image"] == pytest.approx(ratio)
    quick = found["engine_deepcache"]["images_per_s"]
    ratio = quick / found["diffusers_per_image"]["images_per_s"]
    assert found["speedup"]["deepcache"] == pytest.approx(ratio)
    assert sum(found["T_hat"]["histogram"].values()) == 3
    assert found["solver_max_rel_error"] < 1e-4


def test_flops_grow_with_the_square() -> None:
    small, large = (count_flops(tiny_loaded(), side) for side in (64, 128))
    assert 3.5 < large["row"] / small["row"] < 5
    assert large["decode"] == pytest.approx(4 * small["decode"], rel=0.3)


def test_a_wrong_solver_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_loaded().noise_config
    assert solver_error(config, 20, [20, 11, 3]) < 1e-4
    monkeypatch.setattr("bgaug_d2.benchmarks.engine.advance", lambda x, m, e, s: (0.99 * x, m))
    assert solver_error(config, 20, [20, 11, 3]) > 1e-2


def test_the_ladder_has_a_rung_for_each_optimisation() -> None:
    rates = measure_ladder(tiny_loaded(), SIZE, with_compiled=False)
    names = ["one picture at a time", "continuous batching", "whole UNet every 2nd step"]
    assert list(rates) == names
    assert min(rates.values()) > 0


def test_compiling_has_rungs_of_its_own_and_leaves_the_model_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda unet, **_: unet)
    model = tiny_loaded()
    strides = model.unet.conv_in.weight.stride()
    rates = measure_ladder(model, SIZE, with_compiled=True)
    assert set(rates) == {
        "one picture at a time",
        "one at a time, torch.compile",
        "continuous batching",
        "whole UNet every 2nd step",
        "channels_last and torch.compile",
    }
    assert model.unet.conv_in.weight.stride() == strides
    assert model.compiled_unet is None


def test_the_trace_has_rows_and_waiting() -> None:
    size = replace(SIZE, images=4)
    trace = occupancy_trace(tiny_loaded(), size, [0, 0, 0, 9])
    assert trace[0] == (4, 1)  # two of three are under way
    assert sum(rows for rows, _ in trace) == sum(2 * each.T_hat for each in make_requests(size))


def test_the_tool_writes_json_table_and_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found" / "benchmark.json"
    small = ["--images", "2", "--resolution", "64", "--num-inference-steps", "2", "--repeats", "1"]
    main(
        [
            "engine",
            "hits",
            "scale",
            "--entries",
            "250",
            *small,
            "--max-batch-rows",
            "2",
            "--out",
            str(out),
        ]
    )
    report = json.loads(out.read_text())
    assert report["engine"]["size"]["max_batch_rows"] == 2
    assert report["hits"]["mapper"]["hit_jpeg_against_original"] > 0
    assert out.with_suffix(".png").stat().st_size > 5_000
    printed = capsys.readouterr().out
    assert "| diffusers, a call per picture |" in printed
    assert "| cache: get_ms |" in printed
    assert report["scale"][0]["entries"] == 250
    assert "| 250 | " in printed


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(SystemExit, match="no part engin; there are engine, loader, training, hits"):
        main(["engin"])
