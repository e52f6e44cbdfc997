"""One training loop for both stages: learning rate, log, checkpoints from which it goes on."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_LOG_EVERY = 100  # steps
_SAVE_EVERY_S = 120.0  # about the most that an interruption can cost
_WARMUP = 100  # steps

Step = Callable[[torch.Generator], torch.Tensor]


def set_up(folder: Path, threads: int) -> None:
    """What a training tool does first: log to standard error, CPU threads, folder of the training.

    Args:
        folder: Made if it is missing.
        threads: 0 leaves torch's number as it is.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads:
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)


def train(
    name: str,
    folder: Path,
    module: torch.nn.Module,
    step: Step,
    steps: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train ``module`` with AdamW: linear warm-up, then a cosine down to zero.

    ``folder`` gets ``NAME.pt``, a checkpoint every two minutes and at the end, and ``NAME.jsonl``,
    a line of step, mean loss and seconds every 100 steps. Started again it goes on from the
    checkpoint, with the same random numbers as an uninterrupted run.

    Args:
        name: The stage's name.
        folder: Exists.
        module: Its parameters are trained in place.
        step: From a generator for all randomness to the loss of one batch.
        steps: How many in all.
        learning_rate: Largest, reached after the warm-up.
        seed: Seed of the generators; each step has its own.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    done, seconds = _load(folder / f"{name}.pt", module, optimizer)
    module.train()
    began = saved = time.monotonic()
    losses: list[torch.Tensor] = []
    for index in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _pace(index, steps)
        loss = step(torch.Generator().manual_seed(seed * 10_000_000 + index))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        now = time.monotonic()
        if (index + 1) % _LOG_EVERY == 0 or index + 1 == steps:
            mean = float(torch.stack(losses).mean())
            losses.clear()
            _log(folder / f"{name}.jsonl", name, index + 1, steps, mean, seconds + now - began)
        if now - saved > _SAVE_EVERY_S or index + 1 == steps:
            _save(folder / f"{name}.pt", module, optimizer, index + 1, seconds + now - began)
            saved = now
    module.eval()


def _pace(index: int, steps: int) -> float:
    """Share of the largest learning rate at a step."""
    return min((index + 1) / _WARMUP, 0.5 * (1 + math.cos(math.pi * index / steps)))


def _log(path: Path, name: str, step: int, steps: int, loss: float, seconds: float) -> None:
    line = {"step": step, "loss": round(loss, 5), "seconds": round(seconds, 1)}
    with open(path, "a", encoding="ascii") as file:
        file.write(json.dumps(line) + "\n")
    logger.info("%s: step %d of %d, loss %.4f, %.0f s", name, step, steps, loss, seconds)


def _load(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Steps done and seconds spent before; 0 where there is no checkpoint."""
    if not path.is_file():
        return 0, 0.0
    # weights_only: a checkpoint's pickle could otherwise run code.
    content = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(content["module"])
    optimizer.load_state_dict(content["optimizer"])
    return int(content["steps"]), float(content["seconds"])


def _save(
    path: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    seconds: float,
) -> None:
    content = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
    scratch = path.with_suffix(".tmp")
    torch.save({**content, "steps": steps, "seconds": seconds}, scratch)
    # At once, so that an interruption leaves the old checkpoint or the new one.
    os.replace(scratch, path)
