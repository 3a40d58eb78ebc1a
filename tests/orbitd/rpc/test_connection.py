"""A connection with a scripted transport and server: which request starts when, and what is written."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec import UNSET

from connection_support import Transport
from orbit_protocol.framing import LineFramer
from orbitd.rpc.connection import (
    MAX_AT_ONCE,
    MAX_HELD,
    MAX_IN_FLIGHT,
    MAX_UNSENT_BYTES,
    MAX_URGENT,
    MAX_URGENT_BYTES,
    MAX_URGENT_UNSENT_BYTES,
    Call,
    Connection,
)
from orbitd.rpc.dispatch import Dispatcher, Handlers
from orbitd.rpc.server import Server
from orbitd.rpc.sockets import listen
from support import WAIT_SECS


class Repainted:
    """An attachment that is sent a repaint when its client has read everything."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def handle_drained(self) -> None:
        self.connection.send(b"repaint")

    def end(self) -> None:
        del self.connection.attachments["one"]


class Host:
    """Answers a line with itself: at once, or, if it begins with `later`, when its event is set.

    What `answers` has for a line is its answer; `callbacks` are called after each answer.
    """

    max_message_bytes = 1 << 20
    stopping = False

    def __init__(self) -> None:
        self.started: list[bytes] = []
        self.go_on = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.answers: dict[bytes, bytes] = {}
        self.callbacks: list[Callable[[], None]] = []

    def dispatch(self, line: bytes, call: Call) -> bytes | Coroutine[Any, Any, bytes | None] | None:
        if line.startswith(b"later"):
            return self._later(line)
        self.started.append(line)
        for callback in self.callbacks:
            call.after_answer(callback, undo=callback)
        call.settle(succeeded=b"error" not in line)
        return self.answers.get(line, line)

    async def _later(self, line: bytes) -> bytes:
        self.started.append(line)
        await self.go_on.wait()
        return self.answers.get(line, line)

    def is_urgent(self, line: bytes) -> bool:
        return line.startswith(b"key")

    def wait_id(self, _: bytes) -> Any:
        return UNSET

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def connection_closed(self, connection: Connection) -> None:
        self.closed = connection

    def promote(self) -> None:
        """Nothing is kept back."""


def connect() -> tuple[Connection, Host, Transport]:
    host, transport = Host(), Transport()
    connection = Connection(host)
    connection.connection_made(transport)  # type: ignore[arg-type]  # as much of one as is used
    return connection, host, transport


async def turn() -> None:
    """Let everything run that is ready now, once."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


async def test_a_request_that_never_waits_is_answered_at_once() -> None:
    """Its answer is written before `data_received` returns, and no task is made."""
    connection, host, transport = connect()
    connection.data_received(b"a\nb\n")
    assert transport.written == [b"a\n", b"b\n"]
    assert host.tasks == set()


async def test_requests_start_in_the_order_of_their_lines() -> None:
    """One that never waits does not overtake one before it that does: keys that are sent both ways keep their order."""
    connection, host, transport = connect()
    connection.data_received(b"later 1\na\nlater 2\nb\n")
    assert host.started == []
    await turn()
    assert host.started == [b"later 1", b"a", b"later 2", b"b"]
    assert transport.written == [b"a\n", b"b\n"]
    connection.data_received(b"c\n")  # everything before it has started
    assert transport.written == [b"a\n", b"b\n", b"c\n"]
    host.go_on.set()
    await asyncio.gather(*host.tasks)
    assert sorted(transport.written[3:]) == [b"later 1\n", b"later 2\n"]


async def test_one_turn_of_the_loop_has_a_bound() -> None:
    """Thousands of requests are answered a bounded number a turn, however many waiting ones end meanwhile."""
    connection, host, transport = connect()
    waiting = MAX_IN_FLIGHT - 1
    connection.data_received(b"".join(b"later %d\n" % number for number in range(waiting)))
    await turn()
    connection.data_received(b"a\n" * 10 * MAX_AT_ONCE)
    assert (len(transport.written), transport.is_reading) == (MAX_AT_ONCE, False)
    host.go_on.set()  # the ends of all these tasks look for more to start
    counts = [len(transport.written)]
    while len(transport.written) < 10 * MAX_AT_ONCE + waiting:
        await turn()
        counts.append(len(transport.written))
    steps = [after - before for before, after in itertools.pairwise(counts)]
    assert max(steps) <= 2 * MAX_AT_ONCE + waiting  # `turn` takes two: its callback, and the step of this task
    assert transport.is_reading


async def test_at_most_so_many_are_in_flight() -> None:
    """Beyond the limit some are held, then reading pauses; each end starts the next one."""
    connection, host, transport = connect()
    count = MAX_IN_FLIGHT + MAX_HELD + 3
    connection.data_received(b"".join(b"later %d\n" % number for number in range(MAX_IN_FLIGHT + 3)))
    await turn()
    assert (len(host.started), transport.is_reading) == (MAX_IN_FLIGHT, True)
    connection.data_received(b"".join(b"later %d\n" % number for number in range(MAX_IN_FLIGHT + 3, count)))
    assert (len(host.started), transport.is_reading) == (MAX_IN_FLIGHT, False)
    host.go_on.set()
    while host.tasks:
        await asyncio.gather(*host.tasks)
    assert host.started == [b"later %d" % number for number in range(count)]
    assert len(transport.written) == count
    assert transport.is_reading


async def test_a_client_that_was_behind_is_repainted_before_it_is_answered() -> None:
    """What waits for a drained buffer is sent first, then the queued requests go on."""
    connection, _, transport = connect()
    connection.attachments["one"] = Repainted(connection)
    connection.pause_writing()
    connection.data_received(b"a\n")
    assert transport.written == []
    connection.resume_writing()
    assert transport.written == [b"repaint\n", b"a\n"]


class Drained:
    """An attachment that counts how often its client had read everything."""

    def __init__(self) -> None:
        self.count = 0
        self.drained = asyncio.Event()

    def handle_drained(self) -> None:
        self.count += 1
        self.drained.set()

    def end(self) -> None:
        pass


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_waits_for_the_kernel_is_heard_of_when_it_is_sent(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Once asked, it is told when all is sent; requests are held back only beyond the limit, asked or not."""

    async def ask() -> None:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, connection = await loop.connect_accepted_socket(lambda: Connection(Host()), ours)
        attachment = connection.attachments["one"] = Drained()
        theirs.setblocking(False)
        sent = 0
        for asked in (True, True, False):
            for size, is_congested in ((600_000, False), (MAX_UNSENT_BYTES, True)):
                connection.send(b"x" * size)
                sent += size + 1
                await asyncio.sleep(0)
                assert not asked or not connection.has_sent_all()
                assert connection.is_congested == is_congested
            while sent:
                sent -= len(await loop.sock_recv(theirs, 1 << 20))
            async with asyncio.timeout(WAIT_SECS):
                await attachment.drained.wait()
            attachment.drained.clear()
            assert (connection.has_sent_all(), connection.is_congested) == (True, False)
        assert attachment.count == 3
        connection.send(b"small")
        await asyncio.sleep(0.0)
        assert connection.has_sent_all()
        theirs.close()
        connection.abort()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(ask())


