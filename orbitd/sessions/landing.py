"""The landing buffer: where output is between the terminal and the journal, so that no kill loses it.

Bytes that have left the terminal and are only in the memory of a process that is killed are lost. So they are read into
a shared mapping, whose pages the kernel keeps: of a sealed memfd that the keeper holds, or, where there is none, of a
file in the runtime folder. There is one buffer a database, since one terminal is read at a time:

1. `read` writes whose output comes, and the journal's position; it says so in `_IN_USE`, and only then reads;
2. the journal records what was read;
3. `clear` resets `_IN_USE` and writes zeros over the output.

Whenever the daemon is killed, the next one finds in `pending` what 1 has read and 2 may not have recorded: everything
up to the last byte that is not zero. A NUL at its end is lost, and does nothing on a terminal.

A kill stops a process between two of its stores, and the earlier ones are in the mapping: no barrier is needed. A power
cut leaves no memfd; the journal is not synced either.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import zlib

from msgspec import Struct

from orbit_os.files import open_private
from orbitd.keeper.messages import LANDING_BYTES

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
