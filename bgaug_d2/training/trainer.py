"""Detectron2's ``DefaultTrainer`` with our loader, counters and optimizers."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.data.evaluator import BreakdownCOCOEvaluator, BreakdownVOCEvaluator
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.training.checkpointer import SafeCheckpointer
from bgaug_d2.training.loader import training_loader
from bgaug_d2.training.progress_hook import TrainingStats, TrainingStatsHook
from bgaug_d2.training.swin import register_swin
from bgaug_d2.training.trackers import tracker_writers
from bgaug_d2.worker.painter_info import PainterInfo


def inference_folder(cfg: CfgNode) -> str:
    """Where the evaluators write."""
    return str(Path(cfg.OUTPUT_DIR) / "inference")


class BgAugTrainer(DefaultTrainer):
    """``DefaultTrainer`` for one experiment, on GPUs or CPUs.

    Args:
        cfg: From ``detectron2_cfg.to_cfg(experiment, ...)``.
        experiment: The run.
        painter: Who paints; None where the experiment shows originals only.

    Attributes:
        stats: Times and counters over all training processes, complete after ``train``.
    """

    def __init__(
        self, cfg: CfgNode, experiment: ExperimentConfig, painter: PainterInfo | None = None
    ) -> None:
        # As in DefaultTrainer, except for device_ids: it cannot wrap a model on the CPU.
        TrainerBase.__init__(self)
        self.experiment = experiment
        self.painter = painter
        Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        device_ids = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        model = create_ddp_model(model, broadcast_buffers=False, **device_ids)
        trainer = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.stats = TrainingStats()
        self.register_hooks(self.build_hooks())

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the last evaluation; empty in all processes but the first."""
        return dict(getattr(self, "_last_eval_results", None) or {})

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """Detectron2's model; on a CPU with weights in the layout that its convolutions want."""
        register_swin()  # here, because a spawned process begins without it
        model: torch.nn.Module = super().build_model(cfg)
        if cfg.MODEL.DEVICE == "cpu":
            # torch's stubs know this overload for tensors only.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def build_train_loader(self, cfg: CfgNode) -> CountedLoader:
        """Our loader, for a baseline as well: the same stream of draws, with visits."""
        return training_loader(cfg, self.experiment, self.painter)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator that the data set's metadata names."""
        metadata = MetadataCatalog.get(dataset_name)
        folder = inference_folder(cfg)
        if metadata.get("evaluator_type") == "pascal_voc":
            return BreakdownVOCEvaluator(dataset_name, folder)
        # Named here, because a model that predicts nothing at all would be measured by boxes only.
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        limits = metadata.get("size_limits")
        return BreakdownCOCOEvaluator(dataset_name, tasks, folder, limits)

    def build_optimizer(self, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer that the experiment names."""
        return build_optimizer(cfg, model, self.experiment.schedule.optimizer)

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's writers (terminal, JSON, TensorBoard) and the tracker, if one is wanted."""
        return [*super().build_writers(), *tracker_writers(self.experiment)]

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks; ours is before them, so that it times training alone."""
        return [TrainingStatsHook(self.stats), *super().build_hooks()]


def build_optimizer(cfg: CfgNode, model: torch.nn.Module, name: str) -> torch.optim.Optimizer:
    """SGD as Detectron2 builds it, or AdamW with the same parameter groups.

    Args:
        cfg: Learning rate, weight decay and gradient clipping.
        model: The detector.
        name: One of ``config.experiment.OPTIMIZERS``.
    """
    if name == "sgd":
        sgd: torch.optim.Optimizer = DefaultTrainer.build_optimizer(cfg, model)
        return sgd
    solver = cfg.SOLVER
    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        # Swin's; its authors let them decay as little as normalisation.
        overrides={"relative_position_bias_table": {"weight_decay": 0.0}},
    )
    adamw = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
    return adamw(parameters, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
