"""The user's terminal: in raw mode while a session is shown on it, restored whatever happens.

Nothing here blocks the loop: what the terminal does not take yet is `pending`, and the loop reads
no more output while that is large. Signals that change something (SIGWINCH, SIGTSTP, SIGCONT) wake
the loop through a pipe; those that end the process raise `SignalReceived` wherever it is.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections import deque
from types import FrameType

from orbit_protocol.terminal_reset import (
    ENTER,
    RESTORE,
    RESTORE_BEHIND,
    RESTORE_COLORS,
    RESTORE_IN_PLACE,
    RESTORE_PRIMARY,
)
from orbitctl.attach.output_filter import OutputFilter
from orbitctl.attach.questions import TerminalQuestions
from orbitctl.errors import CommandError, ExitCode

READ_BYTES = 1 << 16
RESTORE_SECONDS = 2.0
"""Seconds to wait for a terminal that takes no output, before its queue is discarded; and once more after that."""
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
"""Signals that end the process; while it has the terminal, they raise `SignalReceived`."""
_WAKING = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)


class SignalReceived(BaseException):
    """A signal is to end this process; no `except Exception` keeps it from that."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


def require_terminal() -> None:
    """Check that stdin and stdout are a terminal. Raises: CommandError."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError(
            "attaching needs a terminal on stdin and stdout",
            ExitCode.USAGE,
            hint="In a script, use `orbitctl session screen`, `send` and `wait`, or `run --detach`.",
        )


class Terminal:
    """The terminal of stdin and stdout; a context manager that enters raw mode and restores it.

    Attributes:
        input_fd: Read what the user types from here.
        output_fd: What is written here is shown.
        wake_fd: Readable when a signal has come; `signals` empties it.
        pending: How many bytes of output the terminal has not taken yet.
        questions: What it was asked, and its answers.
        output_filter: What the session's output passes through.
        rows_below: How many rows the session's text goes on below the cursor, -1 if the cursor's own row is blank;
            None where that is not known.

    Args:
        read_only: Whether the session may write no clipboard.
        keys_signal: Whether Ctrl-C and Ctrl-Z are signals, as in a shell, and not input.
    """

    def __init__(self, *, read_only: bool = False, keys_signal: bool = False) -> None:
        self.input_fd = _reopen(sys.stdin.fileno(), os.O_RDONLY)
        self.output_fd = _reopen(sys.stdout.fileno(), os.O_WRONLY)
        self._saved_attributes = termios.tcgetattr(self.input_fd)
        self._old_handlers: dict[int, object] = {}
        self._pending: deque[memoryview] = deque()
        self.pending = 0
        self.questions = TerminalQuestions()
        self.output_filter = OutputFilter(read_only=read_only)
        self.rows_below: int | None = None
        self._read_only, self._keys_signal = read_only, keys_signal
        self._is_entered = self._was_asked = False
        self.wake_fd, self._wake_write_fd = os.pipe()

    def __enter__(self) -> Terminal:
        """Install the signal handlers and enter raw mode."""
        for descriptor in (self.wake_fd, self._wake_write_fd):
            os.set_blocking(descriptor, False)
        # The handler that the kernel calls is CPython's own, in C: async-signal-safe, all it does is to set a flag
        # and to write the signal's number into this descriptor. The Python handlers below run later, in the main
        # thread between two bytecodes. A full pipe loses a number only where thousands are waiting to be read.
        signal.set_wakeup_fd(self._wake_write_fd, warn_on_full_buffer=False)
        for number in _WAKING:
            self._old_handlers[number] = signal.signal(number, do_nothing)
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) has it: such a signal stays ignored
                self._old_handlers[number] = signal.signal(number, raise_signal_received)
        self._set_raw()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore terminal and signal handlers, also after a hangup."""
        # First of all: another Ctrl-C or SIGTERM from an impatient user must not interrupt what follows.
        for ignored in (*ENDING, signal.SIGTSTP):
            signal.signal(ignored, signal.SIG_IGN)
        self._restore()
        signal.set_wakeup_fd(-1)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it is what signal.signal returned
        for descriptor in (self.wake_fd, self._wake_write_fd, self.input_fd, self.output_fd):
            os.close(descriptor)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows; 80 and 24 where the terminal does not know (a serial line has 0 and 0)."""
        try:
            cols, rows = os.get_terminal_size(self.output_fd)
        except OSError:
            cols = rows = 0
        return cols or 80, rows or 24

    def signals(self) -> set[int]:
        """Return the numbers of the signals that have come since the last call."""
        return read_signals(self.wake_fd)

    def read(self) -> bytes | None:
        """Return what was typed; None if there is nothing yet, b"" after a hangup."""
        try:
            return os.read(self.input_fd, READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            # EIO: the other end is gone, or we are in the background and SIGTTIN is ignored or our process group
            # orphaned (read(2)). A terminal that was hung up while we had it open reads as an end of file instead.
            return b""

    def write(self, data: bytes) -> None:
        """Show bytes now, or as soon as the terminal takes them."""
        if not data:
            return
        self._pending.append(memoryview(data))
        self.pending += len(data)
        self.flush()

    def show(self, output: bytes) -> bytes:
        """Show what the session has printed, or a picture of it, but for what is not the session's; return that."""
        self.rows_below = None
        shown = self.output_filter.receive(output)
        self.write(shown)
        return shown

    def enter(self) -> None:
        """Begin to show a session: what restoring takes is put aside."""
        if not self._is_entered:
            self.write(ENTER)
            self._is_entered = True

    @property
    def is_in_foreground(self) -> bool:
        """Whether what the terminal answers comes here: a shell that has it at the same time may read it as well."""
        try:
            return os.tcgetpgrp(self.input_fd) == os.getpgrp()
        except OSError:  # it is not our controlling terminal, as after setsid(1)
            return False

    def ask(self) -> None:
        """Ask it what it looks like, once; the answers come as input, for `questions`."""
        if self.is_in_foreground and not self._was_asked:
            self._was_asked = True
            self.write(self.questions.ask(os.environ, time.monotonic()))

    def flush(self) -> None:
        """Write as much as the terminal takes."""
        while self._pending:
            rest = self._pending[0]
            try:
                written = os.write(self.output_fd, rest)
            except BlockingIOError:
                return
            except OSError:  # a hangup: `read` returns b"" for it, which ends the loop
                self._pending.clear()
                self.pending = 0
                return
            self.pending -= written
            if written < len(rest):
                self._pending[0] = rest[written:]
                return
            self._pending.popleft()

    def suspend(self) -> None:
        """Restore the terminal and stop this process; return when it is continued."""
        self._restore()
        # What SIGTSTP does by default, had it not been caught. SIGSTOP cannot be caught: this returns after SIGCONT.
        os.kill(os.getpid(), signal.SIGSTOP)

    def resume(self) -> None:
        """Enter raw mode again: a shell has had the terminal while we were stopped."""
        self._set_raw()
        self.signals()

    def _set_raw(self) -> None:
        # TCSANOW: the default of tty.setraw, TCSAFLUSH, would discard what was typed ahead and wait until all
        # output has been sent, which a terminal stopped by Ctrl-S never does (termios(3)).
        tty.setraw(self.input_fd, termios.TCSANOW)
        if self._keys_signal:
            attributes = termios.tcgetattr(self.input_fd)
            attributes[3] |= termios.ISIG
            termios.tcsetattr(self.input_fd, termios.TCSANOW, attributes)

    def leave_session(self, barrier: bytes = b"") -> bool:
        """Leave the session's screen and modes within a bounded time, still in raw mode; never raise OSError.

        Args:
            barrier: What the terminal is asked behind that.

        Returns:
            Whether it was asked: not where it shows no session, or is frozen.
        """
        if not self._is_entered:
            return False
        self._pending.clear()
        self.pending = 0
        data = self._farewell() + (RESTORE_COLORS if self.output_filter.has_set_colors else b"") + barrier
        self.output_filter = OutputFilter(read_only=self._read_only)
        self.rows_below = None
        self._is_entered = False
        if self._write_within(data, RESTORE_SECONDS):
            return True
        # It is frozen, by Ctrl-S or a stalled emulator. What the kernel still holds for it is dropped: that makes room
        # for this, which is read when it goes on.
        with contextlib.suppress(termios.error):
            termios.tcflush(self.output_fd, termios.TCOFLUSH)
        self._write_within(data, RESTORE_SECONDS)
        return False

    def _restore(self) -> None:
        """Give the terminal back within a bounded time; never raise OSError."""
        has_barrier = self.leave_session(self.questions.barrier)
        # Not where it was frozen: it may go on in an hour.
        self.questions.wait_for_answers(self.input_fd, has_barrier=has_barrier)
        with contextlib.suppress(termios.error):  # a hangup
            termios.tcsetattr(self.input_fd, termios.TCSANOW, self._saved_attributes)

    def _farewell(self) -> bytes:
        """Return what gives the terminal back, with the cursor in the line behind the session's text.

        Where it is not known how far the text goes, that is a new line at the bottom. Nothing is erased, and the cursor
        is moved from where it is: the window may have another size than we were told (tmux tells it a while later).
        """
        output = self.output_filter
        if output.has_set_origin or output.stop_at_primary:
            data = RESTORE if output.alternate else RESTORE_PRIMARY
        elif output.alternate:
            # As when the program had ended and the shell had gone on there.
            data = RESTORE_BEHIND if output.alternate == 1049 else RESTORE
        elif self.rows_below is None:
            data = RESTORE_PRIMARY
        elif self.rows_below < 0:
            return RESTORE_IN_PLACE + b"\r"
        else:
            data = RESTORE_IN_PLACE + (b"\x1b[%dB" % self.rows_below if self.rows_below else b"")
        return data + b"\r\n"

    def _write_within(self, data: bytes, seconds: float) -> bool:
        """Write all of `data`; return False if the terminal has not taken it in time, or is gone."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while data and select.select([], [self.output_fd], [], max(0.0, deadline - time.monotonic()))[1]:
                data = data[os.write(self.output_fd, data) :]
        return not data


def _reopen(descriptor: int, flags: int) -> int:
    """Open a terminal once more, without blocking.

    O_NONBLOCK belongs to the open file description, which a duplicate shares (fcntl(2), F_SETFL):
    set on stdin it would be set for the shell that started us too, also after our end, and its next
    read would fail with EAGAIN. Opened by name, the description is ours alone. O_NOCTTY: it does
    not become our controlling terminal.
    """
    try:
        return os.open(os.ttyname(descriptor), flags | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # It has no name here, as after entering a container. The duplicate blocks: reads do not, since they follow
        # a select; a write can, while the terminal takes less than it is given.
        return os.dup(descriptor)


def read_signals(wake_fd: int) -> set[int]:
    """Return the numbers of the signals that Python's wake-up descriptor has had since the last call."""
    with contextlib.suppress(BlockingIOError):
        return set(os.read(wake_fd, 4096))
    return set()


def do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Handle a waking signal: without a handler its default action would be taken and no byte be written."""


def raise_signal_received(number: int, _frame: FrameType | None) -> None:
    """Handle a signal that ends the process. Raises: SignalReceived."""
    for one in ENDING:
        signal.signal(one, signal.SIG_IGN)  # a second one would interrupt `__exit__`
    raise SignalReceived(number)
