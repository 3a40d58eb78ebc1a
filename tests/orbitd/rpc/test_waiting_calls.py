"""Calls that wait: they take no place, have a limit, and are cancelled by their client or with its connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connection_support import Served, request, turns
from orbit_protocol.errors import Busy, Cancelled
from orbit_protocol.methods import CANCEL_REQUEST, WATCH_PROGRESS, Method
from orbit_protocol.params import CancelRequest, WatchProgress
from orbitd.rpc import connection
from orbitd.rpc.connection import MAX_HELD, MAX_IN_FLIGHT, MAX_WAITING, Call
from orbitd.rpc.dispatch import Dispatcher, Handlers
from orbitd.store.progress import Progress

WAIT: Method[Any, Any] = Method("wait", Any, Any, "Wait.", can_wait=True)
WORK: Method[Any, Any] = Method("work", Any, Any, "Work.")
PING: Method[Any, Any] = Method("ping", Any, Any, "Answer at once.")


class Daemon:
    """Serves one client.

    Attributes:
        happens: What is waited for.
        works: What work waits for.
        waiting: How many calls wait.
        pings: How many were answered.
        progress: Of the call that has begun to wait last.
    """

    progress: Progress

    def __init__(self) -> None:
        self.happens, self.works = asyncio.Event(), asyncio.Event()
        self.waiting = self.pings = 0
        handlers: Handlers[Call] = Handlers()
        handlers.add(WAIT, self._wait)
        handlers.add(WORK, self._work)
        handlers.add(PING, self._ping)
        handlers.add(CANCEL_REQUEST, self._cancel)
        handlers.add(WATCH_PROGRESS, self._watch)
        methods = (WAIT, WORK, PING, CANCEL_REQUEST, WATCH_PROGRESS)
        self.client = Served(Dispatcher(handlers, {each.name: each for each in methods}))

    async def _wait(self, call: Call, __: Any) -> str:
        self.waiting += 1
        self.progress = call.progress
        try:
            await self.happens.wait()
        finally:
            self.waiting -= 1
        return "happened"

    async def _work(self, _: Call, __: Any) -> str:
        await self.works.wait()
        return "done"

    def _ping(self, _: Call, __: Any) -> str:
        self.pings += 1
        return "pong"

    def _cancel(self, call: Call, q: CancelRequest) -> None:
        call.connection.cancel_waits(q.id)

    def _watch(self, call: Call, q: WatchProgress) -> None:
        call.connection.watch_progress(q.id)


async def test_they_take_no_place_in_flight() -> None:
    """However many wait, as many others as ever are in flight, and are answered."""
    daemon = Daemon()
    client = daemon.client
    client.send(*(request("wait", number) for number in range(3 * MAX_IN_FLIGHT)), request("ping", "p"))
    await turns()
    assert (daemon.waiting, client.results) == (3 * MAX_IN_FLIGHT, {"p": "pong"})
    client.send(*(request("work", f"w{number}") for number in range(MAX_IN_FLIGHT)))
    daemon.works.set()
    await turns()
    assert len(client.results) == 1 + MAX_IN_FLIGHT
    daemon.happens.set()
    await turns()
    assert [client.results[number] for number in range(3 * MAX_IN_FLIGHT)] == ["happened"] * 3 * MAX_IN_FLIGHT
    assert client.tasks == set()


async def test_a_batch_that_waits_takes_no_place_either() -> None:
    """It is held by its wait, and holds nothing else."""
    daemon = Daemon()
    batches = [[request("wait", f"w{each}"), request("work", f"d{each}")] for each in range(2 * MAX_IN_FLIGHT)]
    daemon.client.send(*batches, request("ping", "p"))
    await turns()
    assert (daemon.waiting, daemon.client.results) == (2 * MAX_IN_FLIGHT, {"p": "pong"})
    daemon.happens.set()
    daemon.works.set()
    await turns()
    assert len(daemon.client.results) == 1 + 2 * 2 * MAX_IN_FLIGHT


async def test_one_too_many_is_refused_at_once() -> None:
    """The 257th is busy; when one ends, another may wait."""
    daemon = Daemon()
    client = daemon.client
    for number in range(MAX_WAITING + 1):
        client.send(request("wait", number))
    await turns(3 * MAX_WAITING)
    assert (client.results, daemon.waiting) == ({MAX_WAITING: Busy.code}, MAX_WAITING)
    client.send(request("$/cancelRequest", id=0))
    await turns()
    client.send(request("wait", "again"))
    await turns()
    assert (client.results[0], "again" in client.results, daemon.waiting) == (Cancelled.code, False, MAX_WAITING)


async def test_their_bytes_have_a_limit_too() -> None:
    """Long ids are kept as long as the calls wait: up to one message's limit, but for a single call."""
    daemon = Daemon()
    client = daemon.client
    half = "x" * (client.max_message_bytes // 2)
    client.send(request("wait", half + "1"))
    client.send(request("wait", half + "2"))
    await turns()
    assert (client.results, daemon.waiting) == ({half + "2": Busy.code}, 1)


@pytest.mark.parametrize(
    ("cancelled", "ended"),
    [(1, {1}), ("1", {"1"}), (1.0, {1}), (1.5, {1.5}), (2, set[Any]()), ("no", set[Any]())],
)
async def test_cancel_ends_the_calls_of_an_id(cancelled: Any, ended: set[Any]) -> None:
    """Numbers and strings are different ids; one that no call has is ignored."""
    daemon = Daemon()
    client = daemon.client
    client.send(request("wait", 1), request("wait", "1"), request("wait", 1.5))
    client.send(request("$/cancelRequest", id=cancelled))  # a notification
    await turns()
    assert client.results == dict.fromkeys(ended, Cancelled.code)
    client.send(request("$/cancelRequest", "c", id=cancelled))
    await turns()
    assert client.results == {**dict.fromkeys(ended, Cancelled.code), "c": None}
    daemon.happens.set()
    await turns()
    assert len(client.results) == 4


async def test_all_calls_of_one_id_are_cancelled_once() -> None:
    """A client that gave an id twice ends both calls, and each is answered once."""
    daemon = Daemon()
    client = daemon.client
    client.send(request("wait", 7), request("wait", 7), *[request("$/cancelRequest", id=7)] * 3, request("ping", "p"))
    await turns()
    assert [each["id"] for each in client.answers] == ["p", 7, 7]
    assert (daemon.waiting, client.tasks) == (0, set())
    assert {each["error"]["data"]["kind"] for each in client.answers if "error" in each} == {"cancelled"}


async def test_a_cancel_that_overtakes_a_held_wait_ends_it() -> None:
    """The wait is answered at once and never begins; what is held around it is carried out."""
    daemon = Daemon()
    client = daemon.client
    works = [request("work", number) for number in range(MAX_IN_FLIGHT + 4)]
    client.send(*works, request("wait", "w"), request("ping", "p"), request("$/cancelRequest", id="w"))
    await turns()
    assert client.results == {"w": Cancelled.code}
    daemon.works.set()
    await turns()
    assert client.results == {"w": Cancelled.code, "p": "pong", **dict.fromkeys(range(MAX_IN_FLIGHT + 4), "done")}
    assert (daemon.waiting, client.tasks) == (0, set())


async def test_a_cancel_ends_a_wait_of_a_client_that_does_not_read() -> None:
    """It is held since its client is congested. Only waits of this id are ended, and held works are not."""
    daemon = Daemon()
    client = daemon.client
    client.connection.pause_writing()
    client.send(request("wait", "1"), request("wait", 1), request("work", 1), request("$/cancelRequest", id=1))
    await turns()
    assert client.results == {1: Cancelled.code}
    client.connection.resume_writing()
    await turns()
    daemon.works.set()
    daemon.happens.set()
    await turns()
    assert client.results == {1: "done", "1": "happened"}


async def test_cancelled_waits_make_room_for_what_is_read() -> None:
    """Reading stops at so many held waits, and goes on when they are cancelled."""
    daemon = Daemon()
    client = daemon.client
    client.connection.pause_writing()
    client.send(*[request("wait", 1)] * MAX_HELD)
    assert not client.transport.is_reading
    client.send(request("$/cancelRequest", id=1))
    await turns()
    assert (len(client.answers), client.transport.is_reading) == (MAX_HELD, True)


async def test_a_request_that_works_is_not_cancelled() -> None:
    """Only waits are: what changes the store runs to its end."""
    daemon = Daemon()
    daemon.client.send(request("work", 1), request("$/cancelRequest", id=1))
    await turns()
    daemon.works.set()
    await turns()
    assert daemon.client.results == {1: "done"}


async def test_a_cancelled_wait_of_a_batch_lets_the_batch_go_on() -> None:
    """It is the request that is cancelled: those behind it are carried out."""
    daemon = Daemon()
    batch = [request("wait", 1), request("work", 2), request("wait", 3), request("ping", 4)]
    daemon.client.send(batch, request("$/cancelRequest", id=1))
    await turns()
    daemon.works.set()
    await turns()
    assert daemon.waiting == 1
    daemon.client.send(request("$/cancelRequest", id=3))
    await turns()
    assert daemon.client.results == {1: Cancelled.code, 2: "done", 3: Cancelled.code, 4: "pong"}


async def test_what_happened_before_the_cancel_is_answered_once() -> None:
    """A cancel that crosses the answer changes nothing for the requests behind."""
    daemon = Daemon()
    client = daemon.client
    client.send(request("wait", 1))
    await turns()
    daemon.happens.set()
    client.send(request("$/cancelRequest", id=1))
    await turns()
    client.send(request("$/cancelRequest", id=1), request("wait", 2))
    await turns()
    assert [each["id"] for each in client.answers] == [1, 2]
    assert client.results[2] == "happened"


async def test_a_connection_that_ends_leaves_no_wait() -> None:
    """Its calls are cancelled, those that have not begun too, and the rest of a batch is not carried out."""
    daemon = Daemon()
    client = daemon.client
    client.send(request("wait", 1), [request("wait", 2), request("ping", 3)])
    await turns()
    client.send(request("wait", 4), [request("wait", 5), request("ping", 6)])
    client.connection.connection_lost(None)
    await turns()
    assert (client.tasks, daemon.waiting, daemon.pings, client.is_gone) == (set(), 0, 0, True)


async def test_a_batch_that_comes_to_its_wait_after_the_end_ends_there() -> None:
    """What was to come after something has happened is not done because the client has gone."""
    daemon = Daemon()
    client = daemon.client
    client.send([request("work", 1), request("wait", 2), request("ping", 3)])
    await turns()
    client.connection.connection_lost(None)
    daemon.works.set()
    await turns()
    assert (client.tasks, daemon.waiting, daemon.pings) == (set(), 0, 0)


async def test_a_client_that_has_sent_all_still_gets_its_answers() -> None:
    """The connection is closed once the last wait is answered."""
    daemon = Daemon()
    client = daemon.client
    client.send(request("wait", 1))
    client.connection.eof_received()
    await turns()
    assert (client.answers, client.transport.is_closed) == ([], False)
    daemon.happens.set()
    await turns()
    assert (client.results, client.transport.is_closed) == ({1: "happened"}, True)


async def test_a_client_that_watches_is_sent_how_far_its_call_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`$/progress` has the id of the call, comes when there is something new, and not after the answer."""
    monkeypatch.setattr(connection, "REPORT_SECS", 0.0)
    daemon = Daemon()
    client = daemon.client
    watch = {"jsonrpc": "2.0", "method": WATCH_PROGRESS.name}
    client.send(request("wait", 7), request("wait", "other"), {**watch, "params": {"id": 7.0}})
    await turns()
    assert client.answers == []  # it has reported nothing yet, and "other" is not watched
    daemon.progress.report("of the other", 1, 2)
    (mine,) = [call.progress for call, wait_id in client.connection._waiting.items() if wait_id == 7]
    for done in (3, 3, 4):
        mine.report("things", done, 4)
        await turns()
    steps = [(each["method"], each["params"]["done"]) for each in client.answers]
    assert steps == [("$/progress", 3), ("$/progress", 3), ("$/progress", 4)]
    assert client.answers[-1]["params"] == {"id": 7, "what": "things", "done": 4, "total": 4}
    client.send(
        {**watch, "params": {"id": 7}}, {**watch, "params": {"id": "nobody"}}
    )  # again, and one that is not there
    daemon.happens.set()
    await turns()
    mine.report("things", 5, 5)
    await turns()
    assert [each.get("id") for each in client.answers[3:]] == [7, "other"]


async def test_progress_waits_for_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing piles up behind a client that does not read; once it does, it gets the newest step."""
    monkeypatch.setattr(connection, "REPORT_SECS", 0.0)
    daemon = Daemon()
    client = daemon.client
    client.send(request("wait", 7), request(WATCH_PROGRESS.name, None, id=7))
    await turns()
    client.connection.pause_writing()
    for done in range(5):
        daemon.progress.report("things", done, 9)
        await turns()
    assert client.answers == []
    client.connection.resume_writing()
    await turns()
    assert [each["params"]["done"] for each in client.answers] == [4]


async def test_each_call_of_a_batch_has_its_own_progress() -> None:
    """One that was cancelled does not cancel the next one of its batch."""
    daemon = Daemon()
    daemon.client.send([request("wait", 1), request("wait", 2)])
    await turns()
    first = daemon.progress
    first.cancel()
    daemon.happens.set()
    await turns()
    assert daemon.progress is not first
    assert not daemon.progress.is_cancelled
    assert daemon.client.results == {1: "happened", 2: "happened"}
