"""The house stays in order: short files and functions, and a line a file in each folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bgaug_d2"
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({file.parent for file in FILES} - {PACKAGE})


def test_the_root_of_the_package_holds_folders_and_its_face() -> None:
    files = {each.name for each in PACKAGE.iterdir() if each.is_file()}
    assert files == {"__init__.py", "augmentation.py", "errors.py", "py.typed"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    long = [f"{name}: {lines} lines" for name, lines in functions(text) if lines > 50]
    assert not long


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_the_docstring_of_a_folder_names_its_files(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    names = [each.name for each in folder.glob("*.py") if each.name != "__init__.py"]
    assert not [name for name in names if name not in docstring]


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1
