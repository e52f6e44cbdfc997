"""The ceiling: backgrounds that are drawn, not painted, through the same worker and cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from bgaug_d2.config.bgaug import BgAugConfig, InpainterConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.toy.drawing_engine import build_drawing_engine, identify_drawing
from bgaug_d2.errors import ConfigError
from bgaug_d2.inpaint.model.identity import identify
from bgaug_d2.worker.start import painting_without_workers, painting_workers
from tests.helpers.tiny_models import make_request
from tests.helpers.tool_runs import smoke, tool


def test_only_the_background_is_new_and_seeds_decide_it() -> None:
    engine = build_drawing_engine({"model_path": "nowhere"})
    requests = [make_request(f"a/{seed}", seed=seed) for seed in (1, 2, 1)]
    for request in requests:
        engine.submit(request)
    assert engine.pending == 3
    images = []
    while engine.pending:
        (result,) = engine.poll()
        assert result.error is None
        images.append(result.image)
    assert engine.poll() == []
    background = requests[0].painted_mask
    for image in images:
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image[~background], requests[0].image[~background])
        assert np.mean(image[background] != requests[0].image[background]) > 0.9
    np.testing.assert_array_equal(images[0], images[2])
    assert np.mean(images[0][background] != images[1][background]) > 0.9


@pytest.mark.parametrize("target", ["objects", "objects_and_background"])
def test_it_draws_no_objects(target: str, tmp_path: Path) -> None:
    inpainter = InpainterConfig(engine="toy_backgrounds")
    settings = BgAugConfig(recipe=RecipeConfig(target=target))
    with (
        pytest.raises(ConfigError, match=f"draws backgrounds only, .*'{target}'"),
        painting_workers(settings, inpainter, str(tmp_path)),
    ):
        pass
    with pytest.raises(ConfigError, match="inpainter=tiny"):
        painting_without_workers(settings, inpainter, str(tmp_path), identify_drawing(inpainter)[0])


def test_it_is_an_inpainter_of_its_own(tmp_path: Path) -> None:
    drawing, _ = identify_drawing(InpainterConfig())
    tiny, _ = identify(InpainterConfig(model="tiny"))
    assert drawing.sha256 != tiny.sha256
    # Literal, because it is part of every key.
    assert (drawing.id, drawing.revision, drawing.license) == ("toy_backgrounds", "1", "Apache-2.0")
    assert drawing.sha256 == hashlib.sha256(b"toy_backgrounds 1").hexdigest()
    arguments = smoke(tmp_path, "toy-expand", "inpainter.engine=toy_backgrounds")
    done = tool("generate", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "generate_report.json").read_text())
    assert report["counts"]["painted"] == report["total"] == 8
