"""A live session's screen: emulator and journal kept in step.

What comes in is journalled before it is emulated, so that whoever has seen it finds it
again after a crash. A save covers the journal up to a position that is read in the same
breath as the screen is encoded; a restore replays from there.

The emulator is one thread's at a time: `capture` may run in another thread than the rest,
and holds the lock for some milliseconds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from orbit_protocol.errors import NotRunning
from orbitd.live.attachment import Painting
from orbitd.terminal.emulator import Emulator
from orbitd.terminal.journal import Journal
from orbitd.terminal.journal_file import Output, Resize
from orbitd.terminal.saved_state import SavedState

LEAVE_ALTERNATE = b"\x18\x1b\\\x1b[?1049l\x1b[?1047l\x1b[?47l"
_PRIVATE_OFF = "".join(f"\x1b[?{number}l" for number in (9, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026))
MODES_OFF = f"\x18\x1b\\{_PRIVATE_OFF}\x1b[!p\x1b[<8u\x1b[?25h\x1b[r\x1b[m".encode()
"""Leaves every mode that the last program may have left behind; what it showed stays."""

R = TypeVar("R")


class Capture(Struct, frozen=True, kw_only=True):
    """A screen to be saved: portable bytes, the emulator's own state, and what of the journal they cover."""

    repaint: bytes
    native_state: bytes
    position: int
    cols: int
    rows: int
    title: str


class LiveScreen:
    """The screen of a session whose program runs.

    Args:
        emulator: The screen so far; becomes ours.
        journal: Open, and where the screen is; becomes ours.
    """

    def __init__(self, emulator: Emulator, journal: Journal) -> None:
        self._emulator = emulator
        self._journal = journal
        self._lock = threading.Lock()
        self._saved_position = -1
        self._unrecorded: OSError | None = None
        self.is_closed = False

    def read(self, descriptor: int, limit: int) -> bytes:
        """Read a program's output into the journal. Raises: OSError, as os.read does."""
        return self._journal.capture(descriptor, limit)

    def take(self, data: bytes) -> bytes:
        """Show what `read` returned; return the answers to what the program asked meanwhile."""
        with self._lock:
            self._emulator.feed(data)
            return self._emulator.replies()

    @property
    def has_content(self) -> bool:
        """Whether something was shown before."""
        return self.position > 0

    @property
    def position(self) -> int:
        """How much the screen has seen so far, in bytes of its journal."""
        return self._journal.position

    def divide(self, text: str) -> None:
        """Put a line between what was shown before and what comes now."""
        with self._lock:
            if self._emulator.alternate:
                self._show(LEAVE_ALTERNATE)
            columns, _ = self._emulator.size
            row = self._emulator.cursor.row + 1  # taken before the margins' reset, which moves the cursor: DECSTBM
            line = f"{f'-- {text} ':-<{columns}}"
            self._show(MODES_OFF + f"\x1b[{row}H\r\n\x1b[2m{line}\x1b[m\r\n".encode())

    def _show(self, data: bytes) -> None:
        self._journal.append(Output(data=data))
        self._emulator.feed(data)

    def resize(self, cols: int, rows: int) -> None:
        """Change the size."""
        with self._lock:
            self._journal.append(Resize(cols=cols, rows=rows))
            self._emulator.resize(cols, rows)

    def paint(self, scrollback_lines: int = 0) -> Painting:
        """Return bytes that draw the screen as it is now. Raises: NotRunning."""
        with self._open():
            cols, rows = self._emulator.size
            return Painting(data=self._emulator.repaint(scrollback_lines), cols=cols, rows=rows)

    def look(self, work: Callable[[Emulator], R]) -> R:
        """Return what `work` makes of the emulator. May run in any thread. Raises: NotRunning."""
        with self._open():
            return work(self._emulator)

    def capture(self) -> Capture:
        """Return what a snapshot holds. May run in any thread."""
        with self._lock:
            cols, rows = self._emulator.size
            self._unrecorded = self.degraded
            position = self._journal.mark()
            capture = Capture(
                repaint=self._emulator.repaint(),
                native_state=SavedState(native=self._emulator.encode(), position=position).to_bytes(),
                position=position,
                cols=cols,
                rows=rows,
                title=self._emulator.title,
            )
            self._emulator.compress()  # what has been saved is history that is seldom looked at
            return capture

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Hold the lock of a screen that is there."""
        with self._lock:
            if self.is_closed:
                raise NotRunning("The session has just ended", hint="Ask again.")
            yield

    def saved(self, capture: Capture) -> None:
        """Let go of the part of the journal that a committed snapshot covers."""
        with self._lock:
            self._saved_position = capture.position
            self._unrecorded = None
            self._journal.discard_before(capture.position)

    def close(self) -> None:
        """Free the emulator and close the journal; the file stays. Closing again does nothing."""
        with self._lock:
            self.is_closed = True
            self._emulator.close()
            self._journal.close()

    def trim(self, max_bytes: int) -> None:
        """Drop the oldest history until about this much is left."""
        with self._lock:
            self._emulator.trim_scrollback(max_bytes=max_bytes)

    @property
    def history_bytes(self) -> int | None:
        """About what the history takes in memory; None while the alternate screen hides it."""
        return None if self._emulator.alternate else self._emulator.scrollback_bytes

    @property
    def journal_bytes(self) -> int:
        """How much has come since the last save."""
        return self._journal.size

    @property
    def is_saved(self) -> bool:
        """Whether nothing has come since the last save."""
        return self._saved_position == self.position

    @property
    def degraded(self) -> OSError | None:
        """Why some of the output is neither journalled nor saved, or None."""
        return self._journal.degraded or self._unrecorded

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._emulator.size

    @property
    def title(self) -> str | None:
        """The title that the program has set, if any."""
        return self._emulator.title or None

    @property
    def told_folder(self) -> str | None:
        """The folder that the program has told by OSC 7, which is a file:// address."""
        found = urlsplit(self._emulator.cwd)
        return unquote(found.path) or None

    @property
    def answering(self) -> bool:
        """Whether the program's questions are answered here, since no client is there to do it."""
        return self._emulator.answering

    @answering.setter
    def answering(self, on: bool) -> None:
        with self._lock:
            self._emulator.answering = on
