"""The file of a journal: its records and how they are encoded. `journal` has their meaning.

The file begins with a header: magic with the version, the position of its first record, a CRC. A record is a header
(kind, length, CRC of kind and payload) and the payload. No kind is 0: the zeros of a hole, or of space that an older
release preallocated, are no record. `read_records` ends at a torn or damaged record; `journal_repair` reads on.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum

from msgspec import Struct

from orbit_protocol import MAX_SCREEN_CELLS

_MAGIC = b"ORBITJ\x01\n"
_FILE = struct.Struct(">8sQI")
RECORD = struct.Struct(">BII")
_SIZE = struct.Struct(">HH")
TIME = struct.Struct(">Q")

FILE_HEADER_BYTES = _FILE.size
RECORD_HEADER_BYTES = RECORD.size
PAYLOAD_MAX_BYTES = 1 << 20

TIME_INTERVAL_MS = 100
"""Output that comes later than this after the last `Time` has another one before it."""

DIVIDER_MAX_BYTES = 1000
CWD_MAX_BYTES = 4096

_READ_BYTES = 128 << 10

_LARGE_BYTES = 1 << 20
"""From here on a file without a name is closed in a thread."""

CAPTURE_MAX_BYTES = 64 << 10
"""The most that an older release read into the file before it wrote the record's header."""


class Kind(IntEnum):
    """What a record holds."""

    OUTPUT = 1
    RESIZE = 2
    DIVIDER = 3
    CWD = 4
    TIME = 5


class Output(Struct, frozen=True, kw_only=True):
    """Bytes that the program wrote."""

    data: bytes


class Resize(Struct, frozen=True, kw_only=True):
    """A new size of the terminal."""

    cols: int
    rows: int


class Divider(Struct, frozen=True, kw_only=True):
    """A line that Orbit itself draws, between two programs on one screen, say; 1 to DIVIDER_MAX_BYTES of UTF-8."""

    text: str


class Cwd(Struct, frozen=True, kw_only=True):
    """A new working directory of the program; 1 to CWD_MAX_BYTES without a NUL."""

    path: bytes


class Time(Struct, frozen=True, kw_only=True):
    """When the output behind it came, in milliseconds since the epoch."""

    milliseconds: int


Event = Output | Resize | Divider | Cwd | Time

# A wrong bit in zlib.crc32's start value changes the CRC as the same bit of the payload's first byte does. Kinds 1 and
# 2 start with their own number and differ in two bits. The newer ones are one bit from others, and start with numbers
# for which a wrong bit in the kind changes the CRC as no single bit of the payload does: each can be put right.
CRC_START: dict[int, int] = {
    Kind.OUTPUT: 1,
    Kind.RESIZE: 2,
    Kind.DIVIDER: 0x5A1F_93C7,
    Kind.CWD: 0xB46D_0E39,
    Kind.TIME: 0x2CD8_71A5,
}

LENGTHS: dict[int, range] = {
    Kind.OUTPUT: range(1, PAYLOAD_MAX_BYTES + 1),
    Kind.RESIZE: range(_SIZE.size, _SIZE.size + 1),
    Kind.DIVIDER: range(1, DIVIDER_MAX_BYTES + 1),
    Kind.CWD: range(1, CWD_MAX_BYTES + 1),
    Kind.TIME: range(TIME.size, TIME.size + 1),
}
"""How long the payload of each kind may be."""


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


def record_header(kind: int, payload: bytes | bytearray) -> bytes:
    """Return the header of a payload."""
    return RECORD.pack(kind, len(payload), checksum(kind, payload))


def checksum(kind: int, payload: bytes | bytearray | memoryview) -> int:
    """Return the CRC of a record of one of the kinds."""
    return zlib.crc32(payload, CRC_START[kind])


def records_of(event: Event) -> Iterator[bytes]:
    """Yield the records of an event: several where it is long output.

    Raises:
        ValueError: It has no record: a folder with a NUL, a size that there is not, a text that is too long.
    """
    if isinstance(event, Output):
        for start in range(0, len(event.data), PAYLOAD_MAX_BYTES):
            payload = event.data[start : start + PAYLOAD_MAX_BYTES]
            yield record_header(Kind.OUTPUT, payload) + payload
        return
    try:
        match event:
            case Resize(cols=cols, rows=rows):
                kind, payload = Kind.RESIZE, _SIZE.pack(cols, rows)
            case Divider(text=text):
                kind, payload = Kind.DIVIDER, text.encode()
            case Cwd(path=path):
                kind, payload = Kind.CWD, path
            case Time(milliseconds=milliseconds):
                kind, payload = Kind.TIME, TIME.pack(milliseconds)
    except struct.error as exc:
        raise ValueError(f"no record has {event}") from exc
    if len(payload) not in LENGTHS[kind] or _DECODERS[kind](payload) is None:
        raise ValueError(f"no record has {event}")
    yield record_header(kind, payload) + payload


