"""The torch devices that paint, and the CPU threads of each."""

from __future__ import annotations

import os

import torch

from bgaug_d2.config.bgaug import WorkerConfig
from bgaug_d2.errors import ConfigError


def worker_devices(worker: WorkerConfig) -> list[str]:
    """The torch devices that paint; ``auto`` means every GPU, or the CPU where there is none.

    Raises:
        ConfigError: ``auto`` beside other devices, or CPUs and GPUs together: all processes must
            have one number format, because it is part of the cache key.
    """
    devices = list(worker.devices)
    if devices == ["auto"]:
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    if "auto" in devices or len({each.partition(":")[0] for each in devices}) > 1:
        raise ConfigError(
            f"worker.devices={devices} is not allowed; give [auto], or CPUs only, or GPUs only"
        )
    return devices


def cpu_threads(processes: int, use_all_cores: bool) -> int:
    """CPU threads of the model in each of ``processes`` painting processes on CPUs, at least 1.

    Args:
        processes: Painting processes of this machine.
        use_all_cores: False leaves half of the cores to training.
    """
    # Not os.cpu_count(): a container or a batch system can allow fewer cores.
    cores = len(os.sched_getaffinity(0)) // (1 if use_all_cores else 2)
    return max(1, cores // processes)
