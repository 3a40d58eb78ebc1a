"""Opening the database file: whose it is, its settings, its migrations.

Runs in a thread, never on the event loop. `open_writer` is the only way to a connection
that writes; `open_reader` returns one that cannot.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sqlite3
import stat
from collections.abc import Sequence

from msgspec import Struct

from orbit_os.files import PRIVATE_FILE, make_private_folders, set_mode, sync
from orbit_os.shell import typed
from orbit_protocol.errors import Busy, StorageFull, StorageReadOnly
from orbitd.logs import event
from orbitd.store import schema
from orbitd.store.backup import copy, recovery, salvage, wal
from orbitd.store.errors import translate, translate_os, translated
from orbitd.store.files import (
    APPLICATION_ID,
    BACKSTOP_PAGES,
    FULL_SYNC,
    SIDE_FILES,
    TEMPORARY_PREFIX,
    file_stamp,
    file_uri,
    free_name,
    open_untouched,
    size,
)
from orbitd.store.rows import is_corrupt, lenient_text, now
from orbitd.store.schema import load_migrations

log = logging.getLogger("orbitd.store.database")

BUSY_SECONDS = 5.0
"""How long to wait for another program's lock on the database (the sqlite3 command, say)."""

# See sqlite.org/pragma.html for each.
#   journal_mode        stored in the file; readers and the writer do not block each other
#   synchronous         FULL syncs the WAL at every commit: an answered write is on disk. NORMAL would
#                       sync at checkpoints only, and a power cut could lose the last commits.
#   foreign_keys        off by default, and set for each connection; not inside a transaction
#   temp_store          keeps the journals of savepoints and sorts out of /tmp: they hold what terminals showed
#   cache_spill         OFF: nothing goes into the WAL before the commit. A transaction that spills, rolls back to a
#                       savepoint and commits may leave frames without a checksum, where recovery ends, and the commit
#                       is lost by a kill (wal.c of 3.40.1: sqlite3WalSavepointUndo keeps iReCksum)
#   wal_autocheckpoint  a COMMIT checkpoints a log of so many pages; else that is done aside (`checkpointer`)
#   journal_size_limit  64 MiB: truncates a WAL that a long backup let grow
#   trusted_schema      OFF: views and triggers of a database that somebody planted may only call functions
#                       that are marked as innocuous
_WRITER_SETUP = f"""
{FULL_SYNC}
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA temp_store = MEMORY;
PRAGMA cache_spill = OFF;
PRAGMA wal_autocheckpoint = {BACKSTOP_PAGES};
PRAGMA journal_size_limit = 67108864;
PRAGMA trusted_schema = OFF;
"""

_CHECKS = 20
"""How often a database is checked while another program changes it."""

READER_SETUP = """
PRAGMA query_only = ON;
PRAGMA temp_store = MEMORY;
PRAGMA trusted_schema = OFF;
"""


class Opened(Struct, frozen=True):
    """A connection that writes, and sentences about what was damaged and has been put right."""

    connection: sqlite3.Connection
    repairs: list[str]


def open_writer(path: str, *, start_empty: bool = False, migrations: Sequence[str] | None = None) -> Opened:
    """Open the database to write, making or migrating it if needed.

    Args:
        path: The database file, 0600; its folder is made (0700) if there is none.
        start_empty: Make a new database although a damaged one was set aside here, with what is whole in that one.
        migrations: The schema's scripts, if not the program's own.

    Raises:
        StorageCorrupt: It cannot be read. It was set aside; `data` has `set_aside` and the newest good `backup`.
        StorageReadOnly: It is not ours, is of a newer Orbit, or cannot be written. Nothing was changed.
        recovery.Unexpected: A migration fails, or SQLite refuses something else that it should not.
    """
    scripts = load_migrations() if migrations is None else migrations
    with translated(path), recovery.set_aside_if_damaged(path):
        repairs = _move_strange_files(path)
        checked = _Checked()
        if recovery.is_absent(path):
            repairs += _begin(path, start_empty=start_empty)
        elif size(path) == 0:
            # A WAL with something in it and no database: `recovery.set_aside` was interrupted between
            # two renames, or somebody deleted the database. SQLite deletes the WAL of an empty database.
            raise recovery.set_aside(path, "its file is gone and its log is there")
        else:
            recovery.roll_back(path)
            checked = _check_without_strange_logs(path, scripts, repairs)
        connection = _connect(path)
        try:
            repairs += _repair(connection, path, checked)
            _migrate(connection, path, scripts)
        except BaseException:
            connection.close()
            raise
        return Opened(connection, repairs)


