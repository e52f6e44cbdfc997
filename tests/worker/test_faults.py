"""Workers that die, hang, cannot start or cannot write, and parents that are killed."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.cache.store import CacheEntry
from bgaug_d2.errors import WorkerStartError
from bgaug_d2.worker.pool import WorkerPool
from bgaug_d2.worker.protocol import Reply
from tests.helpers.factories import make_object
from tests.helpers.worker_site import Site, wait_until

DONE = Reply("done")
# Far above what stopping takes on a busy machine; where a test uses it, the fault takes longer.
PATIENT_S = 20.0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert workers_of(os.getpid()) == []


def workers_of(parent: int) -> list[int]:
    """Live processes (no zombies) that were started as workers of ``parent``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if (
            arguments[1:4] == [b"-m", b"bgaug_d2.worker.process", str(parent).encode()]
            and state != "Z"
        ):
            found.append(int(entry.name))
    return found


def in_threads(*calls: Any) -> list[Any]:
    """The results of calls that run at the same time."""
    results: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# --- starting ---


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("refuse", "ended with code 1: ValueError: no model at /nowhere"),
        ("end_in_silence", "ended with code 0: it wrote nothing"),
        ("never_ready", "not ready after 0.7 s"),
        ("no_such_builder", "no attribute 'no_such_builder'"),
    ],
)
def test_a_worker_that_cannot_start_is_a_clear_error(
    site: Site, builder: str, message: str
) -> None:
    timeout = 0.7 if builder == "never_ready" else 300.0
    pool = site.pool(site.spec(), site.spec(builder, path="/nowhere"), start_timeout_s=timeout)
    if builder == "never_ready":
        pool = site.pool(site.spec(builder), start_timeout_s=timeout)
    began = time.monotonic()
    with pytest.raises(WorkerStartError, match=message):
        pool.start()
    assert time.monotonic() - began < 60
    assert workers_of(os.getpid()) == []


def test_a_cache_that_is_none_is_a_clear_error(site: Site) -> None:
    Path(site.cache_dir).mkdir()
    (Path(site.cache_dir) / "thesis.tex").touch()
    with pytest.raises(WorkerStartError, match="holds other files, such as 'thesis.tex'"):
        site.pool().start()


def test_a_log_that_cannot_be_written_is_a_clear_error(site: Site) -> None:
    (site.root / "logs" / "worker-0.log").mkdir(parents=True)
    with pytest.raises(WorkerStartError, match="cannot be run: .*Is a directory"):
        site.pool().start()


def test_a_start_that_is_interrupted_leaves_nothing(site: Site) -> None:
    pool = site.pool(site.spec("never_ready"))
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pool.start()
    assert workers_of(os.getpid()) == []


def test_workers_outlive_the_thread_that_started_the_pool(site: Site) -> None:
    pool = site.pool()
    starter = threading.Thread(target=pool.start)
    starter.start()
    starter.join()
    time.sleep(0.3)
    assert pool.client().request(site.job()) == DONE
    assert pool.stats()["restarts"] == 0
    pool.stop()


