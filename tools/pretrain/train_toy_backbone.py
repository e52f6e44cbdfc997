"""Trains the backbone that detectors of the toy world start from, and writes it to the package."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from detectron2 import model_zoo
from detectron2.config import get_cfg
from fvcore.common.config import CfgNode
from omegaconf import OmegaConf

from bgaug_d2.training.detectron2_cfg import TOY_BACKBONE
from tools.pretrain.toy_backbone import PretrainingSize, pretrain_backbone

DETECTOR = Path(__file__).resolve().parents[2] / "configs" / "detector" / "toy_mask_rcnn.yaml"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TOY_BACKBONE, help="[the package's own]")
    # An option for each field, so that the tool and the dataclass always agree.
    for field in fields(PretrainingSize):
        name, default = field.name.replace("_", "-"), field.default
        parser.add_argument(f"--{name}", type=type(default), default=default, help="[%(default)s]")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    size = PretrainingSize(
        **{each.name: getattr(arguments, each.name) for each in fields(PretrainingSize)}
    )
    accuracy = pretrain_backbone(detector_cfg(), arguments.out, size, os.cpu_count() or 1)
    print(f"{arguments.out}: accuracy {accuracy:.3f} on pictures not trained on")


def detector_cfg() -> CfgNode:
    """Detectron2's configuration of the toy detector; its data sets do not matter here."""
    detector = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(DETECTOR)))
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(detector["config_file"]))
    return overridden(cfg, detector["opts"])


def overridden(cfg: CfgNode, values: dict[str, Any]) -> CfgNode:
    for key, value in values.items():
        cfg[key] = overridden(cfg[key], value) if isinstance(value, dict) else value
    return cfg


if __name__ == "__main__":
    main()
