"""Damaged rows: one is left out, named and kept, and everything else is served as before."""

from __future__ import annotations

import itertools
import random
import sqlite3
import zlib
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orbit_protocol.errors import OrbitError, SnapshotCorrupt, StorageCorrupt
from orbit_protocol.types import Session, SessionConfig, SessionStatus, Workspace
from orbitd.manager import SessionManager
from orbitd.store.backup.copy import fingerprint_of
from orbitd.store.backup.daily import DailyBackups
from orbitd.store.backup.restore import inspect_backup
from store_support import GRID, LOCAL, files, read, rows

ALL: list[SessionStatus] = ["active", "detached", "terminated", "archived"]
NOT_UTF8 = "CAST(x'63e461' AS TEXT)"
DEEP = "'{\"layout_type\":\"x\",\"config\":' || replace(hex(zeroblob(50000)), '00', '[') || '}'"

# Column and SQL of what is planted there. The columns' types are not enforced (`plant`), as a flipped bit does not ask.
BAD_SESSIONS = [
    ("id", NOT_UTF8),
    ("id", "NULL"),
    ("id", "x'00'"),
    ("id", "'../../up'"),
    ("name", NOT_UTF8),
    ("name", "5"),
    ("session_type", "'lokal'"),
    ("created_at", "'yesterday'"),
    ("created_at", "9e999"),
    ("last_active", "NULL"),
    ("status", "'actjve'"),
    ("config", '\'{"session_type":"local",\''),
    ("config", "'{}'"),
    ("config", "'[1]'"),
    ("config", NOT_UTF8),
    ("config", "x'7b7d'"),
    ("config", "1.5"),
    ("config", DEEP),
    ("workspace_id", "x'01'"),
    ("program", "'{'"),
    ("program", "'{\"live\":true'"),
    ("program", NOT_UTF8),
    ("program", "'{\"live\":\"' || replace(hex(zeroblob(1000000)), '00', 'x') || '\"}'"),
    ("checksum", "'text'"),
    ("checksum", "1"),
]
BAD_WORKSPACES = [
    ("id", NOT_UTF8),
    ("id", "NULL"),
    ("name", NOT_UTF8),
    ("name", "NULL"),
    ("created_at", "0"),
    ("layout", "'{'"),
    ("layout", "'{\"layout_type\":1}'"),
    ("layout", DEEP),
    ("layout", NOT_UTF8),
    ("active_session_id", "7"),
    ("checksum", "2"),
]
BAD_SNAPSHOTS = [
    ("id", NOT_UTF8),
    ("session_id", NOT_UTF8),
    ("snapshot_at", "'never'"),
    ("snapshot_at", "'2001-01-01T00:00:00.000000Z'"),
    ("format", "'vs'"),
    ("cols", "81"),
    ("rows", "'x'"),
    ("cwd", "'/other'"),
    ("ordinal", "77"),
    ("keyframe", "1 - keyframe"),
    ("buffer_bytes", "3"),
    ("scrollback_bytes", "9e999"),
    ("native_bytes", "1"),
    ("raw_bytes", "NULL"),
    ("stored_bytes", "-1"),
    ("checksum", "zeroblob(20)"),
    ("checksum", "'text'"),
    ("terminal_buffer", "'text'"),
]


