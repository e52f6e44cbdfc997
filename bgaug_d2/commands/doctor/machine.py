"""GPU and driver, memory, disk, shared memory, open files and the temporary folder."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from bgaug_d2.commands.doctor.finding import OK, WARNING, Finding

GB = 1e9
_MIN_MEMORY = 8 * GB  # Stable Diffusion in float32 takes 7.2 GB
_MIN_DISK = 5 * GB
_MIN_SHARED = 1 * GB
_MIN_TEMP = 0.1 * GB
# `bgaug paint` holds up to 400 connections to every painting process; the rest is for libraries.
_FILES_PER_GPU, _FILES_BESIDE = 400, 500
# The kernel takes paths of sockets up to 107 bytes; names in our folder need about 30.
_MAX_TEMP_PATH = 77


def gpu_names() -> list[str]:
    """What torch sees, with the memory of each."""
    try:
        import torch
    except (ImportError, OSError):
        return []  # another check says so
    found = []
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory
        found.append(f"{torch.cuda.get_device_name(index)} ({memory / GB:.0f} GB)")
    return found


def driver_version() -> str:
    """NVIDIA's driver as ``nvidia-smi`` names it; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout else ""


def check_gpu() -> Finding:
    """The GPUs that torch can use."""
    names, driver = gpu_names(), driver_version()
    if names:
        return Finding("GPU", OK, f"{', '.join(names)}; driver {driver or 'unknown'}")
    if driver:
        fact = f"driver {driver} is there, but torch sees no GPU"
        remedy = "install a torch for this driver, or check CUDA_VISIBLE_DEVICES"
        return Finding("GPU", WARNING, fact, remedy)
    remedy = (
        "the toy world works without one; training on photographs and painting with Stable "
        "Diffusion want one"
    )
    return Finding("GPU", WARNING, "none", remedy)


def available_memory() -> float:
    """Bytes that new processes can take: the kernel's estimate, and the container's limit."""
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    available = float(found[1]) * 1024 if found else float("inf")
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    try:
        return min(available, float(limit.read_text()) - float(used.read_text()))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return available


def check_memory() -> Finding:
    """Main memory."""
    memory = available_memory()
    fact = f"{memory / GB:.1f} GB available, {os.cpu_count()} cores"
    if memory < _MIN_MEMORY:
        remedy = "enough for the toy world; Stable Diffusion on a CPU takes 7.2 GB in float32"
        return Finding("memory", WARNING, fact, remedy)
    return Finding("memory", OK, fact)


def check_disk(topic: str, folder: Path) -> Finding:
    """Free space where a folder lies or will lie, and whether it can be written."""
    # The folder may not be there yet, and only an existing one has a disk.
    place = existing(folder)
    free = shutil.disk_usage(place).free
    fact = f"{free / GB:.1f} GB free for {folder}"
    if not os.access(place, os.W_OK):
        return Finding(topic, WARNING, f"{place} cannot be written", "run in another folder")
    if free < _MIN_DISK:
        remedy = "free some, or choose another folder; `bgaug paint ... dry_run=true` estimates"
        return Finding(topic, WARNING, fact, remedy)
    return Finding(topic, OK, fact)


def check_shared_memory() -> Finding:
    """``/dev/shm``, through which loader processes hand over their batches."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("shared memory", WARNING, "no /dev/shm", "set schedule.num_workers=0")
    free = shutil.disk_usage(folder).free
    fact = f"{free / GB:.1f} GB free in {folder}"
    if free < _MIN_SHARED:
        remedy = "start a container with --shm-size=8g, or set schedule.num_workers=0"
        return Finding("shared memory", WARNING, fact, remedy)
    return Finding("shared memory", OK, fact)


def check_open_files() -> Finding:
    """The limit of open files of a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = float("inf") if soft == resource.RLIM_INFINITY else soft
    wanted = _FILES_BESIDE + _FILES_PER_GPU * max(1, len(gpu_names()))
    if limit < wanted:
        remedy = f"`ulimit -n {wanted}` before a run"
        # Without a limit the number is -1, which would compare as the lowest.
        if hard not in (resource.RLIM_INFINITY,) and hard < wanted:
            remedy += f", as root: the hard limit is {hard}"
        return Finding("open files", WARNING, f"at most {soft} in a process", remedy)
    return Finding("open files", OK, f"at most {limit:g} in a process")


def check_temporary_folder() -> Finding:
    """Where sockets and, for a moment, wheels are put."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    fact = f"{free / GB:.1f} GB free in {folder}"
    if free < _MIN_TEMP:
        remedy = "free some, or set TMPDIR to a folder on a local disk"
        return Finding("temporary folder", WARNING, fact, remedy)
    # The kernel counts bytes, and one letter may take several.
    if len(os.fsencode(folder)) > _MAX_TEMP_PATH:
        fact += f", whose path has {len(os.fsencode(folder))} bytes: too long for sockets"
        remedy = "/tmp is used for sockets instead; set TMPDIR if it cannot be written"
        return Finding("temporary folder", WARNING, fact, remedy)
    return Finding("temporary folder", OK, fact)


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    folder = folder.expanduser().absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())
