"""Database files: their names, sizes, and how one is opened without a change to it."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import urllib.parse
from datetime import UTC, datetime

from orbit_os.files import PRIVATE_FILE

APPLICATION_ID = 0x4F524254
"""`ORBT`: what marks an Orbit database in its header (sqlite.org/pragma.html#pragma_application_id)."""

AUTOMATIC_BACKUP = re.compile(r"auto-(\d{8}T\d{6}Z)\.db")
"""The name of an automatic backup, with its time."""

HEADER_MAGIC = b"SQLite format 3\0"
"""How the header of a database begins (sqlite.org/fileformat.html#the_database_header)."""

TEMPORARY_PREFIX = ".orbit-backup-"
"""How the names of files begin that only the call that makes them needs; a start removes those that a kill left."""

FULL_SYNC = "PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;"
"""Each connection that writes begins with it: on macOS fsync(2) does not reach the disk, and F_FULLFSYNC does;
elsewhere it changes nothing (sqlite.org/pragma.html#pragma_fullfsync)."""

BACKSTOP_PAGES = 4_096
"""The log's length (16 MiB) from which a COMMIT checkpoints it."""

_HEADER_BYTES = 100

RESERVE_SUFFIX = ".reserve"
RESERVE_BYTES = 1 << 20
"""Of a file beside the database while its trash has anything: deleting rows needs room in the log first, and on a disk
that is full there is none."""

SIDE_FILES = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside a database (sqlite.org/tempfiles.html)."""


def file_uri(path: str, mode: str) -> str:
    """Return the URI that opens `path` with `mode`, such as `mode=ro` (sqlite.org/uri.html)."""
    return f"file:{urllib.parse.quote(os.fsencode(path))}?{mode}"


def open_untouched(path: str, *, read_wal: bool | None = None) -> sqlite3.Connection:
    """Open a database to read, without making or changing a file where that is possible.

    Args:
        path: The database.
        read_wal: Whether what stands in its WAL is read too; if None, whether there is anything in it.
    """
    if read_wal is None:
        read_wal = size(path + "-wal") > 0
    # `immutable` promises SQLite that nobody changes the file: it takes no locks and makes no
    # shared memory, and it ignores the WAL (sqlite.org/c3ref/open.html, "immutable"). Where the
    # WAL counts, plain read-only has to do: that makes a -shm file, but never checkpoints.
    mode = "mode=ro" if read_wal else "mode=ro&immutable=1"
    return sqlite3.connect(file_uri(path, mode), uri=True, isolation_level=None)


def read_header(path: str) -> bytes:
    """Return the header of a database file; b"" for what is no regular file, or cannot be read."""
    try:
        # O_NONBLOCK: opening a FIFO would wait for its other end (fifo(7)).
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _HEADER_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def size(path: str) -> int:
    """Return a file's size in bytes, 0 if there is none."""
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def hold_reserve(path: str) -> None:
    """Take some room on the disk of a database, which `free_reserve` gives back, unless it is taken already."""
    reserve = path + RESERVE_SUFFIX
    # Not O_EXCL: a file that a kill has left empty is filled now. O_NONBLOCK, as it might be a FIFO.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        descriptor = os.open(reserve, flags, PRIVATE_FILE)
        try:
            if os.fstat(descriptor).st_size >= RESERVE_BYTES:
                return
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            else:
                os.write(descriptor, bytes(RESERVE_BYTES))
        except OSError:  # no room for it
            os.unlink(reserve)
        finally:
            os.close(descriptor)


def free_reserve(path: str) -> None:
    """Give back the room that `hold_reserve` has taken."""
    with contextlib.suppress(OSError):
        os.unlink(path + RESERVE_SUFFIX)


def free_name(prefix: str, moment: datetime) -> str:
    """Return a file name of `prefix` and a time that no file has yet."""
    name = prefix + file_stamp(moment)
    while os.path.exists(name):
        name += "+"
    return name


def file_stamp(moment: datetime) -> str:
    """Return a time for a file name, in UTC to the second."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
