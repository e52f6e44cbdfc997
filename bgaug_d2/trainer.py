"""Detectron2's ``DefaultTrainer`` with our loader, counters and results; and the way of one run.

``run`` is called once per machine. It starts the painting processes, then the training processes;
what these need is in their ``cfg``: the experiment in ``BGAUG`` (see ``detectron_cfg``), the
painting processes of their machine in ``BGAUG_PAINTING``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
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
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from bgaug_d2.augment.build import build_mapper
from bgaug_d2.build import BackgroundAugmentation, baseline_loader, expanded, train_dicts
from bgaug_d2.checkpointer import SafeCheckpointer
from bgaug_d2.config import ConfigError
from bgaug_d2.course_hook import CourseHook
from bgaug_d2.data.breakdown import read_breakdowns
from bgaug_d2.data.evaluator import BreakdownCOCOEvaluator, BreakdownVOCEvaluator
from bgaug_d2.data.register import register_dataset
from bgaug_d2.detectron_cfg import experiment_from_cfg, to_cfg, weights_path
from bgaug_d2.experiment_config import ExperimentConfig
from bgaug_d2.jobs import ModelIdentity
from bgaug_d2.keys import plain
from bgaug_d2.launch import launch_training, resolve_device
from bgaug_d2.loader import CountedLoader
from bgaug_d2.painters import Painting, painting_workers
from bgaug_d2.results import (
    Course,
    add_painting_stats,
    build_results,
    is_finished,
    results_path,
    write_results,
)
from bgaug_d2.swin import register_swin

logger = logging.getLogger(__name__)


def run(experiment: ExperimentConfig, model: tuple[ModelIdentity, Path] | None = None) -> Path:
    """Train and evaluate, or only evaluate; returns the path of the results.

    Args:
        experiment: The run.
        model: What ``identify`` found already; None looks for it here if it is needed.

    Raises:
        ConfigError, DatasetError, ModelError, WorkerStartError: A mistake of the user's.
    """
    device = resolve_device(experiment.launch)
    _check_batch(experiment)
    log_to(experiment.output_dir)
    if is_finished(experiment):
        logger.info("%s is finished; nothing to resume", results_path(experiment))
        return results_path(experiment)
    handle = register_dataset(experiment.dataset)
    cfg = to_cfg(experiment, handle.train, handle.test, device)
    _fetch_weights(experiment)
    with contextlib.ExitStack() as stack:
        workers = None
        if experiment.bgaug.paints and not experiment.eval_only:
            settings, inpainter = experiment.bgaug, experiment.inpainter
            logs = str(Path(experiment.output_dir) / "painting")
            workers = stack.enter_context(
                painting_workers(settings, inpainter, handle.image_root, model, logs)
            )
            cfg.BGAUG_PAINTING = CfgNode(plain(dataclasses.asdict(workers.painting)))
        launch_training(run_process, experiment.launch, device, (cfg,))
        path = results_path(experiment)
        if workers and experiment.launch.machine_rank == 0:
            add_painting_stats(path, workers.stats())
    return path


def run_process(cfg: CfgNode) -> None:
    """What one training process does."""
    began = time.perf_counter()
    experiment = experiment_from_cfg(cfg)
    register_dataset(experiment.dataset)  # again: a spawned process knows no data set
    log_to(cfg.OUTPUT_DIR, comm.get_rank())
    seed_all_rng(cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if comm.is_main_process():
        logger.info("Environment:\n%s", collect_env_info())
        (Path(cfg.OUTPUT_DIR) / "detectron2.yaml").write_text(cfg.dump())
    if experiment.eval_only:
        metrics, course = evaluate(cfg), None
    else:
        trainer = BgAugTrainer(cfg)
        trainer.resume_or_load(resume=experiment.resume)
        trainer.train()
        metrics, course = trainer.metrics, trainer.course
        course.wall_s = time.perf_counter() - began
    if comm.is_main_process():
        path = results_path(experiment)
        breakdown = read_breakdowns(_inference_folder(cfg), cfg.DATASETS.TEST)
        results = build_results(experiment, metrics, course, painting_of(cfg), breakdown)
        write_results(results, path)
        logger.info("Results are in %s", path)


def evaluate(cfg: CfgNode) -> dict[str, Any]:
    """Metrics of ``MODEL.WEIGHTS``, or with ``resume`` of the last checkpoint."""
    model = BgAugTrainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=cfg.BGAUG.resume)
    metrics: dict[str, Any] = BgAugTrainer.test(cfg, model)
    return metrics


def _inference_folder(cfg: CfgNode) -> str:
    """Where the evaluators write."""
    return str(Path(cfg.OUTPUT_DIR) / "inference")


def painting_of(cfg: CfgNode) -> Painting | None:
    """What ``run`` wrote about the painting processes of this machine."""
    content = cfg.get("BGAUG_PAINTING")
    return None if content is None else Painting.from_mapping(plain(content))


def next_iteration(output_dir: str) -> int:
    """The iteration that a resumed run begins with; 0 where there is no checkpoint."""
    folder = Path(output_dir)
    try:
        name = (folder / "last_checkpoint").read_text().strip()
    except FileNotFoundError:
        return 0
    checkpoint = torch.load(folder / name, map_location="cpu", mmap=True, weights_only=True)
    return int(checkpoint["iteration"]) + 1


def log_to(output_dir: str, rank: int = 0) -> None:
    """Send the log to the terminal and ``log.txt`` in a folder, and no longer to another one."""
    setup_logger.cache_clear()
    for name in ("fvcore", "detectron2", "bgaug_d2"):
        for handler in list(logging.getLogger(name).handlers):
            logging.getLogger(name).removeHandler(handler)
        setup_logger(output_dir, distributed_rank=rank, name=name)


class BgAugTrainer(DefaultTrainer):
    """``DefaultTrainer`` for a ``cfg`` made by ``detectron_cfg.to_cfg``, on GPUs or CPUs.

    Attributes:
        course: Times and counters over all training processes, complete after ``train``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's own, but for device_ids: it cannot wrap a model on the CPU.
        TrainerBase.__init__(self)
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
        self.course = Course()
        self.register_hooks(self.build_hooks())

    @property
    def metrics(self) -> dict[str, Any]:
        """Of the last evaluation; empty in all processes but the first."""
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

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> CountedLoader:
        """Our loader, for a baseline as well: the same stream of draws, with visits."""
        experiment = experiment_from_cfg(cfg)
        start_iter = next_iteration(cfg.OUTPUT_DIR) if experiment.resume else 0
        painting, dicts = painting_of(cfg), train_dicts(cfg)
        mapper = build_mapper(cfg, experiment.augment, dicts)
        if painting is None:
            if experiment.bgaug.mode == "duplicate":
                dicts = expanded(dicts, experiment.bgaug)
            return baseline_loader(cfg, mapper, dicts, start_iter)
        augmentation = BackgroundAugmentation(experiment.bgaug, painting, experiment.seed)
        return augmentation.train_loader(cfg, mapper, dicts, start_iter)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator that the data set's metadata names."""
        metadata = MetadataCatalog.get(dataset_name)
        folder = _inference_folder(cfg)
        if metadata.get("evaluator_type") == "pascal_voc":
            return BreakdownVOCEvaluator(dataset_name, folder)
        # Named here, because a model that predicts nothing at all would be measured by boxes only.
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        limits = metadata.get("size_limits")
        return BreakdownCOCOEvaluator(dataset_name, tasks, folder, limits)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """SGD as Detectron2 builds it, or AdamW with the same parameter groups."""
        if cfg.BGAUG.schedule.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = super().build_optimizer(cfg, model)
            return optimizer
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

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks; ours is before them, so that it times training alone."""
        return [CourseHook(self.course), *super().build_hooks()]


def _check_batch(experiment: ExperimentConfig) -> None:
    images, launch = experiment.schedule.images_per_batch, experiment.launch
    processes = launch.num_gpus * launch.num_machines
    if images % processes:
        raise ConfigError(
            f"schedule.images_per_batch={images} cannot be shared out among {processes} training "
            "processes; make it a multiple"
        )


def _fetch_weights(experiment: ExperimentConfig) -> None:
    """Fetch start weights once per machine, where a failure is one sentence."""
    weights = weights_path(experiment.detector.weights)
    if not weights:
        if experiment.eval_only and not experiment.resume:
            raise ConfigError(
                "eval_only=true has nothing to evaluate: detector.weights is empty; give a file, "
                "or resume=true for the last checkpoint in output_dir"
            )
        return
    try:
        path = PathManager.get_local_path(weights)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"detector.weights={weights!r} cannot be fetched ({error}); give a local file, "
            'or detector.weights="" to start from random weights'
        ) from error
    if not Path(path).is_file():
        raise ConfigError(f"detector.weights={weights!r}: there is no such file")
