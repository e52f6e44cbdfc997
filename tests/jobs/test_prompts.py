"""Prompts of all kinds, and what is said when an image has not what a prompt needs."""

from __future__ import annotations

from collections import Counter

import pytest

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import PromptError
from bgaug_d2.jobs.prompts import object_prompt, prompt_for

CAPTIONS = ["A cat on a mat.", "", " Two\n cats "]


def test_clean_is_the_papers() -> None:
    assert prompt_for(RecipeConfig(), 7, 3, CAPTIONS, ["cat"]) == "Generate a clean background"
    assert prompt_for(RecipeConfig(prompt_text="x"), 7, 1, [], []) == "x"


def test_captions_are_taken_in_turn() -> None:
    settings = RecipeConfig(prompt="caption")
    texts = [prompt_for(settings, 7, variant, CAPTIONS, []) for variant in (1, 2, 3)]
    assert texts == ["A cat on a mat.", "Two cats", "A cat on a mat."]


def test_scenes_are_taken_in_turn() -> None:
    settings = RecipeConfig(prompt="scene", scenes=["a beach", "a street"])
    texts = [prompt_for(settings, 7, variant, [], []) for variant in (1, 2, 3)]
    assert texts in (["a beach", "a street", "a beach"], ["a street", "a beach", "a street"])


def test_scenes_are_spread_over_images() -> None:
    scenes = [f"scene {number}" for number in range(4)]
    settings = RecipeConfig(prompt="scene", scenes=scenes)
    first = Counter(prompt_for(settings, image_id, 1, [], []) for image_id in range(400))
    assert set(first) == set(scenes)
    assert all(70 <= count <= 130 for count in first.values())


def test_class_names_in_one_order() -> None:
    settings = RecipeConfig(prompt="class_names")
    assert prompt_for(settings, 7, 1, [], ["dog", "cat", "dog"]) == "A photo of cat, dog"
    assert prompt_for(settings, 7, 2, [], ["cat", "dog"]) == "A photo of cat, dog"


@pytest.mark.parametrize(
    ("kind", "needed"), [("caption", "train_captions"), ("class_names", "class name")]
)
def test_what_is_missing_is_said(kind: str, needed: str) -> None:
    with pytest.raises(PromptError, match=f"recipe.prompt='{kind}'.*{needed}"):
        prompt_for(RecipeConfig(prompt=kind), 7, 1, [" "], [""])


def test_object_prompts() -> None:
    settings = RecipeConfig(target="objects", object_prompt="{x} {class_name}, {class_name}!")
    assert object_prompt(RecipeConfig(), "traffic  light") == "A photo of a traffic light"
    assert object_prompt(settings, "{cat}") == "{x} {cat}, {cat}!"  # braces of others stay
    with pytest.raises(PromptError, match="recipe.target='objects'.*class names"):
        object_prompt(settings, " ")


def test_blank_scenes_are_none() -> None:
    with pytest.raises(PromptError, match="recipe.scenes"):
        prompt_for(RecipeConfig(prompt="scene", scenes=[" "]), 7, 1, [], [])


def test_the_original_has_no_prompt() -> None:
    with pytest.raises(ValueError, match="variant=0"):
        prompt_for(RecipeConfig(), 7, 0, [], [])
