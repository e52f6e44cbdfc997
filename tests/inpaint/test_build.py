from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bgaug_d2.benchmarks.random_model import write_random_model
from bgaug_d2.errors import ModelError
from bgaug_d2.inpaint import build
from bgaug_d2.inpaint.build import build_engine
from bgaug_d2.inpaint.model.identity import digest_model
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from bgaug_d2.painting.finish import finish
from bgaug_d2.painting.prepare import prepare
from tests.helpers.factories import make_job, objects_of, source_of, tiny_coco
from tests.helpers.tiny_models import IDENTITY, drain, make_request, tiny_folder


def _options(**changes: Any) -> dict[str, Any]:
    options = {
        "model_path": str(tiny_folder()),
        "identity": asdict(IDENTITY),
        "device": "cpu",
        "dtype": "float32",
        "max_batch_rows": 2,
    }
    return json.loads(json.dumps(options | changes))


def test_engine_from_json_options_paints() -> None:
    engine = build_engine(_options())
    assert engine.max_batch_rows == 2
    assert engine.model.identity == IDENTITY
    engine.probe()
    engine.submit(make_request())
    (result,) = drain(engine).values()
    assert result.error is None
    assert result.image is not None
    assert result.image.shape == (64, 64, 3)


@pytest.mark.parametrize("rows", [0, None])
def test_rows_nought_means_eight_on_a_cpu(rows: int | None) -> None:
    assert build_engine(_options(max_batch_rows=rows)).max_batch_rows == 8


def test_missing_and_unknown_options_are_named() -> None:
    options = _options(bach_size=3)
    del options["dtype"]
    with pytest.raises(ModelError, match=r"missing \['dtype'\], unknown \['bach_size'\]"):
        build_engine(options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_an_absent_gpu_is_a_clear_error() -> None:
    with pytest.raises(ModelError, match="device='cuda:0', but torch finds no usable GPU"):
        build_engine(_options(device="cuda:0"))


def test_auto_dtype_must_be_resolved_before() -> None:
    with pytest.raises(ModelError, match="dtype='auto' is not allowed"):
        build_engine(_options(dtype="auto"))


def test_threads_are_set_for_the_process_only_when_asked() -> None:
    script = (
        "import json, sys, torch\n"
        "torch.set_num_threads(2)\n"
        "from bgaug_d2.inpaint.build import build_engine\n"
        "options = json.loads(sys.argv[1])\n"
        "seen = [torch.get_num_threads()]\n"
        "for threads in (None, 1):\n"
        "    build_engine(options | {'threads': threads})\n"
        "    seen.append(torch.get_num_threads())\n"
        "print(seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(_options())],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.strip() == "[2, 2, 1]"
    assert (
        done.stderr == ""
    )  # no progress bars, no warnings: a worker's last line is shown to users


def test_random_model_is_small_reproducible_and_says_that_it_is_random(tmp_path: Path) -> None:
    folder = tiny_folder()
    write_random_model(tmp_path / "again")
    assert digest_model(folder) == digest_model(tmp_path / "again")
    write_random_model(tmp_path / "other", seed=1)
    assert digest_model(folder) != digest_model(tmp_path / "other")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4_000_000
    assert "RANDOM WEIGHTS" in (folder / "README.md").read_text()
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_random_models_tokenizer_keeps_every_character_apart() -> None:
    tokenizer = load_model(tiny_folder(), "cpu", "float32", IDENTITY).prompts._tokenizer
    for text in ("Generate a clean background", "straße, 東京", "x" * 300, ""):
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert len(ids) == 77
        assert ids[0] == 512
        assert ids[-1] == 513
    words = [tokenizer(text).input_ids for text in ("cat", "act", "ca t")]
    assert len({tuple(ids) for ids in words}) == 3
    assert [len(ids) for ids in words] == [5, 5, 5]


@pytest.mark.parametrize("unet_channels", [4, 9])
@pytest.mark.parametrize("resolution", [64, 128])
def test_tiny_pictures_of_photographs_pass_the_quality_check(
    tiny_coco_root: Path, unet_channels: int, resolution: int
) -> None:
    engine = build_engine(_options(model_path=str(tiny_folder(unet_channels)), max_batch_rows=4))
    prepared = {}
    for record, objects, path in islice(tiny_coco(tiny_coco_root), 6):
        job = make_job(
            source_of(path, tiny_coco_root, record["id"]),
            objects_of(objects, record["id"]),
            resolution=resolution,
            num_inference_steps=10,
        )
        item = prepare(job, tiny_coco_root)
        prepared[item.request().request_id] = item
        engine.submit(item.request())
    assert len(prepared) == 6
    while engine.pending:
        for result in engine.poll():
            assert result.image is not None
            finished = finish(prepared[result.request_id], result.image)
            assert finished.rejected is None, finished.qc
            source = prepared[result.request_id]
            kept = source.masks.object_mask
            np.testing.assert_array_equal(finished.image[kept], source.source[kept])


def _options_to_compile(**changes: Any) -> dict[str, Any]:
    return _options(max_batch_rows=8, compile=128, **changes)


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_options_to_compile_reach_the_model(
    cuda_graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, bool]] = []

    def compiled(model: InpaintModel, *how: Any) -> InpaintModel:
        asked.append(how)
        return model

    monkeypatch.setattr(build, "compiled", compiled)
    build_engine(_options_to_compile(cuda_graphs=cuda_graphs))
    build_engine(_options(max_batch_rows=8))
    assert asked == [(8, 128, cuda_graphs)]


@pytest.mark.parametrize(("fits", "rows"), [(8, 8), (3, 2), (1, 1)])
def test_compiling_goes_on_with_fewer_rows_where_memory_is_short(
    fits: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(model: InpaintModel, tried: int, *_: Any) -> InpaintModel:
        if tried > fits:
            raise torch.OutOfMemoryError("no memory for these rows")
        return model

    monkeypatch.setattr(build, "compiled", compiled)
    assert build_engine(_options_to_compile()).max_batch_rows == rows


def test_compiling_where_not_one_row_fits_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(*_: Any) -> InpaintModel:
        raise torch.OutOfMemoryError("nothing fits")

    monkeypatch.setattr(build, "compiled", compiled)
    with pytest.raises(torch.OutOfMemoryError, match="nothing fits"):
        build_engine(_options_to_compile())
