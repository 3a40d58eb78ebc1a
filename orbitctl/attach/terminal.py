"""The user's terminal: raw while a session is shown on it, and given back whatever happens.

It is opened anew where that is possible, so that our non-blocking mode is not the shell's too
(it belongs to the open file). Nothing here blocks: what the terminal does not take yet waits in
`pending`, and the loop asks for more only while that is small. Signals wake the loop through a
pipe, but for those that end the process: they raise `SignalReceived`, from wherever it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections import deque
from types import FrameType

from orbit_protocol.terminal_reset import ENTER, RESET, RESTORE, RESTORE_COLORS, RESTORE_IN_PLACE
from orbitctl.errors import CommandError, ExitCode

READ_BYTES = 1 << 16
GIVE_BACK_SECONDS = 2.0
"""How long a terminal that takes nothing may keep us from leaving."""
_SETS_COLORS = re.compile(rb"\x1b\](?:4;\d+|1[0-2]);[^?]")
_SETS_ORIGIN = b"?6h"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_WAKING = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)


class SignalReceived(BaseException):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def require_terminal() -> None:
    """Make sure that there is a terminal to work on. Raises: CommandError."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError(
            "attaching needs a terminal on stdin and stdout",
            ExitCode.USAGE,
            hint="In a script, use `orbitctl session screen`, `send` and `wait`, or `run --detach`.",
        )


class Terminal:
    """The terminal of stdin and stdout; a context manager that makes it raw and gives it back.

    Attributes:
        input_fd: Where the user types; non-blocking.
        output_fd: Where the session is shown; non-blocking.
        wake_fd: Readable when `signals` has something to tell.
    """

    def __init__(self) -> None:
        self.input_fd = _reopened(sys.stdin.fileno(), os.O_RDONLY)
        self.output_fd = _reopened(sys.stdout.fileno(), os.O_WRONLY)
        self._saved = termios.tcgetattr(self.input_fd)
        self._handlers: dict[int, object] = {}
        self._pending: deque[memoryview] = deque()
        self._is_shown = False
        self._has_colors = False
        self._has_origin = False
        self._last = b""
        self.pending = 0
        self.wake_fd, self._wake_end = os.pipe()

    def __enter__(self) -> Terminal:
        """Make it raw; signals are ours from here on."""
        for descriptor in (self.wake_fd, self._wake_end):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        for number in _WAKING:
            self._handlers[number] = signal.signal(number, _wake)
        for number in _ENDING:
            self._handlers[number] = signal.signal(number, _end)
        self._make_raw()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back, though it be gone, and though more signals come."""
        for one in (*_ENDING, signal.SIGTSTP):
            signal.signal(one, signal.SIG_IGN)
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it is what signal.signal returned
        for descriptor in (self.wake_fd, self._wake_end, self.input_fd, self.output_fd):
            os.close(descriptor)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows; a terminal that does not know has the usual ones."""
        try:
            cols, rows = os.get_terminal_size(self.output_fd)
        except OSError:
            cols = rows = 0
        return cols or 80, rows or 24

    def signals(self) -> set[int]:
        """Return the signals that have come since the last call."""
        with contextlib.suppress(BlockingIOError):
            return set(os.read(self.wake_fd, 4096))
        return set()

    def read(self) -> bytes | None:
        """Return what was typed; None when nothing is there yet, b"" when the terminal is gone."""
        try:
            return os.read(self.input_fd, READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:  # EIO: hung up
            return b""

    def write(self, data: bytes) -> None:
        """Show bytes, now or as soon as the terminal takes them."""
        if not data:
            return
        if not self._has_colors and b"\x1b]" in data:
            self._has_colors = _SETS_COLORS.search(data) is not None
        self._has_origin = self._has_origin or _SETS_ORIGIN in data
        self._last = data[-1:]
        self._pending.append(memoryview(data))
        self.pending += len(data)
        self.flush()

    def paint(self, data: bytes) -> None:
        """Show a screen anew, in the place of what is there."""
        self.write((b"" if self._is_shown else ENTER) + RESET + data)
        self._is_shown = True

    def flush(self) -> None:
        """Write as much as the terminal takes."""
        while self._pending:
            rest = self._pending[0]
            try:
                written = os.write(self.output_fd, rest)
            except BlockingIOError:
                return
            except OSError:  # hung up: reading tells
                self._pending.clear()
                self.pending = 0
                return
            self.pending -= written
            if written < len(rest):
                self._pending[0] = rest[written:]
                return
            self._pending.popleft()

    def suspend(self) -> None:
        """Stop this process, as its own SIGTSTP would have; return when it goes on."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)

    def go_on(self) -> None:
        """Make the terminal raw again: a shell has had it while we were stopped."""
        self._make_raw()
        self.signals()

    def _make_raw(self) -> None:
        tty.setraw(self.input_fd, termios.TCSANOW)

    def _give_back(self) -> None:
        """Leave the session's screen and modes. Never waits long, never fails."""
        if self._is_shown:
            self._pending.clear()
            new_line = b"" if self._last == b"\n" else b"\r\n"
            data = RESTORE if self._has_origin else RESTORE_IN_PLACE
            data += (RESTORE_COLORS if self._has_colors else b"") + new_line + b"\x1b[J"
            if not self._write_out(data):  # it is frozen: what it has not read yet makes room for this
                with contextlib.suppress(termios.error):
                    termios.tcflush(self.output_fd, termios.TCOFLUSH)
                self._write_out(data)
            self._is_shown = False
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self.input_fd, termios.TCSANOW, self._saved)

    def _write_out(self, data: bytes) -> bool:
        """Write all of `data`; return False where the terminal does not take it in time."""
        deadline = time.monotonic() + GIVE_BACK_SECONDS
        with contextlib.suppress(OSError):
            while data and select.select([], [self.output_fd], [], max(0.0, deadline - time.monotonic()))[1]:
                data = data[os.write(self.output_fd, data) :]
        return not data


def _reopened(descriptor: int, flags: int) -> int:
    """Return a descriptor of our own for a terminal, else of the one that is there."""
    try:
        return os.open(os.ttyname(descriptor), flags | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # it has no name here, as in a container that was entered
        return os.dup(descriptor)


def _wake(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the wakeup descriptor has told the loop."""


def _end(number: int, _frame: FrameType | None) -> None:
    for one in _ENDING:
        signal.signal(one, signal.SIG_IGN)  # once is enough, and the terminal is still to be given back
    raise SignalReceived(number)