def plant(path: Path, table: str, seq: int, column: str, sql: str) -> None:
    """Write a value into a column of a row of a closed store, past types, rules and indexes, as a flipped bit does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        described = connection.execute("SELECT * FROM sqlite_schema WHERE tbl_name = ?", (table,)).fetchall()
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "seq"]
        bare = f"CREATE TABLE {table} (seq INTEGER PRIMARY KEY, {', '.join(columns)})"
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_schema WHERE tbl_name = ? AND type = 'index'", (table,))
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (bare, table))
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version = {version + 1}")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE {table} SET {column} = {sql} WHERE seq = ?", (seq,))
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_schema WHERE tbl_name = ?", (table,))
        connection.executemany("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", described)
        connection.execute(f"PRAGMA schema_version = {version + 2}")


async def fill(path: Path) -> None:
    """Make a store with sessions of each status, two workspaces, and three snapshots of a session."""
    async with SessionManager.open(path) as manager:
        first, second = [await manager.create_workspace(name, GRID) for name in ("one", "two")]
        for number in range(8):
            where = (first.id, second.id, None)[number % 3]
            config = SessionConfig(session_type="local", command=f"command {number}", workspace_id=where)
            session = await manager.create_session(config, name=f"n{number}")
            await manager.start_program(session.id, 80, 24)
            if number in (1, 5):
                await manager.end_program(session.id, "terminated", exit_code=0)
            if number == 1:
                await manager.archive_sessions(datetime.now(UTC))
            if number == 0:
                await manager.set_active_session(first.id, session.id)
            if number in (2, 3):
                for text in (b"first", b"second", b"third"):
                    await manager.save_snapshot(session.id, text * 100, b"above", cols=80, rows=24, cwd=b"/home")


async def contents(manager: SessionManager) -> tuple[dict[str, Session], dict[str, Workspace]]:
    """Return all that is listed, by id."""
    sessions = (await manager.list_sessions(status=ALL)).sessions
    assert [one for one in sessions if one.status in ("active", "detached")] == await manager.list_active_sessions()
    return {one.id: one for one in sessions}, {one.id: one for one in (await manager.list_workspaces()).workspaces}


@pytest.fixture
async def filled(path: Path) -> Path:
    """The path of a closed store that `fill` has made."""
    await fill(path)
    return path


@pytest.mark.parametrize(("column", "sql"), BAD_SESSIONS)
@pytest.mark.parametrize("unchecked", [False, True], ids=["checksum", "no checksum"])
async def test_a_damaged_session(filled: Path, column: str, sql: str, unchecked: bool) -> None:
    """It is left out of every list and named; all others are served, and deleting it by its id ends the warning."""
    ((seq, session_id),) = rows(filled, "SELECT seq, id FROM sessions WHERE name = 'n3'")
    async with SessionManager.open(filled) as manager:
        sessions, workspaces = await contents(manager)
    plant(filled, "sessions", seq, column, sql)
    if unchecked and column != "checksum":
        plant(filled, "sessions", seq, "checksum", "NULL")
    raw = rows(filled, "SELECT hex(id), hex(config), typeof(name) FROM sessions WHERE seq = ?", seq)
    async with SessionManager.open(filled) as manager:
        found, found_workspaces = await contents(manager)
        del sessions[session_id]
        assert found == sessions
        assert found_workspaces == workspaces
        assert session_id not in [one.id for one in await manager.list_interrupted()]
        assert (await manager.get_stats()).total_sessions == len(sessions)
        for call in (manager.get_session, manager.find_session, manager.detach_session):
            with pytest.raises(StorageCorrupt) as caught:
                await call(session_id)
            assert caught.value.extra["seq"] == seq
        await manager.archive_sessions(datetime.now(UTC))
        await manager.auto_save_sessions()
        await manager.cleanup_old_snapshots(1)
        await manager.backup(str(filled.parent / "copy.db"))
        report = await manager.check()
        assert not report.ok
        assert [text for text in report.rows if f"row {seq} of sessions" in text]
        assert len(report.rows) == 1
        (warning,) = [text for text in manager.damage_warnings() if "left out" in text]
        assert f"row {seq} of sessions" in warning
        assert "maintenance restore" in warning
        assert rows(filled, "SELECT hex(id), hex(config), typeof(name) FROM sessions WHERE seq = ?", seq) == raw
        await manager.delete_session(session_id)
        assert rows(filled, "SELECT 1 FROM sessions WHERE seq = ?", seq) == []
        assert (await manager.check()).ok
        assert manager.damage_warnings() == []


@pytest.mark.parametrize(("column", "sql"), BAD_SESSIONS)
async def test_a_damaged_archived_session(filled: Path, column: str, sql: str) -> None:
    """It is left out, named, not restored, and can be deleted by its id; the others of the archive are served."""
    ((seq, session_id),) = rows(filled, "SELECT seq, id FROM archived_sessions")
    async with SessionManager.open(filled) as manager:
        sessions, _ = await contents(manager)
    plant(filled, "archived_sessions", seq, column, sql)
    async with SessionManager.open(filled) as manager:
        del sessions[session_id]
        assert (await contents(manager))[0] == sessions
        with pytest.raises(StorageCorrupt):
            await manager.get_session(session_id)
        with pytest.raises(OrbitError):
            await manager.restore_archived_session(session_id)
        assert [text for text in (await manager.check()).rows if f"row {seq} of archived_sessions" in text]
        assert (await manager.get_stats()).archived_sessions == 0
        await manager.delete_session(session_id)
        assert rows(filled, "SELECT 1 FROM archived_sessions") == []
        assert (await manager.check()).rows == []


@pytest.mark.parametrize(("column", "sql"), BAD_WORKSPACES)
async def test_a_damaged_workspace(filled: Path, column: str, sql: str) -> None:
    """It is left out and named, its sessions are served, and deleting it by its id ends the warning."""
    ((seq, workspace_id),) = rows(filled, "SELECT seq, id FROM workspaces WHERE name = 'one'")
    async with SessionManager.open(filled) as manager:
        sessions, workspaces = await contents(manager)
    plant(filled, "workspaces", seq, column, sql)
    async with SessionManager.open(filled) as manager:
        del workspaces[workspace_id]
        assert await contents(manager) == (sessions, workspaces)
        assert (await manager.get_stats()).total_workspaces == len(workspaces)
        assert [text for text in manager.damage_warnings() if f"row {seq} of workspaces" in text]
        assert [text for text in (await manager.check()).rows if f"row {seq} of workspaces" in text]
        member = next(one for one in sessions.values() if one.workspace_id == workspace_id and one.status == "detached")
        with pytest.raises(OrbitError):
            await manager.rename_workspace(workspace_id, "other")
        await manager.move_session(member.id, None)
        if column != "id":
            with pytest.raises(StorageCorrupt):
                await manager.get_workspace(workspace_id)
        await manager.delete_workspace(workspace_id)
        assert {one.id for one in (await manager.list_sessions(status=ALL)).sessions} == set(sessions)
        report = await manager.check()
        assert (report.rows, report.integrity, manager.damage_warnings()) == ([], [], [])


@pytest.mark.parametrize("which", [0, 1, 2], ids=["oldest", "middle", "newest"])
@pytest.mark.parametrize(("column", "sql"), BAD_SNAPSHOTS)
async def test_a_damaged_snapshot(filled: Path, column: str, sql: str, which: int) -> None:
    """It is 1101 or left out, and named; the others are served as before, and new ones can be saved and deleted."""
    (session_id,) = rows(filled, "SELECT id FROM sessions WHERE name = 'n2'")[0]
    ids = rows(filled, "SELECT seq, id FROM session_snapshots WHERE session_id = ? ORDER BY seq", session_id)
    async with SessionManager.open(filled) as manager:
        before = {one: await manager.get_screen(one) for _, one in ids}
        infos = {info.id: info for info in (await manager.list_snapshots(session_id)).snapshots}
    seq, damaged = ids[which]
    plant(filled, "session_snapshots", seq, column, sql)
    in_head = column != "terminal_buffer"  # a list does not read the bytes
    async with SessionManager.open(filled) as manager:
        if column != "session_id":
            listed = {info.id: info for info in (await manager.list_snapshots(session_id)).snapshots}
            assert listed == {one: info for one, info in infos.items() if one != damaged or not in_head}
        with pytest.raises(SnapshotCorrupt) as caught:
            await manager.get_screen(damaged)
        older = caught.value.extra["good_snapshot_id"]
        assert older in (None, *(one for _, one in ids[:which]))
        for _, one in ids:
            if one != damaged:
                try:
                    assert await manager.get_screen(one) == before[one]
                except SnapshotCorrupt:  # an older one, whose bytes need those of the damaged one
                    assert column in ("terminal_buffer", "checksum")
                    assert one in [each for _, each in ids[:which]]
        report = await manager.check()
        named = [text for text in report.rows if f"row {seq} of session_snapshots" in text]
        assert bool(named) == in_head
        assert not report.ok
        assert manager.damage_warnings()
        await manager.save_snapshot(session_id, b"newer", cols=80, rows=24)
        await manager.cleanup_old_snapshots(10)
        await manager.delete_snapshot(damaged)
        assert rows(filled, "SELECT 1 FROM session_snapshots WHERE seq = ?", seq) == []
        latest = await manager.load_latest_snapshot(session_id)
        assert latest is not None
        assert latest.terminal_buffer == b"newer"
        assert (await manager.check()).rows == []


def record_of(path: Path, table: str, seq: int) -> tuple[int, int]:
    """Return where a row's record is in the file: its header, its columns up to the checksum, and that one."""
    (row,) = rows(path, f"SELECT * FROM {table} WHERE seq = ?", seq)
    # The checksum and what is behind it, NULL here, are the only columns that are no texts.
    body = b"".join(value.encode() for value in row[1:] if isinstance(value, str))
    header = 2 * len(row)  # at most: a varint of one or two bytes for each column, and one of the header's length
    content = path.read_bytes()
    place = content.find(body)
    assert place > 0
    assert content.find(body, place + 1) < 0
    return place - header // 2, place + len(body) + 4


