"""The way of messages between an attached client and the daemon; nothing here blocks.

`DaemonConnection` keeps what the socket does not take yet, and the loop asks `has_unsent`.
`InputQueue` keeps what was typed and is not sent yet: a key goes at once, a paste at the pace of the
program that reads it.
"""

from __future__ import annotations

import binascii
from typing import NamedTuple

from orbit_protocol.errors import Busy, Cancelled, ShuttingDown
from orbit_protocol.json_text import MAX_NESTING, is_nested_too_deep
from orbitctl.client.light_json import encode, scan
from orbitctl.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Callable, Mapping
    from typing import Any

    from orbit_protocol.errors import ErrorMember
    from orbitctl.client.transport import Stream

# An attached client lives for weeks, and each window has one: so it has no msgspec, which takes as long to import as
# all the rest of it and half as much memory. That the names and params here are the protocol's is shown by a test.
SESSION_ATTACH, SESSION_LEAVE, SESSION_RESIZE = "session.attach", "session.leave", "session.resize"
SESSION_INPUT, SESSION_SCREEN, CANCEL_REQUEST = "session.input", "session.screen", "$/cancelRequest"
OUTPUT, REPAINT, EXITED, DETACHED = "session.output", "session.repaint", "session.exited", "session.detached"

MAX_MESSAGE_BYTES = 1 << 30
FLOOD_BYTES = 8 * 1024 * 1024
"""After so much output msgspec is imported all the same: it decodes base64 five times as fast as the standard library
does (2 and 10 ms a MB), and takes about 50 ms to import."""
MAX_READS = 4
"""Reads of the socket in one turn of the loop: then keys and signals are looked at again."""

