"""Encoded originals, kept for the further variants of their images."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import torch

from bgaug_d2.inpaint.denoise.vae import encode_image
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.pixels.masks import BoolMask, Picture


class LatentMemory:
    """Encodes pictures and remembers the last ones, by their pixels and what of them is blanked.

    Attributes:
        hits, misses: Pictures that were remembered, and that were encoded.
    """

    def __init__(self, capacity: int = 256) -> None:
        """Keep up to ``capacity`` pictures; one of 512 px takes 64 kB on the model's device."""
        self.hits = self.misses = 0
        self._capacity = capacity
        self._known: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __call__(
        self, model: InpaintModel, image: Picture, blanked: BoolMask | None
    ) -> torch.Tensor:
        """As ``autoencoder.encode_image``."""
        content = hashlib.blake2b(image.tobytes(), digest_size=16)
        if blanked is not None:
            content.update(blanked.tobytes())
        digest = content.digest() + len(image).to_bytes(4, "big")
        if digest in self._known:
            self.hits += 1
        else:
            self.misses += 1
            self._known[digest] = encode_image(model, image, blanked)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        return self._known[digest]

    def clear(self) -> None:
        """Forget all pictures."""
        self._known.clear()
