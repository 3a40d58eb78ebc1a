"""The server's connections: how many there are, which are kept back, and what those serve."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from orbit_protocol.methods import METHODS
from orbitd.rpc.connection import Call, Connection, PeerProcess
from orbitd.rpc.dispatch import Dispatcher, Handlers
from orbitd.rpc.server import RESERVE_IDLE_SECS, RESERVED_CONNECTIONS, Server, least_needed
from orbitd.rpc.sockets import listen

BUSY = -32000
LIMIT = 2
RESERVED = {
    "daemon.ping",
    "daemon.info",
    "daemon.connections",
    "daemon.shutdown",
    "maintenance.check",
    "session.list",
    "session.terminate",
}
PARAMS = {
    "$/watchProgress": {"id": 1},
    "$/cancelRequest": {"id": 1},
    "session.terminate": {"id": "x"},
    "session.get": {"id": "x"},
    "session.create": {"config": {}},
}


class Client:
    """A client of the server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, method: str) -> Any:
        self.writer.write(line(method))
        return json.loads(await self.reader.readline())

    async def leave(self) -> None:
        """Disconnect, and wait until the server has seen it."""
        self.writer.write_eof()
        assert await self.reader.read() == b""


def line(method: str) -> bytes:
    params = PARAMS.get(method, {})
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode() + b"\n"


class Served:
    """A server and its clients."""

    def __init__(self, server: Server, path: str) -> None:
        self.server, self.path = server, path
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_unix_connection(self.path)))
        return self.clients[-1]

    async def fill(self, count: int) -> list[Client]:
        """Connect clients that send nothing; they are accepted before any client that connects later."""
        return [await self.connect() for _ in range(count)]

    async def refused(self) -> None:
        """Connect a client for which there is no place, and wait until it is told."""
        client = await self.connect()
        error = json.loads(await client.reader.readline())["error"]
        assert (error["code"], error["data"]["retryable"]) == (BUSY, True)
        assert await client.reader.readline() == b""

    def let_idle(self, secs: float) -> None:
        """Let each connection have been idle for so long."""
        for connection in self.server.connections:
            connection.last_request_at -= secs


def served_methods() -> Handlers[Call]:
    handlers: Handlers[Call] = Handlers()
    for method in METHODS.values():
        handlers.add(method, lambda _, __: {"served": True})
    return handlers


@contextlib.asynccontextmanager
async def serving(
    handlers: Handlers[Call] | None = None, wrap: type[socket.socket] | None = None
) -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Dispatcher(handlers or served_methods()), max_connections=LIMIT, max_message_bytes=1 << 20)
        listener = listen(f"{folder}/s")
        if wrap is not None:
            listener = dataclasses.replace(listener, socket=wrap(fileno=listener.socket.detach()))
            listener.socket.setblocking(False)
        server.serve(listener)
        served = Served(server, f"{folder}/s")
        try:
            yield served
        finally:
            await server.stop(0)
            for client in served.clients:
                client.writer.close()


async def test_the_reserve_serves_what_can_put_it_right() -> None:
    """When all connections are used, three more serve some methods, and refuse the others by name of those."""
    async with serving() as served:
        await served.fill(LIMIT)
        last = await served.connect()
        answers = {method: await last.ask(method) for method in METHODS if not method.startswith("$")}
        refused = {method for method, answer in answers.items() if answer.get("error", {}).get("code") == BUSY}
        assert answers.keys() - refused - {"session.create"} >= RESERVED
        assert not refused & RESERVED
        hint = answers["session.get"]["error"]["data"]["hint"]
        assert "daemon.connections" in hint
        assert all(method in hint for method in RESERVED)
        served_there = {method for method, answer in answers.items() if answer.get("result") == {"served": True}}
        assert served_there == RESERVED
        for method in ("$/watchProgress", "$/cancelRequest"):  # of a check, which may take long
            assert (await last.ask(method))["result"] == {"served": True}
            assert method not in hint


async def test_items_of_a_batch_are_refused_one_by_one() -> None:
    """A batch on a connection of the reserve has an answer for each item."""
    async with serving() as served:
        await served.fill(LIMIT)
        last = await served.connect()
        last.writer.write(b"[" + line("daemon.ping").strip() + b"," + line("stats.get").strip() + b"]\n")
        first, second = json.loads(await last.reader.readline())
        assert (first["result"], second["error"]["code"]) == ({"served": True}, BUSY)


