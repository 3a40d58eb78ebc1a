"""A person at a terminal, for tests: orbitctl on a PTY of its own, typed into and looked at.

What the terminal shows is kept as bytes and on an emulator, so that a test can ask for either.
Nothing sleeps: everything is read until it is there.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path
from typing import Any

from ctl_support import ON_TERMINAL, Orbitctl
from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Appearance
from support import WAIT_SECS

SHELL = ("bash", "--norc", "--noprofile")
RUN_SHELL = ("session", "run", "--name", "web", "--", *SHELL)
DETACH = b"\x1c"
READ_LATE = Path(__file__).parent / "live" / "read_late.py"


class Window:
    """A terminal window with one orbitctl in it.

    Args:
        ctl: Whose home and environment it has.
        arguments: Of orbitctl.
        size: Columns and rows.
        looks: What it answers questions with; None if it answers none.
        environment: More variables.
    """

    def __init__(
        self,
        ctl: Orbitctl,
        *arguments: str,
        size: tuple[int, int] = (80, 24),
        looks: Appearance | None = None,
        **environment: str,
    ) -> None:
        self.master, self._terminal = pty.openpty()
        self.output = b""
        self.searched = 0
        self._is_there = True
        self.emulator = Emulator(*size)
        self.emulator.answering = looks is not None
        if looks is not None:
            self.emulator.set_appearance(looks)
        self._set_size(size)
        self.before = self.settings()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *ctl.command, *arguments],
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            env={**ctl.environment, **environment},
            cwd=ctl.home,
            start_new_session=True,
        )

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def vanish(self) -> None:
        """Close the window, as its close button does: the kernel hangs up on whoever is in it."""
        os.close(self._terminal)
        os.close(self.master)
        self._is_there = False

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_SECS)
        if self._is_there:
            self.vanish()
        self.emulator.close()

    def settings(self) -> list[Any]:
        """Return the terminal's settings, as stty shows them."""
        return termios.tcgetattr(self._terminal)

    def resize(self, cols: int, rows: int) -> None:
        self._set_size((cols, rows))
        self.emulator.resize(cols, rows)
        self.process.send_signal(signal.SIGWINCH)

    def _set_size(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))

    def type(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        while data:
            data = data[os.write(self.master, data) :]

    def read(self, deadline: float | None = None) -> bool:
        """Take what the terminal is sent; return False when nothing came in time, or ever will."""
        left = WAIT_SECS if deadline is None else max(0.0, deadline - time.monotonic())
        watched: list[Any] = [self.master]
        if not select.select(watched, [], [], left)[0]:
            return False
        data = os.read(self.master, 1 << 16)
        self.draw(data)
        return bool(data)

    def draw(self, data: bytes) -> None:
        """Show what the terminal was sent."""
        self.output += data
        self.emulator.feed(data)
        if replies := self.emulator.replies():
            self.type(replies)

    def unread(self) -> bytes:
        """Return what was typed and nobody has read: what a shell would be given next."""
        tty.setraw(self._terminal, termios.TCSANOW)
        ready = select.select([self._terminal], [], [], 0)[0]
        return os.read(self._terminal, 1 << 16) if ready else b""

    def until(self, pattern: str | bytes) -> re.Match[bytes]:
        """Read until something new fits `pattern`, a text or a compiled expression's source."""
        wanted = re.compile(re.escape(pattern.encode()) if isinstance(pattern, str) else pattern)
        deadline = time.monotonic() + WAIT_SECS
        while (found := wanted.search(self.output, self.searched)) is None:
            assert self.read(deadline), f"no {pattern!r} in {self.output[-3000:]!r}"
        self.searched = found.end()
        return found

    def screen_until(self, text: str) -> str:
        """Read until the screen shows `text`; return the whole screen."""
        deadline = time.monotonic() + WAIT_SECS
        while text not in self.screen():
            assert self.read(deadline), f"no {text!r} on\n{self.screen()}"
        return self.screen()

    def screen(self) -> str:
        return self.emulator.screen("text").decode()

    def end(self) -> int:
        """Read until the program has ended; return its exit code."""
        ending = os.pidfd_open(self.process.pid)
        try:
            deadline = time.monotonic() + WAIT_SECS
            while ending not in select.select([self.master, ending], [], [], max(0, deadline - time.monotonic()))[0]:
                assert self.read(deadline), f"it goes on after {self.output[-3000:]!r}"
            while select.select([self.master], [], [], 0)[0]:
                self.read()
        finally:
            os.close(ending)
        return self.process.wait(WAIT_SECS)


def settled(window: Window) -> None:
    """Wait until the shell has heard us: from then on, what is typed arrives."""
    window.type("echo re''ady\r")
    window.until("ready\r\n")


class LateReader:
    """A session named web whose program reads nothing until it is let, and then copies its input up to a NUL."""

    def __init__(self, ctl: Orbitctl) -> None:
        self._ctl, self._fifo, self._copy = ctl, ctl.home / "fifo", ctl.home / "copy"
        os.mkfifo(self._fifo)
        command = (sys.executable, str(READ_LATE), str(self._fifo), str(self._copy))
        ctl.ok("session", "run", "--detach", "--name", "web", "--", *command)

    def let_read(self) -> None:
        """Have it read from now on."""
        os.close(os.open(self._fifo, os.O_WRONLY))

    def end(self) -> bytes:
        """End it behind all that was typed; return that."""
        self._ctl.ok("session", "send", "web", "-", stdin=b"\0")
        self._ctl.ok("session", "wait", "web")
        return self._copy.read_bytes()
