"""Models in the Hugging Face hub's cache, and data sets on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from bgaug_d2.commands.doctor.finding import MISSING, OK, WARNING, Finding
from bgaug_d2.config.experiment import DatasetConfig
from bgaug_d2.data.register import check_dataset
from bgaug_d2.errors import DatasetError
from bgaug_d2.inpaint.model.identity import MODEL_FILES, model_files
from bgaug_d2.runs.hydra_app import config_dir

# What a folder must hold for a picture to be painted with it.
_WEIGHTS = ("unet/", "vae/", "text_encoder/")
_TIMEOUT_S = 10.0


def configured_models() -> dict[str, tuple[str, str]]:
    """Name in ``configs/inpainter`` -> hub id and revision, of those that have a hub id."""
    found = {}
    for path in sorted((config_dir() / "inpainter").glob("*.yaml")):
        content: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
        settings = content.get("inpainter", content)
        model = str(settings.get("model") or "")
        if "/" in model:
            found[path.stem] = model, str(settings.get("revision", "main"))
    return found


def check_models() -> list[Finding]:
    """Which configured inpainters are in the hub's cache; nothing is asked of the network."""
    return [_check_model(name, *model) for name, model in configured_models().items()]


def _check_model(name: str, hub_id: str, revision: str) -> Finding:
    folder = cached_snapshot(hub_id, revision)
    files = model_files(folder) if folder else []
    weights = [each for each in files if each.endswith(".safetensors")]
    if folder and all(any(each.startswith(part) for each in weights) for part in _WEIGHTS):
        return Finding("model", OK, f"inpainter={name} ({hub_id}) in {folder}")
    fact = f"inpainter={name} ({hub_id}) is {'incomplete' if files else 'not'} in the hub's cache"
    remedy = "the first run fetches it; without a network give inpainter=local "
    return Finding("model", MISSING, fact, f"{remedy}inpainter.model=FOLDER")


def cached_snapshot(hub_id: str, revision: str) -> Path | None:
    """The folder of a model in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        found = snapshot_download(
            hub_id, revision=revision, allow_patterns=list(MODEL_FILES), local_files_only=True
        )
    except (OSError, HFValidationError):  # a missing model is an OSError of the library's own
        return None
    return Path(found)


def check_hub() -> Finding:
    """Whether the hub answers: one request."""
    from huggingface_hub import HfApi

    models = [hub_id for hub_id, _ in configured_models().values()]
    if not models:
        return Finding("model hub", WARNING, "no configured inpainter comes from the hub")
    try:
        HfApi().model_info(models[0], timeout=_TIMEOUT_S)
    # The library's HTTP errors are OSErrors; what its HTTP client raises depends on its version.
    except Exception as error:  # noqa: BLE001
        fact = f"{models[0]} cannot be asked for ({type(error).__name__})"
        remedy = "check network and proxy, or use inpainter=local inpainter.model=FOLDER"
        return Finding("model hub", WARNING, fact, remedy)
    return Finding("model hub", OK, f"reachable; {models[0]} is there")


def check_datasets() -> list[Finding]:
    """The data sets that the configurations look for, under the roots that they use."""
    root = os.environ.get("DETECTRON2_DATASETS", "datasets")
    origin = "DETECTRON2_DATASETS" if "DETECTRON2_DATASETS" in os.environ else "the default"
    tiny = os.environ.get("BGAUG_TINY_COCO", f"{root}/tiny_coco")
    tiny_origin = "BGAUG_TINY_COCO" if "BGAUG_TINY_COCO" in os.environ else origin
    sets = [
        ("COCO 2017", DatasetConfig(kind="coco", root=f"{root}/coco"), origin),
        ("PASCAL VOC", DatasetConfig(kind="voc", root=root), origin),
        ("tiny COCO", DatasetConfig(kind="coco", root=tiny), tiny_origin),
    ]
    return [_check_dataset(*each) for each in sets]


def _check_dataset(name: str, config: DatasetConfig, origin: str) -> Finding:
    try:
        check_dataset(config)
    except DatasetError as error:
        remedy = "put it there, or set DETECTRON2_DATASETS or dataset.root=FOLDER"
        return Finding("data set", MISSING, f"{name}: {error}", remedy)
    return Finding("data set", OK, f"{name} in {config.root} ({origin})")
