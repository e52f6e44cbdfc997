"""Prompt embeddings, each text encoded once and kept in a small LRU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from bgaug_d2.inpaint.model.device_copy import copy_to_device_async


class PromptEncoder:
    """Turns prompts into the embeddings that the UNet attends to.

    Every text is encoded by itself, so its embedding does not depend on the texts beside it.
    """

    def __init__(self, tokenizer: Any, text_encoder: Any, capacity: int = 256) -> None:
        """Keep up to ``capacity`` embeddings; one of SD 2.1 in bfloat16 takes 160 kB."""
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._capacity = capacity
        self._known: OrderedDict[str, torch.Tensor] = OrderedDict()

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embeddings of prompts, (B, L, D), in the text encoder's dtype and on its device."""
        return torch.stack([self._one(prompt) for prompt in prompts])

    def _one(self, prompt: str) -> torch.Tensor:
        if prompt not in self._known:
            self._known[prompt] = self._encode(prompt)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        self._known.move_to_end(prompt)
        return self._known[prompt]

    @torch.inference_mode()
    def _encode(self, prompt: str) -> torch.Tensor:
        """(L, D); a prompt beyond the encoder's length is cut, as in diffusers' pipelines."""
        # Padded to the full length: embeddings of one call need the same shape.
        tokens = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._text_encoder.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        device = self._text_encoder.device
        # Stable Diffusion was trained without a mask over padding; some encoders say otherwise.
        attends = getattr(self._text_encoder.config, "use_attention_mask", False)
        attention = copy_to_device_async(tokens.attention_mask, device) if attends else None
        inputs = copy_to_device_async(tokens.input_ids, device)
        return self._text_encoder(inputs, attention_mask=attention)[0][0]