def read_records(fd: int, offset: int = _FILE.size) -> Iterator[tuple[int, Event]]:
    """Yield each whole record's length in the file, and its event, from an offset on."""
    while True:
        data, start = os.pread(fd, _READ_BYTES, offset), 0
        # As `payload_length` and `parse_record`, in one: a session's start waits for a hundred thousand records.
        while start + RECORD.size <= len(data):
            kind, length, expected = RECORD.unpack_from(data, start)
            end = start + RECORD.size + length
            if length not in LENGTHS.get(kind, ()):
                return
            if end > len(data):
                break  # read on from this record
            payload = data[start + RECORD.size : end]
            event = _DECODERS[kind](payload) if checksum(kind, payload) == expected else None
            if event is None:
                return
            yield end - start, event
            start = end
        if start == 0:
            record = read_record(fd, offset)  # it is longer than what was read at once
            if record is None:
                return
            yield record
            start = record[0]
        offset += start


def read_record(fd: int, offset: int) -> tuple[int, Event] | None:
    """Return the length in the file of the record at an offset, and its event; None where no whole record begins."""
    header = os.pread(fd, RECORD.size, offset)
    length = payload_length(header)
    if length is None:
        return None
    event = parse_record(header + os.pread(fd, length, offset + RECORD.size))
    return None if event is None else (RECORD.size + length, event)


def parse_record(data: bytes) -> Event | None:
    """Return the event of a record, None if it is not whole."""
    header, payload = data[: RECORD.size], data[RECORD.size :]
    kind, length, expected = RECORD.unpack(header)
    # The kind is part of the CRC, so that a changed kind is found as well as a changed payload.
    # A reader may have read the header before the file was damaged, and the record after.
    if kind not in CRC_START or len(payload) < length or checksum(kind, payload) != expected:
        return None
    return _DECODERS[kind](payload)


def payload_length(header: bytes | bytearray) -> int | None:
    """Return the length in a record's header; None where no record has such a kind or length."""
    if len(header) < RECORD.size:
        return None
    kind, length, _ = RECORD.unpack(header)
    return length if length in LENGTHS.get(kind, ()) else None


def has_checksum_of(header: bytes, payload: bytes) -> bool:
    """Return whether a payload has the checksum in a record's header, whatever length stands there.

    Output that an older release has read and not recorded has the kind 0.
    """
    kind, _, expected = RECORD.unpack(header)
    return bool(checksum(kind or Kind.OUTPUT, payload) == expected)


def _decode_resize(payload: bytes) -> Resize | None:
    cols, rows = _SIZE.unpack(payload)
    # Nobody can ask for another size. A program could print a record of one, and have it found in a damaged file.
    return Resize(cols=cols, rows=rows) if 0 < cols * rows <= MAX_SCREEN_CELLS else None


def _decode_divider(payload: bytes) -> Divider | None:
    try:
        return Divider(text=payload.decode())
    except UnicodeDecodeError:
        return None


_DECODERS: dict[int, Callable[[bytes], Event | None]] = {
    Kind.OUTPUT: lambda payload: Output(data=payload),
    Kind.RESIZE: _decode_resize,
    Kind.DIVIDER: _decode_divider,
    Kind.CWD: lambda payload: None if b"\0" in payload else Cwd(path=payload),
    Kind.TIME: lambda payload: Time(milliseconds=TIME.unpack(payload)[0]),
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


def close_apart(fd: int) -> None:
    """Close a file that has no name any more; a large one in a thread.

    Then the kernel frees its blocks, which takes it some 10 ms for 20 MiB, and the event loop would stand still.
    """
    if os.fstat(fd).st_size >= _LARGE_BYTES:
        with suppress(RuntimeError):  # no thread is to be had
            threading.Thread(target=os.close, args=(fd,), name="close").start()
            return
    os.close(fd)
