"""The programs as a user starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.helpers.tool_runs import smoke, tool


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["experiment=toy_basline"], "experiment=toy_basline does not exist; did you mean"),
        (["bgaug.recpie.D=0.3"], "unknown key 'bgaug.recpie.D'; did you mean bgaug.recipe.D"),
        (["bgaug.recipe.D=3"], "recipe.D=3.0 is not allowed"),
        (["schedule.iterations=many"], "schedule.iterations='many' must be a whole number"),
        (["dataset=coco", "dataset.root=/nowhere"], "dataset.root='/nowhere' is no folder"),
        (["bgaug=replace", "inpainter=local"], "inpainter.model is empty"),
        (["bgaug=replace", "inpainter.model=/nowhere"], "inpainter.model='/nowhere' is no folder"),
    ],
)
@pytest.mark.parametrize("name", ["train_net", "generate"])
def test_a_mistake_is_one_sentence(
    tmp_path: Path, name: str, arguments: list[str], sentence: str
) -> None:
    done = tool(name, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.rglob("*.pth")) == []


def test_help_names_what_there_is(tmp_path: Path) -> None:
    done = tool("train_net", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for expected in ("usage: bgaug train", "--multirun", "  dataset: ", "toy", "resume=true"):
        assert expected in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_from_the_command_line(tmp_path: Path) -> None:
    arguments = smoke(
        tmp_path, "toy-replace", "bgaug.on_miss=wait", "seed=3", "output_dir=out/${seed}"
    )
    done = tool("train_net", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "3"
    results = json.loads((folder / "results.json").read_text())
    assert (results["seed"], sum(results["outcomes"].values())) == (3, 4)
    asked = OmegaConf.load(folder / "config.yaml")
    assert OmegaConf.to_container(asked)["output_dir"] == "out/${seed}"  # type: ignore[index, call-overload]
    resolved = OmegaConf.load(folder / "config_resolved.yaml")
    assert resolved.output_dir == "out/3"
    assert resolved.bgaug.on_miss == "wait"


@pytest.mark.slow
def test_a_sweep_gives_each_run_its_folder(tmp_path: Path) -> None:
    arguments = smoke(tmp_path, "toy-baseline", "seed=0,1")
    arguments.remove(f"output_dir={tmp_path}/run")
    done = tool("train_net", "--multirun", *arguments, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "sweep").rglob("results.json"))
    assert [json.loads(each.read_text())["seed"] for each in found] == [0, 1]
    # Each log is of its own run alone.
    for each in found:
        assert (each.parent / "log.txt").read_text().count("Starting training") == 1


@pytest.mark.slow
def test_a_sweep_that_is_started_again_does_what_is_left(tmp_path: Path) -> None:
    subdir = "hydra.sweep.subdir=${name}/seed${seed}"
    arguments = [*smoke(tmp_path, "toy-baseline,expand", "seed=1,2"), "resume=true"]
    arguments = [each for each in arguments if not each.startswith("output_dir")]
    command = ("--multirun", *arguments, "hydra.sweep.dir=sweep", subdir)
    assert tool("train_net", *command, cwd=tmp_path).returncode == 0
    results = sorted(tmp_path.glob("sweep/*/*/results.json"))
    assert len(results) == 4
    before = [path.read_text() for path in results]
    times = [path.stat().st_mtime_ns for path in results]
    results[1].unlink()  # this run was cut off before it was evaluated
    assert tool("train_net", *command, cwd=tmp_path).returncode == 0
    assert json.loads(results[1].read_text())["metrics"] == json.loads(before[1])["metrics"]
    again = [path.stat().st_mtime_ns != time for path, time in zip(results, times, strict=True)]
    assert again == [False, True, False, False]


@pytest.mark.slow
def test_a_sweep_tells_every_mistake(tmp_path: Path) -> None:
    arguments = smoke(tmp_path, "toy-baseline", "schedule.base_lr=-1,-2")
    arguments.remove(f"output_dir={tmp_path}/run")
    done = tool("train_net", "--multirun", *arguments, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 1
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == [
        *("schedule.base_lr=-1.0", "schedule.base_lr=-2.0")
    ]


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    done = tool("demo", "--iterations", "2", "--images", "8", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no conclusion can be drawn" in done.stdout
    assert "| toy_bgaug | 1 | 2 |" in done.stdout
    demo = tmp_path / "output" / "demo"
    outcomes = {
        name: json.loads((demo / "runs" / name / "results.json").read_text())["outcomes"]
        for name in ("toy-baseline", "toy-replace")
    }
    assert outcomes["toy-baseline"]["original"] == 16
    assert outcomes["toy-replace"]["hit"] > 0
    assert outcomes["toy-replace"]["hit"] + outcomes["toy-replace"]["original"] == 16
    assert (demo / "gallery" / "contact_sheet.png").is_file()
