"""The trash: what is in it is nowhere else, comes back as it was, and goes after a while or on a full disk."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orbit_protocol.errors import (
    InvalidParams,
    NameTaken,
    SessionNotFound,
    SnapshotNotFound,
    StorageCorrupt,
    StorageFull,
)
from orbit_protocol.types import Session, SessionConfig, SessionStatus
from orbitd.manager import SessionManager
from orbitd.store import damage, maintenance, sessions, snapshots
from orbitd.store.cache import Change
from orbitd.store.files import RESERVE_BYTES
from store_support import GRID, LOCAL, UNKNOWN, exists, rows, size

ALL: list[SessionStatus] = ["active", "detached", "terminated", "archived"]
RESERVE = "sessions.db.reserve"


async def session_of(manager: SessionManager, status: str, name: str | None = "x", snapshots: int = 3) -> Session:
    """Record a session of this status with snapshots, `0`, `1`, ... ."""
    session = await manager.create_session(LOCAL, name=name)
    for number in range(snapshots):
        await manager.save_snapshot(session.id, b"%d" % number)
    if status in ("detached", "terminated"):
        await manager.update_session_status(session.id, status)  # type: ignore[arg-type]
    elif status == "archived":
        await manager.terminate_session(session.id)
        await manager.archive_sessions(datetime.now(UTC))
    return await manager.get_session(session.id)


async def deleted_ids(manager: SessionManager) -> list[str]:
    return [one.id for one in (await manager.list_deleted_sessions()).sessions]


@pytest.mark.parametrize("status", ALL)
async def test_what_is_in_the_trash_is_nowhere_else(path: Path, manager: SessionManager, status: str) -> None:
    """It is out of every list, look-up and count, its name is free at once, and it comes back as it was."""
    session = await session_of(manager, status)
    ids = [snapshot for (snapshot,) in rows(path, "SELECT id FROM session_snapshots ORDER BY seq")]
    empty = await manager.get_stats()
    assert await manager.trash_session(session.id)
    for refused in (
        manager.get_session(session.id),
        manager.find_session(session.id),
        manager.find_session(session.id[:8]),
        manager.find_session("x"),
        manager.list_snapshots(session.id),
        manager.load_latest_snapshot(session.id),
        manager.save_snapshot(session.id, b"more"),
        manager.rename_session(session.id, "y"),
        manager.restore_archived_session(session.id),
        manager.trash_session(session.id),
    ):
        with pytest.raises(SessionNotFound):
            await refused
    for each in ids:
        for refused in (manager.get_snapshot(each), manager.delete_snapshot(each)):
            with pytest.raises(SnapshotNotFound):
                await refused
    assert (await manager.list_sessions(status=ALL)).sessions == []
    stats = await manager.get_stats()
    assert (stats.total_sessions, stats.total_snapshots, stats.snapshot_raw_bytes, stats.deleted_sessions) == (
        0,
    ) * 3 + (1,)
    assert await manager.cleanup_old_snapshots(1) == 0
    assert await manager.archive_sessions(datetime.now(UTC)) == 0
    assert (await manager.check()).ok
    await manager.delete_session((await manager.create_session(LOCAL, name="x")).id)
    (shown,) = (await manager.list_deleted_sessions()).sessions
    assert shown.deleted_at is not None
    await manager.close()
    async with SessionManager.open(path) as again:
        assert (await again.list_sessions(status=ALL)).sessions == []
        assert await deleted_ids(again) == [session.id]
        assert await again.undelete_session(session.id) == session
        assert (await again.list_sessions(status=ALL)).sessions == [session]
        assert await again.find_session("x") == session
        assert (await again.get_stats()).total_snapshots == empty.total_snapshots
        if status != "archived":
            latest = await again.load_latest_snapshot(session.id)
            assert latest is not None
            assert latest.terminal_buffer == b"2"


async def test_a_running_session_comes_back_as_ended(manager: SessionManager) -> None:
    """Its program was ended for the deletion, whatever the store knows of that; what was touched last is kept."""
    session = await session_of(manager, "active")
    await manager.start_program(session.id, 80, 24)
    touched = await manager.touch_session(session.id)
    await manager.trash_session(session.id)
    back = await manager.undelete_session(session.id)
    assert (back.status, back.live, back.last_active) == ("terminated", False, touched.last_active)


async def test_undelete_is_refused_where_the_name_is_taken(manager: SessionManager) -> None:
    """A session that has not ended has it: 1001 with its id; once that is renamed, the deleted one comes back."""
    for status in ("active", "terminated"):
        session = await session_of(manager, status)
        await manager.trash_session(session.id)
        other = await manager.create_session(LOCAL, name="x")
        with pytest.raises(NameTaken) as caught:
            await manager.undelete_session(session.id)
        assert caught.value.extra == {"id": other.id}
        await manager.rename_session(other.id, None)
        assert (await manager.undelete_session(session.id)).name == "x"
        await manager.rename_session(session.id, None)
    for nobody in (UNKNOWN, session.id):
        with pytest.raises(SessionNotFound):
            await manager.undelete_session(nobody)


@pytest.mark.parametrize("first", ["session", "workspace"])
async def test_a_workspace_that_is_gone_is_left(path: Path, manager: SessionManager, first: str) -> None:
    """A session is in no workspace when it comes back after its workspace was deleted, before it or with it.

    Either way room is kept for emptying the trash.
    """
    workspace = await manager.create_workspace("w", GRID)
    session = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id))
    await manager.set_active_session(workspace.id, session.id)
    if first == "session":
        await manager.trash_session(session.id)
        assert (await manager.get_workspace(workspace.id)).active_session_id is None
        assert (await manager.undelete_session(session.id)).workspace_id == workspace.id
        await manager.trash_session(session.id)
    await manager.delete_workspace(workspace.id, delete_sessions=True, purge=False)
    assert exists(path.parent / RESERVE)
    with pytest.raises(SessionNotFound):
        await manager.get_session(session.id)
    back = await manager.undelete_session(session.id)
    assert (back.workspace_id, back.config.workspace_id) == (None, None)
    assert (await manager.check()).ok


async def test_a_snapshot_is_looked_up_alone(path: Path, manager: SessionManager) -> None:
    """However much is in the trash, whether a snapshot belongs to it is read from its own session's row."""
    await session_of(manager, "active")
    plan = str(rows(path, f"EXPLAIN QUERY PLAN {snapshots._IN_TRASH.replace('?', '1')}"))
    assert "INTEGER PRIMARY KEY (rowid=?)" in plan
    assert "SCAN" not in plan
    assert "deleted_at" not in plan