def write_flipped(path: Path, content: bytes, place: int, bit: int) -> None:
    """Write a file with one bit of it flipped."""
    path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])


@pytest.mark.parametrize("seed", range(20))
async def test_flipped_bits_in_rows(filled: Path, seed: int) -> None:
    """Of each of many flips, alone, nothing shows but the row itself: as before, or left out and named."""
    chance = random.Random(seed)
    async with SessionManager.open(filled) as manager:
        before = await contents(manager)
    found = [("sessions", seq) for (seq,) in rows(filled, "SELECT seq FROM sessions")]
    found += [("archived_sessions", seq) for (seq,) in rows(filled, "SELECT seq FROM archived_sessions")]
    found += [("workspaces", seq) for (seq,) in rows(filled, "SELECT seq FROM workspaces")]
    places = [(table, seq, *record_of(filled, table, seq)) for table, seq in found]
    good = read(filled)
    for _ in range(15):
        table, seq, first, last = chance.choice(places)
        write_flipped(filled, good, chance.randrange(first, last), chance.randrange(8))
        async with SessionManager.open(filled) as manager:
            after = await contents(manager)
            report = await manager.check()
            named = [text for text in report.rows if f"row {seq} of {table}" in text]
            for kind, kept in zip(before, after, strict=True):
                assert all(kept[one] == kind[one] for one in kept)
            missing = sum(map(len, before)) - sum(map(len, after))
            assert missing == len(named) <= 1
            assert bool(named) <= bool(manager.damage_warnings())


