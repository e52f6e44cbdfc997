"""The plan of the toy tables fits its experiments, and the tool that runs them works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bgaug_d2.report.plan import load_plan
from tests.helpers.tool_runs import CONFIGS, experiment_of, options_of, tool

PLAN = load_plan(CONFIGS / "toy_tables.yaml")
RESULTS = CONFIGS.parent / "docs" / "results"


def test_every_cell_is_an_experiment_and_every_experiment_a_cell() -> None:
    names = {each.removeprefix("toy_tables/") for each in options_of("experiment") if "/" in each}
    assert names == {*PLAN.cells, "plenty"}


@pytest.mark.parametrize("cell", PLAN.cells)
def test_cells_differ_in_nothing_but_what_they_are_about(cell: str) -> None:
    standard = experiment_of("experiment=toy_tables/standard", "seed=3")
    found = experiment_of(f"experiment=toy_tables/{cell}", "seed=3")
    assert found.name == cell
    assert found.output_dir == f"output/toy_tables/runs/{cell}/seed3"
    assert (found.schedule, found.detector) == (standard.schedule, standard.detector)
    assert found.dataset.toy == standard.dataset.toy
    assert found.dataset.toy.evaluate_on == "test"
    assert found.dataset.toy.seed == 3
    images = {"2x": 128, "4x": 256}.get(cell.rpartition("_")[2], 64)
    assert found.dataset.max_train_images == images
    assert found.bgaug.paints == (not cell.startswith(("standard", "duplicated")))


def test_the_ladder_adds_one_part_at_a_time() -> None:
    recipes = [
        experiment_of(f"experiment=toy_tables/{cell}").bgaug.recipe
        for cell in ("caption", "clean", "erosion", "adaptive")
    ]
    for before, after, changed in zip(
        recipes, recipes[1:], ("prompt", "erosion_kernel", "step_policy"), strict=False
    ):
        different = [key for key, value in vars(before).items() if value != vars(after)[key]]
        assert different == [changed]


@pytest.mark.slow
def test_the_tool_runs_audits_and_reports_what_is_missing(tmp_path: Path) -> None:
    chosen = ["--cells", "standard,adaptive,ceiling1", "--seeds", "0", "--jobs", "2"]
    small = ["debug=cpu_smoke", "suffix=", "dataset.toy.image_size=64"]
    done = tool("toy_tables", *chosen, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "output" / "toy_tables"
    report = (out / "toy.md").read_text()
    assert "| standard augmentation | 1 |" in report
    assert "| duplicated originals | 0, missing (1 of 1 seeds) |" in report
    assert "What is wrong with painted pictures" in report
    assert report.count("| caption |") == 1
    for image in ("ladder.png", "alpha.png", "size.png"):
        assert f"({image})" in report
        assert (out / image).stat().st_size > 5_000
    result = out / "runs" / "adaptive" / "seed0" / "results.json"
    assert json.loads(result.read_text())["outcomes"]["hit"] > 0
    before = result.stat().st_mtime_ns
    again = tool("toy_tables", *chosen, *small, cwd=tmp_path)
    assert again.returncode == 0
    assert "is done" not in again.stdout  # nothing was left to do
    assert result.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("report", "chosen"),
    [
        ("toy", []),
        ("toy_128", ["--plan", str(CONFIGS / "toy_128.yaml")]),
        ("toy_128_fresh", ["--plan", str(CONFIGS / "toy_128.yaml"), "--seeds", "5,6,7,8,9"]),
    ],
)
def test_the_reports_in_docs_are_what_the_runs_there_give(
    report: str, chosen: list[str], tmp_path: Path
) -> None:
    runs = tmp_path / "output" / "toy_tables" / "runs"
    shutil.copytree(RESULTS / "toy_runs", runs)
    for name in ("audit.json", "audit.md"):
        shutil.move(runs / name, runs.parent / name)
    done = tool("toy_tables", "--report-only", "--report", "again.md", *chosen, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tables = [
        path.read_text().partition("\n## ")[2]  # above it are machine and dates
        for path in (tmp_path / "again.md", RESULTS / f"{report}.md")
    ]
    assert tables[0] == tables[1]


def test_an_unknown_cell_is_told(tmp_path: Path) -> None:
    done = tool("toy_tables", "--cells", "standrad", cwd=tmp_path)
    assert done.returncode == 1
    assert "has no cell 'standrad'" in done.stderr
