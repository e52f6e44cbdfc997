"""Length and pace of training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bgaug_d2.config.checks import check_between, check_choice
from bgaug_d2.errors import ConfigError

OPTIMIZERS = ("sgd", "adamw")


@dataclass
class ScheduleConfig:
    """Length and pace of training.

    Attributes:
        iterations: Optimizer steps; equal for a baseline and what is compared with it.
        images_per_batch: Images per step over all GPUs.
        optimizer: ``sgd`` (Detectron2's own, with momentum) or ``adamw``.
        base_lr: Learning rate for that batch.
        weight_decay: Weight decay of all parameters but those of normalisation layers.
        lr_drops: Iterations at which the rate falls to a tenth.
        warmup_iters: Iterations of linear warm-up.
        eval_period: Iterations between two evaluations; 0 evaluates at the end only.
        checkpoint_period: Iterations between two checkpoints.
        num_workers: Loader processes per GPU.
        batch_factor: Linear scaling to another batch (Goyal et al. 2017, arXiv 1706.02677): factor
            of the images per batch and of the learning rate, divisor of all iterations above.
            ``scaled`` applies it, once.
    """

    # The defaults are those of Detectron2's 1x schedule.
    iterations: int = 90_000
    images_per_batch: int = 16
    optimizer: str = "sgd"
    base_lr: float = 0.02
    weight_decay: float = 0.0001
    lr_drops: list[int] = field(default_factory=lambda: [60_000, 80_000])
    warmup_iters: int = 1000
    eval_period: int = 0
    checkpoint_period: int = 5000
    num_workers: int = 4
    batch_factor: float = 1.0

    def __post_init__(self) -> None:
        self.batch_factor = float(self.batch_factor)
        check_between("schedule.batch_factor", self.batch_factor, 0.001, 1000)
        check_between("schedule.iterations", self.iterations, 1)
        check_between("schedule.images_per_batch", self.images_per_batch, 1)
        check_choice("schedule.optimizer", self.optimizer, OPTIMIZERS)
        check_between("schedule.base_lr", self.base_lr, 0)
        check_between("schedule.weight_decay", self.weight_decay, 0)
        check_between("schedule.warmup_iters", self.warmup_iters, 0)
        check_between("schedule.eval_period", self.eval_period, 0)
        check_between("schedule.checkpoint_period", self.checkpoint_period, 1)
        check_between("schedule.num_workers", self.num_workers, 0)


def scaled(schedule: ScheduleConfig) -> ScheduleConfig:
    """The schedule with its ``batch_factor`` applied; that of the result is 1.

    Raises:
        ConfigError: The factor does not give a whole number of images per batch.
    """
    factor = schedule.batch_factor
    if factor == 1:
        return schedule
    images = schedule.images_per_batch * factor
    if images != int(images):
        raise ConfigError(
            f"schedule.batch_factor={factor:g} times schedule.images_per_batch="
            f"{schedule.images_per_batch} is {images:g}, no whole number of images"
        )
    return replace(
        schedule,
        batch_factor=1.0,
        images_per_batch=int(images),
        base_lr=schedule.base_lr * factor,
        iterations=max(1, round(schedule.iterations / factor)),
        lr_drops=[max(1, round(drop / factor)) for drop in schedule.lr_drops],
        warmup_iters=round(schedule.warmup_iters / factor),
        # Without a lower limit: 0 means at the end only, and stays 0.
        eval_period=round(schedule.eval_period / factor),
        checkpoint_period=max(1, round(schedule.checkpoint_period / factor)),
    )
