"""Python, the libraries, Detectron2 and OpenCV's system libraries."""

from __future__ import annotations

import importlib
import importlib.util
import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import bgaug_d2
from bgaug_d2.commands.doctor.finding import MISSING, OK, WARNING, Finding

_PYTHON = (3, 10), (3, 13)
TESTED_PAIR = "torch==2.11.0", "torchvision==0.26.0"  # as in constraints.txt
INSTALL_DETECTRON2 = "run `bgaug install-detectron2`"


def check_python() -> Finding:
    """The interpreter and this package."""
    version = platform.python_version()
    fact = f"{version} ({sys.executable}); bgaug_d2 {bgaug_d2.__version__}"
    fact += f" in {Path(bgaug_d2.__file__).parent}"
    if not _PYTHON[0] <= sys.version_info[:2] <= _PYTHON[1]:
        return Finding("Python", MISSING, fact, "use Python 3.10, 3.11, 3.12 or 3.13", True)
    return Finding("Python", OK, fact)


def check_libraries() -> Finding:
    """What the package's metadata asks for, version limits included."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(each) for each in metadata.requires("bgaug_d2") or []]
    except metadata.PackageNotFoundError:
        fact = "bgaug_d2 runs from a folder without being installed, so its needs are unknown"
        return Finding("libraries", WARNING, fact, "run `pip install -e .` in that folder")
    # Without extras: what an optional extra needs may be missing.
    wanted = [each for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
    faults = []
    for each in wanted:
        found = _version(each.name)
        if found is None:
            faults.append(f"{each.name} is not installed")
        # A specifier leaves pre-releases out unless asked; an installed one counts.
        elif not each.specifier.contains(found, prereleases=True):
            faults.append(f"{each.name} {found} is not {each.specifier}")
    if faults:
        remedy = "install bgaug_d2 again with pip, from its folder with `-c constraints.txt`"
        return Finding("libraries", MISSING, "; ".join(faults), remedy, True)
    return Finding("libraries", OK, f"all {len(wanted)} that bgaug_d2 needs")


def check_torch() -> Finding:
    """PyTorch and torchvision, which have to be a pair."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "torchvision"))
    remedy = f"install two that belong together; {' with '.join(TESTED_PAIR)} was tested"
    fault = import_fault("torch") or import_fault("torchvision")
    if fault:
        return Finding("torch", MISSING, f"{versions}: {fault}", remedy, True)
    return Finding("torch", OK, versions)


def check_detectron2() -> Finding:
    """Detectron2, and which one."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        return Finding("Detectron2", MISSING, "not installed", INSTALL_DETECTRON2, True)
    folder = Path(spec.origin).parent
    version = _version("detectron2") or "of unknown version"
    # The layers import the compiled module, so a build that does not fit torch shows here.
    fault = import_fault("detectron2.layers")
    if fault:
        remedy = f"`pip uninstall detectron2`, then {INSTALL_DETECTRON2}"
        return Finding("Detectron2", MISSING, f"{version} in {folder}: {fault}", remedy, True)
    # The pure-Python build has a placeholder, _C.py, in its place.
    if not list(folder.glob("_C*.so")):
        fact = f"{version}, the pure-Python one from PyPI: no deformable convolution, no rotated"
        fact += " boxes, no fast COCO evaluation; nothing here needs them"
        return Finding("Detectron2", OK, fact)
    commit = _commit("detectron2")
    origin = f"upstream at commit {commit[:10]}" if commit else f"in {folder}"
    return Finding("Detectron2", OK, f"{version}, {origin}, with compiled operators")


def check_opencv() -> Finding:
    """OpenCV, which needs two system libraries."""
    fault = import_fault("cv2")
    if fault:
        remedy = "Debian, Ubuntu: `apt-get install libgl1 libglib2.0-0`"
        return Finding("OpenCV", MISSING, fault, remedy, True)
    return Finding("OpenCV", OK, f"opencv-python {_version('opencv-python') or 'of another name'}")


def import_fault(name: str) -> str:
    """Why a module cannot be imported, in one line; empty if it can."""
    try:
        importlib.import_module(name)
    # A mismatched torchvision raises RuntimeError, a broken library OSError, and Detectron2 on a
    # wrong NumPy AttributeError.
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        lines = str(error).strip().splitlines()
        return re.sub(r"\s+", " ", lines[0]) if lines else type(error).__name__
    return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit(name: str) -> str:
    """The git commit that pip built a package from; empty if it did not."""
    try:
        text = metadata.distribution(name).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return ""
    return str(json.loads(text).get("vcs_info", {}).get("commit_id", "")) if text else ""
