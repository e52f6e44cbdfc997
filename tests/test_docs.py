"""What the documentation names exists, its command lines compose, and it stays readable."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from bgaug_d2.commands.main import COMMANDS
from bgaug_d2.errors import BgAugError
from bgaug_d2.runs.hydra_app import check_overrides, register_base, to_experiment

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
GENERATED = {"toy.md", "toy_128.md", "toy_128_fresh.md", "miniature.md"}
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *CONFIGS.glob("*.md"),
        *(page for page in ROOT.glob("docs/**/*.md") if "toy_runs" not in page.parts),
    ]
)
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
GROUPS = ("benchmark", "arm", "ablation", "debug", "inpainter", "recipe", "detector", "dataset")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
written_page = pytest.mark.parametrize(
    "page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT))
)


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(page.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, heading = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        if heading and linked.suffix == ".md":
            assert heading in _anchors(linked.read_text()), f"{page.name} links to {target}"


@written_page
def test_lines_are_short(page):
    long = [line for line in page.read_text().splitlines() if len(line) >= 100]
    # A row of a table cannot be broken, and neither can a word without a space.
    assert [line for line in long if not line.startswith("|") and " " in line.strip()] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1200


@written_page
def test_subcommands_exist(page):
    for name in re.findall(r"(?<![\w.])bgaug ([a-z][a-z0-9-]*)", _code(page.read_text())):
        assert name in COMMANDS, f"{page.name} names `bgaug {name}`"


@written_page
def test_group_options_exist(page):
    for group, option in _choices(_code(page.read_text())):
        assert (CONFIGS / group / f"{option}.yaml").is_file(), f"{page.name}: {group}={option}"


def test_command_lines_compose():
    lines = dict(line for page in WRITTEN for line in _hydra_lines(_code(page.read_text())))
    assert lines
    register_base()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for overrides, line in lines.items():
            try:
                check_overrides(overrides, CONFIGS)
                to_experiment(compose("train", list(overrides)))
            except BgAugError as error:
                pytest.fail(f"{line}: {error}")


def test_all_benchmarks_and_arms_are_documented():
    text = (CONFIGS / "README.md").read_text()
    for group in ("benchmark", "arm", "ablation"):
        for file in (CONFIGS / group).glob("*.yaml"):
            assert f"`{file.stem}`" in text, f"configs/README.md does not name {group}={file.stem}"


def _choices(code: str) -> Iterator[tuple[str, str]]:
    """Every GROUP=OPTION; NAME, FOLDER and the like in capitals stand for an option."""
    pattern = rf"(?<![\w.])({'|'.join(GROUPS)})=([\w,]+)"
    for group, options in re.findall(pattern, code):
        for option in options.split(","):
            # An attribute of the Python interface may have a group's name: mode="replace".
            if option and not option.isupper():
                yield group, option


def _hydra_lines(code: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Overrides and text of what Hydra reads; of a sweep, the overrides of its first run."""
    lines = re.sub(r"\\\n\s*", " ", code)
    for line in re.findall(r"^bgaug (?:train|paint|samples) [^\n]*", lines, flags=re.MULTILINE):
        words = shlex.split(line, comments=True)
        overrides = [word for word in words if "=" in word and not word.startswith("-")]
        if "-m" in words:
            overrides = [word.partition(",")[0] for word in overrides]
        # arm=NAME stands for any arm.
        overrides = [word for word in overrides if word.partition("=")[2] != "NAME"]
        yield tuple(overrides), line


def _code(text: str) -> str:
    """What stands in backticks: blocks and words of code."""
    blocks = re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", _without_blocks(text))
    return "\n".join([*blocks, *spans])


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", _without_blocks(text))


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _without_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