async def test_the_end_of_the_stream_closes_when_all_is_answered() -> None:
    """A client may shut down its sending side and still gets its answers."""
    connection, host, transport = connect()
    connection.data_received(b"later\nlast")
    await turn()
    assert connection.eof_received()
    await turn()
    assert (transport.written, transport.is_closed) == ([b"last\n"], False)
    host.go_on.set()
    await asyncio.gather(*host.tasks)
    assert (transport.written, transport.is_closed) == ([b"last\n", b"later\n"], True)


@pytest.mark.parametrize("word", [b"", b"later "])
async def test_an_answer_that_cannot_be_framed_is_an_error_instead(word: bytes) -> None:
    """A newline in an answer would be two messages: the request is answered with an internal error under its id."""
    connection, host, transport = connect()
    line = word + b'{"jsonrpc":"2.0","method":"m","id":7}'
    host.answers = {line: b'{"result":\n{}}'}
    host.go_on.set()
    connection.data_received(line + b"\nb\n")
    await asyncio.gather(*host.tasks)
    answers = [json.loads(one) for one in transport.written if one != b"b\n"]
    expected = None if word else 7  # a line that is not JSON has no id that could be read
    assert [(one["id"], one["error"]["code"]) for one in answers] == [(expected, -32603)]
    assert b"b\n" in transport.written
    assert not transport.is_closed


