"""What a run says before and while it paints: recipe, inpainter, number of pictures, time, disk.

A model's preset changes the model alone and a recipe is chosen apart from it, so both are shown.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence

from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.jobs.job import ModelIdentity

logger = logging.getLogger(__name__)

# PNG of photographs, fast compression: an estimate until some pictures have been painted.
_BYTES_PER_PIXEL = 2.0
# Pictures after which a rate means something: the first ones wait for the model.
RATE_AFTER = 16


def recipe_text(recipe: RecipeConfig) -> str:
    """The settings of a recipe that people compare, on one line."""
    steps = f"all {recipe.fixed_T_hat or recipe.num_inference_steps} steps"
    if recipe.step_policy == "adaptive":
        steps = f"adaptive steps (T = {recipe.num_inference_steps}, D = {recipe.D:g})"
    eroded = f"erosion {recipe.erosion_kernel} px" if recipe.erosion_kernel > 1 else "no erosion"
    parts = [
        f"{recipe.target.replace('_', ' ')} painted at {recipe.resolution} px",
        f"{recipe.prompt.replace('_', ' ')} prompt",
        steps,
        f"guidance {recipe.guidance_scale:g}",
        eroded,
        "objects pasted back" if recipe.paste_back else "objects not pasted back",
    ]
    if recipe.deepcache_interval > 1:
        parts.append(f"the whole UNet every {recipe.deepcache_interval} steps")
    return ", ".join(parts)


def announce_recipe(settings: BgAugConfig, identity: ModelIdentity) -> None:
    """Say how pictures are painted, and by what."""
    logger.info("Recipe: %s", recipe_text(settings.recipe))
    revision = f" (revision {identity.revision})" if identity.revision else ""
    logger.info("Inpainter: %s%s", identity.id, revision)


def announce_pictures(
    sizes: Sequence[tuple[int, int]], total: int, folder: str, max_gb: float
) -> None:
    """Say how many pictures are to be painted and what room they take.

    Args:
        sizes: Height and width, in pixels, of each picture that the cache lacks.
        total: Pictures that the run can ask for.
        folder: The cache.
        max_gb: Its quota in 10**9 bytes; 0 is none.
    """
    pixels = sum(height * width for height, width in sizes)
    wanted, free = pixels * _BYTES_PER_PIXEL / 1e9, shutil.disk_usage(folder).free / 1e9
    logger.info(
        "Pictures: %d of %d to paint into %s, about %.3g GB (%.3g GB are free)",
        *(len(sizes), total, folder, wanted, free),
    )
    if wanted > free:
        logger.warning("the disk will be full before all are painted; bgaug.cache.dir moves it")
    if max_gb and wanted > max_gb:
        logger.warning(
            "bgaug.cache.max_gb=%g is less than these pictures need: the oldest will be removed",
            max_gb,
        )


def announce_rate(painted: int, seconds: float, num_bytes: int, rest: int) -> None:
    """Say what the other pictures take, going by those painted so far.

    Args:
        painted: Pictures painted, at least 1.
        seconds: Time that took, above 0.
        num_bytes: Their size.
        rest: Pictures still to paint.
    """
    rate = painted / seconds
    logger.info(
        "Estimate: %d were painted at %.2f images/s; the other %d take about %s and %.3g GB",
        *(painted, rate, rest, _duration(rest / rate), rest * num_bytes / painted / 1e9),
    )


def announce_training(settings: BgAugConfig, images: int) -> None:
    """Say how many pictures a training can ask for while it runs.

    Args:
        settings: Of a mode that paints.
        images: Training images.
    """
    each = settings.alpha if settings.mode == "expand" else settings.variants
    logger.info(
        "Pictures: up to %d (%d images x %d); those that %s lacks are painted meanwhile (%s), "
        "`bgaug paint` paints them beforehand and estimates time and disk",
        *(images * each, images, each, settings.cache.dir, f"on_miss={settings.on_miss}"),
    )


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
