"""The server of the page without a browser: who is let in, and how messages are relayed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from orbitctl.errors import CommandError
from orbitctl.web import bridge, server
from orbitctl.web.page import File
from orbitctl.web.server import Tokens, WebServer, bind

FILES = {"/": File("text/html; charset=utf-8", b"<!doctype html>")}


class Orbitd:
    """The other end of each connection that the bridge makes: what the daemon reads and sends."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.is_down = False

    async def connect(self) -> socket.socket:
        if self.is_down:
            raise CommandError("orbitd does not run")
        ours, theirs = socket.socketpair()
        for one in (ours, theirs):  # so that little is on the way in the kernel
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 16)
        self.writers.append(writer)
        self.connections.put_nowait((reader, writer))
        return theirs

    async def close(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Site:
    """A server with a fake orbitd behind it."""

    def __init__(self, port: int, tokens: Tokens, orbitd: Orbitd) -> None:
        self.host = f"127.0.0.1:{port}"
        self.port, self.tokens, self.orbitd = port, tokens, orbitd

    def socket(self, token: str | None = None, *, host: str = "", origin: str | None = "", **more: Any) -> connect:
        """Return a WebSocket, as the page opens it; other headers where they are given."""
        headers = {"Host": host} if host else {}
        words = [Subprotocol("orbit"), Subprotocol(f"token.{self.tokens.owner if token is None else token}")]
        asked = None if origin is None else Origin(origin or f"http://{host or self.host}")
        return connect(
            f"ws://{host or self.host}/socket",
            host="127.0.0.1",
            port=self.port,
            subprotocols=words,
            origin=asked,
            additional_headers={} if host else headers,
            proxy=None,
            **more,
        )

    async def get(self, path: str, *headers: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers and the body of an answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"GET {path} HTTP/1.1", f"Host: {host or self.host}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *rest = head.decode().split("\r\n")
        return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in rest), body

    async def status(self, opening: connect) -> int:
        """Return the status by which a WebSocket is refused, 101 if it is not."""
        try:
            async with opening:
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    listener, tokens, orbitd = bind(0), Tokens(guests=True), Orbitd()
    async with WebServer(FILES, tokens, orbitd.connect).serving(listener):
        yield Site(listener.getsockname()[1], tokens, orbitd)
    await orbitd.close()


async def test_the_page_is_served_with_strict_headers(site: Site) -> None:
    """Every answer, an error too, forbids scripts of others, sniffing, framing, referrers, and being kept."""
    for path, status in (("/", 200), ("/nothing", 404), ("/access", 401), ("/socket", 403)):
        found, headers, _ = await site.get(path)
        assert found == status
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "frame-ancestors 'none'" in policy
        assert f"connect-src 'self' ws://{site.host};" in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "deny")
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")
        assert not [name for name in headers if name.startswith("access-control")]


async def test_a_file_that_the_browser_has_is_not_sent_again(site: Site) -> None:
    """A browser that has a file of this version is told so; of another version it gets the new one."""
    status, headers, body = await site.get("/")
    assert (status, body) == (200, FILES["/"].data)
    status, _, body = await site.get("/", f"If-None-Match: {headers['etag']}")
    assert (status, body) == (304, b"")
    assert (await site.get("/", 'If-None-Match: "other"'))[0] == 200


async def test_a_page_of_another_name_is_refused(site: Site) -> None:
    """A name that resolves to this machine is no way in (DNS rebinding); a forwarded port is one."""
    for host in ("evil.example", f"evil.example:{site.port}", "127.0.0.1.evil.example", "[::1]:80", "127.0.0.1@evil"):
        assert (await site.get("/", host=host))[0] == 403, host
    for host in (f"127.0.0.1:{site.port}", f"localhost:{site.port}", "localhost:9", "127.0.0.1"):
        assert (await site.get("/", host=host))[0] == 200, host


async def test_two_hosts_are_refused(site: Site) -> None:
    """A header that stands there twice is not understood in two ways."""
    assert (await site.get("/", "Host: evil.example"))[0] == 403


async def test_a_websocket_needs_the_token(site: Site) -> None:
    """Without a token, with a part of it or with another one the WebSocket is refused before it is one."""
    for token in ("", "x", site.tokens.owner[:-1], site.tokens.owner + "x", "-"):
        assert await site.status(site.socket(token)) == 401, token
    assert await site.status(site.socket()) == 101
    assert await site.status(site.socket(site.tokens.guest)) == 101


