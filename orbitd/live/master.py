"""The daemon's end of a program's terminal: reading, writing and sizing its PTY master (pty(7)).

Everything runs on the event loop and nothing blocks. A read gathers what is there, up to a
budget, so that a program that floods is slowed by its own terminal and other sessions get
their turn in between. The descriptor is ours; the keeper holds another of its own.
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


class Master:
    """A PTY master on the loop; it is paused at first.

    Args:
        descriptor: Becomes ours, and non-blocking.
        read: Reads from it as os.read does; the journal's way of reading loses nothing to a kill.
        on_output: Called with what the program wrote.
    """

    def __init__(
        self, descriptor: int, *, read: Callable[[int, int], bytes], on_output: Callable[[bytes], None]
    ) -> None:
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
        """Read from now on, or once everybody else who paused has resumed."""
        self._pauses -= 1
        self._set_tap()

    def pause(self) -> None:
        """Read no more until `resume`; the program is held back once the kernel's buffer is full."""
        self._pauses += 1
        self._set_tap()

    def write(self, data: bytes) -> None:
        """Type into the program.

        Raises:
            Busy: It does not read, and too much waits for it already.
        """
        if len(self._unwritten) + len(data) > MAX_UNWRITTEN_BYTES:
            raise Busy("The program does not read its input", hint="Try again when it does.")
        if self._closed:
            return
        had_waiting = bool(self._unwritten)
        self._unwritten += data
        if not had_waiting:
            self._writable()
            if self._unwritten:
                self._loop.add_writer(self._descriptor, self._writable)

    def resize(self, cols: int, rows: int) -> None:
        """Set the size; the kernel sends SIGWINCH to the foreground where it differs (tty_ioctl(4))."""
        if not self._closed:
            with contextlib.suppress(OSError):  # nobody has the terminal open any more
                fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def drain(self) -> None:
        """Read what the program left, without waiting for more than is there."""
        while not self._closed:
            data, _ = self._read(READ_BUDGET)
            if not data:
                return
            self._on_output(data)

    def close(self) -> None:
        """Let go of the terminal; the program goes on, since the keeper has it too."""
        if not self._closed:
            self._closed = True
            self._set_tap()
            if self._unwritten:
                self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)

    def _readable(self) -> None:
        data, hung_up = self._read(READ_BUDGET)
        if data:
            self._on_output(data)
        if hung_up:  # no program has the terminal open; it may open /dev/tty again, and nothing tells of that
            self._set_hung_up(True)
            self._loop.call_later(HUNG_UP_SECS, self._set_hung_up, False)

    def _set_hung_up(self, hung_up: bool) -> None:
        self._hung_up = hung_up
        self._set_tap()

    def _set_tap(self) -> None:
        wanted = not (self._pauses or self._hung_up or self._closed)
        if wanted and not self._reading:
            self._loop.add_reader(self._descriptor, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._descriptor)
        self._reading = wanted

    def _read(self, budget: int) -> tuple[bytes, bool]:
        """Return what is there, up to about `budget` bytes, and whether that is all there will be."""
        chunks: list[bytes] = []
        while budget > 0:
            try:
                chunk = self._read_once(self._descriptor, READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return b"".join(chunks), False
            except OSError as error:
                if error.errno != errno.EIO:  # EIO: every slave is closed
                    raise
                return b"".join(chunks), True
            if not chunk:
                return b"".join(chunks), True
            chunks.append(chunk)
            budget -= len(chunk)
        return b"".join(chunks), False

    def _writable(self) -> None:
        try:
            written = os.write(self._descriptor, self._unwritten)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the terminal has no program any more; what was typed has nowhere to go
            written = len(self._unwritten)
        del self._unwritten[:written]
        if not self._unwritten:
            self._loop.remove_writer(self._descriptor)
