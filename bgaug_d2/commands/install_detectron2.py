"""Install Detectron2, which has no package of that name on PyPI, into the running Python.

`--source pypi` (default) takes the source package detectron2-cdo 0.5 from PyPI. Its Python files
equal upstream's v0.5; its C++ sources are missing, so pip cannot build it as it is. This command
edits it for current NumPy, Pillow and PyTorch, puts a placeholder where the compiled module would
be, and installs the result as a pure-Python wheel: seconds, no compiler. That is enough for Faster
and Mask R-CNN and RetinaNet, whose NMS and RoIAlign come from torchvision.

`--source upstream` builds Detectron2's main branch at a pinned commit from GitHub; that needs git
and a C++ compiler, and takes minutes.

Where `detectron2` can be imported already, nothing is done: your own build is respected.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bgaug_d2.commands.detectron2_source import (
    PLACEHOLDER,
    SDIST,
    SDIST_SHA256,
    VERSION,
    apply_edits,
    arrange,
    build_wheel,
    read_sdist,
)

logger = logging.getLogger("install_detectron2")

UPSTREAM_COMMIT = "e0ec4e189d438848521aee7926f9900e114229f5"
UPSTREAM = f"git+https://github.com/facebookresearch/detectron2.git@{UPSTREAM_COMMIT}"


# pip 24 and later refuse the source package, for a URL among its optional requirements.
# The other two stand in for build isolation, which is off so that the set-up finds torch.
DOWNLOADER = ("pip==23.2.1", "setuptools==80.9.0", "wheel==0.45.1")


def pip(*args: str, on_error: str, path: Path | None = None, quiet: bool = True) -> None:
    """Run pip of this Python.

    Args:
        args: pip's arguments.
        on_error: The sentence for the user if pip fails; pip's own output comes before it.
        path: Folder whose packages go before the installed ones, pip itself included.
        quiet: Show pip's output only if it fails.

    Raises:
        SystemExit: pip failed.
    """
    env = dict(os.environ) if path is None else {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", "pip", *args, "--disable-pip-version-check"]
    done = subprocess.run(command, env=env, capture_output=quiet, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout or ''}{done.stderr or ''}{on_error}")


def download_sdist(folder: Path) -> Path:
    """Fetch the source package from PyPI; pip checks its digest before any of its code runs."""
    if importlib.util.find_spec("torch") is None:
        raise SystemExit(f"Install torch first: the set-up of {SDIST} imports it.")
    tools, requirement = folder / "tools", folder / "requirement.txt"
    requirement.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n")
    unreachable = (
        f"Could not fetch {{}} (above: why). Is PyPI reachable for {sys.executable} -m pip?"
    )
    pip(
        *("install", "--no-deps", "--target", str(tools), *DOWNLOADER),
        on_error=unreachable.format(", ".join(DOWNLOADER)),
    )
    pip(
        *("download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"),
        *("--require-hashes", "-r", str(requirement), "-d", str(folder)),
        path=tools,
        on_error=unreachable.format(SDIST),
    )
    return next(folder.glob("*.tar.gz"))


def install_from_pypi() -> None:
    """Download, edit, build and install the pure-Python build."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = apply_edits(arrange(read_sdist(download_sdist(folder))))
        files["detectron2/_C.py"] = PLACEHOLDER.encode()
        wheel = build_wheel(files, folder)
        # Without dependencies: bgaug_d2 asks for the same libraries, with limits.
        pip(
            "install", "--no-deps", str(wheel), on_error="Could not install the wheel (above: why)."
        )
    logger.info(
        "Installed detectron2 %s: upstream's v0.5 in pure Python, from %s on PyPI. Missing: "
        "compiled operators (deformable convolution, rotated boxes, the fast COCO evaluation: pass "
        "use_fast_impl=False), export to Caffe2, and what upstream added after v0.5 (ViTDet, "
        "MViT). `--source upstream` has all but the export; it needs GitHub and a C++ compiler.",
        *(VERSION, SDIST),
    )


def install_from_upstream() -> None:
    """Build Detectron2's main branch at the pinned commit."""
    # Checked before pip starts, so that the message says what to install.
    compiler = os.environ.get("CXX", "c++")
    for program, purpose in (
        ("git", "to fetch the source"),
        (compiler, "to compile the operators"),
    ):
        if shutil.which(program) is None:
            raise SystemExit(
                f"`--source upstream` needs the program {program!r} {purpose}: install it."
            )
    for module in ("torch", "setuptools", "wheel"):
        if importlib.util.find_spec(module) is None:
            raise SystemExit(
                f"`--source upstream` needs {module}: `{sys.executable} -m pip install {module}`."
            )
    pip(
        *("install", "--no-build-isolation", UPSTREAM),
        on_error=f"Could not build {UPSTREAM} (above: why). Is github.com reachable, and do the "
        "compiler and torch fit together? `--source pypi` needs neither GitHub nor a compiler.",
        quiet=False,
    )
    logger.info(
        "Installed detectron2 from GitHub at commit %s, compiled operators included. Missing: "
        "their CUDA versions, unless a CUDA compiler and a GPU were at hand during the build.",
        UPSTREAM_COMMIT,
    )


def installed_at() -> str | None:
    """Where ``detectron2`` is imported from; None if it is not installed."""
    # Not imported: a broken build would raise here.
    spec = importlib.util.find_spec("detectron2")
    return spec.origin if spec else None  # a folder without __init__.py has no origin


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug install-detectron2``."""
    parser = argparse.ArgumentParser(
        prog="bgaug install-detectron2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--source",
        choices=("pypi", "upstream"),
        default="pypi",
        help="pypi: v0.5, pure Python, seconds; upstream: main, compiled, minutes [%(default)s]",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if origin := installed_at():
        logger.info(
            "detectron2 is installed already (%s): nothing to do. To have another one, run "
            "`pip uninstall detectron2` first.",
            origin,
        )
    elif args.source == "pypi":
        install_from_pypi()
    else:
        install_from_upstream()


if __name__ == "__main__":
    main()