def open_reader(path: str, setup: str = READER_SETUP) -> sqlite3.Connection:
    """Open the database to read, for long work in a thread of its own; `setup` as `reader_setup` returns it."""
    # mode=rw, as a reader of a WAL database marks its place in the -shm file; query_only refuses writes.
    connection = sqlite3.connect(
        file_uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False
    )
    connection.text_factory = lenient_text
    try:
        connection.executescript(setup)
    except BaseException:
        connection.close()
        raise
    return connection


def reader_setup(path: str) -> str:
    """Return the script that has a connection read a database whose schema is not today's.

    A view takes the place of each table that differs, with NULL for what it does not have; where the table cannot be
    read, the view is empty. Views in `temp` come before tables of the same name (sqlite.org/lang_naming.html).
    """
    views = []
    with contextlib.closing(open_reader(path)) as connection:
        for table, columns in schema.template(load_migrations()).columns.items():
            found: set[str] = set()
            with contextlib.suppress(sqlite3.Error):
                found = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608  # a table of ours
            if found >= set(columns) or table.startswith("sqlite_"):
                continue
            values = ", ".join(name if name in found else f"NULL AS {name}" for name in columns)
            source = f"FROM main.{table}" if found else "WHERE 0"
            views.append(f"CREATE TEMP VIEW {table} AS SELECT {values} {source};\n")  # names of ours
    # query_only comes last, as it refuses CREATE in `temp` too; temp_store first, as a change empties `temp`.
    return f"PRAGMA temp_store = MEMORY;\n{''.join(views)}{READER_SETUP}"


def _connect(path: str) -> sqlite3.Connection:
    # mode=rw without "c": SQLite never makes the file, so that none appears with the umask's mode.
    # isolation_level=None: the sqlite3 module begins no transactions by itself; the writer does.
    connection = sqlite3.connect(
        file_uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=256
    )
    connection.text_factory = lenient_text
    try:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.executescript(FULL_SYNC + schema.NEW_FILE_SETUP)
        connection.executescript(_WRITER_SETUP)
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(path: str, *, start_empty: bool) -> list[str]:
    """Make the file of a new database; return a sentence where there was an empty one, which SQLite leaves nowhere."""
    was_emptied = os.path.exists(path)
    if not start_empty:
        recovery.refuse_after_set_aside(path)
    elif damaged := recovery.list_set_aside(path):
        _salvage(path, damaged[-1])
    _make_file(path)
    return [f"The database {path} was empty; a new one was begun."] if was_emptied else []


def _make_file(path: str) -> None:
    """Make an empty file that only its owner may read."""
    try:
        make_private_folders(os.path.dirname(path))
        # SQLite gives the WAL and -shm files the mode of the database, so this one has to be right.
        # O_CREAT's mode is reduced by the umask, and an existing empty file keeps its own: hence chmod.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
        set_mode(path, PRIVATE_FILE)
    except OSError as error:
        raise translate_os(error, f"The database {path} cannot be made") from error


def _move_strange_files(path: str) -> list[str]:
    """Rename what stands in the place of SQLite's own files and is none: a folder, a FIFO, a link.

    Returns:
        A sentence for each.

    Raises:
        StorageReadOnly: Such a thing stands in the place of the database itself, or cannot be renamed.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise StorageReadOnly(
            f"{path} is no regular file",
            hint="Move it away, or set database_path in the configuration to another file.",
        )
    strange = []
    for name in (path + suffix for suffix in SIDE_FILES):
        # Another process that opens the database may delete its journal. What cannot be looked at, opening reports.
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.lstat(name).st_mode):
                strange.append(name)
    return [_move_aside(name) for name in strange]


def _move_aside(name: str) -> str:
    target = free_name(name + ".aside-", now())
    try:
        os.rename(name, target)
    except OSError as error:
        raise translate_os(error, f"{name} is no file of this database and cannot be moved") from error
    event(log, logging.WARNING, "strange file moved aside", file=name, target=target)
    return (
        f"{name} was no file of this database. It lies in {target} now, unchanged; what it held is not in the database."
    )


def _has_foreign_log(path: str, scripts: Sequence[str]) -> bool:
    """Return whether a database is another program's for what stands in its log alone."""
    if size(path + "-wal") == 0:
        return False
    try:
        with contextlib.closing(open_untouched(path, read_wal=False)) as connection:
            return schema.identify(path, schema.inspect(connection), scripts) > 0
    except (StorageReadOnly, schema.Damage, sqlite3.Error):
        return False


