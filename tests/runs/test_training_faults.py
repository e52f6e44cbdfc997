"""Whole training runs, with the tiny model, while processes are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TRAIN = Path(__file__).resolve().parents[2] / "tools" / "train_net.py"
ITERATIONS, BATCH, PERIOD = 60, 4, 20


def command(folder: Path, *arguments: str) -> list[str]:
    return [
        sys.executable,
        str(TRAIN),
        "benchmark=toy",
        "arm=replace",
        "launch.device=cpu",
        f"output_dir={folder / 'run'}",
        f"dataset.root={folder / 'toy'}",
        f"bgaug.cache.dir={folder / 'cache'}",
        "dataset.toy.num_train=24",
        "dataset.toy.num_val=1",
        "dataset.toy.num_test=2",
        "bgaug.recipe.resolution=64",
        "bgaug.recipe.num_inference_steps=3",
        f"schedule.iterations={ITERATIONS}",
        f"schedule.images_per_batch={BATCH}",
        "schedule.lr_drops=[]",
        f"schedule.checkpoint_period={PERIOD}",
        *arguments,
    ]


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    with open(folder / "output.txt", "wb") as output:  # a pipe that nobody reads would fill up
        return subprocess.Popen(command(folder, *arguments), stdout=output, stderr=output)


def finish(folder: Path, process: subprocess.Popen[bytes]) -> None:
    code = process.wait(timeout=600)
    assert code == 0, (folder / "output.txt").read_text()[-3000:]


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run" / "results.json").read_text())
    return content


def processes(*words: str) -> Iterator[int]:
    """Living processes whose command line has all the words."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and all(word in line for word in words):
                yield int(entry.name)


def logged(folder: Path, name: str) -> dict[int, float]:
    """A scalar of Detectron2's metrics.json by iteration; the last word on each counts."""
    lines = (folder / "run" / "metrics.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {each["iteration"]: each[name] for each in records if name in each}


def test_training_finishes_while_its_worker_is_killed_once_a_second(tmp_path: Path) -> None:
    process = start(
        tmp_path, "bgaug.worker.advanced.max_restarts=1000", "bgaug.worker.advanced.backoff_s=0.1"
    )
    kills = 0
    while process.poll() is None:
        # The first start has to succeed; TensorBoard's file marks the beginning of training.
        if list((tmp_path / "run").glob("events.*")):
            for pid in processes("bgaug_d2.worker.process", str(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
        time.sleep(1.0)
    finish(tmp_path, process)
    found = results(tmp_path)
    assert kills > 0
    assert sum(found["outcomes"].values()) == ITERATIONS * BATCH
    assert found["outcomes"]["original"] > 0
    assert found["workers"]["restarts"] > 0
    assert not list(processes("bgaug_d2.worker.process", str(process.pid)))


def test_a_killed_trainer_leaves_nothing_behind_and_its_resume_draws_the_same(
    tmp_path: Path,
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(whole, start(whole, "bgaug.on_miss=wait"))
    process = start(killed, "bgaug.on_miss=wait")
    checkpoint = killed / "run" / f"model_{2 * PERIOD - 1:07d}.pth"
    while not (
        checkpoint.exists() and (killed / "run" / "last_checkpoint").read_text() == checkpoint.name
    ):
        assert process.poll() is None, (killed / "output.txt").read_text()[-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while list(processes(str(killed))) or list(
        processes("bgaug_d2.worker.process", str(process.pid))
    ):
        assert time.monotonic() < deadline, "processes outlive their trainer"
        time.sleep(0.1)
    finish(killed, start(killed, "bgaug.on_miss=wait", "resume=true"))
    assert results(killed)["training"]["start_iter"] == 2 * PERIOD
    assert results(killed)["outcomes"]["hit"] > 0
    for outcome in ("original", "hit"):
        totals = logged(whole, f"bgaug/{outcome}")
        after = totals[ITERATIONS - 1] - totals[2 * PERIOD - 1]
        assert results(killed)["outcomes"][outcome] == after
