"""What a screens process does at this moment, in memory that it shares with orbitd.

The process writes the note before each call into the native library that could crash or hang there, and clears it
afterwards. orbitd reads it while it waits, and after the process has died: the memory is still there, and says whose
picture it was, and from which position on.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from enum import IntEnum

from msgspec import Struct

if not hasattr(os, "memfd_create"):
    import tempfile

SIZE = 4096
"""Bytes of the shared memory."""

_SESSION_MAX_BYTES = 255
_ACTIVE = 0  # the offset of the flag; the rest begins behind it, aligned
_FIELDS = struct.Struct("=8xQQQBB")
_END = _FIELDS.size + _SESSION_MAX_BYTES


class Kind(IntEnum):
    """What a picture is worked on for."""

    OPEN = 1
    FEED = 2
    DRAW = 3


class Work(Struct, frozen=True, kw_only=True):
    """What a process is doing.

    Attributes:
        session: Whose picture it works on.
        start: Where the record begins that is fed; the picture's position otherwise.
        end: Where that record ends; equal to `start` otherwise.
        started_ns: Since when, as `time.monotonic_ns` has it: it is one clock for all processes.
    """

    session: str
    kind: Kind
    start: int
    end: int
    started_ns: int


def create() -> int:
    """Return the descriptor of a note's memory, of `SIZE` zeros: it has no name, and is gone with its last user."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("orbit-note", os.MFD_CLOEXEC)
        os.ftruncate(fd, SIZE)
        return fd
    with tempfile.TemporaryFile(buffering=0) as file:
        # Written, and not only made that long: touching a page of a file for which the disk has no block is SIGBUS.
        os.pwrite(file.fileno(), bytes(SIZE), 0)
        return os.dup(file.fileno())


class Note:
    """One note, mapped. One process writes it, another one reads it.

    Args:
        fd: What `create` returned, in this process or another one; the mapping needs it no more.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SIZE)

    def close(self) -> None:
        """Unmap the memory."""
        self._map.close()

    def write(self, session: str, kind: Kind, start: int, end: int) -> None:
        """Note what begins now."""
        # The flag is cleared first and set last, so that a process that dies in between leaves no mixture of two.
        self._map[_ACTIVE] = 0
        name = session.encode("utf-8", "replace")[:_SESSION_MAX_BYTES]
        _FIELDS.pack_into(self._map, 0, start, end, time.monotonic_ns(), kind, len(name))
        self._map[_FIELDS.size : _FIELDS.size + len(name)] = name
        self._map[_ACTIVE] = 1

    def clear(self) -> None:
        """Note that it has ended."""
        self._map[_ACTIVE] = 0

    def read(self) -> Work | None:
        """Return what the process does now, or did when it died; None where that was nothing."""
        # The process may write meanwhile: what is the same twice was not being changed.
        found = self._map[:_END]
        for _ in range(10):
            before, found = found, self._map[:_END]
            if found == before:
                break
        if not found[_ACTIVE]:
            return None
        start, end, started_ns, kind, length = _FIELDS.unpack_from(found)
        try:
            kind = Kind(kind)
        except ValueError:  # the process may have written anything here before it died
            return None
        session = found[_FIELDS.size : _FIELDS.size + length].decode("utf-8", "replace")
        return Work(session=session, kind=kind, start=start, end=end, started_ns=started_ns)
