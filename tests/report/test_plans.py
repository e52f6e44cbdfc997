"""The plans of the package: every cell composes, and the papers' numbers are the paper's."""

from __future__ import annotations

import functools
import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from bgaug_d2.config.experiment import DatasetConfig, ExperimentConfig
from bgaug_d2.errors import ReportError
from bgaug_d2.report.cells import compare_cells
from bgaug_d2.report.commands import commands_for
from bgaug_d2.report.cost import Rates, detector_key, estimate_cost, measured_rates, paint_key
from bgaug_d2.report.csv_latex import to_csv, to_latex
from bgaug_d2.report.markdown import to_markdown
from bgaug_d2.report.plan import ResultsPlan, find_plan, plan_names, product_of
from bgaug_d2.report.plan_file import load_plan
from bgaug_d2.report.runs import Run
from bgaug_d2.runs.hydra_app import compose_seeds
from bgaug_d2.runs.run_plan import compose_cell

NAMES = plan_names()
TOYS = ("toy_tables", "toy_128", "demo")


def plan_of(name: str) -> ResultsPlan:
    return load_plan(find_plan(name))


def fake_run(name: str, seed: int, value: float) -> Run:
    metrics = {task: {"AP": value, "AP50": 2 * value, "APs": 1.0} for task in ("bbox", "segm")}
    return Run(name, seed, 9, metrics, 0.5, 3, 0.25)


@functools.cache
def experiment_of_cell(name: str, cell: str) -> ExperimentConfig:
    plan = plan_of(name)
    return compose_cell(plan, cell, seeds=plan.seeds[-1:])[0].experiment


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_composes_and_is_shown(name: str) -> None:
    plan = plan_of(name)
    for cell in plan.cells:
        experiment = experiment_of_cell(name, cell)
        assert (experiment.name, experiment.seed) == (cell, plan.seeds[-1])
        assert experiment.output_dir == f"{plan.folder}/{cell}/seed{plan.seeds[-1]}"
        if name not in TOYS:
            assert plan.cells[cell].product == product_of(cell)
    assert {cell for table in plan.tables for cell in table.cells} == set(plan.cells)


@pytest.mark.parametrize("name", NAMES)
def test_compared_cells_differ_in_the_augmentation_only(name: str) -> None:
    plan = plan_of(name)
    for table in plan.tables:
        for cell in table.cells:
            other = plan.baseline_of(table, cell)
            if other is None:
                continue
            one, two = (asdict(experiment_of_cell(name, each)) for each in (cell, other))
            for each in (one, two):
                for key in ("name", "arm", "suffix", "output_dir", "bgaug", "augment"):
                    del each[key]
                if name in TOYS:  # some cells are about the size of the training set, or a ceiling
                    del each["dataset"]["max_train_images"], each["inpainter"]
            assert one == two, (cell, other)


def test_the_toy_tables_differ_in_what_they_are_about() -> None:
    plan = plan_of("toy_tables")
    for cell in plan.cells:
        found = experiment_of_cell("toy_tables", cell)
        assert found.output_dir == f"output/toy_tables/runs/{cell}/seed4"
        assert (found.dataset.toy.seed, found.dataset.toy.evaluate_on) == (4, "test")
        images = {"2x": 128, "4x": 256}.get(cell.rpartition("_")[2], 64)
        assert found.dataset.max_train_images == images
        assert found.bgaug.paints == (not cell.startswith(("standard", "duplicated")))


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("toy_tables", ("caption", "clean", "erosion", "adaptive")),
        (
            "table3",
            [
                f"coco_retinanet-expand{each}"
                for each in ("-ladder_caption", "-ladder_clean", "-ladder_erosion", "")
            ],
        ),
    ],
)
def test_the_ladder_adds_one_part_at_a_time(name: str, cells: tuple[str, ...]) -> None:
    recipes = [experiment_of_cell(name, cell).bgaug.recipe for cell in cells]
    for before, after, changed in zip(
        recipes, recipes[1:], ("prompt", "erosion_kernel", "step_policy"), strict=False
    ):
        different = [key for key, value in vars(before).items() if value != vars(after)[key]]
        assert different == [changed]