async def test_one_beyond_the_reserve_is_told_so_and_closed() -> None:
    """The last rejection is the busy error, and nothing of a client is read."""
    async with serving() as served:
        await served.fill(LIMIT + RESERVED_CONNECTIONS)
        await served.refused()


@pytest.mark.parametrize("sent", [b"", b'{"jsonrpc": "2.0", "method": "dae', 20_000 * line("daemon.ping")])
async def test_one_that_idles_in_the_reserve_makes_room(sent: bytes) -> None:
    """Clients that send nothing, half a line, or read no answers do not keep the reserve for ever."""
    async with serving() as served:
        for client in await served.fill(LIMIT + RESERVED_CONNECTIONS):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(sent)
        await served.refused()
        for _ in range(2 * RESERVED_CONNECTIONS):
            answer: dict[str, Any] = {}
            while "result" not in answer:  # requests that were sent at the beginning may be read only now
                served.let_idle(RESERVE_IDLE_SECS)
                with contextlib.suppress(OSError):
                    answer = await (await served.connect()).ask("daemon.ping")
            assert sum(each.in_reserve for each in served.server.connections) <= RESERVED_CONNECTIONS + 1


async def test_who_waits_for_an_answer_is_not_closed() -> None:
    """A check that takes long keeps its connection, however long ago it was asked for."""
    handlers = served_methods()
    begun: asyncio.Queue[None] = asyncio.Queue()
    over = asyncio.Event()

    async def check() -> dict[str, bool]:
        begun.put_nowait(None)
        await over.wait()
        return {"ok": True}

    handlers.add(METHODS["maintenance.check"], lambda _, __: check())
    async with serving(handlers) as served:
        checking = (await served.fill(LIMIT + RESERVED_CONNECTIONS))[LIMIT:]
        for client in checking:
            client.writer.write(line("maintenance.check"))
            await begun.get()
        served.let_idle(100 * RESERVE_IDLE_SECS)
        await served.refused()
        over.set()
        answers = [json.loads(await client.reader.readline()) for client in checking]
        assert [answer["result"] for answer in answers] == RESERVED_CONNECTIONS * [{"ok": True}]


async def test_the_reserve_moves_up_when_there_is_room() -> None:
    """When one of the others leaves, the oldest connection of the reserve serves everything."""
    async with serving() as served:
        first, _, waiting, next_one = await served.fill(LIMIT + 2)
        assert (await waiting.ask("stats.get"))["error"]["code"] == BUSY
        await first.leave()
        assert (await waiting.ask("stats.get"))["result"] == {"served": True}
        assert (await next_one.ask("stats.get"))["error"]["code"] == BUSY


async def test_the_reserve_moves_up_when_there_are_descriptors_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session has ended, and no client has left: all of the reserve serve everything from their next request on."""
    scarce = True
    monkeypatch.setattr("orbitd.rpc.server.is_for_repair", lambda _: scarce)
    async with serving() as served:
        clients = await served.fill(LIMIT)
        for client in clients:
            assert (await client.ask("stats.get"))["error"]["code"] == BUSY
        scarce = False
        assert (await clients[1].ask("stats.get"))["result"] == {"served": True}
        assert not any(each.in_reserve for each in served.server.connections)


async def test_a_new_client_finds_the_reserve_free_when_there_are_descriptors_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those before it, which say nothing, are no longer counted in the reserve."""
    scarce = True
    monkeypatch.setattr("orbitd.rpc.server.is_for_repair", lambda _: scarce)
    monkeypatch.setattr("orbitd.rpc.server.RESERVE_IDLE_SECS", float("inf"))
    async with serving() as served:
        silent = await served.fill(RESERVED_CONNECTIONS)
        assert (await silent[-1].ask("stats.get"))["error"]["code"] == BUSY
        scarce = False
        late = await served.connect()
        assert (await late.ask("daemon.ping"))["result"] == {"served": True}
        assert [each.in_reserve for each in served.server.connections] == [False, False, True, True]


async def test_who_asks_all_the_time_does_not_own_the_reserve() -> None:
    """The oldest makes room for a new client, and is told so."""
    async with serving() as served:
        busy = (await served.fill(LIMIT + RESERVED_CONNECTIONS))[LIMIT:]
        for client in busy:
            assert (await client.ask("daemon.ping"))["result"] == {"served": True}
        for connection in served.server.connections:
            connection.made_at -= RESERVE_IDLE_SECS
            connection.last_request_at += RESERVE_IDLE_SECS
        assert (await (await served.connect()).ask("daemon.ping"))["result"] == {"served": True}
        assert json.loads(await busy[0].reader.readline())["error"]["code"] == BUSY
        assert await busy[0].reader.read() == b""
        assert (await busy[1].ask("daemon.ping"))["result"] == {"served": True}


