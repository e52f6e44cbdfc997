"""What a run ran on: versions of libraries, the commit, the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import bgaug_d2

_LIBRARIES = ("torch", "torchvision", "detectron2", "diffusers", "transformers", "numpy")


def versions() -> dict[str, str | None]:
    """Versions of Python, the libraries and this package; its git commit where it runs from one."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    found["bgaug_d2"] = bgaug_d2.__version__
    found["git_commit"] = _git_commit()
    return found


def machine() -> str:
    """The processor's name and how many of its cores this process may use."""
    name = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(": ")[2]
                break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def _git_commit() -> str | None:
    folder = Path(bgaug_d2.__file__).parent
    if not (folder.parent / ".git").exists():
        return None  # installed somewhere; a repository further up would be another one
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
