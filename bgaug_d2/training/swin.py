"""Swin Transformers T and S as backbones of Detectron2 (Liu et al. 2021, arXiv 2103.14030).

The network is torchvision's, so its ImageNet weights fit name by name. This file adds what a
detector needs. Call ``add_swin_config`` on a configuration, and ``register_swin`` in every
process that builds a model.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer

from bgaug_d2.config.checks import check_between, check_choice
from bgaug_d2.errors import ConfigError

# Blocks per stage (the paper's table 7). The rest is the same for both.
_DEPTHS = {"tiny": (2, 2, 6, 2), "small": (2, 2, 18, 2)}
_EMBED_DIM = 96
_NUM_HEADS = (3, 6, 12, 24)
_WINDOW = 7
_PATCH = 4  # px

# A backbone's output by the place of its stage in torchvision's ``features``: between the stages
# are the patch merging layers. Detectron2's names for ResNet, so its FPN settings fit.
_STAGES = {1: "res2", 3: "res3", 5: "res4", 7: "res5"}

# Parts of torchvision's classifier that a backbone has no use for.
_CLASSIFIER = ("norm.", "head.")
# A tensor that only torchvision's Swin (version 1) has.
_FINGERPRINT = "features.1.0.attn.relative_position_bias_table"


class SwinBackbone(Backbone):
    """The four stages of torchvision's Swin Transformer, each with a LayerNorm for the detector.

    Args:
        variant: ``tiny`` or ``small``.
        drop_path: Stochastic depth of the last block, 0..1; it grows linearly from 0 at the first.
    """

    def __init__(self, variant: str, drop_path: float) -> None:
        super().__init__()
        check_swin(variant, drop_path)
        network = SwinTransformer(
            patch_size=[_PATCH, _PATCH],
            embed_dim=_EMBED_DIM,
            depths=list(_DEPTHS[variant]),
            num_heads=list(_NUM_HEADS),
            window_size=[_WINDOW, _WINDOW],
            stochastic_depth_prob=drop_path,
        )
        self.features = network.features
        self._out_features = list(_STAGES.values())
        self._out_feature_strides = {
            name: _PATCH * 2**level for level, name in enumerate(self._out_features)
        }
        self._out_feature_channels = {
            name: _EMBED_DIM * 2**level for level, name in enumerate(self._out_features)
        }
        self.output_norms = nn.ModuleDict(
            {name: nn.LayerNorm(width) for name, width in self._out_feature_channels.items()}
        )

    @property
    def size_divisibility(self) -> int:
        """The largest stride: other sizes work too, but an FPN then cannot add its levels."""
        return self._out_feature_strides[self._out_features[-1]]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features of a batch.

        Args:
            images: float (N, 3, H, W), normalised, of any size.

        Returns:
            ``res2`` to ``res5``: float (N, C, H / s, W / s), rounded up, with C = 96, 192, 384, 768
            and s = 4, 8, 16, 32.
        """
        height, width = images.shape[-2:]
        # Patch merging and windows pad by themselves, the patches do not.
        x = F.pad(images, (0, -width % _PATCH, 0, -height % _PATCH))
        outputs = {}
        for place, layer in enumerate(self.features):
            x = layer(x)  # (N, H / s, W / s, C)
            if place in _STAGES:
                name = _STAGES[place]
                outputs[name] = self.output_norms[name](x).permute(0, 3, 1, 2).contiguous()
        return outputs


def build_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid over a Swin Transformer, with the settings of ``MODEL.FPN``."""
    if input_shape.channels != 3:
        raise ConfigError(f"Swin takes pictures of 3 channels, not {input_shape.channels}")
    swin = cfg.MODEL.SWIN
    return FPN(
        bottom_up=SwinBackbone(swin.VARIANT, swin.DROP_PATH),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def add_swin_config(cfg: CfgNode) -> None:
    """Add ``MODEL.SWIN`` with its defaults.

    ``DROP_PATH`` 0.2 is what MMDetection's 36-epoch Mask R-CNN has for Swin-T and Swin-S.
    """
    cfg.MODEL.SWIN = CfgNode({"VARIANT": "tiny", "DROP_PATH": 0.2})


def check_swin(variant: str, drop_path: float) -> None:
    """Raise ConfigError unless ``MODEL.SWIN`` is usable."""
    check_choice("detector.opts.MODEL.SWIN.VARIANT", variant, tuple(_DEPTHS))
    check_between("detector.opts.MODEL.SWIN.DROP_PATH", drop_path, 0, 1)


def register_swin() -> None:
    """Let ``MODEL.BACKBONE.NAME`` be ``build_swin_fpn_backbone``; a second call changes nothing."""
    if build_swin_fpn_backbone.__name__ not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(build_swin_fpn_backbone)


def from_torchvision(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of torchvision's Swin classifier, named as in a detector.

    Args:
        weights: Any state dict.
        model: Any model.

    Returns:
        The backbone's weights, without the classifier's last norm and head; ``weights`` as they
        are where they are no Swin of torchvision's or the model has none.

    Raises:
        ConfigError: They belong to another Swin than the model's.
    """
    backbones = {
        name: module for name, module in model.named_modules() if isinstance(module, SwinBackbone)
    }
    if _FINGERPRINT not in weights or not backbones:
        return weights
    ((prefix, backbone),) = backbones.items()
    kept = {name: each for name, each in weights.items() if not name.startswith(_CLASSIFIER)}
    shapes = {name: each.shape for name, each in kept.items()}
    wanted = {
        f"features.{name}": each.shape for name, each in backbone.features.state_dict().items()
    }
    if shapes != wanted:
        raise ConfigError(
            "detector.weights are of another Swin Transformer than MODEL.SWIN.VARIANT says; "
            "swin_t-*.pth is of `tiny`, swin_s-*.pth of `small`"
        )
    return {f"{prefix}.{name}" if prefix else name: each for name, each in kept.items()}
