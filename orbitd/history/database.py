"""history.db: opening it, its rows, and what becomes of it when it is damaged.

It is opened in the thread that uses it. Whatever is wrong with it touches no session: a database that cannot be used is
renamed, and a new one is begun; a row that does not fit its checksum counts as missing.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import sqlite3
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import zstandard
from msgspec import Struct

from orbit_os.files import PRIVATE_FILE, set_mode
from orbit_protocol.errors import StorageReadOnly
from orbitd.history.text_blocks import TextBlock, decompressed
from orbitd.store.files import APPLICATION_ID, BACKSTOP_PAGES, FULL_SYNC, SIDE_FILES, file_uri, free_name, size

VERSION = 1
"""The user_version of the schema."""

BUSY_SECONDS = 5.0

BROUGHT_OVER = ".brought-over"
"""The end of the name of an empty file: what is whole in the damaged database of that name was brought over."""

MAX_FRAME_BYTES = 256 << 20
"""The longest key frame and the longest chunk, before they were compressed, whatever a row says."""

# As those of the sessions' database (orbitd.store.database), for the same reasons.
_WRITER_SETUP = f"""
{FULL_SYNC}
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA temp_store = MEMORY;
PRAGMA cache_spill = OFF;
PRAGMA wal_autocheckpoint = {BACKSTOP_PAGES};
PRAGMA journal_size_limit = 67108864;
PRAGMA trusted_schema = OFF;
PRAGMA secure_delete = ON;
"""
READER_SETUP = """
PRAGMA query_only = ON;
PRAGMA temp_store = MEMORY;
PRAGMA trusted_schema = OFF;
"""

GROUP_COLUMNS = "seq, session_id, position, at, line, cols, rows, checksum, to_position, to_at, stored_bytes, native"
CHUNK_COLUMNS = (
    "seq, session_id, from_position, to_position, from_at, to_at, bytes, group_seq, dictionary_bytes, checksum, data"
)
TEXT_COLUMNS = (
    "seq, session_id, is_tail, first_line, next_line, from_at, to_at, bytes, stored_bytes, checksum, text, runs"
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NoteDamage = Callable[["DamagedHistory"], None]
"""Is given what is damaged."""

_encoder = msgspec.msgpack.Encoder()


class DamagedHistory(Exception):
    """A row of history.db is damaged; the text says which."""


class Unusable(Exception):
    """The database is none of ours, or cannot be read; the text says why."""


class Group(Struct, frozen=True, kw_only=True):
    """A key frame of a film, and the extent of what follows it.

    Attributes:
        seq: Its row.
        position: Of the journal, at the key frame.
        at: The time of the key frame, in milliseconds since the epoch.
        line: How many lines had left the screen.
        native: The emulator's own state; b"" for a blank screen.
        to_position: Where its chunks end.
        to_at: When.
        stored_bytes: What it takes with its chunks.
    """

    seq: int
    session_id: str
    position: int
    at: int
    line: int
    cols: int
    rows: int
    native: bytes
    to_position: int
    to_at: int
    stored_bytes: int


class Chunk(Struct, frozen=True, kw_only=True):
    """Records of a journal between two positions, as they are stored.

    Attributes:
        bytes: How long they are.
        dictionary_bytes: How many bytes before them, in the same group, are the dictionary of `data`; packed ones.
        data: They, packed (`packed_records`) and compressed.
    """

    seq: int
    from_position: int
    to_position: int
    from_at: int
    to_at: int
    raw_bytes: int
    dictionary_bytes: int
    data: bytes


class StoredText(Struct, frozen=True, kw_only=True):
    """A row of `texts`."""

    seq: int
    session_id: str
    is_tail: bool
    block: TextBlock


def milliseconds(moment: datetime) -> int:
    """Return a time as the tables have it: in milliseconds since the epoch, exactly."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def history_path(database: str) -> str:
    """Return the path of the database of histories that is beside a database of sessions, and of no other's."""
    folder, name = os.path.split(database)
    return os.path.join(folder, "history.db") if name == "sessions.db" else f"{database}.history.db"


