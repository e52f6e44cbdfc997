from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from bgaug_d2.augmentation import BackgroundAugmentation, background_augmentation
from bgaug_d2.cache.source_digests import FILE_KEY, OBJECTS_KEY
from bgaug_d2.cache.store import VariantCache
from bgaug_d2.config.bgaug import BgAugConfig, CacheConfig, InpainterConfig, WorkerConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import ConfigError, WorkerStartError
from bgaug_d2.sampling.counted_loader import CountedLoader
from bgaug_d2.sampling.from_cfg import baseline_loader, expanded, visit_sampler
from bgaug_d2.worker import devices as devices_module
from bgaug_d2.worker import engines
from bgaug_d2.worker.devices import cpu_threads, worker_devices
from bgaug_d2.worker.painter_info import PainterInfo
from bgaug_d2.worker.protocol import WorkerSpec
from bgaug_d2.worker.specs import worker_spec
from bgaug_d2.worker.start import painting_workers
from tests.helpers.dataset_dicts import make_dicts, paint
from tests.helpers.factories import MODEL
from tests.helpers.worker_site import use_engine

SIZE = 6
NAME = "build_train"
TINY = InpainterConfig(model="tiny")


@pytest.fixture
def data_set(tmp_path: Path) -> list[dict[str, Any]]:
    dicts = make_dicts(tmp_path / "images", SIZE)
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: dicts)
    MetadataCatalog.get(NAME).set(thing_classes=["ball"])
    return dicts


def cfg_of(grouping: bool = False) -> CfgNode:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.SOLVER.IMS_PER_BATCH, cfg.SEED = 2, 3
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouping
    return cfg


def augmentation_of(tmp_path: Path, seed: int = 3, **settings: Any) -> BackgroundAugmentation:
    """Without painting processes; the cache is what a test puts into it."""
    replace: dict[str, Any] = {"mode": "replace", "p": 0.5, "variants": 2}
    defaults = {} if "mode" in settings else replace
    config = BgAugConfig(
        **defaults | settings,
        recipe=RecipeConfig(resolution=32),
        cache=CacheConfig(dir=str(tmp_path / "cache")),
    )
    painting = PainterInfo(MODEL, "float32", str(tmp_path / "images"))
    return BackgroundAugmentation(config, painting, seed)


def paint_all(augmentation: BackgroundAugmentation, dicts: list[dict[str, Any]]) -> None:
    """Every picture that can be asked for, as a recoloured copy."""
    planner = augmentation.planner(["ball"])
    root = Path(augmentation.painter.image_root)
    for dataset_dict, variant in planner.all_jobs(dicts):
        paint(augmentation.cache, planner.plan_variant(dataset_dict, variant).job(), root)


def identity_mapper(dataset_dict: dict[str, Any]) -> dict[str, Any]:
    return dict(dataset_dict)


def samples(loader: CountedLoader, batches: int = 12) -> list[dict[str, Any]]:
    return [sample for batch in itertools.islice(loader, batches) for sample in batch]


def test_a_painted_draw_is_a_hit_and_its_baseline_shows_the_same_image(
    tmp_path: Path, data_set: list[dict[str, Any]]
) -> None:
    augmentation = augmentation_of(tmp_path)
    paint_all(augmentation, data_set)
    loader = augmentation.train_loader(cfg_of(), identity_mapper)
    augmented, baseline = samples(loader), samples(baseline_loader(cfg_of(), identity_mapper))
    assert [each["image_id"] for each in augmented] == [each["image_id"] for each in baseline]
    assert [each["bgaug_visit"] for each in augmented] == [each["bgaug_visit"] for each in baseline]
    hits = [each for each in augmented if each["bgaug"] == "hit"]
    assert 4 < len(hits) < 20
    assert all(each["file_name"].startswith(augmentation.cache.root) for each in hits)
    assert loader.totals["hit"] == len(hits)
    assert all({FILE_KEY, OBJECTS_KEY} <= set(each) for each in augmented)
    assert loader.totals["original"] == len(augmented) - len(hits)


def test_an_empty_cache_without_workers_shows_originals(
    tmp_path: Path, data_set: list[dict[str, Any]]
) -> None:
    loader = augmentation_of(tmp_path, p=1.0).train_loader(cfg_of(), identity_mapper)
    shown = samples(loader)
    assert {each["bgaug"] for each in shown} == {"miss"}
    assert {each["file_name"] for each in shown} <= {each["file_name"] for each in data_set}
    assert loader.look_ahead is None


