"""Opening the database file: who may own it, how it is set up, how its schema moves on.

Runs in a thread, never on the event loop. `open_writer` is the only way to a connection
that writes; `open_reader` gives one that cannot.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from importlib import resources

from orbit_os.files import make_private_folders
from orbit_protocol.errors import StorageReadOnly
from orbitd.store.backup import copy, recovery
from orbitd.store.clock import file_stamp, now
from orbitd.store.errors import translate_os, translated
from orbitd.store.files import APPLICATION_ID, SIDE_FILES, file_uri, size

BUSY_SECONDS = 5.0
"""How long to wait for another program (sqlite3 on a command line, say) to let go of the database."""

_NEW_SETUP = "PRAGMA auto_vacuum = INCREMENTAL"
"""For an empty file only: it counts before the first page is written, and later would write the header each time."""

_WRITER_SETUP = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA temp_store = MEMORY;
PRAGMA journal_size_limit = 67108864;
PRAGMA trusted_schema = OFF;
"""
# temp_store keeps savepoint journals and sorts out of /tmp: they hold what terminals showed.
# journal_size_limit (64 MiB) shortens a WAL that a long backup let grow.

READER_SETUP = """
PRAGMA query_only = ON;
PRAGMA temp_store = MEMORY;
PRAGMA trusted_schema = OFF;
"""


def load_migrations() -> list[str]:
    """Return the schema's scripts, in order; script number n brings user_version n-1 to n."""
    folder = resources.files("orbitd.store.migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def open_writer(path: str, *, start_empty: bool = False, migrations: Sequence[str] | None = None) -> sqlite3.Connection:
    """Open the database to write, making or migrating it where needed.

    Args:
        path: The database file; its folder is made (0700) if there is none, the file is 0600.
        start_empty: Make a new database although a corrupt one was set aside here.
        migrations: The schema's scripts, where not the program's own.

    Raises:
        StorageCorrupt: It cannot be read. It was set aside; `data` has `set_aside` and the newest good `backup`.
        StorageReadOnly: It is not ours, is of a newer Orbit, or cannot be written. Nothing was touched.
    """
    scripts = load_migrations() if migrations is None else migrations
    with translated(), recovery.setting_aside(path):
        if recovery.is_absent(path):
            if not start_empty:
                recovery.refuse_after_set_aside(path)
            _make_file(path)
        elif size(path) == 0:
            raise recovery.set_aside(path, "its file is gone and its log is there")
        else:
            _keep_private(path)
            _refuse_unless_ours(recovery.inspect(path), path, len(scripts))
            _refuse_unwritable(path)
        connection = _connect(path)
        try:
            _migrate(connection, path, scripts)
        except BaseException:
            connection.close()
            raise
        return connection


def open_reader(path: str) -> sqlite3.Connection:
    """Open the database to read, for long work in a thread of its own."""
    connection = sqlite3.connect(
        file_uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False
    )
    connection.executescript(READER_SETUP)
    return connection


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        file_uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=256
    )
    try:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute(_NEW_SETUP)
        connection.executescript(_WRITER_SETUP)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_file(path: str) -> None:
    """Make an empty file that only its owner may read; the WAL takes over its mode."""
    try:
        make_private_folders(os.path.dirname(path))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
    except OSError as error:
        raise translate_os(error, f"The database {path} cannot be made") from error


def _keep_private(path: str) -> None:
    """Close a database that was copied here with a careless umask to others."""
    status = os.stat(path)
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        os.chmod(path, 0o600)


def _refuse_unwritable(path: str) -> None:
    """Refuse before SQLite makes a WAL and shared memory with the same mode, which would outlast the mistake."""
    for each in (path, *(path + suffix for suffix in SIDE_FILES)):
        if os.path.exists(each) and not os.access(each, os.R_OK | os.W_OK):
            raise StorageReadOnly(
                f"{each} cannot be written", hint=f"Make it writable (chmod 600 '{each}'), or the disk that it is on."
            )


def _refuse_unless_ours(found: recovery.Inspection, path: str, newest: int) -> None:
    foreign = found.application_id != APPLICATION_ID and not (found.application_id == 0 and found.is_empty)
    if foreign:
        raise StorageReadOnly(
            f"{path} is the database of another program",
            hint="Set database_path in the configuration to a file of Orbit's own.",
        )
    if found.user_version > newest:
        raise StorageReadOnly(
            f"{path} was written by a newer Orbit (schema {found.user_version}, this one knows {newest})",
            hint="Start the newer Orbit; nothing in the database was changed.",
        )


def _migrate(connection: sqlite3.Connection, path: str, scripts: Sequence[str]) -> None:
    """Bring the schema to the newest version; another program may be doing the same."""
    version = _version(connection)
    if 0 < version < len(scripts):
        copy.write(connection, f"{path}.backup-v{version}-{file_stamp(now())}")
    while version < len(scripts):
        try:
            connection.executescript(scripts[version])
        except sqlite3.OperationalError:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if _version(connection) == version:
                raise
        version = _version(connection)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert isinstance(version, int)
    return version