def checksum(*columns: Any) -> int:
    """Return the checksum of a row: the CRC-32 of its other columns as one MessagePack array."""
    return zlib.crc32(_encoder.encode(columns))


def group_from_row(row: tuple[Any, ...]) -> Group:
    """Return a group out of `GROUP_COLUMNS`. Raises: DamagedHistory."""
    verify_group(row)
    seq, session_id, position, at, line, cols, rows, _, to_position, to_at, stored, native = row
    try:
        return Group(
            seq=seq,
            session_id=session_id,
            position=position,
            at=at,
            line=line,
            cols=cols,
            rows=rows,
            native=b"" if native is None else decompress(native),
            to_position=to_position,
            to_at=to_at,
            stored_bytes=stored,
        )
    except zstandard.ZstdError as error:
        raise DamagedHistory(f"row {seq} of groups: {error}") from error


def chunk_from_row(row: tuple[Any, ...]) -> Chunk:
    """Return a chunk out of `CHUNK_COLUMNS`. Raises: DamagedHistory."""
    seq, session_id, from_position, to_position, from_at, to_at, raw, group, dictionary, check, data = row
    _verify("chunks", seq, check, session_id, from_position, to_position, from_at, to_at, raw, group, dictionary, data)
    return Chunk(
        seq=seq,
        from_position=from_position,
        to_position=to_position,
        from_at=from_at,
        to_at=to_at,
        raw_bytes=raw,
        dictionary_bytes=dictionary,
        data=data,
    )


def text_from_row(row: tuple[Any, ...]) -> StoredText:
    """Return a block of text out of `TEXT_COLUMNS`; what it holds is not looked at. Raises: DamagedHistory."""
    seq, session_id, is_tail, first_line, next_line, from_at, to_at, raw, stored, check, text, runs = row
    _verify("texts", seq, check, session_id, is_tail, first_line, next_line, from_at, to_at, raw, stored, text, runs)
    block = TextBlock(
        first_line=first_line,
        next_line=next_line,
        from_at=from_at,
        to_at=to_at,
        raw_bytes=raw,
        text=text,
        runs=runs,
    )
    return StoredText(seq=seq, session_id=session_id, is_tail=bool(is_tail), block=block)


def _verify(table: str, seq: object, check: object, *columns: object) -> None:
    try:
        found = checksum(*columns)
    except (TypeError, ValueError, OverflowError) as error:  # of a kind that we never write
        raise DamagedHistory(f"row {seq} of {table}: {error}") from error
    if found != check:
        raise DamagedHistory(f"row {seq} of {table}: its checksum is another")


def verify_group(row: tuple[Any, ...]) -> None:
    """Check a row of `GROUP_COLUMNS` by its checksum. Raises: DamagedHistory."""
    seq, session_id, position, at, line, cols, rows, check, _, _, _, native = row
    _verify("groups", seq, check, session_id, position, at, line, cols, rows, native)


def text_values(session_id: str, block: TextBlock, *, is_tail: bool) -> tuple[Any, ...]:
    """Return the values of `TEXT_COLUMNS` behind `seq`."""
    columns = (
        *(session_id, int(is_tail), block.first_line, block.next_line, block.from_at, block.to_at, block.raw_bytes),
        len(block.text) + len(block.runs),
    )
    return *columns, checksum(*columns, block.text, block.runs), block.text, block.runs


def decompress(data: bytes) -> bytes:
    """Return what was compressed without a dictionary. Raises: zstandard.ZstdError."""
    return decompressed(data, MAX_FRAME_BYTES)


@cache  # read by the start: later an upgrade may have put another one in its place
def _schema() -> str:
    from importlib import resources  # a megabyte in the template of screens processes, which only reads

    return (resources.files("orbitd.history") / "schema.sql").read_text(encoding="utf-8")


