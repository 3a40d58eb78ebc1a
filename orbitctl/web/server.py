"""Serve the page and its WebSockets on the loopback interface.

Whoever has the token may do what its URL is for; nobody else gets more than the files of the page, which are public.
The token stands in the URL's fragment, which browsers send to nobody, and comes here in a header: Authorization for
/access, Sec-WebSocket-Protocol for /socket. `Host` must name the loopback interface: a page of another name that
resolves to it (DNS rebinding) is refused. `Origin` must be of this very page for a WebSocket, which the browser's rules
for requests of other origins do not hold for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from orbit_protocol import VERSION
from orbitctl.errors import CommandError
from orbitctl.web.bridge import MAX_MESSAGE_BYTES, relay
from orbitctl.web.guest import Guest

if TYPE_CHECKING:
    from orbitctl.attach.reconnect import Reconnect
    from orbitctl.client.transport import Stream
    from orbitctl.web.page import File

ADDRESS = "127.0.0.1"
HOSTS = frozenset((ADDRESS, "localhost"))
"""Names of the loopback interface in `Host`; any port, since `ssh -L` may forward another one to ours."""
SUBPROTOCOL = Subprotocol("orbit")
TOKEN_PROTOCOL = "token."  # noqa: S105  # what stands before the token
MAX_CONNECTIONS = 256
"""TCP connections; beyond, one is closed at once."""
MAX_WEBSOCKETS = 64
MAX_GUESTS = 32
"""Of the WebSockets, so that guests leave room."""
RECONNECT_SECS = 10.0
"""How long a WebSocket waits for an orbitd that restarts."""
HANDSHAKE_SECS = 10.0
_BUFFER_BYTES = 1 << 16
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""xterm.js writes its colours and sizes into style elements of its own, hence 'unsafe-inline' for styles alone."""


class Access(Struct, frozen=True, kw_only=True):
    """What a token is for, as /access answers."""

    read_only: bool
    version: str = VERSION


class Tokens:
    """The token of the owner, and that of guests where there is one."""

    def __init__(self, *, guests: bool) -> None:
        self.owner = secrets.token_urlsafe(32)
        self.guest = secrets.token_urlsafe(32) if guests else None

    def access(self, token: str) -> Access | None:
        """Return what a token is for, None for nothing; it takes as long for each token that is wrong."""
        given = token.encode(errors="replace")
        is_owner = hmac.compare_digest(given, self.owner.encode())
        is_guest = hmac.compare_digest(given, (self.guest or "-").encode()) and self.guest is not None
        return Access(read_only=not is_owner) if is_owner or is_guest else None


class Daemon:
    """Connects to orbitd, also to one that is started again.

    Args:
        reconnect: Attempts to connect, as an attached client makes them.
    """

    def __init__(self, reconnect: Reconnect) -> None:
        self._reconnect = reconnect
        self._turn = asyncio.Lock()

    async def connect(self) -> Stream:
        """Return a new connection. Raises: CommandError if there is none in `RECONNECT_SECS`."""
        deadline = time.monotonic() + RECONNECT_SECS
        async with self._turn:  # an outage is one, however many wait
            self._reconnect.start(time.monotonic())
            try:
                while (stream := await asyncio.to_thread(self._reconnect.attempt, time.monotonic())) is None:
                    now = time.monotonic()
                    if now >= deadline:
                        raise CommandError("orbitd does not run")
                    self._reconnect.should_notify(now)  # the page does that; it moves the next deadline on
                    # A socket that nobody listens on yet cannot be waited for, so this is a back-off.
                    await asyncio.sleep(max(0.0, self._reconnect.next_deadline(connected=False) - now))
            finally:
                self._reconnect.stop()
            return stream


