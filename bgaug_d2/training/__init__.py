"""Detectron2's trainer, its configuration, checkpoints and the Swin backbone."""
