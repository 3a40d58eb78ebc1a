"""Records of a journal as a chunk holds them before it is compressed: without their headers. No I/O.

Of the nine bytes of a record's header, four are a checksum, which nothing can compress and which follows from the rest;
and headers part what a program has written in one go. So kinds and lengths stand in front as numbers, a time as the
difference to the one before, and the payloads behind them without a gap. `unpack` returns the same bytes again.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from orbitd.sessions.journal_file import CRC_START, LENGTHS, RECORD, TIME, Kind, checksum

_MAX_TIME = 1 << 56
"""Milliseconds: no clock has such a time."""

_KIND_BITS = 3
_LENGTH_BYTES = 4

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[int])


class Packed(Struct, frozen=True, kw_only=True):
    """Whole records, packed.

    Attributes:
        data: The length of the heads, in four bytes; the heads, as MessagePack; and the payloads. There is a head for
            each record, a number: its kind in the lowest bits, and above it the length of its payload; of a time, which
            has no payload, the milliseconds since the one before it, or since the epoch.
        raw_bytes: How long they are in the journal.
        from_at: The time of the first output, in milliseconds since the epoch; 0 if it says none.
        to_at: The time of the last.
        size: The first size that is set in them, if any: columns and rows.
    """

    data: bytes
    raw_bytes: int
    from_at: int
    to_at: int
    size: tuple[int, int] | None


def pack(records: bytes) -> Packed:
    """Pack the sound records at the beginning of some bytes; `raw_bytes` is 0 where there is none."""
    view, heads, payloads = memoryview(records), list[int](), list[memoryview]()
    offset, from_at, to_at, size = 0, 0, 0, None
    # As `payload_length` and `parse_record`, in one: what is typed has a hundred thousand records a megabyte.
    while offset + RECORD.size <= len(records):
        kind, length, expected = RECORD.unpack_from(records, offset)
        start, end = offset + RECORD.size, offset + RECORD.size + length
        payload = view[start:end]
        if length not in LENGTHS.get(kind, ()) or end > len(records) or checksum(kind, payload) != expected:
            break
        if kind == Kind.TIME:
            (at,) = TIME.unpack(payload)
            if at >= _MAX_TIME:
                break
            heads.append((at - to_at) << _KIND_BITS | kind)
            from_at, to_at = from_at or at, at
        else:
            heads.append(length << _KIND_BITS | kind)
            payloads.append(payload)
            if kind == Kind.RESIZE and size is None:
                size = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:], "big")
        offset = end
    packed_heads = _encoder.encode(heads)
    data = b"".join((len(packed_heads).to_bytes(_LENGTH_BYTES, "big"), packed_heads, *payloads))
    return Packed(data=data, raw_bytes=offset, from_at=from_at, to_at=to_at, size=size)


def unpack(data: bytes) -> bytes:
    """Return the records. Raises: ValueError: it is nothing that `pack` returns."""
    view = memoryview(data)
    offset = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "big")
    try:
        heads = _decoder.decode(view[_LENGTH_BYTES:offset])
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    found, at = list[bytes | memoryview](), 0
    for head in heads:
        kind, number = head & (1 << _KIND_BITS) - 1, head >> _KIND_BITS
        payload: bytes | memoryview
        if kind == Kind.TIME:
            at += number
            if not 0 <= at < _MAX_TIME:
                raise ValueError(f"a time of {at} ms")
            payload = at.to_bytes(TIME.size, "big")
        else:
            payload = view[offset : offset + number]
            offset += number
        if kind not in CRC_START:
            raise ValueError(f"a record of kind {kind}")
        found += (RECORD.pack(kind, len(payload), checksum(kind, payload)), payload)
    if offset != len(data):
        raise ValueError(f"records up to byte {offset} of {len(data)}")
    return b"".join(found)
