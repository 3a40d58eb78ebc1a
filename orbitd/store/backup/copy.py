"""Copying a database while it is in use: consistent, private, and either whole or not there.

Runs in a thread. The copy is made beside its final place and renamed into it only when it
is complete, checked and on disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3

from orbit_os.files import sync
from orbit_protocol.errors import StorageCorrupt
from orbitd.store.errors import translate_os, translated

TEMPORARY = ".orbit-backup-"
"""What the name of a backup that is being made begins with."""

_STEP_PAGES = 4_096
"""Pages copied with the GIL given up in between: 16 MiB."""


def write(source: sqlite3.Connection, path: str) -> int:
    """Copy what `source` sees into the file `path`, replacing it.

    The copy is of one moment: a read transaction is held throughout, so that what the
    writer commits meanwhile neither shows in it nor makes it begin anew.

    Returns:
        The size of the copy in bytes.

    Raises:
        StorageFull: There is no room for it.
        StorageReadOnly: The folder cannot be written.
        StorageCorrupt: The copy is not sound; nothing was replaced.
    """
    temporary = os.path.join(os.path.dirname(path), TEMPORARY + secrets.token_hex(8))
    try:
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            os.chmod(temporary, 0o600)
            with translated():
                _copy(source, temporary)
            size = _publish(temporary, path)
        except BaseException:
            for suffix in ("", "-journal", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary + suffix)
            raise
    except OSError as error:
        raise translate_os(error, f"The backup {path} cannot be written") from error
    return size


def _copy(source: sqlite3.Connection, temporary: str) -> None:
    with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as target:
        source.execute("BEGIN")
        try:
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # only a read begins the transaction
            source.backup(target, pages=_STEP_PAGES)
        finally:
            source.execute("ROLLBACK")
        target.execute("PRAGMA journal_mode = DELETE")  # one file that any medium can be read from
        (verdict,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StorageCorrupt(f"The backup is not sound: {verdict}")


def _publish(temporary: str, path: str) -> int:
    """Bring the file to disk, then under its name, then the name to disk."""
    sync(temporary)
    size = os.stat(temporary).st_size
    os.replace(temporary, path)
    sync(os.path.dirname(path))
    return size