async def test_pages_around_damaged_rows(filled: Path) -> None:
    """Pages are as long as without the damage, and none is taken for the last one too early."""
    async with SessionManager.open(filled) as manager:
        sessions = [one.id for one in (await manager.list_sessions(status=ALL)).sessions]
        (with_three,) = rows(filled, "SELECT id FROM sessions WHERE name = 'n2'")[0]
        snapshots = [one.id for one in (await manager.list_snapshots(with_three)).snapshots]
    for name in ("n2", "n3", "n6"):
        ((seq, session_id),) = rows(filled, "SELECT seq, id FROM sessions WHERE name = ?", name)
        plant(filled, "sessions", seq, "name", NOT_UTF8)
        sessions.remove(session_id)
    ((middle,),) = rows(filled, "SELECT seq FROM session_snapshots WHERE id = ?", snapshots.pop(1))
    plant(filled, "session_snapshots", middle, "cols", "5")
    async with SessionManager.open(filled) as manager:
        assert await paged(lambda at: manager.list_sessions(status=ALL, limit=1, cursor=at), "sessions") == sessions
        assert await paged(lambda at: manager.list_sessions(status=ALL, limit=2, cursor=at), "sessions") == sessions
        assert await paged(lambda at: manager.list_snapshots(with_three, limit=1, cursor=at), "snapshots") == snapshots


async def paged(fetch: Callable[[str | None], Awaitable[Any]], field: str) -> list[str]:
    """Return the ids of all pages."""
    page = await fetch(None)
    found = [one.id for one in getattr(page, field)]
    while page.next_cursor is not None:
        page = await fetch(page.next_cursor)
        found += [one.id for one in getattr(page, field)]
    return found


