"""Messages in a byte stream, sans I/O: bytes in, messages out.

There are two framings. By itself a message is a line: newline-delimited JSON. A client whose first line is a
header (`Content-Length: 52`) is spoken to in that framing for the life of its connection, both ways: the base protocol
of the Language Server Protocol (3.17, "Base Protocol"), as vscode-jsonrpc writes it.

A framer is fed whatever a transport delivered and returns the messages that are complete. It holds one unfinished
message and never more than its limit of it. `Framer` finds out which framing it is; where that is known already,
`LineFramer` and `HeaderFramer` do by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

MAX_HEADER_BYTES = 8192
"""Of the headers of one message, line endings and all."""


class Line(Struct, frozen=True):
    """One message, without its line ending or its headers. Behind headers it may hold newlines."""

    data: bytes


class LineTooLong(Struct, frozen=True):
    """A message went over the limit. The framer is closed; nothing after this can be framed.

    `complete` says that the message's end has been seen.
    """

    limit: int
    complete: bool


class Malformed(Struct, frozen=True):
    """Where the next message begins cannot be known. The framer is closed; `reason` is a sentence for the peer."""

    reason: str


Event = Line | LineTooLong | Malformed


class LineFramer:
    r"""Splits a byte stream into lines.

    A line ends in `\n`; `\r\n` is accepted; blank lines are skipped.

    Args:
        max_line_bytes: The longest line taken, without its ending.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self._limit = max_line_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._closed = False

    def receive(self, data: bytes | bytearray | memoryview) -> list[Line | LineTooLong]:
        """Take bytes from the transport and return the events that they complete."""
        if self._closed:
            return []
        self._buffer += data
        events: list[Line | LineTooLong] = []
        start = 0
        # The first `_searched` bytes hold no newline: a long line is searched once, not again with each piece of it.
        while (end := self._buffer.find(b"\n", max(start, self._searched))) >= 0:
            if not self._append_line(start, end, events):
                return events
            start = end + 1
        del self._buffer[:start]
        self._searched = len(self._buffer)
        if self._content_end(0, self._searched) > self._limit:
            events.append(self._overflow(complete=False))
        return events

    def end(self) -> list[Line | LineTooLong]:
        """Return what is left at the end of the stream: a last line may lack its ending."""
        events: list[Line | LineTooLong] = []
        if not self._closed:
            self._append_line(0, len(self._buffer), events)
        self._close()
        return events

    def skip(self, data: bytes) -> bool:
        """Take bytes of a line that is too long; return whether it has ended in them."""
        return b"\n" in data

    def frame_all(self, messages: Sequence[bytes]) -> bytes:
        """Return encoded JSON messages as a line each. Raises: NewlineInMessage."""
        return frame_all(messages)

    @property
    def buffered(self) -> int:
        """How many bytes of an unfinished line are held."""
        return len(self._buffer)

    def _content_end(self, start: int, end: int) -> int:
        return end - 1 if end > start and self._buffer[end - 1] == 0x0D else end

    def _append_line(self, start: int, end: int, events: list[Line | LineTooLong]) -> bool:
        """Append the line between two offsets; return False if it was too long."""
        end = self._content_end(start, end)
        if end - start > self._limit:
            events.append(self._overflow(complete=True))
            return False
        line = bytes(memoryview(self._buffer)[start:end])
        if line.strip():
            events.append(Line(line))
        return True

    def _overflow(self, *, complete: bool) -> LineTooLong:
        self._close()
        return LineTooLong(self._limit, complete)

    def _close(self) -> None:
        self._closed = True
        self._buffer = bytearray()
        self._searched = 0


_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
"""What a header's name is made of (RFC 9110, section 5.6.2)."""
_NAME = re.compile(_TOKEN + rb"+")
_CHARSET = re.compile(rb';[ \t]*charset[ \t]*=[ \t]*"?([^";\s]*)', re.IGNORECASE)
_UTF8 = frozenset((b"utf-8", b"utf8"))  # the second is what the base protocol's first version said
_MAX_DIGITS = 18
_BLANK = (b"\n", b"\r\n")


