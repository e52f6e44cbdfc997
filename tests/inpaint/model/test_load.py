"""Loading: what is refused, with which words; and the tiny model in the user's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bgaug_d2.errors import ModelError
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import load_model
from bgaug_d2.inpaint.model.prompt_encoder import PromptEncoder
from tests.helpers.tiny_models import IDENTITY, drain, make_request, tiny_folder, tiny_loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder(), tmp_path / "model"))


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_a_loaded_model_says_of_itself() -> None:
    model = tiny_loaded(9, "epsilon")
    assert (model.vae_factor, model.latent_channels, model.unet_in_channels) == (4, 4, 9)
    assert model.noise_config["prediction_type"] == "epsilon"
    assert model.identity == IDENTITY
    assert not any(weight.requires_grad for weight in model.unet.parameters())
    assert not model.unet.training
    assert not model.vae.training


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "scheduler", "tokenizer"])
def test_a_missing_component_is_named(folder: Path, component: str) -> None:
    shutil.rmtree(folder / component)
    with pytest.raises(ModelError, match=component):
        load_model(folder, "cpu", "float32", IDENTITY)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_pickled_weights_are_not_opened(folder: Path, component: str) -> None:
    weights = next((folder / component).glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelError, match=rf"{component} has no .*\.bin.*only safetensors are read"):
        load_model(folder, "cpu", "float32", IDENTITY)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("fault", ["truncated", "empty", "nonsense"])
def test_broken_weights_are_a_model_error(folder: Path, component: str, fault: str) -> None:
    weights = next((folder / component).glob("*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes({"truncated": content[:-100], "empty": b"", "nonsense": b"x" * 99}[fault])
    with pytest.raises(ModelError, match=f"{component} cannot be loaded"):
        load_model(folder, "cpu", "float32", IDENTITY)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_weights_that_lack_a_tensor_are_refused_not_made_up(folder: Path, component: str) -> None:
    weights = next((folder / component).glob("*.safetensors"))
    tensors = load_file(weights)
    name = sorted(tensors)[3]
    del tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{component} (lacks weights|cannot be loaded).*"):
        load_model(folder, "cpu", "float32", IDENTITY)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_weights_of_another_shape_are_refused(folder: Path, component: str) -> None:
    weights = next((folder / component).glob("*.safetensors"))
    tensors = load_file(weights)
    name = next(each for each in sorted(tensors) if tensors[each].ndim >= 2)
    tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=component):
        load_model(folder, "cpu", "float32", IDENTITY)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"_class_name": "FluxTransformer2DModel"}, "expected UNet2DCond"),
        ("vae/config.json", {"_class_name": "VQModel"}, "is a VQModel, expected AutoencoderKL"),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "CLIPTextModel"),
        ("unet/config.json", {"in_channels": 5}, "unet.in_channels=5"),
        ("unet/config.json", {"in_channels": 16}, "unet.in_channels=16"),
        ("vae/config.json", {"latent_channels": 16}, "latent_channels=16"),
        ("unet/config.json", {"out_channels": 8}, "unet.out_channels=8 must be 4"),
        ("unet/config.json", {"cross_attention_dim": 1024}, "cross_attention_dim=1024"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "choose one of epsilon"),
    ],
)
def test_what_is_not_shaped_like_stable_diffusion_is_refused(
    folder: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    _edit(folder / file, **changes)
    with pytest.raises(ModelError, match=message):
        load_model(folder, "cpu", "float32", IDENTITY)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_configuration_that_is_no_json_object_is_named(folder: Path, content: str) -> None:
    (folder / "unet" / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"unet/config\.json"):
        load_model(folder, "cpu", "float32", IDENTITY)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab.json": None, "merges.txt": None}, "has neither vocab.json"),
        ({"merges.txt": None}, "tokenizer cannot be loaded"),
        ({"vocab.json": '{"a":'}, "tokenizer cannot be loaded"),
        ({"vocab.json": "[]"}, "tokenizer cannot be loaded"),
        ({"tokenizer_config.json": "{"}, "tokenizer cannot be loaded"),
    ],
)
def test_a_broken_tokenizer_is_a_model_error(
    folder: Path, files: dict[str, str | None], message: str
) -> None:
    for name, content in files.items():
        path = folder / "tokenizer" / name
        path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelError, match=message):
        load_model(folder, "cpu", "float32", IDENTITY)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    path = folder / "tokenizer" / "vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps(vocabulary | {f"word{i}": 514 + i for i in range(9)}))
    with pytest.raises(ModelError, match="has 523 tokens, the text encoder knows 514"):
        load_model(folder, "cpu", "float32", IDENTITY)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("unet/config.json", {"block_out_channels": "wide"}),
        ("unet/config.json", {"down_block_types": ["NoSuchBlock", "DownBlock2D"]}),
        ("vae/config.json", {"norm_num_groups": 7}),
        ("text_encoder/config.json", {"num_attention_heads": 3}),
    ],
)
def test_a_configuration_that_makes_no_network_is_a_model_error(
    folder: Path, file: str, changes: dict[str, Any]
) -> None:
    _edit(folder / file, **changes)
    with pytest.raises(ModelError, match=f"{file.split('/')[0]} cannot be loaded"):
        load_model(folder, "cpu", "float32", IDENTITY)


def test_nan_in_the_weights_becomes_error_results(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.weight"][0, 0, 0, 0] = torch.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    engine = Engine(load_model(folder, "cpu", "float32", IDENTITY), max_batch_rows=2)
    engine.submit(make_request())
    assert [result.error for result in drain(engine).values()] == ["non-finite"]


def test_prompts_are_encoded_once_and_the_oldest_is_forgotten() -> None:
    encoded: list[str] = []
    real = tiny_loaded().prompts

    def tokenizer(prompt: str, **rest: Any) -> Any:
        encoded.append(prompt)
        return real._tokenizer(prompt, **rest)

    prompts = PromptEncoder(tokenizer, real._text_encoder, capacity=2)
    first = prompts(["a", "b", "a"])
    assert first.shape == (3, 77, 32)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    prompts(["a"])
    assert encoded == ["a", "b"]
    prompts(["c"])  # b was used longest ago
    prompts(["a"])
    assert encoded == ["a", "b", "c"]
    assert torch.equal(prompts(["b"])[0], first[1])
    assert encoded == ["a", "b", "c", "b"]


def test_embeddings_equal_those_of_diffusers_pipelines() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_folder(), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    texts = ["Generate a clean background", "", "word " * 200]
    for text in texts:
        theirs, _ = pipeline.encode_prompt(text, "cpu", 1, do_classifier_free_guidance=False)
        torch.testing.assert_close(tiny_loaded().prompts([text]), theirs)
