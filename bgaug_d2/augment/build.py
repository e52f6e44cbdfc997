"""Builds the mapper of the training loader from settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper

from bgaug_d2.augment.copy_paste import CopyPaste
from bgaug_d2.augment.mapper import AugmentMapper
from bgaug_d2.augment.rand_augment import RandAugment
from bgaug_d2.config.comparison import AugmentConfig
from bgaug_d2.errors import ConfigError

Mapper = Callable[[dict[str, Any]], dict[str, Any]]


def build_mapper(
    cfg: CfgNode, settings: AugmentConfig, dataset_dicts: Sequence[Mapping[str, Any]]
) -> Mapper:
    """Build the mapper that ``settings`` ask for: Detectron2's own where they ask for nothing.

    The augmentations that ``cfg`` names (crop, resize, flip) follow RandAugment and copy-paste.

    Args:
        cfg: Image and mask format, masks on or off, and those augmentations.
        settings: RandAugment and copy-paste; its sampler is for the loader.
        dataset_dicts: The training set, originals only; copy-paste takes objects from it.

    Raises:
        ConfigError: The model wants more than images, boxes and instance masks, or there is
            nothing to copy.
    """
    rand_augment, paste = settings.rand_augment, settings.copy_paste
    if not rand_augment.num_ops and not paste.p:
        # The stock mapper keeps what ours does not know: keypoints, proposals, panoptic labels.
        stock: Mapper = DatasetMapper(cfg, True)
        return stock
    _check_supported(cfg)
    # From Detectron2's own mapper, so that all else is as in a run without augmentation.
    options = DatasetMapper.from_config(cfg, True)
    image_format, augmentations = options["image_format"], options["augmentations"]
    if rand_augment.num_ops:
        ours = RandAugment(
            rand_augment.num_ops, rand_augment.magnitude, rand_augment.ops, image_format
        )
        augmentations = [ours, *augmentations]
    copy_paste = CopyPaste(paste, dataset_dicts, image_format) if paste.p else None
    # Masks that only give boxes may be polygons and run lengths in one image, so these are bitmaps.
    bitmasks = copy_paste is not None or not options["use_instance_mask"]
    return AugmentMapper(
        augmentations,
        image_format,
        options["use_instance_mask"],
        "bitmask" if bitmasks else options["instance_mask_format"],
        tight_boxes=rand_augment.num_ops > 0 or options["recompute_boxes"],
        copy_paste=copy_paste,
    )


def _check_supported(cfg: CfgNode) -> None:
    wanted = {
        "keypoints (MODEL.KEYPOINT_ON)": cfg.MODEL.KEYPOINT_ON,
        "precomputed proposals (MODEL.LOAD_PROPOSALS)": cfg.MODEL.LOAD_PROPOSALS,
        "semantic segmentation (MODEL.META_ARCHITECTURE)": cfg.MODEL.META_ARCHITECTURE
        in ("PanopticFPN", "SemanticSegmentor"),
    }
    for what, on in wanted.items():
        if on:
            raise ConfigError(
                f"augment.rand_augment and augment.copy_paste know boxes and instance masks only, "
                f"but the detector wants {what}; leave both out, as arm=baseline does"
            )
    if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
        raise ConfigError(
            f"INPUT.FORMAT={cfg.INPUT.FORMAT!r} must be RGB or BGR for augment.rand_augment and "
            "augment.copy_paste"
        )
