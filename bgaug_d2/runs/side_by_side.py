"""Processes side by side, with one progress bar; the first failure ends all of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bgaug_d2.errors import RunFailedError

BGAUG = (sys.executable, "-m", "bgaug_d2.commands.main")  # `bgaug`, whatever PATH says
_POLL_S = 0.5
# A tqdm bar of painting in a log: "painting:  45%|####   | 58/128 [00:20<00:24, 2.90 images/s]"
_BAR = re.compile(rb"painting: [^\r\n]*? (\d+)/(\d+) \[")
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class ProcessTask:
    """One process.

    Attributes:
        name: What messages call it.
        command: Command line.
        log: File for its output; its folder is created.
        progress: Units of work done so far, and in all; 0 of 0 where they are not known yet.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    progress: Callable[[], tuple[int, int]] = lambda: (0, 0)


def run_side_by_side(tasks: Sequence[ProcessTask], jobs: int, text: str, unit: str) -> None:
    """Run all tasks, ``jobs`` at a time, each with its share of the CPU's threads.

    Args:
        tasks: In the order in which they start.
        jobs: How many processes run at a time.
        text: What the progress bar says.
        unit: What ``ProcessTask.progress`` counts.

    Raises:
        RunFailedError: A process failed; the others were ended.
    """
    waiting = deque(tasks)
    running: dict[ProcessTask, subprocess.Popen[bytes]] = {}
    finished: list[ProcessTask] = []
    environment = _environment(min(jobs, len(tasks)))
    bar = tqdm(desc=text, unit=unit, dynamic_ncols=True, disable=not tasks)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.popleft()
                running[task] = _start(task, environment)
            for task, process in list(running.items()):
                if process.poll() is not None:
                    del running[task]
                    if process.returncode:
                        raise RunFailedError(_failure(task))
                    finished.append(task)
            _show(bar, [*finished, *running], len(waiting), f"{len(finished)} of {len(tasks)} done")
            if running:
                time.sleep(_POLL_S)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        bar.close()


def end_on_sigterm() -> None:
    """Make SIGTERM an exception, so that processes under way are ended too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def iterations_done(folder: Path, iterations: int) -> tuple[int, int]:
    """Iterations that a training has logged so far (every 20th is), and all of them."""
    done = 0
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError, KeyError):
        last = (folder / "metrics.json").read_text().splitlines()[-1]
        done = int(json.loads(last)["iteration"]) + 1
    if (folder / "results.json").is_file():
        done = iterations
    return min(done, iterations), iterations


def pictures_done(log: Path) -> tuple[int, int]:
    """Pictures painted and to paint, by the last progress bar in a log of ``bgaug paint``."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            bars = _BAR.findall(file.read())
    except FileNotFoundError:
        return 0, 0
    return (int(bars[-1][0]), int(bars[-1][1])) if bars else (0, 0)


def _start(task: ProcessTask, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with open(task.log, "wb") as output:
        return subprocess.Popen(task.command, stdout=output, stderr=output, env=environment)


def _environment(at_once: int) -> dict[str, str]:
    """Several processes share the cores; one alone has the library's own default."""
    if at_once < 2:
        return dict(os.environ)
    threads = max(1, len(os.sched_getaffinity(0)) // at_once)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}


def _show(bar: tqdm, tasks: Sequence[ProcessTask], waiting: int, text: str) -> None:
    found = [task.progress() for task in tasks]
    done, total = (sum(each[place] for each in found) for place in (0, 1))
    if tasks and waiting:  # they will take about as long as those that have started
        total = total * (len(tasks) + waiting) // len(tasks)
    bar.n, bar.total = done, total or None
    bar.set_postfix_str(text)


def _failure(task: ProcessTask) -> str:
    lines = task.log.read_text(errors="replace").strip().splitlines()
    return f"{task.name} failed: {lines[-1] if lines else 'it said nothing'} (see {task.log})"
