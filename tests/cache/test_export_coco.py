"""The COCO export, on real images painted by the real pipeline with noise for a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from bgaug_d2.cache.export_coco import ExportReport, export_coco
from bgaug_d2.cache.store import CacheEntry, VariantCache
from bgaug_d2.errors import ExportError, ImageError
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.painting.finish import finish
from bgaug_d2.painting.prepare import prepare
from bgaug_d2.painting.sidecar import sidecar
from bgaug_d2.pixels.encode import encode_picture
from tests.helpers.factories import make_recipe, noise, objects_of, source_of

NUM_IMAGES, VARIANTS = 8, 2


class World:
    """A small COCO data set, some of its images painted into a cache."""

    def __init__(self, root: Path, tiny_coco_root: Path) -> None:
        self.root, self.images = root, root / "train2017"
        self.images.mkdir()
        self.instances = root / "instances.json"
        source = tiny_coco_root / "annotations" / "instances_train2017.json"
        self.coco = json.loads(source.read_text())
        with_objects = {each["image_id"] for each in self.coco["annotations"]}
        crowded = {each["image_id"] for each in self.coco["annotations"] if each["iscrowd"]}
        self.coco["images"].sort(key=lambda image: image["id"] not in crowded)
        self.coco["images"] = [i for i in self.coco["images"] if i["id"] in with_objects]
        self.coco["images"] = self.coco["images"][:NUM_IMAGES]
        self.ids = [image["id"] for image in self.coco["images"]]
        self.coco["annotations"] = [
            each for each in self.coco["annotations"] if each["image_id"] in self.ids
        ]
        for image in self.coco["images"]:
            shutil.copyfile(
                tiny_coco_root / "train2017" / image["file_name"], self.images / image["file_name"]
            )
        self.write()
        self.cache = VariantCache(str(root / "cache"))

    def write(self) -> None:
        self.instances.write_text(json.dumps(self.coco))

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        return [each for each in self.coco["annotations"] if each["image_id"] == image_id]

    def paint(self, image_id: int, variant: int, **settings: Any) -> str:
        image = next(each for each in self.coco["images"] if each["id"] == image_id)
        source = source_of(self.images / image["file_name"], self.root, image_id)
        recipe = make_recipe(resolution=64, min_background=0, **settings)
        objects = objects_of(self.annotations(image_id), image_id)
        job = InpaintJob(source, objects, recipe.settings.prompt_text, recipe, variant)
        prepared = prepare(job, self.root)
        finished = finish(prepared, noise(64, 64, variant))
        record = sidecar(prepared, finished, 0, "2026-01-01T00:00:00Z")
        assert self.cache.put(job.key, encode_picture(finished.image, "png"), record)
        return job.key

    def export(self, name: str = "out", **options: Any) -> ExportReport:
        return export_coco(self.cache, self.instances, self.images, self.root / name, **options)

    def exported(self, name: str = "out") -> dict[str, Any]:
        return json.loads((self.root / name / "instances.json").read_text())


@pytest.fixture
def world(tmp_path: Path, tiny_coco_root: Path) -> World:
    return World(tmp_path, tiny_coco_root)


def paint_all(world: World) -> None:
    for image_id in world.ids:
        for variant in range(1, VARIANTS + 1):
            world.paint(image_id, variant)


def without_ids(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in each.items() if name not in ("id", "image_id")}
        for each in annotations
    ]


def pictures(coco: COCO, folder: Path) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(folder / "images" / image["file_name"]) as file:
            yield image, np.asarray(file.convert("RGB"))


def test_pycocotools_loads_the_export_and_objects_are_untouched(world: World) -> None:
    paint_all(world)
    report = world.export()
    assert (report.painted, report.originals) == (NUM_IMAGES * VARIANTS, 0)
    assert report.annotations == len(world.coco["annotations"]) * VARIANTS
    assert not +report.skipped
    coco = COCO(str(world.root / "out" / "instances.json"))
    assert any(each["iscrowd"] for each in coco.loadAnns(coco.getAnnIds()))
    sources = {image["id"]: image for image in world.coco["images"]}
    for image, picture in pictures(coco, world.root / "out"):
        source = sources[image["bgaug"]["source_image_id"]]
        assert picture.shape == (image["height"], image["width"], 3)
        with Image.open(world.images / source["file_name"]) as file:
            original = np.asarray(file.convert("RGB"))
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert without_ids(annotations) == without_ids(world.annotations(source["id"]))
        object_mask = np.zeros(picture.shape[:2], dtype=bool)
        for annotation in annotations:
            object_mask |= coco.annToMask(annotation).astype(bool)
        assert (picture[object_mask] == original[object_mask]).all()
        assert (picture[~object_mask] != original[~object_mask]).mean() > 0.3


def test_ids_are_new_and_unique(world: World) -> None:
    paint_all(world)
    world.export()
    found = world.exported()
    for kind in ("images", "annotations"):
        ids = [each["id"] for each in found[kind]]
        assert len(set(ids)) == len(ids)
        assert min(ids) > max(each["id"] for each in world.coco[kind])


def test_provenance_and_licences_are_kept(world: World) -> None:
    key = world.paint(world.ids[0], 1)
    world.export()
    found = world.exported()
    assert {name: found[name] for name in ("info", "licenses", "categories")} == {
        name: world.coco[name] for name in ("info", "licenses", "categories")
    }
    source = world.coco["images"][0]
    (image,) = found["images"]
    for name in ("license", "coco_url", "flickr_url", "height", "width", "date_captured"):
        assert image[name] == source[name]
    entry = world.cache.get(key)
    assert isinstance(entry, CacheEntry)
    assert image["bgaug"] == {
        "key": key,
        "variant": 1,
        "prompt": "Generate a clean background",
        "T_hat": entry.sidecar["T_hat"],
        "seed": entry.sidecar["seed"],
        "object_passes": [],
        "background_ratio": entry.sidecar["background_ratio"],
        "model": {"id": "tiny", "revision": "", "sha256": "ab" * 32, "license": "Apache-2.0"},
        "created": "2026-01-01T00:00:00Z",
        "source_image_id": source["id"],
        "source_file_name": source["file_name"],
    }


def test_originals_come_along_unchanged(world: World) -> None:
    world.paint(world.ids[0], 1)
    report = world.export(originals=True)
    assert (report.painted, report.originals) == (1, NUM_IMAGES)
    found = world.exported()
    assert [image for image in found["images"] if "bgaug" not in image] == world.coco["images"]
    old = {each["id"] for each in world.coco["annotations"]}
    assert [a for a in found["annotations"] if a["id"] in old] == [
        a for image_id in world.ids for a in world.annotations(image_id)
    ]
    for image in world.coco["images"]:
        copy = world.root / "out" / "images" / image["file_name"]
        assert copy.read_bytes() == (world.images / image["file_name"]).read_bytes()


def test_variants_are_in_order(world: World) -> None:
    for variant in (3, 1, 6, 2, 5, 4):
        world.paint(world.ids[0], variant)
    world.export()
    variants = [image["bgaug"]["variant"] for image in world.exported()["images"]]
    assert variants == [1, 2, 3, 4, 5, 6]


def test_hard_links_share_the_file(world: World) -> None:
    key = world.paint(world.ids[0], 1)
    world.export("linked", hard_links=True)
    world.export("copied")
    entry = world.cache.get(key)
    assert isinstance(entry, CacheEntry)
    name = world.exported("linked")["images"][0]["file_name"]
    assert (world.root / "linked" / "images" / name).samefile(entry.path)
    assert not (world.root / "copied" / "images" / name).samefile(entry.path)


def test_filter_chooses_a_recipe(world: World) -> None:
    world.paint(world.ids[0], 1)
    world.paint(world.ids[0], 1, D=0.25, prompt_text="A beach")
    world.paint(world.ids[0], 2, D=0.25, prompt_text="A beach")
    report = world.export("beach", where={"prompt": "A beach"})
    assert (report.painted, report.skipped["left out by the filter"]) == (2, 1)
    report = world.export("second", where={"recipe.settings.D": "0.25", "variant": "2"})
    assert report.painted == 1
    assert world.exported("second")["images"][0]["bgaug"]["variant"] == 2
    with pytest.raises(ExportError, match="no picture with"):
        world.export("none", where={"prompt": "A forest"})
    assert not (world.root / "none").exists()


# What is not exported


def test_rejections_and_foreign_images_are_skipped_and_counted(world: World) -> None:
    for image_id in world.ids[:2]:
        world.paint(image_id, 1)
    world.cache.reject("a" * 64, "flat", {"source": {"image_id": world.ids[2]}})
    world.coco["annotations"] = [
        each for each in world.coco["annotations"] if each["image_id"] != world.ids[1]
    ]
    del world.coco["images"][1]
    world.write()
    report = world.export()
    assert report.painted == 1
    assert +report.skipped == {"rejected when painted": 1, "not in the annotation file": 1}


def test_picture_of_a_changed_source_is_skipped(world: World) -> None:
    for image_id in world.ids[:2]:
        world.paint(image_id, 1)
    with (world.images / world.coco["images"][0]["file_name"]).open("ab") as file:
        file.write(b"\0")
    report = world.export()
    assert (report.painted, report.skipped["painted from another file"]) == (1, 1)


def test_picture_painted_with_fewer_objects_is_skipped(world: World) -> None:
    """Annotations that came later (LVIS on COCO's images, say) may lie where all was repainted."""
    for image_id in world.ids[:2]:
        world.paint(image_id, 1)
    extra = {**world.annotations(world.ids[0])[0], "id": 10**9}
    world.coco["annotations"].append(extra)
    world.write()
    report = world.export()
    assert (report.painted, report.skipped["painted with other annotations"]) == (1, 1)


def test_same_id_in_another_folder_is_not_mistaken(world: World) -> None:
    world.paint(world.ids[0], 1)
    image = world.coco["images"][0]
    (world.images / image["file_name"]).rename(world.images / "x.jpg")
    image["file_name"] = "x.jpg"
    world.write()
    with pytest.raises(ExportError, match="can be exported: 1 painted from another file"):
        world.export()
    assert not (world.root / "out" / "instances.json").exists()


def test_damaged_picture_is_skipped(world: World) -> None:
    keys = [world.paint(image_id, 1) for image_id in world.ids[:2]]
    entry = world.cache.get(keys[0])
    assert isinstance(entry, CacheEntry)
    data = bytearray(Path(entry.path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(entry.path).write_bytes(data)
    report = world.export()
    assert (report.painted, report.skipped["damaged or evicted"]) == (1, 1)


@pytest.mark.parametrize("hard_links", [False, True])
def test_picture_evicted_meanwhile_is_skipped(
    world: World, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    keys = [world.paint(image_id, 1) for image_id in world.ids[:2]]
    get = VariantCache.get

    def vanish(cache: VariantCache, key: str) -> Any:
        entry = get(cache, key)
        if key == keys[0]:
            assert isinstance(entry, CacheEntry)
            Path(entry.path).unlink()
        return entry

    monkeypatch.setattr(VariantCache, "get", vanish)
    report = world.export(hard_links=hard_links)
    assert (report.painted, report.skipped["damaged or evicted"]) == (1, 1)
    assert len(world.exported()["images"]) == 1


# Mistakes


def test_folder_that_is_not_empty_is_refused(world: World) -> None:
    world.paint(world.ids[0], 1)
    (world.root / "out").mkdir()
    (world.root / "out" / "thesis.tex").touch()
    with pytest.raises(ExportError, match="out is not empty"):
        world.export()


def test_missing_source_image_is_named(world: World) -> None:
    world.paint(world.ids[0], 1)
    (world.images / world.coco["images"][0]["file_name"]).unlink()
    with pytest.raises(ExportError, match=f"image {world.ids[0]} is missing"):
        world.export()


def test_name_that_leaves_the_folder_is_refused(world: World) -> None:
    world.paint(world.ids[0], 1)
    world.coco["images"][0]["file_name"] = "../instances.json"
    world.write()
    with pytest.raises(ImageError, match="instances.json"):
        world.export()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no COCO instances file"),
        ("[]", "is no COCO instances file"),
        ('{"images": []}', "annotations"),
        ('{"images": [], "annotations": [], "categories": {}}', "categories"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "file_name"),
        (
            '{"images": [], "annotations": [{"id": 7, "image_id": 3}], "categories": []}',
            "annotation 7 belongs to no image",
        ),
        ('{"images": [], "annotations": [{"bbox": [NaN]}], "categories": []}', "number NaN"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}],'
            ' "annotations": [], "categories": []}',
            "one id",
        ),
    ],
)
def test_file_that_is_no_instances_file_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    cache = VariantCache(str(tmp_path / "cache"))
    with pytest.raises(ExportError, match=message):
        export_coco(cache, path, tmp_path, tmp_path / "out")


def test_missing_instances_file_and_empty_cache_are_told(tmp_path: Path) -> None:
    cache = VariantCache(str(tmp_path / "cache"))
    with pytest.raises(ExportError, match="cannot be read: No such file"):
        export_coco(cache, tmp_path / "x.json", tmp_path, tmp_path / "out")
    (tmp_path / "x.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(ExportError, match="has no picture of an image"):
        export_coco(cache, tmp_path / "x.json", tmp_path, tmp_path / "out")
