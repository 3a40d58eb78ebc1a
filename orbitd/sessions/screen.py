"""A live session's screen: its emulator, and the journal of what the emulator has been fed.

Output is journalled before it is emulated, so that whatever a client has seen is there again
after a crash. A save covers the journal up to a position that is read under the same lock
under which the screen is encoded; a restore replays from there.

An emulator is used by one thread at a time: `capture`, `repaint` and `inspect` may run in
another thread than the rest, and hold the lock for some milliseconds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from msgspec import Struct

from orbit_protocol.errors import NotRunning
from orbit_protocol.types import MAX_PATH_LENGTH
from orbitd.screens.emulator import MAX_SCROLLBACK_LINES, Emulator
from orbitd.screens.model import TerminalError
from orbitd.sessions.attachment import Repaint
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import Output, Resize
from orbitd.sessions.saved_state import SavedState

# CAN and ST end an unfinished sequence, as the last program may have left one.
LEAVE_ALTERNATE = b"\x18\x1b\\\x1b[?1049l\x1b[?1047l\x1b[?47l"
_PRIVATE_OFF = "".join(f"\x1b[?{number}l" for number in (9, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026))
RESET_MODES = f"\x18\x1b\\{_PRIVATE_OFF}\x1b[!p\x1b[<8u\x1b[?25h\x1b[r\x1b[m".encode()
"""Resets every mode that the last program may have set; the text on the screen stays."""

R = TypeVar("R")


class Capture(Struct, frozen=True, kw_only=True):
    """A screen to save: portable bytes, the emulator's own state, and the journal's position that both cover."""

    repaint: bytes
    native_state: bytes
    position: int
    cols: int
    rows: int
    title: str


class LiveScreen:
    """The screen of a session whose program runs, or is about to run.

    Args:
        emulator: With what the screen has shown so far; `close` closes it.
        journal: Open, and at the same position as the screen; `close` closes it.
    """

    def __init__(self, emulator: Emulator, journal: Journal) -> None:
        self._emulator = emulator
        self._journal = journal
        # Held by whatever changes the emulator or reads all of it; the properties below read single values
        # without it. The event loop waits for it in `resize` while a thread works. It does not in `feed`,
        # since a session pauses reading meanwhile.
        self._lock = threading.Lock()
        self._saved_position = -1
        self._unsaved_error: OSError | None = None
        self.is_closed = False

    def read(self, descriptor: int, limit: int) -> bytes:
        """Read a program's output into the journal. Raises: OSError, as os.read does."""
        return self._journal.capture(descriptor, limit)

    def feed(self, data: bytes) -> bytes:
        """Emulate what `read` returned; return the answers to the program's queries in it."""
        with self._lock:
            self._emulator.feed(data)
            return self._emulator.replies()

    @property
    def has_content(self) -> bool:
        """Whether there has been any output, from any program of the session."""
        return self.position > 0

    @property
    def position(self) -> int:
        """The journal's position: how much output the screen has been fed so far, in bytes of records."""
        return self._journal.position

    def print_divider(self, text: str) -> None:
        """Print a line across the screen, between the last program's output and the next one's."""
        with self._lock:
            if self._emulator.alternate:
                self._journal_and_feed(LEAVE_ALTERNATE)
            columns, _ = self._emulator.size
            row = self._emulator.cursor.row + 1  # read before RESET_MODES: DECSTBM moves the cursor
            line = f"{f'-- {text} ':-<{columns}}"
            self._journal_and_feed(RESET_MODES + f"\x1b[{row}H\r\n\x1b[2m{line}\x1b[m\r\n".encode())

    def _journal_and_feed(self, data: bytes) -> None:
        self._journal.append(Output(data=data))
        self._emulator.feed(data)

    def resize(self, cols: int, rows: int) -> None:
        """Change the size."""
        with self._lock:
            self._journal.append(Resize(cols=cols, rows=rows))
            self._emulator.resize(cols, rows)

    def repaint(self, scrollback_lines: int = 0) -> Repaint:
        """Return bytes that draw the screen as it is now. May run in any thread. Raises: NotRunning."""
        with self._locked_open():
            cols, rows = self._emulator.size
            return Repaint(data=self._emulator.repaint(scrollback_lines), cols=cols, rows=rows)

    def inspect(self, read: Callable[[Emulator], R]) -> R:
        """Return what `read` returns for the emulator. May run in any thread. Raises: NotRunning."""
        with self._locked_open():
            return read(self._emulator)

    def capture(self) -> Capture:
        """Return what a snapshot holds. May run in any thread."""
        with self._lock:
            cols, rows = self._emulator.size
            # A degraded journal may start a new file in `mark`, and then has no error any more. But until this
            # capture is committed, what was not recorded is in memory only: the error stays reported.
            self._unsaved_error = self.degraded
            # Position and state belong together: no output can come in between, since `feed` waits for the
            # lock. Were the position later than the state, a restore would skip output.
            position = self._journal.mark()
            try:
                state = self._emulator.encode()
                repaint = self._emulator.repaint(state=state)
            except TerminalError:
                # The library refuses: an unfinished control string is too long, say. The portable bytes have the
                # history too then, since nothing else of it is saved.
                state, repaint = b"", self._emulator.repaint(MAX_SCROLLBACK_LINES)
            capture = Capture(
                repaint=repaint,
                native_state=SavedState(native=state, position=position).to_bytes(),
                position=position,
                cols=cols,
                rows=rows,
                title=self._emulator.title,
            )
            self._emulator.compress()  # history that has been saved is seldom read again
            return capture

    @contextlib.contextmanager
    def _locked_open(self) -> Iterator[None]:
        """Hold the lock. Raises: NotRunning, if the screen was closed before it was got."""
        with self._lock:
            if self.is_closed:
                raise NotRunning("The session has just ended", hint="Ask again.")
            yield

    def mark_saved(self, capture: Capture) -> None:
        """Discard the part of the journal that a committed snapshot covers."""
        with self._lock:
            self._saved_position = capture.position
            self._unsaved_error = None
            self._journal.discard_before(capture.position)

    def close(self) -> None:
        """Free the emulator and close the journal; the file stays. Closing again does nothing."""
        with self._lock:
            self.is_closed = True
            self._emulator.close()
            self._journal.close()

    def trim(self, max_bytes: int) -> None:
        """Drop the oldest history until about `max_bytes` are left."""
        with self._lock:
            self._emulator.trim_scrollback(max_bytes=max_bytes)

    @property
    def history_bytes(self) -> int | None:
        """The history's approximate size in memory; None while the alternate screen hides it."""
        return None if self._emulator.alternate else self._emulator.scrollback_bytes

    @property
    def journal_bytes(self) -> int:
        """Bytes of records since the last save."""
        return self._journal.size

    @property
    def is_saved(self) -> bool:
        """Whether there has been no output and no resize since the last save."""
        return self._saved_position == self.position

    @property
    def degraded(self) -> OSError | None:
        """Why some of the output is neither journalled nor saved, or None."""
        return self._journal.degraded or self._unsaved_error

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._emulator.size

    @property
    def title(self) -> str | None:
        """The title that the program has set, if any."""
        return self._emulator.title or None

    @property
    def osc7_cwd(self) -> bytes | None:
        """The working directory that the program has reported by OSC 7, as a file:// URL, if any."""
        try:
            path = unquote_to_bytes(urlsplit(self._emulator.cwd).path)
        except ValueError:  # no URL: a program may report anything, such as a host in brackets that is no address
            return None
        # A NUL is in no path, and neither execve nor a column of the store takes what is longer than PATH_MAX.
        return path if path.startswith(b"/") and b"\0" not in path and len(path) <= MAX_PATH_LENGTH else None

    @property
    def answering(self) -> bool:
        """Whether the program's queries are answered here, as no client's terminal does."""
        return self._emulator.answering

    @answering.setter
    def answering(self, on: bool) -> None:
        with self._lock:
            self._emulator.answering = on
