"""One training run: register, start the painting processes, train, evaluate, write the results."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.data.breakdown import read_breakdowns
from bgaug_d2.data.register import register_dataset
from bgaug_d2.errors import ConfigError
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.runs.announce import announce_recipe, announce_training
from bgaug_d2.runs.launch import launch_training, resolve_device
from bgaug_d2.runs.output_folder import PAINTING
from bgaug_d2.runs.results import (
    add_painting_stats,
    build_results,
    is_finished,
    results_path,
    write_results,
)
from bgaug_d2.training.checkpointer import SafeCheckpointer
from bgaug_d2.training.detectron2_cfg import to_cfg, weights_path
from bgaug_d2.training.trackers import check_tracking
from bgaug_d2.training.trainer import BgAugTrainer, inference_folder
from bgaug_d2.worker.engines import check_inpainter, identify_inpainter
from bgaug_d2.worker.painter_info import PainterInfo
from bgaug_d2.worker.start import painting_workers

logger = logging.getLogger(__name__)


def run(experiment: ExperimentConfig, model: tuple[ModelIdentity, Path] | None = None) -> Path:
    """Train and evaluate, or only evaluate; returns the path of the results.

    Args:
        experiment: The run.
        model: What ``identify_inpainter`` found already; None looks for it here if it is needed.

    Raises:
        ConfigError, DatasetError, ModelError, WorkerStartError: A mistake of the user's.
    """
    device = resolve_device(experiment.launch)
    _check_batch(experiment)
    paints = experiment.bgaug.paints and not experiment.eval_only
    if paints:
        check_inpainter(experiment.inpainter, experiment.dataset.is_toy)
    check_tracking(experiment.tracking)
    log_to(experiment.output_dir)
    if is_finished(experiment):
        logger.info("%s is finished; nothing to resume", results_path(experiment))
        return results_path(experiment)
    handle = register_dataset(experiment.dataset)
    cfg = to_cfg(experiment, handle.train, handle.test, device)
    _fetch_weights(experiment)
    with contextlib.ExitStack() as stack:
        workers = None
        if paints:
            settings, inpainter = experiment.bgaug, experiment.inpainter
            model = model or identify_inpainter(inpainter)
            announce_recipe(settings, model[0])
            announce_training(settings, sum(len(DatasetCatalog.get(each)) for each in handle.train))
            logs = str(Path(experiment.output_dir) / PAINTING)
            workers = stack.enter_context(
                painting_workers(settings, inpainter, handle.image_root, model, logs)
            )
        painter = workers.painter if workers else None
        launch_training(run_process, experiment.launch, device, (cfg, experiment, painter))
        path = results_path(experiment)
        if workers and experiment.launch.machine_rank == 0:
            add_painting_stats(path, workers.stats())
    return path


def run_process(cfg: CfgNode, experiment: ExperimentConfig, painter: PainterInfo | None) -> None:
    """What one training process does; the arguments travel to it pickled."""
    began = time.perf_counter()
    register_dataset(experiment.dataset)  # again: a spawned process knows no data set
    log_to(cfg.OUTPUT_DIR, comm.get_rank())
    seed_all_rng(cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if comm.is_main_process():
        logger.info("Environment:\n%s", collect_env_info())
        (Path(cfg.OUTPUT_DIR) / "detectron2.yaml").write_text(cfg.dump())
    if experiment.eval_only:
        metrics, stats = evaluate(cfg, experiment.resume), None
    else:
        trainer = BgAugTrainer(cfg, experiment, painter)
        trainer.resume_or_load(resume=experiment.resume)
        trainer.train()
        metrics, stats = trainer.metrics, trainer.stats
        stats.wall_s = time.perf_counter() - began
    if comm.is_main_process():
        path = results_path(experiment)
        breakdown = read_breakdowns(inference_folder(cfg), cfg.DATASETS.TEST)
        results = build_results(experiment, metrics, stats, painter, breakdown)
        write_results(results, path)
        logger.info("Results are in %s", path)


def evaluate(cfg: CfgNode, resume: bool) -> dict[str, Any]:
    """Metrics of ``MODEL.WEIGHTS``, or with ``resume`` of the last checkpoint."""
    model = BgAugTrainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    metrics: dict[str, Any] = BgAugTrainer.test(cfg, model)
    return metrics


def log_to(output_dir: str, rank: int = 0) -> None:
    """Send the log to the terminal and ``log.txt`` in a folder, and no longer to another one."""
    setup_logger.cache_clear()
    for name in ("fvcore", "detectron2", "bgaug_d2"):
        for handler in list(logging.getLogger(name).handlers):
            logging.getLogger(name).removeHandler(handler)
        setup_logger(output_dir, distributed_rank=rank, name=name)


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
