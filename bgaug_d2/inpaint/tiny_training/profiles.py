"""What faster settings cost in quality, on the tiny model: the same numbers as on its card."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from bgaug_d2.config import CPU_ROWS, RecipeConfig
from bgaug_d2.data.toy_backgrounds import BACKGROUNDS
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.models import InpaintModel
from bgaug_d2.inpaint.tiny_training.assess import Pictures, assess, paint_backgrounds
from bgaug_d2.inpaint.tiny_training.pictures import CLEAN_PROMPT, draw_pictures
from bgaug_d2.inpaint.tiny_training.stages import HELD_OUT, SIZE, through_autoencoder

FULL = RecipeConfig(num_inference_steps=20, guidance_scale=3.0)
FEW_STEPS: dict[str, Any] = {
    **{"num_inference_steps": 4, "solver_order": 1, "guidance_scale": 1.0},
    "timestep_spacing": "trailing",
}
# Name -> what is changed; the first one is what the others are compared with.
PROFILES: dict[str, dict[str, Any]] = {
    "20 steps, guidance 3": {},
    "guidance on steps 20 to 80 %": {"guidance_interval": [0.2, 0.8]},
    "whole UNet at every 2nd step": {"whole_every": 2},
    "whole UNet at every 3rd step": {"whole_every": 3},
    "10 steps": {"num_inference_steps": 10},
    "5 steps": {"num_inference_steps": 5},
    "4 steps of first order, no guidance": FEW_STEPS,
}


def measure_profiles(
    model: InpaintModel,
    samples: int,
    profiles: Mapping[str, Mapping[str, Any]] = PROFILES,
    rows: int = CPU_ROWS,
) -> dict[str, dict[str, float]]:
    """Speed and quality of each profile; see ``assess`` for the numbers.

    Args:
        model: The tiny model.
        samples: Pictures of each kind of background.
        profiles: Name -> changed settings of ``FULL``.
        rows: Of a UNet call.

    Returns:
        By profile ``images_per_s``, ``recognised``, ``told_apart`` and ``diversity``, means over
        the kinds.
    """
    real = draw_pictures(range(HELD_OUT, HELD_OUT + 4 * len(BACKGROUNDS) * samples, 2), SIZE)
    decoded = through_autoencoder(model, [each.image for each in real])
    found = {}
    for name, changed in profiles.items():
        began = time.perf_counter()
        painted = _paint(Engine(model, rows), samples, replace(FULL, **changed))
        seconds = time.perf_counter() - began
        judged = assess(real, decoded, painted, seed=0)
        found[name] = {
            "images_per_s": samples * len(painted) / seconds,
            "recognised": fmean(judged.recognised.values()),
            "told_apart": judged.told_apart,
            "diversity": fmean(judged.diversity.values()),
        }
    return found


def _paint(engine: Engine, samples: int, settings: RecipeConfig) -> dict[str, Pictures]:
    return {
        kind: paint_backgrounds(engine, [f"{CLEAN_PROMPT} of {scene}"] * samples, SIZE, settings, 0)
        for kind, (_, scene) in BACKGROUNDS.items()
    }