def test_sockets_are_private_and_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = site.root / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))  # too long for a socket
    with site.pool() as pool:
        folder = Path(pool.addresses[0]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert pool.client().request(site.job()) == DONE
    assert not folder.exists()
    assert list(deep.iterdir()) == []


def test_relative_folders_mean_the_same_after_a_restart(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.root)
    with site.pool(site.spec(spec={"cache_dir": "cache", "image_root": "data"})) as pool:
        monkeypatch.chdir("/")
        job = site.job(f"once {site.root / 'crashed'}")
        assert pool.client().request(job) == DONE
        assert site.cache.contains(job.key)
        assert pool.stats()["restarts"] == 1


# --- dying ---


@pytest.mark.parametrize("order", ["signal SIGKILL", "signal SIGSEGV", "raise out of memory"])
def test_a_job_that_kills_its_worker_is_an_error_and_the_pool_goes_on(
    site: Site, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    with site.pool() as pool, caplog.at_level(logging.WARNING):
        client = pool.client()
        assert client.request(site.job(order)).status == "error"
        assert client.request(site.job()) == DONE
        assert pool.stats()["restarts"] == 2
        assert pool.stats()["given_up"] == 0
    if order.startswith("raise"):
        assert "ended with code 1: RuntimeError: CUDA error: out of memory" in caplog.text
    if order.startswith("signal"):
        assert f"killed by {order.split()[1]}" in caplog.text


def test_one_crash_goes_unnoticed_by_who_waits(site: Site) -> None:
    with site.pool() as pool:
        client = pool.client()
        job = site.job(f"once {site.root / 'crashed'}")
        assert client.request(job) == DONE
        assert isinstance(site.cache.get(job.key), CacheEntry)
        assert pool.stats()["restarts"] == 1


def test_a_crash_between_passes_costs_the_passes_before_it_only(site: Site) -> None:
    objects = [make_object((x, 8.0, 3.0, 12.0)) for x in (0.0, 8.0, 16.0)]
    prompts = ["a", f"once {site.root / 'crashed'}", "c"]
    job = site.job(objects=objects, object_prompts=prompts, target="objects")
    with site.pool() as pool:
        assert pool.client().request(job) == DONE
        assert pool.stats()["restarts"] == 1
    assert [prompt for batch in site.painted() for prompt in batch] == [*prompts[:2], *prompts]
    entry = site.cache.get(job.key)
    assert isinstance(entry, CacheEntry)
    assert [each["seed"] for each in entry.sidecar["object_passes"]] == [
        job.seed(0, number) for number in range(3)
    ]


def test_batch_mates_of_a_deadly_job_get_their_pictures(site: Site) -> None:
    mates = [site.job() for _ in range(5)]
    deadly = site.job("exit")
    with site.pool(site.spec(max_batch_rows=8)) as pool:
        client = pool.client()
        client.enqueue(site.job("work 1"))  # meanwhile the others gather to one batch
        wait_until(lambda: len(site.painted()) == 1)
        calls = [lambda job=job: client.request(job) for job in [*mates, deadly]]
        replies = in_threads(*calls)
        assert replies[:5] == [DONE] * 5
        assert replies[5].status == "error"
        wait_until(lambda: pool.stats()["restarts"] == 2)
    with_deadly = [batch for batch in site.painted() if "exit" in batch]
    assert len(with_deadly[0]) > 2
    assert with_deadly[-1] == ["exit"]


def test_what_was_only_queued_in_a_crash_can_be_asked_for_again(site: Site) -> None:
    with site.pool(site.spec(delay_s=0.05)) as pool:
        client = pool.client()
        jobs = [site.job() for _ in range(5)]
        client.enqueue(site.job("exit"))
        for job in jobs:
            client.enqueue(job)
        wait_until(lambda: pool.stats()["restarts"] == 1)
        assert [client.request(job) for job in jobs] == [DONE] * 5


def test_crashes_with_pictures_between_them_never_end_the_pool(site: Site) -> None:
    with site.pool(max_restarts=2) as pool:
        client = pool.client()
        for _ in range(2):
            assert client.request(site.job("exit")).status == "error"
            assert client.request(site.job()) == DONE
        assert pool.stats()["restarts"] == 4
        assert pool.stats()["given_up"] == 0


def test_crashes_in_a_row_do_after_longer_and_longer_pauses(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    spec = site.spec("die_at_second_start", marker=str(site.root / "started"))
    with site.pool(spec, max_restarts=2, backoff_s=0.1) as pool, caplog.at_level(logging.WARNING):
        client = pool.client()
        assert client.request(site.job()) == DONE
        began = time.monotonic()
        # Waits for the restarts, and hears of their end long before its deadline.
        assert client.request(site.job("exit"), deadline_s=300.0).status == "unavailable"
        assert time.monotonic() - began < 60
        assert pool.stats()["given_up"] == 1
        assert pool.stats()["restarts"] == 2
        began = time.monotonic()
        assert client.request(site.job()).status == "unavailable"
        assert client.enqueue(site.job()).status == "unavailable"
        assert time.monotonic() - began < PATIENT_S
    pauses = [text.rpartition(" in ")[2] for text in caplog.messages if "it restarts" in text]
    assert pauses == ["0.1 s", "0.2 s"]
    assert "the GPU is gone; it is given up" in caplog.text


def test_the_other_worker_goes_on_when_one_is_given_up(site: Site) -> None:
    spec = site.spec("die_at_second_start", marker=str(site.root / "started"))
    with site.pool(spec, site.spec(), max_restarts=0) as pool:
        client = pool.client()
        os.kill((client.stats()[0] or {})["pid"], signal.SIGKILL)
        wait_until(lambda: pool.stats()["given_up"] == 1)
        assert [client.request(site.job()) for _ in range(6)] == [DONE] * 6


# --- hanging ---


def test_a_hanging_job_times_out_for_its_client_and_costs_the_worker(site: Site) -> None:
    with site.pool() as pool:
        client = pool.client()
        # Without its own deadline it would hear of an error: its worker is killed twice.
        assert client.request(site.job("hang"), deadline_s=1.0).status == "timeout"
        assert client.request(site.job()) == DONE  # by the next process
        assert pool.stats()["restarts"] == 1


def test_a_slow_job_with_signs_of_life_is_let_be(site: Site) -> None:
    with site.pool(hang_timeout_s=2.0) as pool:
        assert pool.client().request(site.job("work 4")) == DONE
        assert pool.stats()["restarts"] == 0


@pytest.mark.parametrize("probe", ["hang", "raise device lost"])
def test_a_device_that_breaks_while_idle_is_found(site: Site, probe: str) -> None:
    with site.pool(site.spec(probe=probe), max_restarts=0) as pool:
        wait_until(lambda: pool.stats()["given_up"] == 1)
        assert pool.client().request(site.job()).status == "unavailable"


def test_a_stopped_process_is_replaced(site: Site) -> None:
    with site.pool() as pool:
        client = pool.client()
        os.kill((client.stats()[0] or {})["pid"], signal.SIGSTOP)
        assert client.request(site.job()) == DONE
        assert pool.stats()["restarts"] == 1


# --- the cache cannot be written ---


def test_nothing_is_painted_in_vain_while_the_cache_is_full(site: Site) -> None:
    site.cache  # noqa: B018 - makes the folder
    with site.pool(site.spec("build_on_full_disk")) as pool:
        client = pool.client()
        first, second = client.request(site.job()), client.request(site.job())
        assert first.status == second.status == "error"
        assert "cannot be written" in first.reason
        assert len(site.painted()) == 1
        assert pool.stats()["workers"][0]["counts"]["errors"] == 2


# --- stopping ---


def test_stop_is_quick_with_work_queued_and_clients_waiting(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug_d2.worker.pool._STOP_S", 60.0)
    pool = site.pool(site.spec(delay_s=1.0), hang_timeout_s=60.0)
    pool.start()
    client = pool.client()
    for _ in range(50):
        client.enqueue(site.job())
    replies: list[Reply] = []
    waiting = threading.Thread(target=lambda: replies.append(client.request(site.job("hang"))))
    waiting.start()
    wait_until(lambda: ["hang"] in site.painted())
    began = time.monotonic()
    pool.stop()
    assert time.monotonic() - began < PATIENT_S
    waiting.join(PATIENT_S)
    assert [reply.status for reply in replies] == ["unavailable"]
    pool.stop()
    assert site.cache.verify().corrupt == {}


def test_stop_ends_a_stopped_process_and_one_that_waits_to_restart(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    spec = site.spec("die_at_second_start", marker=str(site.root / "started"))
    with site.pool(site.spec(), spec, hang_timeout_s=60.0, backoff_s=60.0) as pool:
        (first, second) = pool.client().stats()
        os.kill((first or {})["pid"], signal.SIGSTOP)
        with caplog.at_level(logging.WARNING):
            os.kill((second or {})["pid"], signal.SIGKILL)
            wait_until(lambda: "killed by SIGKILL" in caplog.text)
        began = time.monotonic()
    assert time.monotonic() - began < PATIENT_S


def test_a_forked_copy_of_the_pool_stops_nothing_and_holds_up_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug_d2.worker.pool._STOP_S", 60.0)
    pool = site.pool(hang_timeout_s=60.0)
    pool.start()
    pid = (pool.client().stats()[0] or {})["pid"]
    child = os.fork()
    if child == 0:
        pool.stop()
        (site.root / "stopped").touch()
        time.sleep(120)  # holds the inherited ends of the worker's pipes
        os._exit(0)
    wait_until((site.root / "stopped").exists)
    assert pool.client().request(site.job()) == DONE
    assert pool.stats()["restarts"] == 0
    began = time.monotonic()
    pool.stop()
    assert time.monotonic() - began < PATIENT_S
    assert not os.path.exists(f"/proc/{pid}")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


# --- orphans ---


def killed_parent(folder: Path, number: signal.Signals, *arguments: str) -> list[int]:
    """Which workers are left some time after a parent with two of them was killed."""
    script = Path(__file__).parents[1] / "helpers" / "orphan_parent.py"
    parent = subprocess.Popen(
        [sys.executable, str(script), str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    sockets = parent.stdout.readline().strip()
    try:
        assert os.path.basename(sockets).startswith("bgaug-")
        wait_until(lambda: len(workers_of(parent.pid)) == 2)
        os.kill(parent.pid, number)
        end = time.monotonic() + PATIENT_S
        while workers_of(parent.pid) and time.monotonic() < end:
            time.sleep(0.02)
        left = workers_of(parent.pid)
        shutil.rmtree(sockets)
        return left
    finally:
        os.killpg(parent.pid, signal.SIGKILL)  # the forked child as well
        for pid in workers_of(parent.pid):
            os.kill(pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()


@pytest.mark.parametrize("forked", [[], ["fork"]], ids=["alone", "with-a-forked-child"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(
    tmp_path: Path, number: signal.Signals, forked: list[str]
) -> None:
    assert killed_parent(tmp_path, number, "build", "busy", *forked) == []


@pytest.mark.parametrize("forked", [[], ["fork"]], ids=["alone", "with-a-forked-child"])
def test_nor_where_the_kernel_does_not_help(tmp_path: Path, forked: list[str]) -> None:
    assert killed_parent(tmp_path, signal.SIGKILL, "build_deaf", *forked) == []


@pytest.mark.parametrize("builder", ["never_ready", "hold_the_interpreter"])
def test_nor_while_it_loads_its_model(tmp_path: Path, builder: str) -> None:
    assert killed_parent(tmp_path, signal.SIGKILL, builder, "starting") == []


# --- everything at once ---


def chaos(site: Site, seconds: float, deadline_s: float) -> dict[str, int]:
    """Clients ask while workers are killed and stopped at random; how often each status came."""
    random.seed(0)
    statuses: dict[str, int] = {}
    prompts = ["noise"] * 60 + ["error", "flat", "exit", "hang", "lose", "raise x"]
    specs = [site.spec(max_batch_rows=2, delay_s=0.01) for _ in range(2)]
    end = time.monotonic() + seconds

    def ask(pool: WorkerPool) -> None:
        client = pool.client()
        while time.monotonic() < end:
            began = time.monotonic()
            reply = client.request(site.job(random.choice(prompts)), deadline_s)
            assert time.monotonic() - began < deadline_s + PATIENT_S
            statuses[reply.status] = statuses.get(reply.status, 0) + 1
            time.sleep(0.1 if reply.status == "unavailable" else 0)

    def harm(pool: WorkerPool) -> None:
        while time.monotonic() < end:
            time.sleep(random.uniform(1.0, 3.0))
            for pid in workers_of(os.getpid())[:1]:
                os.kill(pid, random.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV]))

    with site.pool(*specs, max_restarts=1000, breaker_cooldown_s=0.2) as pool:
        in_threads(*[lambda: ask(pool)] * 6, lambda: harm(pool))
        wait_until(lambda: pool.client().request(site.job(), 5.0) == DONE)
    return statuses


@pytest.mark.slow
def test_in_chaos_every_client_gets_its_answer_in_time(site: Site) -> None:
    statuses = chaos(site, seconds=30, deadline_s=2.0)
    assert statuses["done"] > 50, statuses
    assert set(statuses) <= {"done", "rejected", "error", "timeout", "unavailable"}
    assert site.cache.verify().corrupt == {}
