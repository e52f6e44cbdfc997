"""Reading runs: arithmetic, costs, refusals; and the table of whatever runs there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.errors import ReportError
from bgaug_d2.report.cells import compare_cells
from bgaug_d2.report.markdown import to_markdown
from bgaug_d2.report.plan_from_runs import plan_of_runs
from bgaug_d2.report.runs import BACKGROUNDS, load_runs


def write_run(folder: Path, name: str, seed: int, box: float | None, **fields: Any) -> Path:
    run = folder / f"{name}_{seed}"
    run.mkdir(parents=True)
    metrics = {"bbox": {"AP": box, "AP50": 2.0, "AP75": 1.0, "per_class": {"disc": None}}}
    content = {"name": name, "seed": seed, "iterations": 9, "metrics": metrics, **fields}
    (run / "results.json").write_text(json.dumps(content))
    return run


def workers(painted: int, uptime_s: float) -> dict[str, Any]:
    return {"workers": [{"counts": {"painted": painted}, "uptime_s": uptime_s}] * 2}


def test_hours_count_every_process_before_and_while_training(tmp_path: Path) -> None:
    training = {"wall_s": 1800.0}
    run = write_run(
        tmp_path, "a", 0, 1.0, training=training, training_processes=4, workers=workers(3, 900.0)
    )
    earlier = [{"workers": workers(1, 1800.0)}]
    report = {"workers": workers(10, 3600.0), "earlier": earlier}
    (run / "generate_report.json").write_text(json.dumps(report))
    (found,) = load_runs(tmp_path)
    assert (found.training_hours, found.painted, found.painting_hours) == (2.0, 28, 3.5)


def test_pictures_from_a_cache_that_nobody_reports_on_are_not_counted_as_none(
    tmp_path: Path,
) -> None:
    shown = {"outcomes": {"hit": 5}, "training": {"wall_s": 36.0}, "training_processes": 1}
    write_run(tmp_path, "a", 0, 1.0, **shown)
    (found,) = load_runs(tmp_path)
    assert (found.painted, found.painting_hours) == (None, None)
    text = to_markdown(plan_of_runs([found]), [found], {})
    assert text.partition("## What it cost")[2].count("| a | 1 | 9 | 0.01 | – | – |") == 1


def test_a_run_has_its_ap_by_background_ratio(tmp_path: Path) -> None:
    bins = [{"AP": None}, {"AP": 20.0}, {"AP": 30.0}, {"AP": 40.0}]
    write_run(tmp_path, "a", 0, 1.0, breakdown={"bbox": {"background": bins}})
    runs = load_runs(tmp_path)
    assert {name: runs[0].metrics["bbox"].get(name) for name in BACKGROUNDS} == {
        "APbg0": None,
        "APbg1": 20.0,
        "APbg2": 30.0,
        "APbg3": 40.0,
    }
    text = to_markdown(plan_of_runs(runs), runs, {})
    (header,) = [each for each in text.splitlines() if each.startswith("| cell | seeds")]
    assert "background 50-75 % | background 75-90 % | background 90-100 % |" in header
    assert "background 0-50 %" not in header  # no image of the test set is there


def test_an_evaluation_alone_has_no_hours(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, 1.0, training=None, workers=None)
    (found,) = load_runs(tmp_path)
    assert (found.training_hours, found.painted, found.painting_hours) == (None, 0, 0.0)


def test_every_arm_is_compared_with_the_baseline_of_its_benchmark(tmp_path: Path) -> None:
    names = ("toy-baseline", "toy-replace", "toy-replace-D25", "toy_big-baseline", "toy_big-expand")
    for place, name in enumerate((*names, "alone", "longer")):
        write_run(tmp_path, name, 0, 10.0 + place, iterations=99 if name == "longer" else 9)
    runs = load_runs(tmp_path)
    plan = plan_of_runs(runs)
    rows = [compare_cells(plan, table, runs) for table in plan.tables]
    found = [[(row.cell, row.baseline) for row in table] for table in rows]
    assert found == [
        [
            ("toy-baseline", None),
            ("toy-replace", "toy-baseline"),
            ("toy-replace-D25", "toy-baseline"),
        ],
        [("toy_big-baseline", None), ("toy_big-expand", "toy_big-baseline")],
        [("alone", None)],
        [("longer", None)],
    ]
    by_cell = {row.cell: row for table in rows for row in table}
    difference = by_cell["toy-replace-D25"].differences["box AP"]
    assert difference is not None
    assert difference.difference.mean == 2.0


def test_a_trial_is_compared_with_the_baseline_of_the_trial(tmp_path: Path) -> None:
    names = ("own_coco-baseline", "own_coco-expand")
    for name in (*names, *(f"{name}-smoke" for name in names)):
        write_run(tmp_path, name, 0, 10.0)
    tables = plan_of_runs(load_runs(tmp_path)).tables
    assert [table.pairs for table in tables] == [
        {"own_coco-expand": "own_coco-baseline"},
        {"own_coco-expand-smoke": "own_coco-baseline-smoke"},
    ]


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "toy-baseline", 0, 1.0)
    write_run(tmp_path / "b", "toy-baseline", 0, 1.0)
    with pytest.raises(ReportError, match="second run of toy-baseline with seed 0"):
        load_runs(tmp_path)


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ReportError, match=r"results\.json is no results"):
        load_runs(tmp_path)