@cache
def schema_roots() -> dict[str, int]:
    """Return the root page that each table and index has in a new database."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.executescript(_schema())
        return dict(connection.execute("SELECT name, rootpage FROM sqlite_schema").fetchall())


def open_writer(path: str) -> sqlite3.Connection:
    """Open the database to write, in the thread that does; make it where there is none.

    Raises:
        Unusable: It cannot be read, or is none of ours: `set_aside` makes room for a new one.
        StorageReadOnly: A newer Orbit has written it, or it is a database of sessions.
        sqlite3.Error, OSError: It cannot be opened now.
    """
    _schema()
    finish_setting_aside(path)
    if os.path.lexists(path) and not os.path.isfile(path):
        raise Unusable("it is no regular file")
    if os.path.islink(path):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    # Opened only where it is new. POSIX drops all of a process's locks on a file when any descriptor of it is closed,
    # those of a connection that reads it too (sqlite.org/howtocorrupt.html, 2.2); then another process that closes its
    # own believes to be the last, and deletes the log that is written here.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
    set_mode(path, PRIVATE_FILE)  # SQLite gives the WAL the mode of the database
    connection = sqlite3.connect(
        file_uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False
    )
    try:
        _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        if is_damage(error):
            raise Unusable(str(error)) from error
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    if connection.execute("PRAGMA page_count").fetchone() == (0,):
        connection.executescript(f"{FULL_SYNC} PRAGMA auto_vacuum = INCREMENTAL;")
    connection.executescript(_WRITER_SETUP)
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "sessions" in tables and application_id == APPLICATION_ID:  # perhaps another daemon's, in use
        raise StorageReadOnly(f"{path} is a database of sessions", hint="Give it another name.")
    if version > VERSION and application_id == APPLICATION_ID:
        raise StorageReadOnly(f"{path} was written by a newer Orbit", hint="Start the newer Orbit.")
    if not tables and version == 0:
        # In one transaction: tables without the marks would be those of a stranger.
        whose = f"PRAGMA application_id = {APPLICATION_ID:d}; PRAGMA user_version = {VERSION:d};"
        connection.executescript(f"BEGIN; {_schema()}; {whose} COMMIT;")
    elif not {"films", "groups", "chunks", "texts"} <= tables:
        raise Unusable("its tables are not those of a history")


def open_reader(path: str) -> sqlite3.Connection:
    """Open the database to read, for a thread of its own. Raises: sqlite3.Error."""
    connection = sqlite3.connect(
        file_uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False
    )
    try:
        connection.executescript(READER_SETUP)
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the error says that the file is damaged, or no database."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def set_aside(path: str, moment: datetime) -> str:
    """Rename a database that cannot be used, with its side files; return its new path. Raises: OSError."""
    target = free_name(f"{path}.damaged-", moment)
    os.rename(path, target)
    for suffix in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, target + suffix)
    return target


def finish_setting_aside(path: str) -> None:
    """Rename the log of a database that a killed daemon has set aside without it: SQLite would delete it."""
    kept = pending(path)
    if kept and not os.path.lexists(path) and os.path.exists(path + "-wal") and not os.path.exists(kept[-1] + "-wal"):
        os.rename(path + "-wal", kept[-1] + "-wal")


def remove_marks(path: str) -> None:
    """Remove what says that a database was brought over which somebody has deleted since. Raises: OSError."""
    for mark in glob.glob(f"{glob.escape(path)}.damaged-*{BROUGHT_OVER}"):
        if not os.path.lexists(mark.removesuffix(BROUGHT_OVER)):
            os.unlink(mark)


def pending(path: str) -> list[str]:
    """Return the databases that were set aside and from which nothing was brought over yet."""
    return [each for each in damaged_files(path) if not os.path.exists(each + BROUGHT_OVER)]


def damaged_files(path: str) -> list[str]:
    """Return the databases of histories that were set aside, oldest first."""
    folder, name = os.path.split(path)
    with contextlib.suppress(OSError):
        found = sorted(each for each in os.listdir(folder) if each.startswith(f"{name}.damaged-"))
        return [os.path.join(folder, each) for each in found if not each.endswith((*SIDE_FILES, BROUGHT_OVER))]
    return []


def file_bytes(path: str) -> int:
    """Return what the database and its log take on the disk."""
    return size(path) + size(path + "-wal")