async def test_a_row_that_is_repaired_is_served_again(filled: Path) -> None:
    """Once a damaged row is as it was, it is listed and no longer named, without a restart."""
    ((seq, session_id),) = rows(filled, "SELECT seq, id FROM sessions WHERE name = 'n3'")
    plant(filled, "sessions", seq, "config", "'{' || config")
    async with SessionManager.open(filled) as manager:
        before = len(await manager.list_active_sessions())
        assert manager.damage_warnings()
        rows(filled, "UPDATE sessions SET config = substr(config, 2) WHERE seq = ?", seq)
        await manager.watch()
        assert manager.damage_warnings() == []
        assert (await manager.rename_session(session_id, "again")).name == "again"
        assert [one.id for one in await manager.list_active_sessions()].count(session_id) == 1
        assert len(await manager.list_active_sessions()) == before + 1


async def test_what_is_shown_as_the_id_of_a_damaged_row_deletes_it(filled: Path) -> None:
    """A row whose id is damaged is found by what is shown for it, and its snapshots go with it."""
    ((seq, _),) = rows(filled, "SELECT seq, id FROM sessions WHERE name = 'n3'")
    plant(filled, "sessions", seq, "id", NOT_UTF8)
    async with SessionManager.open(filled) as manager:
        with pytest.raises(StorageCorrupt) as caught:
            await manager.find_session("c\\xe4a")
        assert caught.value.extra == {"table": "sessions", "seq": seq, "id": "c\\xe4a"}
        assert "session.delete" in caught.value.hint
        await manager.delete_session("c\\xe4a")
        assert (await manager.check()).ok
        assert manager.damage_warnings() == []


async def test_times_and_numbers_of_the_store_itself(filled: Path) -> None:
    """Damage in `meta` or in the numbers of AUTOINCREMENT keeps neither a store from opening nor a session away."""
    rows(filled, f"INSERT OR REPLACE INTO meta VALUES ('last_auto_save_at', {NOT_UTF8})")
    rows(filled, "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'sessions'")
    rows(filled, "UPDATE sqlite_sequence SET seq = 'text' WHERE name = 'session_snapshots'")
    async with SessionManager.open(filled) as manager:
        assert (await manager.get_stats()).last_auto_save_at is None
        session = await manager.create_session(LOCAL)
        await manager.save_snapshot(session.id, b"x")
        assert (await manager.list_sessions(status=ALL)).sessions[-1] == await manager.get_session(session.id)


UNFILL = "UPDATE {table} SET checksum = NULL"


async def test_errors_of_damaged_rows_do_not_grow(filled: Path) -> None:
    """A damaged row is answered with a new error each time: one raised again keeps all frames of before."""
    ((seq, row_id),) = rows(filled, "SELECT seq, id FROM workspaces LIMIT 1")
    plant(filled, "workspaces", seq, "created_at", "'yesterday'")
    lengths = set()
    async with SessionManager.open(filled) as manager:
        for _ in range(3):
            with pytest.raises(StorageCorrupt, match=row_id) as caught:
                await manager.get_workspace(row_id)
            lengths.add(len(caught.traceback))
    assert len(lengths) == 1


async def test_old_rows_get_their_checksums(filled: Path) -> None:
    """Rows without a checksum get it in the background, but for damaged ones; after that nothing is written."""
    expected = checksums(filled)
    for table in ("sessions", "archived_sessions", "workspaces"):
        rows(filled, UNFILL.format(table=table))
    ((seq,),) = rows(filled, "SELECT seq FROM sessions WHERE name = 'n3'")
    plant(filled, "sessions", seq, "config", "'{}'")
    expected[("sessions", seq)] = None
    async with SessionManager.open(filled) as manager:
        await manager.verify_rows()
        assert checksums(filled) == expected
        assert len(manager.damage_warnings()) == 1
        before = files(filled.parent)
        await manager.verify_rows()
        assert files(filled.parent) == before


