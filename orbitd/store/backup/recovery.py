"""A database that may be damaged: inspect it without a change, set it aside, find a good backup.

A WAL that is not empty is the mark of an unclean stop: the last connection to close
checkpoints the WAL and deletes it (sqlite.org/wal.html#the_wal_file). The database is then
checked before anything writes to it. A damaged one is renamed, never deleted, and while it
lies there no empty database is made in its place unless the caller asks for one.
"""

from __future__ import annotations

import contextlib
import glob
import math
import os
import sqlite3
import stat
from collections.abc import Iterator

from msgspec import Struct

from orbit_os.files import sync
from orbit_protocol.errors import StorageCorrupt
from orbit_protocol.paths import backups_folder
from orbitd.store.files import APPLICATION_ID, SIDE_FILES, free_name, open_untouched, size
from orbitd.store.rows import now

_SET_ASIDE = ".corrupt-"
_CHUNK_BYTES = 1 << 20
_DISK_HINT = "The disk fails: see the system's log (dmesg). Nothing was changed; start again when it can be read."
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\x00"
_MAX_CANDIDATES = 32
"""How many files are checked as backups, newest first."""


class Inspection(Struct, frozen=True, kw_only=True):
    """What a database's header and schema say."""

    application_id: int
    user_version: int
    is_empty: bool


def is_absent(path: str) -> bool:
    """Return whether there is no database: no file, or an empty one without a WAL."""
    return size(path) == 0 and size(path + "-wal") == 0


def inspect(path: str) -> Inspection:
    """Read a database's header and schema without changing a byte, and check it after an unclean stop.

    Raises:
        sqlite3.DatabaseError: It is damaged.
    """
    unclean = size(path + "-wal") > 0
    with contextlib.closing(open_untouched(path, read_wal=unclean)) as connection:
        if unclean:
            _quick_check(connection)
        return read_inspection(connection)


@contextlib.contextmanager
def set_aside_if_damaged(path: str) -> Iterator[None]:
    """Set the database aside if the body raises sqlite3's error for a damaged file; the body closes its connections.

    Raises:
        StorageCorrupt: It was damaged, or the disk cannot be read.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _DAMAGE:
            raise
        # A failing disk can look like damage: SQLITE_IOERR_CORRUPTFS, SQLite's code for a read(2) that
        # fails with EIO, comes out of a statement as SQLITE_CORRUPT (vdbe.c). Renaming the database
        # would not help then, and it may be sound.
        if _is_sound(path):
            raise StorageCorrupt(f"The database {path} could not be read: {error}", hint=_DISK_HINT) from error
        raise set_aside(path, str(error)) from error


def _is_sound(path: str) -> bool:
    """Return whether a database passes a check, after reading its files without SQLite.

    Raises:
        StorageCorrupt: The disk cannot be read, so it is unknown whether the database is damaged.
    """
    for each in (path, path + "-wal"):
        try:
            descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                offset = 0
                while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
                    offset += len(chunk)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageCorrupt(f"{each} cannot be read: {error.strerror}", hint=_DISK_HINT) from error
    try:
        with contextlib.closing(open_untouched(path)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            return bool(verdict == "ok")
    except sqlite3.DatabaseError:
        return False


def set_aside(path: str, reason: str) -> StorageCorrupt:
    """Rename a damaged database with its WAL, and return the error that names its new path and the next step."""
    target = free_name(path + _SET_ASIDE, now())
    # The database first, then its WAL, as one of the two can be cut off by a kill. A WAL that is
    # left alone is found by the next start (`open_writer`, "its file is gone"). In the other order
    # the next start would find a database without its WAL, which is valid, but without every commit
    # since the last checkpoint.
    for suffix in ("", *SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, target + suffix)
    sync(os.path.dirname(path))
    return _damaged(path, _main_file(target), reason)


def list_set_aside(path: str) -> list[str]:
    """Return the damaged databases that were set aside here, the newest last; a WAL where only that was left."""
    found = glob.glob(glob.escape(path + _SET_ASIDE) + "*")
    return sorted((name for name in found if name == _main_file(name)), key=os.path.getmtime)


def _main_file(name: str) -> str:
    """Return the database of a set of files that were set aside together; its WAL, where only that was left."""
    target = name.removesuffix("-wal").removesuffix("-shm")
    return target if os.path.exists(target) else target + "-wal"


def refuse_after_set_aside(path: str) -> None:
    """Raise StorageCorrupt if a damaged database was set aside at this path."""
    if found := list_set_aside(path):
        raise _damaged(path, found[-1], "it was set aside at an earlier start")


def newest_good_backup(path: str, *, made_before: float = math.inf) -> str | None:
    """Return the newest intact copy of an Orbit database beside `path` or in `backups`, or None.

    Args:
        path: The database.
        made_before: Only files that were written before this time (seconds since the epoch) are considered.
    """
    folder = os.path.dirname(path)
    own = {path, *(path + suffix for suffix in SIDE_FILES)}
    names = [name for each in (folder, backups_folder(path)) for name in glob.glob(f"{glob.escape(each)}/*")]
    candidates = [name for name in names if name not in own and _SET_ASIDE not in name and _has_header(name)]
    candidates = [name for name in candidates if os.path.getmtime(name) <= made_before]
    candidates.sort(key=os.path.getmtime, reverse=True)
    for candidate in candidates[:_MAX_CANDIDATES]:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(open_untouched(candidate, read_wal=False)) as connection,
        ):
            _quick_check(connection)
            if read_inspection(connection).application_id == APPLICATION_ID:
                return candidate
    return None


def _damaged(path: str, aside: str, reason: str) -> StorageCorrupt:
    good = newest_good_backup(path)
    if good is None:
        hint = f"There is no backup. To begin with an empty store, move {aside}* elsewhere."
    else:
        hint = f"To go back to the newest good backup: `orbitctl maintenance restore {good}`."
    message = f"The database {path} is damaged ({reason}); it lies in {aside}, unchanged"
    return StorageCorrupt(message, hint=hint, data={"set_aside": aside, "backup": good})


def _quick_check(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError unless the database is sound."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        # The PRAGMA returns what it finds as rows; raised, it is handled as damage that a query meets.
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def read_inspection(connection: sqlite3.Connection) -> Inspection:
    """Read what an open database's header and schema say."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (user_version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return Inspection(application_id=application_id, user_version=user_version, is_empty=tables == 0)


def _has_header(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would block
            return False
        with open(path, "rb") as file:
            return file.read(_HEADER_BYTES).startswith(_MAGIC)
    except OSError:
        return False
