"""A table of the paper from data to Markdown; the toy world in VOC's layout, random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tool_runs import tool


@pytest.mark.slow
def test_table_4_runs_on_a_tree_of_vocs_layout(tmp_path: Path) -> None:
    done = tool("miniature", "table4", "--seeds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "output/miniature/miniature.md").read_text()
    assert "Their numbers mean nothing" in report
    for arm in ("standard aug.", "RandAugment", "background aug.", "copy-paste"):
        (line,) = [
            each
            for each in report.partition("### What it cost")[0].splitlines()
            if each.startswith(f"| Faster R-CNN, {arm} |")
        ]
        assert "1, missing (2 of 3 seeds)" in line
        assert line.count("–") < line.count("|")
    assert (tmp_path / "output/miniature/miniature/table4_retinanet.png").is_file()
