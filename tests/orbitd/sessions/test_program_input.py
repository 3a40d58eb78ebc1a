"""Input on its way to a program: when it is answered, in which order it is typed, what a cancel or an end leaves."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from connection_support import Served, request, turns
from orbit_protocol.errors import Busy, Cancelled, NotRunning, OrbitError, ShuttingDown
from orbit_protocol.methods import CANCEL_REQUEST, SESSION_INPUT, SESSION_SEND, SESSION_WAIT
from orbit_protocol.params import CancelRequest, SessionInput, SessionSend, SessionWait
from orbit_protocol.results import Empty, Exit
from orbitd.rpc.connection import MAX_WAITING, Call
from orbitd.rpc.dispatch import Dispatcher, Handlers
from orbitd.sessions.program_input import (
    MAX_UNREAD_ANSWER_BYTES,
    MAX_UNWRITTEN_BYTES,
    InputQueue,
    InputTarget,
    type_in_turn,
    type_input,
)


class Terminal:
    """The terminal of a program that reads when a test says so.

    Attributes:
        typed: What it has taken.
        room: How much more it takes.
    """

    def __init__(self, room: int = 0) -> None:
        self.typed = b""
        self.room = room
        self.unwritten = InputQueue()

    def write_input(self, data: bytes) -> bytes | None:
        if self.unwritten:
            return data
        taken = data[: self.room]
        self._take(taken)
        return None if taken == data else data[len(taken) :]

    def read(self, count: int = 1 << 30) -> None:
        """Take so much more."""
        self.room += count
        taken = bytes(self.unwritten.data[: self.room])
        self._take(taken)
        self.unwritten.take(len(taken))

    def _take(self, data: bytes) -> None:
        self.typed += data
        self.room -= len(data)


class Daemon:
    """Serves clients that type into one terminal.

    Attributes:
        fetched: `session.send` waits for it, as for a terminal that the keeper has.
        happens: What `session.wait` waits for.
    """

    def __init__(self, room: int = 0) -> None:
        self.terminal = Terminal(room)
        self.fetched, self.happens = asyncio.Event(), asyncio.Event()
        self.fetched.set()
        handlers: Handlers[Call] = Handlers()
        handlers.add(SESSION_INPUT, self._input)
        handlers.add(SESSION_SEND, self._send)
        handlers.add(SESSION_WAIT, self._wait)
        handlers.add(CANCEL_REQUEST, self._cancel)
        methods = (SESSION_INPUT, SESSION_SEND, SESSION_WAIT, CANCEL_REQUEST)
        self._dispatcher = Dispatcher(handlers, {each.name: each for each in methods})

    def client(self) -> Served:
        return Served(self._dispatcher)

    def _input(self, call: Call, q: SessionInput) -> Empty | Coroutine[Any, Any, Empty]:
        return type_input(call, self.terminal, q.data)

    def _send(self, call: Call, q: SessionSend) -> Empty | Coroutine[Any, Any, Empty]:
        if self.fetched.is_set():
            return type_input(call, self.terminal, q.data)

        async def find() -> InputTarget:
            await self.fetched.wait()
            return self.terminal

        return type_in_turn(call, find, q.data)

    async def _wait(self, _: Call, __: SessionWait) -> Exit:
        await self.happens.wait()
        return Exit(exit_code=0, exit_signal=None)

    def _cancel(self, call: Call, q: CancelRequest) -> Empty:
        call.connection.cancel_waits(q.id)
        return Empty()


def keys(data: bytes, request_id: Any = None) -> Any:
    return request("session.input", request_id, attachment_id="a", data=base64.b64encode(data).decode())


def sent(data: bytes, request_id: Any = None) -> Any:
    return request("session.send", request_id, id="s", data=base64.b64encode(data).decode())


def written(client: Served, request_id: Any) -> Any:
    """Return the error's kind, and how many bytes it says were taken."""
    [error] = [each["error"] for each in client.answers if each["id"] == request_id]
    return error["data"]["kind"], error["data"]["written"]


# When it is answered


async def test_what_the_terminal_takes_is_answered_at_once() -> None:
    """The answer is there in the turn of the loop that has read the request, and no task was made."""
    daemon = Daemon(room=3)
    client = daemon.client()
    client.send(keys(b"abc", 1))
    assert (client.results, client.tasks, daemon.terminal.typed) == ({1: {}}, set(), b"abc")


async def test_an_answer_means_that_all_was_taken() -> None:
    """A call waits until the last of its bytes is taken; those behind it wait for theirs."""
    daemon = Daemon(room=2)
    client = daemon.client()
    client.send(keys(b"abc", 1), sent(b"de", 2), keys(b"", 3))
    await turns()
    assert (client.results, daemon.terminal.typed) == ({}, b"ab")
    daemon.terminal.read(1)
    await turns()
    assert client.results == {1: {}}
    daemon.terminal.read(1)
    await turns()
    assert client.results == {1: {}}
    daemon.terminal.read(1)
    await turns()
    assert (client.results, daemon.terminal.typed) == ({1: {}, 2: {}, 3: {}}, b"abcde")
    assert client.tasks == set()


