"""A blocking client: one request at a time over one stream, typed by the table of methods.

Rules: answers are matched by id, notifications are skipped, and every call has a deadline.
An answer that cannot be read, or a method that is missing, leads to one more question: which
protocol the daemon speaks.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct

from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.errors import ErrorObject, MethodNotFound, OrbitError, from_object
from orbit_protocol.framing import LineFramer, LineTooLong
from orbit_protocol.jsonrpc import Response, decode_response, encode_request
from orbit_protocol.methods import DAEMON_INFO, Method
from orbitctl.client.transport import Stream
from orbitctl.errors import CommandError, ExitCode, from_daemon

P = TypeVar("P")
R = TypeVar("R")

MAX_ANSWER_BYTES = 1 << 30
DEFAULT_TIMEOUT = 30.0
LONG_TIMEOUT = 3600.0
"""For work whose time grows with the database, in seconds."""


class Answer(Generic[R]):
    """A result as it came and, once asked for, as its type."""

    def __init__(self, client: Client, method: Method[Any, R], raw: bytes) -> None:
        self._client = client
        self._method = method
        self.raw = raw

    @property
    def value(self) -> R:
        """The result as its method's type. Raises: CommandError."""
        decoded: R = self.read(self._method.result)
        return decoded

    def read(self, kind: Any) -> Any:
        """Return the result as another type, for a part of it. Raises: CommandError."""
        try:
            return msgspec.json.decode(self.raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._client.explain(f"the daemon's answer to {self._method.name} cannot be read: {error}")


class _Version(Struct, frozen=True, kw_only=True):
    """The part of `daemon.info` that every protocol keeps."""

    version: str
    protocol_version: int


class Client:
    """Calls methods over a stream.

    Args:
        stream: A connected stream; the client closes it.
        timeout: How long a call may take, in seconds.
    """

    def __init__(self, stream: Stream, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.timeout = timeout
        self._stream = stream
        self._framer = LineFramer(MAX_ANSWER_BYTES)
        self._lines: deque[bytes] = deque()
        self._last_id = 0

    def call(self, method: Method[P, R], params: P) -> R:
        """Return a method's result. Raises: CommandError."""
        return self.ask(method, params).value

    def ask(self, method: Method[P, R], params: P, timeout: float | None = None) -> Answer[R]:
        """Return a method's result, not decoded yet. Raises: CommandError."""
        return Answer(self, method, self.ask_raw(method.name, params, timeout))

    def ask_raw(self, name: str, params: Any = UNSET, timeout: float | None = None) -> bytes:
        """Call any method and return its result as JSON.

        Raises:
            CommandError: The daemon answered an error, or nothing in time, or went away.
        """
        try:
            return self._exchange(name, params, self.timeout if timeout is None else timeout)
        except MethodNotFound as error:
            self._explain_missing(error)
        except OrbitError as error:
            raise from_daemon(error) from error

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def wait_for_end(self, timeout: float) -> None:
        """Read until the daemon closes the stream. Raises: CommandError if it does not in time."""
        deadline = time.monotonic() + timeout
        while self._receive(deadline, timeout):
            pass

    def explain(self, message: str) -> NoReturn:
        """Raise what an answer that cannot be read means: a protocol mismatch, or a defect."""
        theirs = self._their_version()
        if theirs is None:
            raise CommandError(
                message,
                ExitCode.PROTOCOL,
                hint="Something else seems to serve this socket; `orbitctl doctor` looks closer.",
            )
        self._compare(theirs)
        raise CommandError(message, hint=f"The daemon runs {theirs.version}, this is orbitctl {VERSION}.")

    def _explain_missing(self, error: MethodNotFound) -> NoReturn:
        theirs = self._their_version()
        if theirs is not None:
            self._compare(theirs)
            if theirs.version != VERSION:
                hint = f"The daemon runs {theirs.version}, this is orbitctl {VERSION}: `orbitctl daemon restart`."
                raise CommandError(error.message, ExitCode.PROTOCOL, hint=hint) from error
        raise from_daemon(error) from error

    def _compare(self, theirs: _Version) -> None:
        if theirs.protocol_version == PROTOCOL_VERSION:
            return
        older = theirs.protocol_version < PROTOCOL_VERSION
        raise CommandError(
            f"the daemon (orbitd {theirs.version}) speaks protocol {theirs.protocol_version}, "
            f"orbitctl {VERSION} speaks {PROTOCOL_VERSION}",
            ExitCode.PROTOCOL,
            hint="Bring the daemon up to date: `orbitctl daemon restart`." if older else "Upgrade orbitctl.",
        )

    def _their_version(self) -> _Version | None:
        try:
            raw = self._exchange(DAEMON_INFO.name, UNSET, self.timeout)
            return msgspec.json.decode(raw, type=_Version)
        except (OrbitError, CommandError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _exchange(self, name: str, params: Any, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        self._last_id += 1
        self._send(encode_request(name, params, self._last_id), deadline, timeout)
        while True:
            response = self._response(self._line(deadline, timeout, name))
            if response.method is not UNSET or response.id not in (self._last_id, None):
                continue  # a notification, or the answer to a call that was given up
            if isinstance(response.error, ErrorObject):
                raise from_object(response.error)
            return bytes(response.result) if isinstance(response.result, Raw) else b"null"

    def _response(self, line: bytes) -> Response:
        try:
            return decode_response(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandError(
                f"what answered does not speak Orbit's protocol: {error}",
                ExitCode.PROTOCOL,
                hint="Something else seems to serve this socket; `orbitctl doctor` looks closer.",
            ) from error

    def _send(self, message: bytes, deadline: float, timeout: float) -> None:
        """Send a message; a daemon that refuses it and closes has left an answer to be read."""
        rest = memoryview(message)
        try:
            while rest:
                rest = rest[self._stream.send(rest, _left(deadline, timeout)) :]
        except TimeoutError as error:
            raise _too_late(timeout) from error
        except (BrokenPipeError, ConnectionResetError):
            return

    def _line(self, deadline: float, timeout: float, name: str) -> bytes:
        while not self._lines:
            if not self._receive(deadline, timeout):
                raise CommandError(
                    f"the daemon closed the connection before it answered {name}",
                    ExitCode.UNREACHABLE,
                    hint="It may have been stopped or have crashed: `orbitctl daemon logs` tells.",
                )
        return self._lines.popleft()

    def _receive(self, deadline: float, timeout: float) -> bool:
        """Take what came; return False at the end of the stream."""
        try:
            data = self._stream.receive(_left(deadline, timeout))
        except TimeoutError as error:
            raise _too_late(timeout) from error
        except (BrokenPipeError, ConnectionResetError):
            return False
        for event in self._framer.receive(data):
            if isinstance(event, LineTooLong):
                raise CommandError(f"the daemon's answer is longer than {event.limit} bytes")
            self._lines.append(event.data)
        return bool(data)


def _left(deadline: float, timeout: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _too_late(timeout)
    return left


def _too_late(timeout: float) -> CommandError:
    return CommandError(
        f"no answer within {timeout:g} s",
        ExitCode.TIMEOUT,
        hint="Allow more time with --timeout SECS; `orbitctl doctor` tells whether the daemon is well.",
    )
