"""The engine's queue, and faults put into a real model."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bgaug_d2.errors import ModelError
from bgaug_d2.inpaint.denoise.latent_cache import LatentCache
from bgaug_d2.inpaint.denoise.trajectory import start_trajectory
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import InpaintModel
from tests.helpers.tiny_models import (
    drain,
    make_image,
    make_request,
    paint,
    table_of,
    tiny_loaded,
    with_unet,
)


def _alone(model: InpaintModel | None = None, **fields: Any) -> np.ndarray:
    image = paint(model or tiny_loaded(), [make_request(**fields)])[0]
    assert image is not None
    return image


def _same(image: np.ndarray | None, other: np.ndarray) -> bool:
    return image is not None and int(np.abs(image.astype(int) - other).max()) <= 1


def test_idle_engine_does_nothing() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=4)
    assert engine.poll() == []
    assert engine.pending == 0
    assert engine.progress == 0


def test_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="max_batch_rows=0 must be at least 1"):
        Engine(tiny_loaded(), max_batch_rows=0)


def _rows_of_calls(engine: Engine) -> list[int]:
    """Have the engine note the rows of its UNet calls."""
    calls: list[int] = []

    def spy(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        calls.append(len(rows))
        return unet(rows, *args, **rest)

    engine.model = with_unet(engine.model, spy)
    return calls


def test_a_row_that_falls_free_is_taken_by_the_next_picture_at_once() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=6)
    calls = _rows_of_calls(engine)
    steps = {"a": 4, "b": 2, "c": 3, "d": 1, "e": 6, "f": 2, "g": 5}
    for name, T_hat in steps.items():
        engine.submit(make_request(name, T_hat=T_hat, seed=ord(name)))
    assert engine.pending == 7
    order = []
    while engine.pending:
        order += [result.request_id for result in engine.poll()]
    # a, b and c first; d takes b's place, e and f those of c and d, g that of a.
    assert order == ["b", "c", "d", "a", "f", "e", "g"]
    assert calls == [6, 6, 6, 6, 6, 4, 4, 4, 4]
    assert sum(calls) == 2 * sum(steps.values())


def test_requests_that_come_later_join_those_under_way() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=4)
    calls = _rows_of_calls(engine)
    engine.submit(make_request("a", T_hat=4))
    assert engine.poll() == []
    engine.submit(make_request("b", T_hat=1))
    assert [result.request_id for result in engine.poll()] == ["b"]
    assert calls == [2, 4]
    assert _same(drain(engine)["a"].image, _alone())


@pytest.mark.parametrize(
    "other",
    [
        {"T_hat": 3},
        {"num_inference_steps": 7},
        {"guidance_scale": 2.0},
        {"guidance_scale": 1.0},
        {"guidance_interval": (0.5, 0.9)},
        {"timestep_spacing": "trailing"},
    ],
    ids=lambda other: next(iter(other)),
)
@pytest.mark.parametrize("unet_channels", [4, 9])
def test_all_settings_may_differ_within_a_call(other: dict[str, Any], unet_channels: int) -> None:
    model = tiny_loaded(unet_channels)
    engine = Engine(model, max_batch_rows=4)
    calls = _rows_of_calls(engine)
    engine.submit(make_request("a"))
    engine.submit(make_request("b", **other))
    results = drain(engine)
    assert calls[0] > 2
    assert _same(results["a"].image, _alone(model))
    assert _same(results["b"].image, _alone(model, **other))


def test_another_size_waits_and_is_painted_right() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=8)
    engine.submit(make_request("a"))
    engine.submit(make_request("b", side=128))
    engine.submit(make_request("c"))
    order: list[str] = []
    pictures = {}
    while engine.pending:
        for result in engine.poll():
            order.append(result.request_id)
            pictures[result.request_id] = result.image
    assert order == ["a", "b", "c"]
    assert _same(pictures["b"], _alone(side=128))


def test_outside_its_interval_a_guided_picture_takes_one_row_and_another_the_freed_one() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=2)
    calls = _rows_of_calls(engine)
    # Steps 2, 3, 4 and 5 of 6; guidance from a half to five sixths: two rows in steps 3 and 4.
    for name in "ab":
        engine.submit(make_request(name, guidance_interval=(0.5, 5 / 6), seed=ord(name)))
    results = drain(engine)
    assert sum(calls) == 2 * (1 + 2 + 2 + 1)
    assert max(calls) == 2
    assert len(calls) == 7  # one less full than at best: a single row has to wait for a pair
    for name in "ab":
        alone = _alone(guidance_interval=(0.5, 5 / 6), seed=ord(name))
        assert _same(results[name].image, alone)


def test_a_call_of_one_row_still_paints_with_guidance() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=1)
    calls = _rows_of_calls(engine)
    engine.submit(make_request())
    assert _same(drain(engine)["a/0"].image, _alone())
    assert calls == [1] * 8


def test_variants_of_one_image_encode_it_once() -> None:
    encoded = 0
    model = tiny_loaded()

    class Vae:
        config = model.vae.config

        def encode(self, pixels: torch.Tensor) -> Any:
            nonlocal encoded
            encoded += len(pixels)
            return model.vae.encode(pixels)

        def decode(self, *args: Any, **rest: Any) -> Any:
            return model.vae.decode(*args, **rest)

    engine = Engine(replace(model, vae=Vae()), max_batch_rows=4)
    for number in range(6):
        engine.submit(make_request(f"{number}", seed=number, image=make_image(number % 2)))
    results = drain(engine)
    assert encoded == 2
    assert _same(results["4"].image, _alone(seed=4, image=make_image(0)))


def test_the_meter_tells_rows_occupancy_and_latency() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=4)
    for number, T_hat in enumerate((3, 3, 1)):
        engine.submit(make_request(f"{number}", T_hat=T_hat))
    drain(engine)
    reading = engine.meter.read()
    assert (reading.calls, reading.rows, reading.pictures) == (4, 14, 3)
    assert reading.occupancy == 14 / 16
    assert 0 < reading.latency_p50_s <= reading.latency_p99_s
    assert reading.rows_per_s == pytest.approx(reading.images_per_s * 14 / 3)


def test_prompts_and_seeds_may_differ_within_a_batch() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=4)
    engine.submit(make_request("a", prompt="a forest", negative_prompt="cars", seed=3))
    engine.submit(make_request("b", prompt="a beach", seed=4, image=make_image(5)))
    results = drain(engine)
    assert _same(results["a"].image, _alone(prompt="a forest", negative_prompt="cars", seed=3))
    assert _same(results["b"].image, _alone(prompt="a beach", seed=4, image=make_image(5)))


def _square(side: int) -> dict[str, Any]:
    """An image and a mask of any size."""
    image = np.zeros((side, side, 3), np.uint8)
    return {"image": image, "painted_mask": np.ones((side, side), bool)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": np.zeros((64, 32, 3), np.uint8)}, "image must be uint8 (S, S, 3), got"),
        ({"image": np.zeros((64, 64), np.uint8)}, "image must be uint8 (S, S, 3), got"),
        ({"image": np.zeros((64, 64, 3), np.float32)}, "got float32 (64, 64, 3)"),
        ({"painted_mask": np.ones((64, 64), np.uint8)}, "mask must be bool (64, 64)"),
        ({"painted_mask": np.ones((32, 32), bool)}, "mask must be bool (64, 64)"),
        (_square(0), "resolution 0 must be a multiple of 4"),
        (_square(66), "resolution 66 must be a multiple of 4"),
        ({"T_hat": 0}, "T_hat=0 must be between 1 and T=6"),
        ({"T_hat": 7}, "T_hat=7 must be between 1 and T=6"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63}, "seed="),
        ({"guidance_scale": 0.5}, "guidance_scale=0.5"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"guidance_interval": (0.5, 0.2)}, "guidance_interval=(0.5, 0.2)"),
        ({"guidance_interval": (-0.1, 1.0)}, "guidance_interval=(-0.1, 1.0)"),
        ({"timestep_spacing": "leading"}, "timestep_spacing='leading' is not allowed"),
        ({"solver_order": 3}, "solver_order=3 must be 1 or 2"),
        ({"deepcache_interval": 0}, "deepcache_interval=0 must be at least 1"),
        ({"num_inference_steps": 1000}, "num_inference_steps=1000 is too many"),
    ],
)
def test_a_request_that_cannot_be_painted_is_an_error_and_harms_nobody(
    fields: dict[str, Any], message: str
) -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=4)
    engine.submit(make_request("bad", **fields))
    engine.submit(make_request("good"))
    assert engine.pending == 2
    results = drain(engine)
    assert results["bad"].image is None
    assert message in str(results["bad"].error)
    assert results["good"].error is None
    assert _same(results["good"].image, _alone())


def test_broken_weights_give_error_results_and_a_failing_probe() -> None:
    def broken(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        return (torch.full_like(rows[:, :4], torch.nan),)

    engine = Engine(with_unet(tiny_loaded(), broken), max_batch_rows=2)
    for name in "ab":
        engine.submit(make_request(name))
    results = drain(engine)
    assert [results[name].error for name in "ab"] == ["non-finite"] * 2
    assert [results[name].image for name in "ab"] == [None, None]
    with pytest.raises(ModelError, match="not finite in torch.float32"):
        engine.probe()


@pytest.mark.parametrize("unet_channels", [4, 9])
def test_probe_runs_the_unet_once(unet_channels: int) -> None:
    engine = Engine(tiny_loaded(unet_channels), max_batch_rows=2)
    engine.probe()
    assert engine.progress == 1
    assert engine.pending == 0


def test_progress_grows_with_every_step() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=2)
    seen: list[int] = []

    def spy(unet: Any, *args: Any, **rest: Any) -> Any:
        seen.append(engine.progress)
        return unet(*args, **rest)

    engine.model = with_unet(tiny_loaded(), spy)
    engine.submit(make_request(T_hat=5))
    drain(engine)
    assert seen == [0, 1, 2, 3, 4]
    assert engine.progress == 5 + 1  # and decoding


def _out_of_memory_above(limit: int) -> Any:
    def call(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        if len(rows) > limit:
            raise torch.OutOfMemoryError(f"tried to allocate {len(rows)} rows")
        return unet(rows, *args, **rest)

    return call


@pytest.mark.parametrize("rows_that_fit", [1, 2, 4, 6])
def test_out_of_memory_shrinks_the_calls_and_loses_nothing(rows_that_fit: int) -> None:
    engine = Engine(with_unet(tiny_loaded(), _out_of_memory_above(rows_that_fit)), max_batch_rows=8)
    for i in range(11):
        engine.submit(make_request(f"{i}", seed=i, T_hat=2))
    results = drain(engine)
    assert sorted(results, key=int) == [str(i) for i in range(11)]
    assert all(result.error is None for result in results.values())
    assert max(rows_that_fit // 2, 1) <= engine.max_batch_rows <= rows_that_fit
    for i in (0, 10):
        assert _same(results[str(i)].image, _alone(seed=i, T_hat=2))


def test_out_of_memory_with_one_row_is_an_error_of_each_picture() -> None:
    engine = Engine(with_unet(tiny_loaded(), _out_of_memory_above(0)), max_batch_rows=4)
    for name in "ab":
        engine.submit(make_request(name))
    results = drain(engine)
    assert all("out of GPU memory" in str(results[name].error) for name in "ab")
    assert engine.max_batch_rows == 1


def test_out_of_memory_while_encoding_is_tried_again_with_memory_given_back() -> None:
    model, calls = tiny_loaded(), 0

    class Vae:
        config = model.vae.config

        def encode(self, pixels: torch.Tensor) -> Any:
            nonlocal calls
            calls += 1
            if calls in (1, 3, 4):
                raise torch.OutOfMemoryError("no room")
            return model.vae.encode(pixels)

        def decode(self, *args: Any, **rest: Any) -> Any:
            return model.vae.decode(*args, **rest)

    engine = Engine(replace(model, vae=Vae()), max_batch_rows=4)
    for number in range(2):
        engine.submit(make_request(f"{number}", image=make_image(number)))
    results = drain(engine)
    assert _same(results["0"].image, _alone(image=make_image(0)))
    assert "no room" in str(results["1"].error)
    assert engine.max_batch_rows == 4


@pytest.mark.parametrize("where", ["encode", "unet", "decode"])
def test_one_request_that_breaks_a_call_fails_alone(where: str) -> None:
    bad, model = 4, tiny_loaded()

    def fault() -> None:
        raise RuntimeError("this picture breaks it")

    class Vae:
        config = model.vae.config

        def encode(self, pixels: torch.Tensor) -> Any:
            wanted = torch.from_numpy(make_image(bad)).permute(2, 0, 1).float() / 127.5 - 1
            if where == "encode" and torch.equal(pixels[0], wanted):
                fault()
            return model.vae.encode(pixels)

        def decode(self, latents: torch.Tensor, **rest: Any) -> Any:
            nonlocal decoded
            decoded += 1
            if where == "decode" and decoded == bad + 1:
                fault()
            return model.vae.decode(latents, **rest)

    def call(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        texts = rest["encoder_hidden_states"]
        if where == "unet" and any(torch.equal(each, marked) for each in texts):
            fault()
        return unet(rows, *args, **rest)

    decoded, marked = 0, model.prompts(["the bad one"])[0]
    engine = Engine(replace(with_unet(model, call), vae=Vae()), max_batch_rows=8)
    for i in range(7):
        prompt = "the bad one" if i == bad else "a good one"
        engine.submit(make_request(f"{i}", seed=i, image=make_image(i), prompt=prompt))
    results = drain(engine)
    assert [i for i in range(7) if results[str(i)].error] == [bad]
    assert results[str(bad)].error == "RuntimeError: this picture breaks it"
    assert engine.max_batch_rows == 8  # no reason to shrink
    alone = _alone(seed=3, image=make_image(3), prompt="a good one")
    assert _same(results["3"].image, alone)


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

    engine = Engine(with_unet(tiny_loaded(), call), max_batch_rows=8)
    for i in range(4):
        engine.submit(make_request(f"{i}", seed=i))
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        drain(engine)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        engine.probe()
    assert engine.pending == 4
    broken, engine.model = False, tiny_loaded()
    results = drain(engine)
    assert sorted(results) == ["0", "1", "2", "3"]
    assert all(result.error is None for result in results.values())


def test_counters_can_be_read_while_painting() -> None:
    engine = Engine(tiny_loaded(), max_batch_rows=4)
    for i in range(4):
        engine.submit(make_request(f"{i}", seed=i, T_hat=6))
    painting = threading.Thread(target=drain, args=[engine])
    painting.start()
    seen = set()
    while painting.is_alive():
        seen.add((engine.pending, engine.progress))
    painting.join()
    assert {pending for pending, _ in seen} <= {4, 2, 0}
    assert len({progress for _, progress in seen}) > 1
    assert engine.pending == 0


@pytest.mark.parametrize(("channels", "encoded"), [(4, 1), (9, 2)])
def test_an_image_is_encoded_once_for_all_its_variants(channels: int, encoded: int) -> None:
    """With 9 channels a second time, without what is painted; starting late both are needed."""
    latents = LatentCache()
    model = tiny_loaded(channels)
    for seed in range(3):
        request = make_request("a", seed=seed, T_hat=3)
        start_trajectory(model, request, table_of(model, request), latents)
    assert (latents.misses, latents.hits) == (encoded, 2 * encoded)
    other = make_request("a", T_hat=3, painted_mask=~make_request("a").painted_mask)
    start_trajectory(model, other, table_of(model, other), latents)
    assert latents.misses == (encoded if channels == 4 else encoded + 1)
