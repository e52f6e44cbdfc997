"""An engine that draws real backgrounds of the toy world: the ceiling for any model.

``inpainter=toy_backgrounds`` chooses it, for the toy world only. It ignores the prompt and T_hat:
the new background has nothing of the old one. It cannot draw objects, so ``worker.engines`` refuses
recipes that want them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bgaug_d2.config.bgaug import InpainterConfig
from bgaug_d2.data.toy.backgrounds import BACKGROUNDS, paint_background
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.painting.engine_interface import PaintRequest
from bgaug_d2.painting.one_by_one import OneByOneEngine
from bgaug_d2.pixels.masks import Picture

ID = "toy_backgrounds"
REVISION = "1"  # raise it whenever the same seed draws another picture: it enters the cache key
LICENSE = "Apache-2.0"


class DrawingEngine(OneByOneEngine):
    """Draws a background of a random kind; the request's seed decides which."""

    def paint(self, request: PaintRequest) -> Picture:
        """The picture, uint8 RGB (S, S, 3), with a new background where the mask is True."""
        # A generator of its own: a picture does not depend on those before it.
        rng = np.random.default_rng(request.seed)
        kind = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
        side = len(request.image)
        drawn = np.round(paint_background(kind, rng, side, side)).astype(np.uint8)
        return np.where(request.painted_mask[:, :, None], drawn, request.image)


def build_drawing_engine(options: Mapping[str, Any]) -> DrawingEngine:
    """The engine; it has no options and ignores those of a model."""
    return DrawingEngine()


def identify_drawing(cfg: InpainterConfig) -> tuple[ModelIdentity, Path]:
    """The identity that enters the cache key, and a folder, which the engine does not read.

    Args:
        cfg: Ignored: there is no model to choose.
    """
    digest = hashlib.sha256(f"{ID} {REVISION}".encode()).hexdigest()
    return ModelIdentity(ID, REVISION, digest, LICENSE), Path(__file__).parent
