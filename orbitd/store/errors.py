"""Where sqlite3's exceptions become Orbit's. Nothing beyond the store sees a sqlite3 error."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator

from orbit_protocol.errors import (
    Busy,
    InvalidParams,
    OrbitError,
    ShuttingDown,
    StorageCorrupt,
    StorageFull,
    StorageReadOnly,
)

_PRIMARY = 0xFF
"""The low byte of an extended result code is the primary one (sqlite.org/rescode.html)."""

_BY_PRIMARY: dict[int, type[OrbitError]] = {
    sqlite3.SQLITE_FULL: StorageFull,
    sqlite3.SQLITE_CORRUPT: StorageCorrupt,
    sqlite3.SQLITE_NOTADB: StorageCorrupt,
    sqlite3.SQLITE_READONLY: StorageReadOnly,
    sqlite3.SQLITE_CANTOPEN: StorageReadOnly,
    sqlite3.SQLITE_PERM: StorageReadOnly,
    sqlite3.SQLITE_AUTH: StorageReadOnly,
    sqlite3.SQLITE_IOERR: StorageReadOnly,
    sqlite3.SQLITE_BUSY: Busy,
    sqlite3.SQLITE_LOCKED: Busy,
    sqlite3.SQLITE_PROTOCOL: Busy,
    sqlite3.SQLITE_TOOBIG: InvalidParams,
    sqlite3.SQLITE_INTERRUPT: ShuttingDown,
}

_BY_EXTENDED: dict[int, type[OrbitError]] = {
    sqlite3.SQLITE_IOERR_READ: StorageCorrupt,
    sqlite3.SQLITE_IOERR_SHORT_READ: StorageCorrupt,
    sqlite3.SQLITE_IOERR_CORRUPTFS: StorageCorrupt,
    sqlite3.SQLITE_IOERR_SHMSIZE: StorageFull,  # the shared memory cannot grow; elsewhere SQLite sees ENOSPC itself
}

_HINTS: dict[int, str] = {
    sqlite3.SQLITE_IOERR: "The disk fails, or a quota is used up: see the system's log (dmesg), and back up elsewhere.",
}

_MESSAGES: dict[type[OrbitError], str] = {
    StorageFull: "The disk of the database is full",
    StorageCorrupt: "The database cannot be read",
    StorageReadOnly: "The database cannot be written",
    Busy: "Another program holds the database",
    InvalidParams: "The value is too large for the database",
    ShuttingDown: "The store is being closed",
}

_BY_ERRNO: dict[int, type[OrbitError]] = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EMFILE: Busy,
    errno.ENFILE: Busy,
}


def translate(error: sqlite3.Error) -> OrbitError | sqlite3.Error:
    """Return the Orbit error that a sqlite3 error means, or itself where it can only be a mistake of ours."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    found = _BY_EXTENDED.get(code) or _BY_PRIMARY.get(code & _PRIMARY)
    if found is None:
        return error
    if code & _PRIMARY == sqlite3.SQLITE_CANTOPEN and _out_of_descriptors():
        return Busy("The daemon has no file descriptor left for this")
    return found(f"{_MESSAGES[found]}: {error}", hint=None if found is StorageFull else _HINTS.get(code & _PRIMARY))


def _out_of_descriptors() -> bool:
    """Tell whether that is why a file could not be opened: SQLite does not say."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def translate_os(error: OSError, doing: str) -> OrbitError:
    """Return the Orbit error for a failed file operation; `doing` begins the message."""
    found = _BY_ERRNO.get(error.errno or 0, StorageReadOnly)
    return found(f"{doing}: {error.strerror or error}")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise sqlite3's errors from the body as Orbit's."""
    try:
        yield
    except sqlite3.Error as error:
        meaning = translate(error)
        if meaning is error:
            raise
        raise meaning from error
