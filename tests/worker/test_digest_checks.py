"""How often a picture is read back for its digest: never by its writer, once on a hit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bgaug_d2.cache import files
from bgaug_d2.cache.store import VariantCache
from bgaug_d2.worker.client import WorkerClient
from bgaug_d2.worker.counts import Counts
from bgaug_d2.worker.job_queue import JobQueue
from bgaug_d2.worker.paint_loop import PaintLoop
from bgaug_d2.worker.protocol import Reply
from bgaug_d2.worker.server import JobServer
from tests.helpers.factories import MODEL
from tests.helpers.fake_engines import FakeEngine
from tests.helpers.mapper_setup import Setup
from tests.helpers.worker_site import Site

DONE = Reply("done")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures of a cache that were hashed, by this process."""
    found: list[str] = []
    digest = files.digest_file

    def spy(path: str) -> str:
        found.append(path)
        return digest(path)

    monkeypatch.setattr(files, "digest_file", spy)
    return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def worker_of(site: Site, cache: VariantCache, image_root: str) -> WorkerClient:
    """A worker in threads of this process, so that what it reads can be seen."""
    spec = replace(site.spec(), socket=str(site.root / "s"))
    queue, counts = JobQueue(8, 8, 1 << 30), Counts()
    loop = PaintLoop(FakeEngine({}), queue, cache, image_root, counts, lambda: None)
    for run in (loop.run_engine, loop.run_cpu):
        threading.Thread(target=run, daemon=True).start()
    JobServer(spec, queue, loop, cache, counts).listen()
    return WorkerClient([spec.socket], deadline_s=20.0)


@pytest.fixture
def client(site: Site) -> Iterator[WorkerClient]:
    client = worker_of(site, site.cache, str(site.data))
    yield client
    client.close()


def test_a_job_that_is_painted_reads_no_picture_back(
    site: Site, client: WorkerClient, hashed: list[str]
) -> None:
    assert client.request(site.job()) == DONE
    assert client.request(site.job("flat")) == Reply("rejected", "flat")
    assert hashed == []


def test_a_hit_on_request_verifies_once(
    site: Site, client: WorkerClient, hashed: list[str]
) -> None:
    job = site.job()
    assert client.request(job) == DONE
    for call in (client.request, client.enqueue):
        hashed.clear()
        assert call(job) == DONE
        assert len(hashed) == 1


def test_a_damaged_picture_is_painted_again_and_not_verified(
    site: Site, client: WorkerClient, hashed: list[str]
) -> None:
    job = site.job()
    assert client.request(job) == DONE
    (picture,) = Path(site.cache_dir).rglob("*.png")
    picture.write_bytes(picture.read_bytes()[:-1] + b"\0")
    assert client.request(job) == DONE
    assert len(hashed) == 1  # which found the damage
    assert site.cache.get(job.key) is not None


def test_a_draw_that_waits_for_its_picture_reads_it_once(
    tmp_path: Path, site: Site, hashed: list[str]
) -> None:
    setup = Setup(tmp_path / "images")
    assert setup.job.recipe.model == MODEL
    mapper = setup.mapper(client=worker_of(site, setup.cache, str(setup.root)), on_miss="wait")
    assert mapper(setup.draw)["bgaug"] == "hit"  # painted on request
    assert hashed == []
    assert mapper(setup.draw)["bgaug"] == "hit"
    assert len(hashed) == 1