async def test_old_names_become_nfc(filled: Path) -> None:
    """A name that is not in NFC becomes so, unless that is taken: then it stays, and is named until it is changed."""
    decomposed = "e\u0301"
    async with SessionManager.open(filled) as manager:
        one = await manager.create_session(LOCAL, name="x1")
        taken = await manager.create_session(LOCAL, name="x2")
        await manager.create_session(LOCAL, name="\u00e9")
        ended = await manager.create_session(LOCAL, name="x3")
        await manager.terminate_session(ended.id)
        place = await manager.create_workspace("x4", GRID)
    for table, name, new in (
        ("sessions", "x1", decomposed * 2),
        ("sessions", "x2", decomposed),
        ("sessions", "x3", decomposed),
        ("workspaces", "x4", decomposed),
    ):
        rows(filled, f"UPDATE {table} SET name = ?, checksum = NULL WHERE name = ?", new, name)
    async with SessionManager.open(filled) as manager:
        await manager.verify_rows()
        assert (await manager.find_session("\u00e9\u00e9")).id == one.id
        assert (await manager.get_session(ended.id)).name == "\u00e9"
        assert (await manager.find_workspace("\u00e9")).id == place.id
        assert (await manager.get_session(taken.id)).name == decomposed
        (warning,) = manager.damage_warnings()
        assert taken.id in warning
        assert not manager.has_damage()  # which would keep every backup
        await manager.rename_session(taken.id, "other")
        assert manager.damage_warnings() == []
        assert None not in checksums(filled).values()
        assert (await manager.check()).ok


def checksums(path: Path) -> dict[tuple[str, int], int | None]:
    """Return every row's checksum."""
    return {
        (table, seq): checksum
        for table in ("sessions", "archived_sessions", "workspaces")
        for seq, checksum in rows(path, f"SELECT seq, checksum FROM {table}")
    }


def break_record(path: Path, table: str, seq: int) -> None:
    """Change a bit in the head of a row's record so that SQLite refuses to decode it."""
    first, _ = record_of(path, table, seq)
    good = path.read_bytes()
    for place, bit in itertools.product(range(first, first + 16), range(8)):
        write_flipped(path, good, place, bit)
        try:
            rows(path, f"SELECT * FROM {table} WHERE seq = ?", seq)
        except sqlite3.DatabaseError:
            if len(rows(path, f"SELECT seq FROM {table} NOT INDEXED")) > 1:
                return
    raise AssertionError("every change can be decoded")


@pytest.mark.parametrize(("table", "name"), [("sessions", "n3"), ("sessions", "n5"), ("workspaces", "one")])
async def test_a_record_that_sqlite_refuses(filled: Path, table: str, name: str) -> None:
    """It fails no query for the other rows: all is listed, maintained and backed up, and the row is named by its id."""
    ((seq, row_id),) = rows(filled, f"SELECT seq, id FROM {table} WHERE name = ?", name)
    async with SessionManager.open(filled) as manager:
        sessions, workspaces = await contents(manager)
    break_record(filled, table, seq)
    async with SessionManager.open(filled) as manager:
        for known in (sessions, workspaces):
            known.pop(row_id, None)
        assert await contents(manager) == (sessions, workspaces)
        assert {one.id for one in await manager.list_interrupted()} <= set(sessions)
        with pytest.raises(StorageCorrupt) as caught:
            await (manager.get_session if table == "sessions" else manager.get_workspace)(row_id)
        assert caught.value.extra == {"table": table, "seq": seq, "id": row_id}
        with pytest.raises(StorageCorrupt):
            await (manager.rename_session if table == "sessions" else manager.rename_workspace)(row_id, "new")
        await manager.verify_rows()
        await manager.archive_sessions(datetime.now(UTC))
        await manager.backup(str(filled.parent / "copy.db"))
        assert await manager.fingerprint() == fingerprint_of(str(filled.parent / "copy.db"))
        (sentence,) = (await manager.check()).rows
        assert row_id in sentence
        assert [text for text in manager.damage_warnings() if row_id in text]