class _Checked(Struct, frozen=True, kw_only=True):
    """What the check of a database found that can be put right in place.

    Args:
        version: The user_version that its schema shows it to have, if its marks are damaged.
        indexes: Whether its indexes have to be built again.
        log_cut_off: Whether the end of its log is gone, and with it the last commits.
    """

    version: int | None = None
    indexes: bool = False
    log_cut_off: bool = False


def _repair(connection: sqlite3.Connection, path: str, checked: _Checked) -> list[str]:
    """Put right what can be put right in place; return a sentence for each.

    Raises:
        Damage: It cannot be.
        StorageFull, StorageReadOnly: There is no room for a copy of what was there.
    """
    repairs = []
    if checked.log_cut_off:
        repairs.append(_keep_log(path))
    if checked.version is not None:
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID:d}; PRAGMA user_version = {checked.version:d}; COMMIT;"
        )
        event(log, logging.WARNING, "damaged marks of the database put right", database=path, schema=checked.version)
        repairs.append(f"The header of {path} was damaged and has been put right; check the disk.")
    if checked.indexes:
        try:
            kept = recovery.reindex(connection, path)
        except OSError as error:
            raise translate_os(error, f"The database {path} cannot be copied") from error
        event(log, logging.WARNING, "damaged indexes of the database built again", database=path, copy=kept)
        repairs.append(
            f"Indexes of {path} were damaged and have been built again from its tables; check the disk. "
            f"A copy from before lies in {kept}."
        )
    return repairs


def _check_settled(path: str, scripts: Sequence[str]) -> _Checked:
    """Check a database as `_check_existing` does, and again if another program has changed it meanwhile.

    What is read while another process checkpoints, or while it writes to the log, can look like damage. It is damage if
    it is found twice and no file was written in between.
    """
    seen: list[tuple[int, int, int] | None] = []
    for _ in range(_CHECKS):
        before = _stamps(path)
        try:
            return _check_existing(path, scripts)
        except (schema.Damage, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.Error) and recovery.is_environment(error):
                raise
            if before == seen == _stamps(path):
                raise
            seen = before
    raise Busy(f"Another program keeps changing the database {path}")


def _stamps(path: str) -> list[tuple[int, int, int] | None]:
    """Return what changes when the database, its WAL or its journal is written: inode, size and time."""
    stamps: list[tuple[int, int, int] | None] = []
    for each in (path, path + "-wal", path + "-journal"):
        try:
            found = os.stat(each)
        except FileNotFoundError:
            stamps.append(None)
        else:
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return stamps


def _keep_log(path: str) -> str:
    """Copy a log that was cut off, as SQLite goes on at its end; return a sentence about it."""
    log_file = path + "-wal"
    event(log, logging.ERROR, "the end of the database's log is gone", database=path)
    words = f"The log of {path} ends too early or is gone: the last changes may be lost."
    if size(log_file) == 0:
        return words
    kept = free_name(log_file + ".aside-", now())
    try:
        shutil.copyfile(log_file, kept)
        sync(kept)
    except OSError as error:
        raise translate_os(error, f"The log {log_file} cannot be copied") from error
    return f"{words} A copy of it lies in {kept}."


def _check_without_strange_logs(path: str, scripts: Sequence[str], repairs: list[str]) -> _Checked:
    """Check a database; first rename a log or a journal beside it that is not its own. Raises: as `_check_settled`."""
    try:
        return _check_settled(path, scripts)
    except schema.ForeignDatabase:
        if not _has_foreign_log(path, scripts):
            raise
        repairs.append(_move_aside(path + "-wal"))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + "-shm")  # SQLite makes it of the log
    except sqlite3.OperationalError as error:
        # A journal that nobody writes any more, and that would have to be rolled back first. Orbit has none.
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        if recovery.has_journal(path):
            raise
        repairs.append(_move_aside(path + "-journal"))
    return _check_settled(path, scripts)


