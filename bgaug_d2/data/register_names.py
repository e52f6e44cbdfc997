"""Uses data sets that the user has registered in Detectron2's catalogue."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from bgaug_d2.config.experiment import DatasetConfig
from bgaug_d2.data.catalogue import DatasetHandle, add_to_catalogue
from bgaug_d2.errors import DatasetError


def register_names(config: DatasetConfig) -> DatasetHandle:
    """The handle of sets that the user has registered; loads them to find their images' folder.

    Raises:
        DatasetError: A name is unknown, or the sets have no images or no class names.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    known = list(DatasetCatalog.list())
    for name in (*config.train_names, *config.test_names):
        if name not in known:
            # Detectron2's own error lists its whole catalogue.
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "register it first"
            raise DatasetError(f"{name!r} is not in Detectron2's catalogue; {hint}")
    train, train_dicts = _shortened_names(config.train_names, config.max_train_images)
    test, _ = _shortened_names(config.test_names, config.max_test_images)
    # Nothing in the catalogue says where images are, so the dicts have to.
    folders = {os.path.dirname(os.path.abspath(each["file_name"])) for each in train_dicts}
    metadata = MetadataCatalog.get(config.train_names[0])
    class_names = metadata.get("thing_classes")
    if not folders or not class_names:
        raise DatasetError(
            f"{config.train_names[0]!r} has no images, or no thing_classes in its metadata"
        )
    is_voc = MetadataCatalog.get(test[0]).get("evaluator_type") == "pascal_voc"
    evaluator = "voc" if is_voc and not config.max_test_images else "coco"
    return DatasetHandle(
        train, test, os.path.commonpath(sorted(folders)), evaluator, list(class_names)
    )


def _shortened_names(names: Sequence[str], most: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of sets cut to the first ``most`` images of all (0 keeps all), and their dicts."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    kept: list[str] = []
    all_dicts: list[dict[str, Any]] = []
    for name in names:
        dicts = DatasetCatalog.get(name)
        room = most - len(all_dicts)
        if most and room <= 0:
            break
        if most and len(dicts) > room:
            dicts = dicts[:room]
            metadata = dict(MetadataCatalog.get(name).as_dict())
            # The evaluator must not count the images left out: no annotation file that lists them.
            for key in ("name", "json_file", "evaluator_type"):
                metadata.pop(key, None)
            # A name of its own: the user's entry stays as it is.
            short = f"{name}_first{room}"
            add_to_catalogue(short, partial(_first, name, room), metadata)
            name = short
        kept.append(name)
        all_dicts += dicts
    return kept, all_dicts


def _first(name: str, count: int) -> list[dict[str, Any]]:
    from detectron2.data import DatasetCatalog

    return DatasetCatalog.get(name)[:count]
