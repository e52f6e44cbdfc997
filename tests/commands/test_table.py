"""``bgaug table``: reports from folders of runs, those in docs/results among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bgaug_d2.commands import table
from tests.helpers.tool_runs import REPOSITORY

RESULTS = REPOSITORY / "docs" / "results"


def write_run(folder: Path, name: str, box: float) -> None:
    run = folder / name / "seed0"
    run.mkdir(parents=True)
    content = {"name": name, "seed": 0, "iterations": 9, "metrics": {"bbox": {"AP": box}}}
    (run / "results.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("report", "plan", "seeds"),
    [
        ("toy", "toy_tables", []),
        ("toy_128", "toy_128", []),
        ("toy_128_fresh", "toy_128", ["--seeds", "5,6,7,8,9"]),
    ],
)
def test_the_reports_in_docs_are_what_the_runs_there_give(
    report: str, plan: str, seeds: list[str], tmp_path: Path
) -> None:
    table.main([plan, str(RESULTS / "toy_runs"), "--out", str(tmp_path), *seeds])
    tables = [
        path.read_text().partition("\n## ")[2]  # above it are machine and dates
        for path in (tmp_path / f"{plan}.md", RESULTS / f"{report}.md")
    ]
    assert tables[0] == tables[1]


def test_whatever_runs_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, name in enumerate(("toy-baseline", "toy-expand", "toy-expand-D25")):
        write_run(tmp_path / "runs", name, 10.0 + place)
    table.main(["all", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert "| toy-expand-D25 | 1 | 12.00 | +2.00 |" in shown
    assert "What is missing" not in shown  # nobody knows the arguments of these runs
    assert f"| command | `bgaug table all {tmp_path}/runs` |" in shown
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"all.md", "all.csv", "all.tex"}


@pytest.mark.parametrize(
    ("plan", "message"), [("all", "holds no results.json"), ("tabel1", "did you mean table1")]
)
def test_a_mistake_is_one_sentence(tmp_path: Path, plan: str, message: str) -> None:
    if plan != "all":
        write_run(tmp_path, "a", 1.0)
    with pytest.raises(SystemExit) as caught:
        table.main([plan, str(tmp_path)])
    assert message in str(caught.value.code)
    assert "\n" not in str(caught.value.code)


def test_wrong_seeds_have_status_2(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        table.main(["all", str(tmp_path), "--seeds", "a"])
    assert caught.value.code == 2
