"""Detectron2's trainer for one experiment.

trainer.py         ``DefaultTrainer`` with our loader, optimizers and counters
loader.py          the loader that an experiment trains from
progress_hook.py   times and counters of training
detectron2_cfg.py  from an experiment to Detectron2's ``CfgNode``
checkpointer.py    reads safetensors and torchvision's Swin weights
swin.py            Swin Transformers as backbones
trackers.py        Weights & Biases and MLflow, where they are wanted
"""