async def test_nothing_waits_behind_a_program_that_does_not_read() -> None:
    """Other requests are answered while as many calls wait as may; one more is refused, and nothing of it typed."""
    daemon = Daemon()
    client = daemon.client()
    client.send(*(keys(b"%03d" % number, number) for number in range(MAX_WAITING)))
    await turns(3 * MAX_WAITING)
    client.send(keys(b"too many", "x"), keys(b"notified"), request("$/cancelRequest", "c", id="no"))
    await turns()
    assert (written(client, "x"), client.results["c"]) == (("busy", 0), {})
    daemon.terminal.read()
    await turns(3 * MAX_WAITING)
    assert len(client.results) == 2 + MAX_WAITING
    assert daemon.terminal.typed == b"".join(b"%03d" % number for number in range(MAX_WAITING)) + b"notified"


async def test_a_wait_too_many_says_what_was_taken() -> None:
    """Where the terminal takes a part of a call that may not wait, the rest is not typed."""
    daemon = Daemon()
    client = daemon.client()
    client.send(*(request("session.wait", number, id="s") for number in range(MAX_WAITING)))
    await turns(3 * MAX_WAITING)
    daemon.terminal.read(2)
    client.send(keys(b"abcde", "x"))
    await turns()
    daemon.terminal.read()
    assert (written(client, "x"), daemon.terminal.typed) == (("busy", 2), b"ab")


async def test_beyond_a_mebibyte_input_is_refused_at_once() -> None:
    """What is refused is not typed, what was accepted is, and the connection is read on."""
    daemon = Daemon()
    client = daemon.client()
    queue = daemon.terminal.unwritten
    queue.add(b"x" * (MAX_UNWRITTEN_BYTES - 2))
    client.send(keys(b"abc", 1), keys(b"abc"), keys(b"ab", 2), keys(b"a", 3), keys(b"", 4))
    await turns()
    assert (written(client, 1), written(client, 3), client.transport.is_reading) == (("busy", 0), ("busy", 0), True)
    assert set(client.results) == {1, 3}
    daemon.terminal.read()
    await turns()
    assert daemon.terminal.typed[-4:] == b"xxab"
    assert (client.results[2], client.results[4]) == ({}, {})


def test_answers_that_were_read_count_no_more() -> None:
    """A program that reads slowly gets every answer, though something is always queued."""
    queue = InputQueue()
    queue.add(b"x")
    for _ in range(3):
        assert queue.takes_answer(MAX_UNREAD_ANSWER_BYTES)
        queue.add_answer(b"!" * (MAX_UNREAD_ANSWER_BYTES - 1))
        queue.add_answer(b"!")
        queue.add(b"x")
        assert not queue.takes_answer(1)
        queue.take(3)
        assert queue.takes_answer(2)
        assert not queue.takes_answer(3)
        queue.take(MAX_UNREAD_ANSWER_BYTES - 2)
        assert bytes(queue.data) == b"x"


def test_answers_that_were_read_leave_no_room_for_input() -> None:
    """Only answers that are still queued do not count as typed."""
    queue = InputQueue()
    queue.add_answer(b"!" * 1000)
    queue.add(b"x" * MAX_UNWRITTEN_BYTES)
    with pytest.raises(Busy):
        queue.add(b"x")
    queue.take(1000)
    with pytest.raises(Busy):
        queue.add(b"x")
    queue.take(1)
    queue.add(b"x")


async def test_answers_behind_input_that_is_cancelled_are_counted() -> None:
    """They move up when it is removed, those before it do not, and each counts until it is read."""
    queue = InputQueue()
    queue.add_answer(b"!" * 10)
    call = queue.add_call(b"abc", 0)
    queue.add_answer(b"?" * 20)
    queue.add(b"d")
    queue.withdraw(call)
    for count, left in ((10, 20), (5, 15), (15, 0)):
        queue.take(count)
        assert queue.takes_answer(MAX_UNREAD_ANSWER_BYTES - left)
        assert not queue.takes_answer(MAX_UNREAD_ANSWER_BYTES - left + 1)
    assert bytes(queue.data) == b"d"


# In which order it is typed


