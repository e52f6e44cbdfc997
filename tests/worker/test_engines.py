"""Which engines there are, and what nobody is allowed to paint with."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from bgaug_d2.config import bgaug
from bgaug_d2.config.bgaug import InpainterConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import ConfigError
from bgaug_d2.worker.engines import ENGINES, check_inpainter, check_target, identify_inpainter


def test_the_table_has_the_engines_that_the_settings_allow() -> None:
    assert tuple(ENGINES) == bgaug.ENGINES


@pytest.mark.parametrize("name", ENGINES)
def test_every_builder_is_there(name: str) -> None:
    module, _, function = ENGINES[name].builder.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("toy_world", [True, False, None])
def test_painting_without_a_model_is_refused(toy_world: bool | None) -> None:
    with pytest.raises(ConfigError, match="inpainter.model is empty") as caught:
        check_inpainter(InpainterConfig(), toy_world)
    for choice in ("sd21_base", "sd2_inpainting", "sd_turbo", "inpainter.model=FOLDER", "tiny"):
        assert choice in str(caught.value)
    with pytest.raises(ConfigError, match="inpainter.model is empty"):
        identify_inpainter(InpainterConfig())


@pytest.mark.parametrize("choice", [{"model": "tiny"}, {"engine": "toy_backgrounds"}])
def test_a_toy_model_is_for_the_toy_world(choice: dict[str, str]) -> None:
    check_inpainter(InpainterConfig(**choice), toy_world=True)
    check_inpainter(InpainterConfig(**choice, allow_toy_model=True), toy_world=False)
    name = next(iter(choice.values()))
    with pytest.raises(ConfigError, match=f"{name!r} knows the toy world only") as caught:
        check_inpainter(InpainterConfig(**choice), toy_world=False)
    assert "inpainter=sd21_base" in str(caught.value)
    assert "inpainter.allow_toy_model=true" in str(caught.value)


@pytest.mark.parametrize("toy_world", [True, False])
def test_any_other_model_may_paint_everything(toy_world: bool) -> None:
    check_inpainter(InpainterConfig(model="someone/a-model"), toy_world)


def test_the_engine_decides_what_is_identified() -> None:
    tiny, folder = identify_inpainter(InpainterConfig(model="tiny"))
    drawing, _ = identify_inpainter(InpainterConfig(model="tiny", engine="toy_backgrounds"))
    assert (tiny.id, drawing.id) == ("tiny", "toy_backgrounds")
    assert (folder / "unet").is_dir()


def test_only_backgrounds_can_be_drawn() -> None:
    objects = RecipeConfig(target="objects")
    check_target(InpainterConfig(model="tiny"), objects)
    check_target(InpainterConfig(engine="toy_backgrounds"), RecipeConfig())
    with pytest.raises(ConfigError, match="draws backgrounds only"):
        check_target(InpainterConfig(engine="toy_backgrounds"), objects)


def test_a_mistake_is_found_before_torch_is_imported() -> None:
    code = (
        "import sys\nfrom bgaug_d2.worker import client, engines, painter_info\n"
        "print([m for m in ('torch', 'detectron2', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
