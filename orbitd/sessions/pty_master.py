"""The daemon's end of a program's terminal: reading, writing and sizing its PTY master (pty(7)).

Everything runs on the event loop and nothing blocks. One turn reads up to a budget, so that
a program that floods its terminal is slowed down by it, and other sessions are read in
between. The descriptor is owned here; the keeper has another one of the same terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable

from orbit_protocol.errors import Busy

READ_BUDGET = 16 * 1024  # a key beside a flood waits for some of these; emulating one takes a quarter of a millisecond
READ_SIZE = 16 * 1024  # Linux gives at most 4 KiB at a time, macOS 1 KiB; both may change
MAX_UNWRITTEN_BYTES = 1024 * 1024
HUNG_UP_SECS = 1.0


class PtyMaster:
    """A PTY master on the event loop. It begins paused: `resume` starts the reading.

    Args:
        descriptor: The master; closed by `close`.
        read: Called as os.read; `Journal.capture` reads so that a kill loses nothing.
        on_output: Called with what the program wrote.
    """

    def __init__(
        self, descriptor: int, *, read: Callable[[int, int], bytes], on_output: Callable[[bytes], None]
    ) -> None:
        # O_NONBLOCK is a flag of the open file description, which the keeper's descriptor shares
        # (open(2)); the keeper never reads or writes it. The slave has another description.
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._read_once = read
        self._on_output = on_output
        self._unwritten = bytearray()
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._pauses = 1
        self._hung_up = False
        self._closed = False

    def resume(self) -> None:
        """Undo one `pause`; reading goes on when every pause has been undone."""
        self._pauses -= 1
        self._update_reading()

    def pause(self) -> None:
        """Stop reading until `resume`; the program blocks once the kernel's buffer is full."""
        self._pauses += 1
        self._update_reading()

    def write(self, data: bytes) -> None:
        """Write to the program's input, or queue what the terminal does not take now.

        Raises:
            Busy: The program does not read, and `MAX_UNWRITTEN_BYTES` are queued.
        """
        if len(self._unwritten) + len(data) > MAX_UNWRITTEN_BYTES:
            raise Busy("The program does not read its input", hint="Try again when it does.")
        if self._closed:
            return
        was_empty = not self._unwritten
        self._unwritten += data
        if was_empty:
            self._on_writable()
            if self._unwritten:
                self._loop.add_writer(self._descriptor, self._on_writable)

    def resize(self, cols: int, rows: int) -> None:
        """Set the size; the kernel sends SIGWINCH to the foreground where it differs (tty_ioctl(4))."""
        if not self._closed:
            with contextlib.suppress(OSError):  # no process has the terminal open any more
                fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def drain(self) -> None:
        """Read what the program has left in the terminal, without waiting for more."""
        while not self._closed:
            data, _ = self._read(READ_BUDGET)
            if not data:
                return
            self._on_output(data)

    def close(self) -> None:
        """Close the descriptor; the program goes on, since the keeper has another one."""
        if not self._closed:
            self._closed = True
            # The loop's callbacks are removed before the close: the number may be given to another file.
            self._update_reading()
            if self._unwritten:
                self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)

    def _on_readable(self) -> None:
        data, hung_up = self._read(READ_BUDGET)
        if data:
            self._on_output(data)
        if hung_up:
            # The program may open /dev/tty again, and no event reports that: while every slave is closed,
            # the master is always readable (POLLHUP), and the loop would spin. So it is tried again later.
            self._set_hung_up(True)
            self._loop.call_later(HUNG_UP_SECS, self._set_hung_up, False)

    def _set_hung_up(self, hung_up: bool) -> None:
        self._hung_up = hung_up
        self._update_reading()

    def _update_reading(self) -> None:
        wanted = not (self._pauses or self._hung_up or self._closed)
        if wanted and not self._reading:
            self._loop.add_reader(self._descriptor, self._on_readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._descriptor)
        self._reading = wanted

    def _read(self, budget: int) -> tuple[bytes, bool]:
        """Return what can be read now, up to about `budget` bytes, and whether the terminal is hung up."""
        chunks: list[bytes] = []
        while budget > 0:
            try:
                chunk = self._read_once(self._descriptor, READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return b"".join(chunks), False
            except OSError as error:
                # EIO is how Linux reports that every slave is closed and nothing is left to read; other
                # systems report the end of the file.
                if error.errno != errno.EIO:
                    raise
                return b"".join(chunks), True
            if not chunk:
                return b"".join(chunks), True
            chunks.append(chunk)
            budget -= len(chunk)
        return b"".join(chunks), False

    def _on_writable(self) -> None:
        try:
            written = os.write(self._descriptor, self._unwritten)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # no process has the terminal open any more: what was typed is dropped
            written = len(self._unwritten)
        del self._unwritten[:written]
        if not self._unwritten:
            self._loop.remove_writer(self._descriptor)
