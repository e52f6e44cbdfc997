"""What faster settings cost in quality, on the tiny model: the same numbers as on its card."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from bgaug_d2.benchmarks.markdown import markdown_table
from bgaug_d2.config.bgaug import CPU_ROWS
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.toy.backgrounds import BACKGROUNDS
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.identity import TINY_MODEL
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from bgaug_d2.jobs.job import ModelIdentity
from tools.pretrain.assess import Pictures, assess, paint_backgrounds
from tools.pretrain.pictures import CLEAN_PROMPT, draw_pictures
from tools.pretrain.stages import HELD_OUT, SIZE, through_autoencoder

FULL = RecipeConfig(num_inference_steps=20, guidance_scale=3.0)
FEW_STEPS: dict[str, Any] = {
    **{"num_inference_steps": 4, "solver_order": 1, "guidance_scale": 1.0},
    "timestep_spacing": "trailing",
}
IDENTITY = ModelIdentity("benchmark", "", "0" * 64, "unknown")
# Name -> what is changed; the first one is what the others are compared with.
PROFILES: dict[str, dict[str, Any]] = {
    "20 steps, guidance 3": {},
    "guidance on steps 20 to 80 %": {"guidance_interval": [0.2, 0.8]},
    "whole UNet every 2nd step": {"deepcache_interval": 2},
    "whole UNet every 3rd step": {"deepcache_interval": 3},
    "10 steps": {"num_inference_steps": 10},
    "5 steps": {"num_inference_steps": 5},
    "4 steps of first order, no guidance": FEW_STEPS,
}


def measure_profiles(
    model: InpaintModel,
    samples: int,
    profiles: Mapping[str, Mapping[str, Any]] = PROFILES,
    max_batch_rows: int = CPU_ROWS,
) -> dict[str, dict[str, float]]:
    """Speed and quality of each profile; see ``assess`` for the numbers.

    Args:
        model: The tiny model.
        samples: Pictures of each kind of background.
        profiles: Name -> changed settings of ``FULL``.
        max_batch_rows: Rows of a UNet call.

    Returns:
        By profile ``images_per_s``, ``recognised``, ``discriminator_accuracy`` and ``diversity``,
        means over the kinds.
    """
    # Even numbers have no objects.
    real = draw_pictures(range(HELD_OUT, HELD_OUT + 4 * len(BACKGROUNDS) * samples, 2), SIZE)
    decoded = through_autoencoder(model, [each.image for each in real])
    found = {}
    for name, changed in profiles.items():
        began = time.perf_counter()
        # A new engine, so that no profile gains from pictures that another has encoded.
        painted = _paint(Engine(model, max_batch_rows), samples, replace(FULL, **changed))
        seconds = time.perf_counter() - began
        # One seed, so that all profiles have the same judges.
        judged = assess(real, decoded, painted, seed=0)
        found[name] = {
            "images_per_s": samples * len(painted) / seconds,
            "recognised": fmean(judged.recognised.values()),
            "discriminator_accuracy": judged.discriminator_accuracy,
            "diversity": fmean(judged.diversity.values()),
        }
    return found


def _paint(engine: Engine, samples: int, settings: RecipeConfig) -> dict[str, Pictures]:
    return {
        kind: paint_backgrounds(engine, [f"{CLEAN_PROMPT} of {scene}"] * samples, SIZE, settings, 0)
        for kind, (_, scene) in BACKGROUNDS.items()
    }


def profiles_table(profiles: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table of what ``measure_profiles`` found."""
    rows = [
        (
            name,
            f"{each['images_per_s']:.3g}",
            f"{each['recognised']:.2f}",
            f"{each['discriminator_accuracy']:.2f}",
            f"{each['diversity']:.2f}",
        )
        for name, each in profiles.items()
    ]
    header = ("profile", "images/s", "taken for its kind", "real or painted", "diversity")
    return "\n".join(markdown_table(header, rows))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16, help="of each kind [%(default)s]")
    parser.add_argument("--few-steps", help="a folder of tools.pretrain.distil_tiny_inpainter")
    arguments = parser.parse_args(argv)
    found = measure_profiles(load_model(TINY_MODEL, "cpu", "float32", IDENTITY), arguments.images)
    if arguments.few_steps:
        model = load_model(arguments.few_steps, "cpu", "float32", IDENTITY)
        profiles = {"the same, distilled for it": FEW_STEPS}
        found |= measure_profiles(model, arguments.images, profiles)
    print(profiles_table(found))


if __name__ == "__main__":
    main()
