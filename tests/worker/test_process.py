"""A worker process with a fake engine: what it stores, answers, retries, refuses and counts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bgaug_d2.cache.store import CacheEntry, Rejection
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.pixels.object_masks import object_masks
from bgaug_d2.pixels.read import read_image
from bgaug_d2.worker import server
from bgaug_d2.worker.client import WorkerClient
from bgaug_d2.worker.counts import Counts
from bgaug_d2.worker.job_queue import JobQueue
from bgaug_d2.worker.paint_loop import PaintLoop
from bgaug_d2.worker.pool import WorkerPool
from bgaug_d2.worker.protocol import Reply, encode_frame, receive_frame
from bgaug_d2.worker.server import JobServer
from tests.helpers.factories import MODEL, make_object, make_source, write_image
from tests.helpers.fake_engines import FakeEngine
from tests.helpers.worker_site import Site, wait_until

DONE = Reply("done")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def pool(site: Site) -> Iterator[WorkerPool]:
    with site.pool(heartbeat_s=1.0, hang_timeout_s=30.0) as running:
        yield running


@pytest.fixture(scope="module")
def client(pool: WorkerPool) -> WorkerClient:
    return pool.client()


def counts(client: WorkerClient) -> dict[str, int]:
    (stats,) = client.stats()
    assert stats is not None
    found: dict[str, int] = stats["counts"]
    return found


def raised(client: WorkerClient, before: dict[str, int]) -> dict[str, int]:
    """The counters that rose since ``before``, but for the connections."""
    after = counts(client)
    risen = {name: after[name] - before.get(name, 0) for name in after}
    return {name: rise for name, rise in risen.items() if rise and name != "connections"}


def dead_of(pool: WorkerPool) -> int:
    return int(pool.stats()["restarts"])


def test_a_requested_picture_is_in_the_cache_with_its_objects_untouched(
    site: Site, client: WorkerClient
) -> None:
    job = site.job()
    before = counts(client)
    assert client.request(job) == DONE
    assert raised(client, before) == {"painted": 1}
    entry = site.cache.get(job.key)
    assert isinstance(entry, CacheEntry)
    source, painted = read_image(site.data / job.source.file_name), read_image(Path(entry.path))
    object_mask = object_masks(job.objects, 48, 64, 1).object_mask
    assert painted.shape == source.shape
    assert np.array_equal(painted[object_mask], source[object_mask])
    assert np.mean(painted[~object_mask] != source[~object_mask]) > 0.9
    assert entry.sidecar["seed"] == job.seed(0)
    assert entry.sidecar["model"] == dataclasses.asdict(MODEL)
    assert "rejected" not in entry.sidecar


def test_the_recipe_decides_the_format(site: Site, client: WorkerClient) -> None:
    job = site.job()
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, picture_format="jpeg"))
    assert client.request(job) == DONE
    entry = site.cache.get(job.key)
    assert isinstance(entry, CacheEntry)
    assert entry.path.endswith(".jpg")
    assert read_image(Path(entry.path)).shape == (48, 64, 3)


def test_a_picture_that_is_there_is_not_painted_again(site: Site, client: WorkerClient) -> None:
    job = site.job()
    assert client.request(job) == DONE
    painted = len(site.painted())
    assert client.request(job) == DONE
    assert client.enqueue(job) == DONE
    assert len(site.painted()) == painted


def test_an_enqueued_picture_comes_some_time(site: Site, client: WorkerClient) -> None:
    job = site.job()
    assert client.enqueue(job) == Reply("queued")
    wait_until(lambda: site.cache.contains(job.key))
    assert isinstance(site.cache.get(job.key), CacheEntry)


def test_clients_that_want_one_picture_at_a_time_share_the_work(
    site: Site, client: WorkerClient
) -> None:
    job, before = site.job("work 0.3"), counts(client)
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(client.request(job))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [DONE] * 6
    assert raised(client, before) == {"painted": 1}


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("no_objects", {"objects": []}),
        ("crowd", {"objects": [make_object(iscrowd=True)], "crowd": "skip_image"}),
        ("small_background", {"objects": [make_object((0.0, 0.0, 64.0, 48.0))]}),
    ],
)
def test_an_image_that_a_rule_leaves_out_is_rejected_for_good(
    site: Site, client: WorkerClient, reason: str, fields: dict[str, Any]
) -> None:
    job, before, painted = site.job(**fields), counts(client), len(site.painted())
    assert client.request(job) == Reply("rejected", reason)
    record = site.cache.get(job.key)
    assert isinstance(record, Rejection)
    assert record.reason == reason
    assert client.enqueue(job) == client.request(job) == Reply("rejected", reason)
    assert raised(client, before) == {f"rejected/{reason}": 1}
    assert len(site.painted()) == painted


def test_a_bad_picture_is_painted_again_with_the_next_seed(
    site: Site, client: WorkerClient
) -> None:
    job, before = site.job("flat-at-first"), counts(client)
    assert client.request(job) == DONE
    entry = site.cache.get(job.key)
    assert isinstance(entry, CacheEntry)
    assert entry.sidecar["seed"] == job.seed(1) != job.seed(0)
    assert raised(client, before) == {"painted": 1, "retries": 1}


def test_a_picture_that_stays_bad_is_rejected_for_good(site: Site, client: WorkerClient) -> None:
    job, before, painted = site.job("flat"), counts(client), len(site.painted())
    assert client.request(job) == Reply("rejected", "flat")
    assert isinstance(site.cache.get(job.key), Rejection)
    assert raised(client, before) == {"rejected/flat": 1, "retries": 2}
    assert len(site.painted()) == painted + 3
    assert client.request(job) == Reply("rejected", "flat")
    assert len(site.painted()) == painted + 3


def test_an_error_of_the_engine_is_tried_again_and_not_cached(
    site: Site, client: WorkerClient
) -> None:
    job, before = site.job("error"), counts(client)
    assert client.request(job) == Reply("error", "non-finite")
    assert not site.cache.contains(job.key)
    assert raised(client, before) == {"engine_errors": 3, "errors": 1, "retries": 2}
    assert client.request(site.job("error-at-first")) == DONE


def object_job(site: Site, *prompts: str, target: str = "objects", **fields: Any) -> InpaintJob:
    """A job whose objects lie side by side; a prompt each."""
    objects = [make_object((4.0 * place, 8.0, 3.0, 12.0)) for place in range(len(prompts))]
    return site.job(objects=objects, object_prompts=prompts, target=target, **fields)


def painted_since(site: Site, before: int) -> list[str]:
    return [prompt for batch in site.painted()[before:] for prompt in batch]


def test_objects_are_painted_one_after_another(site: Site, client: WorkerClient) -> None:
    job, before, painted = object_job(site, "a", "b", "c"), counts(client), len(site.painted())
    assert client.request(job) == DONE
    assert painted_since(site, painted) == ["a", "b", "c"]
    assert raised(client, before) == {"painted": 1}
    entry = site.cache.get(job.key)
    assert isinstance(entry, CacheEntry)
    assert [each["prompt"] for each in entry.sidecar["object_passes"]] == ["a", "b", "c"]
    source, image = read_image(site.data / job.source.file_name), read_image(Path(entry.path))
    object_mask = object_masks(job.objects, 48, 64, 1).object_mask
    assert np.array_equal(image[~object_mask], source[~object_mask])
    assert np.mean(image[object_mask] != source[object_mask]) > 0.9


def test_sixty_objects_are_one_picture(site: Site, client: WorkerClient) -> None:
    objects = [make_object((x, y, 3.0, 3.0)) for y in range(0, 48, 8) for x in range(0, 60, 6)]
    prompts = [f"object {place}" for place in range(60)]
    job = site.job(objects=objects, object_prompts=prompts, target="objects")
    before, painted = counts(client), len(site.painted())
    assert client.request(job) == DONE
    assert raised(client, before) == {"painted": 1}
    assert painted_since(site, painted) == prompts


def test_a_retry_repeats_the_pass_that_failed(site: Site, client: WorkerClient) -> None:
    target = "objects_and_background"
    job = object_job(site, "a", "error-at-first", "c", target=target, prompt="flat-at-first")
    before, painted = counts(client), len(site.painted())
    assert client.request(job) == DONE
    assert painted_since(site, painted) == ["flat-at-first"] * 2 + ["a"] + [
        "error-at-first"
    ] * 2 + ["c"]
    assert raised(client, before) == {"painted": 1, "retries": 2, "engine_errors": 1}
    entry = site.cache.get(job.key)
    assert isinstance(entry, CacheEntry)
    assert entry.sidecar["seed"] == job.seed(1)
    seeds = [each["seed"] for each in entry.sidecar["object_passes"]]
    assert seeds == [job.seed(0, 1), job.seed(1, 2), job.seed(0, 3)]


@pytest.mark.parametrize("prompt", ["error", "lose"])
def test_an_object_that_cannot_be_painted_is_an_error_of_the_picture(
    site: Site, client: WorkerClient, prompt: str
) -> None:
    job, before, painted = object_job(site, "a", prompt), counts(client), len(site.painted())
    assert client.request(job).status == "error"
    assert not site.cache.contains(job.key)
    assert raised(client, before) == {"engine_errors": 3, "errors": 1, "retries": 2}
    assert painted_since(site, painted) == ["a", *[prompt] * 3]


def test_only_backgrounds_are_refused(site: Site, client: WorkerClient) -> None:
    assert client.request(object_job(site, "flat")) == DONE
    both = {"target": "objects_and_background", "prompt": "flat"}
    assert client.request(object_job(site, "a", **both)) == Reply("rejected", "flat")
    crowd = [make_object(iscrowd=True)]
    job = site.job(objects=crowd, object_prompts=[""], target="objects")
    assert client.request(job) == Reply("rejected", "no_objects")


@pytest.mark.parametrize(
    ("prompt", "reason", "counted"),
    [
        ("lose", "the engine lost the request", {"engine_errors": 3, "retries": 2}),
        ("stray", "the engine lost", {"engine_errors": 3, "retries": 2, "stray_results": 3}),
        ("shape", "painted is uint8 (31, 32, 3)", {"unexpected": 1}),
    ],
)
def test_what_the_engine_must_not_do_costs_one_job_only(
    site: Site, client: WorkerClient, prompt: str, reason: str, counted: dict[str, int]
) -> None:
    job, before = site.job(prompt), counts(client)
    reply = client.request(job)
    assert (reply.status, reason in reply.reason) == ("error", True), reply
    assert raised(client, before) == {"errors": 1, **counted}
    assert not site.cache.contains(job.key)
    assert client.request(site.job()) == DONE


def changed_file(site: Site) -> InpaintJob:
    source = write_image(site.data, seed=901)
    Image.new("RGB", (64, 48)).save(site.data / source.file_name)
    return site.job(source=source)


def missing_file(site: Site) -> InpaintJob:
    return site.job(source=make_source(file_name="train/none.png"))


def outside(site: Site) -> InpaintJob:
    (site.root / "secret.png").write_bytes((site.data / "train" / "0.png").read_bytes())
    return site.job(source=dataclasses.replace(site.source, file_name="../secret.png"))


def truncated_file(site: Site) -> InpaintJob:
    source = write_image(site.data, seed=902)
    path = site.data / source.file_name
    path.write_bytes(path.read_bytes()[:200])
    return site.job(source=source)


def bad_box(site: Site) -> InpaintJob:
    return site.job(objects=[make_object((500.0, 500.0, 5.0, 5.0), annotation_id=77)])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (changed_file, "train/901.png"),
        (truncated_file, "train/902.png"),
        (missing_file, "train/none.png"),
        (outside, "../secret.png"),
        (bad_box, "annotation 77"),
    ],
)
def test_unusable_input_is_an_error_that_names_it_and_is_not_cached(
    site: Site, client: WorkerClient, make: Any, named: str
) -> None:
    job, before = make(site), counts(client)
    reply = client.request(job)
    assert (reply.status, named in reply.reason) == ("error", True), reply
    assert raised(client, before) == {"errors": 1}
    assert not site.cache.contains(job.key)


@pytest.mark.parametrize("field", ["sha256", "dtype", "scheduler"])
def test_a_job_for_another_model_is_refused(site: Site, client: WorkerClient, field: str) -> None:
    job = site.job()
    recipe = {
        "sha256": dataclasses.replace(
            job.recipe, model=dataclasses.replace(job.recipe.model, sha256="00" * 32)
        ),
        "dtype": dataclasses.replace(job.recipe, dtype="bfloat16"),
        "scheduler": dataclasses.replace(job.recipe, scheduler="euler"),
    }[field]
    wrong, before = dataclasses.replace(job, recipe=recipe), counts(client)
    for reply in (client.request(wrong), client.enqueue(wrong)):
        assert (reply.status, "loaded is" in reply.reason) == ("error", True)
    assert raised(client, before) == {"refused": 2}


def sizes(client: WorkerClient) -> dict[str, int]:
    """How many jobs the worker of ``client`` holds, waiting and under way."""
    (stats,) = client.stats()
    assert stats is not None
    return {name: stats[name] for name in ("queued", "running")}


def connect(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


def exchange(connection: socket.socket, message: dict[str, Any]) -> dict[str, Any] | None:
    connection.sendall(encode_frame(message))
    return receive_frame(connection, time.monotonic() + 20, 20.0)


@pytest.mark.parametrize(
    "job",
    [None, 1, [], "x", {}, {"schema": 1}]
    + [
        ("source", "height", "48"),
        ("source", "height", -1),
        ("source", "file_name", 7),
        ("source", "surplus", 1),
        ("objects", 0, None),
        ("objects", 0, {"bbox": [1e999] * 4}),
        ("objects", 0, {"bbox": [10**400] * 4}),
        ("recipe", "settings", {"resolution": "big"}),
        ("recipe", "dtype", 1e999),
        ("variant", None, 0),
    ],
    ids=repr,
)
def test_a_malformed_job_is_an_error_and_the_connection_goes_on(
    site: Site, pool: WorkerPool, client: WorkerClient, job: Any
) -> None:
    before, restarts = counts(client), dead_of(pool)
    if isinstance(job, tuple):
        first, second, value = job
        job = site.job().to_dict()
        job["objects"] = list(job["objects"])
        if second is None:
            job[first] = value
        elif isinstance(value, dict):
            job[first][second].update(value)
        else:
            job[first][second] = value
    with connect(pool.addresses[0]) as connection:
        for op in ("request", "enqueue"):
            body = encode_message({"op": op, "job": job})
            connection.sendall(struct.pack(">I", len(body)) + body)
            answer = receive_frame(connection, time.monotonic() + 20, 20.0)
            assert answer is not None
            assert answer["status"] == "error", answer
        assert exchange(connection, {"op": "stats"}) is not None
    assert raised(client, before) == {"refused": 2}
    assert dead_of(pool) == restarts


def encode_message(message: dict[str, Any]) -> bytes:
    """JSON that also has what ``encode_frame`` refuses."""
    return json.dumps(message).replace("Infinity", "1e999").encode()


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 10) + b"not json!!",
        encode_frame({"op": "format the disk"}),
        encode_frame({}),
        encode_frame({"op": ["request"]}),
        b"\x00\x00",
    ],
    ids=repr,
)
def test_malformed_frames_close_the_connection_and_are_counted(
    pool: WorkerPool, client: WorkerClient, sent: bytes
) -> None:
    before, restarts = counts(client), dead_of(pool)
    with connect(pool.addresses[0]) as connection:
        connection.sendall(sent)
        if sent == b"\x00\x00":
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20.0)
        assert connection.recv(1) == b""
    wait_until(lambda: raised(client, before) == {"malformed": 1})
    assert dead_of(pool) == restarts


def test_a_silent_half_frame_holds_up_nobody_and_is_closed_at_last(
    site: Site, pool: WorkerPool, client: WorkerClient
) -> None:
    before = counts(client)
    with connect(pool.addresses[0]) as connection:
        connection.sendall(encode_frame({"op": "stats"})[:7])
        assert client.request(site.job()) == DONE
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):  # open yet: nobody waited for its end
            connection.recv(1)
        connection.settimeout(60.0)
        assert connection.recv(1) == b""
    assert raised(client, before) == {"painted": 1, "slow": 1}


def test_an_idle_connection_stays(pool: WorkerPool) -> None:
    with connect(pool.addresses[0]) as connection:
        assert exchange(connection, {"op": "stats"}) is not None
        time.sleep(0.5)
        assert exchange(connection, {"op": "stats"}) is not None


def test_a_client_that_vanished_gets_its_picture_cached_and_is_counted(
    site: Site, pool: WorkerPool, client: WorkerClient
) -> None:
    job, before = site.job("work 0.3"), counts(client)
    with connect(pool.addresses[0]) as connection:
        connection.sendall(encode_frame({"op": "request", "job": job.to_dict()}))
    wait_until(lambda: raised(client, before) == {"painted": 1, "vanished": 1})
    assert site.cache.contains(job.key)


def test_ping_runs_an_idle_model_and_sees_a_busy_one_work(site: Site, client: WorkerClient) -> None:
    (first,), (second,) = client.ping(5.0), client.ping(5.0)
    assert first is not None
    assert second is not None
    assert not first["busy"]
    assert not second["busy"]
    assert second["progress"] > first["progress"]
    gate = site.root / "gate"
    client.enqueue(site.job(f"until {gate}"))
    wait_until(lambda: (client.ping(5.0)[0] or {}).get("busy"))
    (third,) = client.ping(5.0)
    assert third is not None
    wait_until(lambda: (client.ping(5.0)[0] or third)["progress"] > third["progress"])
    gate.touch()


def test_stats_say_what_goes_on(site: Site, pool: WorkerPool, client: WorkerClient) -> None:
    for _ in range(3):
        client.request(site.job())
    (stats,) = pool.stats()["workers"]
    assert stats["queued"] == stats["running"] == 0
    assert stats["max_batch_rows"] == 1
    assert stats["engine"] == {"queue": 0}
    assert stats["images_per_second"] > 0
    assert stats["uptime_s"] > 0
    assert os.path.exists(f"/proc/{stats['pid']}")


def test_who_waits_goes_before_who_does_not(tmp_path: Path) -> None:
    site = Site(tmp_path)
    gate = tmp_path / "gate"
    with site.pool(site.spec(spec={"max_running": 1})) as pool:
        client = pool.client()
        assert client.enqueue(site.job(f"until {gate}")).status == "queued"
        wait_until(lambda: len(site.painted()) == 1)
        for number in range(6):
            assert client.enqueue(site.job(f"look-ahead {number}")).status == "queued"
        asking = threading.Thread(target=client.request, args=(site.job("wanted"),))
        asking.start()
        wait_until(lambda: sizes(client) == {"queued": 7, "running": 1})
        gate.touch()
        asking.join()
        assert [prompt for batch in site.painted() for prompt in batch][1] == "wanted"


def test_a_full_queue_gives_up_the_oldest_and_counts_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    gate = tmp_path / "gate"
    with site.pool(site.spec(spec={"queue_size": 4, "max_running": 1})) as pool:
        client = pool.client()
        jobs = [site.job(f"until {gate}"), *(site.job() for _ in range(7))]
        assert client.enqueue(jobs[0]).status == "queued"
        wait_until(lambda: sizes(client) == {"queued": 0, "running": 1})
        statuses = [client.enqueue(job).status for job in jobs[1:]]
        assert statuses == ["queued"] * 7  # the oldest gave way
        asking = threading.Thread(target=client.request, args=(jobs[2],))
        asking.start()
        wait_until(lambda: (client.stats()[0] or {}).get("displaced") == 5)
        gate.touch()
        asking.join()
        assert site.cache.contains(jobs[2].key)
        wait_until(lambda: all(site.cache.contains(jobs[number].key) for number in (0, 6, 7)))
        assert not any(site.cache.contains(jobs[number].key) for number in (1, 3, 4))


@pytest.mark.parametrize(("fields", "limit"), [({"max_running": 3}, 3), ({}, 4)])
def test_pictures_in_memory_are_limited(tmp_path: Path, fields: dict[str, int], limit: int) -> None:
    site = Site(tmp_path)
    gate = tmp_path / "gate"
    with site.pool(site.spec(spec=fields)) as pool:
        client = pool.client()
        jobs = [site.job(f"until {gate}") for _ in range(20)]
        for job in jobs:
            assert client.enqueue(job).status == "queued"
        wait_until(lambda: sizes(client)["running"] == limit)
        gate.touch()
        seen = []
        while not all(site.cache.contains(job.key) for job in jobs):
            seen.append(sizes(client)["running"])
        assert max(seen) <= limit


def test_standard_output_of_libraries_does_no_harm(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.pool(site.spec("build_loudly")) as pool:
        assert pool.client().request(site.job()) == DONE
        assert "ppp" in (tmp_path / "logs" / "worker-0.log").read_text()


@pytest.mark.parametrize(("users", "expected"), [(None, "1000"), ("5", "5")])
def test_threads_wait_shortly_unless_the_user_says_otherwise(
    users: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if users:
        monkeypatch.setenv("GOMP_SPINCOUNT", users)
    with Site(tmp_path).pool() as pool:
        (stats,) = pool.stats()["workers"]
        environment = Path(f"/proc/{stats['pid']}/environ").read_bytes().split(b"\0")
    assert f"GOMP_SPINCOUNT={expected}".encode() in environment


def test_two_workers_share_the_jobs_and_one_cache(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.pool(site.spec(), site.spec()) as pool:
        client = pool.client()
        jobs = [site.job() for _ in range(12)]
        assert [client.request(job) for job in jobs] == [DONE] * 12
        painted = [stats["counts"].get("painted", 0) for stats in pool.stats()["workers"]]
        assert sum(painted) == 12
        assert min(painted) > 0


def test_more_connections_than_allowed_are_closed_and_the_others_go_on(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 2)
    spec = dataclasses.replace(site.spec(), socket=str(tmp_path / "s"))
    queue, tally = JobQueue(8, 8, 1 << 30), Counts()
    loop = PaintLoop(FakeEngine({}), queue, site.cache, str(site.data), tally, lambda: None)
    JobServer(spec, queue, loop, site.cache, tally).listen()
    client = WorkerClient([spec.socket])
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(connect(spec.socket))
            assert exchange(connection, {"op": "stats"}) is not None
        assert client.stats() == [None]
        assert client.request(site.job(), deadline_s=1.0).status == "unavailable"
        assert exchange(connection, {"op": "stats"}) is not None
    wait_until(lambda: client.stats() != [None])
    assert tally.snapshot()["turned_away"] >= 2


@pytest.mark.slow
def test_the_real_engine_with_the_tiny_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bgaug_d2.config.bgaug import InpainterConfig
    from bgaug_d2.inpaint.model.identity import identify

    identity, path = identify(InpainterConfig(model="tiny"))
    site = Site(tmp_path)
    options = {
        "model_path": str(path),
        "identity": dataclasses.asdict(identity),
        "device": "cpu",
        "dtype": "float32",
        "max_batch_rows": 4,
    }
    spec = dataclasses.replace(
        site.spec(spec={"recipe_model_sha256": identity.sha256}),
        engine="bgaug_d2.inpaint.build:build_engine",
        engine_options=options,
    )
    with site.pool(spec, heartbeat_s=1.0, hang_timeout_s=60.0) as pool:
        job = site.job("a meadow", resolution=64, num_inference_steps=6)
        model = dataclasses.replace(job.recipe, model=identity)
        job = dataclasses.replace(job, recipe=model)
        reply = pool.client().request(job)
        assert reply.status in ("done", "rejected"), reply
        assert site.cache.contains(job.key)
        (answer,) = pool.client().ping(30.0)
        assert answer is not None
        assert not answer["busy"]
