"""Putting a backup in the database's place, while no daemon has it: `orbitd --restore`, which orbitctl runs.

The database's lock is held. What is there now is kept under another name, whatever state it
is in; the backup is copied and checked beside its place before anything is changed. The old
WAL goes before the new file comes: SQLite would play it into the new one. From the moment
that the old file is gone, whoever starts next finishes what was begun (`finish`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from datetime import UTC, datetime

from orbit_os.files import private_folder, sync
from orbit_protocol.errors import StorageCorrupt, StorageReadOnly
from orbit_protocol.results import Contents, Restored
from orbitd.lock import database_lock
from orbitd.store.backup import copy, recovery
from orbitd.store.clock import file_stamp
from orbitd.store.database import load_migrations
from orbitd.store.errors import translate_os, translated
from orbitd.store.files import APPLICATION_ID, SIDE_FILES, file_uri, size

_STAGED = ".restoring"
"""A backup that is complete, checked and on disk, but not in its place yet."""


def look_into(path: str) -> Contents:
    """Check a backup and count what is in it; nothing is changed.

    Raises:
        StorageCorrupt: It is damaged, or no database.
        StorageReadOnly: It cannot be read, is another program's, or of a newer Orbit.
    """
    try:
        found = os.stat(path)
        with translated(), contextlib.closing(_open(path)) as connection:
            _refuse_unusable(connection, path)
            counts = [_count(connection, table) for table in ("sessions", "session_snapshots", "workspaces")]
    except OSError as error:
        raise translate_os(error, f"The backup {path} cannot be read") from error
    sessions, snapshots, workspaces = counts
    return Contents(
        path=path,
        written_at=datetime.fromtimestamp(found.st_mtime, UTC),
        bytes=found.st_size,
        sessions=sessions,
        snapshots=snapshots,
        workspaces=workspaces,
    )


def restore(path: str, database_path: str) -> Restored:
    """Put the backup at `path` in the place of the database, which is kept under another name.

    Raises:
        AlreadyLocked: A daemon has the database.
        UnsafeFolder, OSError: The database's folder cannot be used.
        OrbitError: As `look_into` does, or there is no room. The database is as it was.
    """
    private_folder(os.path.dirname(database_path))
    with database_lock(database_path, "none: a backup is being restored"):
        contents = look_into(path)
        with translated(), contextlib.closing(_open(path)) as connection:
            copy.write(connection, database_path + _STAGED)
        try:
            kept = _keep_present(database_path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(database_path)
            sync(os.path.dirname(database_path))
            _put_in_place(database_path)
        except OSError as error:
            raise translate_os(error, f"The database {database_path} cannot be replaced") from error
    return Restored(database_path=database_path, contents=contents, safety_copy=kept)


def finish(database_path: str) -> bool:
    """Finish a restore that was cut short, or forget one that had not changed anything; the lock is held.

    Returns:
        Whether a backup was put in place now.
    """
    staged = database_path + _STAGED
    if not os.path.exists(staged):
        return False
    if os.path.exists(database_path):
        os.unlink(staged)
        return False
    _put_in_place(database_path)
    return True


def _open(path: str) -> sqlite3.Connection:
    """Open a backup to read; one that somebody copied with its WAL is read with it."""
    mode = "mode=ro" if size(path + "-wal") else "mode=ro&immutable=1"
    return sqlite3.connect(file_uri(path, mode), uri=True, isolation_level=None)


def _refuse_unusable(connection: sqlite3.Connection, path: str) -> None:
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise StorageCorrupt(f"The backup {path} is damaged: {verdict}", hint="Choose another one.")
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StorageReadOnly(f"{path} is no backup of Orbit's", hint="Choose another one.")
    if version > (known := len(load_migrations())):
        raise StorageReadOnly(
            f"{path} was written by a newer Orbit (schema {version}, this one knows {known})",
            hint="Restore it with the newer Orbit.",
        )


def _count(connection: sqlite3.Connection, table: str) -> int:
    (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608  # names of ours
    return int(number)


def _keep_present(path: str) -> str | None:
    """Give the present database, with its WAL, a second name."""
    if recovery.is_absent(path):
        return None
    kept = f"{path}.before-restore-{file_stamp(datetime.now(UTC))}"
    while os.path.exists(kept):
        kept += "+"
    for suffix in ("", "-wal"):
        if os.path.exists(path + suffix):
            _second_name(path + suffix, kept + suffix)
    sync(os.path.dirname(path))
    return kept


def _second_name(path: str, other: str) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, other)
        sync(other)


def _put_in_place(path: str) -> None:
    for suffix in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
    sync(os.path.dirname(path))
    os.replace(path + _STAGED, path)
    sync(os.path.dirname(path))
