"""``bgaug demo`` with two iterations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.tool_runs import bgaug


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    done = bgaug("demo", "--iterations", "2", "--limit", "8", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no conclusion can be drawn" in done.stdout
    assert "| backgrounds replaced on the fly | 1 | 2 |" in done.stdout
    demo = tmp_path / "output" / "demo"
    outcomes = {
        name: json.loads((demo / "runs" / name / "seed0" / "results.json").read_text())["outcomes"]
        for name in ("toy-baseline", "toy-replace")
    }
    assert outcomes["toy-baseline"]["original"] == 16
    assert outcomes["toy-replace"]["hit"] > 0
    assert outcomes["toy-replace"]["hit"] + outcomes["toy-replace"]["original"] == 16
    assert (demo / "gallery" / "contact_sheet.png").is_file()
