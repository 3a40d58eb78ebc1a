"""Opening a database: how it is made, whose it may be, how it moves on, and what is done with a damaged one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import sqlite3
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from orbit_protocol.errors import Busy, StorageCorrupt, StorageFull, StorageReadOnly
from orbitd.history.database import open_writer
from orbitd.manager import SessionManager
from orbitd.sessions.saved_state import SavedState
from orbitd.store import database, store
from orbitd.store.backup import wal
from orbitd.store.backup.recovery import Unexpected
from orbitd.store.backup.restore import restore
from orbitd.store.backup.salvage import Salvaged, salvage, salvaged_into
from orbitd.store.files import APPLICATION_ID
from orbitd.store.schema import Damage, template
from orbitd.store.snapshots import add_newest
from orbitd.store.store import open_store
from store_support import LOCAL, exists, files, mode, names, read, rows, size


@pytest.fixture
def careless() -> Iterator[None]:
    """A process whose umask hides nothing."""
    old = os.umask(0)
    yield
    os.umask(old)


async def fill(path: Path, count: int = 3) -> None:
    """Make a store with some sessions and snapshots, cleanly closed."""
    async with SessionManager.open(str(path)) as manager:
        for number in range(count):
            session = await manager.create_session(LOCAL, name=f"s{number}")
            await manager.save_snapshot(session.id, os.urandom(9_000))


async def crash(path: Path) -> None:
    """Make a store as a power cut leaves it: what is newest stands in the WAL only."""
    running = path.parent.with_name("running") / path.name
    async with SessionManager.open(str(running)) as manager:
        for number in range(3):
            session = await manager.create_session(LOCAL, name=f"s{number}")
            await manager.save_snapshot(session.id, os.urandom(9_000))
        shutil.copytree(running.parent, path.parent)


async def session_names(path: Path) -> list[str | None]:
    async with SessionManager.open(str(path)) as manager:
        return [session.name for session in await manager.list_active_sessions()]


async def refused(path: Path) -> StorageCorrupt:
    with pytest.raises(StorageCorrupt) as caught:
        await SessionManager.open(str(path))
    return caught.value


def write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


class Recorded(sqlite3.Connection):
    """A connection that notes how it was set when it was closed."""

    seen: ClassVar[list[tuple[str, int, int]]] = []

    def __init__(self, target: str, *args: Any, **options: Any) -> None:
        super().__init__(target, *args, **options)
        self.target = target

    def close(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed before
            query_only, full = (self.execute(f"PRAGMA {name}").fetchone()[0] for name in ("query_only", "fullfsync"))
            self.seen.append((self.target, query_only, full))
        super().close()


async def test_each_connection_that_writes_reaches_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can write has `fullfsync`, which macOS needs: the store, backups, restores, what a crash left."""
    Recorded.seen.clear()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Recorded, **options))
    copy = path.with_name("copy.db")
    await fill(path)
    async with SessionManager.open(str(path)) as manager:
        await manager.list_snapshots((await manager.list_active_sessions())[0].id)
        await manager.backup(str(copy))
    await asyncio.to_thread(restore, str(copy), str(path))
    await asyncio.to_thread(path.with_name("sessions.db-journal").write_bytes, bytes.fromhex("d9d505f920a163d7"))
    await session_names(path)
    writing = [one for one in Recorded.seen if not one[1] and "mode=ro" not in one[0] and one[0] != ":memory:"]
    assert len(writing) > 4
    assert [one for one in writing if not one[2]] == []


async def test_files_are_private(path: Path, careless: None, manager: SessionManager) -> None:
    """Whatever the umask, folders are 0700 and every file is 0600, the WAL too."""
    await manager.create_session(LOCAL)
    assert mode(path.parent) == 0o700
    assert {name: mode(path.with_name(name)) for name in names(path.parent)} == {
        "sessions.db": 0o600,
        "sessions.db-shm": 0o600,
        "sessions.db-wal": 0o600,
    }


async def test_open_files_are_closed_to_others(path: Path) -> None:
    """A database that was copied here with a careless umask is closed to others when it is opened."""
    await fill(path)
    os.chmod(path, 0o644)
    await fill(path, 0)
    assert mode(path) == 0o600


async def test_an_open_file_that_its_owner_may_not_write(path: Path) -> None:
    """It is closed to others, and what was forbidden to its owner stays so."""
    await fill(path)
    os.chmod(path, 0o444)
    with contextlib.suppress(StorageReadOnly):  # root writes it all the same
        await fill(path, 0)
    assert mode(path) == 0o400


async def test_closing_leaves_one_file(path: Path) -> None:
    """After a close, all is in the database itself."""
    await fill(path)
    assert names(path.parent) == ["sessions.db"]
    assert rows(path, "SELECT name FROM sessions ORDER BY seq") == [("s0",), ("s1",), ("s2",)]


