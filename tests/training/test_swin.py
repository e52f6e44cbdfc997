"""Swin backbones: shapes, torchvision's weights, and a Mask R-CNN that trains and finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from bgaug_d2.errors import ConfigError
from bgaug_d2.training.checkpointer import SafeCheckpointer
from bgaug_d2.training.detectron2_cfg import to_cfg
from bgaug_d2.training.swin import SwinBackbone, add_swin_config, register_swin
from bgaug_d2.training.trainer import BgAugTrainer, build_optimizer
from tests.helpers.tool_runs import experiment_of

SETS = ("swin_train", "swin_test")
BOTTOM_UP = "backbone.bottom_up."


def _cfg(*overrides: str) -> CfgNode:
    MetadataCatalog.get(SETS[0]).set(thing_classes=["ball", "box"])
    chosen = ["detector=mask_rcnn_swin_t_fpn", "schedule=coco_swin_3x", "dataset=toy", *overrides]
    return to_cfg(experiment_of(*chosen), SETS[:1], SETS[1:], "cpu")


@pytest.fixture(scope="module")
def detector() -> torch.nn.Module:
    return BgAugTrainer.build_model(_cfg())


@pytest.mark.parametrize(("variant", "blocks"), [("tiny", 12), ("small", 24)])
def test_the_network_is_torchvisions(variant: str, blocks: int) -> None:
    ours = SwinBackbone(variant, 0.2)
    with torch.device("meta"):
        theirs = {"tiny": torchvision.models.swin_t, "small": torchvision.models.swin_s}[variant]()
    shapes = {name: each.shape for name, each in ours.features.state_dict().items()}
    assert shapes == {name: each.shape for name, each in theirs.features.state_dict().items()}
    rates = [
        module.p for module in ours.modules() if isinstance(module, torchvision.ops.StochasticDepth)
    ]
    assert rates == pytest.approx([0.2 * block / (blocks - 1) for block in range(blocks)])


@pytest.mark.parametrize("size", [(64, 96), (37, 70)])
def test_shapes_and_strides(size: tuple[int, int]) -> None:
    backbone = SwinBackbone("tiny", 0.0).eval()
    assert backbone.size_divisibility == 32
    with torch.inference_mode():
        outputs = backbone(torch.randn(2, 3, *size))
    assert list(outputs) == ["res2", "res3", "res4", "res5"]
    for name, spec in backbone.output_shape().items():
        expected = (2, spec.channels, *(-(-side // spec.stride) for side in size))
        assert outputs[name].shape == expected
    assert [each.stride for each in backbone.output_shape().values()] == [4, 8, 16, 32]
    assert [each.channels for each in backbone.output_shape().values()] == [96, 192, 384, 768]


def test_outputs_are_the_stages_of_torchvisions_model() -> None:
    backbone, theirs = SwinBackbone("tiny", 0.0).eval(), torchvision.models.swin_t().eval()
    theirs.features.load_state_dict(backbone.features.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = torch.nn.functional.layer_norm(theirs.features(images), (768,))
        torch.testing.assert_close(backbone(images)["res5"], expected.permute(0, 3, 1, 2))


def test_torchvisions_weights_fill_the_backbone_and_nothing_else(
    tmp_path: Path, detector: torch.nn.Module
) -> None:
    weights = torchvision.models.swin_t().state_dict()
    weights = {  # of any value: torchvision starts its biases at 0, as we do
        name: torch.rand_like(each) if each.is_floating_point() else each
        for name, each in weights.items()
    }
    torch.save(weights, tmp_path / "swin_t.pth")
    before = {name: each.clone() for name, each in detector.state_dict().items()}
    SafeCheckpointer(detector).load(str(tmp_path / "swin_t.pth"))
    loaded = 0
    for name, value in detector.state_dict().items():
        if name.startswith(f"{BOTTOM_UP}features."):
            assert torch.equal(value, weights[name.removeprefix(BOTTOM_UP)]), name
            loaded += 1
        else:
            assert torch.equal(value, before[name]), name
    assert loaded == len(weights) - 4  # all but the classifier's norm and head


def test_weights_of_another_swin_are_refused(tmp_path: Path, detector: torch.nn.Module) -> None:
    torch.save(torchvision.models.swin_s().state_dict(), tmp_path / "swin_s.pth")
    with pytest.raises(ConfigError, match="of another Swin"):
        SafeCheckpointer(detector).load(str(tmp_path / "swin_s.pth"))


def test_a_detectors_own_checkpoint_is_loaded_as_it_is(
    tmp_path: Path, detector: torch.nn.Module
) -> None:
    other = BgAugTrainer.build_model(_cfg())
    SafeCheckpointer(detector, str(tmp_path)).save("model_final", iteration=3)
    found = SafeCheckpointer(other).load(str(tmp_path / "model_final.pth"))
    assert found["iteration"] == 3
    for name, value in detector.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("VARIANT=large", r"MODEL\.SWIN\.VARIANT='large' is not allowed; .*tiny, small"),
        ("DROP_PATH=1.5", r"MODEL\.SWIN\.DROP_PATH=1\.5 is not allowed"),
        ("VARIANTS=tiny", r"MODEL\.SWIN\.VARIANTS: .* did you mean VARIANT"),
    ],
)
def test_wrong_settings_are_named(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _cfg(f"detector.opts.MODEL.SWIN.{override}")


def test_registering_again_changes_nothing() -> None:
    register_swin()
    first = BACKBONE_REGISTRY.get("build_swin_fpn_backbone")
    register_swin()
    assert BACKBONE_REGISTRY.get("build_swin_fpn_backbone") is first
    cfg = CfgNode({"MODEL": {}})
    add_swin_config(cfg)
    assert cfg.MODEL.SWIN == {"VARIANT": "tiny", "DROP_PATH": 0.2}


@pytest.mark.parametrize("variant", ["t", "s"])
def test_papers_settings(variant: str) -> None:
    cfg = _cfg(f"detector=mask_rcnn_swin_{variant}_fpn")
    enum = {"t": torchvision.models.Swin_T_Weights, "s": torchvision.models.Swin_S_Weights}
    weights = enum[variant].IMAGENET1K_V1
    assert weights.url == cfg.MODEL.WEIGHTS
    presets = weights.transforms()
    assert [255 * each for each in presets.mean] == pytest.approx(cfg.MODEL.PIXEL_MEAN)
    assert [255 * each for each in presets.std] == pytest.approx(cfg.MODEL.PIXEL_STD)
    assert (cfg.INPUT.FORMAT, cfg.INPUT.MAX_SIZE_TRAIN) == ("RGB", 1333)
    assert (min(cfg.INPUT.MIN_SIZE_TRAIN), max(cfg.INPUT.MIN_SIZE_TRAIN)) == (480, 800)
    assert {"t": "tiny", "s": "small"}[variant] == cfg.MODEL.SWIN.VARIANT
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.WEIGHT_DECAY, solver.IMS_PER_BATCH) == (1e-4, 0.05, 16)


def test_norms_and_position_biases_do_not_decay(detector: torch.nn.Module) -> None:
    optimizer = build_optimizer(_cfg(), detector, "adamw")
    names = {parameter: name for name, parameter in detector.named_parameters()}
    decay = {
        names[parameter]: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    norms = {name for name in decay if "norm" in name.rpartition(".")[0].rpartition(".")[2]}
    norms |= {name for name in decay if ".output_norms." in name}
    norms |= {f"{BOTTOM_UP}features.0.2.{each}" for each in ("weight", "bias")}
    biases = {name for name in decay if name.endswith("relative_position_bias_table")}
    assert len(biases) == 12
    assert {name for name, value in decay.items() if value == 0} == norms | biases
    assert set(decay.values()) == {0, 0.05}


def _sample() -> dict[str, object]:
    """A picture of 64 x 96 px with one object."""
    truth = Instances((64, 96))
    truth.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 60.0, 50.0]]))
    truth.gt_classes = torch.tensor([1])
    object_mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    object_mask[0, 10:50, 10:60] = True
    truth.gt_masks = BitMasks(object_mask)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    return {"image": image, "instances": truth, "height": 64, "width": 96}


def test_it_trains_and_finds() -> None:
    model = BgAugTrainer.build_model(_cfg())
    optimizer = build_optimizer(_cfg(), model, "adamw")
    table = model.get_parameter(f"{BOTTOM_UP}features.1.0.attn.relative_position_bias_table")
    before = table.detach().clone()
    model.train()
    with EventStorage():
        losses = model([_sample(), _sample()])
    total = sum(losses.values())
    assert losses.keys() >= {"loss_cls", "loss_mask", "loss_rpn_cls"}
    assert torch.isfinite(total)
    total.backward()
    optimizer.step()
    assert not torch.equal(table, before)
    assert all(each.grad is not None for each in model.backbone.parameters())
    model.eval()
    with torch.inference_mode():
        (found,) = model([_sample()])
    assert found["instances"].image_size == (64, 96)
