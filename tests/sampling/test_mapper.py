"""The mapper around a mapper: what a draw shows, and that no fault of the augmentation gets out."""

from __future__ import annotations

import copy
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bgaug_d2.errors import ConfigError, MissError, PlanError
from bgaug_d2.sampling.mapper import BackgroundAugMapper, MapperError
from bgaug_d2.worker.client import WorkerClient
from tests.helpers.dataset_dicts import FakeClient, make_planner, paint, reading_mapper
from tests.helpers.mapper_setup import Sample, Setup


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


@pytest.mark.parametrize("on_miss", ["original", "wait", "error"])
def test_a_hit_shows_the_picture(setup: Setup, on_miss: str) -> None:
    setup.paint()
    client = FakeClient()
    before = copy.deepcopy(setup.draw)
    sample = setup.mapper(on_miss, client)(setup.draw)
    assert sample["bgaug"] == "hit"
    np.testing.assert_array_equal(sample["image"], setup.picture)
    assert sample["file_name"] == str(setup.cached_picture())
    assert sample["bgaug_source"] == setup.one["file_name"]
    rest = set(setup.draw) - {"file_name"}
    assert {name: sample[name] for name in rest} == {name: before[name] for name in rest}
    assert setup.draw == before
    assert not client.enqueued
    assert not client.requested


def test_a_drawn_original_is_shown(setup: Setup) -> None:
    setup.paint()
    setup.planner = make_planner(setup.root, variants=1, p=0.0)
    client = FakeClient()
    setup.check_original(setup.mapper("original", client)(setup.draw), "original")
    assert not client.enqueued


def test_a_miss_shows_the_original_and_asks(setup: Setup) -> None:
    client = FakeClient("queued")
    setup.check_original(setup.mapper("original", client)(setup.draw), "miss")
    assert [job.key for job in client.enqueued] == [setup.job.key]
    assert client.enqueued[0] == setup.job


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("queued", "miss"), ("busy", "miss"), ("done", "miss"), ("error", "error")]
    + [("timeout", "unavailable"), ("unavailable", "unavailable"), ("rejected", "rejected")],
)
def test_a_miss_tells_whether_somebody_paints_it(setup: Setup, status: str, outcome: str) -> None:
    sample = setup.mapper("original", FakeClient(status, "why"))(setup.draw)
    setup.check_original(sample, outcome)


def test_a_miss_without_a_client(setup: Setup) -> None:
    setup.check_original(setup.mapper("original", None)(setup.draw), "miss")


def test_waiting_shows_the_picture(setup: Setup) -> None:
    client = FakeClient("done", paints=lambda job: paint(setup.cache, job, setup.root))
    sample = setup.mapper("wait", client)(setup.draw)
    assert sample["bgaug"] == "hit"
    np.testing.assert_array_equal(sample["image"], setup.picture)
    assert client.requested == [(setup.job, 3.0)]
    assert not client.enqueued


@pytest.mark.parametrize(
    ("status", "reason", "outcome"),
    [
        ("done", "", "miss"),  # painted, they say, but it is not in this cache
        ("rejected", "flat", "rejected"),
        ("rejected", "small_background", "small_background"),
        ("rejected", "crowd", "crowd"),
        ("error", "image 7: broken", "error"),
        ("timeout", "late", "timeout"),
        ("unavailable", "down", "unavailable"),
        ("busy", "full", "unavailable"),
        ("queued", "", "unavailable"),
    ],
)
def test_waiting_in_vain_shows_the_original(
    setup: Setup, status: str, reason: str, outcome: str
) -> None:
    sample = setup.mapper("wait", FakeClient(status, reason))(setup.draw)
    setup.check_original(sample, outcome)


def test_waiting_for_nobody_is_refused(setup: Setup) -> None:
    with pytest.raises(ValueError, match="client"):
        setup.mapper("wait", None)
    with pytest.raises(ConfigError, match="on_miss='never'"):
        setup.mapper("never", None)


def test_a_worker_that_does_not_exist(setup: Setup) -> None:
    client = WorkerClient([str(setup.root / "no_socket")], deadline_s=1.0)
    setup.check_original(setup.mapper("wait", client)(setup.draw), "unavailable")
    setup.check_original(setup.mapper("original", client)(setup.draw), "unavailable")


def test_error_on_a_miss_says_what_to_do(setup: Setup) -> None:
    with pytest.raises(MissError, match=r"image 7 .*7\.png.*variant 1 .*bgaug paint"):
        setup.mapper("error")(setup.draw)


@pytest.mark.parametrize("on_miss", ["original", "wait", "error"])
@pytest.mark.parametrize(
    ("reason", "outcome"),
    [("flat", "rejected"), ("unchanged", "rejected"), ("no_objects", "no_objects")]
    + [("small_background", "small_background"), ("crowd", "crowd")],
)
def test_a_rejection_is_final(setup: Setup, on_miss: str, reason: str, outcome: str) -> None:
    setup.reject(reason)
    client = FakeClient()
    setup.check_original(setup.mapper(on_miss, client)(setup.draw), outcome)
    assert not client.enqueued
    assert not client.requested


