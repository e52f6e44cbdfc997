"""Whole runs of two iterations on the toy world, in this process."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import MetadataCatalog

from bgaug_d2.config.experiment import ExperimentConfig, LaunchConfig
from bgaug_d2.data.evaluator import BreakdownCOCOEvaluator, BreakdownVOCEvaluator
from bgaug_d2.data.register import register_dataset
from bgaug_d2.errors import ConfigError
from bgaug_d2.runs.launch import resolve_device
from bgaug_d2.runs.train import run
from bgaug_d2.sampling.outcomes import OUTCOMES
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.training.loader import next_iteration, training_loader
from bgaug_d2.training.trainer import BgAugTrainer, build_optimizer
from tests.helpers.data_trees import write_voc
from tests.helpers.tool_runs import experiment_of, smoke
from tests.helpers.worker_site import use_engine


def results_of(experiment: ExperimentConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run(experiment).read_text())
    return content


def cfg_of(experiment: ExperimentConfig) -> Any:
    handle = register_dataset(experiment.dataset)
    return to_cfg(experiment, handle.train, handle.test, "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def baseline(folder: Path) -> dict[str, Any]:
    return results_of(experiment_of(*smoke(folder, "toy-baseline")))


@pytest.fixture
def finished(folder: Path, baseline: dict[str, Any]) -> Path:
    """The folder of the baseline's run."""
    return folder / "run"


