"""The tiny model's card, from what its training and its assessment left behind."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bgaug_d2.config.recipe import RecipeConfig
from tools.pretrain.assess import Assessment

_SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of a log, shown on the card


@dataclass(frozen=True)
class Training:
    """What the card says of a training run.

    Attributes:
        command: The command that repeats it.
        machine: Processor and threads, or GPU.
        pictures: Number of training pictures.
        size: Their side, in pixels.
        seed: The one seed of everything.
        commit: The commit of the code.
        date: ISO 8601.
    """

    command: str
    machine: str
    pictures: int
    size: int
    seed: int
    commit: str
    date: str


def write_card(
    path: Path,
    training: Training,
    found: Assessment,
    settings: RecipeConfig,
    folder: Path,
    sizes: dict[str, int],
) -> None:
    """Write the card.

    Args:
        path: The card, Markdown.
        training: What there is to say about the run.
        found: The assessment of the finished model.
        settings: The recipe with which it painted what was assessed.
        folder: The one with the logs ``vae.jsonl`` and ``unet.jsonl``.
        sizes: Parameters of each part.
    """
    logs = {name: _read_log(folder / f"{name}.jsonl") for name in ("vae", "unet")}
    environment = Environment(  # Markdown: nothing to escape
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined
    )
    losses = [[_at(log, share) for log in logs.values()] for share in _SHARES]
    text = environment.get_template("card.md.jinja").render(
        training=training,
        found=found,
        settings=settings,
        sizes={name: f"{count / 1e6:.2f} M" for name, count in sizes.items()},
        hours=sum(log[-1]["seconds"] for log in logs.values()) / 3600,
        losses=[row for i, row in enumerate(losses) if row not in losses[:i]],  # of a short log
        mean=statistics.fmean,
    )
    path.write_text(text + "\n", encoding="utf-8")


def _read_log(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def _at(log: Sequence[dict[str, float]], share: float) -> dict[str, float]:
    return log[round(share * (len(log) - 1))]
