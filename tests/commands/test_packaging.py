"""What a wheel holds, and that the repository's files name the same versions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import bgaug_d2
from bgaug_d2.runs.hydra_app import config_dir
from tests.helpers.tool_runs import CONFIGS, REPOSITORY

BESIDE = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
NOT_CODE = re.compile(r"\.(safetensors|json|jinja|j2|css|txt|yaml|jpg|md|typed)$")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, because setuptools leaves files beside the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in BESIDE:
        shutil.copy(REPOSITORY / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("bgaug_d2", "configs"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    command = [*pip, "--no-index", "-w", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_a_wheel_holds_the_package_with_its_data(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = REPOSITORY / "bgaug_d2"
    for path in package.rglob("*"):
        if path.suffix == ".py" or NOT_CODE.search(path.name):
            assert path.relative_to(REPOSITORY).as_posix() in names


def test_a_wheel_holds_all_configurations_inside_the_package(wheel: zipfile.ZipFile) -> None:
    found = {each for each in wheel.namelist() if each.startswith("bgaug_d2/configs/")}
    wanted = {path.relative_to(REPOSITORY).as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert found == {f"bgaug_d2/{each}" for each in wanted}
    assert not any(each.startswith(("configs/", "tools/", "tests/")) for each in wheel.namelist())


def test_a_wheel_brings_the_command(wheel: zipfile.ZipFile) -> None:
    entry = next(each for each in wheel.namelist() if each.endswith("entry_points.txt"))
    assert "bgaug = bgaug_d2.commands.main:main" in wheel.read(entry).decode()
    metadata = next(each for each in wheel.namelist() if each.endswith("/METADATA"))
    text = wheel.read(metadata).decode()
    assert f"\nVersion: {bgaug_d2.__version__}\n" in text
    for extra in ("dev", "ray", "wandb", "mlflow"):
        assert f"\nProvides-Extra: {extra}\n" in text


def test_configurations_are_found_at_the_top_or_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config_dir() == CONFIGS
    package = tmp_path / "bgaug_d2"
    package.mkdir()
    monkeypatch.setattr(bgaug_d2, "__file__", str(package / "__init__.py"))
    assert config_dir() == tmp_path / "configs"
    (package / "configs").mkdir()
    assert config_dir() == package / "configs"


def test_files_name_the_same_versions() -> None:
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    assert f"ruff=={hooks['repos'][0]['rev'].removeprefix('v')}" in constraints
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == bgaug_d2.__version__
