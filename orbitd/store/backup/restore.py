"""Restore a backup in the database's place while no daemon has it: `orbitd --restore`, which orbitctl runs.

    sessions.db.restoring            the backup, copied, checked and on disk, before anything is changed
    sessions.db.before-restore-...   the database that was there, whatever its state

Programs run on meanwhile, and what they print is in their journals, which begin where the newest snapshot of the
database that was there ends. So that one goes over into the backup's copy: with an older one a part would be missing.

The caller of `finish_interrupted`, and `restore` itself, hold the database's lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from datetime import UTC, datetime

from msgspec.structs import replace

from orbit_os.files import check_file, private_folder, sync
from orbit_protocol.errors import SessionNotFound, StorageCorrupt, StorageReadOnly
from orbit_protocol.results import Contents, Restored
from orbit_protocol.types import Session
from orbitd.history.database import history_path
from orbitd.lock import database_lock
from orbitd.screens.model import StateCorrupt
from orbitd.sessions.saved_state import SavedState
from orbitd.store import schema
from orbitd.store.backup import copy, recovery
from orbitd.store.damage import columns_of
from orbitd.store.delta_chain import Unpacked, unpack_chain
from orbitd.store.errors import translate, translate_os, translated
from orbitd.store.files import APPLICATION_ID, FULL_SYNC, SIDE_FILES, free_name, open_untouched
from orbitd.store.rows import (
    DamagedRow,
    Stored,
    find_session,
    lenient_text,
    now,
    readable,
    session_from_row,
    update_session,
)
from orbitd.store.schema import load_migrations
from orbitd.store.snapshots import add_newest, rows_of_session

_STAGED = ".restoring"
_COPIED = ".copied"
"""Of histories, until the sessions are in place: what a kill leaves then is not used."""

_ANOTHER = "Choose another one."


def inspect_backup(path: str) -> Contents:
    """Check a backup and count its rows, without a change.

    Raises:
        StorageCorrupt: It is damaged, or no database.
        StorageReadOnly: It cannot be read, is another program's, or of a newer Orbit.
    """
    try:
        found = os.stat(path)
        # SQLite would wait for the other end of a FIFO, and take a folder for a disk that fails.
        if not stat.S_ISREG(found.st_mode):
            raise StorageReadOnly(f"{path} is no regular file, and no backup of Orbit's", hint=_ANOTHER)
        with open(path, "rb"):  # SQLite does not pass on why it cannot
            pass
        with contextlib.closing(open_untouched(path)) as connection:
            if (verdict := copy.structural_damage(connection, "integrity_check")) is not None:
                raise StorageCorrupt(f"The backup {path} is damaged: {verdict}", hint=_ANOTHER)
            header = schema.inspect(connection)
            if header.application_id != APPLICATION_ID:
                raise StorageReadOnly(f"{path} is no backup of Orbit's", hint=_ANOTHER)
            if not schema.has_sessions(connection):
                raise StorageReadOnly(
                    f"{path} is a backup of histories, without sessions",
                    hint="Restore the backup that it lies beside: the histories are brought back with it.",
                )
            if header.user_version > (known := len(load_migrations())):
                raise StorageReadOnly(
                    f"{path} was written by a newer Orbit (schema {header.user_version}, this one knows {known})",
                    hint="Restore it with the newer Orbit.",
                )
            counts = [
                int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  # names of ours
                for table in ("sessions", "session_snapshots", "workspaces")
            ]
    except sqlite3.Error as error:
        meaning = translate(error)
        if isinstance(meaning, (StorageCorrupt, StorageReadOnly)):  # their own words are of the database
            raise type(meaning)(f"The backup {path} cannot be read: {error}", hint=_ANOTHER) from error
        raise meaning from error
    except OSError as error:
        raise translate_os(error, f"The backup {path} cannot be read", _ANOTHER) from error
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
        UnsafeFolder, UnsafeFile, OSError: The database's folder or files cannot be used.
        OrbitError: As `inspect_backup` raises, or there is no room. The database is as it was.
    """
    private_folder(os.path.dirname(database_path))
    for suffix in ("", *SIDE_FILES):
        check_file(database_path + suffix)
    with database_lock(database_path, ""):
        contents = inspect_backup(path)
        history = _copy_history(path, database_path)
        with translated(), contextlib.closing(open_untouched(path)) as connection:
            copy.write(connection, database_path + _STAGED)
            carried_over, not_carried_over = 0, None
            if not recovery.is_absent(database_path):
                try:
                    carried_over, not_carried_over = _carry_over(database_path, database_path + _STAGED)
                except Exception as error:  # noqa: BLE001  # of a database in any state; the backup is what was asked for
                    not_carried_over = str(error) or type(error).__name__
                    # There may be room for one copy only.
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(database_path + _STAGED)
                    copy.write(connection, database_path + _STAGED)
        # Whatever a kill interrupts below, `finish_interrupted` decides by two files: with the
        # database still there nothing has changed, and without it only the staged backup is missing
        # its name. The folder is synced in between, so that a power cut keeps this order.
        try:
            kept = _keep_present(database_path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(database_path)
            sync(os.path.dirname(database_path))
            _put_in_place(database_path)
        except OSError as error:
            raise translate_os(error, f"The database {database_path} cannot be replaced") from error
        if history is not None:
            try:
                os.replace(history + _COPIED, history + _STAGED)
                _put_history_in_place(history)
            except OSError as error:
                raise translate_os(error, f"The histories {history} cannot be replaced") from error
    return Restored(
        database_path=database_path,
        contents=contents,
        safety_copy=kept,
        carried_over=carried_over,
        not_carried_over=not_carried_over,
        history_path=history,
    )


def _copy_history(backup: str, database_path: str) -> str | None:
    """Copy the histories that lie beside a backup beside the database; return their path there, None for none.

    Raises:
        OrbitError: They are damaged, or there is no room.
    """
    source, target = history_path(backup), history_path(database_path)
    if not os.path.isfile(source) or os.path.realpath(source) == os.path.realpath(target):
        return None
    with translated(), contextlib.closing(open_untouched(source)) as connection:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        if application_id != APPLICATION_ID:
            raise StorageReadOnly(f"{source} is no backup of Orbit's", hint="Move it away to restore without it.")
        copy.write(connection, target + _COPIED)
    return target


def _put_history_in_place(path: str) -> None:
    """Give staged histories their name; the present ones get another one."""
    if os.path.lexists(path):
        kept = free_name(f"{path}.before-restore-", now())
        os.rename(path, kept)
        for suffix in SIDE_FILES:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + suffix, kept + suffix)
    _put_in_place(path)