MAX_NOTIFICATION_BYTES = 64
"""Up to this much input is sent as a notification, which costs no answer: a key, not a paste."""
MAX_UNCONFIRMED_BYTES = 4 * 1024
"""How much is sent as notifications before a request shows that it was taken. So much can be typed, Ctrl-C above all,
while the user's terminal is stopped and answers are not read."""
CHUNK_BYTES = 16 * 1024
MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""Of a paste that the program does not read; beyond that the terminal is not read, and the detach key waits in it."""
RETRY_SECONDS = 0.05
_MAY_BE_TAKEN_LATER = frozenset({Busy.code, ShuttingDown.code, Cancelled.code})


class Notice(NamedTuple):
    """The params of every notification: each has some of these."""

    attachment_id: str = ""
    data: bytes = b""
    exit_code: int | None = None
    exit_signal: int | None = None
    cols: int = 0
    rows: int = 0
    reason: str = ""
    lost_lines: int = 0
    cursor_row: int = 0
    history_line: int | None = None
    session_id: str | None = None


class AnswerError(NamedTuple):
    """The `error` member of an answer."""

    code: int
    message: str
    data: dict[str, Any] | None = None


class Message(NamedTuple):
    """A notification, which has a method, or the answer to a request."""

    id: int | None = None
    method: str = ""
    params: Notice = Notice()
    result: Any = None
    error: AnswerError | None = None


_TEXT, _NUMBER, _MAYBE_NUMBER = (str,), (int,), (int, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("attachment_id", "data", "reason"), _TEXT),
    **dict.fromkeys(("cols", "rows", "lost_lines", "cursor_row"), _NUMBER),
    **dict.fromkeys(("exit_code", "exit_signal", "history_line"), _MAYBE_NUMBER),
    "session_id": (str, type(None)),
}


def bytes_of(text: str) -> bytes:
    """Return the bytes that stand in base64 in a message. Raises: ValueError."""
    return binascii.a2b_base64(text, strict_mode=True)


def text_of(data: bytes) -> str:
    """Return bytes as they stand in a message: in base64."""
    return binascii.b2a_base64(data, newline=False).decode()


class _Decoder:
    """Decodes messages, and is quicker once there are many of them."""

    def __init__(self) -> None:
        self._decoded_bytes = 0
        self._is_flood = False
        self._loads: Callable[[bytes], Any] = _loads
        self._bytes_of: Callable[[str], bytes] = bytes_of

    def decode(self, line: bytes) -> Message:
        """Return the message in a line. Raises: ValueError, TypeError, LookupError, RecursionError."""
        if is_nested_too_deep(line):
            raise ValueError(f"JSON is nested deeper than {MAX_NESTING}")
        self._decoded_bytes += len(line)
        if self._decoded_bytes > FLOOD_BYTES and not self._is_flood:
            self._is_flood = True
            self._use_msgspec()
        message = self._loads(line)
        method, error, request_id = message.get("method", ""), message.get("error"), message.get("id")
        if not isinstance(request_id, _MAYBE_NUMBER) or not isinstance(method, str):
            raise TypeError("id or method has another type than it should")
        if method:
            params = message.get("params") or {}
            return Message(method=method, params=self._notice(params))
        if error is not None:
            types = zip((error["code"], error["message"], error.get("data")), (int, str, dict | None), strict=True)
            if not all(isinstance(value, kind) for value, kind in types):
                raise TypeError("the error has members of other types than it should")
            error = AnswerError(error["code"], error["message"], error.get("data"))
        return Message(id=request_id, result=message.get("result"), error=error)

    def _notice(self, params: dict[str, Any]) -> Notice:
        known = {name: value for name, value in params.items() if name in _TYPES}
        for name, value in known.items():
            if not isinstance(value, _TYPES[name]):
                raise TypeError(f"{name} has another type than it should")
        if "data" in known:
            known["data"] = self._bytes_of(known["data"])
        return Notice(**known)

    def _use_msgspec(self) -> None:
        try:
            import msgspec
        except ImportError:  # the installation has been replaced since
            return
        self._loads = msgspec.json.decode
        self._bytes_of = lambda text: msgspec.convert(text, bytes)


def _loads(line: bytes) -> Any:
    text = line.decode()
    value, end = scan(text)
    if text[end:].strip():
        raise ValueError("something follows the JSON of a message")
    return value


class ConnectionLost(Exception):
    """The daemon has closed the connection, or what it sends cannot be read."""


class DaemonConnection:
    """A non-blocking connection.

    Args:
        stream: A connected stream; the connection closes it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = _Decoder()
        self._unfinished = bytearray()  # a line whose rest has not come
        self._unsent = bytearray()
        self._last_id = 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._stream.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether bytes wait for the socket to become writable."""
        return bool(self._unsent)

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Call a method without an answer. Raises: ConnectionLost."""
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def request(self, method: str, params: Mapping[str, Any]) -> int:
        """Call a method; return the id that its answer will have. Raises: ConnectionLost."""
        self._last_id += 1
        self._send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        return self._last_id

    def _send(self, message: dict[str, Any]) -> None:
        self._unsent += encode(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send as much as the socket takes. Raises: ConnectionLost."""
        try:
            while self._unsent:
                # A bytearray cannot be resized while a memoryview of it exists, so the view ends before `del`.
                with memoryview(self._unsent) as unsent:
                    sent = self._stream.send(unsent, 0)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionLost(error.strerror) from error

    def receive(self) -> list[Message]:
        """Return the messages that have come. Raises: ConnectionLost."""
        messages: list[Message] = []
        try:
            for _ in range(MAX_READS):
                data = self._stream.receive(0)
                if not data:
                    break
                messages += [self._decoder.decode(line) for line in self._lines(data)]
        except BlockingIOError:
            return messages
        # What is no JSON, or none of ours, ends the connection: ValueError is that of decoders and of UTF-8, too.
        except (OSError, CommandError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ConnectionLost(str(error)) from error
        # At the end of the stream the last messages come first, such as "exited"; the end is seen again by the
        # next call, since recv(2) goes on returning nothing.
        if not data and not messages:
            raise ConnectionLost("the daemon has closed the connection")
        return messages

    def _lines(self, data: bytes) -> list[bytes]:
        """Return the lines that some bytes complete, without blank ones. Raises: ConnectionLost."""
        complete, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._unfinished += data
            if len(self._unfinished) > MAX_MESSAGE_BYTES:
                raise ConnectionLost(f"a message is longer than {MAX_MESSAGE_BYTES} bytes")
            return []
        lines = (bytes(self._unfinished) + complete).split(b"\n")
        self._unfinished = bytearray(rest)
        return [line for line in lines if line.strip()]

    def close(self) -> None:
        """Close the connection, which ends the attachment."""
        self._stream.close()


class InputQueue:
    """What was typed, on its way to the program of one attachment.

    Input is sent in chunks, each answered before the next is sent. An answer means that the program's terminal has
    taken the chunk; an error says how much of it was taken, and what is busy is sent again, without that. A chunk
    that is not answered is in doubt, and is never sent again.

    A key is sent as a notification, which costs no answer. Since the daemon keeps input in order, the answer to a later
    request means that the key has been taken too: one request follows `MAX_UNCONFIRMED_BYTES`, and one `finish`.

    Attributes:
        retry_at: When `retry` is due, on the monotonic clock; None if it is not.
    """

    def __init__(self) -> None:
        self._connection: DaemonConnection | None = None
        self._attachment_id = ""
        self._queued = bytearray()
        self._chunk = b""  # in flight, under the id of the request
        self._request_id: int | None = None
        self._unconfirmed = 0  # bytes of notifications that no answer has confirmed
        self._refused = 0  # bytes that were refused for good since `finish`
        self._is_finishing = self._is_cancelled = False
        self.retry_at: float | None = None

    @property
    def queued_bytes(self) -> int:
        """How many bytes have not been sent."""
        return len(self._queued)

    @property
    def is_full(self) -> bool:
        """Whether no more should be read from the user now."""
        return len(self._queued) >= MAX_QUEUED_BYTES

    @property
    def not_taken(self) -> int:
        """How many bytes the program's terminal has not taken, or is not known to have taken."""
        return len(self._queued) + len(self._chunk) + self._unconfirmed + self._refused

    @property
    def is_finished(self) -> bool:
        """Whether nothing more can be found out about what was typed."""
        return self._request_id is None and (self._is_cancelled or not (self._queued or self._unconfirmed))

    def start(self, connection: DaemonConnection, attachment_id: str) -> None:
        """Send to an attachment from now on, what is queued first. Raises: ConnectionLost."""
        self._connection, self._attachment_id = connection, attachment_id
        self._send()

    def pause(self) -> None:
        """Queue what is typed until `start`; the connection stays, and what was sent on it will be answered."""
        self._connection = None

    def stop(self) -> None:
        """Queue what is typed until `start`: the connection is lost, and what was not answered in doubt."""
        self._connection, self._request_id, self._chunk, self.retry_at = None, None, b"", None
        self._unconfirmed = 0

    def put(self, data: bytes) -> None:
        """Add what was typed, and send it if it can be sent now. Raises: ConnectionLost."""
        self._queued += data
        self._send()

    def finish(self) -> None:
        """Send all that is queued so that it is answered. Raises: ConnectionLost."""
        self._is_finishing = True
        self._send()

    def cancel(self) -> None:
        """Send nothing more, and take back what was sent and is not taken. Raises: ConnectionLost."""
        self._is_cancelled, self.retry_at = True, None
        if self._connection is not None and self._request_id is not None:
            self._connection.notify(CANCEL_REQUEST, {"id": self._request_id})

    def handle_answer(self, request_id: int, error: ErrorMember | None, now: float) -> None:
        """Send the next chunk; after an error, what is left of this one, where that may be taken later.

        Raises:
            ConnectionLost: The daemon has gone.
        """
        if request_id != self._request_id:
            return
        chunk, self._chunk, self._request_id = self._chunk, b"", None
        if error is None:
            self._unconfirmed = 0
            self._send()
            return
        data = error.data or {}
        rest = chunk[data.get("written", 0) :]
        # What was typed before is taken first: all of it, if anything of this was.
        self._unconfirmed = min(
            self._unconfirmed, 0 if len(rest) < len(chunk) else data.get("ahead", self._unconfirmed)
        )
        if error.code in _MAY_BE_TAKEN_LATER:
            self._queued[:0] = rest  # before what was typed meanwhile
            self.retry_at = None if self._is_cancelled else now + RETRY_SECONDS
        else:
            self._refused += len(rest) if self._is_finishing else 0
            self._send()

    def retry(self) -> None:
        """Send again what the program did not take. Raises: ConnectionLost."""
        self.retry_at = None
        self._send()

    def _send(self) -> None:
        # Only one chunk is in flight: with two, the first could be refused and the second accepted.
        is_waiting = self._request_id is not None or self.retry_at is not None
        if self._connection is None or is_waiting or self._is_cancelled:
            return
        size = len(self._queued)
        if not size and not (self._is_finishing and self._unconfirmed):
            return
        self._chunk = bytes(self._queued[:CHUNK_BYTES])
        params = {"attachment_id": self._attachment_id, "data": text_of(self._chunk)}
        is_key = size <= MAX_NOTIFICATION_BYTES and self._unconfirmed + size <= MAX_UNCONFIRMED_BYTES
        if is_key and not self._is_finishing:
            self._queued.clear()
            self._chunk = b""
            self._unconfirmed += size
            self._connection.notify(SESSION_INPUT, params)
        else:
            del self._queued[:CHUNK_BYTES]
            self._request_id = self._connection.request(SESSION_INPUT, params)
