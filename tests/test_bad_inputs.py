"""Every broken input is refused with an error that names it; none ends the process.

The cases are in ``bad_inputs``. They run in a process of their own, because what they guard against
are signals. The same process fed with the naive reading shows that such a death would be seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.bad_inputs import ANNOTATIONS, FILES

ROOT = Path(__file__).resolve().parents[1]


def feed(how: str, folder: Path, names: Sequence[str], timeout: float) -> dict[str, dict[str, Any]]:
    """The outcome of each case up to the one that the process died of or hung in."""
    command = [sys.executable, "-m", "tests.helpers.bad_inputs", how, str(folder), *names]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        output, _ = process.communicate(timeout=timeout)
        ending = "died" if process.returncode < 0 else f"ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        ending = "hung"
    outcomes: dict[str, dict[str, Any]] = {}
    name = ""
    for line in output.decode().splitlines():
        if line.startswith("start "):
            name = line.removeprefix("start ")
            outcomes[name] = {"outcome": ending, "message": "", "peak": 0}
        else:
            outcomes[name] = json.loads(line)
    return outcomes


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("checked")
    return feed("checked", folder, [*ANNOTATIONS, *FILES], timeout=120)


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_are_refused_by_their_ids(name: str, checked: dict[str, Any]) -> None:
    result = checked[name]
    assert result["outcome"] == "refused", result
    assert result["message"].startswith("image 9, annotation 77: ")
    assert_says(result["message"], ANNOTATIONS[name].says)


@pytest.mark.parametrize("name", FILES)
def test_files_are_refused_by_their_names(name: str, checked: dict[str, Any]) -> None:
    result = checked[name]
    assert result["outcome"] == "refused", result
    assert FILES[name].name.split("\0")[0] in result["message"]
    assert_says(result["message"], FILES[name].says)


def assert_says(message: str, pattern: str) -> None:
    with pytest.raises(RuntimeError, match=pattern):
        raise RuntimeError(message)


def test_no_bomb_goes_off(checked: dict[str, Any]) -> None:
    """Decoding the smaller one takes 1.4 GB; all cases together must stay far below."""
    assert max(result["peak"] for result in checked.values()) < 400_000_000


NAIVE = {
    "polygon, NaN": "died",
    "polygon, infinite": "died",
    "polygon, 1e8": "died",
    "polygon, null": "died",
    "RLE, empty": "died",
    "RLE, more runs than pixels": "died",
    "RLE, short": "accepted",
    "RLE, of another size": "accepted",
    "file, a pipe": "hung",
    "grey of 16 bits, PNG": "accepted",
    "name, link outside": "accepted",
}


@pytest.mark.parametrize("name", NAIVE)
def test_the_harness_catches_a_naive_reader(name: str, tmp_path: Path) -> None:
    """Where a library is mended one day the case raises; then its row here can go."""
    outcome = feed("naive", tmp_path, [name], timeout=5 if NAIVE[name] == "hung" else 60)
    assert outcome[name]["outcome"] == NAIVE[name]
