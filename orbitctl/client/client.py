"""A blocking client: one request at a time over one stream, typed by the table of methods.

Answers are matched by id, notifications are skipped, and every call has a deadline. After an answer
that cannot be decoded, or a method that is missing, the daemon is asked for its version: a protocol
mismatch gets a message and an exit code of its own.
"""

from __future__ import annotations

import contextlib
import re
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.errors import InvalidParams, MethodNotFound, OrbitError, from_object
from orbit_protocol.framing import LineFramer, LineTooLong
from orbit_protocol.jsonrpc import ErrorObject, Response, decode_response, encode_request
from orbit_protocol.methods import (
    CANCEL_REQUEST,
    DAEMON_INFO,
    METHODS,
    SESSION_DELETE,
    SESSION_START,
    WATCH_PROGRESS,
    Method,
)
from orbit_protocol.params import CancelRequest, WatchProgress
from orbit_protocol.text import decoded_message, path_text
from orbit_protocol.visible import seconds
from orbitctl.client.transport import SILENCE_SECS
from orbitctl.errors import HINT_BY_KIND, CommandError, ExitCode, from_daemon, usage_message

if TYPE_CHECKING:
    from orbitctl.client.transport import Stream

P = TypeVar("P")
R = TypeVar("R")

MAX_ANSWER_BYTES = 1 << 30
DEFAULT_TIMEOUT = 30.0
LONG_TIMEOUT = 3600.0
"""Seconds, for work whose time grows with the database."""
CANCEL_SECS = 1.0
_PROGRESS = "$/progress"
"""The notification's name; its module is imported by few commands."""
PAGE_SIZE = 1_000
"""Entries of a list in one answer."""
_DISPENSABLE: dict[str, dict[str, Any]] = {
    SESSION_START.name: {"umask": None, "limits": None},
    SESSION_DELETE.name: {"purge": False},  # without a trash, all are deleted for good
}
"""By method, the params that an older daemon does not know and can do without, with their defaults."""


class Answer(Generic[R]):
    """A result: the JSON as it came, decoded on demand."""

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
            from orbit_protocol.plain_words import in_plain_words

            reason = in_plain_words(str(error))
            self._client.explain(f"the daemon's answer to {self._method.name} cannot be read: {reason}")


def check_params(method: Method[P, Any], params: P) -> P:
    """Return params that fit their method, as the daemon would check them. Raises: CommandError with ExitCode.USAGE."""
    try:
        # Values are checked when a Struct is decoded, not when it is made.
        try:
            msgspec.json.decode(msgspec.json.encode(params), type=method.params)
        except UnicodeEncodeError as error:
            decoded: P = msgspec.json.decode(msgspec.json.encode(_decoded(params, error)), type=method.params)
            return decoded
    except msgspec.ValidationError as error:
        raise CommandError(usage_message(error), ExitCode.USAGE, hint=HINT_BY_KIND["invalid_params"]) from error
    return params


def _unknown_field(error: BaseException | None) -> str | None:
    """Return the field of params that fit their method here, but not where the daemon has checked them."""
    if not isinstance(error, InvalidParams):
        return None
    found = re.match(r"Object contains unknown field `(\w+)`", error.message)
    return found[1] if found is not None else None


class _Step(Struct, frozen=True, kw_only=True):
    """What is shown of a `$/progress` notification."""

    id: int | float | str
    what: str
    done: int
    total: int


class _Version(Struct, frozen=True, kw_only=True):
    """The part of `daemon.info` that is the same in every version of the protocol."""

    version: str
    protocol_version: int


