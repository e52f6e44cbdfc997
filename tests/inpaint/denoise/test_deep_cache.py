"""Cached steps: exact with their own features, independent of batch mates; RANDOM WEIGHTS."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bgaug_d2.config.bgaug import BgAugConfig, WorkerConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import ConfigError
from bgaug_d2.inpaint.denoise.deep_cache import cached_step, full_step
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.identity import TINY_MODEL
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from tests.helpers.tiny_models import IDENTITY, make_request, tiny_loaded, with_unet


def batch(model: InpaintModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn((3, model.unet_in_channels, 16, 16), generator=generator)
    texts = model.prompts(["a", "b", ""])
    return inputs, torch.tensor([900, 500, 20]), torch.stack(list(texts))


@pytest.mark.parametrize("model", [tiny_loaded(4), tiny_loaded(9), "tiny"])
@torch.inference_mode()
def test_with_its_own_features_a_cached_step_is_a_full_one(model: InpaintModel | str) -> None:
    if isinstance(model, str):  # the trained one; its first block has no attention
        model = load_model(TINY_MODEL, "cpu", "float32", IDENTITY)
    parts = batch(model)
    prediction, features = full_step(model.unet, *parts)
    torch.testing.assert_close(
        prediction, model.unet(parts[0], parts[1], encoder_hidden_states=parts[2])[0]
    )
    torch.testing.assert_close(cached_step(model.unet, *parts, features), prediction)
    later = (parts[0] * 0.9, parts[1] - 10, parts[2])
    exact, _ = full_step(model.unet, *later)
    near = cached_step(model.unet, *later, features)
    far = cached_step(model.unet, *later, features.flip(0))
    assert 0 < (near - exact).abs().mean() < (far - exact).abs().mean()


def painted(model: InpaintModel, rows: int, **requests: dict[str, object]) -> dict[str, np.ndarray]:
    engine = Engine(model, max_batch_rows=rows)
    for name, fields in requests.items():
        engine.submit(make_request(name, **fields))
    found = {}
    while engine.pending:
        for result in engine.poll():
            assert result.image is not None, result.error
            found[result.request_id] = result.image
    return found


@pytest.mark.parametrize("channels", [4, 9])
def test_a_picture_does_not_depend_on_its_batch_mates(channels: int) -> None:
    model = tiny_loaded(channels)
    fields = {
        "a": {"deepcache_interval": 3, "seed": 1},
        "b": {"deepcache_interval": 1, "seed": 2},
        "c": {"deepcache_interval": 2, "seed": 3, "guidance_interval": (0.3, 0.8)},
        "d": {"deepcache_interval": 2, "seed": 4, "T_hat": 3},
    }
    together = painted(model, 5, **fields)
    for name, own in fields.items():
        alone = painted(model, 5, **{name: own})[name].astype(int)
        assert np.abs(together[name].astype(int) - alone).max() <= 1
    whole = painted(model, 5, a={"seed": 1})["a"].astype(int)
    assert np.abs(together["a"].astype(int) - whole).max() > 0


def test_the_whole_unet_runs_as_often_as_asked() -> None:
    calls = []
    model = tiny_loaded()

    def counted(unet: object, *args: object, **rest: object) -> tuple[torch.Tensor]:
        calls.append(len(args[0]))  # type: ignore[arg-type]
        return unet(*args, **rest)  # type: ignore[operator, no-any-return]

    replaced = with_unet(model, counted)
    for name in ("up_blocks", "down_blocks", "conv_in", "conv_out", "conv_norm_out", "conv_act"):
        setattr(replaced.unet, name, getattr(model.unet, name))
    for name in ("time_embedding", "time_embed_act", "get_time_embed"):
        setattr(replaced.unet, name, getattr(model.unet, name))
    engine = Engine(replaced, max_batch_rows=8)
    request = make_request("a", deepcache_interval=2)
    engine.submit(request)
    while engine.pending:
        engine.poll()
    assert len(calls) == -(-request.T_hat // 2)


def test_a_compiled_unet_has_no_parts() -> None:
    with pytest.raises(ConfigError, match="choose one of the two"):
        BgAugConfig(recipe=RecipeConfig(deepcache_interval=2), worker=WorkerConfig(compile=True))
