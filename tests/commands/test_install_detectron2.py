"""``bgaug install-detectron2``, offline: the edits, the wheel, and what it says to its user."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bgaug_d2.commands import install_detectron2
from bgaug_d2.commands.detectron2_source import (
    CHANGE_NOTE,
    EDITS,
    PLACEHOLDER,
    VERSION,
    Edit,
    apply_edits,
    arrange,
    build_wheel,
    read_sdist,
)

ALIASES = EDITS[0]


def edit_text(text: str, *edits: Edit) -> str:
    """Applies edits to one file, whatever their counts; returns it without the last-line note."""
    counted = [replace(e, count=len(re.findall(e.pattern, text))) for e in edits]
    edited = apply_edits({"a.py": text.encode()}, counted)["a.py"].decode()
    return edited.removesuffix(f"\n{CHANGE_NOTE}\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x.astype(np.bool)", "x.astype(bool)"),
        ("np.zeros((n,), dtype=np.int)", "np.zeros((n,), dtype=int)"),
        ("dtype=np.float, order='C'", "dtype=float, order='C'"),
        ("np.loadtxt(f, dtype=np.str)", "np.loadtxt(f, dtype=str)"),
        ("np.array(a, dtype=np.object)", "np.array(a, dtype=object)"),
    ],
)
def test_removed_numpy_aliases_become_builtins(before: str, after: str) -> None:
    assert edit_text(before, ALIASES) == after


@pytest.mark.parametrize(
    "text",
    ["np.bool_", "np.int64", "np.float32", "np.str_", "np.intp", "snp.int", "numpy_np_float"],
)
def test_living_numpy_names_are_left_alone(text: str) -> None:
    assert edit_text(text, ALIASES) == text


def test_model_zoo_finds_its_configs_without_pkg_resources(tmp_path: Path) -> None:
    source = (
        "import os\nimport pkg_resources\n\ndef get_config_file(config_path):\n"
        "    return pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )\n'
    )
    edits = [e for e in EDITS if "pkg_resources" in e.pattern]
    module = tmp_path / "model_zoo.py"
    module.write_text(edit_text(source, *edits))
    found = runpy.run_path(str(module))["get_config_file"]("a.yaml")
    assert Path(found) == tmp_path / "configs" / "a.yaml"


def test_a_changed_file_says_so_and_the_others_stay_as_they_are() -> None:
    files = {"a.py": b"np.int\n", "b.py": b"np.int64\n", "LICENSE": b"np.int\n"}
    edited = apply_edits(files, [replace(ALIASES, count=1)])
    assert edited["a.py"].startswith(b"int\n")
    assert b"Modified by bgaug_d2" in edited["a.py"]
    assert {k: edited[k] for k in ("b.py", "LICENSE")} == {k: files[k] for k in ("b.py", "LICENSE")}


@pytest.mark.parametrize("text", ["np.bool", "np.bool np.bool np.bool"])
def test_an_unexpected_number_of_places_is_an_error(text: str) -> None:
    with pytest.raises(SystemExit, match=r"matched \d places instead of 2"):
        apply_edits({"a.py": text.encode()}, [replace(ALIASES, count=2)])


def test_the_source_package_is_read_and_arranged(tmp_path: Path) -> None:
    archive = tmp_path / "d-0.5.tar.gz"
    names = ("setup.py", "detectron2/__init__.py", "projects/PointRend/point_rend/__init__.py")
    with tarfile.open(archive, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(f"d-0.5/{name}")
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    files = read_sdist(archive)
    assert files == {name: name.encode() for name in names}
    assert arrange(files) == {
        "detectron2/__init__.py": names[1].encode(),
        "detectron2/projects/point_rend/__init__.py": names[2].encode(),
    }


def test_the_wheel_is_one_that_pip_installs(tmp_path: Path) -> None:
    files = {"detectron2/__init__.py": b"__version__ = '0.5'\n"}
    files["detectron2/_C.py"] = PLACEHOLDER.encode()
    wheel = build_wheel(files, tmp_path)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True, capture_output=True)
    assert (site / "detectron2/__init__.py").read_bytes() == files["detectron2/__init__.py"]
    metadata = next(site.glob("*.dist-info/METADATA")).read_text()
    assert f"Version: {VERSION}\n" in metadata


def test_the_record_has_the_digest_of_every_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(
        build_wheel({"detectron2/a.py": b"a", "detectron2/b.py": b"b"}, tmp_path)
    ) as z:
        record_name = next(n for n in z.namelist() if n.endswith("RECORD"))
        rows = list(csv.reader(z.read(record_name).decode().splitlines()))
        assert sorted(name for name, _, _ in rows) == sorted(z.namelist())
        for name, digest, size in rows:
            if name != record_name:
                sha256 = base64.urlsafe_b64encode(hashlib.sha256(z.read(name)).digest()).decode()
                assert digest == "sha256=" + sha256.rstrip("=")
                assert int(size) == len(z.read(name))


def test_the_placeholder_imports_and_explains_itself_when_used(tmp_path: Path) -> None:
    path = tmp_path / "placeholder.py"
    path.write_text(PLACEHOLDER)
    names = runpy.run_path(str(path))
    assert names["has_cuda"]() is False
    with pytest.raises(AttributeError, match="use_fast_impl=False"):
        names["__getattr__"]("COCOevalEvaluateImages")


def test_an_installed_detectron2_is_respected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(install_detectron2, "installed_at", lambda: "somewhere/__init__.py")
    monkeypatch.setattr(install_detectron2, "pip", lambda *_, **__: pytest.fail("pip was run"))
    with caplog.at_level("INFO"):
        install_detectron2.main(["--source", "upstream"])
    assert "installed already (somewhere/__init__.py)" in caplog.text


def test_without_torch_there_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(install_detectron2.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="Install torch first"):
        install_detectron2.download_sdist(tmp_path)


def test_a_failing_pip_is_reported_with_its_output() -> None:
    with pytest.raises(SystemExit, match=r"(?s)no-such-command.*What to do\."):
        install_detectron2.pip("no-such-command", on_error="What to do.")


def test_upstream_without_a_compiler_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(install_detectron2.shutil, "which", lambda p: p if p == "git" else None)
    with pytest.raises(SystemExit, match="needs the program 'no-such-compiler'"):
        install_detectron2.install_from_upstream()
