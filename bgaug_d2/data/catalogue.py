"""Entries of Detectron2's catalogue, and what the kinds of data sets share to make them.

Detectron2 is imported inside functions: ``check_dataset`` must answer before anything slow is
imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgaug_d2.config.experiment import DatasetConfig
from bgaug_d2.errors import DatasetError
from bgaug_d2.jobs.digests import canonical_json

DictLoader = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class DatasetHandle:
    """A registered data set.

    Attributes:
        train, test: Names in Detectron2's catalogue.
        image_root: Folder that holds all training images.
        evaluator: ``coco`` (COCOEvaluator) or ``voc`` (PascalVOCDetectionEvaluator).
        class_names: Class names by ``category_id``.
    """

    train: list[str]
    test: list[str]
    image_root: str
    evaluator: str
    class_names: list[str]


def check_root(config: DatasetConfig, expected: str) -> Path:
    """The data set's folder; raises DatasetError, which shows the ``expected`` layout."""
    root = real_root(config)
    if not root.is_dir():
        raise DatasetError(f"dataset.root={config.root!r} is no folder; {expected}")
    return root


def real_root(config: DatasetConfig) -> Path:
    """The data set's folder, absolute and without links."""
    # One spelling of a folder, so that its digest in the catalogue's names is the same.
    return Path(config.root).expanduser().resolve()


def add_to_catalogue(name: str, loader: DictLoader, metadata: dict[str, Any]) -> None:
    """Register a data set under a name, with metadata; a name that is there stays as it is."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    # The name holds a digest of the settings, so what is there is the same.
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, loader)
        MetadataCatalog.get(name).set(**metadata)


def short_digest(content: Any) -> str:
    """8 hexadecimal digits that differ where the settings differ; part of the catalogue's names."""
    return hashlib.sha256(canonical_json(content)).hexdigest()[:8]
