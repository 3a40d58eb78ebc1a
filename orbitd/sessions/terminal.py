"""A program's terminal: reading it into the landing buffer, writing to it, its size (pty(7)).

Everything runs on the event loop and nothing blocks.

**The landing buffer** is where output is between the terminal and the journal, so that no kill loses it. Bytes that
have left the terminal and are only in the memory of a process that is killed are lost. So they are read into a shared
mapping, whose pages the kernel keeps: of a sealed memfd that the keeper holds, or, where there is none, of a file in
the runtime folder. There is one buffer a database, since one terminal is read at a time:

1. `read` writes whose output comes, and the journal's position; it says so in `_IN_USE`, and only then reads;
2. the journal records what was read;
3. `clear` resets `_IN_USE` and writes zeros over the output.

Whenever the daemon is killed, the next one finds in `pending` what 1 has read and 2 may not have recorded: everything
up to the last byte that is not zero. A NUL at its end is lost, and does nothing on a terminal.

A kill stops a process between two of its stores, and the earlier ones are in the mapping: no barrier is needed. A power
cut leaves no memfd; the journal is not synced either.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import mmap
import os
import struct
import termios
import zlib
from collections.abc import Callable

from msgspec import Struct

from orbit_os.files import open_private
from orbit_protocol.errors import NotRunning, ShuttingDown
from orbitd.keeper.messages import LANDING_BYTES
from orbitd.logs import event
from orbitd.sessions.program_input import InputQueue

log = logging.getLogger("orbitd.sessions")

HUNG_UP_SECS = 1.0

MAX_ID_BYTES = 100

_DATA = 4096
"""Where the output begins: a page of its own is left to the header."""

_IN_USE = 0
"""The offset of the byte that is 1 while there is output."""

_HEADER_START = 8
_HEADER = struct.Struct(">8sQB100s")
_CRC = struct.Struct(">I")
_HEADER_END = _HEADER_START + _HEADER.size
_MAGIC = b"ORBITL\x01\n"
_PAGE_BYTES = 4096
_TIOCGPTN = 0x80045430
"""ioctl_tty(2); Python's termios has it from 3.13 on. Where the number is another one, it fails."""
_ZEROS = memoryview(bytes(LANDING_BYTES))


class Pending(Struct, frozen=True, kw_only=True):
    """Output that was read, and is not known to be recorded.

    Attributes:
        session: Whose it is.
        position: Of the session's journal, when it was read.
        data: Not empty; without NULs at its end.
    """

    session: str
    position: int
    data: bytes


