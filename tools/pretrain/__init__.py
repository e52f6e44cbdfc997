"""How the tiny model and the toy backbone that come with the package were made.

``train_tiny_inpainter.py``  the program that trains the tiny model from nothing
``stages.py``                its stages: draw, train, write, assess, describe
``pictures.py``              squares of the toy world with captions, to learn from
``networks.py``              the untrained parts and the tokenizer
``autoencoder.py``           stage one: the autoencoder
``diffusion.py``             stage two: UNet and text encoder
``loop.py``                  one training loop for all: learning rate, log, checkpoints
``assess.py``                how good painted backgrounds are, in three numbers
``card.py``                  the model card, from ``card.md.jinja``
``profiles.py``              the program that says what faster settings cost in quality
``distil_tiny_inpainter.py`` the program that makes a few-step copy of the tiny model
``distillation.py``          how that copy learns from the tiny model
``train_toy_backbone.py``    the program that trains the backbone of the toy detectors
``toy_backbone.py``          how the backbone learns to name objects
"""
