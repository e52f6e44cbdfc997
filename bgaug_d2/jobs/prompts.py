"""Prompts: the paper's clean prompt for a background, those of ablations, those of objects."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from bgaug_d2.config.recipe import CLASS_NAME, RecipeConfig
from bgaug_d2.errors import PromptError


def prompt_for(
    settings: RecipeConfig,
    image_id: int | str,
    variant: int,
    captions: Sequence[str],
    class_names: Sequence[str],
) -> str:
    """The prompt that paints a variant's background; it depends on nothing but the arguments.

    Args:
        settings: ``prompt`` chooses the kind: ``clean`` takes ``prompt_text``, ``caption`` one of
            the image's captions, ``scene`` one of ``scenes``, ``class_names`` names the objects.
        image_id: Spreads scenes over images: each image begins at another place of the list, so
            all scenes are used even with one copy an image.
        variant: Number of the variant, from 1; captions and scenes are taken in turn.
        captions: The image's captions.
        class_names: Class names of the image's objects, in any order, repeats allowed.

    Raises:
        PromptError: The image has no caption or no class name, and the prompt needs one.
    """
    if variant < 1:
        raise ValueError(f"variant={variant!r} must be at least 1; 0 is the original")
    if settings.prompt == "caption":
        place = variant - 1  # variants count from 1, as 0 is the original
        return _in_turn(_texts(captions), place, "caption", "give dataset.coco.train_captions")
    if settings.prompt == "scene":
        # Not hash(): Python salts it in every process, and the prompt is in the key.
        place = zlib.crc32(str(image_id).encode()) + variant - 1
        return _in_turn(_texts(settings.scenes), place, "scene", "fill recipe.scenes")
    if settings.prompt == "class_names":
        # Sorted: the order of the annotations must not change the prompt, which is in the key.
        names = sorted(set(_texts(class_names)))
        if not names:
            raise PromptError("recipe.prompt='class_names' needs a class name; the image has none")
        return f"A photo of {', '.join(names)}"
    return settings.prompt_text


def object_prompt(settings: RecipeConfig, class_name: str) -> str:
    """The prompt that paints one object (paper, table 3: "class-name prompts").

    Raises:
        PromptError: The class has no name.
    """
    name = " ".join(class_name.split())
    if not name:
        raise PromptError(
            f"recipe.target={settings.target!r} needs class names; one of the data set's is empty"
        )
    return settings.object_prompt.replace(CLASS_NAME, name)


def _texts(texts: Sequence[str]) -> list[str]:
    """The texts on one line each (captions have stray line breaks), empty ones left out."""
    lines = [" ".join(text.split()) for text in texts]
    return [line for line in lines if line]


def _in_turn(texts: list[str], place: int, kind: str, advice: str) -> str:
    if not texts:
        raise PromptError(
            f"recipe.prompt={kind!r} needs a {kind}, there is none; "
            f"{advice}, or choose recipe.prompt='clean'"
        )
    return texts[place % len(texts)]
