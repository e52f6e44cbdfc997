"""Processes side by side: their order, their progress, the first failure."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

import pytest

from bgaug_d2.errors import RunFailedError
from bgaug_d2.runs.side_by_side import (
    ProcessTask,
    iterations_done,
    pictures_done,
    run_side_by_side,
)


def task(folder: Path, name: str, code: str) -> ProcessTask:
    return ProcessTask(name, (sys.executable, "-c", code), folder / name / "output.txt")


def test_all_run_and_share_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    tasks = [task(tmp_path, name, code) for name in "abc"]
    run_side_by_side(tasks, 2, "testing", "units")
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert [each.log.read_text().strip() for each in tasks] == [threads] * 3
    assert "testing" in capsys.readouterr().err
    run_side_by_side(tasks[:1], 2, "testing", "units")
    assert tasks[0].log.read_text().strip() == "None"  # alone: all of them
    run_side_by_side([], 2, "nothing", "units")
    assert "nothing" not in capsys.readouterr().err


def test_the_first_failure_ends_all(tmp_path: Path) -> None:
    started = tmp_path / "started"
    waiting = f"open({str(started)!r}, 'w').close(); import time; time.sleep(600)"
    failing = (
        f"import os, time\nwhile not os.path.exists({str(started)!r}): time.sleep(0.01)\n"
        "raise SystemExit('no disk')"
    )
    tasks = [task(tmp_path, "waiting", waiting), task(tmp_path, "failing", failing)]
    tasks.append(task(tmp_path, "never", "pass"))
    with pytest.raises(RunFailedError, match=r"failing failed: no disk \(see .*/failing/output"):
        run_side_by_side(tasks, 2, "testing", "units")
    assert not (tmp_path / "never").exists()


def test_progress_is_read_from_what_the_processes_write(tmp_path: Path) -> None:
    assert iterations_done(tmp_path, 30) == (0, 30)
    lines = [json.dumps({"iteration": each}) for each in (0, 19)]
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    assert iterations_done(tmp_path, 30) == (20, 30)
    (tmp_path / "results.json").touch()
    assert iterations_done(tmp_path, 30) == (30, 30)
    log = tmp_path / "output.txt"
    assert pictures_done(log) == (0, 0)
    bars = ["looking up: 100%|##| 128/128 [00:00<00:00]", "painting:  45%|#  | 58/128 [00:20<00:24"]
    log.write_text("\r".join(bars))
    assert pictures_done(log) == (58, 128)


def test_the_bar_counts_finished_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ProcessTask(
        "one",
        (sys.executable, "-c", ""),
        tmp_path / "output.txt",
        functools.partial(iterations_done, tmp_path, 30),
    )
    (tmp_path / "results.json").touch()
    run_side_by_side([done], 1, "testing", "iterations")
    assert "30/30" in capsys.readouterr().err
