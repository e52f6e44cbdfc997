"""The detector of an audit, loaded from the folder of a training run.

It resizes and normalises pictures as Detectron2's ``DefaultPredictor`` does.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from yaml import YAMLError

from bgaug_d2.errors import AuditError
from bgaug_d2.inspection.faults import Detections
from bgaug_d2.training.swin import register_swin

CONFIG = "detectron2.yaml"


class MaskDetector:
    """Finds objects, with masks, in pictures of any size.

    Args:
        cfg: Detectron2's configuration of the model.
        model: The model with its weights; the constructor puts it into evaluation mode.
        min_score: Detections with a lower score are dropped, 0..1.
    """

    def __init__(self, cfg: CfgNode, model: torch.nn.Module, min_score: float = 0.0) -> None:
        self._model = model.eval()
        self._bgr = cfg.INPUT.FORMAT == "BGR"
        shortest = [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST]
        self._resize = ResizeShortestEdge(shortest, cfg.INPUT.MAX_SIZE_TEST)
        self._min_score = min_score

    @torch.no_grad()
    def __call__(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Detections]:
        """Detections in each picture, uint8 RGB (H, W, 3), at its own size.

        All go through the model in one batch. Pictures of one size do not influence each other; a
        smaller one gets a border of zeros beside a larger one.

        Raises:
            AuditError: The model predicts no masks.
        """
        outputs = self._model([self._input(each) for each in pictures])
        return [self._detections(each["instances"]) for each in outputs]

    def _input(self, picture: npt.NDArray[np.uint8]) -> dict[str, Any]:
        height, width = picture.shape[:2]
        image = np.ascontiguousarray(picture[:, :, ::-1]) if self._bgr else picture
        image = self._resize.get_transform(image).apply_image(image)
        tensor = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
        return {"image": tensor, "height": height, "width": width}

    def _detections(self, instances: Any) -> Detections:
        if not instances.has("pred_masks"):
            raise AuditError("the detector gives boxes without masks; audit with a Mask R-CNN")
        # Dropped on the device: a mask of every weak detection would have to be copied.
        found = instances[instances.scores >= self._min_score].to("cpu")
        return Detections(
            found.pred_masks.numpy().astype(bool),
            found.pred_classes.numpy(),
            found.scores.double().numpy(),
        )


def load_detector(
    run: Path, device: str = "cpu", min_score: float = 0.0
) -> tuple[MaskDetector, str]:
    """Load the detector of a training run, with the weights of its last checkpoint.

    Args:
        run: Output folder of ``bgaug train``.
        device: ``cpu`` or ``cuda``.
        min_score: See ``MaskDetector``.

    Returns:
        The detector and the checkpoint's file name.

    Raises:
        AuditError: The folder is no run, has no checkpoint, or its detector predicts no masks.
    """
    cfg = _read_cfg(run / CONFIG)
    if not cfg.MODEL.MASK_ON:
        raise AuditError(
            f"{run}: its detector predicts boxes only (MODEL.MASK_ON is false); "
            "give a run of a Mask R-CNN"
        )
    # Checked here, because building the model on a missing GPU fails with a traceback of torch's.
    if device != "cpu" and not torch.cuda.is_available():
        raise AuditError(f"device={device!r} needs a GPU and this machine has none; give cpu")
    checkpoint = _last_checkpoint(run)
    cfg.MODEL.DEVICE = device
    # A run of a Swin detector names a backbone that Detectron2 does not have.
    register_swin()
    model = build_model(cfg)
    try:
        # No optimiser and no scheduler: the audit needs the weights alone.
        DetectionCheckpointer(model, save_dir=str(run)).load(str(checkpoint), checkpointables=[])
    except (OSError, EOFError, ValueError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        raise AuditError(
            f"{checkpoint} cannot be loaded into the detector ({type(error).__name__}); "
            "is it damaged, or of another detector?"
        ) from error
    return MaskDetector(cfg, model, min_score), checkpoint.name


def _read_cfg(path: Path) -> CfgNode:
    if not path.is_file():
        raise AuditError(
            f"{path} is missing; give a folder that `bgaug train` has trained a detector in"
        )
    cfg = get_cfg()
    cfg.set_new_allowed(True)  # what a detector of the user's own may have
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except (KeyError, ValueError, TypeError, AssertionError, YAMLError) as error:
        raise AuditError(f"{path} is no configuration of Detectron2: {error}") from error
    return cfg


def _last_checkpoint(run: Path) -> Path:
    try:
        name = (run / "last_checkpoint").read_text().strip()
    except OSError as error:
        raise AuditError(
            f"{run} has no checkpoint (last_checkpoint cannot be read); train the detector first"
        ) from error
    path = run / name
    # The name must be a file of this folder; other endings are read as pickles.
    if Path(name).name != name or path.suffix != ".pth" or not path.is_file():
        raise AuditError(f"{run} has no checkpoint {name!r}, which its last_checkpoint names")
    return path