async def test_pages_of_the_trash(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was deleted last comes first, archived ones among them; each once, also if two have one time."""
    made = [await session_of(manager, ("active", "archived")[number % 2], None) for number in range(6)]
    order = [made[number] for number in (3, 0, 5, 2, 4, 1)]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(sessions, "now", lambda: moment)
    for number, session in enumerate(order):
        moment += timedelta(seconds=number % 2)
        await manager.trash_session(session.id)
    found: list[str] = []
    times: list[datetime | None] = []
    cursor = None
    while True:
        page = await manager.list_deleted_sessions(limit=2, cursor=cursor)
        found += [one.id for one in page.sessions]
        times += [one.deleted_at for one in page.sessions]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(found) == sorted(one.id for one in made)
    assert times == sorted(times, reverse=True)  # type: ignore[type-var]
    assert found == await deleted_ids(manager)
    for bad in ("1", "2026-01-01T00:00:00.000000Z", "x-1"):
        with pytest.raises(InvalidParams):
            await manager.list_deleted_sessions(cursor=bad)


async def test_others_are_served_while_the_trash_is_listed(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of the trash, which may be of ten thousand sessions, is decoded some of them at a time."""
    for _ in range(7):
        await manager.trash_session((await manager.create_session(LOCAL)).id)
    monkeypatch.setattr(damage, "_CHUNK", 2)
    fetch, turns, is_over = manager._store.fetch, 0, False

    async def fetched(*arguments: Any) -> Any:
        found = await fetch(*arguments)
        asyncio.get_running_loop().call_soon(count)
        return found

    def count() -> None:
        nonlocal turns
        turns += 1
        if not is_over:
            asyncio.get_running_loop().call_soon(count)

    monkeypatch.setattr(manager._store, "fetch", fetched)
    assert len((await manager.list_deleted_sessions()).sessions) == 7
    is_over = True
    assert turns >= 3


async def test_a_deletion_writes_one_row_and_its_event(manager: SessionManager) -> None:
    """However many snapshots a session has, putting it into the trash and taking it out writes its row and an event."""
    session = await session_of(manager, "terminated", snapshots=40)

    async def rows_changed(work: Callable[[], Any]) -> int:
        async def total() -> int:
            return await manager._store.writer.run(lambda connection: connection.total_changes, lambda count: count)

        before = await total()
        await work()
        return await total() - before

    assert await rows_changed(lambda: manager.trash_session(session.id)) == 2
    assert await rows_changed(lambda: manager.undelete_session(session.id)) == 2


async def test_what_has_been_in_the_trash_for_long_is_purged(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone with its snapshots, and noted so that its files go; what was deleted since, or taken out, stays."""
    monkeypatch.setattr(maintenance, "_DELETED_AT_ONCE", 2)
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    old, archived, back, new = [
        await session_of(manager, status, None, 5) for status in ("active", "archived", "terminated", "active")
    ]
    moment = datetime.now(UTC) - timedelta(days=8)
    monkeypatch.setattr(sessions, "now", lambda: moment)
    for one in (old, archived, back):
        await manager.trash_session(one.id)
    moment = datetime.now(UTC) - timedelta(days=6)
    await manager.trash_session(new.id)
    await manager.undelete_session(back.id)
    purged: list[bool] = []
    manager.on_purged = lambda: purged.append(True)
    assert await manager.purge_expired(7 * 86_400) == 2
    assert (await deleted_ids(manager), purged) == ([new.id], [True])
    assert sorted(await manager.list_purged()) == sorted([old.id, archived.id])
    owners = rows(path, "SELECT session_id FROM session_snapshots UNION SELECT session_id FROM archived_snapshots")
    assert sorted(owners) == sorted([(back.id,), (new.id,)])
    await manager.forget_purged([old.id, archived.id])
    assert await manager.list_purged() == []
    assert await manager.purge_expired(0) == 1
    assert (await manager.check()).ok


async def test_a_clock_that_was_ahead_keeps_nothing_for_ever(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted in the future, as the clock tells now, is as old as what is deleted now."""
    session = await session_of(manager, "active")
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "now", lambda: datetime(2099, 1, 1, tzinfo=UTC))
        await manager.trash_session(session.id)
    assert await manager.purge_expired(60) == 0
    (shown,) = (await manager.list_deleted_sessions()).sessions
    assert shown.deleted_at is not None
    assert shown.deleted_at <= datetime.now(UTC)
    assert await manager.purge_expired(0) == 1


async def test_a_purge_that_is_stopped_goes_on_later(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice is all or nothing: what is left of a session in between can still be taken out of the trash."""
    monkeypatch.setattr(maintenance, "_DELETED_AT_ONCE", 2)
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    session = await session_of(manager, "terminated", snapshots=5)
    await manager.trash_session(session.id)
    write_once, slices = manager._store.write_once, 2

    async def write(work: Callable[[Any], Change[Any]]) -> Any:
        nonlocal slices
        slices -= 1
        if slices < 0:
            raise asyncio.CancelledError
        return await write_once(work)

    with monkeypatch.context() as patched:
        patched.setattr(manager._store, "write_once", write)
        with pytest.raises(asyncio.CancelledError):
            await manager.purge_deleted()
    await manager.close()
    async with SessionManager.open(path) as again:
        assert (await again.undelete_session(session.id)).id == session.id
        latest = await again.load_latest_snapshot(session.id)
        assert latest is not None
        assert latest.terminal_buffer == b"4"
        await again.trash_session(session.id)
        assert await again.purge_deleted() == 1
        assert rows(path, "SELECT 1 FROM session_snapshots") == []


@pytest.mark.parametrize(("column", "value"), [("deleted_at", "'never'"), ("labels", "'{'"), ("deleted_at", "NULL")])
async def test_a_damaged_row_in_the_trash_is_contained(
    path: Path, manager: SessionManager, column: str, value: str
) -> None:
    """It is named and kept as it is, and a deletion by its id removes it; the others are listed, and purged."""
    bad, good = [await session_of(manager, "active", name) for name in ("bad", "good")]
    for one in (bad, good):
        await manager.trash_session(one.id)
    await manager.close()
    rows(path, f"UPDATE sessions SET {column} = {value} WHERE id = ?", bad.id)
    async with SessionManager.open(path) as again:
        assert await deleted_ids(again) == [good.id]
        with pytest.raises((StorageCorrupt, SessionNotFound)):
            await again.get_session(bad.id)
        with pytest.raises(StorageCorrupt):
            await again.undelete_session(bad.id)
        assert await again.purge_deleted() == 1
        assert rows(path, "SELECT id FROM sessions") == [(bad.id,)]
        assert bad.id in "".join((await again.check()).rows)
        await again.delete_session(bad.id)
        assert rows(path, "SELECT 1 FROM sessions UNION ALL SELECT 1 FROM session_snapshots") == []
        assert (await again.check()).ok


@pytest.mark.parametrize("status", ["detached", "archived"])
async def test_a_program_of_a_session_in_the_trash_is_its_again(manager: SessionManager, status: str) -> None:
    """Where an older database is restored, in which a session was in the trash, its program is recorded for it."""
    session = await session_of(manager, status)
    await manager.trash_session(session.id)
    other = await manager.create_session(LOCAL, name="x")
    found = await manager.record_lost_session(session.id, session.created_at)
    assert (found.id, found.name, found.status, found.live) == (session.id, None, "detached", True)
    latest = await manager.load_latest_snapshot(session.id)
    assert latest is not None
    assert latest.terminal_buffer == b"2"
    assert [one.id for one in await manager.list_active_sessions()] == [session.id, other.id]
    assert (await manager.check()).ok


async def test_one_without_room_for_a_write_empties_the_trash(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several calls that fail at once empty it once, and are tried once more; with an empty trash 1900 is answered."""
    session, kept = await session_of(manager, "active"), await manager.create_session(LOCAL)
    shutil.copyfile(os.devnull, path.parent / RESERVE)  # as a kill leaves it that comes before it is filled
    await manager.trash_session(session.id)
    assert size(path.parent / RESERVE) == RESERVE_BYTES
    run, full, emptied = manager._store.writer.run, 3, 0

    async def without_room(*arguments: Any, **options: Any) -> Any:
        nonlocal full
        if full and asyncio.current_task() in callers:
            full -= 1
            raise StorageFull("no room")
        return await run(*arguments, **options)

    def count() -> None:
        nonlocal emptied
        emptied += 1

    monkeypatch.setattr(manager._store.writer, "run", without_room)
    manager.on_purged = count
    callers = {asyncio.create_task(manager.rename_session(kept.id, f"n{number}")) for number in range(3)}
    assert {one.name for one in await asyncio.gather(*callers)} == {"n0", "n1", "n2"}
    assert (await deleted_ids(manager), emptied) == ([], 1)
    assert not exists(path.parent / RESERVE)
    full, callers = 1, {asyncio.create_task(manager.rename_session(kept.id, "again"))}
    with pytest.raises(StorageFull):
        await asyncio.gather(*callers)


@pytest.mark.parametrize("status", ["active", "archived"])
async def test_a_session_with_many_snapshots_is_deleted_in_pieces(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """No transaction deletes more than some of them, so that others write in between; the session goes last."""
    session, other = await session_of(manager, status, snapshots=11), await session_of(manager, "active", None)
    monkeypatch.setattr(sessions, "_DELETED_AT_ONCE", 4)
    run, left = manager._store.writer.run, []
    count = "SELECT (SELECT count(*) FROM session_snapshots) + (SELECT count(*) FROM archived_snapshots)"

    async def counted(*arguments: Any, **options: Any) -> Any:
        result = await run(*arguments, **options)
        left.append((*rows(path, count)[0], len(rows(path, "SELECT id FROM sessions"))))
        return result

    monkeypatch.setattr(manager._store.writer, "run", counted)
    await manager.delete_session(session.id)
    remaining = 2 if status == "active" else 1
    steps = dict.fromkeys(left)  # events are deleted in pieces, too
    assert list(steps) == list(dict.fromkeys([(10, remaining), (6, remaining), (3, remaining), (3, 1)]))
    assert (await manager.load_latest_snapshot(other.id)) is not None
    with pytest.raises(SessionNotFound):
        await manager.delete_session(session.id)


async def test_a_session_is_taken_out_of_the_trash_on_a_full_disk(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the room that is kept for that, and neither it nor what else is in the trash is purged for it."""
    wanted, other = [await session_of(manager, "terminated", None) for _ in range(2)]
    for one in (wanted, other):
        await manager.trash_session(one.id)
    run = manager._store.writer.run

    async def without_room(*arguments: Any, **options: Any) -> Any:
        if exists(path.parent / RESERVE):
            raise StorageFull("no room")
        return await run(*arguments, **options)

    monkeypatch.setattr(manager._store.writer, "run", without_room)
    assert await manager.undelete_session(wanted.id) == wanted
    assert await deleted_ids(manager) == [other.id]
    latest = await manager.load_latest_snapshot(wanted.id)
    assert latest is not None
    assert latest.terminal_buffer == b"2"


async def test_what_deleted_itself_and_was_taken_back_stays(manager: SessionManager) -> None:
    """No later daemon puts it into the trash once more."""
    session = await manager.create_session(SessionConfig(session_type="local", auto_remove=True))
    await manager.start_program(session.id, 80, 24)
    await manager.end_program(session.id, "terminated", 0)
    assert await manager.list_ended_to_remove() == [session.id]
    await manager.trash_session(session.id)
    assert not (await manager.undelete_session(session.id)).config.auto_remove
    assert await manager.list_ended_to_remove() == []


async def test_what_is_deleted_for_good_is_noted_for_its_files(path: Path, manager: SessionManager) -> None:
    """A session that is purged, from the trash or past it, is noted until its files are gone."""
    first, second = [await session_of(manager, "active", None) for _ in range(2)]
    await manager.trash_session(first.id)
    for one in (first, second):
        await manager.delete_session(one.id)
    assert await manager.list_purged() == sorted([first.id, second.id])
    assert rows(path, "SELECT 1 FROM sessions UNION ALL SELECT 1 FROM session_snapshots") == []
    with pytest.raises(SessionNotFound):
        await manager.delete_session(first.id)
    # A row that is written again for a program that runs keeps its files.
    await manager.record_lost_session(first.id, first.created_at)
    assert await manager.list_purged() == [second.id]
