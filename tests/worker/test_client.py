"""What a client makes of workers that answer, die, hang, talk nonsense or are not there."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.worker.client import WorkerClient
from bgaug_d2.worker.protocol import STARTED, Reply, encode_frame, receive_frame
from tests.helpers.factories import make_job
from tests.helpers.worker_site import wait_until

Message = dict[str, Any]
DONE: Message = {"status": "done", "reason": ""}
BUSY: Message = {"status": "busy", "reason": "the queue is full"}
HOLD = "hold"  # answer nothing more, keep the connection
CLOSE = "close"
# Calls that must not wait for the deadline have a far one: a busy machine is quicker than QUICK_S.
FAR_S, QUICK_S = 60.0, 20.0

# What a worker does with a message: dicts are sent as frames, bytes as they are.
Script = Callable[[Message], list[Any]]


class ScriptedWorker:
    """A worker's socket; ``script`` gives the answers to a message."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self.script = script
        self.messages: list[Message] = []
        self.connections: list[socket.socket] = []
        self.accepted = 0
        self.sent: list[Any] = []
        self.start()

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen(64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def die(self) -> None:
        """As a crashed worker: connections end, the path stays and refuses."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.accepted += 1
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while (message := receive_frame(connection, None, FAR_S)) is not None:
                self.messages.append(message)
                for answer in self.script(message):
                    if answer == CLOSE:
                        return
                    if answer == HOLD:
                        break
                    connection.sendall(
                        answer if isinstance(answer, bytes) else encode_frame(answer)
                    )
                    self.sent.append(answer)


def always(*answers: Any) -> Script:
    return lambda message: list(answers)


def in_turn(*turns: list[Any]) -> Script:
    """The n-th message gets the n-th answers, later ones the last."""
    left = list(turns)
    return lambda message: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., ScriptedWorker]]:
    workers: list[ScriptedWorker] = []

    def make(script: Script) -> ScriptedWorker:
        workers.append(ScriptedWorker(tmp_path / f"{len(workers)}.sock", script))
        return workers[-1]

    yield make
    for worker in workers:
        worker.die()


MakeWorker = Callable[[Script], ScriptedWorker]


def client_of(*workers: ScriptedWorker, **settings: Any) -> WorkerClient:
    return WorkerClient(
        [str(worker.path) for worker in workers], **{"deadline_s": FAR_S, **settings}
    )


def job_for(worker: int, of: int) -> InpaintJob:
    """A job whose key names a worker."""
    jobs = (make_job(variant=variant) for variant in range(1, 1000))
    return next(job for job in jobs if int(job.key[:8], 16) % of == worker)


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Fails where a call waits for a far deadline."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < QUICK_S


@pytest.fixture
def skip_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of deadlines and breakers forward."""
    now, skipped = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now() + skipped[0])

    def skip(seconds: float) -> None:
        skipped[0] += seconds

    return skip


@pytest.mark.parametrize("status", ["done", "rejected", "error"])
def test_a_request_brings_the_workers_answer(make_worker: MakeWorker, status: str) -> None:
    worker = make_worker(always(STARTED, {"status": status, "reason": "why"}))
    job = make_job()
    assert client_of(worker).request(job) == Reply(status, "why")
    assert worker.messages == [{"op": "request", "job": _wire(job), "isolated": False}]


@pytest.mark.parametrize("status", ["queued", "done", "busy", "error"])
def test_an_enqueue_brings_the_workers_answer(make_worker: MakeWorker, status: str) -> None:
    worker = make_worker(always({"status": status}))
    assert client_of(worker).enqueue(make_job()) == Reply(status)


def test_jobs_go_to_the_worker_that_their_key_names(make_worker: MakeWorker) -> None:
    workers = [make_worker(always(DONE)) for _ in range(3)]
    client = client_of(*workers)
    for number, worker in enumerate(workers):
        job = job_for(number, of=3)
        assert client.request(job).status == "done"
        assert client.enqueue(job).status == "done"
        assert [message["job"] for message in worker.messages] == [_wire(job)] * 2