def _check_existing(path: str, scripts: Sequence[str]) -> _Checked:
    """Refuse a database that this program must not write, before SQLite opens it for writing, and look for damage."""
    files = [path, *(path + suffix for suffix in SIDE_FILES)]
    for each in files:
        with contextlib.suppress(FileNotFoundError):  # another process that opens the database may delete its journal
            status = os.stat(each)
            if status.st_mode & 0o077 and status.st_uid == os.geteuid():
                # It was copied here with a umask that let others read it; what its owner may not, stays forbidden.
                set_mode(each, stat.S_IMODE(status.st_mode) & 0o700)
    log_cut_off = wal.is_cut_off(path)
    with recovery.opened_untouched(path) as connection:
        found = schema.inspect(connection)
        version = schema.identify(path, found, scripts)
        # SQLite would open a read-only file read-only, and make a WAL and a -shm file with the same mode,
        # which would still be read-only after the user has corrected the mode of the database.
        for each in files:
            if not os.access(each, os.R_OK | os.W_OK) and os.path.exists(each):
                raise StorageReadOnly(
                    f"{each} cannot be written",
                    hint=f"Make it writable ({typed('chmod 600', each)}), or the disk that it is on.",
                )
        indexes = recovery.has_damaged_indexes(connection, path)
    is_damaged = version and (found.application_id, found.user_version) != (APPLICATION_ID, version)
    return _Checked(version=version if is_damaged else None, indexes=indexes, log_cut_off=log_cut_off)


def _salvage(path: str, damaged: str) -> None:
    """Make the database with what is whole in a damaged one; if the damage prevents that, make none.

    Raises:
        StorageFull, Busy: There is no room for it, or no descriptor; the next start tries again.
    """
    # Under another name until it is complete and on disk: where a kill interrupts this, the next start
    # begins with it again. `daily.remove_leftovers` deletes what is left then.
    temporary = os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + secrets.token_hex(8))
    try:
        _make_file(temporary)
        with contextlib.closing(_connect(temporary)) as connection:
            _migrate(connection, temporary, load_migrations())
            found = salvage.salvage(connection, damaged.removesuffix("-wal"))
            # Out of the WAL into the file, which alone is renamed. A close that cannot do that, as the disk is
            # full, fails without a word.
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        sync(temporary)
        with contextlib.suppress(FileNotFoundError):  # left by a kill in `recovery.set_aside`
            os.rename(path + "-journal", damaged.removesuffix("-wal") + "-journal")
        os.replace(temporary, path)
        sync(os.path.dirname(path))
    except Exception as error:  # a store that is empty still serves, and the damaged one is kept
        for suffix in ("", *SIDE_FILES):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary + suffix)
        meaning: Exception = error
        if isinstance(error, sqlite3.Error):
            meaning = translate(error, temporary)
        elif isinstance(error, OSError):
            meaning = translate_os(error, f"What is whole in {damaged} cannot be brought over")
        if isinstance(meaning, StorageFull | Busy):
            raise meaning from error
        event(log, logging.ERROR, "nothing could be salvaged", database=damaged, error=type(error).__name__, exc=error)
        return
    counts = {name: getattr(found, name) for name in found.__struct_fields__ if name not in ("source", "lost")}
    event(log, logging.WARNING, "rows of the damaged database brought over", database=damaged, **counts)
    for each in found.lost:
        event(log, logging.WARNING, "row of the damaged database lost", id=each)


def _migrate(connection: sqlite3.Connection, path: str, scripts: Sequence[str]) -> None:
    """Run the migrations that the database has not had; another process may be doing the same."""
    version = _version(connection)
    if 0 < version < len(scripts):
        copy.write(connection, f"{path}.backup-v{version}-{file_stamp(now())}")
    while version < len(scripts):
        # A script holds its own BEGIN IMMEDIATE and COMMIT, with user_version set in between:
        # executescript() commits an open transaction first, so one begun here would not enclose it.
        try:
            connection.executescript(scripts[version])
        except sqlite3.DatabaseError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if is_corrupt(error):  # an index cannot be made of a row that cannot be decoded, which is served else
                raise schema.Damage(f"it cannot be brought to today's schema: {error}") from error
            # Where another process ran the same script first, this one failed at its first statement
            # (the table exists), and the version shows that it was run.
            if not isinstance(error, sqlite3.OperationalError) or _version(connection) == version:
                raise
        version = _version(connection)
    noted = connection.execute("SELECT value FROM meta WHERE key = ?", (schema.VERSION_KEY,)).fetchone()
    if noted != (str(version),):
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (schema.VERSION_KEY, str(version)))


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert isinstance(version, int)
    return version
