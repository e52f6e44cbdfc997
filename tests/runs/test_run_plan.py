"""Which runs a plan misses, what they are started with, and what paints together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bgaug_d2.errors import ReportError
from bgaug_d2.report.plan import ResultsPlan, find_plan
from bgaug_d2.report.plan_file import load_plan
from bgaug_d2.runs import run_plan as module
from bgaug_d2.runs.run_plan import compose_cell, missing_runs, run_plan
from bgaug_d2.runs.side_by_side import ProcessTask


@pytest.fixture
def plan(tmp_path: Path) -> ResultsPlan:
    toy = load_plan(find_plan("toy_tables"))
    return replace(toy, seeds=(0, 1), folder=str(tmp_path / "runs"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[ProcessTask]]]:
    """What would have been started, by the text of its progress bar."""
    calls = []

    def record(tasks: Sequence[ProcessTask], jobs: int, text: str, unit: str) -> None:
        calls.append((f"{text} {jobs}", list(tasks)))

    monkeypatch.setattr(module, "run_side_by_side", record)
    return calls


def finish(plan: ResultsPlan, cell: str, seed: int) -> None:
    folder = Path(plan.folder) / cell / f"seed{seed}"
    folder.mkdir(parents=True)
    (folder / "results.json").touch()


def test_what_is_finished_is_left_out_and_seeds_come_in_turn(plan: ResultsPlan) -> None:
    finish(plan, "standard", 0)
    runs = missing_runs(plan, ["standard", "D25"])
    assert [run.title for run in runs] == ["D25, seed 0", "standard, seed 1", "D25, seed 1"]
    assert runs[2].experiment.dataset.root == "output/toy_tables/worlds/seed1"
    assert runs[2].folder == Path(plan.folder) / "D25" / "seed1"
    assert runs[2].arguments[-2:] == ("seed=1", f"output_dir={runs[2].folder}")


def test_an_unknown_cell_is_named(plan: ResultsPlan) -> None:
    with pytest.raises(ReportError, match="no cell 'stndard'; did you mean standard"):
        missing_runs(plan, ["stndard"])


def test_arguments_given_win_over_the_plans(plan: ResultsPlan) -> None:
    (run,) = compose_cell(plan, "D25", ["schedule.iterations=5"], [1])
    assert (run.experiment.schedule.iterations, run.experiment.bgaug.recipe.D) == (5, 0.25)
    assert run.experiment.name == "D25"
    smoke = compose_cell(plan, "D25", ["debug=cpu_smoke"], [1])[0].experiment
    assert smoke.name == "D25"  # so that the table finds it


def test_runs_that_share_a_cache_paint_in_one_process(
    plan: ResultsPlan, started: list[tuple[str, list[ProcessTask]]]
) -> None:
    run_plan(plan, 3, ["standard", "D25", "D75"])
    (painting, paints), (training, trainings) = started
    assert (painting, training) == ("painting 1", "training 3")
    assert [each.name for each in paints] == [
        f"painting into output/toy_tables/cache/seed{seed}" for seed in (0, 1)
    ]
    orders = json.loads(Path(paints[1].command[-1]).read_text())
    assert [[each for each in run if each.startswith("name=")] for run in orders] == [
        ["name=D25"],
        ["name=D75"],
    ]
    assert all("seed=1" in run for run in orders)
    assert len(trainings) == 6
    assert trainings[0].command[2:4] == ("bgaug_d2.commands.main", "train")
    assert trainings[0].command[-1] == "resume=true"


def test_an_audit_paints_apart_and_looks_with_a_detector_of_its_own(
    plan: ResultsPlan, started: list[tuple[str, list[ProcessTask]]]
) -> None:
    for cell in plan.cells:
        for seed in plan.seeds:
            finish(plan, cell, seed)
    run_plan(plan)
    nothing, nothing_either, (_, paints), (_, trainings), (_, audits) = started
    assert nothing[1] == nothing_either[1] == []
    orders = json.loads(Path(paints[0].command[-1]).read_text())
    assert len(orders) == 4
    cache = f"{plan.folder}/audit/cache"
    for run in orders:
        assert {"bgaug.recipe.paste_back=false", f"bgaug.cache.dir={cache}", "seed=0"} < set(run)
    (training,) = trainings
    assert training.name == "plenty, seed 0"
    (audit,) = audits
    world = "output/toy_tables/worlds/seed0"
    assert audit.command[3:] == (
        *("audit", f"{plan.folder}/plenty/seed0", "--cache", cache, "--image-root", world),
        *("--annotations", f"{world}/annotations/instances_train.json"),
        *("--out", f"{plan.folder}/audit.json"),
    )


def test_a_part_of_the_cells_is_not_audited(
    plan: ResultsPlan, started: list[tuple[str, list[ProcessTask]]]
) -> None:
    run_plan(plan, cells=["standard"])
    assert len(started) == 2
    Path(plan.folder).mkdir(exist_ok=True)
    (Path(plan.folder) / "audit.json").touch()
    run_plan(plan)
    assert len(started) == 4  # it is there already


def test_an_audit_needs_cocos_format(plan: ResultsPlan) -> None:
    experiment = compose_cell(plan, "D25", ["dataset=toy_voc"], [0])[0].experiment
    with pytest.raises(ReportError, match="annotations in COCO's format"):
        module._training_images(experiment)
