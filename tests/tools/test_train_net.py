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
        (["arm=basline"], "arm=basline does not exist; did you mean baseline"),
        (["bgaug.recpie.D=0.3"], "unknown key 'bgaug.recpie.D'; did you mean bgaug.recipe.D"),
        (["bgaug.recipe.D=3"], "recipe.D=3.0 is not allowed"),
        (["schedule.iterations=many"], "schedule.iterations='many' must be a whole number"),
        (["dataset=coco", "dataset.root=/nowhere"], "dataset.root='/nowhere' is no folder"),
        (["arm=replace", "bgaug.alpha=1"], "bgaug.alpha=1 means nothing with bgaug.mode=replace"),
        (["arm=replace", "inpainter.model=/nowhere"], "inpainter.model='/nowhere' is no folder"),
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
    for expected in (
        "usage: bgaug train",
        "--multirun",
        "  benchmark: ",
        "toy_tables",
        "resume=true",
    ):
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


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    arguments = smoke(tmp_path, "toy-baseline")
    assert tool("train_net", *arguments, cwd=tmp_path).returncode == 0
    before = (tmp_path / "run" / "config_resolved.yaml").read_text()
    done = tool("train_net", *arguments, "schedule.base_lr=0.5", cwd=tmp_path)
    assert done.returncode == 1
    assert "holds a run with other settings: schedule.base_lr (0.0001 there, 0.5 now)" in (
        done.stderr
    )
    evaluate = ("eval_only=true", "resume=true", "dataset.max_test_images=2")
    assert tool("train_net", *arguments, *evaluate, cwd=tmp_path).returncode == 0
    assert (tmp_path / "run" / "config_resolved.yaml").read_text() == before
    assert (tmp_path / "run" / "eval_only" / "config_resolved.yaml").is_file()


SWEEP = "output_dir=sweep/${name}/seed${seed}"


@pytest.mark.slow
def test_a_sweep_gives_each_run_its_folder(tmp_path: Path) -> None:
    arguments = smoke(tmp_path, "toy-baseline", "seed=0,1", SWEEP)
    done = tool("train_net", "--multirun", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "sweep").rglob("results.json"))
    assert [each.parent.name for each in found] == ["seed0", "seed1"]
    assert [json.loads(each.read_text())["seed"] for each in found] == [0, 1]
    # Each log is of its own run alone.
    for each in found:
        assert (each.parent / "log.txt").read_text().count("Starting training") == 1
    # Jobs that differ in another key would share a folder, and the second one says so.
    rates = smoke(tmp_path, "toy-baseline", "schedule.base_lr=0.1,0.2", "output_dir=rates")
    done = tool("train_net", "--multirun", *rates, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("rates holds a run with other settings")


@pytest.mark.slow
def test_a_sweep_that_is_started_again_does_what_is_left(tmp_path: Path) -> None:
    arguments = smoke(tmp_path, "toy-baseline,expand", "seed=1,2", "resume=true", SWEEP)
    command = ("--multirun", *arguments)
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
def test_a_sweep_names_every_mistake(tmp_path: Path) -> None:
    arguments = smoke(tmp_path, "toy-baseline", "schedule.base_lr=-1,-2")
    done = tool("train_net", "--multirun", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == [
        *("schedule.base_lr=-1.0", "schedule.base_lr=-2.0")
    ]
