"""A connection in the framing of its client's first line, with a scripted transport: what is written, when it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from connection_support import Transport
from orbitd.rpc import connection as rpc
from orbitd.rpc.connection import Call, Connection


class Closing(Transport):
    """Says when it has been closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    def close(self) -> None:
        super().close()
        self.closed.set()


class Echo:
    """Answers a message with itself; those that begin with `later`, when its event is set."""

    max_message_bytes = 100
    stopping = False

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def dispatch(self, line: bytes, call: Call) -> Any:
        return self._later(line) if line.startswith(b"later") else line

    async def _later(self, line: bytes) -> bytes:
        await self.go_on.wait()
        return line

    def is_urgent(self, _: bytes) -> bool:
        return False

    def wait_id(self, _: bytes) -> Any:
        return None

    def start_task(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def connection_closed(self, connection: Connection) -> None:
        """Nothing is kept."""

    def promote(self) -> None:
        """Nothing is kept back."""


def connect() -> tuple[Connection, Echo, Closing]:
    host, transport = Echo(), Closing()
    connection = Connection(host)
    connection.connection_made(transport)  # type: ignore[arg-type]  # as much of one as is used
    return connection, host, transport


def body(written: bytes) -> Any:
    """Return the message behind headers."""
    header, _, message = written.partition(b"\r\n\r\n")
    assert header == b"Content-Length: %d" % len(message)
    return json.loads(message)


async def test_a_connection_keeps_the_framing_of_its_first_line() -> None:
    """Answers and notifications have headers for a client of headers, and are lines for one of lines."""
    headers, _, sent = connect()
    headers.data_received(b"Content-Length: 2\r\n\r\n[]")
    headers.send(b"{}")
    assert sent.written == [b"Content-Length: 2\r\n\r\n[]", b"Content-Length: 2\r\n\r\n{}"]
    lines, _, sent = connect()
    lines.data_received(b"[]\nContent-Length: 2\r\n")
    lines.send(b"{}")
    assert sent.written == [b"[]\n", b"Content-Length: 2\n", b"{}\n"]


async def test_a_client_that_has_sent_nothing_is_sent_lines() -> None:
    """What comes before the first line, or in the middle of it, is a line."""
    connection, _, sent = connect()
    connection.send(b"1")
    connection.data_received(b"Content-Le")
    connection.send(b"2")
    assert sent.written == [b"1\n", b"2\n"]


async def test_what_cannot_be_followed_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered once, what follows is discarded for a moment, and the connection is closed."""
    monkeypatch.setattr(rpc, "DISCARD_MALFORMED_SECONDS", 0.0001)
    connection, _, sent = connect()
    connection.data_received(b"Content-Length: 2\r\n\r\n[]garbage\r\n")
    connection.data_received(b"Content-Length: 2\r\n\r\n[]")
    assert not sent.is_closed
    await sent.closed.wait()
    assert body(sent.written[0]) == []
    error = body(sent.written[1])["error"]
    assert (error["code"], len(sent.written)) == (-32700, 2)
    assert "Content-Length" in error["data"]["hint"]


async def test_what_was_asked_before_is_answered_first() -> None:
    """A connection that cannot be followed is closed only when all requests before have been answered."""
    connection, host, sent = connect()
    connection.data_received(b"Content-Length: 5\r\n\r\nlaterContent-Length: -5\r\n\r\n")
    connection.eof_received()
    assert (len(sent.written), sent.is_closed) == (1, False)
    host.go_on.set()
    await sent.closed.wait()
    assert sent.written[1] == b"Content-Length: 5\r\n\r\nlater"


async def test_the_rest_of_a_long_body_is_discarded() -> None:
    """The connection is closed when the body has ended that was too long, newlines in it or not."""
    connection, _, sent = connect()
    connection.data_received(b"Content-Length: 101\r\n\r\n" + b"\n" * 50)
    assert body(sent.written[0])["error"]["data"]["kind"] == "message_too_large"
    connection.data_received(b"\n" * 50)
    assert not sent.is_closed
    connection.data_received(b"\n")
    assert sent.is_closed
