"""The engines by name, and which inpainter may paint what.

``ENGINES`` is the one place that knows the engines apart. The builder is a string, so that torch
and diffusers are imported in the painting process only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bgaug_d2.config.bgaug import InpainterConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.toy.drawing_engine import identify_drawing
from bgaug_d2.errors import ConfigError
from bgaug_d2.inpaint.model.identity import TINY, identify
from bgaug_d2.jobs.job import ModelIdentity

_CHOICES = (
    "choose inpainter=sd21_base, sd2_inpainting or sd_turbo (they are fetched from the hub), "
    "inpainter=local inpainter.model=FOLDER for a folder in diffusers' layout, or inpainter=tiny "
    "for the toy world"
)


@dataclass(frozen=True)
class EngineKind:
    """An engine and how its model is found.

    Attributes:
        builder: ``module:callable``; with ``WorkerSpec.engine_options`` it makes a ``PaintEngine``.
        identify: Finds the model: its identity, which enters the cache key, and its folder.
        needs_model: Whether ``inpainter.model`` says what paints.
        paints_objects: False if it can only paint backgrounds.
        toy_only: Whether its pictures fit the toy world only, whatever the model.
    """

    builder: str
    identify: Callable[[InpainterConfig], tuple[ModelIdentity, Path]]
    needs_model: bool = True
    paints_objects: bool = True
    toy_only: bool = False


ENGINES = {
    "continuous": EngineKind("bgaug_d2.inpaint.build:build_engine", identify),
    "toy_backgrounds": EngineKind(
        "bgaug_d2.data.toy.drawing_engine:build_drawing_engine",
        identify_drawing,
        # It draws backgrounds of the toy world itself, and nothing else.
        needs_model=False,
        paints_objects=False,
        toy_only=True,
    ),
}


def check_inpainter(inpainter: InpainterConfig, toy_world: bool | None = None) -> None:
    """Refuse to paint without a model, or with a toy model on photographs.

    Call it before anything is painted or started: such pictures would be worthless.

    Args:
        inpainter: The choice.
        toy_world: Whether the data set is the toy world (``DatasetConfig.is_toy``); None where the
            caller does not know its data set.

    Raises:
        ConfigError: The sentence names the choices.
    """
    kind = ENGINES[inpainter.engine]
    if kind.needs_model and not inpainter.model:
        raise ConfigError(f"inpainter.model is empty, so nothing can paint; {_CHOICES}")
    # Where the data set is unknown (the library's entry), an explicit choice of a toy model stands.
    knows_toys_only = kind.toy_only or inpainter.model == TINY
    if knows_toys_only and toy_world is False and not inpainter.allow_toy_model:
        name = inpainter.engine if kind.toy_only else TINY
        raise ConfigError(
            f"the inpainter {name!r} knows the toy world only, and this data set has photographs; "
            f"{_CHOICES}; to test the machinery with worthless pictures set "
            "inpainter.allow_toy_model=true"
        )


def check_target(inpainter: InpainterConfig, recipe: RecipeConfig) -> None:
    """Refuse a recipe whose target the engine cannot paint.

    Raises:
        ConfigError: The recipe paints objects and the engine paints backgrounds only.
    """
    # Refused here, or every single job would fail later.
    if recipe.paints_objects and not ENGINES[inpainter.engine].paints_objects:
        raise ConfigError(
            f"inpainter.engine={inpainter.engine!r} draws backgrounds only, and "
            f"bgaug.recipe.target={recipe.target!r} wants objects; choose inpainter=tiny or "
            "target=background"
        )


def identify_inpainter(
    inpainter: InpainterConfig, toy_world: bool | None = None
) -> tuple[ModelIdentity, Path]:
    """Check the choice (``check_inpainter``), then find, and where needed fetch, what paints.

    Returns:
        The identity that enters the cache key, and the folder that the engine's builder reads.

    Raises:
        ConfigError: No inpainter is chosen, or a toy model for photographs.
        ModelError: The model cannot be found, fetched or read.
    """
    # First, because its message names the choices; `identify` knows only its own engine.
    check_inpainter(inpainter, toy_world)
    return ENGINES[inpainter.engine].identify(inpainter)
