"""What a private session has in the place of files: its journal and its saved screen, in memory that the keeper holds.

Each is a memfd that outlives this process: `JOURNAL`, and two of saved screens, `SCREENS`. A save

1. writes the screen, with the position that it covers, over the older one of the two, its checksum last;
2. empties the other one;
3. gives the pages of the journal back that are covered.

A kill between any two steps leaves a whole screen, and every record behind it: a screen that was not written to its end
has no checksum that fits, and of two that are whole the one that covers more counts.

**The journal never moves.** A record stays at the offset at which it was written; what is covered is a hole in the
memfd, which takes no memory. So a reader that is behind needs no other descriptor, and reads zeros if it is too late.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress

from orbitd.screens.client import Loaded
from orbitd.screens.messages import Base, Saved
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import FILE_HEADER_BYTES, Cwd, Resize, parse_base, read_records, write_all

JOURNAL = "journal"
SCREENS = ("screen-1", "screen-2")
"""The names of the memories, in the keeper."""

MIN_JOURNAL_BYTES = 4 << 20
"""The least that a journal may take, however little history is kept: a program prints at once what one save covers."""

_MAGIC = b"ORBITM\x01\n"
_SCREEN = struct.Struct(">8sQHHQQI")
"""Magic, position, columns and rows, the lengths of the native and of the portable form, checksum of all of it."""


class PrivateJournal(Journal):
    """The journal of a private session.

    Args:
        fd: The memfd; the journal owns it from here on.
        covered: The position that the saved screen covers.
        max_bytes: About how much memory it may take. `is_full` says when its program has to wait for a save.
        clock: The time in seconds since the epoch.

    Raises:
        OSError: It cannot be read.
    """

    def __init__(
        self, fd: int, *, covered: int = 0, max_bytes: int = MIN_JOURNAL_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self._memory = fd
        self._held_from = mmap.PAGESIZE  # the first page has the header, and stays
        self._full_bytes = max(max_bytes, MIN_JOURNAL_BYTES) // 2
        super().__init__("", covered=covered, max_bytes=max(max_bytes, MIN_JOURNAL_BYTES), clock=clock)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be recorded before the next save."""
        return self.size > self._full_bytes

    @property
    def save_soon_bytes(self) -> int:
        """How much is recorded before it is saved ahead of its time."""
        return self._full_bytes // 4

    def _open_newest(self, covered: int) -> None:
        self._fd, self.file_number = self._memory, 1
        base = parse_base(os.pread(self._fd, FILE_HEADER_BYTES, 0))
        if base is not None:
            self._base = base
            self._first = self._tail = FILE_HEADER_BYTES + max(0, covered - base)
            for length, event in read_records(self._fd, self._first):
                if isinstance(event, Cwd | Resize):
                    self._latest[type(event)] = event
                self._tail += length
        if base is None or os.fstat(self._fd).st_size < self._tail:
            self._start(covered)
        else:
            os.ftruncate(self._fd, self._tail)  # without a torn record: the landing buffer has its output
            self._give_back()

    def _start(self, base: int) -> None:
        self._first, self._held_from = FILE_HEADER_BYTES, mmap.PAGESIZE
        super()._start(base)

    def _check_size(self) -> None:
        """Raise OSError where somebody has cut the memory short: the next save begins it again."""
        size = os.lseek(self._fd, 0, os.SEEK_END)
        if size > self._tail:
            os.ftruncate(self._fd, self._tail)
        elif size < self._tail:
            raise OSError(errno.EIO, "the memory was cut short")

    def mark(self) -> int:
        """Return the position of the end of the stream. There is no other place to go on in where this is degraded."""
        return self.position

    def discard_before(self, position: int) -> None:
        """Give the memory back of the records that a saved screen covers."""
        if self.degraded is not None and position == self.position:
            self.discard_all()
            return
        first = min(FILE_HEADER_BYTES + position - self._base, self._tail)
        if first > self._first:
            self._first = first
            self._give_back()

    def discard_all(self) -> None:
        """Discard every record, whether the saved screen covers it or not, and record again what comes."""
        position, self._skipped, self.degraded = self.position, 0, None
        self._start(position)
        self.file_number += 1

    def _give_back(self) -> None:
        """Give whole pages before the first record back to the system."""
        end = self._first - self._first % mmap.PAGESIZE
        # What cannot be given back now, as there is no descriptor or no address left, is with the next save.
        with suppress(OSError):
            if end > self._held_from:
                with mmap.mmap(self._fd, end - self._held_from, offset=self._held_from) as covered:
                    covered.madvise(mmap.MADV_REMOVE)  # as fallocate(2) with FALLOC_FL_PUNCH_HOLE, which Python has not
                self._held_from = end


def read_screen(memories: Sequence[int]) -> Loaded | None:
    """Return the newer whole screen of those in some memories; None where there is none. Raises: OSError."""
    found = [loaded for fd in memories if (loaded := _read_screen(fd)) is not None]
    return max(found, key=lambda each: each.position, default=None)


def write_screen(memories: Sequence[int], saved: Saved) -> None:
    """Write a screen over the older one of two, and empty the other.

    Raises:
        OSError: There is no memory for it; the newer one stays.
    """
    older, newer = sorted(memories, key=_position)
    os.ftruncate(older, 0)
    head = _SCREEN.pack(_MAGIC, saved.position, saved.cols, saved.rows, len(saved.native), len(saved.portable), 0)[:-4]
    checksum = zlib.crc32(saved.portable, zlib.crc32(saved.native, zlib.crc32(head)))
    try:
        write_all(older, saved.native, _SCREEN.size)
        write_all(older, saved.portable, _SCREEN.size + len(saved.native))
    except OSError:
        os.ftruncate(older, 0)
        raise
    write_all(older, head + checksum.to_bytes(4, "big"), 0)
    os.ftruncate(newer, 0)


def _position(fd: int) -> int:
    """Return the position that a whole screen covers; -1 where there is none."""
    loaded = _read_screen(fd)
    return -1 if loaded is None else loaded.position


def _read_screen(fd: int) -> Loaded | None:
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    if len(data) < _SCREEN.size:
        return None
    magic, position, cols, rows, native, portable, checksum = _SCREEN.unpack_from(data)
    if magic != _MAGIC or len(data) != _SCREEN.size + native + portable:
        return None
    if zlib.crc32(data[_SCREEN.size :], zlib.crc32(data[: _SCREEN.size - 4])) != checksum:
        return None
    start = _SCREEN.size + native
    base = Base(cols=cols, rows=rows, native=data[_SCREEN.size : start], portable=data[start:])
    return Loaded(base=base, position=position)