def test_an_image_without_objects(setup: Setup) -> None:
    setup.draw["annotations"] = []
    client = FakeClient()
    setup.check_original(setup.mapper("original", client)(setup.draw), "no_objects")
    assert not client.enqueued


def test_a_damaged_picture_is_a_miss(setup: Setup) -> None:
    setup.paint()
    picture = setup.cached_picture()
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 4
    picture.write_bytes(bytes(content))
    client = FakeClient()
    setup.check_original(setup.mapper("original", client)(setup.draw), "miss")
    assert len(client.enqueued) == 1
    with pytest.raises(MissError):
        setup.mapper("error")(setup.draw)


@pytest.mark.parametrize("on_miss", ["original", "wait"])
def test_a_picture_that_vanishes_after_the_look_up_is_a_miss(setup: Setup, on_miss: str) -> None:
    setup.paint()

    def evicting(dataset_dict: Sample) -> Sample:
        if "cache" in dataset_dict["file_name"]:
            os.unlink(dataset_dict["file_name"])
        return {**dataset_dict, "image": np.asarray(Image.open(dataset_dict["file_name"]))}

    setup.check_original(setup.mapper(on_miss, FakeClient(), evicting)(setup.draw), "miss")
    setup.paint()
    with pytest.raises(FileNotFoundError):
        setup.mapper("error", None, evicting)(setup.draw)


@pytest.mark.parametrize("result", [None, RuntimeError("cannot read this"), 5])
def test_a_mapper_that_fails_on_the_picture_gets_the_original(
    setup: Setup, result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    setup.paint()

    def choosy(dataset_dict: Sample) -> Any:
        if "cache" not in dataset_dict["file_name"]:
            return reading_mapper(dataset_dict)
        if isinstance(result, Exception):
            raise result
        return result

    with caplog.at_level(logging.WARNING):
        setup.check_original(setup.mapper("original", None, choosy)(setup.draw), "error")
    assert "image 7" in caplog.text
    with pytest.raises((RuntimeError, MapperError)):
        setup.mapper("error", None, choosy)(setup.draw)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_mapper_that_returns_none_is_an_error(setup: Setup, p: float) -> None:
    setup.planner = make_planner(setup.root, variants=1, p=p)
    setup.paint()
    with pytest.raises(MapperError, match="returned NoneType for image 7"):
        setup.mapper("original", None, lambda _: None)(setup.draw)


def test_a_fault_of_the_mapper_itself_is_not_hidden(setup: Setup) -> None:
    setup.paint()

    def broken(dataset_dict: Sample) -> Sample:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        setup.mapper("original", None, broken)(setup.draw)


def test_a_broken_annotation_is_counted_and_named(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.draw["annotations"][0]["segmentation"] = [[0.0, float("inf"), 1, 1, 2, 2]]
    with caplog.at_level(logging.WARNING):
        setup.check_original(setup.mapper("original", FakeClient())(setup.draw), "error")
    assert "annotation 7" in caplog.text
    with pytest.raises(ValueError, match="annotation 7"):
        setup.mapper("error")(setup.draw)


class BrokenCache:
    root = "broken"

    def get(self, key: str) -> None:
        raise OSError("input/output error")


class BrokenClient:
    def enqueue(self, job: Any) -> None:
        raise MemoryError

    request = enqueue


@pytest.mark.parametrize("on_miss", ["original", "wait"])
def test_cache_and_client_that_raise(setup: Setup, on_miss: str) -> None:
    broken_client: Any = BrokenClient()
    setup.check_original(setup.mapper(on_miss, FakeClient("done"))(setup.draw), "miss")
    setup.check_original(
        BackgroundAugMapper(
            reading_mapper, setup.planner, setup.cache, broken_client, on_miss, 1.0
        )(setup.draw),
        "error",
    )
    broken_cache: Any = BrokenCache()
    setup.check_original(
        BackgroundAugMapper(
            reading_mapper, setup.planner, broken_cache, broken_client, on_miss, 1.0
        )(setup.draw),
        "error",
    )


def test_a_mistake_in_the_set_up_is_never_hidden(setup: Setup) -> None:
    with pytest.raises(PlanError, match="bgaug_visit"):
        setup.mapper("original", FakeClient())(setup.one)


def test_faults_do_not_flood_the_log(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.draw["annotations"][0]["bbox"] = [1]
    mapper = setup.mapper("original", FakeClient())
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            setup.check_original(mapper(setup.draw), "error")
    assert 1 <= len(caplog.records) <= 20


def test_pickling(setup: Setup) -> None:
    setup.paint()
    client = WorkerClient([str(setup.root / "no_socket")])
    mapper = pickle.loads(pickle.dumps(setup.mapper("original", client)))
    assert mapper(setup.draw)["bgaug"] == "hit"
