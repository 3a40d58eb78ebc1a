"""A terminal window with one program in it: a PTY whose master is read and typed into here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
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


class Window:
    """A program on a terminal of its own; a context manager that closes the window at the end.

    Args:
        command: The program, such as a client that attaches.
        environment: All of its variables.
        folder: Where it starts.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            try:
                _prepare_terminal()
                os.chdir(folder)
                os.execvpe(command[0], list(command), dict(environment))
            finally:
                os._exit(127)
        self.read_bytes = 0

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._master)

    def type(self, data: bytes) -> None:
        """Press keys."""
        os.write(self._master, data)

    def read_until(self, mark: bytes, secs: float = PATIENCE_SECS) -> None:
        """Read until `mark` has been shown. Raises: TimeoutError."""
        deadline = time.monotonic() + secs
        tail = b""
        while mark not in tail:
            if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no {mark!r} after {tail[-200:]!r}")
            data = os.read(self._master, READ_BYTES)
            self.read_bytes += len(data)
            tail = tail[-len(mark) :] + data

    def read_something(self) -> None:
        """Read until anything has been shown."""
        select.select([self._master], [], [], PATIENCE_SECS)
        self.read_bytes += len(os.read(self._master, READ_BYTES))

    def empty(self) -> None:
        """Read what is there."""
        while select.select([self._master], [], [], 0)[0]:
            os.read(self._master, READ_BYTES)

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


def _prepare_terminal() -> None:
    """Size the terminal, and have it echo nothing by itself, which could be taken for the program's own echo."""
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))
    settings = termios.tcgetattr(0)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, settings)