@pytest.mark.parametrize("grouping", [False, True])
def test_a_resumed_loader_goes_on(
    tmp_path: Path, data_set: list[dict[str, Any]], grouping: bool
) -> None:
    augmentation = augmentation_of(tmp_path)
    cfg = cfg_of(grouping)
    whole = samples(augmentation.train_loader(cfg, identity_mapper), 12)
    rest = samples(augmentation.train_loader(cfg, identity_mapper, start_iter=5), 7)
    drawn = [(each["image_id"], each["bgaug_visit"]) for each in whole]
    assert [(each["image_id"], each["bgaug_visit"]) for each in rest] == drawn[10:]


def test_expand_draws_originals_and_copies(tmp_path: Path, data_set: list[dict[str, Any]]) -> None:
    augmentation = augmentation_of(tmp_path, mode="expand", alpha=2)
    copies = expanded(data_set, augmentation.settings)
    assert [each["bgaug_variant"] for each in copies].count(0) == SIZE
    assert len(copies) == 3 * SIZE
    paint_all(augmentation, copies)
    shown = samples(augmentation.train_loader(cfg_of(), identity_mapper), 9)  # one epoch
    assert [each["bgaug"] for each in shown].count("hit") == 2 * SIZE
    assert len({(each["image_id"], each["bgaug_variant"]) for each in shown}) == 3 * SIZE


def test_dataset_dicts_can_be_given(tmp_path: Path, data_set: list[dict[str, Any]]) -> None:
    loader = augmentation_of(tmp_path).train_loader(cfg_of(), identity_mapper, data_set[:2])
    assert {each["image_id"] for each in samples(loader)} == {0, 1}


def test_the_default_mapper_is_detectron2s(tmp_path: Path, data_set: list[dict[str, Any]]) -> None:
    augmentation = augmentation_of(tmp_path, p=1.0)
    paint_all(augmentation, data_set)
    cfg = cfg_of()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (24,), "none"
    sample = samples(augmentation.train_loader(cfg), 1)[0]
    picture = 255 - sample["image"].numpy()  # recoloured, as paint_all did
    source = next(each for each in data_set if each["image_id"] == sample["image_id"])
    expected = np.asarray(Image.open(source["file_name"]))[:, :, ::-1].transpose(2, 0, 1)
    assert sample["bgaug"] == "hit"
    np.testing.assert_array_equal(picture, expected)
    assert len(sample["instances"]) == 1


def test_the_sampler_is_the_one_that_is_named(data_set: list[dict[str, Any]]) -> None:
    cfg = cfg_of()
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.5
    assert type(visit_sampler(cfg, data_set, 0).base).__name__ == "RepeatFactorTrainingSampler"
    cfg.DATALOADER.SAMPLER_TRAIN = "OtherSampler"
    with pytest.raises(ConfigError, match="OtherSampler"):
        visit_sampler(cfg, data_set, 0)


def test_the_seed_decides_the_draws(data_set: list[dict[str, Any]]) -> None:
    def first_draws(seed: int) -> list[int]:
        cfg = cfg_of()
        cfg.SEED = seed
        return list(itertools.islice(visit_sampler(cfg, data_set, 0), 12))

    assert first_draws(1) == first_draws(1) != first_draws(2)


@pytest.mark.parametrize("devices", [["auto", "cpu"], ["cpu", "cuda:0"]])
def test_devices_that_do_not_go_together(devices: list[str]) -> None:
    with pytest.raises(ConfigError, match="devices"):
        worker_devices(WorkerConfig(devices=devices))


def test_auto_is_every_gpu_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module.torch.cuda, "device_count", lambda: 2)
    assert worker_devices(WorkerConfig()) == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(devices_module.torch.cuda, "device_count", lambda: 0)
    assert worker_devices(WorkerConfig()) == ["cpu"]


def settings_of(tmp_path: Path, **fields: Any) -> BgAugConfig:
    return BgAugConfig(
        mode="replace",
        recipe=RecipeConfig(resolution=64, num_inference_steps=2),
        cache=CacheConfig(dir=str(tmp_path / "cache")),
        worker=WorkerConfig(devices=["cpu"], max_batch_rows=2),
        **fields,
    )


