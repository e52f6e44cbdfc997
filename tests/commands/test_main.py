"""``bgaug`` itself: its help, its subcommands, wrong names."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

import bgaug_d2
from bgaug_d2.commands.main import COMMANDS, main
from tests.helpers.tool_runs import REPOSITORY, bgaug

HEAVY = ("torch", "detectron2", "hydra", "numpy", "cv2", "yaml")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    printed = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert f"\n  {name} " in printed
        assert text in printed
    main([])
    assert capsys.readouterr().out == printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"bgaug {bgaug_d2.__version__}\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("trian", "did you mean train?"), ("caches", "did you mean cache?"), ("xyz", "there are")],
)
def test_a_wrong_command_gets_the_nearest_names(name: str, expected: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name])
    assert str(caught.value.code).startswith(f"bgaug: there is no command {name!r}; ")
    assert expected in str(caught.value.code)


def test_nothing_heavy_is_imported_for_the_help() -> None:
    code = (
        "import sys; from bgaug_d2.commands.main import main; main(['--help']); "
        f"print([each for each in {HEAVY} if each in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])  # the help must not depend on it
    with contextlib.suppress(SystemExit):
        main([name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: bgaug {name} ")


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    done = bgaug("train", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: bgaug train ")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_its_usual_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bgaug_d2.commands.cache.main", interrupted)
    with pytest.raises(SystemExit) as caught:
        main(["cache", "stats"])
    assert caught.value.code == 130
