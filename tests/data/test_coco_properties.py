"""An annotation file with one wrong value is refused in one sentence, or does no harm later."""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from bgaug_d2.data.coco import load_coco
from bgaug_d2.errors import AnnotationError, DatasetError
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.object_masks import object_masks
from tests.helpers.data_trees import coco_content, train_split, write_coco

pytest.importorskip("detectron2")

WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 120),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from([[], {}, [[]], [1, 2], "..", "/", 1e8, -1e300, 2**63]),
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    if path:
        yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, each in value.items() if isinstance(value, dict) else ():
        yield from paths(each, (*path, key))


CONTENT = coco_content(2)
PLACES = list(paths(CONTENT))


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        write_coco(Path(folder) / "coco", CONTENT, CONTENT)
        yield Path(folder) / "coco"


@given(st.sampled_from(PLACES), WRONG, st.booleans())
def test_one_wrong_value(root: Path, place: tuple[Any, ...], value: Any, evaluated: bool) -> None:
    content = copy.deepcopy(CONTENT)
    target: Any = content
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    path = root / "annotations/train.json"
    path.write_text(json.dumps(content))
    try:
        # Metadata stay for good, so every example has a name of its own.
        dicts = load_coco(train_split(root, evaluated=evaluated), f"coco_{uuid.uuid4()}")
    except (DatasetError, AnnotationError) as error:
        assert "\n" not in str(error)  # noqa: PT017 - most values are refused, some are fine
        return
    for each in dicts:  # what is accepted crashes neither the core nor pycocotools
        assert Path(each["file_name"]).is_file()
        objects = objects_from_annotations(each["annotations"], each["image_id"])
        with contextlib.suppress(AnnotationError):  # an object wholly outside its image
            object_masks(objects, each["height"], each["width"], each["image_id"])
    truth = COCO(str(path))
    for annotation in truth.anns.values() if evaluated else ():
        if annotation.get("segmentation") and annotation["image_id"] in truth.imgs:
            truth.annToMask(annotation)
