"""The log of the database of histories: checkpointed beside its writer."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orbit_protocol.errors import StorageCorrupt, StorageReadOnly
from orbit_protocol.settings import HistorySettings
from orbit_protocol.types import SessionConfig
from orbitd.history.database import damaged_files, open_reader
from orbitd.history.history import History
from orbitd.manager import SessionManager
from orbitd.screens.messages import Saved
from orbitd.store import checkpointer
from orbitd.store.checkpointer import checkpoint_log, truncate_log
from orbitd.store.files import BACKSTOP_PAGES
from store_support import size
from support import WAIT_SECS


def write_much(connection: sqlite3.Connection) -> None:
    """Write more than a quarter of a megabyte."""
    connection.execute("CREATE TABLE IF NOT EXISTS scratch (data BLOB)")
    connection.execute("INSERT INTO scratch VALUES (?)", (random.Random(1).randbytes(500_000),))


async def test_what_is_recorded_does_not_stay_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After much recording the database itself has it, and the log of the idle history is empty."""
    truncated, loop = asyncio.Event(), asyncio.get_running_loop()

    def truncate(connection: sqlite3.Connection) -> None:
        truncate_log(connection)
        loop.call_soon_threadsafe(truncated.set)

    monkeypatch.setattr(checkpointer, "truncate_log", truncate)
    monkeypatch.setattr(checkpointer, "LOG_BYTES", 1 << 18)
    monkeypatch.setattr(checkpointer, "IDLE_SECS", 0.0)
    path = tmp_path / "history.db"
    async with History(str(path), HistorySettings()) as history:
        await history.write(write_much)
        async with asyncio.timeout(WAIT_SECS):
            await truncated.wait()
        assert size(Path(f"{path}-wal")) == 0
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as without_log:
            assert without_log.execute("SELECT count(*) FROM scratch").fetchone() == (1,)
        backstop = await history.write(lambda writer: writer.execute("PRAGMA wal_autocheckpoint").fetchone())
        assert backstop == (BACKSTOP_PAGES,)


async def test_a_database_that_took_its_place_is_left_alone(tmp_path: Path) -> None:
    """A checkpoint opens the database by its path: what stands there meanwhile is not written to."""
    path = tmp_path / "history.db"
    async with History(str(path), HistorySettings()) as history:
        await history.write(write_much)
        for suffix in ("", "-wal"):
            os.rename(f"{path}{suffix}", tmp_path / f"moved{suffix}")
        with closing(sqlite3.connect(path)) as other:
            other.executescript("PRAGMA journal_mode = WAL; CREATE TABLE films (x)")
            before = path.read_bytes()
            with pytest.raises(StorageCorrupt):
                await history._checkpoint(checkpoint_log)
            assert path.read_bytes() == before


async def test_a_reader_that_is_open_while_the_writer_is_opened(tmp_path: Path) -> None:
    """The log is not deleted by another process that closes the database, though a reader was there before the writer.

    To close any descriptor of the file would drop the locks that this process has by its reader.
    """
    path = str(tmp_path / "history.db")
    async with History(path, HistorySettings()) as history:
        await history.write(write_much)
    async with History(path, HistorySettings()) as history:
        with closing(open_reader(path)) as reader:
            reader.execute("SELECT count(*) FROM films").fetchall()
            await history.write(write_much)
        code = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT 1 FROM films'); db.close()"
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", code, path)
        async with asyncio.timeout(WAIT_SECS):
            assert await other.wait() == 0
        await history.write(write_much)


async def test_a_database_of_sessions_is_left_alone(tmp_path: Path) -> None:
    """That of another daemon may have the name that a history would have: nothing is recorded, and it stays."""
    path = tmp_path / "history.db"
    async with SessionManager.open(str(path)) as store:
        await store.create_session(SessionConfig(session_type="local"))
        async with History(str(path), HistorySettings()) as history:
            with pytest.raises(StorageReadOnly, match="database of sessions"):
                await history.write(lambda _: None)
            assert any("database of sessions" in sentence for sentence in history.warnings())
        await store.create_session(SessionConfig(session_type="local"))
    assert damaged_files(str(path)) == []


async def test_what_lasts_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A history that cannot be opened is tried at each save: one error, and not two for each session every time."""
    path = tmp_path / "history.db"
    (tmp_path / "elsewhere.db").touch()
    path.symlink_to(tmp_path / "elsewhere.db")
    blank = Saved(request=1, position=1, native=b"", portable=b"", cols=80, rows=24, title="", history_line=0)
    async with History(str(path), HistorySettings()) as history:
        for number in range(5):
            await history.record(f"session {number}", "screen", list, blank)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2, errors