async def test_contract_of_the_schema(path: Path, manager: SessionManager) -> None:
    """Tables, columns and indexes have the names that the contract gives; tables are STRICT."""

    def columns(table: str) -> set[str]:
        return {name for (name,) in rows(path, "SELECT name FROM pragma_table_info(?)", table)}

    assert columns("sessions") >= {
        *("id", "session_type", "created_at", "last_active", "status", "config", "workspace_id"),
    }
    assert columns("session_snapshots") >= {"id", "session_id", "snapshot_at", "terminal_buffer", "scrollback"}
    assert columns("workspaces") >= {"id", "name", "created_at", "layout", "active_session_id"}
    indexes = {name for (name,) in rows(path, "SELECT name FROM sqlite_schema WHERE type = 'index'")}
    assert indexes >= {
        *("idx_sessions_status", "idx_sessions_workspace_id"),
        *("idx_snapshots_session_id", "idx_snapshots_snapshot_at"),
    }
    strict = rows(path, "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    assert all(is_strict for _, is_strict in strict)
    assert rows(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert rows(path, "PRAGMA user_version") == [(len(database.load_migrations()),)]
    assert rows(path, "PRAGMA auto_vacuum") == [(2,)]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_writer_is_durable(path: Path) -> None:
    """The writing connection syncs at every commit and keeps foreign keys; a reading one cannot write."""
    with (
        contextlib.closing(database.open_writer(str(path)).connection) as writer,
        contextlib.closing(database.open_reader(str(path))) as reader,
    ):
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert writer.execute("PRAGMA foreign_keys").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM meta")


async def test_kill_of_a_program_with_a_small_cache_is_no_damage(path: Path) -> None:
    """A frame that SQLite overwrote with a page, and not its checksum, before a commit that never came is no damage."""
    await fill(path)
    killed = path.parent.with_name("killed")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in ("PRAGMA cache_size = 10", "PRAGMA cache_spill = 10", "BEGIN"):
            other.execute(statement).fetchall()
        for number in range(200):
            other.execute("INSERT INTO meta VALUES (?, ?)", (f"k{number:03}", os.urandom(1_500).hex()))
        shutil.copytree(path.parent, killed)
    log = killed / "sessions.db-wal"
    assert size(log) > 50 * 4096
    write_at(log, 2_000, bytes([read(log)[2_000] ^ 1]))  # of the first frame: one word is other, as it may be
    assert await session_names(killed / path.name) == ["s0", "s1", "s2"]


def test_commit_after_a_large_change_was_rolled_back_is_durable(path: Path) -> None:
    """One job of a group that fails after it wrote more than the cache holds does not cost the group its commit."""
    with contextlib.closing(database.open_writer(str(path)).connection) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("SAVEPOINT job")
        for number in range(400):
            writer.execute("INSERT INTO meta VALUES (?, ?)", (f"k{number:03}", os.urandom(4_500).hex()))
        for number in range(100, 400):  # the pages of these are in the log already, and are overwritten there
            writer.execute("UPDATE meta SET value = ? WHERE key = ?", (os.urandom(4_500).hex(), f"k{number:03}"))
        writer.execute("ROLLBACK TO job")
        writer.execute("RELEASE job")
        for number in range(50):
            writer.execute("INSERT INTO meta VALUES (?, ?)", (f"kept {number}", os.urandom(1_500).hex()))
        writer.execute("COMMIT")
        after_kill = path.parent.with_name("killed")
        shutil.copytree(path.parent, after_kill)
    assert rows(after_kill / path.name, "SELECT count(*) FROM meta WHERE key LIKE 'kept%'") == [(50,)]


async def test_opened_again(path: Path) -> None:
    """A store has what it had, also under another way to its path, which need not be text."""
    await fill(path)
    (path.parent / "link").symlink_to(path)
    assert await session_names(path.parent / "link") == ["s0", "s1", "s2"]
    async with SessionManager.open(path) as manager:
        assert manager.path == str(path)


async def test_looking_writes_nothing(path: Path) -> None:
    """A start and a stop without a change in between leave the file as it is, to the byte and the time."""
    await fill(path)
    before = files(path.parent)
    async with SessionManager.open(path) as manager:
        await manager.list_sessions(status=["terminated"])
        await manager.get_stats()
    assert files(path.parent) == before


async def test_open_and_close(path: Path) -> None:
    """Without `async with`, a store is opened by await and closed by close, twice if need be."""
    manager = await SessionManager.open(str(path))
    session = await manager.create_session(LOCAL)
    await manager.close()
    await manager.close()
    manager = await SessionManager.open(str(path))
    assert await manager.get_session(session.id) == session
    await manager.close()


async def test_opening_that_is_cancelled(path: Path) -> None:
    """Whoever gives up while a store is opened leaves nothing open: the next opening goes well."""
    for _ in range(3):
        task = asyncio.ensure_future(_open(path))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await session_names(path) == []


async def _open(path: Path) -> SessionManager:
    return await SessionManager.open(str(path))


async def test_opened_twice_at_once(path: Path) -> None:
    """Programs that make the same store at the same moment both get it."""
    managers = await asyncio.gather(*(_open(path) for _ in range(4)))
    await managers[0].create_session(LOCAL, name="x")
    assert (await managers[1].find_session("x")).name == "x"
    for manager in managers:
        await manager.close()
    assert await session_names(path) == ["x"]


@pytest.mark.parametrize("application_id", [0, 252006674])
async def test_another_programs_database_is_left_alone(path: Path, application_id: int) -> None:
    """A database with another application_id, or with tables and none, is refused and not touched."""
    os.mkdir(path.parent)
    rows(path, "CREATE TABLE bookmarks (url)")
    rows(path, f"PRAGMA application_id = {application_id}")
    before = files(path.parent)
    with pytest.raises(StorageReadOnly, match="another program"):
        await SessionManager.open(str(path))
    assert files(path.parent) == before


async def test_newer_schema_is_left_alone(path: Path) -> None:
    """A store of a newer Orbit is refused with both versions named, and not touched."""
    await fill(path)
    rows(path, "PRAGMA user_version = 999")
    before = files(path.parent)
    with pytest.raises(StorageReadOnly, match=r"newer Orbit \(schema 999, this one knows \d+\)"):
        await SessionManager.open(str(path))
    assert files(path.parent) == before


def make_first_schema(path: Path) -> None:
    """Make a database of schema 1 with a session `old` in it."""
    scripts = database.load_migrations()
    with contextlib.closing(database.open_writer(str(path), migrations=scripts[:1]).connection) as connection:
        connection.execute(
            "INSERT INTO sessions (id, name, session_type, created_at, last_active, status, config) VALUES ('i', 'old',"
            " 'local', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z', 'active',"
            ' \'{"session_type":"local"}\')'
        )


def test_migration_keeps_a_backup(path: Path) -> None:
    """A database of schema 1 is copied, then brought to the newest schema with all that it held."""
    scripts = database.load_migrations()
    make_first_schema(path)
    assert asyncio.run(session_names(path)) == ["old"]
    (kept,) = (name for name in names(path.parent) if ".backup-v1-" in name)
    assert rows(path.with_name(kept), "PRAGMA user_version") == [(1,)]
    assert rows(path.with_name(kept), "SELECT name FROM sessions") == [("old",)]
    assert mode(path.with_name(kept)) == 0o600
    assert rows(path, "PRAGMA user_version") == [(len(scripts),)]
    assert asyncio.run(session_names(path)) == ["old"]
    assert len([name for name in names(path.parent) if ".backup-" in name]) == 1


def test_failing_migration_changes_nothing(path: Path) -> None:
    """A migration that breaks off half-way leaves the schema and the rows as they were."""
    good = database.load_migrations()
    database.open_writer(str(path), migrations=good).connection.close()
    version = len(good)
    bad = "BEGIN; CREATE TABLE half (x); INSERT INTO nowhere VALUES (1); PRAGMA user_version = 99; COMMIT;"
    with pytest.raises(Unexpected, match="nowhere"):
        database.open_writer(str(path), migrations=[*good, bad])
    assert rows(path, "PRAGMA user_version") == [(version,)]
    assert rows(path, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'") == [(0,)]


async def test_failing_migration_is_served_read_only(path: Path) -> None:
    """Where a database cannot be brought to the newest schema, all that it has is read and nothing is written: 1902."""
    scripts = database.load_migrations()
    make_first_schema(path)
    bad = "BEGIN IMMEDIATE; INSERT INTO nowhere VALUES (1); PRAGMA user_version = 2; COMMIT;"
    manager = SessionManager(await open_store(str(path), migrations=[scripts[0], bad]))
    try:
        assert "nowhere" in (manager.read_only or "")
        (session,) = await manager.list_active_sessions()
        assert (session.name, session.live) == ("old", False)
        assert (await manager.get_stats()).active_sessions == 1
        assert await manager.load_latest_snapshot("i") is None
        for refused_call in (manager.create_session(LOCAL), manager.touch_session("i"), manager.delete_session("i")):
            with pytest.raises(StorageReadOnly, match="read-only"):
                await refused_call
    finally:
        await manager.close()
    assert rows(path, "PRAGMA user_version") == [(1,)]


def marks(path: Path) -> list[tuple[object, ...]]:
    return [*rows(path, "PRAGMA application_id"), *rows(path, "PRAGMA user_version")]


@pytest.mark.parametrize("bit", range(64))
async def test_flipped_bit_of_the_marks(path: Path, bit: int) -> None:
    """With a bit of application_id or user_version flipped, the schema tells what it was: it is put right and named."""
    await fill(path)
    before = marks(path)
    offset = 68 + bit // 8 if bit < 32 else 60 + (bit - 32) // 8
    write_at(path, offset, bytes([read(path)[offset] ^ 1 << bit % 8]))
    async with SessionManager.open(str(path)) as manager:
        assert [session.name for session in await manager.list_active_sessions()] == ["s0", "s1", "s2"]
        (repair,) = manager.repairs
        assert "header" in repair
    assert marks(path) == before


@pytest.mark.parametrize(("offset", "bit"), [(18, 1), (19, 4), (21, 64), (47, 64), (59, 2)])
async def test_header_that_sqlite_refuses(path: Path, offset: int, bit: int) -> None:
    """Where SQLite cannot open a database for its header, it is set aside, and everything in it is brought over."""
    await fill(path)
    write_at(path, offset, bytes([read(path)[offset] ^ bit]))
    before = read(path)
    error = await refused(path)
    assert read(error.extra["set_aside"]) == before
    async with SessionManager.open(str(path), start_empty=True) as manager:
        sessions = await manager.list_active_sessions()
        assert [session.name for session in sessions] == ["s0", "s1", "s2"]
        for session in sessions:
            assert await manager.load_latest_snapshot(session.id) is not None
        assert (await manager.check()).ok


@pytest.mark.parametrize("old", [b"last_active TEXT", b"'detached'", b"idx_sessions_status", b"CREATE TABLE meta"])
async def test_flipped_bit_of_the_schema(path: Path, old: bytes) -> None:
    """A letter of the schema that is another one is damage: the file is set aside, and everything is brought over."""
    await fill(path)
    place = read(path).index(old) + 3
    write_at(path, place, bytes([read(path)[place] ^ 0x02]))
    await refused(path)
    async with SessionManager.open(str(path), start_empty=True) as manager:
        assert [session.name for session in await manager.list_active_sessions()] == ["s0", "s1", "s2"]
        assert (await manager.check()).ok


@pytest.mark.parametrize("schema", [1, 2, 3])
async def test_older_schemas_are_salvaged_too(path: Path, schema: int) -> None:
    """A damaged database of an earlier Orbit is brought over as one of today's is."""
    scripts = database.load_migrations()
    with contextlib.closing(database.open_writer(str(path), migrations=scripts[:schema]).connection) as connection:
        connection.execute(
            "INSERT INTO sessions (id, name, session_type, created_at, last_active, status, config) VALUES ('i', 'old',"
            " 'local', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z', 'active',"
            ' \'{"session_type":"local"}\')'
        )
    write_at(path, 0, b"\0" * 100)
    await refused(path)
    async with SessionManager.open(str(path), start_empty=True) as manager:
        assert [session.id for session in await manager.list_active_sessions()] == ["i"]


@pytest.mark.parametrize("damaged", ["a record", "an index"])
async def test_damage_of_an_older_schema(path: Path, damaged: str) -> None:
    """An index is built again in place; where a record cannot be decoded, all others are brought over."""
    scripts = database.load_migrations()
    with contextlib.closing(database.open_writer(str(path), migrations=scripts[:3]).connection) as connection:
        for name in ("one", "two"):
            connection.execute(
                "INSERT INTO sessions (id, name, session_type, created_at, last_active, status, config) VALUES (?, ?,"
                " 'local', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z', 'active',"
                ' \'{"session_type":"local"}\')',
                (name, name),
            )
    table = "sessions" if damaged == "a record" else "idx_sessions_name"
    ((root,),) = rows(path, f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'")
    page = (root - 1) * 4096
    (cell,) = struct.unpack(">H", read(path)[page + 8 : page + 10])  # of the first row (fileformat2.html#b_tree_pages)
    if damaged == "a record":
        write_at(path, page + cell + 3, b"\xff")  # behind its length and number, the length of its head
        await refused(path)
    else:
        write_at(path, page + cell + 5, b"X")
    async with SessionManager.open(str(path), start_empty=damaged == "a record") as manager:
        found = [session.id for session in await manager.list_active_sessions()]
        assert found == (["two"] if damaged == "a record" else ["one", "two"])
        assert (await manager.check()).ok


async def test_a_torn_page_counts_what_was_in_it(path: Path) -> None:
    """Where the head of a page is gone, what is left of it is not counted as rows: one snapshot was there."""
    async with SessionManager.open(str(path)) as manager:
        for _ in range(2):
            session = await manager.create_session(LOCAL)
        saved = await manager.save_snapshot(session.id, random.Random(1).randbytes(3000))
    ((root,),) = rows(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'session_snapshots'")
    write_at(path, (root - 1) * 4096, b"\xff" * 200)
    await refused(path)
    async with SessionManager.open(str(path), start_empty=True) as manager:
        assert len(await manager.list_active_sessions()) == 2
    with contextlib.closing(database.open_reader(str(path))) as connection:
        salvaged = salvaged_into(connection)
    assert salvaged is not None
    assert (salvaged.lost_sessions, salvaged.lost_snapshots, salvaged.lost) == (0, 1, (saved.id,))


async def test_vacuumed_databases_are_salvaged_too(path: Path) -> None:
    """Rows are found in a database that somebody vacuumed without a pointer map and with larger pages."""
    await fill(path, 200)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in ("journal_mode = DELETE", "auto_vacuum = NONE", "page_size = 8192"):
            other.execute(f"PRAGMA {statement}").fetchall()
        other.execute("VACUUM")
        ((root,),) = other.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'idx_sessions_status'").fetchall()
    write_at(path, (root - 1) * 8192, b"\xa5" * 8)
    await refused(path)
    async with SessionManager.open(str(path), start_empty=True) as manager:
        stats = await manager.get_stats()
    assert (stats.total_sessions, stats.total_snapshots) == (200, 200)


async def test_deleted_rows_are_not_salvaged(path: Path) -> None:
    """Pages that a vacuum has cut off, and that are in the log still, bring no row back that was deleted since."""
    large = replace(LOCAL, command="x" * 900)
    async with SessionManager.open(str(path)) as manager:
        ids = [(await manager.create_session(large)).id for _ in range(120)]
        for session_id in ids[:60]:
            await manager.save_snapshot(session_id, os.urandom(12_000))
        ids += [(await manager.create_session(large)).id for _ in range(200)]
    damaged = path.parent.with_name("damaged") / path.name
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in ("PRAGMA wal_autocheckpoint = 0", "PRAGMA foreign_keys = ON"):
            other.execute(statement).fetchall()
        other.execute("DELETE FROM sessions WHERE seq <= 60")
        other.execute("PRAGMA incremental_vacuum").fetchall()
        other.execute("DELETE FROM sessions WHERE seq > 150")
        shutil.copytree(path.parent, damaged.parent)
    write_at(Path(f"{damaged}-wal"), 9, b"\xff")
    await refused(damaged)
    async with SessionManager.open(str(damaged), start_empty=True) as manager:
        assert (await manager.get_stats()).total_sessions == 90


def test_long_log_is_read_from_where_sqlite_stopped(path: Path) -> None:
    """Frames that SQLite has checked are neither checked once more nor kept in memory."""
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as running:
        running.execute("PRAGMA journal_mode = WAL").fetchall()
        running.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        running.execute("CREATE TABLE big (bytes BLOB)")
        running.execute("INSERT INTO big VALUES (zeroblob(20000000))")
        tracemalloc.start()
        try:
            assert wal.read_log(f"{path}-wal", trusted=wal.frames_in_use(str(path))) is None
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("place", "torn", "reason"),
    [
        pytest.param(0, bytes(16), None, id="a sector of the head is not written"),
        pytest.param(0, bytes(4), "its log is damaged", id="one bit of the page's number"),
        pytest.param(8, b"\xff" * 8, None, id="the salts of an earlier run"),
    ],
)
def test_a_head_torn_by_a_power_cut_is_no_damage(path: Path, place: int, torn: bytes, reason: str | None) -> None:
    """What a power cut leaves of the last transaction is dropped; one changed bit in it is damage."""
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as running:
        running.execute("PRAGMA journal_mode = WAL").fetchall()
        running.execute("CREATE TABLE one (a)")
        before = size(path.with_name("sessions.db-wal"))
        running.execute("CREATE TABLE two (a)")
        log = path.with_name("log")
        log.write_bytes(written_log(path))
    write_at(log, before + place, torn)
    found = wal.read_log(str(log))
    assert found is not None
    assert [frame.commits > 0 for frame in found.frames][-2:] == [False, True]
    assert found.damage() == reason


def torn_apart(older: bytes, newer: bytes, luck: random.Random) -> bytes:
    """Return what a power cut may leave of a log that was begun again: its head, and some sectors of what came next."""
    assert older[16:24] != newer[16:24]
    whole, kept = newer + older[len(newer) :], luck.random()
    torn = bytearray((newer[:32] + older[32:]).ljust(len(whole), b"\0"))
    for start in range(0, len(whole), 512):
        if luck.random() < kept:
            torn[start : start + 512] = whole[start : start + 512]
    return bytes(torn)


def write_store(path: Path, data: bytes, log: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(data)
    path.with_name(f"{path.name}-wal").write_bytes(log)


def written_log(path: Path) -> bytes:
    """Return the log of a database that is open, without what is left of an earlier run behind its end."""
    return Path(f"{path}-wal").read_bytes()[: 32 + wal.frames_in_use(str(path)) * (24 + 4096)]


@pytest.mark.parametrize("seed", range(40))
def test_a_log_begun_again_and_torn_by_a_power_cut_is_no_damage(path: Path, seed: int) -> None:
    """Where sectors of its first transaction are missing, those of the run before are no part of it."""
    luck = random.Random(seed)
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as running:
        running.execute("PRAGMA journal_mode = WAL").fetchall()
        running.execute("CREATE TABLE one (a)")
        for _ in range(30):
            running.execute("INSERT INTO one VALUES (zeroblob(?))", (luck.randrange(9_000),))
        older = written_log(path)
        running.execute("PRAGMA wal_checkpoint").fetchall()
        running.execute("INSERT INTO one VALUES (?)", (luck.randbytes(luck.randrange(100, 90_000)),))
        copied = path.with_name("log")
        copied.write_bytes(torn_apart(older, written_log(path), luck))
    found = wal.read_log(str(copied))
    assert found is None or found.damage() is None


async def test_a_power_cut_while_the_log_begins_again_loses_nothing(path: Path) -> None:
    """Whichever sectors of the transaction are left, the store opens as usual, with all that was there before it."""
    running = path.parent.with_name("running") / path.name
    async with SessionManager.open(str(running)) as manager:
        first = await manager.create_session(LOCAL, name="s0")
        with contextlib.closing(sqlite3.connect(running)) as other:
            other.execute("PRAGMA wal_checkpoint").fetchall()
            for number in range(1, 30):
                await manager.create_session(LOCAL, name=f"s{number}")
            older = written_log(running)
            other.execute("PRAGMA wal_checkpoint").fetchall()
        await manager.save_snapshot(first.id, os.urandom(120_000))
        newer, data = written_log(running), read(running)
    for seed in range(20):
        copied = path.parent.with_name(str(seed)) / path.name
        write_store(copied, data, torn_apart(older, newer, random.Random(seed)))
        assert await session_names(copied) == [f"s{number}" for number in range(30)]


def test_migrations_only_add_columns_at_the_end() -> None:
    """What is salvaged from any schema is read by the places of today's columns (`salvage`)."""
    scripts = tuple(database.load_migrations())
    newest = template(scripts).columns
    for version in range(1, len(scripts)):
        for table, columns in template(scripts[:version]).columns.items():
            assert newest[table][: len(columns)] == columns


async def test_damaged_page_of_sessions_costs_its_rows_only(path: Path) -> None:
    """Where one page of a table is torn, what stands in the others is brought over, and the lost rows are counted."""
    await fill(path, 60)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sessions'").fetchall()
    data = read(path)
    child = int.from_bytes(data[(root - 1) * 4096 + 8 :][:4], "big")  # the last page of the table
    write_at(path, (child - 1) * 4096, b"\xa5" * 4096)
    error = await refused(path)
    async with SessionManager.open(str(path), start_empty=True) as manager:
        found = [session.name for session in await manager.list_active_sessions()]
    with contextlib.closing(database.open_reader(str(path))) as connection:
        salvaged = salvaged_into(connection)
    assert salvaged is not None
    assert 0 < len(found) < 60
    assert found == [f"s{number}" for number in range(len(found))]
    assert (salvaged.sessions, salvaged.lost_sessions) == (len(found), 60 - len(found))
    assert salvaged.source == error.extra["set_aside"]


async def test_damaged_index_is_built_again(path: Path) -> None:
    """An index that does not fit its table is built again from it, after a copy was made; nothing is set aside."""
    await fill(path)
    ((root,),) = rows(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'idx_sessions_status'")
    place = (root - 1) * 4096 + read(path)[(root - 1) * 4096 : root * 4096].index(b"active")
    write_at(path, place, b"a\x00tive")
    before = read(path)
    async with SessionManager.open(str(path)) as manager:
        (repair,) = manager.repairs
        assert len(await manager.list_active_sessions()) == 3
        assert (await manager.check()).ok
    (kept,) = path.parent.glob("*.before-reindex-*")
    assert str(kept) in repair
    assert read(kept) == before


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
async def test_strange_things_in_the_place_of_sqlites_files(path: Path, suffix: str, kind: str) -> None:
    """A folder, a FIFO or a link where SQLite would have a file of its own is moved aside, and never followed."""
    await fill(path)
    place, other = Path(f"{path}{suffix}"), path.parent / "other"
    other.write_text("mine")
    if kind == "folder":
        os.mkdir(place)
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        os.symlink(other, place)
    assert await session_names(path) == ["s0", "s1", "s2"]
    assert [name for name in names(path.parent) if ".aside-" in name]
    assert other.read_text() == "mine"


async def test_after_a_crash_all_is_there(path: Path) -> None:
    """What was answered and stands only in the WAL is found by the next start."""
    await crash(path)
    assert size(path.with_name("sessions.db-wal")) > 0
    assert await session_names(path) == ["s0", "s1", "s2"]


async def leave_half_written(path: Path) -> None:
    """Fill a store, and leave it as a program that is killed while it changes it without WAL mode does."""
    await fill(path, 30)
    running = path.parent.with_name("running")
    os.rename(path.parent, running)
    with contextlib.closing(sqlite3.connect(running / path.name, isolation_level=None)) as dying:
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA cache_size = 1", "BEGIN", "DELETE FROM sessions"):
            dying.execute(statement)
        for _ in range(100):  # more than the cache holds, so that pages are written before the commit
            dying.execute("INSERT INTO meta VALUES (hex(randomblob(20)), hex(randomblob(1500)))")
        shutil.copytree(running, path.parent)


async def test_half_written_transaction_of_another_program_is_rolled_back(path: Path) -> None:
    """A database beside a journal that has to be rolled back is not taken for a damaged one."""
    await leave_half_written(path)
    assert size(path.with_name("sessions.db-journal")) > 0
    assert len(await session_names(path)) == 30
    assert names(path.parent) == ["sessions.db"]


async def test_restore_beside_a_half_written_transaction(path: Path, tmp_path: Path) -> None:
    """The journal of the database that a backup replaces is kept with it, and not rolled back into the backup."""
    backup = tmp_path / "backup.db"
    await fill(path, 2)
    shutil.copyfile(path, backup)
    os.unlink(path)
    await leave_half_written(path)
    journal = read(f"{path}-journal")
    kept = restore(str(backup), str(path)).safety_copy
    assert rows(path, "SELECT name FROM sessions ORDER BY seq") == [("s0",), ("s1",)]
    assert not exists(f"{path}-journal")
    assert read(f"{kept}-journal") == journal


@pytest.mark.parametrize("torn", [b"no database", b"SQLite format 3\0"])
async def test_restore_over_a_database_that_cannot_be_read(path: Path, tmp_path: Path, torn: bytes) -> None:
    """The backup is put back all the same, unchanged, and why no screen was taken over is told."""
    backup = tmp_path / "backup.db"
    await fill(path, 2)
    shutil.copyfile(path, backup)
    other = tmp_path / "torn"
    other.write_bytes(torn)
    os.replace(other, path)
    restored = restore(str(backup), str(path))
    assert restored.carried_over == 0
    assert restored.not_carried_over
    assert restored.safety_copy is not None
    assert read(restored.safety_copy) == torn
    assert await session_names(path) == ["s0", "s1"]


async def test_restore_over_a_database_of_an_earlier_orbit(path: Path, tmp_path: Path) -> None:
    """The screens of what runs are taken over from a database that has not today's columns."""
    backup = tmp_path / "backup.db"
    async with SessionManager.open(str(path)) as manager:
        made = (await manager.create_session(LOCAL)).id
        await manager.start_program(made, cols=80, rows=24)
        await manager.save_snapshot(made, b"old", native_state=state_at(10))
        await manager.backup(str(backup))
        await manager.save_snapshot(made, b"new", native_state=state_at(20))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        indexes = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql LIKE '%deleted_at%'")
        for (name,) in indexes.fetchall():
            connection.execute(f"DROP INDEX {name}")
        for column in ("labels", "deleted_at"):
            connection.execute(f"ALTER TABLE sessions DROP COLUMN {column}")
        connection.commit()
    restored = restore(str(backup), str(path))
    assert (restored.carried_over, restored.not_carried_over) == (1, None)
    async with SessionManager.open(str(path)) as manager:
        latest = await manager.load_latest_snapshot(made)
        assert latest is not None
        assert latest.terminal_buffer == b"new"


async def test_restore_over_a_database_with_one_bad_session(path: Path, tmp_path: Path) -> None:
    """The screens of the others are taken over; what is not newer, or not in the backup, is left alone."""
    backup = tmp_path / "backup.db"
    async with SessionManager.open(str(path)) as manager:
        made = [(await manager.create_session(LOCAL, name=name)).id for name in ("bad", "same", "newer")]
        for each in made:
            await manager.start_program(each, cols=80, rows=24)
            await manager.save_snapshot(each, b"old", native_state=state_at(10))
        await manager.backup(str(backup))
        late = (await manager.create_session(LOCAL, name="late")).id
        await manager.start_program(late, cols=80, rows=24)
        for each in (made[0], made[2], late):
            await manager.save_snapshot(each, b"new", native_state=state_at(20), cols=99, rows=9, title="t")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE sessions SET checksum = 1 WHERE id = ?", (made[0],))
        connection.commit()
    restored = restore(str(backup), str(path))
    assert (restored.carried_over, restored.not_carried_over) == (1, None)
    async with SessionManager.open(str(path)) as manager:
        found = [await manager.load_latest_snapshot(each) for each in made]
        assert [one and one.terminal_buffer for one in found] == [b"old", b"old", b"new"]
        session = await manager.get_session(made[2])
        assert (session.cols, session.rows, session.title) == (99, 9, "t")
        older = (await manager.list_snapshots(made[2])).snapshots[1]
        assert (await manager.get_snapshot(older.id)).terminal_buffer == b"old"
        assert (await manager.check()).ok


def state_at(position: int) -> bytes:
    """Return the native state of a screen that goes up to a position of its journal."""
    return SavedState(native=b"", position=position).to_bytes()


async def test_kill_before_the_log_is_set_aside(path: Path) -> None:
    """The log of a database that was set aside, which a kill has left behind, is put beside it and salvaged."""
    await crash(path)
    aside = path.with_name("sessions.db.corrupt-20260101T000000Z")
    os.rename(path, aside)
    assert (await refused(path)).extra["set_aside"] == str(aside)
    assert exists(f"{aside}-wal")
    async with SessionManager.open(str(path), start_empty=True):
        pass
    assert await session_names(path) == ["s0", "s1", "s2"]


async def test_log_of_a_later_database_is_set_aside_by_itself(path: Path) -> None:
    """A log that was written after a database was set aside is none of its."""
    aside = path.with_name("sessions.db.corrupt-20260101T000000Z")
    await crash(path)
    aside.write_bytes(b"damaged")
    os.utime(f"{path}-wal", ns=(1 << 62, 1 << 62))
    os.unlink(path)
    assert (await refused(path)).extra["set_aside"].endswith("-wal")
    assert not exists(f"{aside}-wal")


async def test_kill_before_the_journal_is_set_aside(path: Path) -> None:
    """The journal of a database that was set aside is not rolled back into the one that takes its place."""
    await leave_half_written(path)
    aside, journal = path.with_name("sessions.db.corrupt-20260101T000000Z"), read(f"{path}-journal")
    os.rename(path, aside)
    async with SessionManager.open(str(path), start_empty=True) as manager:
        assert (await manager.check()).ok
    assert read(f"{aside}-journal") == journal


@pytest.mark.parametrize("bit", range(32))
async def test_a_wrong_bit_in_the_magic_of_a_log_loses_nothing(path: Path, bit: int) -> None:
    """Also the bit that says how checksums are made: every row of the log is brought over."""
    await crash(path)
    log = path.with_name("sessions.db-wal")
    write_at(log, bit // 8, bytes([read(log)[bit // 8] ^ 1 << bit % 8]))
    await refused(path)
    async with SessionManager.open(str(path), start_empty=True) as manager:
        assert [each.name for each in await manager.list_active_sessions()] == ["s0", "s1", "s2"]


@pytest.mark.parametrize("damage", ["gone", "empty", "zeros", "frames"])
async def test_a_log_that_lost_its_end_is_named(path: Path, damage: str) -> None:
    """Commits that the shared memory counts, and the log has no more, are told; the log is kept as it was."""
    await crash(path)
    log = path.with_name("sessions.db-wal")
    data = read(log)
    kept = {"gone": b"", "empty": b"", "zeros": bytes(len(data)), "frames": data[: -(24 + 4096)]}[damage]
    log.write_bytes(kept)
    if damage == "gone":
        log.unlink()
    async with SessionManager.open(str(path)) as manager:
        (repair,) = manager.repairs
    assert "ends too early or is gone" in repair
    aside = list(path.parent.glob("*-wal.aside-*"))
    assert [read(each) for each in aside] == ([kept] if kept else [])
    assert all(str(each) in repair for each in aside)


async def test_an_older_shared_memory_is_no_damage(path: Path) -> None:
    """A power cut may leave shared memory of another run of the log, from before the boot."""
    await crash(path)
    log, shared = path.with_name("sessions.db-wal"), path.with_name("sessions.db-shm")
    await crash(path.parent / "other" / path.name)
    shutil.copyfile(path.parent / "other" / shared.name, shared)
    os.utime(shared, (1, 1))
    assert size(log) > 0
    async with SessionManager.open(str(path)) as manager:
        assert manager.repairs == []
        assert len(await manager.list_active_sessions()) == 3


@pytest.mark.parametrize("content", [b"", b"x"])
async def test_an_emptied_database_is_named(path: Path, content: bytes) -> None:
    """An empty file where the database was becomes a new one, and that is told."""
    await fill(path)
    os.truncate(path, 0)
    write_at(path, 0, content)
    async with SessionManager.open(str(path)) as manager:
        (repair,) = manager.repairs
    assert "was empty" in repair


async def test_the_log_of_another_database_is_moved_aside(path: Path, tmp_path: Path) -> None:
    """A log of another program's beside a whole database keeps nothing from being served."""
    await fill(path)
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE t (a)")
        other.execute("INSERT INTO t VALUES (zeroblob(20000))")
        other.commit()
        shutil.copyfile(tmp_path / "other.db-wal", f"{path}-wal")
        foreign = read(tmp_path / "other.db-wal")
    async with SessionManager.open(str(path)) as manager:
        (repair,) = manager.repairs
        assert len(await manager.list_active_sessions()) == 3
    (aside,) = path.parent.glob("*-wal.aside-*")
    assert str(aside) in repair
    assert read(aside) == foreign


async def test_torn_header_is_set_aside(path: Path) -> None:
    """A file that is no database any more is renamed with its WAL, unchanged, and the error tells where."""
    await fill(path)
    write_at(path, 0, b"\0" * 100)
    before = files(path.parent)
    error = await refused(path)
    aside = error.extra["set_aside"]
    assert aside.startswith(f"{path}.corrupt-")
    assert error.extra["backup"] is None
    assert aside in error.message
    after_it = files(path.parent)
    assert {name.replace(os.path.basename(aside), path.name): data for name, data in after_it.items()} == before


async def test_torn_page_is_found_after_a_crash(path: Path) -> None:
    """After an unclean stop the whole file is checked before anything writes to it."""
    await fill(path, 30)
    pages = size(path) // 4096
    for page in range(40, pages):
        write_at(path, page * 4096, b"\xa5" * 200)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as dying:
        dying.execute("INSERT OR REPLACE INTO meta VALUES ('x', 'y')")
        crashed = path.parent.with_name("crashed")
        shutil.copytree(path.parent, crashed)
    error = await refused(crashed / path.name)
    assert not exists(crashed / path.name)
    assert exists(error.extra["set_aside"])
    assert exists(error.extra["set_aside"] + "-wal")


async def test_torn_sessions_are_found_at_start(path: Path) -> None:
    """Where the table that a start reads is torn, although the stop was clean, the database is set aside too."""
    await fill(path)
    ((root,),) = rows(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'sessions'")
    write_at(path, (root - 1) * 4096, b"\xa5" * 4096)
    before = read(path)
    error = await refused(path)
    assert read(error.extra["set_aside"]) == before


async def test_log_without_its_database_is_kept(path: Path) -> None:
    """Where only the WAL is left, it is set aside too: SQLite would delete it beside a new file."""
    await crash(path)
    wal = read(f"{path}-wal")
    os.unlink(path)
    error = await refused(path)
    assert error.extra["set_aside"].endswith("-wal")
    assert read(error.extra["set_aside"]) == wal
    assert (await refused(path)).extra == error.extra


async def test_no_empty_store_in_its_place(path: Path) -> None:
    """While a damaged database lies aside, every start says so, until told to go on with what is whole in it."""
    await fill(path)
    write_at(path, 0, b"\0" * 100)
    first = await refused(path)
    assert (await refused(path)).extra == first.extra
    assert not exists(path)
    async with SessionManager.open(str(path), start_empty=True) as manager:
        await manager.create_session(LOCAL, name="new")
    assert await session_names(path) == ["s0", "s1", "s2", "new"]
    assert exists(first.extra["set_aside"])


@pytest.mark.parametrize("kind", ["full", "not in the file"])
async def test_salvage_that_cannot_be_finished_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Where there is no room for what is whole, or it stays in a log, no empty store takes the place."""
    await fill(path)
    write_at(path, 0, b"\0" * 100)
    await refused(path)
    with contextlib.ExitStack() as readers:

        def fail(connection: sqlite3.Connection, source: str) -> Salvaged:
            if kind == "full":
                connection.execute("PRAGMA max_page_count = 1").fetchall()
            ((_, _, temporary),) = connection.execute("PRAGMA database_list").fetchall()
            # Its snapshot has the log stay, as a full disk does.
            reader = readers.enter_context(contextlib.closing(database.open_reader(temporary)))
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sessions").fetchone()
            connection.execute("PRAGMA busy_timeout = 0").fetchall()
            return salvage(connection, source)

        monkeypatch.setattr(database.salvage, "salvage", fail)
        with pytest.raises(StorageFull if kind == "full" else Busy):
            await SessionManager.open(str(path), start_empty=True)
    assert not exists(path)
    monkeypatch.undo()
    async with SessionManager.open(str(path), start_empty=True):
        pass
    assert await session_names(path) == ["s0", "s1", "s2"]


async def test_sound_database_is_not_set_aside_as_the_last_resort(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a database can be opened neither as usual nor to read, as others hold it, it stays where it is."""
    await fill(path)

    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    monkeypatch.setattr(store, "_open_read_only", fail)
    with pytest.raises(Busy):
        await open_store(str(path), migrations=[*database.load_migrations(), "BEGIN IMMEDIATE; SELECT no_such();"])
    assert [name for name in names(path.parent) if "corrupt" in name] == []


@pytest.mark.parametrize("torn", [3, 1_000])
async def test_database_that_another_program_writes_is_not_set_aside(
    path: Path, monkeypatch: pytest.MonkeyPatch, torn: int
) -> None:
    """What looks like damage while another program writes is looked at again; one that never rests is busy."""
    await fill(path)
    check, tries = database._check_existing, itertools.count(1)

    def check_while_written(*arguments: Any) -> Any:
        if (number := next(tries)) > torn:
            return check(*arguments)
        os.utime(path, ns=(number, number))
        raise Damage("read half old and half new")

    monkeypatch.setattr(database, "_check_existing", check_while_written)
    if torn == 3:
        assert await session_names(path) == ["s0", "s1", "s2"]
    else:
        with pytest.raises(Busy):
            await SessionManager.open(str(path))
    assert names(path.parent) == ["sessions.db"]


async def test_newest_good_backup_is_offered(path: Path) -> None:
    """Of the copies beside it, the newest that is sound and ours is named, and copying it back is enough."""
    backups = path.parent / "backups"
    async with SessionManager.open(str(path)) as manager:
        os.mkdir(backups)
        for number, name in enumerate(("old.db", "new.db", "torn.db")):
            await manager.create_session(LOCAL, name=name)
            await manager.backup(str(backups / name))
            os.utime(backups / name, (1_700_000_000 + number, 1_700_000_000 + number))
    write_at(backups / "torn.db", 4096, b"\xa5" * 8000)
    rows(backups / "foreign.db", "CREATE TABLE t (x)")
    write_at(path, 0, b"\0" * 100)
    error = await refused(path)
    assert error.extra["backup"] == str(backups / "new.db")
    assert str(backups / "new.db") in error.hint
    shutil.copy(backups / "new.db", path)
    assert await session_names(path) == ["old.db", "new.db"]


async def test_histories_are_no_good_backup(path: Path) -> None:
    """Histories are newer than every backup, and may be many: none of them is named as the backup to restore."""
    backups = path.parent / "backups"
    async with SessionManager.open(str(path)) as manager:
        os.mkdir(backups)
        await manager.backup(str(backups / "one.db"))
    os.utime(backups / "one.db", (1_700_000_000, 1_700_000_000))
    histories = [path.parent / "history.db", *(backups / f"{number}.history.db" for number in range(40))]
    open_writer(str(histories[0])).close()
    for other in histories[1:]:
        shutil.copy(histories[0], other)
    write_at(path, 0, b"\0" * 100)
    error = await refused(path)
    assert error.extra["backup"] == str(backups / "one.db")


async def test_second_corruption_overwrites_nothing(path: Path) -> None:
    """Two damaged databases in one second both stay."""
    for _ in range(2):
        async with SessionManager.open(str(path), start_empty=True):
            pass
        write_at(path, 0, b"\0" * 100)
        await refused(path)
    assert len([name for name in names(path.parent) if ".corrupt-" in name]) == 2


async def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Where a file stands in the way of the folder, the error names the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageReadOnly, match=r"file/sessions\.db"):
        await SessionManager.open(str(tmp_path / "file" / "sessions.db"))


async def test_restore_where_the_screen_of_one_cannot_be_taken_over(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the others are, the backup's screen of that one stays, and it is named."""
    backup = tmp_path / "backup.db"
    async with SessionManager.open(str(path)) as manager:
        made = [(await manager.create_session(LOCAL, name=name)).id for name in ("refused", "taken")]
        for each in made:
            await manager.start_program(each, cols=80, rows=24)
            await manager.save_snapshot(each, b"old", native_state=state_at(10))
        await manager.backup(str(backup))
        for each in made:
            await manager.save_snapshot(each, b"new", native_state=state_at(20))

    def add_but_one(target: sqlite3.Connection, head: Any, screen: Any) -> None:
        add_newest(target, head, screen)
        if head.session_id == made[0]:
            raise OSError("no room")

    monkeypatch.setattr("orbitd.store.backup.restore.add_newest", add_but_one)
    restored = restore(str(backup), str(path))
    assert (restored.carried_over, restored.not_carried_over) == (1, f"session {made[0]}: no room")
    async with SessionManager.open(str(path)) as manager:
        found = [await manager.load_latest_snapshot(each) for each in made]
        assert [one and one.terminal_buffer for one in found] == [b"old", b"new"]
        assert (await manager.check()).ok
