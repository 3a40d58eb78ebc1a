"""One client attached to one session: what it is sent, and what happens when it does not read.

An attachment goes through the states of `State`, and ends once, whatever the reason. At its
end it removes its callbacks from the connection.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeVar

import msgspec

from orbit_protocol.errors import NotRunning
from orbit_protocol.notifications import (
    DETACHED,
    EXITED,
    OUTPUT,
    REPAINT,
    DetachedNotice,
    ExitedNotice,
    Notification,
    OutputNotice,
    RepaintNotice,
)
from orbitd.rpc.connection import MAX_UNSENT_BYTES, Connection


class State(enum.Enum):
    """What is done with messages for the client."""

    PREPARING = enum.auto()  # dropped: its first repaint is not made yet, and will show what they change
    QUEUEING = enum.auto()  # kept until the answer to its attach has been written
    OVERFLOWED = enum.auto()  # dropped: too much came before that answer; one repaint will follow it
    STREAMING = enum.auto()  # sent
    BEHIND = enum.auto()  # dropped until it has read everything; then one repaint replaces them
    ENDED = enum.auto()


class Repaint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that draw a screen, and the size that they are for."""

    data: bytes
    cols: int
    rows: int


class Attachment:
    """A client's attachment to a session.

    Args:
        attachment_id: Unique in the daemon.
        connection: The client's.
        read_only: It may neither type nor own the size.
        size: Columns and rows of its window.
        repaint: Draws the session's screen as it is now.
        on_end: Called once when it has ended.
    """

    def __init__(
        self,
        attachment_id: str,
        connection: Connection,
        *,
        read_only: bool,
        size: tuple[int, int],
        repaint: Callable[[], Repaint],
        on_end: Callable[[Attachment], None],
    ) -> None:
        self.id = attachment_id
        self.connection = connection
        self.read_only = read_only
        self.size = size
        self._repaint = repaint
        self._on_end = on_end
        self._state = State.PREPARING
        self._queued: list[bytes] = []
        self._queued_bytes = 0
        connection.on_close.append(self.end)
        connection.on_drained.append(self._on_drained)

    def start_queueing(self) -> None:
        """Queue messages from now on until `start_streaming`: the first repaint is about to be made.

        Raises:
            NotRunning: The attachment has ended: the client left, the program ended, or it was detached.
        """
        if self._state is State.ENDED:
            raise NotRunning("The attachment was ended before it began", hint="Look at the session, then attach again.")
        self._state = State.QUEUEING

    def start_streaming(self) -> None:
        """Send what is queued, then every message at once: the answer to the attach has been written."""
        if self._state is State.QUEUEING:
            self._state = State.STREAMING
        elif self._state is State.OVERFLOWED:
            self._state = State.STREAMING
            self.send_repaint()
        # Also where it has ended meanwhile: the client then still gets the notification that says so.
        queued, self._queued = self._queued, []
        for message in queued:
            self.connection.send(message)

    def send_output(self, data: bytes) -> None:
        """Send output, unless the client is behind."""
        if self._takes_more():
            self._send(_encode(OUTPUT, OutputNotice(attachment_id=self.id, data=data)))

    def send_repaint(self) -> None:
        """Send the whole screen; a client that is behind gets it when it has read everything."""
        if self._takes_more():
            repaint = self._repaint()
            notice = RepaintNotice(attachment_id=self.id, data=repaint.data, cols=repaint.cols, rows=repaint.rows)
            self._send(_encode(REPAINT, notice))

    def send_exited(self, exit_code: int | None, exit_signal: int | None) -> None:
        """Send the last screen to a client that is behind, then the exit, and end."""
        # The screen is closed after this: `on_drained` and `start_streaming` could not draw it any more.
        if self._state in (State.BEHIND, State.OVERFLOWED):
            self._state = State.STREAMING if self._state is State.BEHIND else State.QUEUEING
            self.send_repaint()
        self._send(_encode(EXITED, ExitedNotice(attachment_id=self.id, exit_code=exit_code, exit_signal=exit_signal)))
        self.end()

    def detach(self) -> None:
        """Notify the client that its attachment was ended by a request of another one, and end."""
        self._send(_encode(DETACHED, DetachedNotice(attachment_id=self.id)))
        self.end()

    def end(self) -> None:
        """Send nothing more, but what is queued for after the attach's answer. Again does nothing."""
        if self._state is State.ENDED:
            return
        self._state = State.ENDED
        self.connection.on_drained.remove(self._on_drained)
        # A connection that is being lost has replaced its list, and is calling this from the old one.
        if self.end in self.connection.on_close:
            self.connection.on_close.remove(self.end)
        self._on_end(self)

    def _takes_more(self) -> bool:
        """Return whether output and repaints are sent or queued, and not dropped."""
        # In a batch the answer waits for the requests after the attach, which may be a `session.wait` of a day.
        if self._state is State.QUEUEING and self._queued_bytes > MAX_UNSENT_BYTES:
            self._state = State.OVERFLOWED
            self._queued, self._queued_bytes = [], 0
        return self._state in (State.QUEUEING, State.STREAMING)

    def _send(self, message: bytes) -> None:
        if self._state in (State.QUEUEING, State.OVERFLOWED):
            self._queued.append(message)
            self._queued_bytes += len(message)
        elif self._state is not State.PREPARING:
            self.connection.send(message)
            # What has been sent stays in the transport's buffer, in order. Only what comes from now on is
            # dropped, so the buffer is bounded, and the client never misses a part in the middle unnoticed:
            # the repaint replaces all of it.
            if self.connection.is_congested:
                self._state = State.BEHIND

    def _on_drained(self) -> None:
        if self._state is State.BEHIND:
            self._state = State.STREAMING
            self.send_repaint()


N = TypeVar("N", bound=msgspec.Struct)


def _encode(notification: Notification[N], params: N) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "method": notification.name, "params": params})
