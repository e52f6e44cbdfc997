"""Training processes: Detectron2's ``launch``, and gloo on CPUs, where that insists on CUDA."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm

from bgaug_d2.config.experiment import LaunchConfig
from bgaug_d2.errors import ConfigError


def resolve_device(launch: LaunchConfig) -> str:
    """``cuda`` or ``cpu``.

    Raises:
        ConfigError: More GPUs are asked for than this machine has, or several machines of CPUs.
    """
    present = torch.cuda.device_count()
    if launch.device == "cpu" or (launch.device == "auto" and present == 0):
        if launch.num_machines > 1:
            raise ConfigError(
                f"launch.num_machines={launch.num_machines} needs GPUs; on CPUs one machine trains"
            )
        return "cpu"
    if launch.num_gpus > present:
        raise ConfigError(
            f"launch.num_gpus={launch.num_gpus} but this machine has {present}; "
            "lower it or set launch.device=cpu"
        )
    return "cuda"


def launch_training(
    main: Callable[..., None], launch: LaunchConfig, device: str, args: tuple[Any, ...]
) -> None:
    """Call ``main(*args)`` in every training process of this machine and wait for all.

    Args:
        main: A function that spawned processes can import.
        launch: Numbers of processes and machines.
        device: From ``resolve_device``.
        args: Picklable.
    """
    if device == "cpu" and launch.num_gpus > 1:
        with tempfile.TemporaryDirectory() as folder:
            rendezvous = f"file://{folder}/rendezvous"
            spawned = (main, launch.num_gpus, rendezvous, args)
            mp.spawn(_cpu_process, spawned, nprocs=launch.num_gpus)
    else:
        detectron2_launch(
            main,
            launch.num_gpus,
            num_machines=launch.num_machines,
            machine_rank=launch.machine_rank,
            dist_url=launch.dist_url,
            args=args,
        )


def _cpu_process(
    rank: int, main: Callable[..., None], world_size: int, rendezvous: str, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world_size))
    dist.init_process_group("gloo", init_method=rendezvous, world_size=world_size, rank=rank)
    try:
        # What Detectron2's launch does, for its functions that ask for the rank on this machine.
        comm._LOCAL_PROCESS_GROUP = dist.new_group(list(range(world_size)))
        main(*args)
    finally:
        dist.destroy_process_group()
