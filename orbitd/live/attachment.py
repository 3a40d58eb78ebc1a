"""One client at one session: what it is sent, and what happens when it does not read.

An attachment opens (nothing is sent: its first screen is not painted yet), waits for the
answer of its own attach to be written (what is sent meanwhile is kept), follows the output,
falls behind (nothing is sent until the client has read everything; then the screen is
painted once), and ends. It ends once, for whatever reason, and leaves nothing with the
connection.
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
from orbitd.rpc.connection import Connection


class State(enum.Enum):
    """Where an attachment is in its life."""

    OPENING = enum.auto()
    WAITING = enum.auto()
    FOLLOWING = enum.auto()
    BEHIND = enum.auto()
    ENDED = enum.auto()


class Painting(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that draw a screen, and the size that they draw it for."""

    data: bytes
    cols: int
    rows: int


class Attachment:
    """A client's place at a session.

    Args:
        attachment_id: Known to that client only.
        connection: Where it listens.
        read_only: It may neither type nor lead the size.
        size: Columns and rows of its window.
        paint: Draws the session's screen as it is now.
        on_end: Called once when it has ended.
    """

    def __init__(
        self,
        attachment_id: str,
        connection: Connection,
        *,
        read_only: bool,
        size: tuple[int, int],
        paint: Callable[[], Painting],
        on_end: Callable[[Attachment], None],
    ) -> None:
        self.id = attachment_id
        self.connection = connection
        self.read_only = read_only
        self.size = size
        self._paint = paint
        self._on_end = on_end
        self._state = State.OPENING
        self._kept: list[bytes] = []
        connection.on_close.append(self.end)
        connection.on_drained.append(self._drained)

    def open(self) -> None:
        """Keep what comes from now on until `begin` is called: the first screen is being painted.

        Raises:
            NotRunning: The attachment has ended already: its client, its session or somebody else wanted that.
        """
        if self._state is State.ENDED:
            raise NotRunning("The attachment was ended before it began", hint="Look at the session, then attach again.")
        self._state = State.WAITING

    def begin(self) -> None:
        """Follow the output: the answer to the attach has been written."""
        if self._state is State.WAITING:
            self._state = State.FOLLOWING
        kept, self._kept = self._kept, []
        for message in kept:
            self.connection.send(message)

    def output(self, data: bytes) -> None:
        """Pass output on, unless the client is behind."""
        if self._state in (State.WAITING, State.FOLLOWING):
            self._send(_notice(OUTPUT, OutputNotice(attachment_id=self.id, data=data)))

    def repaint(self) -> None:
        """Send the whole screen; a client that is behind gets it when it has caught up."""
        if self._state in (State.WAITING, State.FOLLOWING):
            painting = self._paint()
            notice = RepaintNotice(attachment_id=self.id, data=painting.data, cols=painting.cols, rows=painting.rows)
            self._send(_notice(REPAINT, notice))

    def exited(self, exit_code: int | None, exit_signal: int | None) -> None:
        """Send the last screen to a client that was behind, tell it the end, and end."""
        if self._state is State.BEHIND:
            self._state = State.FOLLOWING
            self.repaint()
        self._send(_notice(EXITED, ExitedNotice(attachment_id=self.id, exit_code=exit_code, exit_signal=exit_signal)))
        self.end()

    def put_off(self) -> None:
        """Tell the client that somebody ended its attachment, and end."""
        self._send(_notice(DETACHED, DetachedNotice(attachment_id=self.id)))
        self.end()

    def end(self) -> None:
        """Send nothing more; what waits for the answer of the attach is still sent after it. Again does nothing."""
        if self._state is State.ENDED:
            return
        self._state = State.ENDED
        self.connection.on_drained.remove(self._drained)
        if self.end in self.connection.on_close:  # else it is being closed
            self.connection.on_close.remove(self.end)
        self._on_end(self)

    def _send(self, message: bytes) -> None:
        if self._state is State.WAITING:
            self._kept.append(message)
        elif self._state is not State.OPENING:
            self.connection.send(message)
            if self.connection.is_congested:
                self._state = State.BEHIND

    def _drained(self) -> None:
        if self._state is State.BEHIND:
            self._state = State.FOLLOWING
            self.repaint()


N = TypeVar("N", bound=msgspec.Struct)


def _notice(notification: Notification[N], params: N) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "method": notification.name, "params": params})
