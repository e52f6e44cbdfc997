"""The data set of mode ``expand``: originals and their copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bgaug_d2.cache.background_ratios import DatasetDict
from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.sampling.planner import skip_reason
from bgaug_d2.sampling.policy import nonuniform_counts, uniform_counts


def eligible(
    dataset_dicts: Sequence[DatasetDict], ratios: Sequence[float], settings: RecipeConfig
) -> list[bool]:
    """Which images are painted, by the rules of ``planner.skip_reason``.

    Two kinds of images are found only when they are painted: those whose whole background vanishes
    by erosion, and those whose objects all lie within crowd regions.

    Raises:
        ValueError: The lengths differ.
    """
    if len(ratios) != len(dataset_dicts):
        raise ValueError(f"{len(ratios)} ratios for {len(dataset_dicts)} images")
    return [
        skip_reason(each, settings, ratio) is None
        for each, ratio in zip(dataset_dicts, ratios, strict=True)
    ]


def expand_dataset(
    dataset_dicts: Sequence[DatasetDict], settings: BgAugConfig, ratios: Sequence[float]
) -> list[dict[str, Any]]:
    """The data set of mode ``expand``: the originals, then their copies (paper, section 3).

    Args:
        dataset_dicts: Detectron2's format.
        settings: ``alpha``, ``weighting`` and the recipe's rules on which images are painted.
        ratios: Background share of each image, 0..1, from ``background_ratios``.

    Returns:
        Shallow copies with ``bgaug_variant``: 0 for an original, from 1 for the copies of an image.
    """
    # The rules of every draw: a copy that they exclude would be shown as an original.
    chosen = eligible(dataset_dicts, ratios, settings.recipe)
    if settings.weighting == "uniform":
        counts = uniform_counts(chosen, settings.alpha)
    else:
        counts = nonuniform_counts(ratios, chosen, settings.alpha)
    expanded = [{**each, "bgaug_variant": 0} for each in dataset_dicts]
    # Variants count from 1: 0 asks the planner for the original.
    for each, count in zip(dataset_dicts, counts, strict=True):
        expanded += [{**each, "bgaug_variant": variant} for variant in range(1, count + 1)]
    return expanded
