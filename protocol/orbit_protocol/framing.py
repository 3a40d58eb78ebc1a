"""Newline-delimited JSON, sans I/O: bytes in, lines out.

`LineFramer` is fed whatever a transport delivered and returns the messages that are
complete. It holds one unfinished line and never more than `max_line_bytes` of it.
"""

from __future__ import annotations

from msgspec import Struct


class Line(Struct, frozen=True):
    """One message, without its line ending."""

    data: bytes


class LineTooLong(Struct, frozen=True):
    """A line went over the limit. The framer is closed; nothing after this can be framed.

    `complete` says that the line's ending has been seen.
    """

    limit: int
    complete: bool


Event = Line | LineTooLong


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

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes from the transport and return the events that they complete."""
        if self._closed:
            return []
        self._buffer += data
        events: list[Event] = []
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

    def end(self) -> list[Event]:
        """Return what is left at the end of the stream: a last line may lack its ending."""
        events: list[Event] = []
        if not self._closed:
            self._append_line(0, len(self._buffer), events)
        self._close()
        return events

    @property
    def buffered(self) -> int:
        """How many bytes of an unfinished line are held."""
        return len(self._buffer)

    def _content_end(self, start: int, end: int) -> int:
        return end - 1 if end > start and self._buffer[end - 1] == 0x0D else end

    def _append_line(self, start: int, end: int, events: list[Event]) -> bool:
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