def spec_of(settings: BgAugConfig, folder: Path, use_all_cores: bool = False) -> WorkerSpec:
    painter = PainterInfo(MODEL, "float32", str(folder))
    engine = engines.ENGINES["continuous"]
    return worker_spec(settings, engine, painter, folder, "cpu", use_all_cores)


def test_what_compiling_needs_reaches_the_painting_process(tmp_path: Path) -> None:
    def options(**worker: Any) -> dict[str, Any]:
        settings = replace(settings_of(tmp_path), worker=WorkerConfig(devices=["cpu"], **worker))
        return dict(spec_of(settings, tmp_path).engine_options)

    assert not {"compile", "cuda_graphs"} & set(options())
    with_graphs = options(compile=True, cuda_graphs=True)
    assert (with_graphs["compile"], with_graphs["cuda_graphs"]) == (64, True)
    assert not options(compile=True)["cuda_graphs"]


@pytest.mark.parametrize(
    ("cores", "processes", "use_all_cores", "threads"),
    [(8, 1, False, 4), (8, 1, True, 8), (8, 2, True, 4), (1, 1, False, 1), (2, 4, True, 1)],
)
def test_a_cpu_paints_with_all_cores_where_nothing_trains(
    cores: int,
    processes: int,
    use_all_cores: bool,
    threads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices_module.os, "sched_getaffinity", lambda _: set(range(cores)))
    assert cpu_threads(processes, use_all_cores) == threads
    settings = replace(settings_of(tmp_path), worker=WorkerConfig(devices=["cpu"] * processes))
    spec = spec_of(settings, tmp_path, use_all_cores)
    assert spec.engine_options["threads"] == threads


@pytest.fixture
def broken_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch, "bgaug_d2.nowhere:engine")


@pytest.mark.usefixtures("broken_engine")
def test_training_goes_on_without_workers(
    tmp_path: Path, data_set: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, on_miss="original")
    root = str(tmp_path / "images")
    with (
        caplog.at_level(logging.WARNING, "bgaug_d2.worker.start"),
        background_augmentation(settings, TINY, root) as augmentation,
    ):
        assert augmentation.client is None
        assert len(samples(augmentation.train_loader(cfg_of(), identity_mapper), 3)) == 6
    warnings = [each for each in caplog.records if each.name == "bgaug_d2.worker.start"]
    assert len(warnings) == 1
    assert "no painting process could be started" in warnings[0].getMessage()


@pytest.mark.usefixtures("broken_engine")
def test_waiting_for_workers_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, on_miss="wait")
    with (
        pytest.raises(WorkerStartError, match="did not start"),
        painting_workers(settings, TINY, str(tmp_path)),
    ):
        pass


@pytest.mark.usefixtures("broken_engine")
def test_nothing_is_started_where_nothing_is_asked_for(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, on_miss="error")
    with painting_workers(settings, TINY, str(tmp_path)) as workers:
        assert workers.painter.addresses == ()
        assert workers.stats() is None


@pytest.mark.parametrize("on_miss", ["original", "wait", "error"])
def test_no_model_is_chosen_by_default(tmp_path: Path, on_miss: str) -> None:
    settings = settings_of(tmp_path, on_miss=on_miss)
    with (
        pytest.raises(ConfigError, match=r"inpainter.model is empty.*inpainter=sd21_base"),
        background_augmentation(settings, InpainterConfig(), str(tmp_path)),
    ):
        pass


def test_missing_pictures_are_painted_while_training(
    tmp_path: Path, data_set: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine(monkeypatch, "tests.helpers.fake_engines:build")
    settings = settings_of(tmp_path, on_miss="wait", p=1.0, variants=1, look_ahead=8)
    root = str(tmp_path / "images")
    with background_augmentation(settings, TINY, root) as augmentation:
        loader = augmentation.train_loader(cfg_of(), identity_mapper)
        shown = samples(loader, 6)
        assert {each["bgaug"] for each in shown} == {"hit"}
        assert loader.look_ahead is not None
        stats = augmentation.client.stats() if augmentation.client else []
    assert len(list(VariantCache(settings.cache.dir).entries())) == SIZE
    assert stats[0] is not None
    assert stats[0]["counts"]["painted"] == SIZE  # each once, though two asked for it