async def test_without_guests_no_token_is_theirs() -> None:
    """Where no read-only URL was asked for, nothing is one."""
    tokens = Tokens(guests=False)
    assert [tokens.access(one) for one in ("-", "", "None")] == [None, None, None]


async def test_a_websocket_comes_from_this_page(site: Site) -> None:
    """Another page, another port of this machine and a client without an origin are refused, the token or not."""
    for origin in ("http://evil.example", f"https://{site.host}", "http://127.0.0.1:1", "null", None):
        assert await site.status(site.socket(origin=origin)) == 403, origin
    assert (await site.get("/", "Origin: http://evil.example"))[0] == 403


async def test_the_page_learns_what_its_token_is_for(site: Site) -> None:
    """/access says whether a token is for reading only, and nothing to who has none."""
    for token, read_only in ((site.tokens.owner, False), (site.tokens.guest, True)):
        status, _, body = await site.get("/access", f"Authorization: Bearer {token}")
        assert (status, json.loads(body)["read_only"]) == (200, read_only)
    for header in ("Authorization: Bearer x", f"Authorization: Basic {site.tokens.owner}", "X: y"):
        assert (await site.get("/access", header))[0] == 401


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """Return True once the bridge has ended a connection, with something of ours unread or not."""
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    return True


async def exchange(websocket: ClientConnection, reader: asyncio.StreamReader, message: str) -> str:
    await websocket.send(message)
    return (await reader.readline()).decode().rstrip("\n")


async def test_messages_are_relayed_as_they_are(site: Site) -> None:
    """A message of the owner is a line for orbitd and a line of orbitd a message, both to the letter."""
    async with site.socket() as websocket:
        reader, writer = await site.orbitd.connections.get()
        text = '{"jsonrpc":"2.0","id":1.50,"method":"x","params":{"a":"é\\u0000","a":2}}'
        assert await exchange(websocket, reader, text) == text
        writer.write(b'{"result":1e400}\n{"result":2}\r\n')
        assert [await websocket.recv(), await websocket.recv()] == ['{"result":1e400}', '{"result":2}']


async def test_each_websocket_has_a_connection_of_its_own(site: Site) -> None:
    """Two windows are two connections, and one that leaves ends its own alone."""
    async with site.socket() as first:
        reader, _ = await site.orbitd.connections.get()
        async with site.socket() as second:
            other, _ = await site.orbitd.connections.get()
            assert (await exchange(first, reader, "1"), await exchange(second, other, "2")) == ("1", "2")
        assert await is_ended(other)
        assert await exchange(first, reader, "3") == "3"


async def test_a_browser_that_vanishes_ends_its_connection(site: Site) -> None:
    """A tab whose process is killed leaves no connection to orbitd behind."""
    websocket = await site.socket()
    reader, _ = await site.orbitd.connections.get()
    websocket.transport.abort()
    assert await is_ended(reader)


async def test_a_guest_is_answered_by_the_bridge(site: Site) -> None:
    """What a guest may not do never reaches orbitd; what it may do does."""
    async with site.socket(site.tokens.guest) as guest:
        reader, _ = await site.orbitd.connections.get()
        await guest.send('{"id":1,"method":"session.input","params":{"attachment_id":"a","data":"YQ=="}}')
        assert json.loads(await guest.recv())["error"]["data"]["kind"] == "read_only"
        assert json.loads(await exchange(guest, reader, '{"id":2,"method":"daemon.ping"}'))["id"] == 2


async def test_an_unreadable_line_is_not_shown_to_a_guest(site: Site) -> None:
    """What cannot be looked through is left out, and the next line comes."""
    async with site.socket(site.tokens.guest) as guest:
        _, writer = await site.orbitd.connections.get()
        notices = ['{"method":"session.output","params":{"attachment_id":"a","data":7}}', '{"method":"session.output"}']
        writer.write("\n".join([*notices, "{", '{"id":1,"result":{}}', ""]).encode())
        assert json.loads(await guest.recv()) == {"id": 1, "result": {}}


@pytest.mark.parametrize(("message", "code"), [(b"bytes", 1003), ("two\nlines", 1008), ("x" * (2 << 20) + "x", 1009)])
async def test_what_is_no_message_closes_the_websocket(site: Site, message: bytes | str, code: int) -> None:
    """Bytes, a newline and more than the limit are refused, and the connection to orbitd ends with the WebSocket."""
    async with site.socket() as websocket:
        reader, _ = await site.orbitd.connections.get()
        with contextlib.suppress(ConnectionClosed):
            await websocket.send(message)
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        assert websocket.close_code == code
        assert await is_ended(reader)


