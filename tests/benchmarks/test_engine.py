"""The benchmark runs, and its numbers are of what it says; how large they are is not tested."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bgaug_d2.benchmarks.baselines import Effort, make_requests
from bgaug_d2.benchmarks.engine import (
    count_flops,
    measure_engine,
    measure_ladder,
    occupancy_trace,
    solver_error,
)
from bgaug_d2.commands.bench import main
from tests.helpers.inpaint_parts import tiny_folder, tiny_loaded

EFFORT = Effort(images=3, resolution=64, steps=3, rows=4, repeats=1)


def test_requests_spread_over_T_hat_and_repeat() -> None:
    requests = make_requests(replace(EFFORT, images=200, steps=25))
    T_hats = [each.T_hat for each in requests]
    assert min(T_hats) >= 12
    assert max(T_hats) <= 21
    assert sum(T_hats) / 200 == pytest.approx(16.7, abs=0.4)
    again = make_requests(replace(EFFORT, images=200, steps=25))
    assert all((a.image == b.image).all() for a, b in zip(requests, again, strict=True))


@pytest.mark.parametrize("unet_channels", [4, 9])
def test_all_contestants_paint_the_same_and_are_compared(unet_channels: int) -> None:
    found = measure_engine(tiny_loaded(unet_channels), tiny_folder(unet_channels), EFFORT)
    for name in ("stock_per_image", "stock_grouped", "ours"):
        rates = found[name]
        rows = sum(2 * each.T_hat for each in make_requests(EFFORT))
        assert rates["rows_per_s"] == pytest.approx(rates["images_per_s"] * rows / 3)
        assert 0 < rates["share"] == pytest.approx(rates["tflops"] / found["matmul_tflops"])
    ratio = found["ours"]["images_per_s"] / found["stock_per_image"]["images_per_s"]
    assert found["speedup"]["per_image"] == pytest.approx(ratio)
    quick = found["ours_whole_every_2"]["images_per_s"]
    ratio = quick / found["stock_per_image"]["images_per_s"]
    assert found["speedup"]["whole_every_2"] == pytest.approx(ratio)
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
    rates = measure_ladder(tiny_loaded(), EFFORT, with_compiled=False)
    names = ["one picture at a time", "continuous batching", "whole UNet at every 2nd step"]
    assert list(rates) == names
    assert min(rates.values()) > 0


def test_compiling_has_rungs_of_its_own_and_leaves_the_model_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda unet, **_: unet)
    model = tiny_loaded()
    strides = model.unet.conv_in.weight.stride()
    rates = measure_ladder(model, EFFORT, with_compiled=True)
    assert set(rates) == {
        "one picture at a time",
        "one at a time, torch.compile",
        "continuous batching",
        "whole UNet at every 2nd step",
        "channels_last and torch.compile",
    }
    assert model.unet.conv_in.weight.stride() == strides
    assert model.static is None


def test_the_trace_tells_rows_and_waiting() -> None:
    effort = replace(EFFORT, images=4)
    trace = occupancy_trace(tiny_loaded(), effort, [0, 0, 0, 9])
    assert trace[0] == (4, 1)  # two of three are under way
    assert sum(rows for rows, _ in trace) == sum(2 * each.T_hat for each in make_requests(effort))


def test_the_tool_writes_json_table_and_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found" / "benchmark.json"
    small = ["--images", "2", "--resolution", "64", "--steps", "2", "--repeats", "1"]
    main(
        [
            "engine",
            "hits",
            "scale",
            "--entries",
            "250",
            *small,
            "--rows",
            "2",
            "--out",
            str(out),
        ]
    )
    report = json.loads(out.read_text())
    assert report["engine"]["shape"]["rows"] == 2
    assert report["mapper"]["hit_jpeg_against_original"] > 0
    assert out.with_suffix(".png").stat().st_size > 5_000
    printed = capsys.readouterr().out
    assert "| diffusers, a call per picture |" in printed
    assert "| cache: get_ms |" in printed
    assert report["scale"][0]["entries"] == 250
    assert "| 250 | " in printed


def test_an_unknown_part_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["engin"])
    assert (
        "no part engin; there are engine, loader, training, hits, scale" in capsys.readouterr().err
    )
