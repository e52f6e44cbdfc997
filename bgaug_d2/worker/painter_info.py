"""What a training process has to know about painting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bgaug_d2.jobs.job import ModelIdentity


@dataclass(frozen=True)
class PainterInfo:
    """Identity and addresses of what paints: plain values, picklable.

    Attributes:
        identity: Which weights paint; part of every cache key.
        dtype: ``float32`` or ``bfloat16``, as the painting processes run; part of every key.
        image_root: Folder that holds all images; nothing outside it is opened.
        addresses: Sockets of this machine's painting processes; empty where none runs.
    """

    identity: ModelIdentity
    dtype: str
    image_root: str
    addresses: tuple[str, ...] = ()

    @classmethod
    def from_mapping(cls, content: dict[str, Any]) -> PainterInfo:
        """The inverse of ``dataclasses.asdict``, with lists for tuples."""
        fields = {**content, "identity": ModelIdentity(**content["identity"])}
        return cls(**{**fields, "addresses": tuple(content["addresses"])})
