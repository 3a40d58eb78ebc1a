"""A terminal window with one program in it: a PTY whose master is read and typed into here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

COLS, ROWS = 80, 24
READ_BYTES = 1 << 16
PATIENCE_SECS = 120.0
GREET_SECS = 1.0
ASKED_BYTES = 1 << 16
"""Clients ask their terminal at their beginning; after so much of their output nothing is answered any more."""
ANSWERS = {
    b"\x1b[c": b"\x1b[?62;22c",
    b"\x1b[>c": b"\x1b[>1;10;0c",
    b"\x1b]10;?": b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\",
    b"\x1b]11;?": b"\x1b]11;rgb:0000/0000/0000\x1b\\",
}
"""What a plain terminal answers; a client that gets nothing waits, and its time-outs would be measured."""


class Window:
    """A program on a terminal of its own; a context manager that closes the window at the end.

    Args:
        command: The program, such as a client that attaches.
        environment: All of its variables.
        folder: Where it starts.

    Attributes:
        pid: Of the program.
        read_bytes: How much of it has been shown so far.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._master, terminal = os.openpty()
        _prepare(terminal)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._master)
                os.login_tty(terminal)
                os.chdir(folder)
                os.execvpe(command[0], list(command), dict(environment))
            finally:
                os._exit(127)
        os.close(terminal)
        self.read_bytes = 0

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._master)

    def type(self, data: bytes) -> None:
        """Press keys."""
        os.write(self._master, data)

    def read_until(self, mark: bytes, secs: float = PATIENCE_SECS) -> None:
        """Read until `mark` has been shown. Raises: TimeoutError, EOFError."""
        deadline = time.monotonic() + secs
        tail = b""
        while mark not in tail:
            if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no {mark!r} after {tail[-200:]!r}")
            tail = tail[-len(mark) :] + self._read()

    def read_something(self) -> None:
        """Read until anything has been shown."""
        select.select([self._master], [], [], PATIENCE_SECS)
        self._read()

    def empty(self) -> None:
        """Read what is there."""
        while select.select([self._master], [], [], 0)[0]:
            self._read()

    def _read(self) -> bytes:
        try:
            data = os.read(self._master, READ_BYTES)
        except OSError as error:  # EIO: nobody has the terminal open any more
            raise EOFError("the program in the window has ended") from error
        if self.read_bytes < ASKED_BYTES:
            for question, answer in ANSWERS.items():
                if question in data:
                    self.type(answer)
        self.read_bytes += len(data)
        return data

    def finish(self, keys: bytes) -> None:
        """Type what ends the program behind the window, and read until the window's own one has ended too."""
        self.type(keys)
        with contextlib.suppress(EOFError):
            while select.select([self._master], [], [], PATIENCE_SECS)[0]:
                self._read()

    def greet(self, keys: bytes, mark: bytes) -> None:
        """Type until it is answered: a client that makes its terminal raw may drop what was typed before.

        Raises:
            TimeoutError: It is never answered.
        """
        deadline = time.monotonic() + PATIENCE_SECS
        while True:
            self.type(keys)
            try:
                return self.read_until(mark, GREET_SECS)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise


def _prepare(terminal: int) -> None:
    """Size a terminal, and have it echo nothing by itself, which could be taken for the program's own echo."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))
    settings = termios.tcgetattr(terminal)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
