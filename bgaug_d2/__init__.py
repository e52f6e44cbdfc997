"""Background augmentation for Detectron2 with diffusion models (arXiv 2408.00350)."""

__version__ = "0.1.0"
