"""Where sqlite3's exceptions, and those of file operations, become Orbit's."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
from collections.abc import Iterator

from orbit_os.files import sync_descriptor
from orbit_protocol.errors import (
    Busy,
    InvalidParams,
    OrbitError,
    ShuttingDown,
    StorageCorrupt,
    StorageFull,
    StorageReadOnly,
)
from orbitd.store.files import TEMPORARY_PREFIX

# SQLite's codes have a primary code in the low byte, and extended ones refine it
# (sqlite.org/rescode.html). The second table goes first, where the extended code means something else.
_PRIMARY = 0xFF
_CONSTRAINT_DATATYPE = sqlite3.SQLITE_CONSTRAINT | 12 << 8  # of STRICT tables; the sqlite3 module has no name for it

_DESCRIPTORS = 3
"""What SQLite opens for one connection: the database, its WAL and the shared memory."""

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
    # Rows that were written fit their table's types and rules: one that is only moved, or changed by a foreign key's
    # action, and does not, is damaged.
    _CONSTRAINT_DATATYPE: StorageCorrupt,
    sqlite3.SQLITE_CONSTRAINT_CHECK: StorageCorrupt,
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: StorageCorrupt,
    sqlite3.SQLITE_IOERR_SHMSIZE: StorageFull,  # the -shm file cannot grow; elsewhere ENOSPC gives SQLITE_FULL
}

_LOCAL = (
    "Its file system has no locks or no shared memory, as network file systems: set database_path to a local one "
    "(sqlite.org/wal.html)."
)

_HINTS: dict[int, str] = {
    sqlite3.SQLITE_IOERR: "The disk fails: see the system's log (dmesg), and back up elsewhere.",
    sqlite3.SQLITE_PROTOCOL: _LOCAL,
    sqlite3.SQLITE_IOERR_LOCK: _LOCAL,
    sqlite3.SQLITE_IOERR_RDLOCK: _LOCAL,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK: _LOCAL,
    sqlite3.SQLITE_IOERR_SHMOPEN: _LOCAL,
    sqlite3.SQLITE_IOERR_SHMLOCK: _LOCAL,
    sqlite3.SQLITE_IOERR_SHMMAP: _LOCAL,
}

_PROBE = bytes(1 << 16)
_WRITES = frozenset((sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC))

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

_HINTS_BY_ERRNO: dict[int, str] = {
    errno.EIO: _HINTS[sqlite3.SQLITE_IOERR],
    errno.EROFS: "The file system is mounted read-only: remount it, or choose a path on another one.",
    errno.EPERM: "The file system does not permit it to anybody: choose another path.",
}


def translate(error: sqlite3.Error, path: str | None = None) -> OrbitError | sqlite3.Error:
    """Return the Orbit error that a sqlite3 error means, or the error itself if it is a mistake of the program's.

    Args:
        error: What SQLite raised.
        path: The database that was written to.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the sqlite3 module itself, not by SQLite
        return error
    found = _BY_EXTENDED.get(code) or _BY_PRIMARY.get(code & _PRIMARY)
    if found is None:
        return error
    if code & _PRIMARY == sqlite3.SQLITE_CANTOPEN:
        # SQLite does not pass on errno, so open(2) is tried once more, as often as SQLite needs it: without
        # a free descriptor (EMFILE, ENFILE) the file itself is fine, and the call can be retried.
        with contextlib.ExitStack() as opened:
            try:
                for _ in range(_DESCRIPTORS):
                    opened.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as failure:
                if failure.errno in (errno.EMFILE, errno.ENFILE):
                    return Busy("The daemon has no file descriptor left for this")
    hint = None if found is StorageFull else _HINTS.get(code) or _HINTS.get(code & _PRIMARY)
    if path is not None and (code in _WRITES or code & _PRIMARY == sqlite3.SQLITE_CANTOPEN):
        reason = _reason_of_write(path)
        if _BY_ERRNO.get(reason) is StorageFull:
            is_quota = reason == errno.EDQUOT
            what = "The quota of the database's disk is used up" if is_quota else _MESSAGES[StorageFull]
            return StorageFull(f"{what}: {error}")
        hint = _HINTS_BY_ERRNO.get(reason, hint)
    return found(f"{_MESSAGES[found]}: {error}", hint=hint)


def _reason_of_write(path: str) -> int:
    """Return the errno of another write beside a database, 0 if it succeeds: SQLite does not pass on errno."""
    probe = os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + secrets.token_hex(8))
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, _PROBE, 0)
            sync_descriptor(descriptor)  # NFS has the quota looked at no sooner
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or 0
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)
    return 0


def translate_os(error: OSError, doing: str, hint: str | None = None) -> OrbitError:
    """Return the Orbit error for a failed file operation; `doing` begins the message, and `hint` is of no errno."""
    found = _BY_ERRNO.get(error.errno or 0, StorageReadOnly)
    hint = _HINTS_BY_ERRNO.get(error.errno or 0, hint) if found is StorageReadOnly else None
    return found(f"{doing}: {error.strerror or error}", hint=hint)


@contextlib.contextmanager
def translated(path: str | None = None) -> Iterator[None]:
    """Raise the sqlite3 errors of the body as Orbit's; `path` is the database that it writes to."""
    try:
        yield
    except sqlite3.Error as error:
        meaning = translate(error, path)
        if meaning is error:
            raise
        raise meaning from error