def finish_interrupted(database_path: str) -> bool:
    """Finish a restore that was interrupted, or discard it if it had not changed the database yet.

    Returns:
        Whether a backup was put in place now.
    """
    staged = database_path + _STAGED
    history = history_path(database_path)
    with contextlib.suppress(OSError):
        os.unlink(history + _COPIED)
    if os.path.isfile(history + _STAGED) and not os.path.lexists(staged):
        with contextlib.suppress(OSError):  # a start goes on with the present ones
            _put_history_in_place(history)
    try:
        is_staged = stat.S_ISREG(os.lstat(staged).st_mode)
    except OSError:
        return False
    if not is_staged or os.path.exists(database_path):
        with contextlib.suppress(OSError):  # what is no file of ours may be a folder, and stays
            os.unlink(staged)
        return False
    _put_in_place(database_path)
    return True


def _carry_over(present: str, staged: str) -> tuple[int, str | None]:
    """Copy the newest screen of each session whose program may run into the staged backup.

    Returns:
        Of how many sessions, and why others are left out, if any are.

    Raises:
        OrbitError: Something of the present database cannot be read. The backup may be half written then.
    """
    query = "SELECT {columns} FROM sessions WHERE instr(program, '\"live\":true')"
    carried = 0
    left_out: list[str] = []
    with (
        translated(),
        contextlib.closing(open_untouched(present)) as source,
        contextlib.closing(sqlite3.connect(staged, isolation_level=None)) as target,
    ):
        source.text_factory = target.text_factory = lenient_text
        # A journal on disk would outlive a kill, and be rolled back into the next file of this name.
        target.executescript(f"{FULL_SYNC} PRAGMA journal_mode = MEMORY; BEGIN IMMEDIATE")
        is_current = schema.inspect(target).user_version == len(load_migrations())
        # The present one may be of an earlier Orbit too, which no daemon of this one has opened.
        running = source.execute(query.format(columns=columns_of(source, "sessions")))
        for stored in readable(running, session_from_row):
            session = stored.item
            if target.execute("SELECT 1 FROM sessions WHERE id = ?", (session.id,)).fetchone() is None:
                continue  # its program is found, and it is recorded again
            target.execute("SAVEPOINT one")
            try:
                carried += _carry_over_one(source, target, session, is_current=is_current)
            except Exception as error:  # noqa: BLE001  # of one of many: the others are taken over
                target.execute("ROLLBACK TO one")
                left_out.append(f"session {session.id}: {error or type(error).__name__}")
            target.execute("RELEASE one")
        target.execute("COMMIT")
    sync(staged)
    more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    return carried, left_out[0] + more if left_out else None