class _Refused(Exception):
    """Headers cannot be followed; the text says why."""


class HeaderFramer:
    r"""Splits a byte stream into bodies, each behind headers that say how long it is.

    Headers end in an empty line. A line ends in `\r\n`; `\n` is accepted; empty lines in front of headers are skipped.
    Names are taken in any case, and headers other than `Content-Length` and `Content-Type` are ignored.

    Args:
        max_body_bytes: The longest body taken.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._limit = max_body_bytes
        self._buffer = bytearray()
        self._searched = 0  # so many bytes of unfinished headers hold no newline
        self._header_bytes = 0  # of the lines that have been read of the next message's headers
        self._length: int | None = None
        self._in_body = False
        self._left = 0  # of a body that is too long
        self._closed = False

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes from the transport and return the events that they complete."""
        if self._closed:
            return []
        self._buffer += data
        events: list[Event] = []
        start = 0
        try:
            while (end := self._read_body(start, events) if self._in_body else self._read_header(start)) > start:
                start = end
        except _Refused as refused:
            self._close()
            return [*events, Malformed(str(refused))]
        if self._closed:
            return events
        del self._buffer[:start]
        self._searched = 0 if self._in_body else len(self._buffer)
        return events

    def end(self) -> list[Event]:
        """Return what is left at the end of the stream: a message that has not come whole is none."""
        is_whole = self._closed or not (self._buffer or self._header_bytes)
        self._close()
        return [] if is_whole else [Malformed("The stream ends within a message")]

    def skip(self, data: bytes) -> bool:
        """Take bytes of a body that is too long; return whether it has ended in them: what is malformed never does."""
        is_known = self._left > 0
        self._left -= len(data)
        return is_known and self._left <= 0

    def frame_all(self, messages: Sequence[bytes]) -> bytes:
        """Return encoded JSON messages, each behind its header."""
        return b"".join([b"Content-Length: %d\r\n\r\n%b" % (len(message), message) for message in messages])

    @property
    def buffered(self) -> int:
        """How many bytes of an unfinished message are held."""
        return len(self._buffer)

    def _read_header(self, start: int) -> int:
        """Read one line of headers; return where it ends, or `start` where its end has not come. Raises: _Refused."""
        end = self._buffer.find(b"\n", max(start, self._searched)) + 1
        if self._header_bytes + (end or len(self._buffer)) - start > MAX_HEADER_BYTES:
            raise _Refused(f"The headers of a message may have {MAX_HEADER_BYTES} bytes")
        if not end:
            return start
        line = bytes(memoryview(self._buffer)[start:end])
        if line not in _BLANK:
            self._header_bytes += len(line)
            self._take_header(line)
        elif self._header_bytes:
            if self._length is None:
                raise _Refused("The headers of a message lack Content-Length")
            self._header_bytes = 0
            self._in_body = True
            self._searched = 0
        return end

    def _take_header(self, line: bytes) -> None:
        # As RFC 9112, section 5: no blank stands before the colon, and no line goes on in the next.
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            raise _Refused("A message is not preceded by headers, such as Content-Length: 52")
        name, value = name.lower(), value.strip()
        if name == b"content-length":
            # Python's int() takes signs, underscores and blanks, and refuses more than 4,300 digits.
            if not value.isdigit():
                raise _Refused("Content-Length is not a number of bytes")
            digits = value.lstrip(b"0")
            length = int(digits or b"0") if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS
            if self._length not in (None, length):
                raise _Refused("Content-Length is given twice, with different numbers")
            self._length = length
        elif name == b"content-type":
            charset = _CHARSET.search(value)
            if charset is not None and charset[1].lower() not in _UTF8:
                raise _Refused("The charset of Content-Type may be utf-8 only")

    def _read_body(self, start: int, events: list[Event]) -> int:
        """Append the body, where it has come whole; return where it ends, or `start`."""
        assert self._length is not None
        end = start + self._length
        if self._length > self._limit:
            self._left = end - len(self._buffer)
            events.append(LineTooLong(self._limit, complete=self._left <= 0))
            self._close()
            return start
        if end > len(self._buffer):
            return start
        events.append(Line(bytes(memoryview(self._buffer)[start:end])))
        self._in_body, self._length = False, None
        # An empty body ends where it begins, which `receive` takes for one that has not come.
        return end if end > start else self._read_header(end)

    def _close(self) -> None:
        self._closed = True
        self._buffer = bytearray()
        self._searched = self._header_bytes = 0