async def test_input_is_typed_in_the_order_in_which_it_was_sent() -> None:
    """However it is sent: by either method, as notifications, in batches, pipelined, with waits between."""
    daemon = Daemon()
    client = daemon.client()
    client.send(
        keys(b"a", 1),
        sent(b"b"),
        [sent(b"c", 3), keys(b"d"), keys(b"e", 5)],
        request("session.wait", 6, id="s"),
        sent(b"f", 7),
        keys(b"g"),
        [keys(b"h")],
        keys(b"i", 9),
    )
    await turns()
    for _ in range(9):
        daemon.terminal.read(1)
        await turns()
    assert daemon.terminal.typed == b"abcdefghi"
    assert sorted(client.results) == [1, 3, 5, 7, 9]


async def test_input_waits_for_input_of_a_batch_before_it() -> None:
    """A batch that waits holds the input behind it while it has input of its own to type, and holds nothing else."""
    daemon = Daemon(room=100)
    client, other = daemon.client(), daemon.client()
    client.send([keys(b"a"), request("session.wait", 1, id="s"), keys(b"b"), request("session.wait", 2, id="s")])
    client.send(keys(b"c", 3), keys(b"d"), request("$/cancelRequest", 4, id="no"))
    await turns()
    other.send(keys(b"o", 1))
    assert (daemon.terminal.typed, client.results, other.results) == (b"ao", {4: {}}, {1: {}})
    client.send(request("$/cancelRequest", id=1))
    await turns()
    assert (daemon.terminal.typed, client.results) == (b"aobcd", {3: {}, 4: {}})
    daemon.happens.set()
    await turns()
    assert client.results == {1: Cancelled.code, 2: {"exit_code": 0, "exit_signal": None}, 3: {}, 4: {}}


async def test_input_behind_a_batch_can_be_cancelled() -> None:
    """Nothing of it is typed then, and what is behind it is."""
    daemon = Daemon(room=100)
    client = daemon.client()
    client.send([request("session.wait", 1, id="s"), keys(b"a", 2)], keys(b"b", 3), keys(b"c", 4))
    await turns()
    client.send(request("$/cancelRequest", id=3))
    await turns()
    assert (client.results, written(client, 3)) == ({3: Cancelled.code}, ("cancelled", 0))
    daemon.happens.set()
    await turns()
    assert daemon.terminal.typed == b"ac"


@pytest.mark.parametrize("bad", [b"[", b"{}", b'{"jsonrpc": "2.0", "method": "session.send", "params": {}, "id": 9}'])
async def test_a_batch_whose_input_fails_holds_nothing(bad: bytes) -> None:
    """Input that is refused before it could be typed is as good as typed for the input behind it."""
    daemon = Daemon(room=100)
    client = daemon.client()
    line = b'[{"jsonrpc": "2.0", "method": "session.send", "params": {"id": "s"}, "id": 1}, '
    wait = b'{"jsonrpc": "2.0", "method": "session.wait", "params": {"id": "s"}, "id": 2}]\n'
    client.connection.data_received(line + (bad if bad != b"[" else b"1") + b", " + wait)
    client.send(keys(b"a", 3))
    await turns()
    assert (daemon.terminal.typed, client.results) == (b"a", {3: {}})


async def test_input_waits_for_a_terminal_that_is_fetched() -> None:
    """Keys that come once it is there do not overtake a `session.send` that waited for it."""
    daemon = Daemon(room=100)
    client = daemon.client()
    daemon.fetched.clear()
    client.send(sent(b"a", 1), sent(b"b"))
    await turns()
    client.send(keys(b"c", 3), [sent(b"d", 4)])
    await turns()
    assert daemon.terminal.typed == b""
    daemon.fetched.set()
    client.send(keys(b"e", 5))  # in the turn in which it has come, before the first goes on
    await turns()
    assert (daemon.terminal.typed, sorted(client.results)) == (b"abcde", [1, 3, 4, 5])


@pytest.mark.parametrize("seed", range(20))
async def test_any_mix_keeps_its_order(seed: int) -> None:
    """Random requests and batches, read at random by both ends: what arrives is what was sent, in order."""
    rng = random.Random(seed)
    daemon = Daemon()
    client = daemon.client()
    expected, number = b"", 0
    for _ in range(60):
        line: list[Any] = []
        for _ in range(rng.choice([1, 1, 1, 3])):
            number += 1
            data = b"%d," % number
            if rng.random() < 0.15:
                line.append(request("session.wait", f"w{number}", id="s"))
                continue
            expected += data
            line.append(rng.choice([keys, sent])(data, rng.choice([None, number])))
        client.send(line if len(line) > 1 else line[0])
        if rng.random() < 0.1:
            daemon.fetched.clear()
        if rng.random() < 0.2:
            rng.choice([client.connection.pause_writing, client.connection.resume_writing])()
        if rng.random() < 0.4:
            daemon.terminal.read(rng.randrange(8))
            await turns(rng.randrange(3))
        if rng.random() < 0.2:
            daemon.fetched.set()
    client.connection.resume_writing()
    daemon.fetched.set()
    daemon.happens.set()
    daemon.terminal.read()
    while client.tasks:
        await asyncio.gather(*client.tasks)
        await turns()  # of those that were done already, gather waits for nothing
    assert daemon.terminal.typed == expected


