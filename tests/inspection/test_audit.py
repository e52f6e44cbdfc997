"""Audit: counts known beforehand, on drawn masks, on a drawn world, and with a real detector."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.commands.audit import main
from bgaug_d2.errors import AuditError
from bgaug_d2.inspection.audit import (
    Annotations,
    audit_cache,
    batches,
    check_originals,
    limited,
    read_entries,
    shown,
)
from bgaug_d2.inspection.audit_summary import Audit, BootstrapEstimate, Pair, aggregate, to_markdown
from bgaug_d2.inspection.faults import (
    Detections,
    Labels,
    Measured,
    Thresholds,
    extra_objects,
    object_growth,
)
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.painting.passes import Finished
from bgaug_d2.painting.prepare import prepare
from bgaug_d2.painting.sidecar import sidecar
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.training.detectron2_cfg import to_cfg
from tests.helpers.factories import make_job, source_of
from tests.helpers.tool_runs import experiment_of

CREATED = "2026-01-01T00:00:00+00:00"
SIZE = 40, 60


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def detections(*masks: np.ndarray, scores: Sequence[float] = ()) -> Detections:
    stacked = np.array(masks, dtype=bool).reshape(-1, *SIZE)
    given = np.array(scores or [0.9] * len(masks), dtype=np.float64)
    return Detections(stacked, np.zeros(len(masks), dtype=np.int64), given)


# --- One picture ---

OBJECT = box(10, 10, 10, 10)  # rows and columns 10..19


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (box(30, 40, 4, 5), 1),  # 20 pixels
        (box(30, 40, 1, 19), 0),  # one pixel less
        (box(12, 12, 6, 6), 0),  # the object itself
        (box(10, 18, 10, 20), 1),  # 4 of 20 columns, 20 %, within the object and 2 pixels around it
        (box(10, 18, 10, 19), 0),  # 4 of 19
        (box(10, 20, 10, 2), 0),  # beside it, but within the 2 pixels
        (box(10, 22, 10, 2), 1),
    ],
)
def test_a_detection_beside_the_labelled_objects_is_extra(mask: np.ndarray, count: int) -> None:
    assert extra_objects(detections(mask), OBJECT) == count


def test_each_threshold_of_an_extra_object() -> None:
    found = detections(box(30, 40, 5, 5), box(10, 20, 10, 2), scores=[0.5, 0.49])
    assert extra_objects(found, OBJECT) == 1
    assert extra_objects(found, OBJECT, min_score=0.51) == 0
    assert extra_objects(found, OBJECT, min_score=0.4, dilation=0) == 2
    assert extra_objects(found, OBJECT, min_pixels=26) == 0
    assert extra_objects(found, OBJECT, min_score=0, max_overlap=1) == 2
    assert extra_objects(detections(np.zeros(SIZE, bool)), OBJECT, min_pixels=0) == 0
    assert extra_objects(detections(), OBJECT) == 0


def test_growth_is_the_share_outside_all_labelled_objects() -> None:
    neighbour = box(10, 20, 10, 10)
    instances = np.stack([OBJECT, neighbour])
    union = OBJECT | neighbour
    grown = box(8, 10, 12, 10)  # two rows of 10 pixels above
    matched, outside = object_growth(detections(grown, neighbour), instances, union)
    assert matched.tolist() == [True, True]
    assert outside.tolist() == [0.2, 0.0]
    into_neighbour = box(10, 10, 10, 13)
    assert object_growth(detections(into_neighbour), instances, union)[1][0] == 0.0


def test_highest_iou_first_and_each_detection_once() -> None:
    instances = np.stack([box(10, 10, 10, 10), box(10, 10, 10, 8)])
    found = detections(box(10, 10, 10, 8), box(10, 10, 10, 11))
    matched, outside = object_growth(found, instances, instances[0])
    assert matched.tolist() == [True, True]
    assert outside.tolist() == [0.1, 0.0]  # the first mask fits both, and the second better
    matched, outside = object_growth(detections(box(10, 10, 10, 8)), instances, instances[0])
    assert matched.tolist() == [False, True]
    assert math.isnan(outside[0])


def test_thresholds_of_a_match() -> None:
    instances = OBJECT[None]
    half = detections(box(10, 10, 10, 20), scores=[0.5])
    assert object_growth(half, instances, OBJECT)[1].tolist() == [1.0]  # an IoU of 0.5 is enough
    assert not object_growth(half, instances, OBJECT, min_score=0.51)[0].any()
    assert not object_growth(half, instances, OBJECT, min_iou=0.51)[0].any()
    assert not object_growth(detections(), instances, OBJECT)[0].any()
    assert object_growth(half, instances[:0], OBJECT)[0].shape == (0,)


@pytest.mark.parametrize(
    ("masks", "classes", "scores", "sentence"),
    [
        (np.zeros((1, 4, 5)), np.zeros(1, int), np.zeros(1), "not bool"),
        (np.zeros((4, 5), bool), np.zeros(4, int), np.zeros(4), r"not bool \(N, H, W\)"),
        (np.zeros((1, 4, 5), bool), np.zeros(2, int), np.zeros(1), r"not integer \(1,\)"),
        (np.zeros((1, 4, 5), bool), np.zeros(1), np.zeros(1), "not integer"),
        (np.zeros((1, 4, 5), bool), np.zeros(1, int), np.zeros(2), r"not float \(1,\)"),
        (np.zeros((1, 4, 5), bool), np.zeros(1, int), np.array([np.nan]), "not in 0..1"),
        (np.zeros((1, 4, 5), bool), np.zeros(1, int), np.array([1.1]), "not in 0..1"),
    ],
)
def test_malformed_detections(masks: Any, classes: Any, scores: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Detections(masks, classes, scores)


def test_masks_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="object mask's size"):
        extra_objects(detections(OBJECT), np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="instance_masks"):
        object_growth(detections(OBJECT), np.zeros((1, 3, 3), bool), OBJECT)
    with pytest.raises(ValueError, match="beyond object_mask"):
        Labels(box(0, 0, 5, 5)[None], OBJECT)
    with pytest.raises(ValueError, match=r"not bool \(H, W\)"):
        Labels(OBJECT[None], OBJECT.astype(int))


@pytest.mark.parametrize(
    "change", [{"min_score": 1.1}, {"max_overlap": -1}, {"min_iou": 0}, {"dilation": -1}]
)
def test_thresholds_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Thresholds(**change)


# --- Many pictures ---


def measured(extra: int, *outside: float) -> Measured:
    shares = np.array(outside, dtype=np.float64)
    return Measured(extra, ~np.isnan(shares), shares)


NAN = math.nan
PAIRS = [
    Pair("a", measured(2, 0.3, NAN), measured(0, 0.1, 0.0)),
    Pair("a", measured(0, 0.2, 0.0), measured(0, 0.1, 0.0)),
    Pair("b", measured(1, 0.1), measured(3, NAN)),
    Pair("c", measured(0), measured(0)),
]


def test_sums_over_pictures_and_instances() -> None:
    audit = aggregate(PAIRS)
    assert (audit.pictures, audit.images) == (4, 3)
    assert (audit.labelled, audit.found, audit.found_original, audit.instances) == (5, 4, 4, 3)
    assert audit.extra_objects_share.value == 0.5
    assert audit.extra_objects_share_original.value == 0.25
    assert audit.extra_objects_difference.value == 0.25
    assert audit.object_growth.value == pytest.approx(0.5 / 3)
    assert audit.object_growth_original.value == pytest.approx(0.2 / 3)
    assert audit.object_growth_difference.value == pytest.approx(0.1)


def test_interval_of_a_share_is_the_binomial_one() -> None:
    """With one picture an image the bootstrap of a share is a binomial draw."""
    pairs = [Pair(str(i), measured(int(i % 4 == 0)), measured(0)) for i in range(100)]
    share = aggregate(pairs).extra_objects_share
    margin = 1.96 * math.sqrt(0.25 * 0.75 / 100)
    assert share.low == pytest.approx(0.25 - margin, abs=0.02)
    assert share.high == pytest.approx(0.25 + margin, abs=0.02)
    assert aggregate(pairs).extra_objects_share == share
    assert aggregate(pairs, seed=1).extra_objects_share != share


def test_more_pictures_of_the_same_images_are_no_more_evidence() -> None:
    pairs = [Pair(str(i), measured(int(i % 4 == 0)), measured(0)) for i in range(20)]
    once, tenfold = aggregate(pairs), aggregate(pairs * 10)
    assert tenfold.pictures == 200
    assert tenfold.extra_objects_share == once.extra_objects_share


def test_what_cannot_be_estimated_is_nan() -> None:
    alone = aggregate(PAIRS[:2])
    assert alone.object_growth.value == pytest.approx(0.5 / 3)
    assert math.isnan(alone.object_growth.low)
    assert math.isnan(aggregate(PAIRS[3:]).object_growth.value)
    with pytest.raises(AuditError, match="no pictures"):
        aggregate([])
    with pytest.raises(ValueError, match="2 instances in the painted picture, 1 in the original"):
        Pair("a", measured(0, 0.1, 0.1), measured(0, 0.1))


def test_table() -> None:
    nothing = BootstrapEstimate(NAN, NAN, NAN)
    point = BootstrapEstimate(0.25, NAN, NAN)
    audit = Audit(
        *(8, 8, BootstrapEstimate(0.5, 0.4, 0.6), point, BootstrapEstimate(0.25, -0.125, 0.5)),
        *(10, 9, 8, 7, nothing, nothing, nothing),
    )
    lines = to_markdown([({"prompt": "a|b"}, audit)]).splitlines()
    assert lines[2] == "| a\\|b | 8 | 50.0 | 25.0 | +25.0 [-12.5, +50.0] | 7/10 | – | – | – |"
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    with pytest.raises(ValueError, match="at least one row"):
        to_markdown([])


# --- A world in which whatever is white is an object ---


def white_regions(pictures: Sequence[np.ndarray]) -> list[Detections]:
    """A detector that is never wrong here."""
    found = []
    for picture in pictures:
        assert picture.shape == pictures[0].shape
        count, regions = cv2.connectedComponents((picture[:, :, 0] > 200).astype(np.uint8))
        found.append(detections(*(regions == number for number in range(1, count))))
    return found


class World:
    """Two images in ``train/`` with a square each; ``a`` has a crowd, ``b`` a white error."""

    def __init__(self, folder: Path) -> None:
        self.root, self.caches = folder, 0
        self.instances = folder / "instances.json"
        (folder / "train").mkdir()
        square = {"bbox": [10, 10, 10, 10], "segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]]}
        crowd_runs = [30 * 40, 3 * 40, 27 * 40]  # columns 30 to 32
        crowd = {"bbox": [30, 0, 3, 40], "segmentation": {"size": [*SIZE], "counts": crowd_runs}}
        self.annotations = [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 100, **square},
            {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 120, **crowd},
            {"id": 3, "image_id": 2, "category_id": 1, "iscrowd": 0, "area": 100, **square},
        ]
        self.pictures = {
            "a": self.draw(OBJECT, box(0, 30, 40, 3)),
            "b": self.draw(OBJECT, box(30, 50, 5, 5)),
        }
        for name, picture in self.pictures.items():
            (folder / "train" / f"{name}.png").write_bytes(encode_picture(picture, "png"))
        self.write()

    @staticmethod
    def draw(*masks: np.ndarray) -> np.ndarray:
        picture = np.full((*SIZE, 3), 60, np.uint8)
        picture[np.any(masks, axis=0)] = 255
        return picture

    def write(self) -> None:
        height, width = SIZE
        images = [
            {"id": number, "file_name": f"{name}.png", "height": height, "width": width}
            for number, name in enumerate(("a", "b"), start=1)
        ]
        categories = [{"id": 1, "name": "square"}]
        content = {"images": images, "annotations": self.annotations, "categories": categories}
        self.instances.write_text(json.dumps(content))

    def paint(self, cache: VariantCache, name: str, picture: np.ndarray, **settings: Any) -> None:
        image_id = "ab".index(name) + 1
        source = source_of(self.root / "train" / f"{name}.png", self.root, image_id)
        annotations = [each for each in self.annotations if each["image_id"] == image_id]
        objects = objects_from_annotations(annotations, image_id)
        job = make_job(source, objects, resolution=64, **settings)
        record = sidecar(prepare(job, self.root), Finished(picture, {}, None), 0, CREATED)
        assert cache.put(job.key, encode_picture(picture, "png"), record)

    def cache(self) -> VariantCache:
        self.caches += 1
        return VariantCache(str(self.root / f"cache{self.caches}"))

    def audit(self, *caches: VariantCache, detect: Any = white_regions) -> dict[int, Audit]:
        """By erosion kernel."""
        groups = read_entries([cache.root for cache in caches])
        annotations = Annotations(self.instances)
        audits = audit_cache(groups, annotations, str(self.root), detect, Thresholds(), batch=3)
        return {int(dict(recipe)["erosion_kernel"]): each for recipe, each in audits.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def fill(world: World) -> list[VariantCache]:
    """Kernel 7 changes nothing, 1 lets an object grow by 40 %, 3 paints a further one."""
    first, second = world.cache(), world.cache()
    a, b = world.pictures["a"], world.pictures["b"]
    world.paint(first, "a", a)
    world.paint(first, "b", b)
    world.paint(first, "a", world.draw(a[:, :, 0] == 255, box(10, 20, 10, 4)), erosion_kernel=1)
    world.paint(first, "b", b, erosion_kernel=1)
    world.paint(second, "a", a, erosion_kernel=3)
    world.paint(second, "a", world.draw(OBJECT, box(25, 0, 6, 6)), erosion_kernel=3, variant=2)
    world.paint(second, "b", b)  # once more
    return [first, second]


def test_known_faults_are_counted(world: World) -> None:
    seen = []

    def detect(pictures: Sequence[np.ndarray]) -> list[Detections]:
        seen.append(len(pictures))
        return white_regions(pictures)

    audits = world.audit(*fill(world), detect=detect)
    assert seen == [3, 3, 2]  # of 8 pictures 2 are originals
    untouched, grown, extra = audits[7], audits[1], audits[3]
    assert (untouched.pictures, untouched.images, untouched.labelled) == (2, 2, 2)
    assert untouched.instances == 2  # the crowd is none
    assert untouched.extra_objects_share == untouched.extra_objects_share_original
    assert untouched.extra_objects_share.value == 0.5  # the error of b
    assert untouched.extra_objects_difference == BootstrapEstimate(0, 0, 0)
    assert untouched.object_growth_difference == BootstrapEstimate(0, 0, 0)
    assert grown.object_growth.value == pytest.approx(0.2)  # 0.4 and 0
    assert (grown.object_growth_original.value, grown.object_growth_difference.low) == (0, 0)
    assert grown.object_growth_difference.high == pytest.approx(0.4)
    assert grown.extra_objects_difference.value == 0
    assert (extra.pictures, extra.images) == (2, 1)
    assert (extra.extra_objects_share.value, extra.extra_objects_share_original.value) == (0.5, 0)


def test_batches_hold_pictures_of_one_size() -> None:
    heights = [4, 4, 4, 5, 4, 4]
    pictures = [np.zeros((height, 3, 3), np.uint8) for height in heights]
    found = [[len(each) for each in batch] for batch in batches(pictures, 2)]
    assert found == [[4, 4], [4], [5], [4, 4]]
    assert list(batches([], 2)) == []


def test_the_table_shows_what_differs(world: World) -> None:
    caches = [cache.root for cache in fill(world)]
    groups = read_entries(caches)
    audits = dict.fromkeys(groups, aggregate(PAIRS))
    columns = ["prompt", "erosion_kernel", "step_policy", "D", "paste_back"]
    assert [list(row) for row, _ in shown(audits)] == [columns] * 3
    assert [row["erosion_kernel"] for row, _ in shown(audits)] == ["1", "3", "7"]
    other = world.cache()
    world.paint(other, "a", world.pictures["a"], guidance_scale=3)
    audits = dict.fromkeys(read_entries([*caches, other.root]), aggregate(PAIRS))
    assert list(shown(audits)[0][0]) == [*columns, "guidance_scale"]
    scales = sorted(row["guidance_scale"] for row, _ in shown(audits))
    assert scales == ["3.0", "7.5", "7.5", "7.5"]


def test_a_limit_chooses_the_same_pictures_of_all_recipes(world: World) -> None:
    cache = world.cache()
    for kernel in (1, 3, 7):
        for variant in range(1, 9):
            world.paint(cache, "b", world.pictures["b"], variant=variant, erosion_kernel=kernel)

    def chosen(limit: int, seed: int) -> list[list[int]]:
        groups = limited(read_entries([cache.root]), limit, seed)
        return [[entry.sidecar["variant"] for entry in entries] for entries in groups.values()]

    assert chosen(3, 0)[0] == chosen(3, 0)[1] == chosen(3, 0)[2]
    assert len(chosen(3, 0)[0]) == 3
    assert len({tuple(chosen(3, seed)[0]) for seed in range(10)}) > 1
    assert sorted(chosen(0, 0)[0]) == list(range(1, 9))


def test_an_image_without_annotations(world: World) -> None:
    caches = fill(world)
    content = json.loads(world.instances.read_text())
    content["images"] = content["images"][:1]
    world.instances.write_text(json.dumps(content))
    with pytest.raises(AuditError, match=r"'train/b.png' of the cache is not in .*instances.json"):
        world.audit(*caches)


def test_annotations_of_another_split(world: World) -> None:
    caches = fill(world)
    world.annotations[0]["segmentation"] = [[10, 10, 30, 10, 30, 20, 10, 20]]
    world.write()
    with pytest.raises(AuditError, match=r"train/a.png: .* differ from the objects"):
        world.audit(*caches)


def test_annotations_of_another_size(world: World) -> None:
    caches = fill(world)
    content = json.loads(world.instances.read_text())
    content["images"][1]["width"] += 1
    world.instances.write_text(json.dumps(content))
    with pytest.raises(AuditError, match=r"train/b.png: the picture is \(40, 60\)"):
        world.audit(*caches)


def test_originals_must_be_what_was_painted(world: World) -> None:
    groups = read_entries([cache.root for cache in fill(world)])
    check_originals(groups, str(world.root))
    path = world.root / "train" / "b.png"
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(AuditError, match=r"b.png is not the file that was painted"):
        check_originals(groups, str(world.root))
    path.unlink()
    with pytest.raises(AuditError, match=r"b.png is missing"):
        check_originals(groups, str(world.root))


def test_boxes_belong_to_the_object_mask_only(world: World) -> None:
    world.annotations[0]["segmentation"] = []
    world.annotations[2]["segmentation"] = [[10, 10, 20, 10]]  # Detectron2 leaves it out
    world.write()
    annotations = Annotations(world.instances)
    labels = annotations.labels("some/where/a.png")
    assert labels.instances.shape == (0, *SIZE)
    np.testing.assert_array_equal(labels.object_mask, OBJECT | box(0, 30, 40, 3))
    assert not annotations.labels("b.png").object_mask.any()


# --- The tool and a real detector, whose weights are random ---


def random_run(folder: Path, *overrides: str) -> Path:
    """A run's folder as training leaves it, but for the weights, which are random."""
    import torch
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.data import MetadataCatalog
    from detectron2.modeling import build_model

    MetadataCatalog.get("audit_squares").thing_classes = ["square", "circle"]
    experiment = experiment_of("benchmark=toy", f"output_dir={folder}", *overrides)
    cfg = to_cfg(experiment, ["audit_squares"], ["audit_squares"], "cpu")
    folder.mkdir()
    (folder / "detectron2.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    DetectionCheckpointer(build_model(cfg), str(folder)).save("model_0000001")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("audit") / "run")


def arguments_of(world: World, run: Path, *caches: VariantCache) -> list[str]:
    folders = [word for cache in caches for word in ("--cache", cache.root)]
    files = ["--annotations", str(world.instances), "--image-root", str(world.root)]
    out = ["--out", str(world.root / "out" / "audit.json"), "--device", "cpu"]
    return [str(run), *folders, *files, *out]


def error_of(arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return str(caught.value.code)


def test_the_detector_sees_what_detectron2s_predictor_sees(run: Path) -> None:
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    from bgaug_d2.inspection.detector import load_detector

    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.merge_from_file(str(run / "detectron2.yaml"))
    cfg.MODEL.WEIGHTS = str(run / "model_0000001.pth")
    predictor = DefaultPredictor(cfg)
    detector, checkpoint = load_detector(run)
    assert checkpoint == "model_0000001.pth"
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(2)]
    for picture, found in zip(pictures, detector(pictures), strict=True):
        expected = predictor(picture[:, :, ::-1])["instances"]
        assert found.masks.shape == (len(expected), *SIZE)
        assert found.masks.any()
        np.testing.assert_allclose(found.scores, expected.scores.numpy(), atol=1e-5)
        np.testing.assert_array_equal(found.classes, expected.pred_classes.numpy())
        assert (found.masks != expected.pred_masks.numpy()).mean() < 0.001


def test_tool_on_originals_as_painted_pictures(
    world: World, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights find nonsense, but the same in the same picture: no difference remains."""
    from bgaug_d2.inspection.detector import load_detector

    same, flat = world.cache(), world.cache()
    rng = np.random.default_rng(0)
    detector, _ = load_detector(run)
    strongest: dict[str, list[float]] = {"noise": [], "flat": []}
    for name, picture in world.pictures.items():
        noise = rng.integers(0, 256, picture.shape, dtype=np.uint8)
        for kind, found in zip(strongest, detector([noise, picture]), strict=True):
            strongest[kind].append(float(found.scores.max()))
        (world.root / "train" / f"{name}.png").write_bytes(encode_picture(noise, "png"))
        world.paint(same, name, noise)
        world.paint(flat, name, picture, D=0.75)
    # Between the two: these weights find something in every noise and in no flat picture.
    assert min(strongest["noise"]) > max(strongest["flat"])
    min_score = round((min(strongest["noise"]) + max(strongest["flat"])) / 2, 4)
    main([*arguments_of(world, run, same, flat), "--min-score", f"{min_score}"])
    content = json.loads((world.root / "out" / "audit.json").read_text())
    assert content["checkpoint"] == "model_0000001.pth"
    assert content["thresholds"]["min_score"] == min_score
    assert [each["recipe"]["D"] for each in content["recipes"]] == ["0.5", "0.75"]
    unchanged, changed = content["recipes"]
    assert unchanged["extra_objects_share"]["value"] == 1
    assert unchanged["extra_objects_difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert unchanged["found"] == unchanged["found_original"]
    assert changed["extra_objects_share_original"] == unchanged["extra_objects_share_original"]
    assert changed["extra_objects_difference"]["value"] == -1
    assert changed["pictures"] == unchanged["pictures"] == 2
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 3
    assert "| clean | 7 | adaptive | 0.75 | true | 2 |" in printed


def test_tool_tells_mistakes_in_a_sentence(world: World, run: Path, tmp_path: Path) -> None:
    cache = fill(world)[0]
    arguments = arguments_of(world, run, cache)
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--limit", "-1"])
    assert "no picture in" in error_of(arguments_of(world, run, world.cache()))
    assert "is no cache" in error_of([*arguments, "--cache", str(tmp_path)])
    assert "detectron2.yaml is missing" in error_of(arguments_of(world, tmp_path, cache))
    boxes = random_run(tmp_path / "boxes", "detector=faster_rcnn_r50_fpn", "detector.weights=''")
    assert "predicts boxes only" in error_of(arguments_of(world, boxes, cache))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "detectron2.yaml").write_text((run / "detectron2.yaml").read_text())
    assert "has no checkpoint" in error_of(arguments_of(world, empty, cache))
    (empty / "last_checkpoint").write_text("../run/model_0000001.pth")
    assert "has no checkpoint '../run" in error_of(arguments_of(world, empty, cache))
    (empty / "last_checkpoint").write_text("broken.pth")
    (empty / "broken.pth").write_bytes(b"no checkpoint")
    assert "cannot be loaded" in error_of(arguments_of(world, empty, cache))
    (empty / "detectron2.yaml").write_text("MODEL: 3")
    assert "no configuration of Detectron2" in error_of(arguments_of(world, empty, cache))
    world.instances.write_text("{")
    assert "no valid JSON" in error_of(arguments)
