"""Jobs: the key and what it covers, the wire form, objects from Detectron2's annotations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bgaug_d2.errors import AnnotationError
from bgaug_d2.jobs.digests import canonical_json, digest_file
from bgaug_d2.jobs.job import InpaintJob, Rle, job_key, objects_digest
from bgaug_d2.jobs.parse import JobError, job_from_dict, objects_from_annotations
from tests.helpers.factories import MODEL, make_job, make_object, make_recipe

POLYGON = (1.0, 2.0, 9.5, 2.0, 9.5, 7.25)
OBJECTS = (
    make_object((1, 2, 8.5, 5.25), [POLYGON], annotation_id=7),
    make_object((0, 0, 4, 4), Rle(48, 64, (10, 5, 3057)), iscrowd=True, annotation_id=8),
    make_object((0, 0, 4, 4), Rle(48, 64, "abc"), annotation_id="nine"),
    make_object((3, 3, 4, 4)),
)


def test_golden_key() -> None:
    """A changed canonical form would orphan every cache: raise ``SCHEMA`` when this changes."""
    job = make_job(objects=OBJECTS)
    assert job.recipe.digest == "8c3b0a156b9b2082d4998261ac6deb5b6ea14949c9d43227e4f4ddd1fc7ebf60"
    assert objects_digest(OBJECTS) == (
        "dc77761c89a2407ec773c843b097e680965ccadba7a826b827928c6aa2182ef2"
    )
    assert job.key == "304df753e16b6ea3aa9c7cab15aa1e4c23b1b62cddc32146337a21e486974ac2"
    assert job.seed() == 4160691549462685713


CHANGES: dict[str, Callable[[InpaintJob], InpaintJob]] = {
    "file name": lambda j: replace(j, source=replace(j.source, file_name="train/2.png")),
    "content": lambda j: replace(j, source=replace(j.source, sha256="00" * 32)),
    "size of file": lambda j: replace(j, source=replace(j.source, num_bytes=1)),
    "height": lambda j: replace(j, source=replace(j.source, height=47)),
    "width": lambda j: replace(j, source=replace(j.source, width=63)),
    "prompt": lambda j: replace(j, prompt=j.prompt + " "),
    "object prompt": lambda j: replace(j, object_prompts=("a cat",)),
    "object prompts": lambda j: replace(j, object_prompts=("a cat", "")),
    "variant": lambda j: replace(j, variant=2),
    "box": lambda j: replace(j, objects=(make_object((8, 8, 16, 12.5)),)),
    "polygon": lambda j: replace(j, objects=(make_object(segmentation=[POLYGON]),)),
    "crowd": lambda j: replace(j, objects=(make_object(iscrowd=True),)),
    "no object": lambda j: replace(j, objects=()),
    "two objects": lambda j: replace(j, objects=j.objects * 2),
    "model": lambda j: replace(j, recipe=replace(j.recipe, model=replace(MODEL, sha256="1" * 64))),
    "revision": lambda j: replace(j, recipe=replace(j.recipe, model=replace(MODEL, revision="1"))),
    "dtype": lambda j: replace(j, recipe=replace(j.recipe, dtype="bfloat16")),
    "scheduler": lambda j: replace(j, recipe=replace(j.recipe, scheduler="ddim")),
    "picture format": lambda j: replace(j, recipe=replace(j.recipe, picture_format="jpeg")),
    "guidance interval": lambda j: replace(j, recipe=make_recipe(guidance_interval=[0.2, 0.8])),
    "setting": lambda j: replace(j, recipe=make_recipe(guidance_scale=7.25)),
}


def test_everything_that_decides_pixels_changes_the_key() -> None:
    job = make_job()
    keys = {name: change(job).key for name, change in CHANGES.items()}
    assert job.key not in keys.values()
    assert len(set(keys.values())) == len(keys)


def test_every_setting_of_a_recipe_changes_the_key() -> None:
    changed: dict[str, Any] = {
        "target": "objects",
        "object_prompt": "{class_name}",
        "prompt": "caption",
        "prompt_text": "Paint",
        "scenes": ["a beach"],
        "negative_prompt": "people",
        "num_inference_steps": 30,
        "step_policy": "fixed",
        "D": 0.25,
        "fixed_T_hat": 5,
        "erosion_kernel": 5,
        "erosion_resolution": "image",
        "guidance_scale": 1,
        "guidance_interval": [0.2, 0.8],
        "solver_order": 1,
        "deepcache_interval": 2,
        "resolution": 256,
        "timestep_spacing": "trailing",
        "paste_back": False,
        "crowd": "skip_image",
        "min_background": 0.5,
    }
    settings = make_recipe().settings
    assert set(changed) | {"quality"} == set(vars(settings)), "a setting without a row here"
    needed = {"fixed_T_hat": {"step_policy": "fixed"}}  # it means nothing without
    digests = {
        make_recipe(**{name: value}, **needed.get(name, {})).digest
        for name, value in changed.items()
    }
    digests |= {make_recipe(scenes=["a street"]).digest}
    assert len(digests | {make_recipe().digest}) == len(changed) + 2


def test_what_decides_no_pixel_leaves_the_key() -> None:
    job = make_job()
    same = [
        replace(job, source=replace(job.source, image_id=99)),
        replace(job, objects=(make_object(annotation_id=99),)),
        replace(job, recipe=replace(job.recipe, model=replace(MODEL, license="other"))),
    ]
    assert {each.key for each in same} == {job.key}


def test_the_key_can_be_made_from_its_parts() -> None:
    job = make_job(objects=OBJECTS)
    parts = objects_digest(job.objects), job.prompt, job.recipe.digest, job.variant
    assert job_key(job.source, *parts) == job.key
    job = replace(job, object_prompts=("a cat", "", "a dog", "a cat"))
    assert job_key(job.source, *parts, job.object_prompts) == job.key


def test_each_attempt_of_each_pass_has_its_own_seed() -> None:
    seeds = [make_job().seed(attempt, number) for attempt in range(5) for number in range(3)]
    assert len(set(seeds)) == 15
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_job_survives_the_wire() -> None:
    job = make_job(objects=OBJECTS, prompt="Stra\u00dfe \u2603 \U0001f600")
    again = job_from_dict(json.loads(json.dumps(job.to_dict())))
    assert again == job
    assert again.key == job.key


def object_job(*prompts: str) -> InpaintJob:
    return make_job(objects=OBJECTS, prompt="", object_prompts=prompts, target="objects")


def test_object_prompts_survive_the_wire() -> None:
    job = object_job("a caf\u00e9", "", "a dog", "a dog")
    again = job_from_dict(json.loads(json.dumps(job.to_dict())))
    assert again == job
    assert again.key == job.key


@pytest.mark.parametrize(
    "prompts", [[], ["a"], ["a"] * 5, None, [1, 2, 3, 4], ["a", "b", "c", None]]
)
def test_a_job_needs_one_prompt_for_each_object(prompts: Any) -> None:
    content = object_job().to_dict() | {"object_prompts": prompts}
    with pytest.raises(JobError, match="malformed job"):
        job_from_dict(content)


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "other schema": lambda c: c.update(schema=0),
    "no source": lambda c: c.pop("source"),
    "unknown field": lambda c: c["source"].update(color="red"),
    "file name is a number": lambda c: c["source"].update(file_name=1),
    "digest is null": lambda c: c["source"].update(sha256=None),
    "height is text": lambda c: c["source"].update(height="48"),
    "width is zero": lambda c: c["source"].update(width=0),
    "objects is null": lambda c: c.update(objects=None),
    "object without box": lambda c: c["objects"][0].pop("bbox"),
    "NaN box": lambda c: c["objects"][0].update(bbox=[0, 0, math.nan, 1]),
    "polygon of text": lambda c: c["objects"][0].update(segmentation=[["a"] * 6]),
    "flat polygon": lambda c: c["objects"][0].update(segmentation=[1.0] * 6),
    "prompt is null": lambda c: c.update(prompt=None),
    "no object prompts": lambda c: c.pop("object_prompts"),
    "object prompts for a background": lambda c: c.update(object_prompts=["a cat"]),
    "variant 0": lambda c: c.update(variant=0),
    "variant is true": lambda c: c.update(variant=True),
    "variant is text": lambda c: c.update(variant="1"),
    "unknown setting": lambda c: c["recipe"]["settings"].update(colour=1),
    "bad setting": lambda c: c["recipe"]["settings"].update(D=2),
    "no model": lambda c: c["recipe"].pop("model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_job_is_refused(name: str) -> None:
    content = json.loads(json.dumps(make_job().to_dict()))
    BROKEN[name](content)
    with pytest.raises(JobError, match="malformed job"):
        job_from_dict(content)


@pytest.mark.parametrize("content", [None, [], "job", 5, {}])
def test_what_is_no_job_at_all_is_refused(content: Any) -> None:
    with pytest.raises(JobError):
        job_from_dict(content)


def test_objects_from_annotations() -> None:
    annotations: list[dict[str, Any]] = [
        {"id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4, 5, 6]]},
        {"id": 2, "bbox": [1, 2, 4, 6], "bbox_mode": 0, "iscrowd": 1},
        {"bbox": np.array([1, 2, 3, 4], np.float32), "segmentation": []},
        {"id": 4, "bbox": [0, 0, 1, 1], "segmentation": {"size": [4, 5], "counts": [3, 17]}},
        {"id": 5, "bbox": [0, 0, 1, 1], "segmentation": {"size": [4, 5], "counts": b"ab"}},
    ]
    first, second, third, fourth, fifth = objects_from_annotations(annotations, 9)
    assert first.bbox == second.bbox == third.bbox == (1.0, 2.0, 3.0, 4.0)
    assert first.segmentation == ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0),)
    assert (first.iscrowd, second.iscrowd) == (False, True)
    assert second.segmentation is None
    assert third.segmentation is None
    assert third.annotation_id is None
    assert fourth.segmentation == Rle(4, 5, (3, 17))
    assert fifth.segmentation == Rle(4, 5, "ab")


@pytest.mark.parametrize(
    "annotation",
    [
        {},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, math.nan]},
        {"bbox": [1, 2, 3, 10**400]},
        {"bbox": None},
        {"bbox": [1, 2, 3, 4], "bbox_mode": 4},
        {"bbox": [1, 2, 3, 4], "segmentation": [[1, 2, math.inf, 4, 5, 6]]},
        {"bbox": [1, 2, 3, 4], "segmentation": [1, 2, 3, 4, 5, 6]},
        {"bbox": [1, 2, 3, 4], "segmentation": {"counts": [1]}},
        {"bbox": [1, 2, 3, 4], "segmentation": {"size": [1], "counts": [1]}},
        {"bbox": [1, 2, 3, 4], "segmentation": {"size": [1, 1], "counts": b"\xff"}},
        {"bbox": [1, 2, 3, 4], "segmentation": 5},
    ],
)
def test_an_unusable_annotation_is_named(annotation: dict[str, Any]) -> None:
    with pytest.raises(AnnotationError, match="image 9, annotation 77"):
        objects_from_annotations([annotation | {"id": 77}], 9)


def test_canonical_json() -> None:
    assert canonical_json({"b": [1.0, "ä"], "a": None}) == b'{"a":null,"b":[1.0,"\\u00e4"]}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json([math.nan])


def test_digest_file(tmp_path: Any) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "long").write_bytes(b"x" * (1 << 20) + b"y")
    assert digest_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")
    assert digest_file(tmp_path / "long") != digest_file(tmp_path / "empty")


def test_integer_coordinates_are_the_same_key() -> None:
    whole = make_object((8, 8, 16, 12), [(1, 2, 9, 2, 9, 7)])
    floats = make_object((8.0, 8.0, 16.0, 12.0), [(1.0, 2.0, 9.0, 2.0, 9.0, 7.0)])
    assert make_job(objects=[whole]).key == make_job(objects=[floats]).key