async def test_a_message_of_the_largest_size_passes(site: Site) -> None:
    """The limit is on what is more than it."""
    async with site.socket() as websocket:
        reader, _ = await site.orbitd.connections.get()
        sent = asyncio.create_task(websocket.send("x" * bridge.MAX_MESSAGE_BYTES))
        assert len(await reader.readexactly(bridge.MAX_MESSAGE_BYTES + 1)) == bridge.MAX_MESSAGE_BYTES + 1
        await sent


async def test_an_orbitd_that_ends_closes_the_websocket(site: Site) -> None:
    """The page is told by the close of its WebSocket, after the last message, and may come back."""
    async with site.socket() as websocket:
        _, writer = await site.orbitd.connections.get()
        writer.write(b"last\n")
        writer.close()
        assert await websocket.recv() == "last"
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        assert websocket.close_code == 1012
    async with site.socket() as again:
        reader, _ = await site.orbitd.connections.get()
        assert await exchange(again, reader, "x") == "x"


async def test_without_an_orbitd_the_reason_is_said(site: Site) -> None:
    """A WebSocket that finds no orbitd is closed with why, to be tried again."""
    site.orbitd.is_down = True
    async with site.socket() as websocket:
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        assert (websocket.close_code, websocket.close_reason) == (1013, "orbitd does not run")


async def fill(writer: asyncio.StreamWriter, line: bytes) -> int:
    """Write lines until the reader takes no more; return how many were written."""
    count = 0
    with contextlib.suppress(TimeoutError):
        while True:
            writer.write(line)
            await asyncio.wait_for(writer.drain(), 0.5)
            count += 1
    return count


async def test_a_page_that_draws_nothing_stops_orbitd(site: Site) -> None:
    """What the page has not used up has a bound, beyond which orbitd's socket is not read; then it goes on in order."""
    async with site.socket(max_queue=None) as websocket:
        _, writer = await site.orbitd.connections.get()
        line = b"x" * 9_999 + b"\n"
        count = await fill(writer, line)
        assert count * len(line) <= 3 * bridge.WINDOW_BYTES
        writer.write(b"end\n")
        received = 0
        while (message := await websocket.recv()) != "end":
            assert len(message) == 9_999
            received += 1
            await websocket.send('{"received": 1}')
        assert received >= count


async def test_a_browser_that_is_stopped_stops_orbitd(site: Site) -> None:
    """A browser that reads nothing at all costs a bounded buffer, and ends with its connection."""
    websocket = await site.socket(max_queue=1)
    websocket.transport.pause_reading()
    reader, writer = await site.orbitd.connections.get()
    assert await fill(writer, b"x" * 9_999 + b"\n") * 10_000 <= 3 * bridge.WINDOW_BYTES
    websocket.transport.abort()
    assert await is_ended(reader)


async def test_an_orbitd_that_reads_nothing_stops_the_browser(site: Site) -> None:
    """What a page sends to an orbitd that does not read is bounded as well."""
    async with site.socket(write_limit=1) as websocket:
        await site.orbitd.connections.get()
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64:
                await asyncio.wait_for(websocket.send("x" * 1_000_000), 0.5)
                sent += 1
        assert sent < 64
        websocket.transport.abort()


async def test_a_message_larger_than_the_window_is_sent_alone(site: Site) -> None:
    """A picture with a long history is larger than what may be on the way, and comes all the same."""
    async with site.socket(max_size=None) as websocket:
        _, writer = await site.orbitd.connections.get()
        writer.write(b"x" * (3 << 20) + b"\n")
        assert len(await websocket.recv()) == 3 << 20


async def test_no_more_than_so_many_windows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of WebSockets one more is refused; guests leave room, and one that ends makes room."""
    monkeypatch.setattr(server, "MAX_WEBSOCKETS", 3)
    monkeypatch.setattr(server, "MAX_GUESTS", 1)
    async with site.socket(site.tokens.guest):
        assert await site.status(site.socket(site.tokens.guest)) == 503
        async with site.socket():
            async with site.socket():
                assert await site.status(site.socket()) == 503
            assert await site.status(site.socket()) == 101


async def test_connections_that_say_nothing_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of connections one more is closed at once, whatever it would ask."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    silent = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    assert await is_ended(reader)
    for one in (*(each for _, each in silent), writer):
        one.close()


async def test_only_this_machine_is_served(site: Site) -> None:
    """The port is open on the loopback interface alone."""
    listener = bind(0)
    with contextlib.closing(listener):
        assert listener.getsockname()[0] == "127.0.0.1"
