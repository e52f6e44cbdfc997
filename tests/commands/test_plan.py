"""``bgaug plan``: what it shows, and what it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bgaug_d2.commands import plan
from bgaug_d2.report.plan import find_plan
from tests.helpers.tool_runs import bgaug

SMALL = ("debug=cpu_smoke", "dataset.toy.image_size=64", "bgaug.worker.max_batch_rows=2")


def test_costs_and_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--iteration-s", "0.2", "--images-per-s", "2", "--gpus", "8", "launch.num_gpus=8")
    plan.main(["table2", *given])
    shown = capsys.readouterr().out
    hours = 263_850 * 0.2 / 3600
    assert f"| Swin-T, standard aug. | 3 | 263850 | {3 * hours:.3g} | 0 | 0 | 0 |" in shown
    assert f"| Swin-T, background aug. | 3 | 263850 | {3 * hours:.3g} | 117,266 | 16.3 | ? |" in (
        shown
    )
    commands = [each.split() for each in shown.splitlines() if each.startswith("    bgaug")]
    assert [each[1] for each in commands] == ["plan", "paint", "train"]
    assert all("launch.num_gpus=8" in each for each in commands)
    assert commands[0] == ["bgaug", "plan", "table2", "--run", "launch.num_gpus=8"]
    assert "baseline" not in " ".join(commands[1])


def test_cells_seeds_and_folder_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    plan.main(["toy_tables", "--cells", "standard,D25", "--seeds", "3", "--out", "elsewhere"])
    shown = capsys.readouterr().out
    assert "bgaug plan toy_tables --run --seeds=3 --cells=standard,D25 --out=elsewhere" in shown
    trainings = [each for each in shown.splitlines() if each.startswith("    bgaug train")]
    assert len(trainings) == 2
    for line in trainings:
        assert " seed=3 " in line
        assert "output_dir=elsewhere/${name}/seed${seed}" in line.replace("'", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel1"], "no plan 'tabel1'; did you mean table1"),
        (["toy_tables", "--cells", "standrad"], "no cell 'standrad'; did you mean standard"),
        (["toy_tables", "--seeds", "17"], "no seed 17; it has 0, 1, 2, 3, 4"),
        (["table1", "bgaug.recpie.D=1"], "unknown key 'bgaug.recpie.D'"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        plan.main(arguments)
    assert message in str(caught.value.code)
    assert "\n" not in str(caught.value.code)


def small_plan(path: Path) -> Path:
    """The toy tables with three cells, one of them audited."""
    content = yaml.safe_load(find_plan("toy_tables").read_text())
    cells = ("standard", "adaptive", "ceiling1")
    content["cells"] = {cell: content["cells"][cell] for cell in cells}
    content["tables"] = [{"title": "Three", "cells": [*cells], "plot": "three.png"}]
    content["audit"]["cells"] = ["adaptive"]
    del content["plots"]
    # What a cell says itself wins over debug=cpu_smoke, so the audit's detector is made small here.
    content["audit"]["run"] = "benchmark=toy_tables arm=baseline dataset.root=other_world"
    path.write_text(yaml.safe_dump(content | {"folder": "runs"}))
    return path


@pytest.mark.slow
def test_what_is_missing_is_run_audited_and_reported(tmp_path: Path) -> None:
    path = str(small_plan(tmp_path / "small.yaml"))
    chosen = (path, "--run", "--cells", "standard,adaptive", "--seeds", "0", "--jobs", "2")
    done = bgaug("plan", *chosen, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "runs"
    report = (out / "small.md").read_text()
    assert "| standard augmentation | 1 |" in report
    assert "| ceiling: freshly drawn backgrounds, alpha = 1 | 0, missing (1 of 1 seeds) |" in report
    assert "What is wrong with painted pictures" in report
    assert report.count("| clean |") == 1
    assert (out / "three.png").stat().st_size > 5_000
    result = out / "adaptive" / "seed0" / "results.json"
    assert json.loads(result.read_text())["outcomes"]["hit"] > 0
    painted = json.loads((out / "adaptive" / "seed0" / "generate_report.json").read_text())
    assert painted["counts"]["painted"] > 0
    before = result.stat().st_mtime_ns
    again = bgaug("plan", *chosen, *SMALL, cwd=tmp_path)
    assert again.returncode == 0
    assert "training" not in again.stderr  # nothing was left to do
    assert result.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_ceiling_is_painted_without_a_model(tmp_path: Path) -> None:
    path = str(small_plan(tmp_path / "small.yaml"))
    one = (path, "--run", "--cells", "ceiling1", "--seeds", "0")
    done = bgaug("plan", *one, *SMALL, "inpainter.model=''", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "runs" / "ceiling1" / "seed0" / "results.json").read_text())
    assert results["inpainter"]["id"] == "toy_backgrounds"


@pytest.mark.slow
def test_table_4_runs_on_a_tree_of_vocs_layout(tmp_path: Path) -> None:
    chosen = ("table4", "--run", "--seeds", "0", "--out", "runs", "debug=miniature")
    done = bgaug("plan", *chosen, "dataset=toy_voc", "dataset.root=voc", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "runs" / "table4.md").read_text()
    for arm in ("standard aug.", "RandAugment", "background aug.", "copy-paste"):
        (line,) = [
            each
            for each in report.partition("## What it cost")[0].splitlines()
            if each.startswith(f"| Faster R-CNN, {arm} |")
        ]
        assert line.split("|")[2].strip() == "1"
        assert line.count("–") < line.count("|")
    assert (tmp_path / "runs" / "table4_retinanet.png").is_file()
