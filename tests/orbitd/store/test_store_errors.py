"""Errors that SQLite really raises, and what they become."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from orbit_protocol.errors import (
    Busy,
    InvalidParams,
    OrbitError,
    StorageCorrupt,
    StorageFull,
    StorageReadOnly,
)
from orbitd.store.database import open_reader
from orbitd.store.errors import translate_os, translated


def full(connection: sqlite3.Connection, _: Path) -> None:
    connection.execute("PRAGMA max_page_count = 5")
    connection.execute("INSERT INTO t VALUES (zeroblob(100000))")


def not_a_database(_: sqlite3.Connection, path: Path) -> None:
    path.with_name("text").write_text("This is no database, however long the file may be. " * 100)
    with contextlib.closing(sqlite3.connect(path.with_name("text"))) as other:
        other.execute("SELECT * FROM sqlite_schema")


def torn_page(connection: sqlite3.Connection, path: Path) -> None:
    connection.executemany("INSERT INTO t VALUES (?)", [(bytes(3000),)] * 50)
    connection.close()
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM t").fetchall()


def query_only(connection: sqlite3.Connection, _: Path) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.execute("INSERT INTO t VALUES (1)")


def cannot_open(_: sqlite3.Connection, path: Path) -> None:
    sqlite3.connect(path / "below" / "a file").close()


def locked(connection: sqlite3.Connection, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("BEGIN IMMEDIATE")


def too_big(connection: sqlite3.Connection, _: Path) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
    connection.execute("INSERT INTO t VALUES (zeroblob(2000))")


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (full, StorageFull),
        (not_a_database, StorageCorrupt),
        (torn_page, StorageCorrupt),
        (query_only, StorageReadOnly),
        (cannot_open, StorageReadOnly),
        (locked, Busy),
        (too_big, InvalidParams),
    ],
)
def test_meaning(tmp_path: Path, fail: Callable[[sqlite3.Connection, Path], None], expected: type[OrbitError]) -> None:
    """Each failure of SQLite is raised as the error that a caller can act on, with SQLite's as its cause."""
    path = tmp_path / "b.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (x)")
        with pytest.raises(expected) as caught, translated():
            fail(connection, path)
    assert isinstance(caught.value.__cause__, sqlite3.Error)


def test_mistakes_of_ours_stay_what_they_are(tmp_path: Path) -> None:
    """Wrong SQL is no condition of the storage: it is raised as it is."""
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as connection:
        with pytest.raises(sqlite3.OperationalError), translated():
            connection.execute("SELEKT 1")
        with pytest.raises(sqlite3.ProgrammingError), translated():
            connection.execute("SELECT ?", ())


@pytest.mark.parametrize("spare", [0, 1])
def test_too_few_descriptors(tmp_path: Path, spare: int) -> None:
    """A database that SQLite cannot open for want of descriptors is busy, also where one is left."""
    path = tmp_path / "sessions.db"
    with contextlib.closing(sqlite3.connect(path)) as running:
        running.execute("PRAGMA journal_mode = WAL").fetchall()
        running.execute("CREATE TABLE t (a)")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
        try:
            with pytest.raises(Busy), translated(), contextlib.closing(open_reader(str(path))) as reader:
                reader.execute("SELECT a FROM t").fetchall()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    ("number", "expected", "hint"),
    [
        (errno.ENOSPC, StorageFull, "Free room"),
        (errno.EDQUOT, StorageFull, "Free room"),
        (errno.EROFS, StorageReadOnly, "mounted read-only"),
        (errno.EIO, StorageReadOnly, "disk fails"),
        (errno.EPERM, StorageReadOnly, "another path"),
        (errno.EACCES, StorageReadOnly, "write access"),
        (errno.EMFILE, Busy, ""),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_failed_file_operations(number: int, expected: type[OrbitError], hint: str) -> None:
    """What errno means for the store, and a hint that can help: write access does not mend a failing disk."""
    error = translate_os(OSError(number, os.strerror(number), "/a"), "The backup /a cannot be written")
    assert type(error) is expected
    assert error.message == f"The backup /a cannot be written: {os.strerror(number)}"
    assert hint in error.hint


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync"])
def test_a_quota_is_told_from_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """SQLite reports EDQUOT as any I/O error of a write: a write beside the database shows which it is."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    path = str(tmp_path / "sessions.db")
    with pytest.raises(StorageReadOnly, match="cannot be written"), translated(path):
        raise error

    def refuse(*_args: object) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageFull, match="quota"), translated(path):
        raise error
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_IOERR_LOCK,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMLOCK,
    ],
)
def test_no_locks_and_no_shared_memory(code: int) -> None:
    """What SQLite raises on a network file system is told with the remedy, a local one."""
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    with pytest.raises(OrbitError) as caught, translated():
        raise error
    assert "set database_path to a local one" in caught.value.hint
