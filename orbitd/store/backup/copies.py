"""The automatic backups of a database: their names, whether one is still current, whether one is good.

Runs in a thread, and only reads but for `prune` and `remove_leftovers`. Whether anything
changed since a backup is asked of the rows themselves: what SQLite counts of its changes is
not kept in a WAL database, and file times move without any change.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import Struct

from orbit_protocol.errors import StorageCorrupt
from orbitd.store.backup.copy import TEMPORARY
from orbitd.store.clock import file_stamp
from orbitd.store.errors import translated
from orbitd.store.files import APPLICATION_ID, file_uri

_NAME = re.compile(r"auto-(\d{8}T\d{6}Z)\.db")
_ROWS_AT_ONCE = 1_000
_PASSING_TABLES = frozenset({"meta"})
"""What is written there says nothing about sessions."""

NOTHING = b""
"""The fingerprint of a store without a row."""


class Copy(Struct, frozen=True, kw_only=True):
    """An automatic backup: where it is and when it was made."""

    path: str
    moment: datetime


def new_copy(folder: str, moment: datetime) -> Copy:
    """Return what a backup of now is to be called."""
    return Copy(path=os.path.join(folder, f"auto-{file_stamp(moment)}.db"), moment=moment.replace(microsecond=0))


def copies(folder: str, now: datetime) -> list[Copy]:
    """Return the automatic backups in a folder, newest first.

    One from the future was made before the clock was set back; it counts as the oldest.
    """
    found = [Copy(path=os.path.join(folder, name), moment=moment) for name, moment in _named(folder)]
    return sorted(found, key=lambda copy: (copy.moment <= now, copy.moment), reverse=True)


def _named(folder: str) -> Iterator[tuple[str, datetime]]:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if match := _NAME.fullmatch(name):
                with contextlib.suppress(ValueError):
                    yield name, datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def prune(folder: str, kept: Copy, now: datetime, keep: int) -> None:
    """Delete all but the newest `keep` automatic backups; `kept` stays whatever the clock says."""
    others = [copy for copy in copies(folder, now) if copy.path != kept.path]
    for copy in others[keep - 1 :]:
        os.unlink(copy.path)


def remove_leftovers(folder: str) -> list[str]:
    """Delete what backups that were killed left half done; return which. No backup may be under way there."""
    found = glob.glob(os.path.join(glob.escape(folder), TEMPORARY + "*"))
    for path in found:
        os.unlink(path)
    return found


def fingerprint(connection: sqlite3.Connection) -> bytes:
    """Return a digest of every row but its blobs; a snapshot's bytes never change under its id."""
    digest = hashlib.blake2b()
    rows = 0
    for table, columns in _columns(connection):
        cursor = connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1")  # noqa: S608  # names from the schema
        while chunk := cursor.fetchmany(_ROWS_AT_ONCE):
            rows += len(chunk)
            digest.update(repr((table, chunk)).encode())
    return digest.digest() if rows else NOTHING


def fingerprint_of(path: str) -> bytes | None:
    """Return a backup's fingerprint; None if it cannot be read."""
    try:
        with contextlib.closing(_open(path)) as connection:
            return fingerprint(connection)
    except sqlite3.Error:
        return None


def verify(path: str) -> None:
    """Read a backup from its beginning to its end. Raises: StorageCorrupt."""
    with translated(), contextlib.closing(_open(path)) as connection:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
    if application_id != APPLICATION_ID or verdict != "ok" or dangling is not None:
        raise StorageCorrupt(f"The backup {path} is not sound: {verdict if verdict != 'ok' else 'rows are missing'}")


def _columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    return [(f'"{name}"', _without_blobs(connection, name)) for (name,) in tables if name not in _PASSING_TABLES]


def _without_blobs(connection: sqlite3.Connection, table: str) -> str:
    names = connection.execute("SELECT name FROM pragma_table_info(?) WHERE type != 'BLOB'", (table,))
    return ", ".join(f'"{name}"' for (name,) in names)


def _open(path: str) -> sqlite3.Connection:
    return sqlite3.connect(file_uri(path, "mode=ro&immutable=1"), uri=True)