class Landing:
    """The landing buffer of a database, in use by one process.

    Args:
        fd: A memfd or a file of `create_file`; it is closed by `close`.

    Raises:
        OSError: It cannot be mapped.
        ValueError: It is too short for a buffer.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        try:
            size = min(os.fstat(fd).st_size, LANDING_BYTES)
            if size <= _DATA:
                raise ValueError(f"a landing buffer of {size} bytes")
            self._map = mmap.mmap(fd, size)
        except BaseException:
            os.close(fd)
            raise
        self._size = size
        self._data = memoryview(self._map)[_DATA:]
        self._can_shrink = not _is_sealed(fd)
        self._used = len(self._data)  # what may be in it is not known
        if self.pending() is None:
            self.clear()

    @property
    def is_file(self) -> bool:
        """Whether it is a file, and no memory that the keeper holds."""
        return self._can_shrink

    def close(self) -> None:
        """Unmap the buffer; what is in it stays. Closing again does nothing."""
        if self._fd >= 0:
            self._data.release()
            self._map.close()
            os.close(self._fd)
            self._fd = -1

    @staticmethod
    def create_file(path: str) -> int:
        """Open the file of a landing buffer, for a system without memfds, and create it where there is none.

        Returns:
            Its descriptor, of the right size, for `Landing`.

        Raises:
            OSError: It cannot be opened, or the disk has no room for it.
            UnsafeFile: Something that is no file of ours is in its place.
        """
        fd = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            _set_size(fd, LANDING_BYTES)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def read(self, master_fd: int, session_id: str, position: int, budget: int) -> tuple[bytes, bool]:
        """Read a program's output, without waiting for more than there is. A kill at any moment loses none of it.

        What is returned is in the buffer until `clear`.

        Args:
            master_fd: The terminal's master, non-blocking.
            session_id: Of the session; up to MAX_ID_BYTES of UTF-8.
            position: The journal's, at which the output will be recorded.
            budget: The most bytes to read; at most as many as the buffer holds.

        Returns:
            The output, and whether the terminal is hung up: behind this output nothing comes, unless a program opens it
            again. Output is empty where there is nothing to read now.

        Raises:
            OSError: Another error of read(2), before any output.
            RuntimeError: The buffer holds output that was not cleared.
            ValueError: The id is too long.
        """
        self._keep_size()
        if self._map[_IN_USE]:
            raise RuntimeError("the landing buffer is in use")
        name = session_id.encode()
        if len(name) > MAX_ID_BYTES:
            raise ValueError(f"an id of {len(name)} bytes")
        header = _HEADER.pack(_MAGIC, position, len(name), name)
        self._map[_HEADER_START : _HEADER_END + _CRC.size] = header + _CRC.pack(zlib.crc32(header))
        budget = min(budget, len(self._data))
        # Touch each page now: one may have been swapped out. If read(2) had to fault it in while a SIGKILL is pending,
        # it would fail after it has taken the bytes from the terminal.
        self._data[:budget:_PAGE_BYTES] = _ZEROS[: -(-budget // _PAGE_BYTES)]
        self._map[_IN_USE] = 1
        self._used, hung_up = 0, False
        try:
            while self._used < budget:
                count = os.readv(master_fd, [self._data[self._used : budget]])
                if count == 0:  # how other systems than Linux report that every slave is closed
                    hung_up = True
                    break
                self._used += count
        except BlockingIOError:
            pass
        except OSError as error:
            # EIO is how Linux does. Any error comes again at the next read; what was read before it counts first.
            hung_up = error.errno == errno.EIO
            if not hung_up and not self._used:
                self._map[_IN_USE] = 0
                raise
        if not self._used:
            self._map[_IN_USE] = 0
            return b"", hung_up
        return self._map[_DATA : _DATA + self._used], hung_up

    def clear(self) -> None:
        """Forget the output: the journal has it."""
        self._keep_size()
        self._map[_IN_USE] = 0
        self._data[: self._used] = _ZEROS[: self._used]
        self._used = 0

    def pending(self) -> Pending | None:
        """Return the output that an earlier process has read and not cleared; None where there is none.

        What is no buffer of this version is none.
        """
        if self._map[_IN_USE] != 1:
            return None
        header = self._map[_HEADER_START:_HEADER_END]
        magic, position, length, name = _HEADER.unpack(header)
        data = bytes(self._data).rstrip(b"\0")
        if magic != _MAGIC or self._map[_HEADER_END : _HEADER_END + _CRC.size] != _CRC.pack(zlib.crc32(header)):
            return None
        if not 0 < length <= MAX_ID_BYTES or not data:
            return None
        try:
            return Pending(session=name[:length].decode(), position=position, data=data)
        except UnicodeDecodeError:
            return None

    def _keep_size(self) -> None:
        """Make a file as long as it was, if it was cut short: touching a page behind its end is SIGBUS (mmap(2))."""
        if self._can_shrink and os.fstat(self._fd).st_size < self._size:
            _set_size(self._fd, self._size)


class PtyMaster:
    """A PTY master on the event loop. The descriptor is owned here; the keeper has another one of the same terminal.

    It begins paused, for the reason "start": `resume("start")` starts the reading.

    Args:
        descriptor: The master; closed by `close`.
        on_readable: Called to read it once; returns whether the terminal is hung up.

    Attributes:
        number: The N of its terminal's /dev/pts/N; None where terminals are not called so.
        unwritten: What was typed and the terminal has not taken.
    """

    def __init__(self, descriptor: int, *, on_readable: Callable[[int], bool]) -> None:
        # O_NONBLOCK is a flag of the open file description, which the keeper's descriptor shares
        # (open(2)); the keeper never reads or writes it. The slave has another description.
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.number = _terminal_number(descriptor)
        self._read = on_readable
        self.unwritten = InputQueue()
        self._writing = False
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

    def write_answer(self, data: bytes) -> None:
        """Write the terminal's answers to questions of the program, behind what was typed before.

        They are dropped where too many of them wait, or it has no terminal any more.
        """
        if self.unwritten.takes_answer(len(data)):
            with contextlib.suppress(NotRunning):
                rest = self.write_now(data)
                if rest is not None:
                    self.unwritten.add_answer(rest)

    def write_now(self, data: bytes) -> bytes | None:
        """Write what the terminal takes now, behind all that is queued.

        Returns:
            The rest, for `unwritten`, which is written as soon as the terminal takes more; None where there is none.

        Raises:
            NotRunning: It has no terminal any more.
        """
        if self.is_closed:
            raise NotRunning("The program has ended", data={"written": 0})
        if self.unwritten:
            return data
        written = 0
        if data:
            try:
                written = os.write(self.descriptor, data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:  # no process has the terminal open any more
                raise NotRunning("The terminal has hung up", data={"written": 0}) from error
        if written == len(data):
            return None
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self.descriptor, self._on_writable)
        return data[written:]

    def stop_waiting(self) -> None:
        """Let no call wait for the terminal any more, since the daemon stops."""
        self.unwritten.refuse_calls(
            lambda written: ShuttingDown("The daemon is shutting down; the program goes on", data={"written": written})
        )

    @property
    def foreground_group(self) -> int | None:
        """The process group in the foreground (tcgetpgrp(3)); None where there is none."""
        try:
            group = os.tcgetpgrp(self.descriptor)
        except OSError:  # no process has the terminal open any more
            return None
        return group if group > 1 else None

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
            self._stop_writing()
            os.close(self.descriptor)
            self.unwritten.fail_calls(
                lambda written: NotRunning("The program has ended without reading it", data={"written": written})
            )

    def _on_readable(self) -> None:
        try:
            hung_up = self._read(self.descriptor)
        except Exception as error:  # noqa: BLE001  # whatever it is, the loop would call this again at once, for ever
            event(log, logging.ERROR, "terminal not read", error=type(error).__name__, exc=error)
            hung_up = True
        if hung_up:
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
        unwritten = self.unwritten
        try:
            # Withdrawn input may have left nothing.
            written = os.write(self.descriptor, unwritten.data) if unwritten else 0
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # no process has the terminal open any more: what was typed is dropped
            unwritten.fail_calls(lambda written: NotRunning("The terminal has hung up", data={"written": written}))
            written = len(unwritten.data)
        unwritten.take(written)
        if not unwritten:
            self._stop_writing()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self.descriptor)


def _is_sealed(fd: int) -> bool:
    """Return whether nobody can make a file shorter (fcntl(2)); memfds alone have seals."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except (OSError, AttributeError):  # AttributeError: not on this system
        return False


def _set_size(fd: int, size: int) -> None:
    """Give a file this size, with disk blocks: a page of a mapping without one on a full disk is SIGBUS."""
    found = os.fstat(fd).st_size
    if found > size:
        os.ftruncate(fd, size)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            # Not every file system can, and not every C library writes zeros then (posix_fallocate(3)).
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    found = os.fstat(fd).st_size
    while found < size:
        found += os.pwrite(fd, _ZEROS[: size - found], found)


def _terminal_number(master_fd: int) -> int | None:
    try:
        return int(struct.unpack("I", fcntl.ioctl(master_fd, _TIOCGPTN, bytes(4)))[0])
    except OSError:
        return None