_FIRST_LINES = re.compile(rb"((?:" + _TOKEN + rb"+:[^\n]*\n)*)(.*)", re.DOTALL)
_MAY_BE_HEADER = re.compile(_TOKEN + rb"*(?::.*)?", re.DOTALL)
_LENGTH = re.compile(rb"^content-length:", re.IGNORECASE | re.MULTILINE)


class Framer:
    """Splits a byte stream into messages, in the framing of its first line, and frames what is sent back likewise.

    A first line that only looks like a header (`note: this is text`) is a line, unless headers follow it that end, or
    have a `Content-Length` among them.

    Args:
        max_message_bytes: The longest message taken, without its framing.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._limit = max_message_bytes
        self._first = b""
        self._framing: LineFramer | HeaderFramer | None = None

    def receive(self, data: bytes) -> Sequence[Event]:
        """Take bytes from the transport and return the events that they complete."""
        if self._framing is None:
            # Blank lines are skipped in both framings.
            data = self._first = (self._first + data).lstrip(b"\r\n")
            if (kind := _framing_of(data[: MAX_HEADER_BYTES + 1])) is None:
                return []
            self._framing, self._first = kind(self._limit), b""
        return self._framing.receive(data)

    def end(self) -> Sequence[Event]:
        """Return what is left at the end of the stream."""
        if self._framing is None:
            self._framing = LineFramer(self._limit)
            return [*self._framing.receive(self._first), *self._framing.end()]
        return self._framing.end()

    def skip(self, data: bytes) -> bool:
        """Take bytes of a message that is too long; return whether it has ended in them."""
        return self._framing is not None and self._framing.skip(data)

    def frame_all(self, messages: Sequence[bytes]) -> bytes:
        """Return encoded JSON messages as the client reads them: as lines while it has sent nothing.

        Raises:
            NewlineInMessage: One is a line, and would be two.
        """
        return frame_all(messages) if self._framing is None else self._framing.frame_all(messages)


def _framing_of(first: bytes) -> type[LineFramer | HeaderFramer] | None:
    """Return the framing of a stream that begins so; None while more has to come."""
    found = _FIRST_LINES.match(first)
    assert found is not None  # it matches anything
    headers, rest = found[1], found[2]
    if _LENGTH.search(headers) or (headers and rest.startswith(_BLANK)):
        return HeaderFramer
    if not _MAY_BE_HEADER.fullmatch(rest) and not (headers and rest == b"\r"):
        return LineFramer
    if len(first) > MAX_HEADER_BYTES:
        return HeaderFramer if headers or b":" in rest else LineFramer
    return None


class NewlineInMessage(ValueError):
    """A message holds a newline: what follows it would be read as a message of its own.

    JSON needs none, but raw JSON that a message was made of may have one.
    """

    def __init__(self) -> None:
        super().__init__("a message may not hold a newline")


def frame(message: bytes) -> bytes:
    """Return an encoded JSON message as one line. Raises: NewlineInMessage."""
    if b"\n" in message:
        raise NewlineInMessage
    return message + b"\n"


def frame_all(messages: Sequence[bytes]) -> bytes:
    """Return encoded JSON messages as a line each. Raises: NewlineInMessage."""
    lines = b"\n".join((*messages, b""))
    if lines.count(b"\n") != len(messages):
        raise NewlineInMessage
    return lines
