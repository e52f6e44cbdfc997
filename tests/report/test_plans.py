"""The paper's tables: every cell is an experiment, and the numbers are the paper's."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from bgaug_d2.config.experiment import DatasetConfig, ExperimentConfig
from bgaug_d2.errors import ReportError
from bgaug_d2.report.cells import compare_cells
from bgaug_d2.report.commands import commands_for
from bgaug_d2.report.cost import Rates, detector_key, estimate, measured_rates, paint_key
from bgaug_d2.report.csv_latex import to_csv, to_latex
from bgaug_d2.report.markdown import to_markdown
from bgaug_d2.report.plan import PLANS, find_plan, load_plan
from bgaug_d2.report.runs import Run
from tests.helpers.tool_runs import experiment_of, tool

NAMES = sorted(each.stem for each in PLANS.glob("*.yaml"))


def fake_run(name: str, seed: int, value: float) -> Run:
    metrics = {task: {"AP": value, "AP50": 2 * value, "APs": 1.0} for task in ("bbox", "segm")}
    return Run(name, seed, 9, metrics, 0.5, 3, 0.25)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_an_experiment_that_names_its_runs_so(name: str) -> None:
    plan = load_plan(find_plan(name))
    for cell in plan.cells:
        experiment = experiment_of(f"experiment={cell}", *plan.overrides)
        assert experiment.name + experiment.suffix == cell
    assert {cell for table in plan.tables for cell in table.cells} == set(plan.cells)


@pytest.mark.parametrize("name", NAMES)
def test_all_cells_of_a_table_train_for_as_many_iterations(name: str) -> None:
    plan = load_plan(find_plan(name))
    for table in plan.tables:
        for cell in table.cells:
            other = plan.baseline_of(table, cell)
            if other is None:
                continue
            one, two = (asdict(experiment_of(f"experiment={each}")) for each in (cell, other))
            for each in (one, two):
                for key in ("name", "suffix", "output_dir", "bgaug", "augment"):
                    del each[key]
            assert one == two, (cell, other)


def test_papers_numbers() -> None:
    papers = {name: load_plan(find_plan(name)).paper for name in NAMES}
    assert [each["box AP"] for each in papers["table3"].values()] == [
        *(36.7, 36.4, 35.4, 36.8, 37.9, 38.3)
    ]
    gain = papers["table1"]
    assert (
        gain["coco10_faster_rcnn_bgaug_expand"]["box AP"]
        - gain["coco10_faster_rcnn_baseline"]["box AP"]
    ) == pytest.approx(2.7)  # not the abstract's 5.3, which is in no table
    assert papers["table2"]["coco_swin_s_bgaug_expand"] == {"box AP": 49.0, "mask AP": 44.3}
    assert papers["table4"]["voc_faster_rcnn_bgaug_expand"] == {"box AP50": 81.7}


def test_a_fraction_goes_with_its_fold() -> None:
    plan = load_plan(find_plan("table1"))
    assert plan.seeds == (1, 2, 3, 4, 5)
    found = experiment_of("experiment=coco5_faster_rcnn_baseline", "seed=4", *plan.overrides)
    assert (found.dataset.coco.percent, found.dataset.coco.fold) == (5, 4)


def test_paper_cost_and_what_is_missing_are_shown(tmp_path: Path) -> None:
    plan = load_plan(find_plan("table3"))
    runs = [fake_run("coco_retinanet_baseline", seed, 36.0 + seed) for seed in plan.seeds]
    runs += [fake_run("coco_retinanet_bgaug_expand", seed, 39.0 + seed) for seed in (0, 1)]
    text = to_markdown(plan, runs, {})
    line = next(each for each in text.splitlines() if each.startswith("| + adaptive steps"))
    assert "| 38.3 | +1.20 |" in line  # a mean of 39.5
    assert "| + adaptive steps | 2 | 9 | 1.00 | 6 | 0.50 |" in text
    commands = re.findall(r"^python .*$", text, flags=re.MULTILINE)
    assert len(commands) == 2  # one for the missing seed, one for cells without any
    assert "experiment=coco_retinanet_bgaug_expand seed=2 " in commands[1]
    assert "coco_retinanet_baseline" not in " ".join(commands)


def test_csv_and_latex_show_the_same_numbers() -> None:
    plan = load_plan(find_plan("table2"))
    runs = [fake_run("coco_swin_t_baseline", seed, 40.0) for seed in (0, 1)]
    runs += [fake_run("coco_swin_t_bgaug_expand", seed, 41.0 + seed) for seed in (0, 1)]
    (_, augmented, _) = compare_cells(plan, plan.tables[0], runs)
    lines = [each.split(",") for each in to_csv(plan, runs).splitlines()]
    record = next(
        dict(zip(lines[0], each[-len(lines[0]) :], strict=False))
        for each in lines
        if "coco_swin_t_bgaug_expand" in each and "box AP" in each
    )
    assert augmented.means["box AP"] is not None
    assert float(record["training_gpu_hours"]) == 1.0
    latex = to_latex(plan, runs)
    assert r"Swin-T, background aug. & 41.5 [35.1, 47.9] & +1.5 [-4.9, +7.9] & 47.0" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2


def test_commands_are_one_sweep_that_hydra_reads() -> None:
    plan = load_plan(find_plan("table1"))
    (command,) = commands_for(plan)
    words = shlex.split(command)
    assert words[:3] == ["python", "tools/train_net.py", "-m"]
    assert "dataset.coco.fold=${seed}" in words
    assert "hydra.sweep.subdir=${name}${suffix}/seed${seed}" in words
    done = [fake_run(cell, seed, 1.0) for cell in plan.cells for seed in plan.seeds]
    assert commands_for(plan, done) == []


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(ReportError, match=r"no table 'tabel1'; did you mean table1"):
        find_plan("tabel1")


def test_estimates_take_measured_rates_and_leave_the_rest_open(tmp_path: Path) -> None:
    experiment = experiment_of("experiment=coco10_faster_rcnn_bgaug_expand")
    unknown = estimate(experiment, (1, 2), Rates())
    assert (unknown.training_hours, unknown.painting_hours, unknown.gigabytes) == (None, None, None)
    assert unknown.pictures == 2 * 11_726  # two folds of 10 % of the images with objects
    run = tmp_path / "run"
    run.mkdir()
    (run / "config_resolved.yaml").write_text(yaml.safe_dump(asdict(experiment)))
    training = {"train_s": 50.0, "start_iter": 0, "end_iter": 100}
    (run / "results.json").write_text(json.dumps({"training": training, "training_processes": 2}))
    report = {"counts": {"painted": 10}, "images_per_s": 4.0, "num_bytes": 5000}
    (run / "generate_report.json").write_text(json.dumps({**report, "workers": workers(2)}))
    rates = measured_rates(tmp_path)
    assert rates.iteration_s == {detector_key(experiment): 1.0}
    assert rates.images_per_s == {paint_key(experiment): 2.0}
    known = estimate(experiment, (1, 2), rates)
    assert known.training_hours == pytest.approx(2 * 180_000 / 3600)
    assert known.painting_hours == pytest.approx(2 * 11_726 / 2 / 3600)
    assert known.gigabytes == pytest.approx(2 * 11_726 * 500 / 1e9)


def workers(count: int) -> dict[str, object]:
    return {"workers": [{}] * count}


def test_the_tool_prints_costs_and_commands(tmp_path: Path) -> None:
    given = ("--iteration-s", "0.2", "--images-per-s", "2", "--gpus", "8", "launch.num_gpus=8")
    done = tool("plan", "table2", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    hours = 263_850 * 0.2 / 3600
    assert f"| Swin-T, standard aug. | 3 | 263850 | {3 * hours:.3g} | 0 | 0 | 0 |" in done.stdout
    assert f"| Swin-T, background aug. | 3 | 263850 | {3 * hours:.3g} | 117,266 | 16.3 | ? |" in (
        done.stdout
    )
    commands = [each for each in done.stdout.splitlines() if each.startswith("python")]
    assert [each.split()[1] for each in commands] == ["tools/generate.py", "tools/train_net.py"]
    assert all(each.endswith("launch.num_gpus=8") for each in commands)
    assert "baseline" not in commands[0]


def test_seeds_of_a_whole_data_set_share_their_pictures() -> None:
    experiment = experiment_of("experiment=voc_retinanet_bgaug_expand")
    assert estimate(experiment, (0, 1, 2), Rates()).pictures == 16_551
    names = DatasetConfig(kind="registered", train_names=["a"], test_names=["b"])
    experiment.dataset = names
    assert estimate(experiment, (0,), Rates()).pictures is None
    assert estimate(ExperimentConfig(), (0,), Rates()).pictures == 0