async def test_input_overtakes_what_is_held_back() -> None:
    """A client that does not read can type, in batches too; behind a batch that is held back its input waits."""
    daemon = Daemon(room=100)
    client = daemon.client()
    client.connection.pause_writing()
    client.send(request("session.wait", 1, id="s"), keys(b"a"), [keys(b"b"), sent(b"c", 2)], sent(b"d"))
    client.send([keys(b"e"), request("session.wait", 3, id="s")], keys(b"f", 4))
    await turns()
    assert (daemon.terminal.typed, client.results) == (b"abcd", {2: {}})
    client.connection.resume_writing()
    await turns()
    assert (daemon.terminal.typed, client.results) == (b"abcdef", {2: {}, 4: {}})


# When it is not taken


async def test_a_cancelled_call_says_how_much_was_taken() -> None:
    """The rest of it is not typed, also from the middle of what waits, and those around it are."""
    daemon = Daemon(room=1)
    client = daemon.client()
    client.send(keys(b"abc", 1), keys(b"def", 2), keys(b"ghi", 3))
    await turns()
    client.send(request("$/cancelRequest", id=2))
    await turns()
    daemon.terminal.read(1)
    client.send(request("$/cancelRequest", id=1))
    await turns()
    assert (written(client, 1), written(client, 2)) == (("cancelled", 2), ("cancelled", 0))
    assert [each["error"]["data"]["ahead"] for each in client.answers] == [2, 0]
    daemon.terminal.read(2)
    await turns()
    assert 3 not in client.results
    daemon.terminal.read(1)
    await turns()
    assert (client.results[3], daemon.terminal.typed) == ({}, b"abghi")


async def test_a_cancel_that_comes_too_late_changes_nothing() -> None:
    """Input that was taken is answered as such, even if its cancel is read before it is answered."""
    daemon = Daemon()
    client = daemon.client()
    client.send(keys(b"a", 1), keys(b"b", 2))
    await turns()
    daemon.terminal.read(1)
    client.send(request("$/cancelRequest", id=1))
    client.send(request("$/cancelRequest", id=2))
    daemon.terminal.read(1)
    await turns()
    assert (client.results[1], daemon.terminal.typed) == ({}, b"ab")
    assert 2 in client.results


@pytest.mark.parametrize("error", [NotRunning, ShuttingDown])
async def test_an_end_says_how_much_was_taken(error: type[OrbitError]) -> None:
    """Every call that waits is answered, and none of it is typed later."""
    daemon = Daemon(room=4)
    client = daemon.client()
    client.send(keys(b"abc", 1), keys(b"def", 2), keys(b"ghi", 3))
    await turns()
    daemon.terminal.unwritten.fail_calls(lambda count: error("ended", data={"written": count}))
    await turns()
    assert client.results == {1: {}, 2: error.code, 3: error.code}
    assert (written(client, 2)[1], written(client, 3)[1]) == (1, 0)
    daemon.terminal.read()
    assert daemon.terminal.typed == b"abcd"


async def test_nothing_waits_for_a_daemon_that_stops() -> None:
    """A call that would have to wait is answered at once, with what was taken of it."""
    daemon = Daemon(room=4)
    client = daemon.client()
    daemon.terminal.unwritten.refuse_calls(lambda count: ShuttingDown("stops", data={"written": count}))
    client.send(keys(b"abc", 1), keys(b"def", 2), keys(b"ghi", 3))
    await turns()
    assert client.results == {1: {}, 2: ShuttingDown.code, 3: ShuttingDown.code}
    assert (written(client, 2)[1], written(client, 3)[1]) == (1, 0)


async def test_what_a_client_has_sent_is_typed_after_it_has_gone() -> None:
    """In its place: before what others sent after it; and no task waits for it."""
    daemon = Daemon()
    client, other = daemon.client(), daemon.client()
    client.send(keys(b"a", 1), keys(b"b"))
    await turns()
    other.send(keys(b"c", 1))
    await turns()
    client.connection.connection_lost(None)
    await turns()
    assert client.tasks == set()
    daemon.terminal.read()
    await turns()
    assert (daemon.terminal.typed, other.results) == (b"abc", {1: {}})


async def test_a_call_that_was_cancelled_by_an_end_is_forgotten() -> None:
    """What fails the calls that wait finds only those that still do."""
    daemon = Daemon()
    client = daemon.client()
    client.send(keys(b"a", 1))
    await turns()
    client.connection.connection_lost(None)
    await turns()
    daemon.terminal.unwritten.fail_calls(lambda count: NotRunning("ended", data={"written": count}))
    assert bytes(daemon.terminal.unwritten.data) == b"a"