def test_papers_numbers() -> None:
    papers = {name: plan_of(name).paper for name in NAMES}
    assert [each["box AP"] for each in papers["table3"].values()] == [
        *(36.7, 36.4, 35.4, 36.8, 37.9, 38.3)
    ]
    gain = papers["table1"]
    assert (
        gain["coco10_faster_rcnn-expand"]["box AP"] - gain["coco10_faster_rcnn-baseline"]["box AP"]
    ) == pytest.approx(2.7)  # not the abstract's 5.3, which is in no table
    assert papers["table2"]["coco_swin_s-expand"] == {"box AP": 49.0, "mask AP": 44.3}
    assert papers["table4"]["voc_faster_rcnn-expand"] == {"box AP50": 81.7}


def test_a_fraction_goes_with_its_fold() -> None:
    plan = plan_of("table1")
    assert plan.seeds == (1, 2, 3, 4, 5)
    found = compose_cell(plan, "coco5_faster_rcnn-baseline", seeds=[4])[0].experiment
    assert (found.dataset.coco.percent, found.dataset.coco.fold) == (5, 4)


def test_paper_cost_and_what_is_missing_are_shown() -> None:
    plan = plan_of("table3")
    runs = [fake_run("coco_retinanet-baseline", seed, 36.0 + seed) for seed in plan.seeds]
    runs += [fake_run("coco_retinanet-expand", seed, 39.0 + seed) for seed in (0, 1)]
    text = to_markdown(plan, runs, {})
    line = next(each for each in text.splitlines() if each.startswith("| + adaptive steps"))
    assert "| 38.3 | +1.20 |" in line  # a mean of 39.5
    assert "| + adaptive steps | 2 | 9 | 1.00 | 6 | 0.50 |" in text
    commands = re.findall(r"^bgaug .*$", text, flags=re.MULTILINE)
    assert len(commands) == 3  # arms and ablations without any seed, and the missing one
    assert "arm=object,object_background,duplicate seed=0,1,2 " in commands[0]
    assert "ablation=ladder_caption,ladder_clean,ladder_erosion seed=0,1,2 " in commands[1]
    assert "benchmark=coco_retinanet arm=expand seed=2 " in commands[2]
    assert "baseline" not in " ".join(commands)


def test_csv_and_latex_show_the_same_numbers() -> None:
    plan = plan_of("table2")
    runs = [fake_run("coco_swin_t-baseline", seed, 40.0) for seed in (0, 1)]
    runs += [fake_run("coco_swin_t-expand", seed, 41.0 + seed) for seed in (0, 1)]
    (_, augmented, _) = compare_cells(plan, plan.tables[0], runs)
    lines = [each.split(",") for each in to_csv(plan, runs).splitlines()]
    record = next(
        dict(zip(lines[0], each[-len(lines[0]) :], strict=False))
        for each in lines
        if "coco_swin_t-expand" in each and "box AP" in each
    )
    assert augmented.means["box AP"] is not None
    assert float(record["training_gpu_hours"]) == 1.0
    latex = to_latex(plan, runs)
    assert r"Swin-T, background aug. & 41.5 [35.1, 47.9] & +1.5 [-4.9, +7.9] & 47.0" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2


@pytest.mark.parametrize(
    ("name", "sweeps"), [("table1", 1), ("table2", 1), ("figure6", 2), ("ablation", 2)]
)
def test_commands_are_few_sweeps_that_give_every_run_once(name: str, sweeps: int) -> None:
    plan = plan_of(name)
    commands = [shlex.split(each) for each in commands_for(plan)]
    assert len(commands) == sweeps
    jobs = []
    for words in commands:
        assert words[:3] == ["bgaug", "train", "-m"]
        assert set(plan.overrides) < set(words)
        assert words[-2:] == [f"output_dir={plan.folder}/${{name}}/seed${{seed}}", "resume=true"]
        chosen = dict(each.split("=") for each in words[3:] if each[:3] in ("ben", "arm", "abl"))
        jobs += [
            f"{benchmark}-{arm}" + ("" if ablation == "none" else f"-{ablation}")
            for benchmark in chosen["benchmark"].split(",")
            for arm in chosen["arm"].split(",")
            for ablation in chosen.get("ablation", "none").split(",")
        ]
    assert sorted(jobs) == sorted(plan.cells)
    done = [fake_run(cell, seed, 1.0) for cell in plan.cells for seed in plan.seeds]
    assert commands_for(plan, done) == []


