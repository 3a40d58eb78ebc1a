"""Frames for clients whose windows have another size than their session: when they are drawn, and what is sent.

A frame is drawn once for all clients of a window size (`orbitd.screens.frame`), at most `FRAMES_A_SEC` times a second,
and only while the picture moves: the first change after a pause at once, what follows by a timer. Each client is sent
the rows that differ from those that it was sent last. So one that reads slowly skips frames, and nothing is queued.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from msgspec.structs import replace

from orbit_protocol.errors import OrbitError
from orbit_protocol.terminal_reset import RESET
from orbitd.screens.client import Picture
from orbitd.screens.messages import Framed

FRAMES_A_SEC = 30

AT_ONCE = 8
"""So many sizes are asked for together: while output floods in, a request waits for what is being fed just then."""

SENT_AT_ONCE = 16
RETRY_SECS = 1.0  # as long as a damaged picture waits for its program to be quiet
UPDATE_SECS = 0.2
"""How long a program may take for a synchronized update (mode 2026) until what it has drawn of it is shown."""

# Without autowrap nothing that is printed into the last column wraps, or scrolls the window.
_BEGIN = b"\x1b[?2026h\x1b[?25l\x1b[?7l"
_END = b"\x1b[?7h\x1b[%d;%dH%b\x1b[?2026l"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def draw(frame: Framed, before: Framed | None) -> bytes:
    """Return what makes a window that shows a frame show another one.

    Args:
        frame: What it is to show.
        before: What it shows, a frame of the same size; None where that is not known.

    Returns:
        b"" where both look the same, and did not ring in between. Without `before` it begins with the reset.
    """
    parts = []
    shown = [None] * len(frame.rows) if before is None else before.rows
    for number, (row, old) in enumerate(zip(frame.rows, shown, strict=True), 1):
        if row != (old or b""):
            parts.append(b"\x1b[%d;1H%b%b" % (number, b"\x1b[2K" if old else b"", row))
    if before is None or frame.modes != before.modes:
        parts.append(frame.modes)
    if frame.title != ("" if before is None else before.title):
        parts.append(f"\x1b]2;{_CONTROLS.sub('', frame.title)}\x1b\\".encode())
    # A picture that was rebuilt counts from 0 again.
    if before is not None and frame.bells > before.bells:
        parts.append(b"\a")
    if before is not None and not parts and _cursor(frame) == _cursor(before):
        return b""
    end = _END % (frame.row + 1, frame.column + 1, b"\x1b[?25h" if frame.visible else b"")
    return (RESET if before is None else b"") + _BEGIN + b"".join(parts) + end


def _cursor(frame: Framed) -> tuple[int, int, bool]:
    return frame.column, frame.row, frame.visible


class Client(Protocol):
    """What is sent frames."""

    size: tuple[int, int]
    is_framed: bool
    least_position: int

    def takes_frame(self) -> bool:
        """Return whether a frame would be sent now; where it is only not read yet, `Frames.soon` is called then."""

    def send_frame(self, frame: Framed) -> None:
        """Send a frame of the client's size."""


