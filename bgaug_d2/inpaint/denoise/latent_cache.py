"""Encoded originals, kept for the further variants of their images."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import torch

from bgaug_d2.inpaint.denoise.vae import encode_image
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.pixels.masks import BoolMask, Picture


class LatentCache:
    """Encodes pictures and keeps the last ones, by their pixels and their blanked cells.

    Attributes:
        hits, misses: Pictures that were in the cache, and that had to be encoded.
    """

    def __init__(self, capacity: int = 256) -> None:
        """Keep up to ``capacity`` pictures; one of 512 px takes 64 kB on the model's device."""
        self.hits = self.misses = 0
        self._capacity = capacity
        self._known: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __call__(
        self, model: InpaintModel, image: Picture, blanked: BoolMask | None
    ) -> torch.Tensor:
        """As ``vae.encode_image``: float32 (1, C, h, w)."""
        content = hashlib.blake2b(image.tobytes(), digest_size=16)
        if blanked is not None:
            content.update(blanked.tobytes())
        # The side says where the picture's bytes end and the mask's begin.
        digest = content.digest() + len(image).to_bytes(4, "big")
        if digest in self._known:
            self.hits += 1
        else:
            self.misses += 1
            self._known[digest] = encode_image(model, image, blanked)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)  # the one that was not used for longest
        self._known.move_to_end(digest)
        return self._known[digest]

    def clear(self) -> None:
        """Drop all pictures."""
        self._known.clear()
