"""The backbone that detectors of the toy world start from: how it is made, and that it is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from safetensors.torch import load_file, save_file

from bgaug_d2.data.register import register_dataset
from bgaug_d2.data.toy.shapes import SHAPES
from bgaug_d2.training.checkpointer import SafeCheckpointer
from bgaug_d2.training.detectron2_cfg import TOY_BACKBONE, to_cfg, weights_path
from tests.helpers.tool_runs import experiment_of, smoke
from tools.pretrain.toy_backbone import _Classifier, _draw, draw_portrait
from tools.pretrain.train_toy_backbone import detector_cfg, main


def _cpu(folder: Path, *overrides: str) -> CfgNode:
    experiment = experiment_of(*smoke(folder, "toy-baseline", *overrides))
    handle = register_dataset(experiment.dataset)
    return to_cfg(experiment, handle.train, handle.test, "cpu")


def test_portraits_show_one_object_and_depend_on_their_number_only() -> None:
    drawn = [draw_portrait(number, 64) for number in range(40)]
    again, label = draw_portrait(7, 64)
    np.testing.assert_array_equal(again, drawn[7][0])
    assert label == drawn[7][1]
    assert {each for _, each in drawn} == set(range(len(SHAPES)))
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image, _ in drawn)


def test_the_command_writes_weights_that_the_detector_takes(tmp_path: Path) -> None:
    out = tmp_path / "backbone.safetensors"
    main(["--out", str(out), "--pictures", "64", "--steps", "2", "--resolution", "32"])
    model = build_model(_cpu(tmp_path))
    weights = load_file(out)
    found = {name: value for name, value in model.state_dict().items() if "bottom_up" in name}
    assert weights.keys() == found.keys()
    name = "backbone.bottom_up.stem.conv1.weight"
    assert not torch.equal(found[name], weights[name].float())
    SafeCheckpointer(model).load(str(out))
    for name, value in model.state_dict().items():
        if "bottom_up" in name:
            torch.testing.assert_close(value, weights[name].to(value.dtype), rtol=0, atol=0)


def test_the_backbone_of_the_package_knows_objects_it_has_not_seen() -> None:
    cfg = detector_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    network = _Classifier(cfg)
    weights = load_file(TOY_BACKBONE)
    network.backbone.load_state_dict(
        {name.removeprefix("backbone.bottom_up."): value for name, value in weights.items()}
    )
    # Its last layer was not kept: a nearest-mean classifier on its features shows what they know.
    images, labels = _draw(400, 64, processes=1)
    network.head = torch.nn.Identity()
    network.eval()
    with torch.inference_mode():
        features = torch.cat([network(each) for each in images.split(50)])
    means = torch.stack([features[:300][labels[:300] == label].mean(0) for label in range(8)])
    nearest = torch.cdist(features[300:], means).argmin(1)
    assert float((nearest == labels[300:]).float().mean()) > 0.8  # chance is 0.125


def test_detectors_start_from_it(tmp_path: Path) -> None:
    assert weights_path("toy") == str(TOY_BACKBONE)
    assert weights_path("") == ""
    cfg = _cpu(tmp_path, "detector.weights=toy")
    assert str(TOY_BACKBONE) == cfg.MODEL.WEIGHTS
    model = build_model(cfg)
    SafeCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    name = "backbone.bottom_up.res5.2.conv3.weight"
    torch.testing.assert_close(model.state_dict()[name], load_file(TOY_BACKBONE)[name].float())


def test_other_weights_are_read_as_detectron2_reads_them(tmp_path: Path) -> None:
    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    torch.save({"model": layer.state_dict()}, tmp_path / "a.pth")
    SafeCheckpointer(other).load(str(tmp_path / "a.pth"))
    assert torch.equal(layer.weight, other.weight)
    save_file({"weight": torch.ones(2, 2)}, tmp_path / "part.safetensors")
    SafeCheckpointer(other).load(str(tmp_path / "part.safetensors"))
    assert torch.equal(other.weight, torch.ones(2, 2))
    assert torch.equal(other.bias, layer.bias)