class _Connection(ServerConnection):
    """A connection of a browser; there are `MAX_CONNECTIONS` at most."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.server.handler_tasks) > MAX_CONNECTIONS:
            self.transport.abort()


class WebServer:
    """Answers requests for the page, and relays its WebSockets.

    Args:
        files: By path.
        tokens: Who may come.
        connect: Returns a new connection to orbitd, or raises CommandError.
    """

    def __init__(self, files: Mapping[str, File], tokens: Tokens, connect: Callable[[], Any]) -> None:
        self._files = files
        self._tokens = tokens
        self._connect = connect
        self._websockets: dict[ServerConnection, Access] = {}
        self._leaving: set[asyncio.Task[None]] = set()  # one for each of them, until it is closed

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve on a bound socket within the block; at its end every WebSocket is closed."""
        async with serve(
            self._relay,
            sock=listener,
            process_request=self._answer,
            process_response=self._secure,
            subprotocols=[SUBPROTOCOL],
            create_connection=_Connection,
            server_header=None,
            compression=None,  # it would cost more time than the loopback interface takes
            max_size=MAX_MESSAGE_BYTES,
            max_queue=4,
            # A page that draws slowly is no dead one, and on this machine the end of a process ends its sockets.
            ping_interval=None,
            open_timeout=HANDSHAKE_SECS,
            close_timeout=1,
            logger=_SILENT,
        ):
            yield

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return the answer to a request; None to go on as a WebSocket."""
        host = _only(request.headers, "Host")
        if host is None or _name_of(host) not in HOSTS:
            return _text(HTTPStatus.FORBIDDEN, "This server answers to 127.0.0.1 and localhost alone.")
        origin = _only(request.headers, "Origin", "")
        path = request.path.partition("?")[0]
        if origin != f"http://{host}" and (origin != "" or path == "/socket"):
            return _text(HTTPStatus.FORBIDDEN, "Requests of other pages are refused.")
        if path == "/socket":
            return self._admit(connection, request)
        if path == "/access":
            scheme, _, token = (_only(request.headers, "Authorization") or "").partition(" ")
            access = self._tokens.access(token) if scheme.lower() == "bearer" else None
            if access is None:
                return _text(HTTPStatus.UNAUTHORIZED, "The token is wrong, or of an `orbitctl web` that has ended.")
            return _response(HTTPStatus.OK, "application/json", msgspec.json.encode(access))
        if (file := self._files.get(path)) is None:
            return _text(HTTPStatus.NOT_FOUND, "There is no such page.")
        if _only(request.headers, "If-None-Match") == file.tag:
            response = _response(HTTPStatus.NOT_MODIFIED, file.content_type, b"")
        else:
            response = _response(HTTPStatus.OK, file.content_type, file.data)
        response.headers["ETag"] = file.tag
        response.headers["Cache-Control"] = "no-cache"  # kept, with what it was compiled to, and asked for each time
        return response

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return the refusal of a WebSocket; None if it may come, which is recorded."""
        words = [word.strip() for word in (_only(request.headers, "Sec-WebSocket-Protocol") or "").split(",")]
        token = next((word for word in words if word.startswith(TOKEN_PROTOCOL)), "").removeprefix(TOKEN_PROTOCOL)
        if (access := self._tokens.access(token)) is None:
            return _text(HTTPStatus.UNAUTHORIZED, "The token is wrong, or of an `orbitctl web` that has ended.")
        guests = sum(one.read_only for one in self._websockets.values())
        if len(self._websockets) >= MAX_WEBSOCKETS or (access.read_only and guests >= MAX_GUESTS):
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "Too many windows are open.")
        self._websockets[connection] = access
        # Not where the relay ends: none is begun for a request that turns out to be no WebSocket's.
        leaving = asyncio.create_task(self._forget(connection))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return None

    async def _forget(self, connection: ServerConnection) -> None:
        await connection.wait_closed()
        del self._websockets[connection]

    def _secure(self, _: ServerConnection, request: Request, response: Response) -> None:
        """Set the headers that every answer has, those to requests that cannot be read too."""
        host = _only(request.headers, "Host") or ADDRESS
        policy = _POLICY.format(host=host if _name_of(host) in HOSTS else ADDRESS)
        for name, value in (
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            response.headers[name] = value
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"

    async def _relay(self, websocket: ServerConnection) -> None:
        access = self._websockets[websocket]
        try:
            stream = await self._connect()
        except (CommandError, ImportError, OSError) as error:  # ImportError: the installation has been replaced
            await websocket.close(CloseCode.TRY_AGAIN_LATER, str(error).encode()[:120].decode(errors="ignore"))
            return
        try:
            # The descriptor is another one for the same socket, since asyncio closes what it is given.
            connection = socket.socket(fileno=os.dup(stream.fileno()))
            connection.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_BUFFER_BYTES)
            with contextlib.suppress(ConnectionClosed):
                await relay(websocket, reader, writer, Guest() if access.read_only else None)
        finally:
            await asyncio.to_thread(stream.close)  # an ssh is waited for


_SILENT = logging.getLogger("orbitctl.web")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def bind(port: int) -> socket.socket:
    """Return a socket that listens on the loopback interface. Raises: OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may linger
        listener.bind((ADDRESS, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _only(headers: Headers, name: str, default: str | None = None) -> str | None:
    """Return a header that must stand there once, `default` where it is missing; None if it is there twice."""
    values = headers.get_all(name)
    return default if not values else values[0] if len(values) == 1 else None


def _name_of(host: str) -> str:
    """Return the name in a `Host`, without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isascii() and port.isdigit() else host


def _text(status: HTTPStatus, text: str) -> Response:
    return _response(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def _response(status: HTTPStatus, content_type: str, body: bytes) -> Response:
    headers = Headers()
    headers["Connection"] = "close"
    headers["Content-Type"] = content_type
    headers["Content-Length"] = str(len(body))
    return Response(status.value, status.phrase, headers, body)


def url_of(listener: socket.socket, token: str) -> str:
    """Return the URL of the page with a token, in the part of it that browsers keep to themselves."""
    return f"http://{ADDRESS}:{listener.getsockname()[1]}/#token={token}"


async def run(listener: socket.socket, files: Mapping[str, File], tokens: Tokens, daemon: Daemon) -> int:
    """Serve until SIGINT or SIGTERM, end the WebSockets, and return the signal's number."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in a script's background job
            loop.add_signal_handler(number, _stop, stopped, number)
    async with WebServer(files, tokens, daemon.connect).serving(listener):
        return await stopped


def _stop(stopped: asyncio.Future[int], number: int) -> None:
    if not stopped.done():
        stopped.set_result(number)