def test_results_agree_with_detectron2s_metrics(finished: Path, baseline: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.json").read_text().splitlines()]
    metrics = lines[-1]
    for task in ("bbox", "segm"):
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            expected = metrics[f"{task}/{name}"]
            found = baseline["metrics"][task][name]
            assert found == expected or (found is None and expected != expected)
        classes = {name for name in metrics if name.startswith(f"{task}/AP-")}
        assert {f"{task}/AP-{name}" for name in baseline["metrics"][task]["per_class"]} == classes


def test_results_agree_with_the_log(finished: Path, baseline: dict[str, Any]) -> None:
    log = (finished / "log.txt").read_text()
    table = re.search(r"Evaluation results for bbox:.*?\n(.*?\n){2}\|([^\n]*)\|", log)
    assert table is not None
    values = [each.strip() for each in table.group(2).split("|")]
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    for name, value in zip(names, values, strict=True):
        found = baseline["metrics"]["bbox"][name]
        assert value == ("nan" if found is None else f"{found:.3f}")


def test_every_run_reports_where_its_ap_comes_from(baseline: dict[str, Any]) -> None:
    assert set(baseline["breakdown"]) == {"bbox", "segm"}
    for task, found in baseline["breakdown"].items():
        assert sum(each["images"] for each in found["background"]) == 4
        classes = found["classes"].values()
        objects = sum(each["all"]["objects"] for each in classes)
        assert objects == sum(each["objects"] for each in found["background"]) > 0
        per_class = baseline["metrics"][task]["per_class"]
        assert {name: each["all"]["AP"] for name, each in found["classes"].items()} == per_class


def test_what_a_baseline_reports(finished: Path, baseline: dict[str, Any]) -> None:
    assert baseline["name"] == "toy-baseline-smoke"
    assert (baseline["seed"], baseline["iterations"], baseline["bgaug"]) == (0, 2, {"mode": "none"})
    assert baseline["outcomes"] == {**dict.fromkeys(OUTCOMES, 0), "original": 4}
    assert baseline["inpainter"] is None
    assert torch.__version__.startswith(baseline["versions"]["torch"])
    training = baseline["training"]
    assert (training["start_iter"], training["end_iter"]) == (0, 2)
    assert 0 < training["data_s"] < training["train_s"] < training["wall_s"]
    assert training["images_per_s"] == pytest.approx(4 / training["train_s"], rel=0.01)
    written = {each.name for each in finished.iterdir()}
    assert {"detectron2.yaml", "log.txt", "metrics.json", "model_final.pth"} <= written
    assert any(name.startswith("events.out.tfevents") for name in written)
    assert not (finished / "painting").exists()


def test_augmentation_that_never_happens_is_the_baseline(
    folder: Path, baseline: dict[str, Any]
) -> None:
    arguments = smoke(folder, "toy-replace", f"output_dir={folder}/never", "bgaug.p=0")
    augmented = results_of(experiment_of(*arguments, "bgaug.on_miss=error"))
    assert augmented["metrics"] == baseline["metrics"]
    assert augmented["breakdown"] == baseline["breakdown"]
    assert augmented["outcomes"] == baseline["outcomes"]


def test_duplicates_are_originals(folder: Path) -> None:
    arguments = smoke(folder, "toy-duplicate", f"output_dir={folder}/duplicated")
    found = results_of(experiment_of(*arguments, "bgaug.alpha=3"))
    assert found["outcomes"] == {**dict.fromkeys(OUTCOMES, 0), "original": 4}
    assert found["bgaug"] == {"mode": "duplicate", "alpha": 3, "weighting": "uniform"}
    assert found["inpainter"] is None
    assert not (folder / "duplicated" / "painting").exists()
    log = (folder / "duplicated" / "log.txt").read_text()
    assert "The data set is 8 images and 24 copies" in log


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paints noise, and obeys orders in prompts; a real model takes seconds to load."""
    use_engine(monkeypatch, "tests.helpers.fake_engines:build")


@pytest.mark.usefixtures("fake_engine")
def test_an_augmented_run(folder: Path, baseline: dict[str, Any]) -> None:
    arguments = smoke(folder, "toy-replace", f"output_dir={folder}/augmented", "bgaug.p=1")
    found = results_of(experiment_of(*arguments, "bgaug.on_miss=wait", "bgaug.look_ahead=4"))
    assert found["outcomes"] == {**dict.fromkeys(OUTCOMES, 0), "hit": 4}
    assert found["bgaug"] == {"mode": "replace", "p": 1.0, "variants": 4, "on_miss": "wait"}
    assert found["inpainter"]["random_weights"] is False
    assert found["workers"]["restarts"] == 0
    assert found["workers"]["workers"][0]["counts"]["painted"] >= 4
    assert (folder / "augmented" / "painting" / "worker-0.log").exists()
    counted = (folder / "augmented" / "log.txt").read_text()
    assert "Training showed, of 4 samples: 4 hit" in counted


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(
    "fault",
    [
        *("exit", "flat"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("hang", "raise boom", "shape")),
    ],
)
def test_no_fault_of_a_worker_ends_training(folder: Path, fault: str) -> None:
    name = fault.partition(" ")[0]
    arguments = smoke(folder, "toy-replace", f"output_dir={folder}/{name}", "bgaug.p=1")
    workers = ["bgaug.worker.advanced.max_restarts=1", "bgaug.worker.advanced.backoff_s=0.01"]
    arguments += [f"bgaug.recipe.prompt_text={fault}", "schedule.iterations=4", *workers]
    found = results_of(experiment_of(*arguments))
    assert sum(found["outcomes"].values()) == 8
    assert found["outcomes"]["hit"] == found["outcomes"]["original"] == 0
    assert found["training"]["end_iter"] == 4


def test_counters_reach_the_event_storage(folder: Path) -> None:
    arguments = smoke(folder, "toy-baseline", f"output_dir={folder}/storage")
    run(experiment_of(*arguments, "schedule.iterations=20", "schedule.images_per_batch=1"))
    lines = (folder / "storage" / "metrics.json").read_text().splitlines()
    metrics = json.loads(lines[0])
    assert (metrics["iteration"], metrics["bgaug/original"], metrics["bgaug/hit"]) == (19, 20, 0)
    assert metrics["data_time"] > 0


def test_a_resumed_run_goes_on(folder: Path, finished: Path) -> None:
    arguments = smoke(folder, "toy-baseline", "schedule.iterations=4", "resume=true")
    experiment = experiment_of(*arguments)
    assert next_iteration(str(finished)) == 2
    loader: Any = training_loader(cfg_of(experiment), experiment, None).loader
    assert loader.dataset.sampler.start == 4
    training = results_of(experiment)["training"]
    assert (training["start_iter"], training["end_iter"]) == (2, 4)
    assert next_iteration(str(finished)) == 4


def test_nothing_to_resume_is_the_beginning(tmp_path: Path) -> None:
    assert next_iteration(str(tmp_path)) == 0


def test_evaluating_a_checkpoint_gives_what_training_gave(
    folder: Path, baseline: dict[str, Any]
) -> None:
    checkpoint = folder / "run" / "model_0000001.pth"
    arguments = smoke(folder, "toy-baseline", "eval_only=true", f"detector.weights={checkpoint}")
    found = results_of(experiment_of(*arguments, f"output_dir={folder}/evaluation"))
    assert found["metrics"] == baseline["metrics"]
    assert found["training"] is None
    assert not (folder / "evaluation" / "results.json").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("eval_only=true", "detector.weights is empty"),
        ("detector.weights=/nowhere/model.pth", "no such file"),
        ("launch.device=cuda", "this machine has"),
        ("launch.num_machines=2", "needs GPUs"),
        ("launch.num_gpus=3", "images_per_batch=2 cannot be shared out among 3"),
    ],
)
def test_a_mistake_is_told_before_training(tmp_path: Path, override: str, sentence: str) -> None:
    arguments = smoke(tmp_path, "toy-baseline", override)
    if override == "launch.device=cuda":
        arguments.append(f"launch.num_gpus={torch.cuda.device_count() + 1}")
    with pytest.raises(ConfigError, match=sentence):
        run(experiment_of(*arguments))


@pytest.mark.parametrize(
    ("optimizer", "cls"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)]
)
def test_optimizers(tmp_path: Path, optimizer: str, cls: type) -> None:
    rate = ["schedule.base_lr=0.25", "schedule.weight_decay=0.125"]
    experiment = experiment_of(*smoke(tmp_path, "toy-baseline", *rate))
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    built = build_optimizer(cfg_of(experiment), model, optimizer)
    assert isinstance(built, cls)
    groups = [(each["lr"], each["weight_decay"]) for each in built.param_groups]
    assert set(groups[:2]) == {(0.25, 0.125)}  # of the linear layer
    assert set(groups[2:]) <= {(0.25, 0.0)}  # no decay of the normalisation


def test_the_evaluator_is_the_data_sets(tmp_path: Path) -> None:
    cfg = cfg_of(experiment_of(*smoke(tmp_path, "toy-baseline")))
    evaluator = BgAugTrainer.build_evaluator(cfg, cfg.DATASETS.TEST[0])
    assert isinstance(evaluator, BreakdownCOCOEvaluator)
    (tmp_path / "Annotations").mkdir()
    fields = {"dirname": str(tmp_path), "year": 2007, "split": "test", "thing_classes": ["cat"]}
    MetadataCatalog.get("trainer_voc").set(evaluator_type="pascal_voc", **fields)
    evaluator = BgAugTrainer.build_evaluator(cfg, "trainer_voc")
    assert isinstance(evaluator, BreakdownVOCEvaluator)


def test_devices() -> None:
    assert resolve_device(LaunchConfig(device="cpu", num_gpus=3)) == "cpu"


def test_voc_with_two_test_sets(tmp_path: Path) -> None:
    write_voc(tmp_path / "voc")
    sets = ["dataset.voc.train=[2007_trainval]", "dataset.voc.test=[2007_test,2012_trainval]"]
    sets += [f"dataset.root={tmp_path}/voc", "dataset.max_test_images=0"]
    detector = ["detector=faster_rcnn_r50_fpn", "detector.weights=''", "dataset=voc"]
    arguments = [*smoke(tmp_path, "toy-baseline", *detector), *sets, "schedule.iterations=1"]
    found = results_of(experiment_of(*arguments))
    assert len(found["metrics"]) == 2
    assert found["breakdown"].keys() == found["metrics"].keys()
    for each in found["breakdown"].values():
        assert sum(row["images"] for row in each["bbox"]["background"]) == 2


@pytest.mark.slow
def test_a_swin_on_two_processes(tmp_path: Path) -> None:
    detector = ["detector=mask_rcnn_swin_t_fpn", "schedule.optimizer=adamw", "launch.num_gpus=2"]
    found = results_of(experiment_of(*smoke(tmp_path, "toy-baseline", *detector)))
    assert found["training_processes"] == 2
    assert set(found["breakdown"]) == {"bbox", "segm"}


@pytest.mark.slow
@pytest.mark.usefixtures("fake_engine")
def test_two_processes_on_a_cpu(tmp_path: Path) -> None:
    processes = ["launch.num_gpus=2", "bgaug.p=1", "bgaug.on_miss=wait", "bgaug.look_ahead=0"]
    found = results_of(experiment_of(*smoke(tmp_path, "toy-replace", *processes)))
    assert found["training_processes"] == 2
    assert found["outcomes"]["hit"] == 4  # of both processes
    assert found["metrics"]["bbox"].keys() >= {"AP", "APs"}
    assert (tmp_path / "run" / "log.txt.rank1").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_coco-baseline", "tiny_coco-replace", "tiny_coco-expand"])
def test_real_images(tmp_path: Path, tiny_coco_root: Path, name: str) -> None:
    arguments = smoke(tmp_path, name, f"dataset.root={tiny_coco_root}", "bgaug.on_miss=wait")
    found = results_of(experiment_of(*arguments))
    assert sum(found["outcomes"].values()) == 4
    assert found["outcomes"]["error"] == 0
    assert set(found["metrics"]) == {"bbox", "segm"}