class Frames:
    """The frames of one session.

    Args:
        picture: The session's.
        clients: Returns all of its clients.
        start_task: Runs a coroutine as a task, and holds it.
    """

    def __init__(
        self,
        picture: Picture,
        clients: Callable[[], Sequence[Client]],
        start_task: Callable[[Coroutine[Any, Any, object]], None],
    ) -> None:
        self._picture, self._clients, self._start_task = picture, clients, start_task
        self._loop = asyncio.get_running_loop()
        # With how often the picture had been replaced when it was drawn.
        self._newest: dict[tuple[int, int], tuple[Framed, int]] = {}
        self._replaced = self._drawn = 0
        self._is_wanted = self._is_drawing = False
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._updating_since: float | None = None

    def soon(self) -> None:
        """Send what is on the screen to the clients that have something else, as soon as the rate allows it."""
        if not any(client.takes_frame() for client in self._clients()):
            return
        self._is_wanted = True
        if self._is_drawing or self._timer is not None:
            return
        delay = self._next_at - self._loop.time()
        if delay > 0:
            self._timer = self._loop.call_later(delay, self._start)
        else:
            self._start()

    def picture_replaced(self) -> None:
        """Use no frame that was drawn before: the picture has changed, maybe without moving on."""
        self._replaced += 1
        self.soon()

    def cancel(self) -> None:
        """Cancel what is scheduled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def newest(self, size: tuple[int, int]) -> Framed | None:
        """Return the newest frame of a size."""
        return self._newest[size][0] if size in self._newest else None

    async def frame(self, size: tuple[int, int], at_least: int) -> Framed:
        """Return the frame for windows of a size, once the picture has reached a position. Raises: OrbitError."""
        replaced, offset = self._replaced, (0, 0)
        if size in self._newest:
            before, drawn_at = self._newest[size]
            if drawn_at == replaced and before.position == self._picture.fed >= at_least:
                return before
            offset = before.left, before.top
            # A picture that is being rebuilt has been further once.
            at_least = max(at_least, before.position)
        self._drawn += 1
        frame = await self._picture.frame(at_least, size, offset)
        if frame.is_updating:  # where the cursor is just now says nothing of where the next part should be
            frame = replace(frame, left=offset[0], top=offset[1])
        self._newest[size] = frame, replaced
        shown = {client.size for client in self._clients() if client.is_framed}
        for unused in self._newest.keys() - shown:
            del self._newest[unused]
        return frame

    def _start(self) -> None:
        self._timer = None
        self._is_drawing = True
        self._start_task(self._draw())

    async def _draw(self) -> None:
        started, drawn, self._is_wanted = self._loop.time(), self._drawn, False
        pause = 0.0
        try:
            sizes = list({client.size for client in self._clients() if client.takes_frame()})
            for start in range(0, len(sizes), AT_ONCE):
                await self._draw_sizes(sizes[start : start + AT_ONCE])
        except OrbitError:  # damaged, or refused
            self._is_wanted, pause = True, RETRY_SECS
        finally:
            self._is_drawing = False
        # No more than half of the time is spent on them, however many sizes there are and however large they are.
        now = self._loop.time()
        if self._drawn != drawn:
            self._next_at = max(self._next_at, started + 1 / FRAMES_A_SEC, now + (now - started))
        self._next_at = max(self._next_at, now + pause)
        if self._is_wanted:
            self.soon()

    async def _draw_sizes(self, sizes: list[tuple[int, int]]) -> None:
        """Draw frames, and send them. Raises: OrbitError, once those that could be drawn are sent."""
        least = [max((each.least_position for each in self._of_size(size)), default=0) for size in sizes]
        fed = self._picture.fed
        drawing = (self.frame(size, max(at_least, fed)) for size, at_least in zip(sizes, least, strict=True))
        error = None
        ready = list[tuple[Client, tuple[int, int], Framed]]()
        for size, frame in zip(sizes, await asyncio.gather(*drawing, return_exceptions=True), strict=True):
            if isinstance(frame, BaseException):
                error = frame
            elif self._is_half_drawn(frame):
                self._is_wanted = True
                self._next_at = self._loop.time() + 1 / FRAMES_A_SEC
            else:
                ready += [(client, size, frame) for client in self._of_size(size)]
        # All of them first: what is sent to one client may wait on the connection that another one has, too.
        for number, (client, size, frame) in enumerate(ready, 1):
            if client.size == size:
                client.send_frame(frame)
            if number % SENT_AT_ONCE == 0:
                await asyncio.sleep(0)
        if error is not None:
            raise error

    def _is_half_drawn(self, frame: Framed) -> bool:
        """Return whether the program is about to draw the rest, as far as its time for that has not passed."""
        if not frame.is_updating:
            self._updating_since = None
            return False
        if self._updating_since is None:
            self._updating_since = self._loop.time()
        return self._loop.time() - self._updating_since < UPDATE_SECS

    def _of_size(self, size: tuple[int, int]) -> list[Client]:
        return [client for client in self._clients() if client.size == size and client.takes_frame()]
