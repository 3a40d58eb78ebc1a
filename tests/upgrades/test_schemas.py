"""Databases of other schemas: older ones move on with a backup first, newer and foreign ones are left alone."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from ctl_support import Ended, Orbitctl
from orbitd.manager import SessionManager
from orbitd.store.database import load_migrations
from orbitd.store.events import EPOCH_KEY
from orbitd.store.schema import VERSION_KEY
from support import DaemonProcess
from upgrades.old_stores import SCHEMAS, assert_kept, dump, load, schema_of, user_version

NEWEST = len(load_migrations())


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes; the lock is a note about processes, not data."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def kept(stopped_daemon: DaemonProcess) -> Path:
    """The path of a database of today's schema with a session in it, cleanly closed."""
    with stopped_daemon.start().client() as client:
        client.call("session.create", config={"session_type": "local"}, name="precious")
    assert stopped_daemon.stop() == 0
    stopped_daemon.log_path.unlink()
    return stopped_daemon.database_path


def set_version(path: Path, value: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {value}")
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (str(value), VERSION_KEY))
        connection.commit()


def test_every_earlier_schema_has_a_fixture() -> None:
    """A migration cannot be added without a database of the schema that it starts from."""
    assert set(range(1, NEWEST)) <= set(SCHEMAS)


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_a_fixture_is_what_the_scripts_make(schema: int) -> None:
    """A script that databases have been made with is never edited afterwards."""
    made, fixture = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    with contextlib.closing(made), contextlib.closing(fixture):
        for script in load_migrations()[:schema]:
            made.executescript(script)
        fixture.executescript(SCHEMAS[schema].read_text())
        assert schema_of(fixture) == schema_of(made)


@pytest.mark.parametrize("schema", sorted(set(SCHEMAS) - {NEWEST}))
def test_an_older_database_moves_on(stopped_daemon: DaemonProcess, schema: int) -> None:
    """It is migrated at the first start, has all that it had, and is as sound as a new one."""
    load(schema, stopped_daemon.database_path)
    with stopped_daemon.start().client() as client:
        assert_kept(client)
    assert stopped_daemon.stop() == 0
    assert user_version(stopped_daemon.database_path) == NEWEST


@pytest.mark.parametrize("schema", sorted(set(SCHEMAS) - {NEWEST}))
def test_a_backup_is_made_before_the_first_change(stopped_daemon: DaemonProcess, schema: int) -> None:
    """Beside the database lies a private copy of what it was, made once."""
    path = stopped_daemon.database_path
    load(schema, path)
    before = dump(path)
    stopped_daemon.start()
    stopped_daemon.restart().stop()
    (backup,) = path.parent.glob(f"*backup-v{schema}*")
    assert dump(backup) == before
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


@pytest.mark.parametrize("schema", sorted(set(SCHEMAS) - {NEWEST}))
def test_the_backup_is_a_way_back(stopped_daemon: DaemonProcess, schema: int) -> None:
    """What the backup holds can be put in the database's place, and moves on again."""
    path = stopped_daemon.database_path
    load(schema, path)
    stopped_daemon.start().stop()
    (backup,) = path.parent.glob(f"*backup-v{schema}*")
    shutil.copy(backup, path)
    with stopped_daemon.start().client() as client:
        assert_kept(client)


CHECKED = ("sessions", "archived_sessions", "workspaces")


def contents(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table, without the checksums that are filled in later."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found = {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables}
    found["meta"] = [row for row in found["meta"] if row["key"] not in (VERSION_KEY, EPOCH_KEY)]  # a start may add them
    for row in (row for table in CHECKED for row in found[table]):
        row.pop("checksum", None)
    return found


@pytest.mark.parametrize("schema", sorted(set(SCHEMAS) - {NEWEST}))
async def test_old_rows_get_checksums_and_stay_equal(home: Path, schema: int) -> None:
    """The first pass over an older database's rows gives each a checksum, and changes nothing else in any table."""
    path = home / "orbit" / "sessions.db"
    load(schema, path)
    before = contents(path)
    for _ in range(2):
        async with SessionManager.open(path) as manager:
            await manager.verify_rows()
            assert manager.damage_warnings() == []
        after = contents(path)
        # A column of a later migration is new in every row.
        kept = {
            table: [{name: row[name] for name in old} for row, old in zip(after[table], olds, strict=True)]
            for table, olds in before.items()
        }
        assert kept == before
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for table in CHECKED:
                assert (None,) not in connection.execute(f"SELECT checksum FROM {table}").fetchall()


def test_a_newer_database_is_refused_untouched(stopped_daemon: DaemonProcess, kept: Path) -> None:
    """It exits with 1, names both schemas and the next step, and no byte is changed."""
    set_version(kept, NEWEST + 1)
    before = files_of(kept.parent)
    said = stopped_daemon.refused()
    assert f"newer Orbit (schema {NEWEST + 1}, this one knows {NEWEST})" in said
    assert "hint: Start the newer Orbit" in said
    assert files_of(kept.parent) == before


def test_a_newer_database_after_a_crash_is_refused_untouched(stopped_daemon: DaemonProcess, kept: Path) -> None:
    """What a newer daemon had in its WAL when it was killed is there for it afterwards."""
    stopped_daemon.start()
    with stopped_daemon.client() as client:
        client.call("session.create", config={"session_type": "local"}, name="in the log")
        set_version(kept, NEWEST + 1)
        stopped_daemon.stop(signal.SIGKILL)
    stopped_daemon.log_path.unlink()
    before = files_of(kept.parent)
    assert before["sessions.db-wal"]
    assert "newer Orbit" in stopped_daemon.refused()
    after = files_of(kept.parent)
    assert {name: after[name] for name in ("sessions.db", "sessions.db-wal")} == {
        name: before[name] for name in ("sessions.db", "sessions.db-wal")
    }
    assert set(after) - set(before) <= {"sessions.db-shm"}


@pytest.mark.parametrize("mark", [0, 1234])
def test_a_foreign_database_is_refused_untouched(stopped_daemon: DaemonProcess, mark: int) -> None:
    """Another program's tables are not Orbit's to change, whether it marks its databases or not."""
    path = stopped_daemon.database_path
    path.parent.mkdir(mode=0o700, parents=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA application_id = {mark}; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    before = files_of(path.parent)
    said = stopped_daemon.refused()
    assert f"{path} is the database of another program" in said
    assert "hint: Set database_path" in said
    assert files_of(path.parent) == before


def test_orbitctl_tells_why_the_daemon_does_not_start(stopped_daemon: DaemonProcess, kept: Path) -> None:
    """A command that would start the daemon exits with 3 and the daemon's own reason and next step."""
    set_version(kept, NEWEST + 1)
    ended: Ended = Orbitctl(stopped_daemon.home)("session", "list")
    assert (ended.code, ended.out) == (3, b"")
    assert "orbitd did not start" in ended.err
    assert "newer Orbit" in ended.err
    assert "hint: Start the newer Orbit" in ended.err
