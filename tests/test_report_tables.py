"""Tables: pairing by name and seed, arithmetic, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bgaug_d2.report.tables import ReportError, compare, load_runs, to_csv, to_markdown

TOOL = Path(__file__).parents[1] / "tools" / "make_tables.py"


def write_run(
    folder: Path,
    name: str,
    seed: int,
    box: float | None,
    mask: float | None = None,
    iterations: int = 9,
) -> None:
    run = folder / f"{name}_{seed}"
    run.mkdir(parents=True)
    metrics = {"bbox": {"AP": box, "AP50": 2.0, "AP75": 1.0, "per_class": {"disc": None}}}
    if mask is not None:
        metrics["segm"] = {"AP": mask}
    content = {"name": name, "seed": seed, "iterations": iterations, "metrics": metrics}
    (run / "results.json").write_text(json.dumps(content))


def test_pairs_by_seed_and_leaves_odd_seeds_out_of_the_difference(tmp_path: Path) -> None:
    for seed, value in ((0, 10.0), (1, 14.0)):
        write_run(tmp_path, "toy_baseline", seed, value, value / 2)
    for seed, value in ((0, 13.0), (1, 15.0), (7, 50.0)):
        write_run(tmp_path, "toy_bgaug_expand", seed, value)
    baseline, augmented = compare(load_runs(tmp_path))
    assert baseline.name == "toy_baseline"
    assert augmented.seeds == (0, 1, 7)
    cell = augmented.cells["box AP"]
    assert cell is not None
    assert (cell.mean, cell.count, cell.pairs, cell.difference) == (26.0, 3, 2, 2.0)
    assert baseline.cells["box AP"].deviation == pytest.approx(8**0.5)
    assert baseline.cells["box AP"].difference is None
    assert augmented.cells["mask AP"] is None


def test_markdown_and_csv_show_the_same_numbers(tmp_path: Path) -> None:
    write_run(tmp_path, "toy_baseline", 0, 10.0)
    write_run(tmp_path, "toy_bgaug", 0, 12.5)
    rows = compare(load_runs(tmp_path))
    assert "| toy_bgaug | 1 | 9 | 12.50 (+2.50) |" in to_markdown(rows)
    assert "toy_bgaug,box AP,1,12.5,,2.5,1" in to_csv(rows).splitlines()


def test_a_missing_metric_is_a_dash_not_a_zero(tmp_path: Path) -> None:
    write_run(tmp_path, "toy_baseline", 0, None)
    (row,) = compare(load_runs(tmp_path))
    assert row.cells["box AP"] is None
    assert "–" in to_markdown([row])


def test_runs_of_unequal_length_do_not_compare(tmp_path: Path) -> None:
    write_run(tmp_path, "toy_baseline", 0, 1.0, iterations=5)
    write_run(tmp_path, "toy_bgaug", 0, 1.0, iterations=6)
    with pytest.raises(ReportError, match="5 iterations .* 6"):
        compare(load_runs(tmp_path))


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "toy_baseline", 0, 1.0)
    write_run(tmp_path / "b", "toy_baseline", 0, 1.0)
    with pytest.raises(ReportError, match="second run of toy_baseline with seed 0"):
        load_runs(tmp_path)


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ReportError, match=r"results\.json is no results"):
        load_runs(tmp_path)


def test_tool_fails_with_one_sentence_on_an_empty_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, TOOL, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "holds no results.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