async def test_a_process_with_many_connections_makes_room_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one has taken all connections and the reserve in the same moment, the next client is served all the same.

    The newcomer's own place is not taken by another connection of that process.
    """
    pids = iter([7] * (LIMIT + RESERVED_CONNECTIONS) + [8, 7])
    monkeypatch.setattr(PeerProcess, "of", lambda _accepted: PeerProcess(pid=next(pids), connected_at=0.0))
    async with serving() as served:
        crowd = (await served.fill(LIMIT + RESERVED_CONNECTIONS))[LIMIT:]
        newcomer = await served.connect()
        assert (await newcomer.ask("daemon.ping"))["result"] == {"served": True}
        assert json.loads(await crowd[0].reader.readline())["error"]["code"] == BUSY
        for connection in served.server.connections:  # however slow this machine is, none has idled for long
            connection.made_at += 3600
            connection.last_request_at += 3600
        assert json.loads(await (await served.connect()).reader.readline())["error"]["code"] == BUSY
        assert (await newcomer.ask("daemon.ping"))["result"] == {"served": True}


class Host:
    """As much of a server as a connection needs that is only looked at."""

    max_message_bytes = 1 << 10
    stopping = False

    def dispatch(self, _line: bytes, _call: Call) -> None:
        raise AssertionError

    def is_urgent(self, _line: bytes) -> bool:
        return False

    def wait_id(self, _line: bytes) -> Any:
        return None

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        raise AssertionError

    def connection_closed(self, connection: Connection) -> None:
        raise AssertionError

    def promote(self) -> None:
        raise AssertionError


def asking(*times: tuple[float, float]) -> list[Connection]:
    """Return connections that were made, and have asked last, at these times."""
    connections = [Connection(Host()) for _ in times]
    for connection, (made, last) in zip(connections, times, strict=True):
        connection.made_at, connection.last_request_at = made, last
    return connections


def test_the_one_that_is_idle_longest_is_closed_first() -> None:
    """It goes before older ones that go on to ask."""
    connections = asking((1.0, 9.5), (4.0, 5.0), (2.5, 3.0), (9.5, 9.5))
    assert least_needed(connections, 10.0) is connections[2]
    assert least_needed(connections[3:], 10.0) is None
    assert least_needed([], 10.0) is None


def test_where_each_goes_on_to_ask_the_oldest_is_closed() -> None:
    """Nobody owns the reserve by asking often; who is new is let alone."""
    connections = asking((2.0, 9.9), (1.0, 9.9), (3.0, 9.9), (9.5, 9.9))
    assert least_needed(connections, 10.0) is connections[1]


def test_an_answer_on_its_way_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that go on to ask, one whose client has not yet read the answer is passed over."""
    connections = asking((1.0, 9.9), (2.0, 9.9))
    monkeypatch.setattr(Connection, "has_unsent", property(lambda each: each is connections[0]))
    assert least_needed(connections, 10.0) is connections[1]
    assert least_needed(connections[:1], 10.0) is None


def test_of_a_crowd_only_what_can_be_closed_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was accepted in this turn of the loop has no transport yet."""
    connections = asking((9.9, 9.9))
    assert least_needed(connections, 10.0, lambda _: True) is None
    monkeypatch.setattr(Connection, "is_open", True)
    assert least_needed(connections, 10.0, lambda _: True) is connections[0]


class Exhausted(socket.socket):
    """A listening socket: the first accepts find no descriptor left, or another fault of the system."""

    failures: tuple[int, ...] = (errno.EMFILE, errno.ENFILE, errno.EPROTO)

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            number, *rest = self.failures
            self.failures = tuple(rest)
            raise OSError(number, os.strerror(number))
        return super().accept()


async def test_that_nothing_can_be_accepted_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without descriptors it is tried again and again, and logged when it begins and when it is over."""
    monkeypatch.setattr("orbitd.rpc.server.RETRY_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    async with serving(wrap=Exhausted) as served:
        client = await served.connect()
        assert (await client.ask("daemon.ping"))["result"] == {"served": True}
        assert [record.message for record in caplog.records] == ["cannot accept", "accepting again"]