def test_a_cell_with_arguments_has_a_line_of_its_own() -> None:
    plan = replace(plan_of("toy_128"), seeds=(0,))
    done = [fake_run(cell, 0, 1.0) for cell in ("standard_2x", "duplicated_2x")]
    (command,) = commands_for(plan, done, "paint", overrides=["debug=miniature"])
    words = shlex.split(command)
    assert words[:3] == ["bgaug", "paint", "benchmark=toy_tables"]  # a single run is no sweep
    assert words[-4:] == [
        *("name=erosion_2x", "seed=0", "debug=miniature"),
        "output_dir=output/toy_tables/runs/${name}/seed${seed}",
    ]
    (run,) = compose_cell(plan, "erosion_2x")
    composed = compose_seeds(words[2:], [0])[0]
    assert composed.output_dir == run.experiment.output_dir


def test_an_unknown_plan_is_named() -> None:
    with pytest.raises(ReportError, match=r"no plan 'tabel1'; did you mean table1"):
        find_plan("tabel1")


def runs_of(name: str, cell: str, seeds: tuple[int, ...]) -> list[ExperimentConfig]:
    return [each.experiment for each in compose_cell(plan_of(name), cell, seeds=seeds)]


def test_estimates_take_measured_rates_and_leave_the_rest_open(tmp_path: Path) -> None:
    experiments = runs_of("table1", "coco10_faster_rcnn-expand", (1, 2))
    unknown = estimate_cost(experiments, Rates())
    assert (unknown.training_hours, unknown.painting_hours, unknown.gigabytes) == (None, None, None)
    assert unknown.pictures == 2 * 11_726  # two folds of 10 % of the images with objects
    run = tmp_path / "run"
    (run / "painting").mkdir(parents=True)
    for folder in (run, run / "painting"):
        (folder / "config_resolved.yaml").write_text(yaml.safe_dump(asdict(experiments[0])))
    training = {"train_s": 50.0, "start_iter": 0, "end_iter": 100}
    (run / "results.json").write_text(json.dumps({"training": training, "training_processes": 2}))
    report = {"counts": {"painted": 10}, "images_per_s": 4.0, "num_bytes": 5000}
    workers = {"workers": [{}, {}]}
    (run / "generate_report.json").write_text(json.dumps({**report, "workers": workers}))
    rates = measured_rates(tmp_path)
    assert rates.iteration_s == {detector_key(experiments[0]): 1.0}
    assert rates.images_per_s == {paint_key(experiments[0]): 2.0}
    known = estimate_cost(experiments, rates)
    assert known.training_hours == pytest.approx(2 * 180_000 / 3600)
    assert known.painting_hours == pytest.approx(2 * 11_726 / 2 / 3600)
    assert known.gigabytes == pytest.approx(2 * 11_726 * 500 / 1e9)
    (run / "results.json").write_text("[]")
    with pytest.raises(ReportError, match=r"results\.json: AttributeError"):
        measured_rates(tmp_path / "run")


def test_seeds_of_a_whole_data_set_share_their_pictures() -> None:
    experiments = runs_of("table4", "voc_retinanet-expand", (0, 1, 2))
    assert estimate_cost(experiments, Rates()).pictures == 16_551
    worlds = runs_of("toy_tables", "uniform5", (0, 1, 2))
    assert estimate_cost(worlds, Rates()).pictures == 3 * 5 * 64
    experiments[0].dataset = DatasetConfig("registered", train_names=["a"], test_names=["b"])
    assert estimate_cost(experiments[:1], Rates()).pictures is None
    assert estimate_cost([ExperimentConfig()], Rates()).pictures == 0
