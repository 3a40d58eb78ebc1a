"""Opening the database file: whose it is, its settings, its migrations.

Runs in a thread, never on the event loop. `open_writer` is the only way to a connection
that writes; `open_reader` returns one that cannot.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from importlib import resources

from orbit_os.files import PRIVATE_FILE, make_private_folders
from orbit_protocol.errors import StorageReadOnly
from orbitd.store.backup import copy, recovery
from orbitd.store.errors import translate_os, translated
from orbitd.store.files import APPLICATION_ID, SIDE_FILES, file_stamp, file_uri, size
from orbitd.store.rows import lenient_text, now

BUSY_SECONDS = 5.0
"""How long to wait for another program's lock on the database (the sqlite3 command, say)."""

# See sqlite.org/pragma.html for each.
#   auto_vacuum         only has an effect before the first table is made, so for an empty file only; later it
#                       would write the header at each start
#   journal_mode        stored in the file; readers and the writer do not block each other
#   synchronous         FULL syncs the WAL at every commit: an answered write is on disk. NORMAL would
#                       sync at checkpoints only, and a power cut could lose the last commits.
#   foreign_keys        off by default, and set for each connection; not inside a transaction
#   temp_store          keeps the journals of savepoints and sorts out of /tmp: they hold what terminals showed
#   journal_size_limit  64 MiB: truncates a WAL that a long backup let grow
#   trusted_schema      OFF: views and triggers of a database that somebody planted may only call functions
#                       that are marked as innocuous
_NEW_FILE_SETUP = "PRAGMA auto_vacuum = INCREMENTAL"

_WRITER_SETUP = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA temp_store = MEMORY;
PRAGMA journal_size_limit = 67108864;
PRAGMA trusted_schema = OFF;
"""

READER_SETUP = """
PRAGMA query_only = ON;
PRAGMA temp_store = MEMORY;
PRAGMA trusted_schema = OFF;
"""


def load_migrations() -> list[str]:
    """Return the schema's scripts, in order; script number n raises user_version from n-1 to n."""
    folder = resources.files("orbitd.store.migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def open_writer(path: str, *, start_empty: bool = False, migrations: Sequence[str] | None = None) -> sqlite3.Connection:
    """Open the database to write, making or migrating it if needed.

    Args:
        path: The database file, 0600; its folder is made (0700) if there is none.
        start_empty: Make a new database although a damaged one was set aside here.
        migrations: The schema's scripts, if not the program's own.

    Raises:
        StorageCorrupt: It cannot be read. It was set aside; `data` has `set_aside` and the newest good `backup`.
        StorageReadOnly: It is not ours, is of a newer Orbit, or cannot be written. Nothing was changed.
    """
    scripts = load_migrations() if migrations is None else migrations
    with translated(), recovery.set_aside_if_damaged(path):
        if recovery.is_absent(path):
            if not start_empty:
                recovery.refuse_after_set_aside(path)
            _make_file(path)
        elif size(path) == 0:
            # A WAL with something in it and no database: `recovery.set_aside` was interrupted between
            # two renames, or somebody deleted the database. SQLite deletes the WAL of an empty database.
            raise recovery.set_aside(path, "its file is gone and its log is there")
        else:
            _check_existing(path, newest_version=len(scripts))
        connection = _connect(path)
        try:
            _migrate(connection, path, scripts)
        except BaseException:
            connection.close()
            raise
        return connection


def open_reader(path: str) -> sqlite3.Connection:
    """Open the database to read, for long work in a thread of its own."""
    # mode=rw, as a reader of a WAL database marks its place in the -shm file; query_only refuses writes.
    connection = sqlite3.connect(
        file_uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False
    )
    connection.text_factory = lenient_text
    connection.executescript(READER_SETUP)
    return connection


def _connect(path: str) -> sqlite3.Connection:
    # mode=rw without "c": SQLite never makes the file, so that none appears with the umask's mode.
    # isolation_level=None: the sqlite3 module begins no transactions by itself; the writer does.
    connection = sqlite3.connect(
        file_uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=256
    )
    connection.text_factory = lenient_text
    try:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute(_NEW_FILE_SETUP)
        connection.executescript(_WRITER_SETUP)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_file(path: str) -> None:
    """Make an empty file that only its owner may read."""
    try:
        make_private_folders(os.path.dirname(path))
        # SQLite gives the WAL and -shm files the mode of the database, so this one has to be right.
        # O_CREAT's mode is reduced by the umask, and an existing empty file keeps its own: hence chmod.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
        os.chmod(path, PRIVATE_FILE)
    except OSError as error:
        raise translate_os(error, f"The database {path} cannot be made") from error


def _check_existing(path: str, newest_version: int) -> None:
    """Refuse a database that this program must not write, before SQLite opens it for writing."""
    status = os.stat(path)
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        os.chmod(path, PRIVATE_FILE)  # it was copied here with a umask that let others read it
    found = recovery.inspect(path)
    foreign = found.application_id != APPLICATION_ID and not (found.application_id == 0 and found.is_empty)
    if foreign:
        raise StorageReadOnly(
            f"{path} is the database of another program",
            hint="Set database_path in the configuration to a file of Orbit's own.",
        )
    if found.user_version > newest_version:
        raise StorageReadOnly(
            f"{path} was written by a newer Orbit (schema {found.user_version}, this one knows {newest_version})",
            hint="Start the newer Orbit; nothing in the database was changed.",
        )
    # SQLite would open a read-only file read-only, and make a WAL and a -shm file with the same mode,
    # which would still be read-only after the user has corrected the mode of the database.
    for each in (path, *(path + suffix for suffix in SIDE_FILES)):
        if os.path.exists(each) and not os.access(each, os.R_OK | os.W_OK):
            raise StorageReadOnly(
                f"{each} cannot be written", hint=f"Make it writable (chmod 600 '{each}'), or the disk that it is on."
            )


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
        except sqlite3.OperationalError:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            # Where another process ran the same script first, this one failed at its first statement
            # (the table exists), and the version shows that it was run.
            if _version(connection) == version:
                raise
        version = _version(connection)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert isinstance(version, int)
    return version