def test_calls_share_a_connection_and_threads_do_not(make_worker: MakeWorker) -> None:
    worker = make_worker(always(DONE))
    client = client_of(worker)
    for _ in range(5):
        client.request(make_job())
    assert worker.accepted == 1
    threads = [threading.Thread(target=client.request, args=(make_job(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worker.accepted == 4


def test_a_pickled_client_works_and_has_the_same_settings(make_worker: MakeWorker) -> None:
    worker = make_worker(always(DONE))
    client = client_of(worker, deadline_s=7.0, breaker_failures=1, breaker_cooldown_s=300.0)
    client.request(make_job())
    copy = pickle.loads(pickle.dumps(client))
    assert (copy.addresses, copy.deadline_s) == (client.addresses, 7.0)
    assert copy.request(make_job()) == Reply("done")
    worker.die()
    worker.path.unlink()
    copy.request(make_job())
    worker.start()
    assert copy.request(make_job()).status == "unavailable"  # the breaker came along


def test_a_forked_child_makes_its_own_connection(make_worker: MakeWorker) -> None:
    worker = make_worker(
        lambda message: [{"status": "done", "reason": str(message["job"]["variant"])}]
    )
    client = client_of(worker)
    assert client.request(make_job(variant=1)).reason == "1"
    child = os.fork()
    if child == 0:
        replies = [client.request(make_job(variant=2)).reason for _ in range(20)]
        os._exit(0 if replies == ["2"] * 20 else 1)
    replies = [client.request(make_job(variant=3)).reason for _ in range(20)]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert replies == ["3"] * 20
    assert worker.accepted == 2


def test_the_next_worker_takes_over(make_worker: MakeWorker) -> None:
    workers = [make_worker(always(DONE)) for _ in range(2)]
    client = client_of(*workers)
    workers[0].die()
    with quickly():
        assert client.request(job_for(0, of=2)) == Reply("done")
        assert client.enqueue(job_for(0, of=2)) == Reply("done")
    workers[0].path.unlink()
    with quickly():
        assert client.request(job_for(0, of=2)) == Reply("done")
        assert client.enqueue(job_for(0, of=2)) == Reply("done")


def test_a_worker_without_room_is_asked_again(make_worker: MakeWorker) -> None:
    worker = make_worker(in_turn([BUSY], [BUSY], [BUSY], [DONE]))
    assert client_of(worker).request(make_job()) == Reply("done")
    assert len(worker.messages) == 4


def test_an_enqueue_goes_to_a_worker_with_room_or_comes_back_busy(make_worker: MakeWorker) -> None:
    full, free = make_worker(always(BUSY)), make_worker(always({"status": "queued"}))
    assert client_of(full, free).enqueue(job_for(0, of=2)).status == "queued"
    assert client_of(full).enqueue(make_job()).status == "busy"


def test_no_room_until_the_deadline_is_busy_and_no_failure(make_worker: MakeWorker) -> None:
    worker = make_worker(always(BUSY))
    client = client_of(worker, breaker_failures=1)
    for _ in range(2):
        with quickly():
            assert client.request(make_job(), deadline_s=1.0).status == "busy"
    worker.script = always(DONE)
    assert client.request(make_job()) == Reply("done")


@pytest.mark.parametrize("answers", [[HOLD], [STARTED, HOLD], [b"\x00\x00", HOLD]])
def test_silence_is_a_timeout_at_the_deadline(
    make_worker: MakeWorker, answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug_d2.worker.connections._FRAME_S", FAR_S)
    worker = make_worker(always(*answers))
    for deadline in (0.0, 0.3):
        with quickly():
            assert client_of(worker).request(make_job(), deadline_s=deadline).status == "timeout"


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(
    make_worker: MakeWorker,
) -> None:
    too_late = threading.Event()

    def slow_at_first(message: Message) -> list[Any]:
        if message["job"]["variant"] == 1:
            too_late.wait(FAR_S)
        return [{"status": "done", "reason": str(message["job"]["variant"])}]

    client = client_of(make_worker(slow_at_first))
    assert client.request(make_job(variant=1), deadline_s=0.2).status == "timeout"
    too_late.set()
    assert client.request(make_job(variant=2)).reason == "2"


def test_an_enqueue_to_hanging_workers_gives_up_soon(make_worker: MakeWorker) -> None:
    # Two seconds for all of them together; for each it would be over QUICK_S.
    client = client_of(*(make_worker(always(HOLD)) for _ in range(15)))
    with quickly():
        assert client.enqueue(make_job()).status in ("timeout", "unavailable")


@pytest.mark.parametrize("call", [WorkerClient.request, WorkerClient.enqueue])
def test_without_any_worker_the_answer_is_quick(
    tmp_path: Path, call: Callable[[WorkerClient, InpaintJob], Reply]
) -> None:
    with quickly():
        client = WorkerClient([str(tmp_path / "1.sock"), str(tmp_path / "2.sock")])
        assert call(client, make_job()).status == "unavailable"


def test_a_dead_worker_is_noticed_at_once_and_its_restart_awaited(make_worker: MakeWorker) -> None:
    worker = make_worker(in_turn([STARTED, HOLD], [DONE]))
    client = client_of(worker)

    def crash() -> None:
        wait_until(lambda: worker.sent == [STARTED])
        worker.die()
        time.sleep(0.3)
        worker.start()

    threading.Thread(target=crash, daemon=True).start()
    with quickly():
        assert client.request(make_job()) == Reply("done")
    assert [message["isolated"] for message in worker.messages] == [False, True]


def test_a_worker_that_was_given_up_is_not_waited_for(make_worker: MakeWorker) -> None:
    worker = make_worker(always(STARTED, HOLD))

    def crash() -> None:
        wait_until(lambda: worker.sent == [STARTED])
        worker.die()
        time.sleep(0.3)
        worker.path.unlink()

    threading.Thread(target=crash, daemon=True).start()
    with quickly():
        assert client_of(worker).request(make_job()).status == "unavailable"


def test_a_worker_that_stays_down_is_unavailable_at_the_deadline(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug_d2.worker.client._ANSWER_S", FAR_S)
    worker = make_worker(always(DONE))
    worker.die()
    with quickly():
        assert client_of(worker).request(make_job(), deadline_s=0.4).status == "unavailable"
    with quickly():  # nobody waits for an enqueue
        assert client_of(worker).enqueue(make_job()).status == "unavailable"


def test_a_job_that_twice_kills_its_worker_is_an_error(make_worker: MakeWorker) -> None:
    worker = make_worker(always(STARTED, CLOSE))
    with quickly():
        reply = client_of(worker).request(make_job())
    assert (reply.status, "died 2 times" in reply.reason) == ("error", True)
    assert [message["isolated"] for message in worker.messages] == [False, True]


def test_a_job_that_only_queued_when_workers_died_is_innocent(make_worker: MakeWorker) -> None:
    worker = make_worker(in_turn([CLOSE], [CLOSE], [CLOSE], [CLOSE], [STARTED, DONE]))
    assert client_of(worker).request(make_job()) == Reply("done")
    assert not any(message["isolated"] for message in worker.messages)


def test_a_restart_between_two_calls_goes_unnoticed(make_worker: MakeWorker) -> None:
    worker = make_worker(always(DONE))
    client = client_of(worker, breaker_failures=1)
    for call in (client.request, client.enqueue, client.request):
        assert call(make_job()) == Reply("done")
        worker.die()
        worker.start()


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff" * 8, b"\x00\x00\x00\x02[]", {"status": "fine"}, {}, b"\x00\x00\x00\x04{NaN"],
    ids=repr,
)
def test_nonsense_never_raises_and_the_deadline_holds(
    make_worker: MakeWorker, nonsense: Any
) -> None:
    client = client_of(make_worker(always(nonsense)))
    with quickly():
        assert client.request(make_job(), deadline_s=0.5).status == "unavailable"
        assert client.enqueue(make_job()).status == "unavailable"
    assert client.stats() in ([None], [nonsense])


def test_a_job_that_cannot_be_sent_is_an_error(make_worker: MakeWorker) -> None:
    client = client_of(make_worker(always(DONE)))
    huge = make_job(prompt="x" * 5_000_000)
    assert client.request(huge).status == "error"
    assert client.enqueue(huge).status == "error"
    assert client.request(make_job()) == Reply("done")


def test_the_breaker_stops_asking_and_lets_one_call_through_later(
    make_worker: MakeWorker, skip_time: Callable[[float], None]
) -> None:
    worker = make_worker(always(HOLD))
    client = client_of(worker, breaker_failures=2, breaker_cooldown_s=300.0)
    for _ in range(2):
        assert client.request(make_job(), deadline_s=0.1).status == "timeout"
    with quickly():
        assert client.request(make_job()).status == "unavailable"
        assert client.enqueue(make_job()).status == "unavailable"
    assert len(worker.messages) <= 2
    skip_time(300.0)
    assert client.request(make_job(), deadline_s=0.1).status == "timeout"  # the trial
    assert client.request(make_job()).status == "unavailable"
    worker.script = always(DONE)
    skip_time(300.0)
    for _ in range(3):
        assert client.request(make_job()) == Reply("done")


def test_an_unavailable_worker_opens_the_breaker(make_worker: MakeWorker) -> None:
    worker = make_worker(always(DONE))
    client = client_of(worker, breaker_failures=2, breaker_cooldown_s=300.0)
    worker.die()
    for _ in range(2):
        assert client.request(make_job(), deadline_s=0.1).status == "unavailable"
    with quickly():
        assert client.request(make_job()).status == "unavailable"


def test_a_worker_of_another_user_is_not_trusted(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(always(DONE))
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert client_of(worker).enqueue(make_job()).status == "unavailable"
    assert worker.messages == []


def test_stats_and_ping_skip_workers_that_are_down(make_worker: MakeWorker, tmp_path: Path) -> None:
    worker = make_worker(lambda message: [{"op": message["op"]}])
    hanging = make_worker(always(HOLD))
    client = WorkerClient([str(worker.path), str(tmp_path / "none"), str(hanging.path)])
    with quickly():
        assert client.ping(2.0) == [{"op": "ping"}, None, None]
    assert client.stats() == [{"op": "stats"}, None, None]


def test_out_of_descriptors_is_unavailable_not_an_exception(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(make_worker(always(DONE)))

    def fail(*_: Any) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("bgaug_d2.worker.connections.socket.socket", fail)
    assert client.enqueue(make_job()).status == "unavailable"
    assert client.request(make_job(), deadline_s=0.1).status == "unavailable"


def test_close_is_for_a_while(make_worker: MakeWorker) -> None:
    worker = make_worker(always(DONE))
    client = client_of(worker)
    client.request(make_job())
    client.close()
    assert client.request(make_job()) == Reply("done")
    assert worker.accepted == 2


def test_no_address_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="addresses is empty"):
        WorkerClient([])


def _wire(job: InpaintJob) -> Message:
    wire: Message = json.loads(json.dumps(job.to_dict()))
    return wire
