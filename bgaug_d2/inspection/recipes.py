"""Recipes of painted pictures, as flat names and values that can be grouped and compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_TARGETS = {
    "background": "background",
    "objects": "objects",
    "objects_and_background": "objects + background",
}

RecipeKey = tuple[tuple[str, str], ...]  # dotted name and value of every setting


def recipe_key(sidecar: Mapping[str, Any]) -> RecipeKey:
    """Everything that decides the pixels, except the image: settings, formats and model."""
    rest = {name: value for name, value in sidecar["recipe"].items() if name != "settings"}
    # A corrected licence text does not make another model.
    model = {name: value for name, value in sidecar["model"].items() if name != "license"}
    return tuple(_leaves({**sidecar["recipe"]["settings"], **rest, "model": model}))


def target_of(sidecar: Mapping[str, Any]) -> str:
    """What was painted, in words for captions.

    Sidecars from before the setting ``target`` existed have none: they show backgrounds.
    """
    return _TARGETS[sidecar["recipe"]["settings"].get("target", "background")]


def differing(recipes: Iterable[RecipeKey]) -> list[str]:
    """Names of the settings whose values differ between recipes."""
    found = [dict(recipe) for recipe in recipes]
    names = list(dict.fromkeys(name for recipe in found for name in recipe))
    return [name for name in names if len({recipe.get(name) for recipe in found}) > 1]


def _leaves(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    # Sorted, so that recipes which differ only in the order of their keys are equal.
    for name, value in sorted(content.items()):
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value if isinstance(value, str) else json.dumps(value)
