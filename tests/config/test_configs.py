"""Every file in configs/ composes, and says what the paper says."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from detectron2.data import MetadataCatalog

from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import ConfigError
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.worker.engines import check_inpainter
from tests.helpers.tool_runs import CONFIGS, experiment_of, options_of

EXPERIMENTS = options_of("experiment")
TWINS = [each for each in EXPERIMENTS if "_bgaug" in each and "-" not in each]
SETS = ("configs_train", "configs_test")


@pytest.fixture(autouse=True)
def data_set() -> None:
    MetadataCatalog.get(SETS[0]).set(thing_classes=["ball", "box"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes(name: str) -> None:
    experiment = experiment_of(f"experiment={name}")
    folder, _, short = name.rpartition("/")
    assert experiment.name + experiment.suffix == short
    runs = f"{folder}/runs/{short}" if folder else name
    assert experiment.output_dir == f"output/{runs}/seed0"
    assert all(step < experiment.schedule.iterations for step in experiment.schedule.steps)
    cfg = to_cfg(experiment, SETS[:1], SETS[1:], "cuda")
    assert experiment.schedule.iterations == cfg.SOLVER.MAX_ITER


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_shrinks_to_seconds_on_a_cpu(name: str) -> None:
    experiment = experiment_of(f"experiment={name}", "debug=cpu_smoke", "dataset=toy")
    assert (experiment.launch.device, experiment.bgaug.worker.devices) == ("cpu", ["cpu"])
    assert (experiment.inpainter.model, experiment.detector.weights) == ("tiny", "")
    assert experiment.schedule.iterations == 2
    assert experiment.dataset.kind == "toy"
    assert max(experiment.dataset.max_train_images, experiment.dataset.toy.num_train) == 8
    assert experiment.output_dir != experiment_of(f"experiment={name}").output_dir
    cfg = to_cfg(experiment, SETS[:1], SETS[1:], "cpu")
    assert cfg.INPUT.MAX_SIZE_TRAIN == 128


@pytest.mark.parametrize("name", TWINS)
def test_twins_differ_in_the_bgaug_group_only(name: str) -> None:
    stem = name.partition("_bgaug")[0]
    augmented = asdict(experiment_of(f"experiment={name}"))
    baseline = asdict(experiment_of(f"experiment={stem}_baseline"))
    groups = (augmented.pop("bgaug"), baseline.pop("bgaug"))
    assert groups[0]["mode"] == ("expand" if name.endswith("_expand") else "replace")
    assert groups[1]["mode"] == "none"
    assert groups[0]["recipe"] == groups[1]["recipe"]
    for each in (augmented, baseline):
        del each["name"], each["output_dir"]
    assert augmented == baseline


@pytest.mark.parametrize(
    "group", ["dataset", "detector", "schedule", "inpainter", "augment", "bgaug"]
)
def test_every_option_composes(group: str) -> None:
    for option in options_of(group):
        values = ["inpainter.model=somewhere"] if option == "local" else []
        experiment_of(f"{group}={option}", *values)


@pytest.mark.parametrize(
    ("option", "target"), [("object", "objects"), ("object_background", "objects_and_background")]
)
def test_object_augmentation_is_the_papers_expansion(option: str, target: str) -> None:
    found = experiment_of(f"bgaug={option}", "inpainter=sd21_base").bgaug
    expected = experiment_of("bgaug=expand", "inpainter=sd21_base").bgaug
    expected.recipe.target = target
    assert found == expected


def test_a_local_model_has_to_be_named() -> None:
    for option in ("local", "none"):
        with pytest.raises(ConfigError, match=r"inpainter\.model is empty"):
            check_inpainter(experiment_of(f"inpainter={option}").inpainter, "coco")


ABLATIONS: dict[str, dict[str, object]] = {
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
}


@pytest.mark.parametrize("ablation", [each for each in options_of("ablation") if each != "none"])
def test_an_ablation_changes_one_value_of_the_recipe(ablation: str) -> None:
    plain, changed = (
        experiment_of("experiment=coco10_faster_rcnn_bgaug_expand", f"ablation={each}")
        for each in ("none", ablation)
    )
    before, after = asdict(plain.bgaug.recipe), asdict(changed.bgaug.recipe)
    different = {key: after[key] for key in before if before[key] != after[key]}
    scenes = different.pop("scenes", ["no prompts of scenes"])
    assert different == ABLATIONS[ablation]
    assert (len(set(scenes)) > 1) == (ablation == "scene_prompts")
    assert (changed.name, changed.suffix) == (plain.name, f"-{ablation}")
    assert changed.output_dir != plain.output_dir


def test_papers_settings() -> None:
    experiment = experiment_of("experiment=coco10_faster_rcnn_bgaug_expand")
    assert experiment.bgaug.recipe == RecipeConfig()  # the paper's values are the defaults
    recipe = experiment.bgaug.recipe
    assert (recipe.prompt_text, recipe.erosion_kernel) == ("Generate a clean background", 7)
    assert (recipe.num_inference_steps, recipe.D, recipe.resolution) == (25, 0.5, 512)
    assert (experiment.bgaug.mode, experiment.bgaug.alpha) == ("expand", 1)
    assert (experiment.dataset.coco.percent, experiment.dataset.coco.fold) == (10, 1)
    schedule = experiment.schedule
    assert (schedule.images_per_batch, schedule.base_lr, schedule.weight_decay) == (8, 0.01, 1e-4)
    assert (schedule.iterations, schedule.steps) == (180_000, [110_000, 160_000])


def test_a_batch_factor_scales_the_schedule_once() -> None:
    one = experiment_of("experiment=coco_retinanet_baseline").schedule
    five = experiment_of("experiment=coco_retinanet_baseline", "schedule.batch_factor=5").schedule
    assert (five.images_per_batch, five.base_lr, five.batch_factor) == (40, 0.05, 1)
    assert (five.iterations, five.steps, five.warmup_iters) == (35_180, [22_000, 32_000], 100)
    assert one.iterations * one.images_per_batch == pytest.approx(five.iterations * 40, rel=1e-3)
    with pytest.raises(ConfigError, match=r"0\.3 times .* is 2\.4, no whole number"):
        experiment_of("experiment=coco_retinanet_baseline", "schedule.batch_factor=0.3")


def test_a_drop_at_the_end_is_left_out() -> None:
    experiment = experiment_of("schedule.iterations=200", "schedule.steps=[100,200]")
    assert to_cfg(experiment, SETS[:1], SETS[1:], "cpu").SOLVER.STEPS == (100,)


@pytest.mark.parametrize(
    ("schedule", "images", "epochs"),
    [("coco_12_epochs", 117_266, 12), ("voc_12_epochs", 16_551, 12), ("coco_swin_3x", 117_266, 36)],
)
def test_epochs(schedule: str, images: int, epochs: int) -> None:
    found = experiment_of(f"schedule={schedule}").schedule
    assert found.iterations * found.images_per_batch / images == pytest.approx(epochs, abs=0.01)


def test_the_baseline_changes_nothing() -> None:
    assert experiment_of("bgaug=baseline", "inpainter=sd21_base").bgaug == BgAugConfig()


def test_no_file_names_a_machine() -> None:
    for file in CONFIGS.rglob("*.yaml"):
        assert "/work" not in file.read_text()
        assert "/home" not in file.read_text()