def _carry_over_one(
    source: sqlite3.Connection, target: sqlite3.Connection, session: Session, *, is_current: bool
) -> bool:
    """Copy the newest screen of a session, unless the backup has it or a newer one; return whether it was copied."""
    newest, known = _newest(source, session.id), _newest(target, session.id)
    if newest is None or newest.screen is None or _position(newest) <= _position(known):
        return False
    add_newest(target, newest.row.head, newest.screen)
    if is_current:
        with contextlib.suppress(DamagedRow, SessionNotFound):  # it was in the trash then
            older = find_session(target, session.id)
            # Not `last_active`: the start takes the program of a session that has ended since for unwanted.
            seen = ("cols", "rows", "title", "cwd", "cwd_bytes", "last_saved_at")
            fields = {field: getattr(session, field) for field in seen}
            update_session(target, Stored(older.seq, replace(older.item, **fields)))
    return True


def _newest(connection: sqlite3.Connection, session_id: str) -> Unpacked | None:
    """Return the newest snapshot of a session that is whole."""
    chain = unpack_chain(rows_of_session(connection, "session_snapshots", session_id))
    return next((each for each in chain if each.verified() is not None), None)


def _position(snapshot: Unpacked | None) -> int:
    """Return up to where in its session's journal a snapshot goes; 0 where it does not say."""
    native = None if snapshot is None or snapshot.screen is None else snapshot.screen.native_state
    try:
        return SavedState.from_bytes(native or b"").position
    except StateCorrupt:
        return 0


def _keep_present(path: str) -> str | None:
    """Give the present database, with its WAL, a second name; return it, or None if there is no database."""
    if recovery.is_absent(path):
        return None
    kept = free_name(f"{path}.before-restore-", now())
    for suffix in ("", "-wal", "-journal"):
        if not os.path.exists(path + suffix):
            continue
        try:
            os.link(path + suffix, kept + suffix)
        except OSError:  # a file system without hard links
            shutil.copyfile(path + suffix, kept + suffix)
            sync(kept + suffix)
    sync(os.path.dirname(path))
    return kept


def _put_in_place(path: str) -> None:
    # The old WAL and journal have to be gone, on disk, before the new file has the name: SQLite would replay them
    # into the new one (sqlite.org/howtocorrupt.html, "Mispairing database files and hot journals").
    for suffix in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
    sync(os.path.dirname(path))
    os.replace(path + _STAGED, path)
    sync(os.path.dirname(path))
