"""The cache key for any job: the same everywhere, another one for every change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bgaug_d2.jobs.job import InpaintJob, JobObject, Rle, objects_digest
from bgaug_d2.jobs.parse import job_from_dict
from tests.helpers.factories import make_job, make_source

NUMBERS = st.floats(-1e6, 1e6)
POLYGONS = st.lists(st.lists(NUMBERS, min_size=6, max_size=8).map(tuple), min_size=1, max_size=2)
RLES = st.builds(
    Rle,
    st.integers(1, 500),
    st.integers(1, 500),
    st.one_of(st.text(max_size=8), st.lists(st.integers(0, 99), max_size=5).map(tuple)),
)
OBJECTS: st.SearchStrategy[JobObject] = st.builds(
    JobObject,
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.one_of(st.none(), POLYGONS.map(tuple), RLES),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 10**12), st.text(max_size=5)),
)
JOBS: st.SearchStrategy[InpaintJob] = st.builds(
    make_job,
    st.builds(make_source, file_name=st.text(min_size=1), height=st.integers(1, 9999)),
    st.lists(OBJECTS, max_size=3),
    st.integers(1, 99),
    st.text(max_size=20),
    guidance_scale=st.floats(1, 20),
    scenes=st.lists(st.text(max_size=5), max_size=2),
)


@given(JOBS)
def test_the_wire_changes_nothing(job: InpaintJob) -> None:
    """The worker stores under the key that the reader looks up."""
    again = job_from_dict(json.loads(json.dumps(job.to_dict())))
    assert again == job
    assert again.key == job.key
    assert [again.seed(n) for n in range(3)] == [job.seed(n) for n in range(3)]


@given(JOBS)
def test_keys_are_lower_case_hex(job: InpaintJob) -> None:
    assert len(job.key) == 64
    assert set(job.key) <= set("0123456789abcdef")


@given(JOBS, JOBS)
def test_equal_keys_only_for_equal_pixels(one: InpaintJob, other: InpaintJob) -> None:
    def anonymous(job: InpaintJob) -> InpaintJob:
        objects = tuple(replace(item, annotation_id=None) for item in job.objects)
        return replace(job, objects=objects)

    # repr, because 0.0 == -0.0: a changed sign of zero may well change the key
    assert (one.key == other.key) == (repr(anonymous(one)) == repr(anonymous(other)))


@given(st.lists(OBJECTS, max_size=3), st.lists(st.text(max_size=5), min_size=6, max_size=6))
def test_object_prompts_survive_the_wire_and_all_count(
    objects: list[JobObject], texts: list[str]
) -> None:
    prompts = texts[: len(objects)], texts[3 : 3 + len(objects)]
    one, other = (make_job(None, objects, object_prompts=p, target="objects") for p in prompts)
    assert job_from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert (one.key == other.key) == (prompts[0] == prompts[1])


@given(st.lists(OBJECTS, min_size=1, max_size=3), NUMBERS)
def test_every_coordinate_counts(objects: list[JobObject], number: float) -> None:
    first = objects[0]
    changed = [replace(first, bbox=(number, *first.bbox[1:])), *objects[1:]]
    same = repr(first.bbox[0]) == repr(number)
    assert (objects_digest(objects) == objects_digest(changed)) == same


CODE = """
from bgaug_d2.sampling.policy import replace_variant
from tests.helpers.factories import make_job, make_object
objects = [make_object(segmentation=[(1.1, 2.2, 3.3, 4.4, 5.5, 6.6)]), make_object(iscrowd=True)]
job = make_job(objects=objects, scenes=["b", "a"], prompt="x", guidance_scale=3)
print(job.key, job.seed(1), [replace_variant(5, "name", visit, 0.5, 9) for visit in range(20)])
"""


def test_the_same_under_any_hash_seed() -> None:
    root = Path(__file__).resolve().parents[2]
    outputs = set()
    for seed in ("0", "1", "4294967295", "random"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=root,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
