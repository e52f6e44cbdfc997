from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from omegaconf import OmegaConf

from bgaug_d2.config.experiment import DatasetConfig, DetectorConfig, ExperimentConfig, VocConfig
from bgaug_d2.config.parse import valid_keys
from bgaug_d2.errors import ConfigError
from bgaug_d2.runs.hydra_app import check_overrides, to_experiment
from bgaug_d2.training.detectron2_cfg import to_cfg
from tests.helpers.tool_runs import CONFIGS, REPOSITORY

SETS = ("bridge_train", "bridge_test")


@pytest.fixture(autouse=True)
def data_set() -> None:
    MetadataCatalog.get(SETS[0]).set(thing_classes=["ball", "box", "star"])


def cfg_of(experiment: ExperimentConfig) -> CfgNode:
    return to_cfg(experiment, SETS[:1], SETS[1:], "cpu")


def with_opts(opts: dict[str, object]) -> ExperimentConfig:
    return ExperimentConfig(detector=DetectorConfig(opts=opts))


def test_defaults_survive_the_way_to_hydra_and_back() -> None:
    assert to_experiment(OmegaConf.create(asdict(ExperimentConfig()))) == ExperimentConfig()


def test_values_arrive_with_their_types() -> None:
    cfg = OmegaConf.create(
        {
            "seed": 7,
            "bgaug": {"mode": "replace", "p": 1, "worker": {"devices": ["cpu", "cpu"]}},
            "schedule": {"lr_drops": [3, 5], "base_lr": 0.5},
            "detector": {"opts": {"MODEL": {"MASK_ON": False}}},
            "output_dir": "out/${seed}",
        }
    )
    experiment = to_experiment(cfg)
    assert experiment.seed == 7
    assert experiment.bgaug.p == 1.0
    assert isinstance(experiment.bgaug.p, float)
    assert experiment.bgaug.worker.devices == ["cpu", "cpu"]
    assert experiment.schedule.lr_drops == [3, 5]
    assert experiment.detector.opts == {"MODEL": {"MASK_ON": False}}
    assert experiment.output_dir == "out/7"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"bgaug": {"recipe": {"d": 1}}}, "'bgaug.recipe.d'; did you mean bgaug.recipe.D"),
        (
            {"bgaug": {"worker": {"deadline_s": 5}}},
            r"'bgaug.worker.deadline_s'; did you mean bgaug.worker.advanced.deadline_s\?",
        ),
        ({"bgaug": {"D": 1}}, "'bgaug.D'; did you mean bgaug.recipe.D"),
        ({"recipe": {"D": 0.3}}, "'recipe'; did you mean bgaug.recipe"),
        ({"seed": "7"}, "seed='7' must be a whole number"),
        ({"seed": True}, "seed=True must be a whole number"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({"resume": 1}, "resume=1 must be true or false"),
        ({"name": 12}, "name=12 must be text"),
        ({"name": None}, "name=None must be text"),
        ({"bgaug": {"p": "half"}}, "bgaug.p='half' must be a number"),
        ({"bgaug": {"p": 2}}, "bgaug.p=2.0 is not allowed"),
        ({"bgaug": {"p": float("nan")}}, "bgaug.p=nan is not allowed"),
        ({"bgaug": "replace"}, "bgaug='replace' must be a section"),
        ({"schedule": {"lr_drops": 5}}, "schedule.lr_drops=5 must be a list"),
        (
            {"schedule": {"lr_drops": [5, "x"]}},
            r"schedule.lr_drops\[1\]='x' must be a whole number",
        ),
        ({"detector": {"opts": ["MODEL"]}}, "detector.opts=.* must be a mapping"),
        ({"output_dir": "${nowhere}"}, "nowhere"),
    ],
)
def test_a_wrong_setting_is_named(content: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        to_experiment(OmegaConf.create(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("bgaug.recpie.D=0.3", "bgaug.recipe.D"),
        ("+bgaug.recipe.DD=0.3", "bgaug.recipe.D"),
        ("++bgaug.modes=none", "bgaug.mode"),
        ("~bgaug.mod=none", "bgaug.mode"),
        ("datset=toy", "dataset"),
        ("schedule.iters=3", "schedule.warmup_iters"),
        ("arm=basline", "baseline"),
        ("dataset=toys", "toy"),
        ("arm=replace,basline", "baseline"),
    ],
)
def test_a_misspelt_override_gets_its_nearest_key(argument: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean .*\b{nearest}\b"):
        check_overrides(["seed=1", argument], CONFIGS)


def test_null_is_no_choice_of_a_group() -> None:
    with pytest.raises(ConfigError, match="write ~debug"):
        check_overrides(["debug=null"], CONFIGS)


def test_right_overrides_pass() -> None:
    check_overrides(
        [
            *("-m", "--cfg", "job", "arm=replace,baseline", "seed=0,1"),
            *("hydra.run.dir=x", "hydra/launcher=basic", "++bgaug.recipe.D=0.3"),
            *("detector.opts.MODEL.MASK_ON=false", "bgaug.recipe={D:0.3}", "dataset=glob(*)"),
        ],
        CONFIGS,
    )


@pytest.mark.parametrize("key", valid_keys())
def test_every_key_is_a_right_override(key: str) -> None:
    check_overrides([f"{key}=1"])


def test_settings_land_in_detectron2() -> None:
    experiment = ExperimentConfig(seed=5, output_dir="somewhere")
    experiment.schedule.iterations, experiment.schedule.lr_drops = 30, [10, 20]
    experiment.schedule.base_lr, experiment.schedule.weight_decay = 1, 0.5
    experiment.detector.weights = "model.pth"
    cfg = cfg_of(experiment)
    assert (SETS[0],) == cfg.DATASETS.TRAIN
    assert (SETS[1],) == cfg.DATASETS.TEST
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 3
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.BASE_LR) == (30, (10, 20), 1.0)
    assert (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_BIAS) == (0.5, None)
    assert (cfg.SEED, cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS) == (5, "somewhere", "model.pth")
    assert (cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON) == ("cpu", True)


def test_options_reach_detectron2() -> None:
    opts = {
        "SOLVER": {"GAMMA": 1, "CLIP_GRADIENTS": {"ENABLED": True}},
        "INPUT": {"MIN_SIZE_TRAIN": [96], "MASK_FORMAT": "polygon"},
        "MODEL": {"RPN": {"IN_FEATURES": ["p2", "p3"]}},
    }
    cfg = cfg_of(with_opts(opts))
    assert cfg.SOLVER.GAMMA == 1.0
    assert cfg.SOLVER.CLIP_GRADIENTS.ENABLED is True
    assert cfg.INPUT.MIN_SIZE_TRAIN == (96,)
    assert cfg.INPUT.MASK_FORMAT == "polygon"
    assert cfg.MODEL.RPN.IN_FEATURES == ["p2", "p3"]


@pytest.mark.parametrize(
    ("opts", "sentence"),
    [
        ({"MODEL": {"ROI_HEAD": {"NAME": "x"}}}, "MODEL.ROI_HEAD.*did you mean ROI_HEADS"),
        ({"model": {}}, "did you mean MODEL"),
        ({"SOLVER": {"MAX_ITER": 5}}, "SOLVER.MAX_ITER is set by schedule.iterations"),
        ({"MODEL": {"ROI_HEADS": {"NUM_CLASSES": 5}}}, "NUM_CLASSES is set by dataset"),
        ({"MODEL": {"MASK_ON": "yes"}}, "MODEL.MASK_ON='yes': Detectron2 wants a bool"),
        ({"INPUT": {"FORMAT": 3}}, "INPUT.FORMAT=3: Detectron2 wants a str"),
        ({"INPUT": 3}, "INPUT=3: Detectron2 wants a CfgNode"),
    ],
)
def test_a_wrong_option_is_named(opts: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        cfg_of(with_opts(opts))


def test_an_unknown_detector_gets_its_nearest_name() -> None:
    experiment = ExperimentConfig()
    experiment.detector.config_file = "mask_rcnn_R_50_FPN_1x.yaml"
    with pytest.raises(ConfigError, match="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"):
        cfg_of(experiment)


def test_a_detector_from_a_file(tmp_path: Path) -> None:
    experiment = ExperimentConfig()
    file = tmp_path / "own.yaml"
    experiment.detector.config_file = str(file)
    file.write_text("MODEL: {MASK_ON: false, RPN: {NMS_THRESH: 0.6}}\nVERSION: 2\n")
    assert cfg_of(experiment).MODEL.RPN.NMS_THRESH == 0.6
    file.write_text("MODEL: {RPM: {NMS_THRESH: 0.6}}\nVERSION: 2\n")
    with pytest.raises(ConfigError, match="RPM"):
        cfg_of(experiment)


def test_masks_are_not_learnt_from_boxes() -> None:
    boxes = ExperimentConfig(dataset=DatasetConfig(kind="voc", root="voc"))
    with pytest.raises(ConfigError, match="dataset=voc_masks"):
        cfg_of(boxes)
    boxes.dataset.voc = VocConfig(masks=True)
    assert cfg_of(boxes).MODEL.MASK_ON


def test_a_data_set_without_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="thing_classes"):
        to_cfg(ExperimentConfig(), ["bridge_unknown"], SETS[1:], "cpu")


def test_an_experiment_travels_to_training_processes() -> None:
    experiment = with_opts({"INPUT": {"MIN_SIZE_TRAIN": [96]}})
    experiment.bgaug.mode = "replace"
    recipe = experiment.bgaug.recipe
    recipe.prompt, recipe.scenes = "scene", ["a beach"]
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    cfg = cfg_of(experiment)
    assert pickle.loads(pickle.dumps(cfg)) == cfg
    assert "BGAUG" not in cfg.dump()  # one truth: the experiment itself


def test_a_command_line_is_checked_without_heavy_imports() -> None:
    code = (
        "import sys, bgaug_d2.runs.hydra_app as b; b.check_overrides(['seed=1']);"
        "print([m for m in ('torch', 'detectron2', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]"
