"""Reports of plans: pairing, tests, what is missing, plan errors, plots."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import pytest
import yaml

from bgaug_d2.errors import ReportError
from bgaug_d2.report.cells import cell_difference, compare_cells, mean_of
from bgaug_d2.report.long_table import COLUMNS, long_table, values_by_seed
from bgaug_d2.report.markdown import to_markdown
from bgaug_d2.report.plan import ResultsPlan
from bgaug_d2.report.plan_file import load_plan
from bgaug_d2.report.plots import WIDTH, draw_differences, draw_series, write_plots
from bgaug_d2.report.runs import Run, load_runs
from bgaug_d2.report.statistics import Interval, holm, paired_test

PLAN = """
title: "The toy experiment"
folder: output/toy
seeds: [0, 1, 2]
baseline: standard
cells:
  standard: {title: "standard augmentation", run: "benchmark=toy"}
  duplicated: {title: "duplicated | originals", run: "benchmark=toy arm=duplicate"}
  adaptive: {title: "adaptive steps", run: "benchmark=toy arm=expand"}
  standard_2x: {title: "standard, 2x images", run: "dataset.max_train_images=128"}
  adaptive_2x: {title: "adaptive, 2x images", run: "benchmark=toy"}
tables:
  - title: "Steps"
    cells: [standard, duplicated, adaptive]
    text: "What the steps do."
    plot: steps.png
  - title: "Size"
    cells: [standard, adaptive, standard_2x, adaptive_2x]
    pairs: {adaptive_2x: standard_2x}
plots:
  - title: "Copies"
    file: copies.png
    x: [0, 1]
    series: {duplicated: [standard, duplicated], painted: [standard, adaptive]}
    metrics: [box AP, box APs, mask AP]
    xlabel: "copies per image"
