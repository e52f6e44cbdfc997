"""The planner: which draw shows what, and keys that agree with the jobs they stand for."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.cache.source_digests import FILE_KEY, OBJECTS_KEY, with_digests
from bgaug_d2.errors import AnnotationError, ImageError, PlanError, PromptError
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.sampling import planner as planner_module
from bgaug_d2.sampling.planner import DrawPlan, JobPlanner, skip_reason
from tests.helpers.dataset_dicts import annotation, coco_dicts, make_dict, make_planner
from tests.helpers.factories import make_recipe

CROWD = {"iscrowd": 1, "segmentation": {"size": [24, 32], "counts": [100, 50, 618]}}


def key_of(planner: JobPlanner, dataset_dict: Any, variant: int = 1) -> str | None:
    return planner.plan_variant(dataset_dict, variant).key


def job_of(planner: JobPlanner, dataset_dict: Any, variant: int = 1) -> InpaintJob:
    return planner.plan_variant(dataset_dict, variant).job()


@pytest.fixture
def one(tmp_path: Path) -> dict[str, Any]:
    return make_dict(tmp_path, 7)


def test_key_is_the_key_of_the_job(tmp_path: Path, one: dict[str, Any]) -> None:
    planner = make_planner(tmp_path)
    assert key_of(planner, one) == job_of(planner, one).key
    assert key_of(planner, one, 2) == job_of(planner, one, 2).key != key_of(planner, one)


def test_key_is_the_key_of_the_job_on_real_images(tiny_coco_root: Path) -> None:
    dicts = coco_dicts(tiny_coco_root)
    planner = make_planner(tiny_coco_root)
    for _ in range(2):  # computed, and remembered
        assert [key_of(planner, each) for each in dicts] == [
            job_of(planner, each).key for each in dicts
        ]
    assert len({key_of(planner, each) for each in dicts}) == len(dicts)


def test_job_describes_the_image(tmp_path: Path, one: dict[str, Any]) -> None:
    job = job_of(make_planner(tmp_path), one, 2)
    assert job.source.file_name == "train/7.png"
    assert job.source.num_bytes == os.path.getsize(one["file_name"])
    assert (job.source.height, job.source.width, job.source.image_id) == (24, 32, 7)
    assert [each.annotation_id for each in job.objects] == [7]
    assert job.prompt == "Generate a clean background"
    assert job.variant == 2


def test_replace_shows_variants_with_probability_p(tmp_path: Path, one: dict[str, Any]) -> None:
    def shown(p: float) -> list[int]:
        planner = make_planner(tmp_path, p=p, variants=3)
        return [planner.plan({**one, "bgaug_visit": visit}).variant for visit in range(400)]

    assert set(shown(0.0)) == {0}
    assert set(shown(1.0)) == {1, 2, 3}
    assert sum(variant > 0 for variant in shown(0.5)) == pytest.approx(200, abs=50)


def test_seed_decides_draws_and_not_pictures(tmp_path: Path, one: dict[str, Any]) -> None:
    first, second = make_planner(tmp_path, seed=1, p=0.5), make_planner(tmp_path, seed=2, p=0.5)
    visits = [{**one, "bgaug_visit": visit} for visit in range(50)]
    assert [first.variant(each) for each in visits] != [second.variant(each) for each in visits]
    assert key_of(first, one) == key_of(second, one)


def test_expand_shows_the_listed_variant(tmp_path: Path, one: dict[str, Any]) -> None:
    planner = make_planner(tmp_path, mode="expand")
    assert planner.plan({**one, "bgaug_variant": 0}) == DrawPlan()
    plan = planner.plan({**one, "bgaug_variant": 3, "bgaug_visit": 9})
    assert (plan.variant, plan.key, plan.reason) == (3, job_of(planner, one, 3).key, None)
    assert plan.job() == job_of(planner, one, 3)


def test_mode_none_shows_originals(tmp_path: Path, one: dict[str, Any]) -> None:
    assert make_planner(tmp_path, mode="none").plan(one) == DrawPlan()


def test_original_needs_no_file(tmp_path: Path) -> None:
    planner = make_planner(tmp_path, p=0.0)
    assert planner.plan({"image_id": 1, "bgaug_visit": 0}) == DrawPlan()


@pytest.mark.parametrize(
    ("mode", "missing"), [("replace", "bgaug_visit"), ("expand", "bgaug_variant")]
)
def test_a_dict_that_missed_the_loader_is_an_error(
    tmp_path: Path, one: dict[str, Any], mode: str, missing: str
) -> None:
    with pytest.raises(PlanError, match=f"7.png.*{missing}.*bgaug_d2.sampling"):
        make_planner(tmp_path, mode=mode).plan(one)


@pytest.mark.parametrize("missing", ["image_id", "height", "width", "file_name"])
def test_a_dict_out_of_format_is_an_error(
    tmp_path: Path, one: dict[str, Any], missing: str
) -> None:
    del one[missing]
    with pytest.raises(PlanError, match=missing):
        make_planner(tmp_path).plan({**one, "bgaug_visit": 0})


@pytest.mark.parametrize(
    ("annotations", "crowd", "reason"),
    [
        ([], "protect", "no_objects"),
        (None, "protect", "no_objects"),
        ([annotation(1), annotation(2, **CROWD)], "protect", None),
        ([annotation(1), annotation(2, **CROWD)], "skip_image", "crowd"),
        ([annotation(1)], "skip_image", None),
    ],
)
def test_rules_of_annotations(
    tmp_path: Path, one: dict[str, Any], annotations: Any, crowd: str, reason: str | None
) -> None:
    one["annotations"] = annotations
    if annotations is None:
        del one["annotations"]
    planner = make_planner(tmp_path, recipe={"crowd": crowd})
    plan = planner.plan({**one, "bgaug_visit": 0})
    assert plan.reason == reason
    assert (plan.key is None) == (reason is not None)
    assert plan.variant > 0


def test_small_background_is_a_rule_where_the_ratio_is_known(one: dict[str, Any]) -> None:
    settings = make_recipe(min_background=0.25).settings
    assert skip_reason(one, settings) is None
    assert skip_reason(one, settings, 0.25) is None
    assert skip_reason(one, settings, 0.2499) == "small_background"


def test_rules_where_no_background_is_painted(one: dict[str, Any]) -> None:
    settings = make_recipe(target="objects", min_background=0.25).settings
    both = make_recipe(target="objects_and_background", min_background=0.25).settings
    assert skip_reason(one, settings, 0.0) is None
    assert skip_reason(one, both, 0.0) == "small_background"
    one["annotations"] = [annotation(1, **CROWD), annotation(2, **CROWD)]
    assert skip_reason(one, settings, 1.0) == "no_objects"
    assert skip_reason(one, both, 1.0) is None


def test_a_changed_file_changes_the_key(tmp_path: Path, one: dict[str, Any]) -> None:
    planner = make_planner(tmp_path)
    before = key_of(planner, one)
    os.utime(one["file_name"], ns=(1, 1))  # touched, not changed
    assert key_of(planner, one) == before
    with open(one["file_name"], "ab") as file:
        file.write(b"x")
    after = key_of(planner, one)
    assert after != before
    assert after == job_of(planner, one).key == key_of(make_planner(tmp_path), one)


def test_changed_content_of_the_same_size_changes_the_key(
    tmp_path: Path, one: dict[str, Any]
) -> None:
    planner = make_planner(tmp_path)
    before = key_of(planner, one)
    path = Path(one["file_name"])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(5, 5))  # the clock of a file system may be coarser than this test is fast
    assert key_of(planner, one) != before


def test_changed_annotations_change_the_key(tmp_path: Path, one: dict[str, Any]) -> None:
    planner = make_planner(tmp_path)
    before = key_of(planner, one)
    moved = {**one, "annotations": [annotation(7, bbox=[4.0, 4.0, 12.0, 11.0])]}
    after = key_of(planner, moved)
    assert after != before
    assert after == job_of(planner, moved).key
    # Two data sets may share an image: neither takes the other's objects.
    assert [key_of(planner, each) for each in (one, moved, one)] == [
        before,
        after,
        before,
    ]


def test_annotations_changed_in_place_change_the_key(tmp_path: Path, one: dict[str, Any]) -> None:
    planner = make_planner(tmp_path)
    before = key_of(planner, one)
    one["annotations"][0]["segmentation"][0][0] = 5.0
    assert key_of(planner, one) == job_of(planner, one).key != before


def test_a_changed_file_with_the_time_of_the_old_one_changes_the_key(
    tmp_path: Path, one: dict[str, Any]
) -> None:
    planner = make_planner(tmp_path)
    before, status = key_of(planner, one), os.stat(one["file_name"])
    with open(one["file_name"], "ab") as file:
        file.write(b"x")
    os.utime(one["file_name"], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert key_of(planner, one) != before


@pytest.mark.parametrize("field", ["height", "width"])
def test_changed_size_changes_the_key(tmp_path: Path, one: dict[str, Any], field: str) -> None:
    planner = make_planner(tmp_path)
    before = key_of(planner, one)
    assert key_of(planner, {**one, field: 99}) != before


@pytest.fixture
def digested(
    tmp_path: Path, one: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """``one`` with its digests; whoever computes another one fails."""
    (found,) = with_digests([one], str(tmp_path), str(tmp_path / "cache"))

    def refuse(*_: Any) -> str:
        raise AssertionError("a digest is computed although the dataset dict has it")

    monkeypatch.setattr(planner_module, "file_digest", refuse)
    monkeypatch.setattr(planner_module, "objects_sha256", refuse)
    monkeypatch.setattr(planner_module, "objects_from_annotations", refuse)
    return found


def test_a_hit_computes_no_digest_and_parses_no_object(
    tmp_path: Path, digested: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = make_planner(tmp_path)
    key = key_of(planner, digested)
    with pytest.raises(AssertionError):
        job_of(planner, digested)
    monkeypatch.undo()
    bare = {name: each for name, each in digested.items() if name not in (FILE_KEY, OBJECTS_KEY)}
    assert (
        key == key_of(planner, bare) == job_of(planner, bare).key == job_of(planner, digested).key
    )


def test_a_planner_keeps_nothing(tmp_path: Path, digested: dict[str, Any]) -> None:
    planner = make_planner(tmp_path)
    before = pickle.dumps(planner)
    for visit in range(50):
        # As a loader process gets it: from the shared list, pickled.
        assert planner.plan({**pickle.loads(pickle.dumps(digested)), "bgaug_visit": visit}).key
    assert planner.recipe.digest  # computed once, the same for all images
    planner.recipe.__dict__.pop("digest")
    assert pickle.dumps(planner) == before


def test_a_file_that_changed_since_it_was_digested_changes_the_key(
    tmp_path: Path, digested: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = make_planner(tmp_path)
    before = key_of(planner, digested)
    monkeypatch.undo()
    with open(digested["file_name"], "ab") as file:
        file.write(b"x")
    after = key_of(planner, digested)
    assert after != before
    assert after == job_of(planner, digested).key == job_of(make_planner(tmp_path), digested).key
    content = Path(digested["file_name"]).read_bytes()
    (again,) = with_digests([digested], str(tmp_path), str(tmp_path / "cache"))
    assert key_of(planner, again) == after
    Path(digested["file_name"]).write_bytes(content[:-2] + b"yz")
    os.utime(digested["file_name"], ns=(7, 7))
    assert key_of(planner, again) not in (before, after)


def test_an_image_outside_the_root_is_refused(tmp_path: Path, one: dict[str, Any]) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ImageError, match="7.png"):
        make_planner(tmp_path / "elsewhere").plan({**one, "bgaug_visit": 0})


def test_a_missing_image_is_an_error(tmp_path: Path, one: dict[str, Any]) -> None:
    os.unlink(one["file_name"])
    with pytest.raises(FileNotFoundError):
        make_planner(tmp_path).plan({**one, "bgaug_visit": 0})


def test_a_broken_annotation_is_named(tmp_path: Path, one: dict[str, Any]) -> None:
    one["annotations"][0]["bbox"] = [0, 0, float("nan"), 3]
    with pytest.raises(AnnotationError, match="image 7, annotation 7"):
        make_planner(tmp_path).plan({**one, "bgaug_visit": 0})


def test_prompts_come_from_captions_and_classes(tmp_path: Path, one: dict[str, Any]) -> None:
    one["captions"] = ["A cat on a mat.", "A mat."]
    one["annotations"] = [annotation(1, category_id=1), annotation(2), annotation(3)]
    by_caption = make_planner(tmp_path, recipe={"prompt": "caption"})
    assert job_of(by_caption, one).prompt != job_of(by_caption, one, 2).prompt
    assert job_of(by_caption, one).prompt in one["captions"]
    by_class = make_planner(tmp_path, recipe={"prompt": "class_names"})
    assert job_of(by_class, one).prompt == "A photo of cat, dog"
    for planner in (by_caption, by_class):
        assert key_of(planner, one) == job_of(planner, one).key
    with pytest.raises(PromptError, match="caption"):
        by_caption.plan({**one, "captions": [], "bgaug_visit": 0})


def test_object_prompts_come_from_classes(tmp_path: Path, one: dict[str, Any]) -> None:
    one["annotations"] = [annotation(1, category_id=1), annotation(2, **CROWD), annotation(3)]
    for target, prompt in (("objects", ""), ("objects_and_background", "a field")):
        recipe = {"target": target, "object_prompt": "One {class_name}.", "prompt_text": "a field"}
        planner = make_planner(tmp_path, recipe=recipe)
        job = job_of(planner, one)
        assert (job.prompt, job.object_prompts) == (prompt, ("One dog.", "", "One cat."))
        assert key_of(planner, one) == job.key
    captionless = make_planner(tmp_path, recipe={"target": "objects", "prompt": "caption"})
    assert captionless.plan({**one, "bgaug_visit": 0}).key is not None


@pytest.mark.parametrize("target", ["background", "objects", "objects_and_background"])
def test_the_key_knows_the_class_only_where_objects_are_painted(
    tmp_path: Path, one: dict[str, Any], target: str
) -> None:
    planner = make_planner(tmp_path, recipe={"target": target})
    renamed = {**one, "annotations": [annotation(7, category_id=1)]}
    assert (key_of(planner, one) == key_of(planner, renamed)) == (target == "background")
    two = [annotation(7), annotation(8, bbox=[1.0, 1.0, 5.0, 5.0])]
    there, back = ({**one, "annotations": each} for each in (two, two[::-1]))
    assert key_of(planner, there) != key_of(planner, back)


def test_a_class_without_a_name_is_an_error(tmp_path: Path, one: dict[str, Any]) -> None:
    one["annotations"] = [annotation(7, category_id=2)]
    with pytest.raises(PlanError, match=r"7\.png.*category_id.*2 class names"):
        key_of(make_planner(tmp_path, recipe={"target": "objects"}), one)


def test_all_jobs_are_those_that_training_can_ask_for(tmp_path: Path) -> None:
    first, second, empty = (make_dict(tmp_path, each) for each in range(3))
    empty["annotations"] = []
    dicts = [first, second, empty]
    replace = make_planner(tmp_path, variants=2)
    assert list(replace.all_jobs(dicts)) == [(first, 1), (first, 2), (second, 1), (second, 2)]
    listed = [{**first, "bgaug_variant": 0}, {**first, "bgaug_variant": 2}]
    listed.append({**empty, "bgaug_variant": 1})
    assert list(make_planner(tmp_path, mode="expand").all_jobs(listed)) == [(listed[1], 2)]
    assert list(make_planner(tmp_path, mode="none").all_jobs(dicts)) == []
    asked = {replace.plan({**first, "bgaug_visit": visit}).key for visit in range(50)}
    assert asked == {key_of(replace, each, v) for each, v in replace.all_jobs([first])}


def test_pickling_changes_nothing(tmp_path: Path, one: dict[str, Any]) -> None:
    planner = make_planner(tmp_path)
    before = key_of(planner, one)
    copy = pickle.loads(pickle.dumps(planner))
    assert key_of(copy, one) == before
    assert copy.plan({**one, "bgaug_visit": 3}) == planner.plan({**one, "bgaug_visit": 3})


def test_plans_are_the_same_in_every_process(tmp_path: Path, one: dict[str, Any]) -> None:
    program = (
        "import json, sys; from pathlib import Path\n"
        "from tests.helpers.dataset_dicts import make_planner\n"
        "one = json.loads(sys.argv[2]); planner = make_planner(Path(sys.argv[1]), p=0.5)\n"
        "plans = [planner.plan({**one, 'bgaug_visit': v}) for v in range(20)]\n"
        "print([(p.variant, p.key) for p in plans])"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), json.dumps(one)]
    outputs = {
        subprocess.run(
            arguments,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    planner = make_planner(tmp_path, p=0.5)
    plans = [planner.plan({**one, "bgaug_visit": visit}) for visit in range(20)]
    assert outputs == {f"{[(plan.variant, plan.key) for plan in plans]}\n"}


def test_planning_needs_neither_torch_nor_detectron2() -> None:
    program = (
        "import sys\n"
        "from bgaug_d2.sampling import expand, lookahead, mapper, planner\n"
        "print({'torch', 'detectron2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