async def test_a_callback_that_fails_stops_nothing() -> None:
    """What follows an answer, or undoes a request, may fail: the other callbacks and the next request are served."""
    connection, host, transport = connect()
    called: list[int] = []
    host.callbacks = [lambda: called.append(1), lambda: called.append(1 // 0), lambda: called.append(2)]
    connection.data_received(b"a\nerror\n")
    assert (transport.written, called) == ([b"a\n", b"error\n"], [1, 2, 1, 2])


# A client that does not read, or has too much in flight


@pytest.mark.parametrize("why", ["congested", "in flight"])
async def test_urgent_requests_overtake_those_that_are_held_back(why: str) -> None:
    """Input, resizes and the like are carried out at once, in their order; the others wait, in theirs."""
    connection, host, transport = connect()
    if why == "congested":
        connection.pause_writing()
    else:
        connection.data_received(b"".join(b"later %d\n" % number for number in range(MAX_IN_FLIGHT)))
        await turn()
        host.started.clear()
    connection.data_received(b"a\nkey 1\nb\nkey 2\n")
    assert (host.started, transport.is_reading) == ([b"key 1", b"key 2"], True)
    assert transport.written == [b"key 1\n", b"key 2\n"]
    connection.resume_writing()
    host.go_on.set()
    await asyncio.gather(*host.tasks)
    assert host.started == [b"key 1", b"key 2", b"a", b"b"]


async def test_urgent_requests_overtake_no_batch() -> None:
    """A batch may hold input: what is urgent behind one waits with it, and so does what comes behind that."""
    connection, host, _ = connect()
    connection.pause_writing()
    connection.data_received(b"key 1\n [batch]\nkey 2\na\nkey 3\n")
    assert host.started == [b"key 1"]
    connection.resume_writing()
    assert host.started == [b"key 1", b" [batch]", b"key 2", b"a", b"key 3"]


async def test_urgent_requests_do_not_overtake_each_other() -> None:
    """One that waits behind a batch is overtaken by none that comes once the batch has started."""
    connection, host, _ = connect()
    connection.data_received(b"".join(b"later %d\n" % number for number in range(MAX_IN_FLIGHT)))
    await turn()
    connection.pause_writing()
    host.started.clear()
    connection.data_received(b"[later]\nkey 1\n")
    connection.data_received(b"key 2\n")
    assert host.started == []
    connection.resume_writing()  # all places are taken: the batch is still held
    connection.data_received(b"key 3\n")
    assert host.started == []
    host.go_on.set()
    await asyncio.gather(*host.tasks)
    assert host.started == [b"[later]", b"key 1", b"key 2", b"key 3"]


async def test_a_line_that_is_too_long_to_be_searched_is_overtaken_by_none() -> None:
    """Whether it is input is not known while it is held."""
    connection, host, _ = connect()
    host.max_message_bytes = 2 * MAX_URGENT_BYTES
    connection._framer = LineFramer(host.max_message_bytes)
    connection.pause_writing()
    connection.data_received(b"key" + b"x" * MAX_URGENT_BYTES + b"\nkey 2\n")
    assert host.started == []
    connection.resume_writing()
    assert [len(line) > MAX_URGENT_BYTES for line in host.started] == [True, False]


async def test_what_a_client_that_does_not_read_may_cost_is_bounded() -> None:
    """So many bytes of answers to urgent requests, so many requests held: then nothing more is read."""
    connection, _, transport = connect()
    connection.pause_writing()
    key = b"key" + b"x" * 1000 + b"\n"
    count = MAX_URGENT_UNSENT_BYTES // len(key) + 1
    for _ in range(count):
        connection.data_received(key)
    assert (len(transport.written), transport.is_reading) == (count, True)
    connection.data_received(key)
    assert (len(transport.written), transport.is_reading) == (count, False)
    connection.resume_writing()
    assert (len(transport.written), transport.is_reading) == (count + 1, True)
    connection.pause_writing()
    connection.data_received(b"a\n" * MAX_HELD + key)
    for _ in range(2 * MAX_HELD // MAX_AT_ONCE):
        await turn()
    assert (len(transport.written), transport.is_reading) == (count + 2, False)
    connection.data_received(b"a\n" + key)
    assert len(transport.written) == count + 2
    connection.resume_writing()
    for _ in range(2 * MAX_HELD // MAX_AT_ONCE):
        await turn()
    assert (len(transport.written), transport.is_reading) == (count + 4 + MAX_HELD, True)


async def test_long_requests_are_held_up_to_one_message_s_limit() -> None:
    """Beyond that, what a client has sent stays in the queue, and nothing more is read."""
    connection, host, transport = connect()
    connection.pause_writing()
    half = b"x" * (host.max_message_bytes // 2) + b"\n"
    connection.data_received(half + half)
    assert transport.is_reading
    connection.data_received(b"a\n")
    assert not transport.is_reading
    connection.resume_writing()
    assert (len(host.started), transport.is_reading) == (3, True)


async def test_so_many_urgent_requests_are_in_flight_beyond_the_others() -> None:
    """Those of them that take a while have places of their own, and no more than that."""
    connection, host, transport = connect()
    host.is_urgent = lambda line: b"key" in line  # type: ignore[method-assign]
    connection.data_received(b"later\n" * MAX_IN_FLIGHT)
    await turn()
    host.started.clear()
    connection.data_received(b"later key\n" * (MAX_URGENT + 1))
    await turn()
    assert (len(host.started), transport.is_reading) == (MAX_URGENT, False)
    host.go_on.set()
    while host.tasks:
        await asyncio.gather(*host.tasks)
    assert (len(host.started), transport.is_reading) == (MAX_URGENT + 1, True)


@pytest.mark.parametrize("asked", ["orbitd.rpc.server.peer_uid", "orbitd.rpc.connection.peer_pid"])
async def test_a_peer_that_is_gone_keeps_nobody_out(home: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """A peer that macOS does not know any more, since it has closed its end, is dropped; the next one is served."""
    answers: list[int | OSError] = [OSError(errno.ENOTCONN, "not connected"), os.getuid()]

    def ask(_socket: socket.socket) -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(asked, ask)
    server = Server(Dispatcher(Handlers(), {}), max_connections=4, max_message_bytes=1 << 20)
    server.serve(listen(str(home / "s")))
    async with asyncio.timeout(WAIT_SECS):
        for expected in (b"", b'{"jsonrpc"'):
            reader, writer = await asyncio.open_unix_connection(str(home / "s"))
            with contextlib.suppress(ConnectionError):
                writer.write(b'{"jsonrpc":"2.0","id":1,"method":"none"}\n')
                assert (await reader.readline()).startswith(expected)
            writer.close()
        await server.stop(0)
    assert answers == []