"""
STANDARD, DUPLICATED, ADAPTIVE = [40.0, 41.0, 45.0], [41.0, 41.5, 45.0], [43.0, 46.0, 47.5]


def write_runs(
    folder: Path, cell: str, box: dict[int, float], mask: bool = True, iterations: int = 9
) -> None:
    """A ``results.json`` a seed; mask AP is half of box AP, the sizes 1, 2 and 3 below it."""
    for seed, value in box.items():
        sizes = {"APs": value - 1, "APm": value - 2, "APl": value - 3}
        metrics = {"bbox": {"AP": value, "AP50": 50.0, **sizes, "per_class": {"disc": None}}}
        if mask:
            metrics["segm"] = {"AP": value / 2}
        run = folder / cell / f"seed{seed}"
        run.mkdir(parents=True)
        content = {"name": cell, "seed": seed, "iterations": iterations, "metrics": metrics}
        (run / "results.json").write_text(json.dumps(content))


@pytest.fixture
def plan(tmp_path: Path) -> ResultsPlan:
    return plan_of(tmp_path, PLAN)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    boxes = {"standard": STANDARD, "duplicated": DUPLICATED, "adaptive": ADAPTIVE}
    for cell, values in boxes.items():
        write_runs(tmp_path / "runs", cell, dict(enumerate(values)))
    return load_runs(tmp_path / "runs")


def plan_of(folder: Path, text: str) -> ResultsPlan:
    path = folder / "plan.yaml"
    path.write_text(text)
    return load_plan(path)


def line_of(markdown: str, start: str) -> list[str]:
    tables = markdown.partition("## What it cost")[0]
    (line,) = [each for each in tables.splitlines() if each.startswith(f"| {start} |")]
    return [each.strip() for each in line.replace("\\|", "/").strip("| ").split("|")]


def test_differences_are_paired_and_holm_counts_the_cells_of_the_table(
    plan: ResultsPlan, runs: list[Run]
) -> None:
    standard, duplicated, adaptive = compare_cells(plan, plan.tables[0], runs)
    raw = [paired_test(STANDARD, values).p for values in (DUPLICATED, ADAPTIVE)]
    assert (standard.p, duplicated.p, adaptive.p) == (None, *holm(raw))
    assert adaptive.p == pytest.approx(2 * raw[1])  # the smaller of two tests
    assert standard.differences == {"box AP": None, "mask AP": None}
    difference = adaptive.differences["box AP"]
    assert difference is not None
    assert difference.difference.mean == pytest.approx(3.5)
    assert adaptive.means["box APl"].interval.mean == pytest.approx(45.5 - 3)


def test_only_common_seeds_are_paired_and_the_mean_keeps_the_rest(
    plan: ResultsPlan, tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs", "standard", {0: 40.0, 2: 45.0})
    write_runs(tmp_path / "runs", "adaptive", {0: 42.0, 1: 99.0})
    runs = load_runs(tmp_path / "runs")
    test = cell_difference(plan, runs, "adaptive", "standard")
    assert test is not None
    assert (test.difference, test.p, test.count) == (Interval(2.0, None, None), None, 1)
    line = line_of(to_markdown(plan, runs, {}), "duplicated \\| originals")
    assert line[1] == "0, missing (3 of 3 seeds)"
    assert set(line[2:]) == {"–"}
    rows = compare_cells(plan, plan.tables[0], runs)
    assert [row.found for row in rows] == [(0, 2), (), (0, 1)]
    text = to_markdown(plan, runs, {})
    assert "| 2, missing (1 of 3 seeds) | 70.50 [" in text
    assert "| +2.00 (1 pair) | – |" in text


def test_a_pair_replaces_the_baseline_and_is_not_tested_itself(
    plan: ResultsPlan, runs: list[Run], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs", "standard_2x", {0: 50.0, 1: 51.0, 2: 52.0})
    write_runs(tmp_path / "runs", "adaptive_2x", {0: 51.0, 1: 53.0, 2: 55.0})
    rows = compare_cells(plan, plan.tables[1], load_runs(tmp_path / "runs"))
    by_name = {row.cell: row for row in rows}
    assert [row.baseline for row in rows] == [None, "standard", None, "standard_2x"]
    assert by_name["adaptive_2x"].differences["box AP"].difference.mean == pytest.approx(2.0)
    text = to_markdown(plan, load_runs(tmp_path / "runs"), {})
    assert (
        "Baselines: *standard augmentation* of *adaptive steps*; *standard, 2x images* of "
        "*adaptive, 2x images*." in text
    )


def test_difference_of_two_given_cells_has_the_sign_of_the_first(
    plan: ResultsPlan, runs: list[Run]
) -> None:
    test = cell_difference(plan, runs, "adaptive", "duplicated", "mask AP")
    assert test is not None
    assert test.difference.mean == pytest.approx((136.5 - 127.5) / 3 / 2)
    assert cell_difference(plan, runs, "adaptive", "standard_2x") is None
    with pytest.raises(ReportError, match="'adaptve' is no cell"):
        cell_difference(plan, runs, "adaptve", "standard")
    with pytest.raises(ReportError, match="'AP' is no metric"):
        cell_difference(plan, runs, "adaptive", "standard", "AP")


def test_the_long_table_has_a_row_per_run_and_metric(plan: ResultsPlan, runs: list[Run]) -> None:
    table = long_table(runs)
    assert list(table.columns) == COLUMNS
    row = table[(table["cell"] == "adaptive") & (table["seed"] == 1) & (table["task"] == "segm")]
    assert row[["metric", "value"]].values.tolist() == [["AP", 23.0]]
    assert row["run"].item().endswith("adaptive/seed1")
    values = values_by_seed(plan, [*runs, Run("standard", 7, 9, {"bbox": {"AP": 1.0}})])
    assert list(values.index) == [0, 1, 2]
    assert values["standard", "box AP"].tolist() == STANDARD
    assert values["standard_2x", "box AP"].isna().all()


def test_a_cell_is_named_after_what_is_run(tmp_path: Path) -> None:
    content = yaml.safe_load(PLAN)
    content["cells"] |= {"toy-expand": "one", "toy-expand-D25": "two"}
    plan = plan_of(tmp_path, yaml.safe_dump(content))
    assert plan.cells["toy-expand"].arguments == ("benchmark=toy", "arm=expand")
    assert plan.cells["toy-expand-D25"].arguments[2:] == ("ablation=D25",)


def test_an_audit_is_read(tmp_path: Path) -> None:
    audit = {"detector": "d", "run": "benchmark=toy", "seed": 0, "cells": ["adaptive"], "text": "T"}
    content = {**yaml.safe_load(PLAN), "audit": audit}
    plan = plan_of(tmp_path, yaml.safe_dump(content))
    assert plan.audit is not None
    assert (plan.audit.run, plan.audit.overrides) == (("benchmark=toy",), ())
    content["audit"]["cells"] = ["adaptve"]
    with pytest.raises(ReportError, match="did you mean adaptive"):
        plan_of(tmp_path, yaml.safe_dump(content))


def test_markdown_shows_every_number_once_computed(plan: ResultsPlan, runs: list[Run]) -> None:
    text = to_markdown(plan, runs, {"command": "tools/x | tee", "commit": "abc"})
    assert "| command | tools/x \\| tee |" in text
    assert "Each cell of the experiment was to be trained with 3 seeds (0, 1, 2)." in text
    steps = text[text.index("## Steps") : text.index("## Size")]
    line = line_of(steps, "adaptive steps")
    assert line[1:4] == ["3", "45.50 [39.81, 51.19]", "+3.50 [+0.21, +6.79]"]
    assert line[4] == "0.089"  # t = 3.5 / (1.3229 / sqrt(3)) with 2 degrees: twice 0.0445
    assert line[5] == "22.75 [19.90, 25.60]"
    assert line[7:] == ["44.50", "43.50", "42.50"]
    order = ["# The toy", "| command", "## Steps", "What the steps do.", "![Steps](steps.png)"]
    places = [text.index(each) for each in [*order, "## Size", "![Copies](copies.png)"]]
    assert places == sorted(places)


def test_a_metric_that_a_run_lacks_is_counted_out(plan: ResultsPlan, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", "standard", {0: 40.0})
    write_runs(tmp_path / "runs", "standard", {1: 41.0, 2: 42.0}, mask=False)
    write_runs(tmp_path / "runs", "adaptive", {0: float("nan")})
    runs = load_runs(tmp_path / "runs")
    assert "| 20.00 (1 seed) |" in to_markdown(plan, runs, {})
    assert mean_of(values_by_seed(plan, runs), "adaptive", "box AP") is None


def test_runs_of_unequal_length_do_not_compare(plan: ResultsPlan, runs: list[Run]) -> None:
    longer = Run("standard_2x", 0, 18, runs[0].metrics)
    unequal = [*runs, longer]
    assert compare_cells(plan, plan.tables[0], unequal) == compare_cells(plan, plan.tables[0], runs)
    with pytest.raises(ReportError, match="9 iterations but standard_2x .* 18"):
        compare_cells(plan, plan.tables[1], unequal)
    with pytest.raises(ReportError, match="9 iterations but standard_2x .* 18"):
        cell_difference(plan, unequal, "standard", "standard_2x")
    plot = dataclasses.replace(plan.plots[0], series={"size": ("standard", "standard_2x")})
    with pytest.raises(ReportError, match="9 iterations but standard_2x .* 18"):
        draw_series(plan, plot, unequal)


def test_a_baseline_outside_the_table_must_have_the_same_length_too(tmp_path: Path) -> None:
    content = yaml.safe_load(PLAN)
    content["tables"] = [{"title": "One", "cells": ["adaptive"]}]
    plan = plan_of(tmp_path, yaml.safe_dump(content))
    write_runs(tmp_path / "runs", "adaptive", {0: 1.0})
    write_runs(tmp_path / "runs", "standard", {0: 1.0}, iterations=10)
    with pytest.raises(ReportError, match="standard"):
        compare_cells(plan, plan.tables[0], load_runs(tmp_path / "runs"))


def test_runs_outside_the_plan_do_not_count_and_are_named(
    plan: ResultsPlan, runs: list[Run], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs", "standard", {7: 0.0}, iterations=1)
    write_runs(tmp_path / "runs", "draft", {0: 0.0})
    more = load_runs(tmp_path / "runs")
    assert compare_cells(plan, plan.tables[0], more) == compare_cells(plan, plan.tables[0], runs)
    last = to_markdown(plan, more, {}).splitlines()[-1]
    assert last.endswith("left out: draft, standard (seed 7).")
    for name in "abcdef":
        write_runs(tmp_path / "runs", name, {0: 0.0})
    last = to_markdown(plan, load_runs(tmp_path / "runs"), {}).splitlines()[-1]
    assert last.endswith("left out: a, b, c, d, draft, 2 more names, standard (seed 7).")


def test_plots_are_small_and_as_wide_as_promised_even_without_runs(
    plan: ResultsPlan, runs: list[Run], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs", "standard_2x", {0: 40.0}, mask=False)
    for there in (runs, [], load_runs(tmp_path / "runs")):
        paths = write_plots(plan, there, tmp_path / "plots")
        assert [path.name for path in paths] == ["steps.png", "copies.png"]
        for path in paths:
            assert path.stat().st_size < 100_000
            assert cv2.imread(str(path)).shape[1] == WIDTH * 100
            assert f"({path.name})" in to_markdown(plan, there, {})


def test_plots_show_the_means_and_half_intervals(plan: ResultsPlan, runs: list[Run]) -> None:
    lone = [run for run in runs if run.name != "duplicated" or run.seed == 0]
    rows = compare_cells(plan, plan.tables[0], lone)
    box, mask = draw_differences(plan, plan.tables[0], rows).axes
    assert [label.get_text() for label in box.get_yticklabels()] == [row.title for row in rows[1:]]
    dots, _, (bars,) = box.containers[0]
    assert dots.get_xdata() == pytest.approx([1.0, 3.5])
    assert bars.get_segments()[1][:, 0] == pytest.approx([0.2138, 6.7862], abs=1e-4)
    assert mask.containers[0][0].get_xdata() == pytest.approx([0.5, 1.75])
    panels = draw_series(plan, plan.plots[0], lone).axes
    titles = [panel.get_title() for panel in panels[:3]]
    assert titles == ["box AP", "box AP, small objects", "mask AP"]
    _, painted = panels[1].containers
    assert painted[0].get_ydata() == pytest.approx([41.0, 44.5])


def test_a_plot_of_differences_needs_a_cell_to_compare(plan: ResultsPlan, runs: list[Run]) -> None:
    table = dataclasses.replace(plan.tables[0], cells=("standard",))
    with pytest.raises(ReportError, match="'Steps' has a plot of differences but no cell"):
        draw_differences(plan, table, compare_cells(plan, table, runs))


def test_plan_holds_what_the_file_says(plan: ResultsPlan) -> None:
    assert (plan.seeds, plan.baseline) == ((0, 1, 2), "standard")
    assert plan.cells["standard_2x"].title == "standard, 2x images"
    assert plan.cells["duplicated"].arguments == ("benchmark=toy", "arm=duplicate")
    assert plan.tables[1].text == ""
    assert plan.tables[1].plot is None
    assert plan.plots[0].x == (0.0, 1.0)
    assert plan.plots[0].series["painted"] == ("standard", "adaptive")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: standard\n", "", "baseline is missing"),
        ("baseline: standard\n", "baseline: standart\n", "did you mean standard"),
        ("plots:", "plot:", "unknown key 'plot'; did you mean plots"),
        (
            "seeds: [0, 1, 2]",
            "seeds: [0, 0]",
            "seeds=.0, 0. must hold one or more, each of them once",
        ),
        ("seeds: [0, 1, 2]", "seeds: 3", "seeds=3 must be a list"),
        ("seeds: [0, 1, 2]", "seeds: [-1]", r"seeds\[0\]=-1"),
        ('"adaptive steps"', "[a]", "cells.adaptive.title"),
        ('{title: "adaptive steps", run: "benchmark=toy arm=expand"}', "x", "cells.adaptive: the"),
        (', run: "benchmark=toy arm=expand"', "", "cells.adaptive.run is missing"),
        ("  adaptive: ", "  1: ", "a name in cells=1 must be text"),
        ("[standard, duplicated, adaptive]", "[standard, dup]", r"tables\[0\].cells\[1\]='dup'"),
        ("[standard, duplicated, adaptive]", "[standard, [adaptive]]", r"tables\[0\].cells\[1\]"),
        ("[standard, duplicated, adaptive]", "[standard, standard]", r"tables\[0\].cells"),
        ("{adaptive_2x: standard_2x}", "{duplicated: standard_2x}", "pairs='duplicated'"),
        ("{adaptive_2x: standard_2x}", "{adaptive_2x: adaptive_2x}", "with itself"),
        ("plot: steps.png", "plot: ../steps.png", "plain file name"),
        ("plot: steps.png", "plot: copies.png", "two plots have one file name: copies.png"),
        ("x: [0, 1]", "x: [1, 0]", "must rise"),
        ("x: [0, 1]", "x: []", r"x=\[\] must hold one or more"),
        ("metrics: [box AP, box APs, mask AP]", "metrics: []", r"metrics=\[\] must hold"),
        ("x: [0, 1]", "x: [0, 1, 2]", "duplicated has 2 cells for 3 positions"),
        ("x: [0, 1]", "x: [0, .nan]", r"x\[1\]=nan must be a number"),
        ("metrics: [box AP,", "metrics: [box APx,", "'box APx' is none of box AP"),
        ("seeds: [0, 1, 2]", "seeds: [0, 1", "plan.yaml"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PLAN
    with pytest.raises(ReportError, match=message) as caught:
        plan_of(tmp_path, PLAN.replace(old, new, 1))
    assert "plan.yaml" in str(caught.value)


def test_a_plan_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="none.yaml"):
        load_plan(tmp_path / "none.yaml")
    with pytest.raises(ReportError, match="must be a mapping with the keys seeds"):
        plan_of(tmp_path, "")
