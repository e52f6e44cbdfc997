"""How the tiny model that comes with the package was made; ``tools/train_tiny_inpainter.py``."""
