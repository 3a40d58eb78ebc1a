"""The records of a journal file: how they are written and read back. What they are for, `journal` tells.

The file begins with a header: magic with the version, the position of its first record, a CRC. A record is a header
(kind, length, CRC of kind and payload) and the payload. Kind 0 is what preallocated space looks like. A torn or
damaged record ends the reading.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from enum import IntEnum

from msgspec import Struct

_MAGIC = b"ORBITJ\x01\n"
_FILE = struct.Struct(">8sQI")
_RECORD = struct.Struct(">BII")
_SIZE = struct.Struct(">HH")

FILE_HEADER_BYTES = _FILE.size
RECORD_HEADER_BYTES = _RECORD.size
PAYLOAD_MAX_BYTES = 1 << 20


class Kind(IntEnum):
    """What a record holds."""

    OUTPUT = 1
    RESIZE = 2


class Output(Struct, frozen=True, kw_only=True):
    """Bytes that the program wrote."""

    data: bytes


class Resize(Struct, frozen=True, kw_only=True):
    """The terminal got a new size."""

    cols: int
    rows: int


Event = Output | Resize


def file_header(base: int) -> bytes:
    """Return the header of a file whose first record is at a position."""
    start = _FILE.pack(_MAGIC, base, 0)[:-4]
    return start + zlib.crc32(start).to_bytes(4, "big")


def read_base(fd: int) -> int | None:
    """Return the position of a file's first record, or None if this is no journal that we can read."""
    header = os.pread(fd, _FILE.size, 0)
    if len(header) < _FILE.size:
        return None
    base: int = _FILE.unpack(header)[1]
    return base if file_header(base) == header else None


def record_header(kind: Kind, payload: bytes) -> bytes:
    """Return what stands before a payload."""
    return _RECORD.pack(kind, len(payload), zlib.crc32(payload, kind))


def records_of(event: Event) -> Iterator[bytes]:
    """Yield the records that an event makes: several where its data is long."""
    if isinstance(event, Resize):
        payloads, kind = [_SIZE.pack(event.cols, event.rows)], Kind.RESIZE
    else:
        starts = range(0, len(event.data), PAYLOAD_MAX_BYTES)
        payloads, kind = [event.data[start : start + PAYLOAD_MAX_BYTES] for start in starts], Kind.OUTPUT
    for payload in payloads:
        yield record_header(kind, payload) + payload


def read_records(fd: int) -> Iterator[tuple[int, Event]]:
    """Yield each whole record's length in the file, and what it holds."""
    offset = _FILE.size
    while header := os.pread(fd, _RECORD.size, offset):
        if len(header) < _RECORD.size:
            return
        kind, length, checksum = _RECORD.unpack(header)
        if kind not in _DECODERS or length > PAYLOAD_MAX_BYTES:
            return
        payload = os.pread(fd, length, offset + _RECORD.size)
        if len(payload) < length or zlib.crc32(payload, kind) != checksum:
            return
        yield _RECORD.size + length, _DECODERS[kind](payload)
        offset += _RECORD.size + length


def _resize(payload: bytes) -> Resize:
    cols, rows = _SIZE.unpack(payload)
    return Resize(cols=cols, rows=rows)


def _output(payload: bytes) -> Output:
    return Output(data=payload)


_DECODERS: dict[int, Callable[[bytes], Event]] = {Kind.OUTPUT: _output, Kind.RESIZE: _resize}


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of the data at an offset.

    Raises:
        OSError: The disk is full or fails; part of the data may have been written.
    """
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count
