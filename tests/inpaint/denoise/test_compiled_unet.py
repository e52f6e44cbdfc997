"""Calls of a compiled UNet, with a tiny one of RANDOM WEIGHTS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bgaug_d2.inpaint.denoise.compiled_unet import CompiledUnet, compiled
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from tests.helpers.tiny_models import (
    IDENTITY,
    drain,
    make_request,
    paint,
    tiny_folder,
    tiny_loaded,
)


class _Compiler:
    """In the place of ``torch.compile``: gives the module itself and notes what it is called on."""

    def __init__(self) -> None:
        self.modes: list[str | None] = []
        self.calls: list[tuple[str | None, int]] = []  # mode and rows

    def __call__(self, unet: Any, dynamic: bool, mode: str | None = None) -> Any:
        assert not dynamic
        self.modes.append(mode)

        def call(rows: torch.Tensor, timesteps: torch.Tensor, **rest: Any) -> Any:
            assert len(rows) == len(timesteps) == len(rest["encoder_hidden_states"])
            self.calls.append((mode, len(rows)))
            return unet(rows, timesteps, **rest)

        return call


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> _Compiler:
    double = _Compiler()
    monkeypatch.setattr(torch, "compile", double)
    return double


def _own_model() -> InpaintModel:
    """Not the shared one: compiling changes the layout of the weights."""
    return load_model(tiny_folder(), "cpu", "float32", IDENTITY)


def test_both_numbers_of_rows_are_compiled_at_once(compiler: _Compiler) -> None:
    compiled(_own_model(), max_batch_rows=8, resolution=64)
    assert compiler.calls == [(None, 4), (None, 8)]


def test_with_less_rows_than_a_few_there_is_one_number(compiler: _Compiler) -> None:
    compiled(_own_model(), max_batch_rows=3, resolution=64)
    assert compiler.calls == [(None, 3)]


def test_calls_are_padded_to_few_rows_or_to_all(compiler: _Compiler) -> None:
    engine = Engine(compiled(_own_model(), max_batch_rows=8, resolution=64), max_batch_rows=8)
    compiler.calls.clear()
    for name, T_hat in {"a": 4, "b": 2, "c": 1}.items():
        engine.submit(make_request(name, T_hat=T_hat))
    results = drain(engine)
    assert compiler.calls == [(None, 8), (None, 4), (None, 4), (None, 4)]
    alone = paint(tiny_loaded(), [make_request()])[0]
    assert alone is not None
    assert results["a"].image is not None
    assert np.abs(results["a"].image.astype(int) - alone).max() <= 1


def test_only_calls_of_few_rows_are_cuda_graphs(compiler: _Compiler) -> None:
    compiled(_own_model(), max_batch_rows=8, resolution=64, cuda_graphs=True)
    # Twice: the first call warms up, the second one records the graph.
    assert compiler.calls == [("reduce-overhead", 4)] * 2 + [(None, 8)] * 2


def test_an_answer_survives_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph gives the same memory each time."""
    memory = torch.zeros(4, 4, 8, 8)

    def answers(unet: Any, **_: Any) -> Any:
        return lambda rows, *_, **__: (memory.copy_(rows.mean() + memory.new_zeros(4, 4, 8, 8)),)

    monkeypatch.setattr(torch, "compile", answers)
    unet = CompiledUnet(torch.nn.Identity(), max_batch_rows=8, cuda_graphs=True)
    timesteps, texts = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3, 5)
    first = unet(torch.full((2, 4, 8, 8), 1.0), timesteps, texts)
    second = unet(torch.full((2, 4, 8, 8), 2.0), timesteps, texts)
    assert (float(first.mean()), float(second.mean())) == (1, 2)
    assert first.shape == (2, 4, 8, 8)


@pytest.mark.slow
def test_a_compiled_engine_never_recompiles_and_paints_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(compiled(_own_model(), max_batch_rows=6, resolution=64), max_batch_rows=6)
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    different: list[dict[str, Any]] = [
        {"T_hat": 6, "guidance_scale": 1.0},
        {"T_hat": 3, "prompt": "a forest"},
        {"T_hat": 5, "guidance_interval": (0.4, 0.8)},
        {"T_hat": 1, "num_inference_steps": 9},
    ]
    for number, fields in enumerate(different):
        engine.submit(make_request(f"{number}", **fields))
    results = drain(engine)
    engine.probe()
    for number, fields in enumerate(different):
        image, alone = results[f"{number}"].image, paint(tiny_loaded(), [make_request(**fields)])[0]
        assert image is not None
        assert alone is not None
        assert np.abs(image.astype(int) - alone).max() <= 4


def test_out_of_memory_ends_compiled_calls_but_no_picture(compiler: _Compiler) -> None:
    model = compiled(_own_model(), max_batch_rows=8, resolution=64)
    unet = model.compiled_unet
    assert unet is not None

    def full(rows: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if len(rows) > 4:
            raise torch.OutOfMemoryError("no memory for these rows")
        return unet(rows, *rest)

    engine = Engine(replace(model, compiled_unet=full), max_batch_rows=8)
    for name in "abc":
        engine.submit(make_request(name))
    results = drain(engine)
    assert [result.error for result in results.values()] == [None] * 3
    assert engine.max_batch_rows == 3
    assert engine.model.compiled_unet is None
