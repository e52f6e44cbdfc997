"""Installs Detectron2, which has no package of that name on PyPI, into the running Python.

`--source pypi` (default) takes the source package detectron2-cdo 0.5 from PyPI. Its Python files
equal upstream's v0.5; its C++ sources are missing, so it cannot be built as it is. This program
edits it for current NumPy, Pillow and PyTorch, puts a placeholder where the compiled module would
be, and installs the result as a pure-Python wheel: seconds, no compiler. Enough for Faster and
Mask R-CNN and RetinaNet, whose NMS and RoIAlign come from torchvision.

`--source upstream` builds Detectron2's main branch at a pinned commit from GitHub; that needs git
and a C++ compiler, and takes minutes.

Where `detectron2` can be imported already, nothing is done: your own build is respected.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("install_detectron2")

SDIST = "detectron2-cdo==0.5"
SDIST_SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
VERSION = "0.5+bgaug.1"
UPSTREAM_COMMIT = "e0ec4e189d438848521aee7926f9900e114229f5"
UPSTREAM = f"git+https://github.com/facebookresearch/detectron2.git@{UPSTREAM_COMMIT}"

# pip 24 and later refuse the source package, for a URL among its optional requirements.
DOWNLOADER = ("pip==23.2.1", "setuptools==80.9.0", "wheel==0.45.1")

# Imported by `import detectron2.engine` and by training; versions are setup.py's business.
REQUIRES = (
    "Pillow",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7,<0.1.10",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "torch",
    "torchvision",
    "tqdm>4.29.0",
    "yacs>=0.1.6",
)

# Where the source package keeps what the wheel holds: prefix in the package -> prefix in the wheel.
LAYOUT = {
    "detectron2/": "detectron2/",
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
    "LICENSE": f"detectron2-{VERSION}.dist-info/licenses/LICENSE",
}

PLACEHOLDER = '''"""Stands where Detectron2's compiled operators would be; using one raises."""


def get_compiler_version():
    return "none: pure-Python build"


def get_cuda_version():
    return "none: pure-Python build"


def has_cuda():
    return False


def __getattr__(name):
    raise AttributeError(
        f"detectron2._C.{name} is a compiled operator, and this is the pure-Python build of "
        "Detectron2 (no deformable convolution, no rotated boxes, no fast COCO evaluation). Use "
        "COCOEvaluator(use_fast_impl=False), or `pip uninstall detectron2` and then "
        "`python tools/install_detectron2.py --source upstream`."
    )
