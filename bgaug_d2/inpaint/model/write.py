"""Writes a model folder in diffusers' layout; ``load.load_model`` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"
_VERSION_KEYS = ("_diffusers_version", "transformers_version", "_name_or_path")


def write_model(
    folder: Path, parts: Mapping[str, Any], noise_config: Mapping[str, Any], card: str
) -> None:
    """Write everything but the tokenizer; the same parts give the same bytes.

    Args:
        folder: Exists; the tokenizer's files belong into its ``tokenizer``.
        parts: ``vae``, ``unet`` and ``text_encoder``; saved as safetensors in their own dtype.
        noise_config: For the scheduler: number of training timesteps, betas, prediction type.
        card: The model card, Markdown.
    """
    for name, part in parts.items():
        part.save_pretrained(folder / name, safe_serialization=True)
        _drop_versions(folder / name / "config.json")
    scheduler = {"_class_name": "DPMSolverMultistepScheduler", "steps_offset": 1, **noise_config}
    (folder / "scheduler").mkdir(exist_ok=True)
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    (folder / "README.md").write_text(card, encoding="utf-8")
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.38.0",  # its inpainting pipeline wants one; a constant
            "feature_extractor": [None, None],
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def write_tokenizer(
    folder: Path, vocabulary: Mapping[str, int], merges: Sequence[str], max_tokens: int
) -> None:
    """Write a CLIPTokenizer's files.

    Args:
        folder: Created when missing.
        vocabulary: Token to number; has ``START`` and ``END``.
        merges: Pairs of tokens with a space between, the most important first.
        max_tokens: Length of a prompt, both ends included.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary) + "\n", encoding="utf-8")
    # The first line is the format's header, not a merge.
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": max_tokens,
            "bos_token": START,
            "eos_token": END,
            "pad_token": END,
            "unk_token": END,
        },
    )


def _drop_versions(path: Path) -> None:
    """Drop versions of libraries: they would change the bytes, and so the model's identity."""
    content = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, {key: content[key] for key in content if key not in _VERSION_KEYS})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    # Sorted: the order of keys would change the bytes, and so the model's identity.
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
