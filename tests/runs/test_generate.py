from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bgaug_d2.cache.store import CacheEntry, VariantCache
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import ConfigError, WorkerStartError
from bgaug_d2.runs import generate as module
from bgaug_d2.runs.announce import announce_pictures, recipe_text
from bgaug_d2.runs.generate import generate
from bgaug_d2.runs.generate_report import (
    PaintingReport,
    PictureOutcome,
    announce_rest,
    finish,
)
from bgaug_d2.runs.train import run
from tests.helpers.tool_runs import REPOSITORY, experiment_of, smoke, tool
from tests.helpers.worker_site import use_engine, wait_until


def small(folder: Path, *overrides: str) -> ExperimentConfig:
    """Eight pictures of four images."""
    sizes = ["dataset.toy.num_train=4", "bgaug.variants=2"]
    return experiment_of(*smoke(folder, "toy-replace", *sizes, *overrides))


def pictures(folder: Path) -> list[str]:
    entries = VariantCache(str(folder / "cache")).entries()
    return [each.path for each in entries if isinstance(each, CacheEntry)]


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paints noise, and obeys orders in prompts; a real model takes seconds to load."""
    use_engine(monkeypatch, "tests.helpers.fake_engines:build")


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch, fake_engine: None) -> None:
    use_engine(monkeypatch, "bgaug_d2.nowhere:engine")


def test_everything_is_painted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = small(tmp_path)
    report = generate(experiment)
    assert (report.total, dict(+report.counts)) == (8, {"painted": 8})
    assert len(pictures(tmp_path)) == 8
    assert report.num_bytes == sum(os.path.getsize(each) for each in pictures(tmp_path))
    written = json.loads((tmp_path / "run" / "generate_report.json").read_text())
    assert written["counts"]["painted"] == 8
    assert written["images_per_s"] > 0
    # A damaged picture is found and painted again; what is there needs no painting process.
    Path(pictures(tmp_path)[0]).write_bytes(b"damaged")
    assert dict(+generate(experiment).counts) == {"cached": 7, "painted": 1}
    use_engine(monkeypatch, "bgaug_d2.nowhere:engine")
    assert dict(+generate(experiment).counts) == {"cached": 8}


@pytest.mark.parametrize("program", [generate, run])
def test_toy_pictures_for_photographs_are_refused_before_anything_starts(
    tmp_path: Path, program: Callable[[ExperimentConfig], object]
) -> None:
    toy = ("dataset=coco", "inpainter.allow_toy_model=false")
    with pytest.raises(ConfigError, match="'tiny' knows the toy world only.*inpainter=sd21_base"):
        program(small(tmp_path, *toy))
    with pytest.raises(ConfigError, match="inpainter.model is empty"):
        program(small(tmp_path, "inpainter.model=''"))
    assert list(tmp_path.iterdir()) == []


def test_training_finds_every_picture(tmp_path: Path) -> None:
    arguments = ("bgaug.p=1", "bgaug.on_miss=error", "schedule.iterations=6")
    generate(small(tmp_path, *arguments))
    results = json.loads(run(small(tmp_path, *arguments)).read_text())
    assert results["outcomes"]["hit"] == 12


def test_expand_paints_its_copies(tmp_path: Path) -> None:
    sizes = ["dataset.toy.num_train=4", "bgaug.alpha=1"]
    report = generate(experiment_of(*smoke(tmp_path, "toy-expand", *sizes)))
    assert report.counts["painted"] == len(pictures(tmp_path)) == 4


def test_a_dry_run_paints_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_in_flight", lambda worker: 3)
    with caplog.at_level("INFO", "bgaug_d2.runs"):
        report = generate(small(tmp_path, "dry_run=true"))
    assert dict(+report.counts) == {"painted": 3, "missing": 5}
    assert len(pictures(tmp_path)) == 3
    assert "Recipe: background painted at 64 px, clean prompt, adaptive steps" in caplog.text
    assert "Inpainter: tiny" in caplog.text
    assert "Pictures: 8 of 8 to paint" in caplog.text
    assert "3 were painted at" in caplog.text
    assert "the other 5 take about 0 min" in caplog.text


def test_pictures_that_are_refused_are_counted_and_not_painted_again(tmp_path: Path) -> None:
    flat = "bgaug.recipe.prompt_text=flat"
    report = generate(small(tmp_path, flat))
    assert dict(+report.counts) == {"rejected": 8}
    assert report.reasons == {"rejected": {"flat": 8}}
    assert report.reasons == generate(small(tmp_path, flat)).reasons


def test_images_without_room_are_skipped(tmp_path: Path) -> None:
    report = generate(small(tmp_path, "bgaug.recipe.min_background=1"))
    assert report.reasons == {"skipped": {"small_background": 8}}
    assert pictures(tmp_path) == []


def test_workers_that_die_are_given_up_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    dying = ["bgaug.recipe.prompt_text=exit", "bgaug.worker.advanced.max_restarts=1"]
    began = time.monotonic()
    report = generate(small(tmp_path, *dying, "bgaug.worker.advanced.backoff_s=0.01"))
    assert time.monotonic() - began < 60
    assert report.counts["painted"] == 0
    assert report.counts["error"] + report.counts["unavailable"] > 0
    assert report.counts.total() == report.total


def test_an_image_that_changed_is_an_error_and_the_rest_is_painted(tmp_path: Path) -> None:
    generate(small(tmp_path))
    image = next((tmp_path / "toy" / "train").iterdir())
    image.write_bytes(image.read_bytes()[:-200])
    done = tool("generate", *smoke(tmp_path, "toy-replace", *SMALL), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("2 pictures could not be painted; the reasons")
    assert image.name in done.stdout
    written = json.loads((tmp_path / "run" / "generate_report.json").read_text())
    assert (written["counts"]["cached"], written["counts"]["error"]) == (6, 2)
    assert set(itertools.chain(*written["examples"].values())) == {f"train/{image.name}"}
    assert "Traceback" not in done.stderr


SMALL = ["dataset.toy.num_train=4", "bgaug.variants=2"]


@pytest.mark.usefixtures("no_workers")
def test_without_painting_processes_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkerStartError):
        generate(small(tmp_path, "bgaug.on_miss=original"))


def test_a_baseline_has_nothing_to_paint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="paints nothing"):
        generate(experiment_of(*smoke(tmp_path, "toy-baseline")))


def test_machines_share_the_pictures(tmp_path: Path) -> None:
    shares = ["launch.num_machines=2", "bgaug.variants=1"]
    first = generate(small(tmp_path, *shares, "launch.machine_rank=0"))
    second = generate(small(tmp_path, *shares, "launch.machine_rank=1"))
    assert (first.counts["painted"], second.counts["painted"]) == (2, 2)


def test_few_items_are_submitted_at_once() -> None:
    submitted: list[int] = []

    def items() -> Iterator[int]:
        for each in range(50):
            submitted.append(each)
            yield each

    with ThreadPoolExecutor(2) as executor:
        results = module._unordered(executor, lambda each: 2 * each, items(), limit=5)
        first = next(results)
        assert len(submitted) <= 5
        assert sorted([first, *results]) == [2 * each for each in range(50)]


def test_reasons_are_counted_with_examples() -> None:
    report = PaintingReport(6)
    for image in "abcde":
        report.add(PictureOutcome("error", "it is broken", image))
    report.add(PictureOutcome("skipped", "crowd", "f"))
    assert report.reasons["error"]["it is broken"] == 5
    assert report.examples["it is broken"] == ["a", "b", "c"]
    lines = report.lines()
    assert lines[0] == "6 pictures: 1 skipped, 5 error"
    assert "5 x it is broken (for example a, b, c)" in lines[1]


def test_the_estimate_of_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "bgaug_d2.runs.announce"):
        announce_pictures([(1000, 1000)] * 1000, 1200, str(tmp_path), max_gb=1.0)
    assert "1000 of 1200 to paint" in caplog.text
    assert "about 2 GB" in caplog.text
    assert "bgaug.cache.max_gb=1 is less" in caplog.text


def test_the_estimate_of_time(caplog: pytest.LogCaptureFixture) -> None:
    report = PaintingReport(7210)
    report.counts["painted"], report.seconds, report.num_bytes = 10, 10.0, 10_000_000
    with caplog.at_level("INFO", "bgaug_d2.runs"):
        announce_rest(7210, report)
        announce_rest(1, PaintingReport(1))
        announce_rest(0, PaintingReport(1))
    assert "the other 7200 take about 2 h 0 min and 7.2 GB" in caplog.text
    assert "time unknown" in caplog.text
    assert "nothing is missing" in caplog.text


def test_the_rate_of_the_first_pictures_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RATE_AFTER", 2)
    with caplog.at_level("INFO", "bgaug_d2.runs"):
        generate(small(tmp_path, "bgaug.variants=3"))
    assert "Estimate: 2 were painted at" in caplog.text
    assert "the other 10 take about" in caplog.text


def test_a_training_that_paints_says_so_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(small(tmp_path))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Recipe: background painted at 64 px" in log
    assert "Pictures: up to 8 (4 images x 2)" in log


def test_a_recipe_on_one_line() -> None:
    assert recipe_text(RecipeConfig()) == (
        "background painted at 512 px, clean prompt, adaptive steps (T = 25, D = 0.5), "
        "guidance 7.5, erosion 7 px, objects pasted back"
    )
    other = RecipeConfig(
        step_policy="fixed", erosion_kernel=1, paste_back=False, prompt="class_names"
    )
    assert recipe_text(other) == (
        "background painted at 512 px, class names prompt, all 25 steps, guidance 7.5, "
        "no erosion, objects not pasted back"
    )


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nobody_and_goes_on(
    tmp_path: Path, ending: signal.Signals
) -> None:
    overrides = ["dataset.toy.num_train=8", "bgaug.variants=40"]
    arguments = smoke(tmp_path, "toy-replace", *overrides)
    command = [sys.executable, str(REPOSITORY / "tools" / "generate.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    patience = time.monotonic() + 120
    while not pictures(tmp_path) and time.monotonic() < patience:
        time.sleep(0.1)
    process.send_signal(ending)
    code = process.wait(60)
    assert code == (130 if ending == signal.SIGINT else -ending)
    wait_until(lambda: not _workers_of(tmp_path))
    kept = len(pictures(tmp_path))
    assert 0 < kept < 320
    assert VariantCache(str(tmp_path / "cache")).verify().corrupt == {}
    report = generate(experiment_of(*arguments))
    assert dict(+report.counts) == {"cached": kept, "painted": 320 - kept}


def _workers_of(folder: Path) -> list[str]:
    """Painting processes whose log is in ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in os.readlink(process / "fd" / "2"):
                found.append(process.name)
        except OSError:
            continue  # it has ended, or is another user's
    return found


def test_the_report_of_a_painting_keeps_what_earlier_calls_painted(tmp_path: Path) -> None:
    for painted in (3, 0, 2):
        report = PaintingReport(5)
        report.counts["painted"] = painted
        finish(report, str(tmp_path))
    content = json.loads((tmp_path / "generate_report.json").read_text())
    assert content["counts"] == {"painted": 2}
    assert [each["counts"]["painted"] for each in content["earlier"]] == [3]
    (tmp_path / "generate_report.json").write_text("[1")
    finish(PaintingReport(5), str(tmp_path))
    assert json.loads((tmp_path / "generate_report.json").read_text())["earlier"] == []
