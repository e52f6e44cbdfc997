"""The engine on a GPU (``make test-gpu``), with a tiny model of RANDOM WEIGHTS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from bgaug_d2.inpaint.denoise.compiled_unet import compiled
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from tests.helpers.tiny_models import (
    IDENTITY,
    drain,
    make_image,
    make_request,
    paint,
    tiny_folder,
    tiny_loaded,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def _on_gpu(unet_channels: int = 4) -> InpaintModel:
    return load_model(tiny_folder(unet_channels), "cuda", "float32", IDENTITY)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Torch raises where the host would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("unet_channels", [4, 9])
def test_a_picture_is_that_of_a_cpu(unet_channels: int) -> None:
    engine = Engine(_on_gpu(unet_channels), max_batch_rows=4)
    for name, T_hat in {"a": 4, "b": 2, "c": 6}.items():
        engine.submit(make_request(name, T_hat=T_hat))
    image = drain(engine)["a"].image
    alone = paint(tiny_loaded(unet_channels), [make_request()])[0]
    assert image is not None
    assert alone is not None
    assert np.abs(image.astype(int) - alone).max() <= 3


@pytest.mark.parametrize("unet_channels", [4, 9])
@pytest.mark.parametrize("deepcache_interval", [1, 2])
def test_the_engine_waits_for_nothing(unet_channels: int, deepcache_interval: int) -> None:
    """Not for new pictures or prompts, steps or what is finished while others are under way."""
    engine = Engine(_on_gpu(unet_channels), max_batch_rows=4)
    fields: dict[str, Any] = {
        "deepcache_interval": deepcache_interval,
        "guidance_interval": (0.4, 0.9),
    }
    engine.submit(make_request("warm", **fields))  # gets pinned memory, loads kernels
    drain(engine)
    for number, name in enumerate("abcd"):
        image = make_image(number)
        engine.submit(make_request(name, T_hat=2, prompt=name, image=image, **fields))
    with _no_waiting():
        for _ in range(3):  # two pictures to their end, and the first step of the other two
            engine.poll()
    assert {result.error for result in drain(engine).values()} <= {None}
    assert engine.meter.read().pictures == 5


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_a_compiled_engine_paints_the_same_and_never_recompiles(
    cuda_graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters["inductor"].clear()
    engine = Engine(compiled(_on_gpu(), 8, 64, cuda_graphs), max_batch_rows=8)
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    for _ in range(2):
        engine.submit(make_request("few"))
        image = drain(engine)["few"].image
        alone = paint(tiny_loaded(), [make_request()])[0]
        assert image is not None
        assert alone is not None
        assert np.abs(image.astype(int) - alone).max() <= 4
    assert counters["inductor"]["cudagraph_skips"] == 0
