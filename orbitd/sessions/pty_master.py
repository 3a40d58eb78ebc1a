"""The daemon's end of a program's terminal: when it is read, writing, sizing (pty(7)).

Everything runs on the event loop and nothing blocks. The descriptor is owned here; the keeper
has another one of the same terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable

from orbit_protocol.errors import Busy

MAX_UNWRITTEN_BYTES = 1024 * 1024
HUNG_UP_SECS = 1.0


class PtyMaster:
    """A PTY master on the event loop.

    It begins paused, for the reason "start": `resume("start")` starts the reading.

    Args:
        descriptor: The master; closed by `close`.
        on_readable: Called to read it once; returns whether the terminal is hung up.
    """

    def __init__(self, descriptor: int, *, on_readable: Callable[[int], bool]) -> None:
        # O_NONBLOCK is a flag of the open file description, which the keeper's descriptor shares
        # (open(2)); the keeper never reads or writes it. The slave has another description.
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._read = on_readable
        self._unwritten = bytearray()
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._pauses = {"start"}
        self.is_closed = False

    def pause(self, reason: str) -> None:
        """Stop reading until that reason is gone; the program blocks once the kernel's buffer is full."""
        if reason not in self._pauses:
            self._pauses.add(reason)
            self._update_reading()

    def resume(self, reason: str) -> None:
        """Undo `pause`; reading goes on when no reason is left."""
        if reason in self._pauses:
            self._pauses.discard(reason)
            self._update_reading()

    def write(self, data: bytes) -> None:
        """Write to the program's input, or queue what the terminal does not take now.

        Raises:
            Busy: The program does not read, and `MAX_UNWRITTEN_BYTES` are queued.
        """
        if len(self._unwritten) + len(data) > MAX_UNWRITTEN_BYTES:
            raise Busy("The program does not read its input", hint="Try again when it does.")
        if self.is_closed:
            return
        was_empty = not self._unwritten
        self._unwritten += data
        if was_empty:
            self._on_writable()
            if self._unwritten:
                self._loop.add_writer(self.descriptor, self._on_writable)

    def resize(self, cols: int, rows: int) -> None:
        """Set the size; the kernel sends SIGWINCH to the foreground where it differs (tty_ioctl(4))."""
        if not self.is_closed:
            with contextlib.suppress(OSError):  # no process has the terminal open any more
                fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def close(self) -> None:
        """Close the descriptor; the program goes on, since the keeper has another one."""
        if not self.is_closed:
            self.is_closed = True
            # The loop's callbacks are removed before the close: the number may be given to another file.
            self._update_reading()
            if self._unwritten:
                self._loop.remove_writer(self.descriptor)
            os.close(self.descriptor)

    def _on_readable(self) -> None:
        if self._read(self.descriptor):
            # The program may open /dev/tty again, and no event reports that: while every slave is closed,
            # the master is always readable (POLLHUP), and the loop would spin. So it is tried again later.
            self.pause("hung up")
            self._loop.call_later(HUNG_UP_SECS, self.resume, "hung up")

    def _update_reading(self) -> None:
        wanted = not self._pauses and not self.is_closed
        if wanted and not self._reading:
            self._loop.add_reader(self.descriptor, self._on_readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self.descriptor)
        self._reading = wanted

    def _on_writable(self) -> None:
        try:
            written = os.write(self.descriptor, self._unwritten)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # no process has the terminal open any more: what was typed is dropped
            written = len(self._unwritten)
        del self._unwritten[:written]
        if not self._unwritten:
            self._loop.remove_writer(self.descriptor)
