"""Reading a film: the group that holds a moment, and the journal's records behind its key frame.

For threads, with a connection that cannot write. What is damaged is left out: a chunk that cannot be read ends its
group there, since what follows cannot be drawn without it, and the next key frame begins anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import zstandard
from msgspec import Struct

from orbitd.history.database import (
    CHUNK_COLUMNS,
    GROUP_COLUMNS,
    MAX_FRAME_BYTES,
    DamagedHistory,
    Group,
    NoteDamage,
    chunk_from_row,
    group_from_row,
)
from orbitd.history.packed_records import unpack
from orbitd.history.recorder import DICTIONARY_BYTES, raw_dictionary
from orbitd.history.text_blocks import decompressed
from orbitd.sessions.journal_file import RECORD, TIME, Event, Kind, parse_record, payload_length


class Part(Struct, frozen=True, kw_only=True):
    """Records of a chunk, one behind the other.

    Attributes:
        start: The position of the first.
        from_at: When the first output in it came, in milliseconds since the epoch.
        to_at: When the last came.
    """

    start: int
    data: bytes
    from_at: int
    to_at: int


def extent(connection: sqlite3.Connection, session_id: str) -> tuple[int, int] | None:
    """Return when the film of a session begins and ends, in milliseconds since the epoch; None where there is none."""
    row = connection.execute("SELECT min(at), max(to_at) FROM groups WHERE session_id = ?", (session_id,)).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


def group_at(connection: sqlite3.Connection, session_id: str, at: int, note_damage: NoteDamage) -> Group | None:
    """Return the last sound group that begins at a moment or before; None where the film begins later."""
    query = f"SELECT {GROUP_COLUMNS} FROM groups WHERE session_id = ? AND at <= ? ORDER BY position DESC LIMIT 16"  # noqa: S608  # ours
    return next(_sound_groups(connection.execute(query, (session_id, at)), note_damage), None)


def groups_from(
    connection: sqlite3.Connection, session_id: str, position: int, note_damage: NoteDamage
) -> Iterator[Group]:
    """Yield the sound groups that begin at a position or behind it, oldest first."""
    query = f"SELECT {GROUP_COLUMNS} FROM groups WHERE session_id = ? AND position >= ? ORDER BY position LIMIT 1"  # noqa: S608  # ours
    while row := connection.execute(query, (session_id, position)).fetchone():
        yield from _sound_groups([row], note_damage)
        position = row[2] + 1


def _sound_groups(rows: object, note_damage: NoteDamage) -> Iterator[Group]:
    for row in rows:  # type: ignore[attr-defined]
        try:
            yield group_from_row(row)
        except DamagedHistory as error:
            note_damage(error)


def parts_of(connection: sqlite3.Connection, group: Group, note_damage: NoteDamage) -> Iterator[Part]:
    """Yield the records of a group's chunks in their order, up to the first that is damaged or missing."""
    # What comes behind a missing one cannot be drawn, nor unpacked: zstd does not notice that a dictionary is another.
    query = f"SELECT {CHUNK_COLUMNS} FROM chunks WHERE group_seq = ? AND from_position = ?"  # noqa: S608  # ours
    position, before = group.position, b""
    while row := connection.execute(query, (group.seq, position)).fetchone():
        try:
            chunk = chunk_from_row(row)
            dictionary = before[len(before) - chunk.dictionary_bytes :] if chunk.dictionary_bytes else b""
            if len(dictionary) < chunk.dictionary_bytes:
                raise DamagedHistory(f"row {chunk.seq} of chunks: what it depends on is missing")
            decompressor = zstandard.ZstdDecompressor(dict_data=raw_dictionary(dictionary))
            packed = decompressed(chunk.data, MAX_FRAME_BYTES, decompressor)
            data = unpack(packed)
        except (DamagedHistory, zstandard.ZstdError, ValueError) as error:
            note_damage(error if isinstance(error, DamagedHistory) else DamagedHistory(f"row {row[0]} of chunks"))
            return
        yield Part(start=chunk.from_position, data=data, from_at=chunk.from_at, to_at=chunk.to_at)
        position, before = chunk.to_position, (before + packed)[-DICTIONARY_BYTES:]


def records_of(data: bytes) -> Iterator[tuple[int, Event]]:
    """Yield the records in a part: the offset behind each, and its event; up to one that is not whole."""
    offset = 0
    while (length := payload_length(data[offset : offset + RECORD.size])) is not None:
        end = offset + RECORD.size + length
        event = parse_record(data[offset:end]) if end <= len(data) else None
        if event is None:
            return
        yield end, event
        offset = end


def offset_at(data: bytes, at: int) -> int | None:
    """Return where in a part the first output is that came later than a moment; None where there is none."""
    offset = 0
    while (length := payload_length(data[offset : offset + RECORD.size])) is not None:
        if data[offset] == Kind.TIME and TIME.unpack_from(data, offset + RECORD.size)[0] > at:
            return offset
        offset += RECORD.size + length
    return None


def until(parts: Iterator[Part], at: int) -> Iterator[Part]:
    """Yield parts, or what of them came at a moment or before."""
    for part in parts:
        offset = offset_at(part.data, at) if part.to_at > at else None
        if offset is None:
            yield part
            continue
        if offset:
            yield Part(start=part.start, data=part.data[:offset], from_at=part.from_at, to_at=at)
        return


def records_between(
    connection: sqlite3.Connection, session_id: str, start: int, end: int, note_damage: NoteDamage
) -> bytes | None:
    """Return a journal's records between two positions; None where the film has not all of them."""
    (first,) = connection.execute(
        "SELECT max(position) FROM groups WHERE session_id = ? AND position <= ?", (session_id, start)
    ).fetchone()
    found = bytearray()
    for group in groups_from(connection, session_id, first or 0, note_damage):
        if group.position >= end:
            break
        for part in parts_of(connection, group, note_damage):
            behind = part.start + len(part.data)
            if behind <= start or part.start >= end:
                continue
            if part.start > start + len(found):
                return None
            found += part.data[start + len(found) - part.start : end - part.start]
    return bytes(found) if len(found) == end - start else None