async def test_a_snapshot_whose_record_sqlite_refuses(filled: Path) -> None:
    """It is 1101 with an older good one; the others are listed, and new ones can be saved."""
    (session_id,) = rows(filled, "SELECT id FROM sessions WHERE name = 'n2'")[0]
    async with SessionManager.open(filled) as manager:
        infos = (await manager.list_snapshots(session_id)).snapshots
    ((seq,),) = rows(filled, "SELECT seq FROM session_snapshots WHERE id = ?", infos[0].id)
    good = read(filled)
    record = good.index(f"{infos[0].id}{session_id}".encode())
    for place in range(record - 20, record):  # the head of its record
        write_flipped(filled, good, place, 7)
        try:
            rows(filled, "SELECT * FROM session_snapshots WHERE seq = ?", seq)
        except sqlite3.DatabaseError:
            break
    async with SessionManager.open(filled) as manager:
        for load in (manager.load_latest_snapshot(session_id), manager.get_snapshot(infos[0].id)):
            with pytest.raises(SnapshotCorrupt) as caught:
                await load
            assert infos[0].id in caught.value.message
        assert (await manager.list_snapshots(session_id)).snapshots == infos[1:]
        await manager.save_snapshot(session_id, b"newer")
        latest = await manager.load_latest_snapshot(session_id)
        assert latest is not None
        assert latest.terminal_buffer == b"newer"
        report = await manager.check()
        assert [text for text in report.rows if infos[0].id in text]


async def test_findings_of_a_check_stay_until_the_next(filled: Path) -> None:
    """An index that hides a row is found by a check, which the warnings show until a check finds it mended."""
    (row,) = rows(filled, "SELECT * FROM sessions WHERE name = 'n3'")
    values = [*row[:2], "hidden", *row[3:10]]
    async with SessionManager.open(filled) as manager:  # before it: a start builds such an index again
        plant(filled, "sessions", row[0], "name", "'hidden'")
        plant(filled, "sessions", row[0], "checksum", str(zlib.crc32(msgspec.msgpack.encode(values))))
        assert manager.damage_warnings() == []
        report = await manager.check()
        assert (report.ok, report.rows) == (False, [])
        (warning,) = manager.damage_warnings()
        assert "idx_sessions_name" in warning
        assert "orbitctl maintenance check" in warning
        rows(filled, "REINDEX sessions")
        assert (await manager.check()).ok
        assert manager.damage_warnings() == []


async def test_a_session_is_changed_although_an_index_entry_does_not_fit(filled: Path) -> None:
    """A row that is good is written and deleted whatever its index says, and the index is made again from the rows."""
    (row,) = rows(filled, "SELECT * FROM sessions WHERE name = 'n3'")
    values = [*row[:2], "hidden", *row[3:10]]
    async with SessionManager.open(filled) as manager:  # before it: a start builds such an index again
        plant(filled, "sessions", row[0], "name", "'hidden'")
        plant(filled, "sessions", row[0], "checksum", str(zlib.crc32(msgspec.msgpack.encode(values))))
        assert (await manager.rename_session(row[1], "shown")).name == "shown"
        assert (await manager.find_session("shown")).id == row[1]
        assert (await manager.check()).ok
        await manager.delete_session(row[1])
        assert (await manager.check()).ok


@pytest.mark.parametrize("kind", ["record", "type", "checksum"])
async def test_backups_go_on_and_none_is_deleted(filled: Path, kind: str) -> None:
    """Beside a damaged row they are made each day, can be restored, and the one from before the damage is kept."""
    ((seq,),) = rows(filled, "SELECT seq FROM sessions WHERE name = 'n3'")
    if kind == "record":
        break_record(filled, "sessions", seq)
    else:
        plant(filled, "sessions", seq, "config" if kind == "type" else "checksum", "x'00'" if kind == "type" else "3")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    folder = filled.parent / "backups"
    async with SessionManager.open(filled) as manager:
        backups = DailyBackups(manager, 1, now=lambda: moment)
        for day in range(3):
            moment = datetime(2026, 1, 1 + day, tzinfo=UTC)
            await manager.create_session(LOCAL)
            await backups.run()
        made = sorted(folder.iterdir())
        assert len(made) == 3
        assert inspect_backup(str(made[-1])).sessions > 3
        session_id = rows(filled, "SELECT id FROM sessions WHERE seq = ?", seq) if kind != "record" else []
        if session_id:
            await manager.delete_session(session_id[0][0])
            moment = datetime(2026, 1, 4, tzinfo=UTC)
            await backups.run()
            assert len(list(folder.iterdir())) == 1
