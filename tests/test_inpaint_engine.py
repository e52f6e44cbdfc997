"""The engine's queue, and faults put into a real model."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.errors import ModelError
from bgaug_d2.painting import PaintResult
from tests.inpaint_parts import make_image, make_request, tiny_loaded, with_unet


def _drain(engine: Engine) -> dict[str, PaintResult]:
    results: dict[str, PaintResult] = {}
    for _ in range(50):
        for result in engine.poll():
            assert result.request_id not in results
            results[result.request_id] = result
        if not engine.pending:
            return results
    raise AssertionError(f"{engine.pending} requests are pending for ever")


def _alone(**fields: Any) -> np.ndarray:
    engine = Engine(tiny_loaded(), batch_size=1)
    engine.submit(make_request(**fields))
    image = engine.poll()[0].image
    assert image is not None
    return image


def _same(image: np.ndarray | None, other: np.ndarray) -> bool:
    return image is not None and int(np.abs(image.astype(int) - other).max()) <= 1


def test_idle_engine_does_nothing() -> None:
    engine = Engine(tiny_loaded(), batch_size=4)
    assert engine.poll() == []
    assert engine.pending == 0
    assert engine.progress == 0


def test_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        Engine(tiny_loaded(), batch_size=0)


def test_one_poll_paints_the_oldest_and_what_can_share_its_batch() -> None:
    engine = Engine(tiny_loaded(), batch_size=3)
    steps = {"a": 4, "b": 2, "c": 4, "d": 2, "e": 4, "f": 4}
    for name, T_hat in steps.items():
        engine.submit(make_request(name, T_hat=T_hat, seed=ord(name)))
    assert engine.pending == 6
    polls = []
    while engine.pending:
        polls.append([result.request_id for result in engine.poll()])
    assert polls == [["a", "c", "e"], ["b", "d"], ["f"]]
    assert engine.progress == 4 + 2 + 4


@pytest.mark.parametrize(
    "other",
    [
        {"T_hat": 3},
        {"num_inference_steps": 7},
        {"guidance_scale": 2.0},
        {"timestep_spacing": "trailing"},
        {"side": 128},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_cannot_share_a_batch_waits_and_is_painted_right(other: dict[str, Any]) -> None:
    engine = Engine(tiny_loaded(), batch_size=4)
    engine.submit(make_request("a"))
    engine.submit(make_request("b", **other))
    first = engine.poll()
    assert [result.request_id for result in first] == ["a"]
    assert _same(first[0].image, _alone())
    assert _same(_drain(engine)["b"].image, _alone(**other))


def test_prompts_and_seeds_may_differ_within_a_batch() -> None:
    engine = Engine(tiny_loaded(), batch_size=2)
    engine.submit(make_request("a", prompt="a forest", negative_prompt="cars", seed=3))
    engine.submit(make_request("b", prompt="a beach", seed=4, image=make_image(5)))
    results = {result.request_id: result for result in engine.poll()}
    assert _same(results["a"].image, _alone(prompt="a forest", negative_prompt="cars", seed=3))
    assert _same(results["b"].image, _alone(prompt="a beach", seed=4, image=make_image(5)))


def _square(side: int) -> dict[str, Any]:
    """An image and a mask of any size."""
    image = np.zeros((side, side, 3), np.uint8)
    return {"image": image, "background_mask": np.ones((side, side), bool)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": np.zeros((64, 32, 3), np.uint8)}, "image must be uint8 (S, S, 3), got"),
        ({"image": np.zeros((64, 64), np.uint8)}, "image must be uint8 (S, S, 3), got"),
        ({"image": np.zeros((64, 64, 3), np.float32)}, "got float32 (64, 64, 3)"),
        ({"background_mask": np.ones((64, 64), np.uint8)}, "mask must be bool (64, 64)"),
        ({"background_mask": np.ones((32, 32), bool)}, "mask must be bool (64, 64)"),
        (_square(0), "resolution 0 must be a multiple of 4"),
        (_square(66), "resolution 66 must be a multiple of 4"),
        ({"T_hat": 0}, "T_hat=0 must be between 1 and T=6"),
        ({"T_hat": 7}, "T_hat=7 must be between 1 and T=6"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63}, "seed="),
        ({"guidance_scale": 0.5}, "guidance_scale=0.5"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"timestep_spacing": "leading"}, "timestep_spacing='leading' is not allowed"),
        ({"num_inference_steps": 1000}, "num_inference_steps=1000 is too many"),
    ],
)
def test_a_request_that_cannot_be_painted_is_an_error_and_harms_nobody(
    fields: dict[str, Any], message: str
) -> None:
    engine = Engine(tiny_loaded(), batch_size=4)
    engine.submit(make_request("bad", **fields))
    engine.submit(make_request("good"))
    assert engine.pending == 2
    results = _drain(engine)
    assert results["bad"].image is None
    assert message in str(results["bad"].error)
    assert results["good"].error is None
    assert _same(results["good"].image, _alone())


def test_broken_weights_give_error_results_and_a_failing_probe() -> None:
    def broken(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        return (torch.full_like(rows[:, :4], torch.nan),)

    engine = Engine(with_unet(tiny_loaded(), broken), batch_size=2)
    for name in "ab":
        engine.submit(make_request(name))
    results = _drain(engine)
    assert [results[name].error for name in "ab"] == ["non-finite"] * 2
    assert [results[name].image for name in "ab"] == [None, None]
    with pytest.raises(ModelError, match="not finite in torch.float32"):
        engine.probe()


@pytest.mark.parametrize("unet_channels", [4, 9])
def test_probe_runs_the_unet_once(unet_channels: int) -> None:
    engine = Engine(tiny_loaded(unet_channels), batch_size=2)
    engine.probe()
    assert engine.progress == 1
    assert engine.pending == 0


def test_progress_grows_within_a_poll() -> None:
    engine = Engine(tiny_loaded(), batch_size=1)
    seen: list[int] = []

    def spy(unet: Any, *args: Any, **rest: Any) -> Any:
        seen.append(engine.progress)
        return unet(*args, **rest)

    engine.model = with_unet(tiny_loaded(), spy)
    engine.submit(make_request(T_hat=5))
    engine.poll()
    assert seen == [0, 1, 2, 3, 4]
    assert engine.progress == 5


def _out_of_memory_above(limit: int) -> Any:
    def call(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        if len(rows) > limit:
            raise torch.OutOfMemoryError(f"tried to allocate {len(rows)} rows")
        return unet(rows, *args, **rest)

    return call


@pytest.mark.parametrize("rows_that_fit", [2, 4, 6])
def test_out_of_memory_shrinks_the_batch_and_loses_nothing(rows_that_fit: int) -> None:
    engine = Engine(with_unet(tiny_loaded(), _out_of_memory_above(rows_that_fit)), batch_size=8)
    for i in range(11):
        engine.submit(make_request(f"{i}", seed=i, T_hat=2))
    results = _drain(engine)
    assert sorted(results, key=int) == [str(i) for i in range(11)]
    assert all(result.error is None for result in results.values())
    assert 1 <= engine.batch_size <= rows_that_fit // 2  # two guidance branches a picture
    for i in (0, 10):
        assert _same(results[str(i)].image, _alone(seed=i, T_hat=2))


def test_out_of_memory_with_one_picture_is_that_pictures_error() -> None:
    engine = Engine(with_unet(tiny_loaded(), _out_of_memory_above(1)), batch_size=4)
    engine.submit(make_request("guided"))
    engine.submit(make_request("plain", guidance_scale=1.0))
    results = _drain(engine)
    assert "out of GPU memory" in str(results["guided"].error)
    assert results["plain"].error is None
    assert engine.batch_size == 4


def test_one_request_that_breaks_the_batch_fails_alone() -> None:
    bad = make_image(99)
    encoded = 0
    model = tiny_loaded()

    class Vae:
        config = model.vae.config

        def encode(self, pixels: torch.Tensor) -> Any:
            nonlocal encoded
            encoded += len(pixels)
            wanted = torch.from_numpy(bad).permute(2, 0, 1).float() / 127.5 - 1
            if any(torch.equal(row, wanted) for row in pixels):
                raise RuntimeError("this picture breaks it")
            return model.vae.encode(pixels)

        def decode(self, *args: Any, **rest: Any) -> Any:
            return model.vae.decode(*args, **rest)

    engine = Engine(replace(model, vae=Vae()), batch_size=8)
    for i in range(7):
        engine.submit(make_request(f"{i}", seed=i, image=bad if i == 4 else make_image(i)))
    results = _drain(engine)
    assert [i for i in range(7) if results[str(i)].error] == [4]
    assert results["4"].error == "RuntimeError: this picture breaks it"
    assert engine.batch_size == 8  # no reason to shrink
    assert _same(results["3"].image, _alone(seed=3, image=make_image(3)))
    assert 5 + 6 < encoded < 7 * 4  # all at once first, then halves, not seven times alone


def test_a_broken_device_comes_through_and_keeps_every_request() -> None:
    broken = False

    def call(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        nonlocal broken
        if broken:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if len(rows) > 4:
            raise RuntimeError("halves, please")
        broken = int(rows.shape[0]) == 4 and engine.progress >= 3
        return unet(rows, *args, **rest)

    engine = Engine(with_unet(tiny_loaded(), call), batch_size=4)
    for i in range(4):
        engine.submit(make_request(f"{i}", seed=i))
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        engine.poll()
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        engine.probe()
    assert engine.pending == 4
    broken, engine.model = False, tiny_loaded()
    results = _drain(engine)
    assert sorted(results) == ["0", "1", "2", "3"]
    assert all(result.error is None for result in results.values())


def test_counters_can_be_read_while_painting() -> None:
    engine = Engine(tiny_loaded(), batch_size=4)
    for i in range(4):
        engine.submit(make_request(f"{i}", seed=i, T_hat=6))
    painting = threading.Thread(target=engine.poll)
    painting.start()
    seen = set()
    while painting.is_alive():
        seen.add((engine.pending, engine.progress))
    painting.join()
    assert {pending for pending, _ in seen} <= {4, 0}
    assert len({progress for _, progress in seen}) > 1
    assert engine.pending == 0
