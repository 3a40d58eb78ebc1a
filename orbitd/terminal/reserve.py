"""Space set aside behind the end of a file, and mapped, so that a read can put its bytes there directly.

What is set aside reads as zeros and has its blocks: touching a mapping without blocks on a full disk would kill the
process (SIGBUS), so that a full disk shows here, as an OSError, and nowhere else.
"""

from __future__ import annotations

import mmap
import os

_STEP_BYTES = 320 << 10


class Reserve:
    """The reserve of one file.

    Args:
        fd: The file, open for reading and writing; the caller's to close.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None
        self._start = 0

    def at(self, offset: int, length: int) -> memoryview:
        """Return `length` zeros at an offset behind everything that was written, to write to; release them soon.

        Raises:
            OSError: There is no room on the disk.
        """
        if self._map is None or offset + length > self._start + len(self._map):
            self._move(offset - offset % mmap.ALLOCATIONGRANULARITY, offset + length)
        assert self._map is not None
        begin = offset - self._start
        view = memoryview(self._map)[begin : begin + length]
        # If a kill is pending and the kernel must fetch a page first, a read fails with what it has already taken.
        view[:: mmap.PAGESIZE] = bytes(-(-length // mmap.PAGESIZE))
        view[-1] = 0
        return view

    def _move(self, start: int, end: int) -> None:
        self._unmap()
        length = max(_STEP_BYTES, end - start)
        size = os.fstat(self._fd).st_size
        if size < start + length:
            _allocate(self._fd, size, start + length - size)
        self._map = mmap.mmap(self._fd, length, offset=start)
        self._start = start

    def drop(self, tail: int) -> None:
        """Give back everything behind the file's real end.

        Raises:
            OSError: The file cannot be shortened.
        """
        self._unmap()
        os.ftruncate(self._fd, tail)

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


def _allocate(fd: int, offset: int, length: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, length)
        return
    zeros, end = memoryview(bytes(length)), offset + length
    while offset < end:
        offset += os.pwrite(fd, zeros[: end - offset], offset)
