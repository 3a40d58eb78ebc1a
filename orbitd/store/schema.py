"""The schema that the migrations make, and whose a database is by its schema and its marks."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Sequence
from importlib import resources

from msgspec import Struct

from orbit_protocol.errors import StorageReadOnly
from orbitd.store.files import APPLICATION_ID

NEW_FILE_SETUP = "PRAGMA auto_vacuum = INCREMENTAL"
"""Has an effect before the first table is made only."""

VERSION_KEY = "schema_version"
"""The key in `meta` under which user_version stands a second time."""

_MAX_VERSION = 9_999
"""No Orbit has more migrations; a user_version beyond it is damage."""

_FOREIGN_TABLES = 2
"""A database with at most so many of our tables, and not our mark, is another program's."""

Objects = frozenset[tuple[str, str, str, str]]


class Damage(Exception):
    """The database is damaged, though SQLite can read it; the text says how."""


class ForeignDatabase(StorageReadOnly):
    """The database is another program's."""


class Inspection(Struct, frozen=True, kw_only=True):
    """What a database says of itself.

    Args:
        application_id: Of its header.
        user_version: Likewise.
        objects: Its tables and indexes: type, name, table and normalised SQL.
        noted_version: The user_version in `meta`; None if there is none.
    """

    application_id: int
    user_version: int
    objects: Objects
    noted_version: str | None


class Template(Struct, frozen=True):
    """A schema as a new database has it; `version` is how many scripts ran before one failed."""

    version: int
    objects: Objects
    roots: dict[str, int]
    columns: dict[str, tuple[str, ...]]


@functools.cache  # read by the start: later an upgrade may have put others in their place
def load_migrations() -> tuple[str, ...]:
    """Return the schema's scripts, in order; script number n raises user_version from n-1 to n."""
    folder = resources.files("orbitd.store.migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple((folder / name).read_text(encoding="utf-8") for name in names)


@functools.cache
def template(scripts: tuple[str, ...]) -> Template:
    """Return the schema that these scripts make."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(NEW_FILE_SETUP)
        version = 0
        with contextlib.suppress(sqlite3.Error):  # a script with a mistake fails where it is run on a database too
            for script in scripts:
                connection.executescript(script)
                version += 1
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema").fetchall())
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        columns = {
            name: tuple(column for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (name,)))
            for (name,) in names
        }
        return Template(version, read_objects(connection), roots, columns)


def read_objects(connection: sqlite3.Connection) -> Objects:
    """Return the tables and indexes of a database, spaces and quotes of their SQL aside."""
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema").fetchall()
    return frozenset((kind, name, table, " ".join(sql.replace('"', "").split())) for kind, name, table, sql in rows)


def has_sessions(connection: sqlite3.Connection) -> bool:
    """Return whether a database is one of sessions, not one of histories, whose application_id is the same."""
    query = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'sessions'"
    return connection.execute(query).fetchone() is not None


def inspect(connection: sqlite3.Connection) -> Inspection:
    """Read what a database says of itself."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (user_version,) = connection.execute("PRAGMA user_version").fetchone()
    objects = read_objects(connection)
    noted = None
    with contextlib.suppress(sqlite3.Error):  # an earlier Orbit wrote none
        noted = connection.execute("SELECT value FROM meta WHERE key = ?", (VERSION_KEY,)).fetchone()
    return Inspection(
        application_id=application_id,
        user_version=user_version,
        objects=objects,
        noted_version=None if noted is None else str(noted[0]),
    )


def identify(path: str, found: Inspection, scripts: Sequence[str]) -> int:
    """Return the version of a database's schema; its marks may be damaged.

    Marks and schema say the same twice. Where they differ, the schema decides: a flipped bit makes another
    number of a number, but never another one of our schemas of a schema.

    Raises:
        StorageReadOnly: It is another program's, or a newer Orbit's.
        Damage: Its schema is damaged.
    """
    newest = len(scripts)
    if not found.objects:
        if found.application_id not in (0, APPLICATION_ID):
            raise _foreign(path)
        if found.user_version > newest:
            raise _newer(path, found.user_version, newest)
        if found.application_id or found.user_version:
            raise Damage("its tables are gone")
        return 0
    made = (template(tuple(scripts[:each])) for each in range(newest, 0, -1))
    version = next((each.version for each in made if each.version and each.objects <= found.objects), None)
    if version is None and found.application_id != APPLICATION_ID:
        ours = {name for kind, name, _, _ in template(tuple(scripts)).objects if kind == "table"}
        if sum(name in ours for kind, name, _, _ in found.objects if kind == "table") <= _FOREIGN_TABLES:
            raise _foreign(path)
    if found.user_version > newest and not _is_damaged_mark(found, version):
        raise _newer(path, found.user_version, newest)
    if version is None:
        raise Damage("its schema is not the one that Orbit made")
    return version


def _is_damaged_mark(found: Inspection, version: int | None) -> bool:
    """Return whether a user_version that is too new is rather one of this schema with a flipped bit.

    A newer Orbit would have noted its number in `meta` too, and most likely changed the schema.
    """
    if found.user_version > _MAX_VERSION:
        return True
    return (
        version is not None
        and found.noted_version in (None, str(version))
        and (found.user_version ^ version).bit_count() == 1
    )


def _foreign(path: str) -> ForeignDatabase:
    return ForeignDatabase(
        f"{path} is the database of another program",
        hint="Set database_path in the configuration to a file of Orbit's own.",
    )


def _newer(path: str, version: int, newest: int) -> StorageReadOnly:
    return StorageReadOnly(
        f"{path} was written by a newer Orbit (schema {version}, this one knows {newest})",
        hint="Start the newer Orbit; nothing in the database was changed.",
    )
