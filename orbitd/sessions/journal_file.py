"""The file of a journal: its records, and the preallocated, mapped space behind them. `journal` has their meaning.

The file begins with a header: magic with the version, the position of its first record, a CRC. A record is a header
(kind, length, CRC of kind and payload) and the payload. Preallocated space is zeros, and so reads as a record of kind
0, which there is none of. `read_records` ends at a torn or damaged record; `journal_repair` reads on behind it.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from enum import IntEnum

from msgspec import Struct

from orbit_protocol.params import MAX_SCREEN_CELLS

_MAGIC = b"ORBITJ\x01\n"
_FILE = struct.Struct(">8sQI")
_RECORD = struct.Struct(">BII")
_SIZE = struct.Struct(">HH")

FILE_HEADER_BYTES = _FILE.size
RECORD_HEADER_BYTES = _RECORD.size
PAYLOAD_MAX_BYTES = 1 << 20

CAPTURE_MAX_BYTES = 64 << 10
"""The most that one `Journal.capture` reads."""

_RESERVE_STEP_BYTES = 320 << 10


class Kind(IntEnum):
    """What a record holds."""

    OUTPUT = 1
    RESIZE = 2


class Output(Struct, frozen=True, kw_only=True):
    """Bytes that the program wrote."""

    data: bytes


class Resize(Struct, frozen=True, kw_only=True):
    """A new size of the terminal."""

    cols: int
    rows: int


Event = Output | Resize


def file_header(base: int) -> bytes:
    """Return the header of a file whose first record is at a position."""
    start = _FILE.pack(_MAGIC, base, 0)[:-4]
    return start + zlib.crc32(start).to_bytes(4, "big")


def parse_base(header: bytes) -> int | None:
    """Return the position of a file's first record, or None if this is not the header of a journal of this version."""
    if len(header) != _FILE.size:
        return None
    base: int = _FILE.unpack(header)[1]
    return base if file_header(base) == header else None


def is_of_another_version(header: bytes) -> bool:
    """Return whether this is the whole header of a journal of a version that this program does not know."""
    start, checksum = header[:-4], header[-4:]
    return header[:6] == _MAGIC[:6] and header[:8] != _MAGIC and zlib.crc32(start).to_bytes(4, "big") == checksum


def record_header(kind: Kind, payload: bytes | bytearray) -> bytes:
    """Return the header of a payload."""
    return _RECORD.pack(kind, len(payload), zlib.crc32(payload, kind))


def records_of(event: Event) -> Iterator[bytes]:
    """Yield the records of an event: several where its data is long."""
    if isinstance(event, Resize):
        payloads, kind = [_SIZE.pack(event.cols, event.rows)], Kind.RESIZE
    else:
        starts = range(0, len(event.data), PAYLOAD_MAX_BYTES)
        payloads, kind = [event.data[start : start + PAYLOAD_MAX_BYTES] for start in starts], Kind.OUTPUT
    for payload in payloads:
        yield record_header(kind, payload) + payload


def read_records(fd: int) -> Iterator[tuple[int, Event]]:
    """Yield each whole record's length in the file, and its event."""
    offset = _FILE.size
    while (record := read_record(fd, offset)) is not None:
        yield record
        offset += record[0]


def read_record(fd: int, offset: int) -> tuple[int, Event] | None:
    """Return the length in the file of the record at an offset, and its event; None where no whole record begins."""
    header = os.pread(fd, _RECORD.size, offset)
    length = payload_length(header)
    if length is None:
        return None
    event = parse_record(header + os.pread(fd, length, offset + _RECORD.size))
    return None if event is None else (_RECORD.size + length, event)


def parse_record(data: bytes) -> Event | None:
    """Return the event of a record, None if it is not whole."""
    header, payload = data[: _RECORD.size], data[_RECORD.size :]
    kind, length, checksum = _RECORD.unpack(header)
    # The kind is the CRC's start value, so that a changed kind is found as well as a changed payload.
    if len(payload) < length or zlib.crc32(payload, kind) != checksum:
        return None
    event = _DECODERS[kind](payload)
    # Nobody can ask for another size. A program could print a record of one, and have it found in a damaged file.
    if isinstance(event, Resize) and not 0 < event.cols * event.rows <= MAX_SCREEN_CELLS:
        return None
    return event


def payload_length(header: bytes | bytearray) -> int | None:
    """Return the length in a record's header; None where no record has such a kind or length."""
    if len(header) < _RECORD.size:
        return None
    kind, length, _ = _RECORD.unpack(header)
    is_possible = length == _SIZE.size if kind == Kind.RESIZE else kind in _DECODERS and 0 < length <= PAYLOAD_MAX_BYTES
    return length if is_possible else None


def has_checksum_of(header: bytes, payload: bytes) -> bool:
    """Return whether a record's header has the checksum of output, whatever kind and length stand in it."""
    checksum: int = _RECORD.unpack(header)[2]
    return zlib.crc32(payload, Kind.OUTPUT) == checksum


def _decode_resize(payload: bytes) -> Resize:
    cols, rows = _SIZE.unpack(payload)
    return Resize(cols=cols, rows=rows)


_DECODERS: dict[int, Callable[[bytes], Event]] = {
    Kind.OUTPUT: lambda payload: Output(data=payload),
    Kind.RESIZE: _decode_resize,
}


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of the data at an offset.

    Raises:
        OSError: The disk is full or fails; part of the data may have been written.
    """
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count


class ReservedSpace:
    """Preallocated space behind the end of a file, mapped into memory: a read puts its bytes into the file directly.

    The space reads as zeros and has disk blocks. Touching a shared mapping without blocks on a full disk would kill the
    process (SIGBUS, mmap(2)); so a full disk shows in posix_fallocate(3), as an OSError, and nowhere else.

    Args:
        fd: The file, open for reading and writing; the caller closes it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None
        self._start = 0

    def at(self, offset: int, length: int) -> memoryview:
        """Return `length` writable bytes, all zero, at an offset behind everything that was written.

        Release the view before the next call: a mapping cannot be closed while a view of it exists (BufferError).

        Raises:
            OSError: There is no room on the disk.
        """
        if self._map is None or offset + length > self._start + len(self._map):
            self._map_range(offset - offset % mmap.ALLOCATIONGRANULARITY, offset + length)
        assert self._map is not None
        begin = offset - self._start
        view = memoryview(self._map)[begin : begin + length]
        # Touch every page now. If read(2) into the mapping had to fault a page in while a SIGKILL is pending,
        # it would fail after it has taken the bytes from the terminal, and they would be lost.
        view[:: mmap.PAGESIZE] = bytes(-(-length // mmap.PAGESIZE))
        view[-1] = 0
        return view

    def _map_range(self, start: int, end: int) -> None:
        self._unmap()
        length = max(_RESERVE_STEP_BYTES, end - start)
        size = os.fstat(self._fd).st_size
        if size < start + length:
            _allocate(self._fd, size, start + length - size)
        self._map = mmap.mmap(self._fd, length, offset=start)
        self._start = start

    def drop(self, tail: int) -> None:
        """Truncate the file to its real end.

        The mapping goes first: a page of it behind the end of the file must not be touched again (SIGBUS).

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
    # macOS has no posix_fallocate: writing zeros allocates blocks as well.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, length)
        return
    zeros, end = memoryview(bytes(length)), offset + length
    while offset < end:
        offset += os.pwrite(fd, zeros[: end - offset], offset)
