"""Every product of configs/ composes, has a name of its own, and says what the paper says."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import Any

import pytest
from detectron2.data import MetadataCatalog

from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import ConfigError
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.worker.engines import check_inpainter
from tests.helpers.tool_runs import CONFIGS, experiment_of, options_of

BENCHMARKS, ARMS, ABLATIONS = map(options_of, ("benchmark", "arm", "ablation"))
MODES = {
    **dict.fromkeys(["baseline", "randaugment", "copy_paste", "repeat_factor"], "none"),
    **dict.fromkeys(["object", "object_background", "expand_nonuniform"], "expand"),
    **{"expand": "expand", "expand_randaugment": "expand"},
    **{"duplicate": "duplicate", "replace": "replace"},
}
SETS = ("configs_train", "configs_test")
LABELS = ("name", "arm", "output_dir", "suffix")  # what names a run and changes nothing in it


@pytest.fixture(autouse=True)
def data_set() -> None:
    MetadataCatalog.get(SETS[0]).set(thing_classes=["ball", "box"])


@functools.cache
def composed(benchmark: str, arm: str) -> ExperimentConfig:
    return experiment_of(f"benchmark={benchmark}", f"arm={arm}")


def shared(experiment: ExperimentConfig) -> dict[str, Any]:
    """What all arms of a benchmark have in common."""
    content = asdict(experiment)
    for key in (*LABELS, "bgaug", "augment"):
        del content[key]
    return content


def recipe_of(experiment: ExperimentConfig) -> dict[str, Any]:
    return asdict(experiment.bgaug.recipe)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_pair_composes_and_differs_in_nothing_but_the_augmentation(benchmark: str) -> None:
    baseline = composed(benchmark, "baseline")
    plain = BgAugConfig(
        on_miss=baseline.bgaug.on_miss, recipe=baseline.bgaug.recipe, cache=baseline.bgaug.cache
    )
    assert baseline.bgaug == plain
    seen = []
    for arm in ARMS:
        found = composed(benchmark, arm)
        assert found.name == f"{benchmark}-{arm}"
        assert found.output_dir == f"output/{benchmark}-{arm}/seed0"
        assert shared(found) == shared(baseline)
        assert found.bgaug.mode == MODES[arm]
        assert (found.bgaug.cache, found.bgaug.worker) == (plain.cache, plain.worker)
        target = {"object": "objects", "object_background": "objects_and_background"}
        expected = {**recipe_of(baseline), "target": target.get(arm, "background")}
        assert recipe_of(found) == expected
        seen.append((asdict(found.bgaug), asdict(found.augment)))
    assert all(seen.count(each) == 1 for each in seen)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmark_fits_detectron2(benchmark: str) -> None:
    experiment = composed(benchmark, "baseline")
    assert all(drop < experiment.schedule.iterations for drop in experiment.schedule.lr_drops)
    cfg = to_cfg(experiment, SETS[:1], SETS[1:], "cuda")
    assert experiment.schedule.iterations == cfg.SOLVER.MAX_ITER


def test_all_names_are_different() -> None:
    names = [composed(benchmark, arm).name for benchmark in BENCHMARKS for arm in ARMS]
    names += [experiment_of("arm=expand", f"ablation={each}").name for each in ABLATIONS]
    names += [experiment_of("arm=expand", "debug=cpu_smoke").name]
    assert len(set(names)) == len(names) - 1  # ablation=none is the arm itself


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmark_shrinks_to_seconds_on_a_cpu(benchmark: str) -> None:
    arguments = (f"benchmark={benchmark}", "arm=expand", "debug=cpu_smoke", "dataset=toy")
    experiment = experiment_of(*arguments)
    assert experiment.name == f"{benchmark}-expand-smoke"
    assert (experiment.launch.device, experiment.bgaug.worker.devices) == ("cpu", ["cpu"])
    assert (experiment.inpainter.model, experiment.detector.weights) == ("tiny", "")
    assert experiment.schedule.iterations == 2
    assert experiment.dataset.kind == "toy"
    assert max(experiment.dataset.max_train_images, experiment.dataset.toy.num_train) == 8
    cfg = to_cfg(experiment, SETS[:1], SETS[1:], "cpu")
    assert cfg.INPUT.MAX_SIZE_TRAIN == 128


def test_a_miniature_keeps_the_name() -> None:
    found = experiment_of("benchmark=coco_swin_t", "arm=expand", "debug=miniature")
    assert (found.name, found.schedule.iterations) == ("coco_swin_t-expand", 4)


@pytest.mark.parametrize("group", ["dataset", "detector", "schedule", "inpainter", "recipe"])
def test_every_option_composes(group: str) -> None:
    for option in options_of(group):
        values = ["inpainter.model=somewhere"] if option == "local" else []
        experiment_of(f"{group}={option}", *values)


def test_a_local_model_has_to_be_named() -> None:
    for option in ("local", "none"):
        with pytest.raises(ConfigError, match=r"inpainter\.model is empty"):
            check_inpainter(experiment_of(f"inpainter={option}").inpainter, toy_world=False)


CHANGES: dict[str, dict[str, object]] = {
    "none": {},
    "D25": {"D": 0.25},
    "D50": {},  # the default, named
    "D75": {"D": 0.75},
    "fixed_steps": {"step_policy": "fixed"},
    "no_erosion": {"erosion_kernel": 1},
    "k3": {"erosion_kernel": 3},
    "k11": {"erosion_kernel": 11},
    "k15": {"erosion_kernel": 15},
    "no_paste_back": {"paste_back": False},
    "caption_prompt": {"prompt": "caption"},
    "scene_prompts": {"prompt": "scene"},
    "alpha2": {},
    "alpha5": {},
    "alpha10": {},
    "ladder_caption": {"prompt": "caption", "erosion_kernel": 1, "step_policy": "fixed"},
    "ladder_clean": {"erosion_kernel": 1, "step_policy": "fixed"},
    "ladder_erosion": {"step_policy": "fixed"},
}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_changes_what_it_says(ablation: str) -> None:
    plain = composed("coco10_faster_rcnn", "expand")
    changed = experiment_of("benchmark=coco10_faster_rcnn", "arm=expand", f"ablation={ablation}")
    before, after = recipe_of(plain), recipe_of(changed)
    different = {key: after[key] for key in before if before[key] != after[key]}
    scenes = different.pop("scenes", ["no prompts of scenes"])
    assert different == CHANGES[ablation]
    assert (len(set(scenes)) > 1) == (ablation == "scene_prompts")
    assert changed.bgaug.alpha == {"alpha2": 2, "alpha5": 5, "alpha10": 10}.get(ablation, 1)
    suffix = "" if ablation == "none" else f"-{ablation}"
    assert changed.name == f"coco10_faster_rcnn-expand{suffix}"
    assert shared(changed) == shared(plain)


def test_an_ablation_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match="ablation=D25 .*arm=duplicate .*mode=duplicate. paints"):
        experiment_of("benchmark=toy", "arm=duplicate", "ablation=D25")
    with pytest.raises(ConfigError, match=r"bgaug\.alpha=2 means nothing with bgaug\.mode=none"):
        experiment_of("benchmark=toy", "arm=baseline", "ablation=alpha2")
    assert experiment_of("arm=duplicate", "ablation=alpha2").name == "toy-duplicate-alpha2"


def test_the_model_decides_nothing_about_the_recipe() -> None:
    recipes = [experiment_of(f"inpainter={each}").bgaug for each in ("tiny", "sd_turbo", "none")]
    assert recipes[0] == recipes[1] == recipes[2]
    assert experiment_of("benchmark=coco_retinanet").inpainter.model.endswith("2-1-base")
    assert experiment_of("dataset=coco").inpainter.model == "tiny"  # of benchmark=toy


def test_papers_settings() -> None:
    experiment = composed("coco10_faster_rcnn", "expand")
    assert experiment.bgaug.recipe == RecipeConfig()  # the paper's values are the defaults
    recipe = experiment.bgaug.recipe
    assert (recipe.prompt_text, recipe.erosion_kernel) == ("Generate a clean background", 7)
    assert (recipe.num_inference_steps, recipe.D, recipe.resolution) == (25, 0.5, 512)
    assert (experiment.bgaug.mode, experiment.bgaug.alpha) == ("expand", 1)
    assert (experiment.dataset.coco.percent, experiment.dataset.coco.fold) == (10, 1)
    schedule = experiment.schedule
    assert (schedule.images_per_batch, schedule.base_lr, schedule.weight_decay) == (8, 0.01, 1e-4)
    assert (schedule.iterations, schedule.lr_drops) == (180_000, [110_000, 160_000])
    assert composed("coco10_faster_rcnn", "baseline").bgaug == BgAugConfig()


def test_a_batch_factor_scales_the_schedule_once() -> None:
    one = composed("coco_retinanet", "baseline").schedule
    five = experiment_of("benchmark=coco_retinanet", "schedule.batch_factor=5").schedule
    assert (five.images_per_batch, five.base_lr, five.batch_factor) == (40, 0.05, 1)
    assert (five.iterations, five.lr_drops, five.warmup_iters) == (35_180, [22_000, 32_000], 100)
    assert one.iterations * one.images_per_batch == pytest.approx(five.iterations * 40, rel=1e-3)
    with pytest.raises(ConfigError, match=r"0\.3 times .* is 2\.4, no whole number"):
        experiment_of("benchmark=coco_retinanet", "schedule.batch_factor=0.3")


def test_a_drop_at_the_end_is_left_out() -> None:
    experiment = experiment_of("schedule.iterations=200", "schedule.lr_drops=[100,200]")
    assert to_cfg(experiment, SETS[:1], SETS[1:], "cpu").SOLVER.STEPS == (100,)


@pytest.mark.parametrize(
    ("benchmark", "images", "epochs"),
    [
        ("coco_retinanet", 117_266, 12),
        ("voc_retinanet", 16_551, 12),
        ("voc_mask_rcnn", 2_913, 36),
        ("coco_swin_t", 117_266, 36),
        ("own_coco", 1_000, 24),
    ],
)
def test_epochs(benchmark: str, images: int, epochs: int) -> None:
    found = composed(benchmark, "baseline").schedule
    assert found.iterations * found.images_per_batch / images == pytest.approx(epochs, abs=0.01)


def test_the_files_are_few_and_name_no_machine() -> None:
    files = [*CONFIGS.rglob("*.yaml")]
    assert len(files) <= 75
    for file in files:
        assert "/work" not in file.read_text()
        assert "/home" not in file.read_text()
