"""The parts of the tiny model before training: small, and of Stable Diffusion's kinds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bgaug_d2.inpaint.model.write import END, START, write_tokenizer

CROSS_ATTENTION_DIM = 64
MAX_TOKENS = 48  # the longest caption of the toy world


def new_autoencoder() -> Any:
    """An AutoencoderKL with 4 pixels per latent cell; it has no attention, so any size will do."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
    )


def new_unet() -> Any:
    """A UNet2DConditionModel for latents (4, 32, 32); cross-attention at 16 and 8 cells a side."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=CROSS_ATTENTION_DIM,
        attention_head_dim=4,  # heads, in spite of its name
        norm_num_groups=8,
    )


def new_text_encoder(tokenizer: Any) -> Any:
    """A CLIPTextModel of two layers for a tokenizer's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=CROSS_ATTENTION_DIM,
            intermediate_size=2 * CROSS_ATTENTION_DIM,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_tokenizer(texts: Iterable[str], folder: Path) -> Any:
    """A CLIPTokenizer whose byte-pair merges come from texts, written to ``folder``.

    Every byte has a token, so any other text can be encoded too, in more tokens.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    # CLIP's pattern, for ASCII and without apostrophes: merges must fit how it splits.
    bpe.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+"), "removed", invert=True
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2048, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    # Sorted: the order of a set of texts changes from process to process.
    bpe.train_from_iterator(sorted(set(texts)), trainer)
    merges = json.loads(bpe.to_str())["model"]["merges"]
    # The tokenizers library has written a merge as text or as a list, depending on its version.
    pairs = [each.split(" ") if isinstance(each, str) else each for each in merges]
    tokens = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    tokens |= dict.fromkeys("".join(pair) for pair in pairs)
    vocabulary = {token: i for i, token in enumerate([*tokens, START, END])}
    write_tokenizer(folder, vocabulary, [" ".join(pair) for pair in pairs], MAX_TOKENS)
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
