"""What orbitd and the child that searches say to each other: MessagePack in frames over a socketpair. No I/O.

    orbitd -> child     Search
    child -> orbitd     Started, then any number of Part, then Done or Failed

**Positions.** Hits have one order: that of their `Position`, the greatest first. It is made of what a line is, not of
where it is stored: rows are joined and dropped, and the tail is replaced, while somebody turns the pages.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Literal

import msgspec
from msgspec import Struct

from orbitd.keeper.frames import frame

MAX_FRAME = 64 << 20

_CHECK_BYTES = 4


class Position(Struct, frozen=True, array_like=True, order=True, forbid_unknown_fields=True):
    """A place in the order of all lines.

    Attributes:
        at: The line's time, in milliseconds since the epoch.
        session: The session's id.
        number: The line's number; `NO_NUMBER` for one without.
        ordinal: Of a line without number: its place among those of the same picture.
        digest: Of a line without number: the CRC-32 of its text.
    """

    at: int
    session: str = ""
    number: int = -2
    ordinal: int = 0
    digest: int = 0


class Search(Struct, frozen=True, kw_only=True, tag=True):
    """What to search for. Times are in milliseconds since the epoch.

    Attributes:
        history: The database of histories.
        sessions: The database of sessions.
        before: Only lines behind this place in the order.
        since: Only lines of this time or later.
        until: Only lines before this time.
        max_bytes: About how much text the hits may have altogether.
        seconds: How long the child may take.
    """

    history: str
    sessions: str
    query: str
    regex: bool
    case: Literal["smart", "sensitive", "insensitive"]
    limit: int
    seconds: float
    session_id: str | None = None
    workspace_id: str | None = None
    labels: dict[str, str] | None = None
    since: int | None = None
    until: int | None = None
    context: int = 0
    before: Position | None = None
    max_bytes: int = 8 << 20


class Found(Struct, frozen=True, kw_only=True):
    """A line that fits, as `orbit_protocol.results.Hit`; `at` is in milliseconds since the epoch."""

    session_id: str
    name: str | None
    at: int
    line: int
    text: str
    before: list[str] = []
    after: list[str] = []


class Started(Struct, frozen=True, kw_only=True, tag=True):
    """The child begins."""


class Part(Struct, frozen=True, kw_only=True, tag=True):
    """More hits, behind those that were sent before.

    Attributes:
        position: All that is at this place in the order or before it was sent.
        searched_bytes: How much text was searched so far.
        damaged: A sentence about each row that could not be read, since the last part.
    """

    hits: list[Found]
    position: Position | None
    searched_bytes: int
    damaged: list[str] = []


class Done(Struct, frozen=True, kw_only=True, tag=True):
    """The end.

    Attributes:
        position: Where the next search goes on; None where there is nothing behind.
        complete: Whether all before `position` was searched, and the time or a damage ended nothing.
    """

    position: Position | None
    complete: bool


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """Nothing can be searched: the query is wrong, the databases are damaged, or they cannot be read now."""

    message: str
    reason: Literal["query", "damage", "unreadable"]


FromChild = Started | Part | Done | Failed

_encoder = msgspec.msgpack.Encoder()
_position_decoder = msgspec.msgpack.Decoder(Position)


def encode(message: Struct) -> bytes:
    """Return one frame. Raises: ValueError, if it would be longer than the reader takes."""
    return frame(_encoder.encode(message), MAX_FRAME)


def cursor_from_position(position: Position) -> str:
    """Return a position as a page's `next_cursor`."""
    data = _encoder.encode(position)
    return base64.urlsafe_b64encode(data + zlib.crc32(data).to_bytes(_CHECK_BYTES, "big")).decode().rstrip("=")


def position_from_cursor(cursor: str) -> Position:
    """Return the position of a cursor. Raises: ValueError, if no page gave it."""
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        body, check = data[:-_CHECK_BYTES], int.from_bytes(data[-_CHECK_BYTES:], "big")
        if zlib.crc32(body) != check:
            raise ValueError("its checksum is another")
        return _position_decoder.decode(body)
    except (binascii.Error, UnicodeEncodeError, msgspec.MsgspecError) as error:
        raise ValueError(str(error)) from error