class Client:
    """Calls methods over a stream.

    Args:
        stream: A connected stream; the client closes it.
        timeout: How long a call may take, in seconds.

    Attributes:
        on_silence: Called once, while an answer is waited for, if nothing has come for `SILENCE_SECS`.
    """

    def __init__(self, stream: Stream, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.timeout = timeout
        self.on_silence: Callable[[], None] | None = None
        self._stream = stream
        self._framer = LineFramer(MAX_ANSWER_BYTES)
        self._lines: deque[bytes] = deque()
        self._last_id = 0
        self._is_cut = False  # the last call was sent in part, and another one would be taken for its rest
        self._holds_interrupts = False

    def call(self, method: Method[P, R], params: P) -> R:
        """Return a method's result. Raises: CommandError."""
        return self.ask(method, params).value

    def ask(
        self,
        method: Method[P, R],
        params: P,
        timeout: float | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> Answer[R]:
        """Return a method's result, not decoded yet.

        A daemon that is older than this program, as after an upgrade, is asked without the params that it does not know
        and can do without.

        Raises:
            CommandError: The daemon answered with an error or not in time, or closed the connection.
        """
        while True:
            try:
                return Answer(self, method, self.ask_raw(method.name, params, timeout, on_progress))
            except CommandError as error:
                if (field := _unknown_field(error.__cause__)) is None:
                    raise
                if field not in (dispensable := _DISPENSABLE.get(method.name, {})):
                    raise self._older_error(f"`{field}`") from error.__cause__
                params = structs.replace(params, **{field: dispensable[field]})  # type: ignore[type-var]  # P: a Struct

    def ask_raw(
        self,
        name: str,
        params: Any = UNSET,
        timeout: float | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> bytes:
        """Call any method and return its result as JSON.

        Args:
            name: The method.
            params: Its params.
            timeout: How long it may take, in seconds.
            on_progress: Called with what a method that works for long does, how many are done, and of how many.

        Raises:
            CommandError: The daemon answered with an error or not in time, or closed the connection.
        """
        try:
            return self._exchange(name, params, self.timeout if timeout is None else timeout, on_progress)
        except MethodNotFound as error:
            self._explain_missing(name, error)
        except OrbitError as error:
            raise from_daemon(error) from error

    @contextlib.contextmanager
    def interrupts_while_waiting(self) -> Iterator[None]:
        """Let Ctrl-C interrupt calls only while they wait for the socket.

        KeyboardInterrupt may else come between the system call that sends or receives and the line that keeps what it
        returned. Then `cancel` could not know whether the call was sent, nor find the answer.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._holds_interrupts = True
        try:
            yield
        finally:
            self._holds_interrupts = False
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _wait(self, event: int, timeout: float) -> None:
        """Wait until the stream can be read or written without waiting. Raises: TimeoutError, KeyboardInterrupt."""
        if not self._holds_interrupts:
            return  # the stream waits by itself
        poll = select.poll()
        poll.register(self._stream.fileno(), event)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            if not poll.poll(timeout * 1000):
                raise TimeoutError
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def cancel(self) -> OrbitError | None:
        """Cancel the call that has timed out, one that can wait.

        Returns:
            The error that it is answered with; None where it was carried out just now.

        Raises:
            CommandError: It is not answered, and not known what became of it.
        """
        if self._is_cut:
            raise _timed_out(CANCEL_SECS)
        deadline = time.monotonic() + CANCEL_SECS
        self._send(encode_request(CANCEL_REQUEST.name, CancelRequest(id=self._last_id)), deadline, CANCEL_SECS)
        try:
            self._answer(deadline, CANCEL_SECS, CANCEL_REQUEST.name)
        except OrbitError as error:
            return error
        return None

    def peer_pid(self) -> int:
        """Return the pid of the daemon's process on this machine; 0 where it is not known."""
        from orbitctl.client.transport import UnixStream

        return self._stream.peer_pid() if isinstance(self._stream, UnixStream) else 0

    @property
    def is_local(self) -> bool:
        """Whether the daemon's files are on this machine."""
        from orbitctl.client.transport import UnixStream

        return isinstance(self._stream, UnixStream)

    def wait_for_end(self, timeout: float) -> bool:
        """Return whether the daemon has closed the stream within `timeout` seconds; what comes before is discarded."""
        deadline = time.monotonic() + timeout
        try:
            while self._stream.receive(max(0.001, deadline - time.monotonic())):
                pass
        except TimeoutError:
            return False
        except (OSError, CommandError):
            pass  # it was reset, or ssh has ended
        return True

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def explain(self, message: str) -> NoReturn:
        """Raise the reason for an answer that cannot be decoded: a protocol mismatch, or a defect."""
        theirs = self._daemon_version()
        if theirs is None:
            raise CommandError(
                message,
                ExitCode.PROTOCOL,
                hint="Another program seems to serve this socket; run `orbitctl doctor`.",
            )
        self._check_protocol(theirs)
        raise CommandError(message, hint=f"The daemon runs {theirs.version}, this is orbitctl {VERSION}.")

    def _explain_missing(self, name: str, error: MethodNotFound) -> NoReturn:
        theirs = self._daemon_version()
        if theirs is not None:
            self._check_protocol(theirs)
            if theirs.version != VERSION:
                hint = f"The daemon runs {theirs.version}, this is orbitctl {VERSION}: `orbitctl daemon restart`."
                raise CommandError(error.message, ExitCode.PROTOCOL, hint=hint) from error
            if name in METHODS:
                raise self._older_error(f"`{name}`") from error
        raise from_daemon(error) from error

    def _older_error(self, what: str) -> CommandError:
        """Return the error for a daemon that does not know what this version of orbitctl asks for."""
        restart = "`orbitctl daemon restart` starts the installed one, and the programs in sessions go on"
        return CommandError(
            f"the running orbitd is older than this orbitctl: it does not know {what}",
            ExitCode.PROTOCOL,
            hint=f"{restart}." if self.is_local else f"Bring Orbit up to date there: {restart}.",
        )

    def _check_protocol(self, theirs: _Version) -> None:
        if theirs.protocol_version == PROTOCOL_VERSION:
            return
        older = theirs.protocol_version < PROTOCOL_VERSION
        raise CommandError(
            f"the daemon (orbitd {theirs.version}) speaks protocol {theirs.protocol_version}, "
            f"orbitctl {VERSION} speaks {PROTOCOL_VERSION}",
            ExitCode.PROTOCOL,
            hint="Bring the daemon up to date: `orbitctl daemon restart`." if older else "Upgrade orbitctl.",
        )

    def _daemon_version(self) -> _Version | None:
        try:
            raw = self._exchange(DAEMON_INFO.name, UNSET, self.timeout)
            return msgspec.json.decode(raw, type=_Version)
        except (OrbitError, CommandError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _exchange(
        self,
        name: str,
        params: Any,
        timeout: float,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> bytes:
        # One deadline for the whole exchange: each wait gets what is left of it, so that a daemon that sends a byte
        # now and then cannot stretch the call.
        deadline = time.monotonic() + timeout
        self._last_id += 1
        self._is_cut = True
        self._send(_encode(name, params, self._last_id), deadline, timeout)
        self._is_cut = False
        if on_progress is not None:
            # A notification: a daemon that does not know it says nothing.
            watch = encode_request(WATCH_PROGRESS.name, WatchProgress(id=self._last_id))
            self._send(watch, deadline, timeout)
        return self._answer(deadline, timeout, name, on_progress)

    def _answer(
        self,
        deadline: float,
        timeout: float,
        name: str,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> bytes:
        """Return the result of the last call. Raises: OrbitError, CommandError."""
        while True:
            response = self._response(self._line(deadline, timeout, name))
            if on_progress is not None and response.method == _PROGRESS and isinstance(response.params, Raw):
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # an older one stays on the screen
                    step = msgspec.json.decode(response.params, type=_Step)
                    if step.id == self._last_id:
                        on_progress(step.what, step.done, step.total)
            # An error whose id is null is for a request that the daemon could not parse: ours, since there is only one.
            if response.method is not UNSET or response.id not in (self._last_id, None):
                continue  # a notification, or the late answer to a call that timed out
            if isinstance(response.error, ErrorObject):
                raise from_object(response.error)
            return bytes(response.result) if isinstance(response.result, Raw) else b"null"

    def _response(self, line: bytes) -> Response:
        try:
            return decode_response(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            from orbit_protocol.plain_words import in_plain_words

            raise CommandError(
                f"what answered does not speak Orbit's protocol: {in_plain_words(str(error))}",
                ExitCode.PROTOCOL,
                hint="Another program seems to serve this socket; run `orbitctl doctor`.",
            ) from error

    def _send(self, message: bytes, deadline: float, timeout: float) -> None:
        """Send a whole message, or as much of it as the daemon reads."""
        rest = memoryview(message)
        try:
            while rest:
                self._wait(select.POLLOUT, _seconds_left(deadline, timeout))
                rest = rest[self._stream.send(rest, _seconds_left(deadline, timeout)) :]
        except TimeoutError as error:
            raise _timed_out(timeout) from error
        except (BrokenPipeError, ConnectionResetError):
            # The daemon has refused the message, as one that is too long, and closed. Its answer is in our receive
            # buffer; without one, reading reports the lost connection.
            return

    def _line(self, deadline: float, timeout: float, name: str) -> bytes:
        while not self._lines:
            if not self._receive(deadline, timeout):
                raise CommandError(
                    f"the daemon closed the connection before it answered {name}",
                    ExitCode.UNREACHABLE,
                    hint="It may have been stopped, or have crashed: see `orbitctl daemon logs`.",
                )
        return self._lines.popleft()

    def _receive(self, deadline: float, timeout: float) -> bool:
        """Receive some bytes and split them into lines; return False at the end of the stream."""
        try:
            data = self._receive_or_notice(deadline, timeout)
        except TimeoutError as error:
            raise _timed_out(timeout) from error
        except (BrokenPipeError, ConnectionResetError):
            return False
        for event in self._framer.receive(data):
            if isinstance(event, LineTooLong):
                raise CommandError(f"the daemon's answer is longer than {event.limit} bytes")
            self._lines.append(event.data)
        return bool(data)

    def _receive_or_notice(self, deadline: float, timeout: float) -> bytes:
        """Receive some bytes; where none come for `SILENCE_SECS`, call `on_silence` and go on waiting."""
        left = _seconds_left(deadline, timeout)
        # To find out whether it hangs takes about as long again, and must not stretch the call.
        if (notice := self.on_silence) is not None and left > 2 * SILENCE_SECS:
            try:
                self._wait(select.POLLIN, SILENCE_SECS)
                return self._stream.receive(SILENCE_SECS)
            except TimeoutError:
                self.on_silence = None
                notice()
                left = _seconds_left(deadline, timeout)
        self._wait(select.POLLIN, left)
        return self._stream.receive(left)


class _Cursor(Struct, frozen=True):
    next_cursor: str | None = None


def ask_all(client: Client, method: Method[Any, R], params: Struct, field: str, limit: int | None = None) -> Answer[R]:
    """Call a method that lists, page by page, and return all entries as one answer.

    Args:
        client: A connected client.
        method: A method that takes limit and cursor and answers with `field` and next_cursor.
        params: Its params, without limit and cursor.
        field: The member that holds the entries.
        limit: The most entries wanted.

    Returns:
        The answer as it came if one page holds all, else one like it with the entries of all pages.
    """
    entries: list[Raw] = []
    cursor: str | None = None
    while True:
        wanted = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - len(entries))
        answer = client.ask(method, structs.replace(params, limit=wanted, cursor=cursor))
        cursor = answer.read(_Cursor).next_cursor
        if not entries and (cursor is None or limit == wanted):
            return answer
        # The entries are joined as raw JSON, so that they reach `--json` as they came. Decoding the page as its type
        # first raises for an answer of another shape; its value is not used.
        assert answer.value is not None
        page = msgspec.json.decode(answer.raw, type=dict[str, Raw])
        entries += msgspec.json.decode(page[field], type=list[Raw])
        if cursor is None or len(entries) == limit:
            raw = msgspec.json.encode({field: entries, "next_cursor": cursor})
            return Answer(client, method, raw)


def _encode(name: str, params: Any, request_id: int) -> bytes:
    """Return a request. Raises: CommandError if something in it, as it was typed, is not UTF-8."""
    try:
        return encode_request(name, params, request_id)
    except UnicodeEncodeError as error:
        return encode_request(_decoded(name, error), params, request_id)


def _decoded(value: Any, unencodable: UnicodeEncodeError) -> Any:
    """Return what was typed as text: Python has surrogates for its bytes (PEP 383). Raises: CommandError."""
    try:
        return decoded_message(value)
    except UnicodeError as error:
        raise CommandError(
            f"this is not UTF-8: {path_text(unencodable.object)}",
            ExitCode.USAGE,
            hint="Names are text; only commands, folders, variables and files may hold any bytes.",
        ) from error


def _seconds_left(deadline: float, timeout: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _timed_out(timeout)
    return left


def _timed_out(timeout: float) -> CommandError:
    return CommandError(
        f"no answer within {seconds(timeout)}",
        ExitCode.TIMEOUT,
        hint="Allow more time with --timeout SECS. If `orbitctl status` has no answer either, the daemon hangs: "
        "`orbitctl daemon restart --force` starts another.",
    )