'''


@dataclass(frozen=True)
class Edit:
    """One mechanical change, applied to every Python file; `count` is how often it must occur."""

    why: str
    pattern: str
    replacement: str
    count: int


EDITS = (
    Edit("NumPy 1.24 removed these aliases", r"\bnp\.(bool|int|float|object|str)\b", r"\1", 18),
    Edit("NumPy 2: copy=False raises", r"\bnp\.array\(mask, copy=False\)", "np.asarray(mask)", 1),
    Edit("Pillow 10 removed the alias", r"\bImage\.LINEAR\b", "Image.BILINEAR", 1),
    Edit("setuptools 82 removed it", r"(?m)^import pkg_resources\n", "", 1),
    Edit(
        "setuptools 82 removed it",
        r'pkg_resources\.resource_filename\(\s*"detectron2\.model_zoo", ',
        "os.path.join(os.path.dirname(__file__), ",
        1,
    ),
    Edit(
        "PyTorch warns without `indexing`",
        r"torch\.meshgrid\(shifts_y, shifts_x\)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        1,
    ),
)


def read_sdist(archive: Path) -> dict[str, bytes]:
    """Returns the files of a source package by their path in it; nothing is unpacked to disk."""
    with tarfile.open(archive) as tar:
        readers = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name.split("/", 1)[-1]: file.read() for name, file in readers.items() if file}


def arrange(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Picks the files that the wheel holds and gives them their place in it (see LAYOUT)."""
    return {
        target + name[len(source) :]: content
        for name, content in sorted(files.items())
        for source, target in LAYOUT.items()
        if name.startswith(source)
    }


def apply_edits(files: Mapping[str, bytes], edits: Sequence[Edit] = EDITS) -> dict[str, bytes]:
    """Returns the files after all edits; a changed file says so in its last line.

    Raises:
        SystemExit: if an edit matched more or fewer places than it must: the source is another one.
    """
    edited = dict(files)
    found = dict.fromkeys(edits, 0)
    for name in [n for n in files if n.endswith(".py")]:
        text = files[name].decode("utf-8")
        for edit in edits:
            text, n = re.subn(edit.pattern, edit.replacement, text)
            found[edit] += n
        if text.encode("utf-8") != files[name]:
            edited[name] = f"{text}\n# Modified by bgaug_d2 tools/install_detectron2.py.\n".encode()
    for edit, n in found.items():
        if n != edit.count:
            raise SystemExit(
                f"The edit {edit.pattern!r} ({edit.why}) matched {n} places instead of "
                f"{edit.count}: this is not the source of {SDIST} that the edits were written for."
            )
    return edited


def build_wheel(files: Mapping[str, bytes], folder: Path) -> Path:
    """Writes a pure-Python wheel of `files` (path in the wheel -> content) and returns its path."""
    info = f"detectron2-{VERSION}.dist-info"
    metadata = ["Metadata-Version: 2.1", "Name: detectron2", f"Version: {VERSION}"]
    metadata += ["Summary: Detectron2 0.5, pure Python, edited for current libraries by bgaug_d2"]
    metadata += ["License: Apache-2.0", "Requires-Python: >=3.10"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in REQUIRES]
    wheel = [
        "Wheel-Version: 1.0",
        "Generator: bgaug_d2",
        "Root-Is-Purelib: true",
        "Tag: py3-none-any",
    ]
    files = {
        **files,
        f"{info}/METADATA": ("\n".join(metadata) + "\n").encode(),
        f"{info}/WHEEL": ("\n".join(wheel) + "\n").encode(),
    }
    record = [f"{name},sha256={_urlsafe_sha256(data)},{len(data)}" for name, data in files.items()]
    record += [f"{info}/RECORD,,"]
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return path


def _urlsafe_sha256(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def pip(*args: str, on_error: str, path: Path | None = None, quiet: bool = True) -> None:
    """Runs pip of this Python.

    Args:
        args: pip's arguments.
        on_error: what to tell the user if pip fails; pip's own output comes before it.
        path: a folder whose packages go before the installed ones, pip itself included.
        quiet: keep pip's output back unless it fails.
    """
    env = dict(os.environ) if path is None else {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", "pip", *args, "--disable-pip-version-check"]
    done = subprocess.run(command, env=env, capture_output=quiet, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout or ''}{done.stderr or ''}{on_error}")


def download_sdist(folder: Path) -> Path:
    """Fetches the source package from PyPI; pip checks its digest before any of its code runs."""
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
    """Downloads, edits, builds and installs the pure-Python build."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = apply_edits(arrange(read_sdist(download_sdist(folder))))
        files["detectron2/_C.py"] = PLACEHOLDER.encode()
        wheel = build_wheel(files, folder)
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
    """Builds Detectron2's main branch at the pinned commit."""
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
    """Returns where `detectron2` is imported from, or None if it cannot be."""
    spec = importlib.util.find_spec("detectron2")
    return spec.origin if spec else None  # a folder without __init__.py has no origin


def main(argv: Sequence[str] | None = None) -> None:
    """Installs Detectron2 from the chosen source unless it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        choices=("pypi", "upstream"),
        default="pypi",
        help="pypi: v0.5, pure Python, seconds; upstream: main, compiled, minutes (default: pypi)",
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
