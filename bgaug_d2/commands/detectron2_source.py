"""The source package of Detectron2 on PyPI, edited for current libraries, as a pure-Python wheel.

Nothing of the source package is executed here, and nothing is unpacked to disk.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SDIST = "detectron2-cdo==0.5"
SDIST_SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
# A local version, so that pip and users can tell this build from upstream's 0.5.
VERSION = "0.5+bgaug.1"

# Imported by `import detectron2.engine` and by training; pyproject.toml limits the versions.
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

# The last line of every edited file, as its licence asks for.
CHANGE_NOTE = "# Modified by bgaug_d2 (bgaug install-detectron2)."

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
        "`bgaug install-detectron2 --source upstream`."
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
    """Read a source package: content by path, without the top folder."""
    with tarfile.open(archive) as tar:
        readers = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name.split("/", 1)[-1]: file.read() for name, file in readers.items() if file}


def arrange(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Pick the files that the wheel holds and give them their place in it (see ``LAYOUT``)."""
    return {
        target + name[len(source) :]: content
        for name, content in sorted(files.items())
        for source, target in LAYOUT.items()
        if name.startswith(source)
    }


def apply_edits(files: Mapping[str, bytes], edits: Sequence[Edit] = EDITS) -> dict[str, bytes]:
    """Apply all edits to all Python files; a changed file says so in its last line.

    Raises:
        SystemExit: An edit matched more or fewer places than it must: the source is another one.
    """
    edited = dict(files)
    found = dict.fromkeys(edits, 0)
    for name in [n for n in files if n.endswith(".py")]:
        text = files[name].decode("utf-8")
        for edit in edits:
            text, n = re.subn(edit.pattern, edit.replacement, text)
            found[edit] += n
        if text.encode("utf-8") != files[name]:
            edited[name] = f"{text}\n{CHANGE_NOTE}\n".encode()
    for edit, n in found.items():
        if n != edit.count:
            raise SystemExit(
                f"The edit {edit.pattern!r} ({edit.why}) matched {n} places instead of "
                f"{edit.count}: this is not the source of {SDIST} that the edits were written for."
            )
    return edited


def build_wheel(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write a pure-Python wheel of ``files`` (path in the wheel -> content); its path."""
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
    # RECORD cannot hold its own digest.
    record += [f"{info}/RECORD,,"]
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return path


def _urlsafe_sha256(data: bytes) -> str:
    # Wheels want digests without padding.
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
