"""The whole store through the manager: auto-save, cleanup, archive, vacuum, check, backup, statistics."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from orbit_protocol.errors import (
    Busy,
    Cancelled,
    InvalidParams,
    OrbitError,
    SessionNotFound,
    ShuttingDown,
    SnapshotNotFound,
    StorageFull,
)
from orbit_protocol.types import Session, SessionConfig
from orbitd.manager import SessionManager
from orbitd.store import maintenance
from orbitd.store.backup import copy
from orbitd.store.cache import Change
from orbitd.store.files import BACKSTOP_PAGES
from orbitd.store.progress import Progress
from orbitd.store.readers import LONG_THREADS, MAX_READERS, Readers
from store_support import GRID, LOCAL, files, mode, names, rows, size

NOISE = random.Random(3).randbytes(50_000)


async def test_touch_is_in_memory_until_auto_save(path: Path, manager: SessionManager) -> None:
    """A touch shows at once everywhere, writes nothing, and is on disk after the next auto-save."""
    session = await manager.create_session(LOCAL, name="x")
    before = files(path.parent)
    touched = await manager.touch_session(session.id)
    assert touched.last_active > session.last_active
    assert await manager.get_session(session.id) == touched
    assert (await manager.list_sessions()).sessions == [touched]
    assert (await manager.list_sessions(status=["active", "terminated"])).sessions == [touched]
    assert await manager.find_session(session.id[:8]) == touched
    assert files(path.parent) == before
    assert await manager.auto_save_sessions() == 1
    written = touched.last_active.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert rows(path, "SELECT last_active FROM sessions") == [(written,)]


async def test_auto_save_counts_what_changed(manager: SessionManager) -> None:
    """Each touched session is written once, however often it was touched; with nothing to write, nothing is."""
    sessions = [await manager.create_session(LOCAL) for _ in range(3)]
    for session in (*sessions[:2], *sessions[:2]):
        await manager.touch_session(session.id)
    assert await manager.auto_save_sessions() == 2
    assert await manager.auto_save_sessions() == 0


async def test_touch_survives_other_changes(manager: SessionManager) -> None:
    """A change of something else does not take a touch back, in its answer neither."""
    session = await manager.create_session(LOCAL)
    touched = await manager.touch_session(session.id)
    renamed = await manager.rename_session(session.id, "new")
    assert renamed.last_active == touched.last_active
    assert (await manager.get_session(session.id)).last_active == touched.last_active
    assert await manager.auto_save_sessions() == 1


async def test_later_change_makes_a_touch_needless(manager: SessionManager) -> None:
    """A touch before a change of status, or of a session that is deleted, needs no auto-save."""
    kept, deleted = [await manager.create_session(LOCAL) for _ in range(2)]
    for session in (kept, deleted):
        await manager.touch_session(session.id)
    await manager.detach_session(kept.id)
    await manager.delete_session(deleted.id)
    assert await manager.auto_save_sessions() == 0


async def test_touch_of_the_terminated(path: Path, manager: SessionManager) -> None:
    """A session that is not in memory is touched on disk at once."""
    session = await manager.create_session(LOCAL)
    ended = await manager.terminate_session(session.id)
    touched = await manager.touch_session(session.id)
    assert touched.last_active > ended.last_active
    assert await manager.get_session(session.id) == touched
    assert await manager.auto_save_sessions() == 0


async def test_close_saves(path: Path, manager: SessionManager) -> None:
    """Closing writes what is in memory only."""
    session = await manager.create_session(LOCAL)
    touched = await manager.touch_session(session.id)
    await manager.close()
    async with SessionManager.open(str(path)) as again:
        assert await again.get_session(session.id) == touched
        assert (await again.get_stats()).last_auto_save_at is not None


async def test_nothing_is_written_while_nothing_changes(path: Path, manager: SessionManager) -> None:
    """Reads and upkeep without anything to do leave every file as it is, byte for byte."""
    session = await manager.create_session(LOCAL, name="x")
    info = await manager.save_snapshot(session.id, NOISE)
    workspace = await manager.create_workspace("w", GRID)
    await manager.get_stats()
    before = files(path.parent)
    for _ in range(3):
        await manager.auto_save_sessions()
        await manager.cleanup_old_snapshots(10)
        await manager.archive_sessions(datetime.now(UTC))
        await manager.vacuum()
        await manager.vacuum_step()
        await manager.check()
        await manager.get_stats()
        await manager.probe()
        await manager.get_snapshot(info.id)
        await manager.list_sessions(status=["terminated", "archived"])
        await manager.find_session("x")
        await manager.get_workspace(workspace.id)
    assert files(path.parent) == before


async def test_cleanup_keeps_the_newest(manager: SessionManager) -> None:
    """Each session keeps its newest snapshots, which read back; one with fewer keeps all."""
    many, few = [await manager.create_session(LOCAL) for _ in range(2)]
    infos = [await manager.save_snapshot(many.id, NOISE[: 1000 + number]) for number in range(40)]
    await manager.save_snapshot(few.id, b"only")
    assert await manager.cleanup_old_snapshots(5) == 35
    left = (await manager.list_snapshots(many.id)).snapshots
    assert [info.id for info in left] == [info.id for info in reversed(infos[-5:])]
    for number in range(35, 40):
        assert (await manager.get_snapshot(infos[number].id)).terminal_buffer == NOISE[: 1000 + number]
    assert len((await manager.list_snapshots(few.id)).snapshots) == 1
    assert await manager.cleanup_old_snapshots(5) == 0
    with pytest.raises(InvalidParams):
        await manager.cleanup_old_snapshots(0)


class Reports(Progress):
    """Calls a function at each report, and keeps them.

    Args:
        on_report: Called with what is done and how many are; what it raises ends the work.
    """

    def __init__(self, on_report: Callable[[str, int], None]) -> None:
        super().__init__()
        self._on_report = on_report
        self.all: list[tuple[str, int, int]] = []

    def report(self, what: str, done: int = 0, total: int = 0) -> None:
        self.all.append((what, done, total))
        self._on_report(what, done)
        super().report(what, done, total)


async def sessions_with_snapshots(manager: SessionManager, sessions: int, each: int) -> list[list[str]]:
    """Make sessions and return the ids of their snapshots."""
    found = []
    for _ in range(sessions):
        session = await manager.create_session(LOCAL)
        found.append([(await manager.save_snapshot(session.id, NOISE[:1000])).id for _ in range(each)])
    return found


async def test_others_write_between_the_slices_of_long_work(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cleanup writes in transactions that end when their time is over; who writes meanwhile waits for one of them."""
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    await sessions_with_snapshots(manager, 5, 3)
    others: list[asyncio.Task[Session]] = []
    progress = Reports(lambda _, __: others.append(asyncio.create_task(manager.create_session(LOCAL))))
    assert await manager.cleanup_old_snapshots(1, progress) == 10
    assert progress.all == [("sessions", done, 5) for done in range(5)]
    assert all(other.done() for other in others[:-1])
    await others[-1]


async def test_a_session_with_very_many_snapshots_is_cleaned_in_pieces(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement deletes more than so many snapshots of one session; the oldest go first."""
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    monkeypatch.setattr(maintenance, "_DELETED_AT_ONCE", 3)
    (ids,) = await sessions_with_snapshots(manager, 1, 10)

    def stop_at_the_second(_: str, done: int) -> None:
        if done:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        await manager.cleanup_old_snapshots(2, Reports(stop_at_the_second))
    (session,) = await manager.list_active_sessions()
    assert [info.id for info in (await manager.list_snapshots(session.id)).snapshots] == ids[:2:-1]
    assert await manager.cleanup_old_snapshots(2) == 5
    assert [info.id for info in (await manager.list_snapshots(session.id)).snapshots] == ids[:-3:-1]


@pytest.mark.parametrize("way", ["task", "progress"])
async def test_a_cancelled_cleanup_keeps_what_it_has_done(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It ends after the slice that is being written; all that is left reads back, and commits checkpoint as before."""
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    found = await sessions_with_snapshots(manager, 5, 3)

    def cancel(_: str, done: int) -> None:
        if done == 2 and way == "task":
            cleaning.cancel()
        elif done == 2:
            progress.cancel()

    progress = Reports(cancel)
    cleaning = asyncio.create_task(manager.cleanup_old_snapshots(1, progress))
    with pytest.raises((asyncio.CancelledError, Cancelled)):
        await cleaning
    left = [(await manager.list_snapshots(session.id)).snapshots for session in await manager.list_active_sessions()]
    assert [len(each) for each in left][:2] == [1, 1]
    assert [len(each) for each in left][3:] == [3, 3]
    for infos, ids in zip(left, found, strict=True):
        assert infos[0].id == ids[-1]
        for info in infos:
            assert (await manager.get_snapshot(info.id)).terminal_buffer == NOISE[:1000]
    writer = manager._store.writer
    assert await writer.run(lambda c: c.execute("PRAGMA wal_autocheckpoint").fetchone(), lambda row: row) == (
        BACKSTOP_PAGES,
    )
    assert (await manager.check()).ok


async def test_a_log_is_checkpointed_while_slices_are_written(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What long work writes does not pile up in the log: it is checkpointed, and begins again though others write."""
    checkpoint = maintenance.checkpoint_log

    def checkpoint_beside_others(connection: sqlite3.Connection) -> None:
        # A reader's checkpoint does not see what is committed meanwhile; at the worst, that is everything.
        if threading.current_thread().name == "orbit-writer":
            checkpoint(connection)

    monkeypatch.setattr(maintenance, "checkpoint_log", checkpoint_beside_others)
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    monkeypatch.setattr(maintenance, "_CHECKPOINT_SECS", 0.0)
    await sessions_with_snapshots(manager, 60, 2)
    await manager._store.writer.run(_empty_log, lambda _: None, alone=True)
    sizes: list[int] = []
    progress = Reports(lambda _, __: sizes.append(size(Path(f"{path}-wal"))))
    await manager.cleanup_old_snapshots(1, progress)
    assert len(sizes) == 60
    assert max(sizes) < 10 * sizes[1]  # some slices, and not all together


async def test_a_log_is_checkpointed_where_it_has_grown(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However quickly slices are written, the log takes no more room than it may: the disk may be nearly full."""
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    monkeypatch.setattr(maintenance, "_CHECKPOINT_SECS", float("inf"))
    monkeypatch.setattr(maintenance, "_BULK_LOG_BYTES", 1 << 17)
    await sessions_with_snapshots(manager, 60, 2)
    await manager._store.writer.run(_empty_log, lambda _: None, alone=True)
    sizes: list[int] = []
    await manager.cleanup_old_snapshots(1, Reports(lambda _, __: sizes.append(size(Path(f"{path}-wal")))))
    assert len(sizes) == 60
    assert 1 << 17 < max(sizes) < 4 << 17
    writer = manager._store.writer
    limit = await writer.run(lambda c: c.execute("PRAGMA journal_size_limit").fetchone(), lambda row: row)
    assert limit == (64 << 20,)


async def test_a_vacuum_goes_on_where_the_log_cannot_grow(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a cleanup's, each of its slices is written once more after a checkpoint."""
    session = await manager.create_session(LOCAL)
    await manager.save_snapshot(session.id, NOISE)
    await manager.delete_session(session.id)
    really_write, full = manager._store.write_once, [True, False] * 3

    async def write(work: Callable[[sqlite3.Connection], Change[Any]]) -> Any:
        if full.pop(0):
            raise StorageFull("no room")
        return await really_write(work)

    monkeypatch.setattr(manager._store, "write_once", write)
    assert await manager.vacuum() > 40_000


@pytest.mark.parametrize("steps", range(12))
async def test_a_cleanup_that_is_cancelled_anywhere_leaves_the_writer_as_it_was(
    manager: SessionManager, steps: int
) -> None:
    """Wherever it was, commits checkpoint the log again, and nobody counts as writing in slices."""
    await sessions_with_snapshots(manager, 2, 2)
    cleaning = asyncio.create_task(manager.cleanup_old_snapshots(1))
    for _ in range(steps):
        await asyncio.sleep(0)
        await manager._store.writer.run(lambda _: None, lambda _: None)
    cleaning.cancel()
    await asyncio.wait({cleaning})
    assert manager._store.bulk_writers == 0
    writer = manager._store.writer
    assert await writer.run(lambda c: c.execute("PRAGMA wal_autocheckpoint").fetchone(), lambda row: row) == (
        BACKSTOP_PAGES,
    )


async def test_a_cleanup_that_is_cancelled_before_its_first_slice(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is over before the writer has heard of it; commits checkpoint the log as before."""
    await sessions_with_snapshots(manager, 1, 2)
    really, begun = manager._checkpoint_at, asyncio.Event()

    async def wait_at_first(pages: int, left_bytes: int) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        await really(pages, left_bytes)

    monkeypatch.setattr(manager, "_checkpoint_at", wait_at_first)
    cleaning = asyncio.create_task(manager.cleanup_old_snapshots(1))
    await begun.wait()
    cleaning.cancel()
    await asyncio.wait({cleaning})
    assert manager._store.bulk_writers == 0


async def test_a_cleanup_goes_on_where_the_log_cannot_grow(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice that finds no room is written once more after the log has begun again; without room then, it fails."""
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    await sessions_with_snapshots(manager, 3, 2)
    happened: list[str] = []
    full = 1
    aside = ["checkpoint", "checkpoint"]  # by a reader, and what was written meanwhile

    def checkpoint(_: sqlite3.Connection) -> None:
        happened.append("checkpoint")

    async def write(work: Callable[[sqlite3.Connection], Change[Any]]) -> Any:
        nonlocal full
        happened.append("full" if full else "slice")
        if full:
            full -= 1
            raise StorageFull("no room")
        return await really_write(work)

    really_write = manager._store.write_once
    monkeypatch.setattr(manager._store, "write_once", write)
    monkeypatch.setattr(maintenance, "checkpoint_log", checkpoint)
    assert await manager.cleanup_old_snapshots(1) == 3
    assert happened == ["full", *aside, "slice", "slice", "slice", *aside]
    await manager.save_snapshot((await manager.list_active_sessions())[0].id, b"more")
    full = 2
    with pytest.raises(StorageFull):
        await manager.cleanup_old_snapshots(1)


async def test_no_page_and_no_slice_reads_a_table_from_its_beginning(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page begins where the one before has ended, and what is looked up by its id or session is found by an index."""
    (ids, _, _) = await sessions_with_snapshots(manager, 3, 3)
    first, second, third = await manager.list_active_sessions()
    await manager.terminate_session(first.id)
    await manager.terminate_session(second.id)
    statements: list[str] = []
    fetch_all = Readers.fetch_all

    async def record(readers: Readers, sql: str, parameters: Any = ()) -> Any:
        statements.append(sql)
        return await fetch_all(readers, sql, parameters)

    monkeypatch.setattr(Readers, "fetch_all", record)
    await manager._store.writer.run(lambda c: c.set_trace_callback(statements.append), lambda _: None)
    ended = await manager.list_sessions(status=["terminated"], limit=1)
    await manager.list_sessions(status=["terminated"], limit=1, cursor=ended.next_cursor)
    await manager.get_session(first.id)
    await manager.find_session(first.id[:13])
    page = await manager.list_snapshots(third.id, limit=1)
    await manager.list_snapshots(third.id, limit=1, cursor=page.next_cursor)
    await manager.get_snapshot(ids[0])
    await manager.load_latest_snapshot(third.id)
    await manager.cleanup_old_snapshots(1)
    await manager.archive_sessions(datetime.now(UTC))
    await manager.trash_session(first.id)
    await manager.trash_session(third.id)
    deleted = await manager.list_deleted_sessions(limit=1)
    await manager.list_deleted_sessions(limit=1, cursor=deleted.next_cursor)
    await manager.undelete_session(first.id)
    assert await manager.purge_expired(0) == 1
    await manager._store.writer.run(lambda c: c.set_trace_callback(None), lambda _: None)
    plans = {}
    for sql in statements:
        if sql.lstrip().startswith(("SELECT", "DELETE", "INSERT")):
            names = dict.fromkeys(re.findall(r":([a-z_]+)", re.sub("'[^']*'", "", sql)), 1)
            parameters: Any = names or (1,) * re.sub("'[^']*'", "", sql).count("?")
            with contextlib.closing(sqlite3.connect(path)) as other:
                plan = other.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            plans[sql] = [detail for *_, detail in plan if re.match("SCAN (sessions|session_snap|archived_s)", detail)]
    assert len(plans) > 20
    # A cleanup reads the sizes of all chains once, in the index.
    counting = ["SCAN session_snapshots USING COVERING INDEX idx_snapshots_session_id"]
    assert {sql: found for sql, found in plans.items() if found} == {maintenance._WITH_MORE_SNAPSHOTS: counting}


def _empty_log(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


async def test_what_is_parked_is_not_archived_by_itself(path: Path, manager: SessionManager) -> None:
    """The chore leaves ended sessions of a workspace, for `workspace.open`; a request takes them, too."""
    shop = await manager.create_workspace("shop", GRID)
    parked, loose = [await manager.create_session(LOCAL, name=name) for name in ("parked", "loose")]
    await manager.move_session(parked.id, shop.id)
    for one in (parked, loose):
        await manager.terminate_session(one.id)
    assert await manager.archive_ended(0) == 1
    assert rows(path, "SELECT name FROM sessions") == [("parked",)]
    assert await manager.archive_sessions(datetime.now(UTC)) == 1


async def test_archive_moves_old_terminated_sessions(path: Path, manager: SessionManager) -> None:
    """Sessions that ended before the moment leave the hot tables with their snapshots, and no others do."""
    old, young, alive = [await manager.create_session(LOCAL, name=name) for name in ("old", "young", "alive")]
    info = await manager.save_snapshot(old.id, b"screen")
    await manager.terminate_session(old.id)
    moment = datetime.now(UTC)
    await manager.terminate_session(young.id)
    assert await manager.archive_sessions(moment) == 1
    assert rows(path, "SELECT name FROM sessions ORDER BY seq") == [("young",), ("alive",)]
    assert rows(path, "SELECT count(*) FROM session_snapshots") == [(0,)]
    archived = await manager.get_session(old.id)
    assert (archived.status, archived.name) == ("archived", "old")
    assert await manager.find_session(old.id[:8]) == archived
    assert await manager.find_session("old") == archived
    assert (await manager.list_sessions(status=["archived"])).sessions == [archived]
    page = await manager.list_sessions(status=["archived", "active", "terminated"])
    assert [session.name for session in page.sessions] == ["old", "young", "alive"]
    with pytest.raises(SnapshotNotFound):
        await manager.get_snapshot(info.id)
    assert alive.id in {session.id for session in await manager.list_active_sessions()}


async def test_archived_sessions_cannot_be_changed(manager: SessionManager) -> None:
    """Every change of an archived session is 1000 with the way out as its hint."""
    session = await manager.create_session(LOCAL)
    await manager.terminate_session(session.id)
    await manager.archive_sessions(datetime.now(UTC))
    calls = (
        manager.update_session_status(session.id, "active"),
        manager.rename_session(session.id, "x"),
        manager.move_session(session.id, None),
        manager.touch_session(session.id),
        manager.save_snapshot(session.id, b""),
        manager.load_latest_snapshot(session.id),
        manager.list_snapshots(session.id),
    )
    for call in calls:
        with pytest.raises(SessionNotFound) as caught:
            await call
        assert "session.restore_archived" in caught.value.hint


async def test_restored_from_the_archive(manager: SessionManager) -> None:
    """A restored session is terminated, in its old place, and its snapshots read back and go on."""
    first = await manager.create_session(LOCAL, name="first")
    infos = [await manager.save_snapshot(first.id, NOISE[: 2000 + number]) for number in range(5)]
    await manager.create_session(LOCAL, name="second")
    ended = await manager.terminate_session(first.id)
    await manager.archive_sessions(datetime.now(UTC))
    assert await manager.restore_archived_session(first.id) == ended
    assert (await manager.list_sessions(status=["archived"])).sessions == []
    page = await manager.list_sessions(status=["active", "terminated"])
    assert [session.name for session in page.sessions] == ["first", "second"]
    for number, info in enumerate(infos):
        assert (await manager.get_snapshot(info.id)).terminal_buffer == NOISE[: 2000 + number]
    await manager.save_snapshot(first.id, b"new")
    assert (await manager.list_snapshots(first.id)).snapshots[0].buffer_bytes == 3
    assert (await manager.check()).ok
    with pytest.raises(SessionNotFound):
        await manager.restore_archived_session(first.id)


async def test_restored_without_its_workspace(manager: SessionManager) -> None:
    """A session whose workspace was deleted while it was archived comes back without one."""
    workspace = await manager.create_workspace("w", GRID)
    session = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id))
    await manager.set_active_session(workspace.id, session.id)
    await manager.terminate_session(session.id)
    await manager.archive_sessions(datetime.now(UTC))
    assert (await manager.get_workspace(workspace.id)).active_session_id is None
    await manager.delete_workspace(workspace.id)
    restored = await manager.restore_archived_session(session.id)
    assert (restored.workspace_id, restored.config.workspace_id) == (None, None)


async def test_many_are_archived_in_pieces(manager: SessionManager) -> None:
    """More sessions than one piece of work moves are all archived."""
    sessions = await asyncio.gather(*(manager.create_session(LOCAL) for _ in range(120)))
    await asyncio.gather(*(manager.terminate_session(session.id) for session in sessions))
    assert await manager.archive_sessions(datetime.now(UTC)) == 120
    stats = await manager.get_stats()
    assert (stats.total_sessions, stats.terminated_sessions, stats.archived_sessions) == (120, 0, 120)


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00"], ids=["naive", "before time"])
async def test_moments_that_are_none(manager: SessionManager, text: str) -> None:
    """A moment without a time zone, or that UTC has no year for, is refused."""
    with pytest.raises(InvalidParams):
        await manager.archive_sessions(datetime.fromisoformat(text))


async def test_vacuum(path: Path, manager: SessionManager) -> None:
    """What deletions left free goes back to the file system: the file is that much smaller."""
    session = await manager.create_session(LOCAL)
    for number in range(40):
        await manager.save_snapshot(session.id, random.Random(number).randbytes(50_000))
    await manager.delete_session(session.id)
    before = await manager.get_stats()
    freed = await manager.vacuum()
    after = await manager.get_stats()
    assert freed > 1_900_000
    assert before.database_bytes - after.database_bytes == freed
    assert size(path) == after.database_bytes
    assert await manager.vacuum() == 0


async def test_a_slice_of_a_vacuum_frees_many_pages(manager: SessionManager) -> None:
    """Pages are freed for as long as a slice may take, not one in a transaction."""
    session = await manager.create_session(LOCAL)
    for number in range(40):
        await manager.save_snapshot(session.id, random.Random(number).randbytes(50_000))
    await manager.delete_session(session.id)
    progress = Reports(lambda _, __: None)
    freed = await manager.vacuum(progress)
    assert freed > 400 * 4096
    assert all(after[1] - before[1] >= 64 for before, after in pairwise(progress.all[:-2]))
    assert len(progress.all) <= freed // (64 * 4096) + 2


async def test_vacuum_step_leaves_a_reserve(manager: SessionManager) -> None:
    """The step for idle times frees what is beyond a reserve, then nothing more."""
    session = await manager.create_session(LOCAL)
    for number in range(60):
        await manager.save_snapshot(session.id, random.Random(number).randbytes(50_000))
    await manager.delete_session(session.id)
    freed = 0
    while step := await manager.vacuum_step():
        freed += step
    assert freed > 1_000_000
    assert 900_000 < await manager.vacuum() <= 256 * 4096


async def test_stats(manager: SessionManager) -> None:
    """Every number is what was made."""
    workspace = await manager.create_workspace("w", GRID)
    sessions = [await manager.create_session(LOCAL) for _ in range(7)]
    for session in sessions[:2]:
        await manager.detach_session(session.id)
    for session in sessions[4:]:
        await manager.terminate_session(session.id)
    await manager.save_snapshot(sessions[0].id, b"x" * 100, b"y" * 50)
    info = await manager.save_snapshot(sessions[6].id, b"z" * 30)
    await manager.archive_sessions(info.snapshot_at)
    stats = await manager.get_stats()
    assert stats.total_sessions == 7
    assert (stats.active_sessions, stats.detached_sessions) == (2, 2)
    assert (stats.terminated_sessions, stats.archived_sessions) == (1, 2)
    assert stats.total_workspaces == 1
    assert (stats.total_snapshots, stats.snapshot_raw_bytes) == (2, 180)
    assert 0 < stats.snapshot_stored_bytes < 180
    assert stats.database_bytes > 50_000
    assert stats.last_auto_save_at is None
    await manager.auto_save_sessions()
    assert (await manager.get_stats()).last_auto_save_at is not None
    assert workspace.active_session_id is None


async def test_check_finds_dangling_rows(path: Path, manager: SessionManager) -> None:
    """A reference to what is not there is reported; a sound store is ok."""
    assert (await manager.check()).ok
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:  # which keeps no foreign keys
        other.execute(
            "INSERT INTO workspaces (id, name, created_at, layout, active_session_id) VALUES ('i', 'n', '', '', 'gone')"
        )
    report = await manager.check()
    assert not report.ok
    assert report.foreign_keys == ["row 1 of workspaces refers to a row of sessions that is not there"]


async def test_a_check_with_a_limit_says_whether_it_saw_everything(manager: SessionManager) -> None:
    """Where the time is over, the report is of what was looked at; what was known of damage stays known."""
    ((bad, _), _) = await sessions_with_snapshots(manager, 2, 2)
    whole = await manager.check(limit_secs=3_600)
    assert (whole.ok, whole.complete, whole.checked_snapshots, whole.total_snapshots) == (True, True, 4, 4)
    assert await manager.check() == whole
    await damage_snapshots(manager, [bad])
    assert (await manager.check()).snapshots == [bad]
    short = await manager.check(limit_secs=1e-9)
    assert (short.ok, short.complete, short.checked_snapshots) == (True, False, 0)
    assert manager.has_damage()


async def test_damage_that_a_limited_check_finds_is_added_to_what_is_known(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a whole check has found stays known beside it, so that no backup is deleted, until a whole one is sound."""
    (ids,) = await sessions_with_snapshots(manager, 1, 3)
    one, other, _ = ids
    await damage_snapshots(manager, [one])
    assert (await manager.check()).snapshots == [one]
    assert manager._store.last_check is not None
    whole = manager._store.last_check
    part = replace(whole, snapshots=[other], integrity=["a page"], complete=False, more_snapshots=3)
    monkeypatch.setattr(maintenance._Check, "run", lambda *_: part)
    assert (await manager.check(limit_secs=1)).snapshots == [other]
    known = manager._store.last_check
    assert (known.snapshots, known.integrity, known.complete) == ([one, other], ["a page"], True)
    sound = replace(whole, ok=True, snapshots=[], complete=False)
    monkeypatch.setattr(maintenance._Check, "run", lambda *_: sound)
    await manager.check(limit_secs=1)
    assert manager.has_damage()
    monkeypatch.setattr(maintenance._Check, "run", lambda *_: replace(sound, complete=True))
    await manager.check()
    assert not manager.has_damage()


async def test_the_limit_of_a_check_ends_it_between_two_snapshots(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many snapshots one session has, the clock is looked at before each; what was found by then is named."""
    ((first, second, third),) = await sessions_with_snapshots(manager, 1, 3)
    await damage_snapshots(manager, [first, second, third])

    def stop(what: str, done: int) -> None:
        if what == "snapshots" and done == 2:
            raise maintenance._TimeIsOver

    report = await manager.check(limit_secs=3_600, progress=Reports(stop))
    assert (report.complete, report.checked_snapshots, report.total_snapshots) == (False, 2, 3)
    assert report.snapshots == [third, second]


async def test_the_indexes_of_a_large_database_are_compared_last(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limited check of a large database has seen everything else by then, and finds what a whole one finds."""
    monkeypatch.setattr(maintenance, "_LARGE_BYTES", 0)
    await sessions_with_snapshots(manager, 2, 1)
    progress = Reports(lambda _, __: None)
    assert (await manager.check(limit_secs=3_600, progress=progress)).complete
    steps = list(dict.fromkeys(what for what, _, _ in progress.all))
    assert steps == ["structure", "references", "rows", "snapshots", "integrity"]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        # A change of a row while the index is not known, so that it is not in the index.
        index = other.execute("SELECT * FROM sqlite_schema WHERE name = 'idx_sessions_status'").fetchone()
        other.execute("PRAGMA writable_schema = ON")
        other.execute("DELETE FROM sqlite_schema WHERE name = 'idx_sessions_status'")
        other.execute("PRAGMA writable_schema = RESET")
        other.execute("UPDATE sessions SET status = 'detached' WHERE seq = 1")
        other.execute("PRAGMA writable_schema = ON")
        other.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", index)
    limited, whole = await manager.check(limit_secs=3_600), await manager.check()
    assert limited.complete
    assert limited.integrity == whole.integrity != []


async def test_a_check_names_no_more_than_an_answer_has_room_for(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of very many damaged snapshots the first are named, and the others are counted."""
    monkeypatch.setattr(maintenance, "_MAX_BAD_SNAPSHOTS", 2)
    found = await sessions_with_snapshots(manager, 5, 1)
    await damage_snapshots(manager, [snapshot_id for (snapshot_id,) in found])
    report = await manager.check()
    assert (report.ok, len(report.snapshots), report.more_snapshots, report.checked_snapshots) == (False, 2, 3, 5)


async def damage_snapshots(manager: SessionManager, ids: list[str]) -> None:
    """Change the bytes of snapshots."""
    query = "UPDATE session_snapshots SET terminal_buffer = x'00' WHERE id = ?"
    await manager._store.writer.run(lambda c: [c.execute(query, (each,)) for each in ids], lambda _: None)


async def test_a_cancelled_check_ends_its_thread(manager: SessionManager) -> None:
    """A check whose caller has gone stops at its next look; the reader that it had is free again."""
    await sessions_with_snapshots(manager, 3, 1)
    looking, cancelled = threading.Event(), threading.Event()

    def wait(what: str, _: int) -> None:
        if what == "snapshots":
            looking.set()
            cancelled.wait()

    progress = Reports(wait)
    checking = asyncio.create_task(manager.check(progress=progress))
    await asyncio.to_thread(looking.wait)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    reports = len(progress.all)
    cancelled.set()
    await manager._store.readers.close()  # waits for what still reads
    assert progress.is_cancelled
    assert len(progress.all) == reports


async def test_a_snapshot_is_read_and_saved_beside_any_long_work(manager: SessionManager) -> None:
    """However many checks and backups there are at once, they take no thread that a snapshot needs."""
    session = await manager.create_session(LOCAL)
    await manager.save_snapshot(session.id, b"screen")
    goes_on = threading.Event()
    began = [threading.Event() for _ in range(LONG_THREADS)]

    def work(connection: sqlite3.Connection, event: threading.Event) -> None:
        event.set()
        goes_on.wait()

    working = [asyncio.create_task(manager._store.readers.run_in_thread(partial(work, event=each))) for each in began]
    try:
        for each in began:
            await asyncio.to_thread(each.wait)
        await manager.save_snapshot(session.id, b"another")
        found = await manager.load_latest_snapshot(session.id)
        assert found is not None
        assert found.terminal_buffer == b"another"
    finally:
        goes_on.set()
        await asyncio.gather(*working)


async def test_a_limited_check_does_not_wait_for_others_for_ever(manager: SessionManager) -> None:
    """While as much reads for long as may, it is refused in its time; a cleanup's checkpoints do not wait either."""
    await sessions_with_snapshots(manager, 2, 2)
    goes_on, began = threading.Event(), threading.Semaphore(0)

    def work(_: sqlite3.Connection) -> None:
        began.release()
        goes_on.wait()

    working = [asyncio.create_task(manager._store.readers.run_in_thread(work)) for _ in range(2 * MAX_READERS)]
    try:
        for _ in range(LONG_THREADS):
            await asyncio.to_thread(began.acquire)
        with pytest.raises(Busy):
            await manager.check(limit_secs=1e-9)
        await manager.probe()
        assert await manager.cleanup_old_snapshots(1) == 2
    finally:
        goes_on.set()
        await asyncio.gather(*working)


async def test_a_cancelled_backup_leaves_nothing(tmp_path: Path, manager: SessionManager) -> None:
    """A copy that is ended in the middle is deleted; the backup that was there before stays."""
    await manager.create_session(LOCAL)
    folder = tmp_path / "backups"
    folder.mkdir()
    target = str(folder / "copy.db")
    await manager.backup(target)
    before = files(folder)
    progress = Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        await manager.backup(target, progress=progress)
    assert progress.step is not None
    assert progress.step.what == "pages"
    assert files(folder) == before


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("error", [Cancelled, ShuttingDown])
async def test_a_backup_that_ends_after_its_last_page_leaves_nothing(
    tmp_path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch, after: int, error: type[OrbitError]
) -> None:
    """Cancelled, or the store closed, when all is copied, while it is checked or just before it is put in its place."""
    monkeypatch.setattr(copy, "_STEPS_BETWEEN_LOOKS", 10)
    await manager.create_session(LOCAL)
    folder = tmp_path / "backups"
    folder.mkdir()
    target = str(folder / "copy.db")
    looks = Reports(lambda _, __: None)
    await manager.backup(target, progress=looks)
    at = (1, 2, len(looks.all))[after]
    assert len(looks.all) > 3
    before = files(folder)

    def end(*_: object) -> None:
        if len(progress.all) == at:
            raise error("enough")

    progress = Reports(end)
    with pytest.raises(error):
        await manager.backup(target, progress=progress)
    assert files(folder) == before


async def test_a_stop_ends_a_daily_backup_between_two_steps(tmp_path: Path, manager: SessionManager) -> None:
    """Nobody asks for its progress, and it ends all the same once the store is being closed."""
    await manager.create_session(LOCAL)

    check_target = copy.check_target

    def close_now(*args: Any, **more: Any) -> str:
        manager._store.readers.closing.set()
        return check_target(*args, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(copy, "check_target", close_now)
        with pytest.raises(ShuttingDown):
            await manager.backup(str(tmp_path / "copy.db"), automatic=True)
    manager._store.readers.closing.clear()
    assert names(tmp_path) == ["orbit"]


async def test_backup(tmp_path: Path, path: Path, manager: SessionManager) -> None:
    """A backup is one private file, complete without a WAL, and opens as a store."""
    session = await manager.create_session(LOCAL, name="kept")
    await manager.save_snapshot(session.id, NOISE)
    target = tmp_path / "copy.db"
    old = os.umask(0)
    try:
        result = await manager.backup(str(target))
    finally:
        os.umask(old)
    assert (result.path, result.bytes) == (str(target), size(target))
    assert mode(target) == 0o600
    assert names(tmp_path) == ["copy.db", "orbit"]
    async with SessionManager.open(str(target)) as copy:
        assert (await copy.find_session("kept")).id == session.id
        assert (await copy.check()).ok


async def test_backup_replaces(tmp_path: Path, manager: SessionManager) -> None:
    """An earlier backup, or an empty file, is replaced by the new one."""
    target = tmp_path / "copy.db"
    target.touch()
    await manager.backup(str(target))
    assert rows(target, "SELECT name FROM sessions") == []
    await manager.create_session(LOCAL, name="x")
    await manager.backup(str(target))
    assert rows(target, "SELECT name FROM sessions") == [("x",)]


@pytest.mark.parametrize("kind", ["text", "database of another program", "store in use"])
async def test_backup_replaces_nothing_else(tmp_path: Path, manager: SessionManager, kind: str) -> None:
    """A file that is no backup of Orbit's is refused by name, and stays as it is."""
    target = tmp_path / "copy.db"
    if kind == "store in use":
        await manager.backup(str(target))
        (tmp_path / "copy.db.lock").touch()
    elif kind == "database of another program":
        rows(target, "CREATE TABLE t (x)")
    else:
        target.write_text("text")
    before = target.read_bytes(), target.stat().st_ino
    with pytest.raises(InvalidParams, match=re.escape(str(target))):
        await manager.backup(str(target))
    assert (target.read_bytes(), target.stat().st_ino) == before


OWN_NAMES = [
    "sessions.db",
    "sessions.db-wal",
    "sessions.db-shm",
    "sessions.db-journal",
    "sessions.db.lock",
    "sessions.db.keeper",
    "sessions.db.keeper.lock",
    "sessions.db.restoring",
    "sessions.db.corrupt-20260101T000000Z",
    "sessions.db.before-restore-20260101T000000Z-wal",
    "sessions.db.rescued-20260101T000000Z",
    "sessions.db.backup-v1-20260101T000000Z",
    "SESSIONS.DB-WAL",
    ".orbit-backup-0011223344556677",
    "backups/auto-20260101T000000Z.db",
    "reserved/deeper/any",
    "config.toml",
    "CONFIG.toml",
]


@pytest.mark.parametrize("way", ["{}", "{folder}/../{base}/{name}", "{link}/{name}", "/proc/self/cwd/{name}"])
async def test_backup_takes_no_name_of_ours(tmp_path: Path, path: Path, manager: SessionManager, way: str) -> None:
    """Names of Orbit's own files are refused, whether they exist or not and whatever way leads there."""
    folder = path.parent
    for made in ("backups", "reserved", "reserved/deeper"):
        (folder / made).mkdir()
    (tmp_path / "by link").symlink_to(folder)
    manager.reserve([str(folder / "config.toml"), str(folder / "reserved")])
    here = os.getcwd()
    os.chdir(folder)
    try:
        for name in OWN_NAMES:
            full = folder / name
            target = way.format(full, folder=folder, base=folder.name, link=tmp_path / "by link", name=name)
            with pytest.raises(InvalidParams, match="and is not replaced"):
                await manager.backup(target)
    finally:
        os.chdir(here)
    assert (await manager.check()).ok
    for free in ("sessions.db.mine", "mine.db", "backups/mine.db", "backups/auto-mine.db"):
        await manager.backup(str(folder / free))


async def test_backup_onto_an_empty_file_of_ours(tmp_path: Path, path: Path, manager: SessionManager) -> None:
    """An empty lock or log is one of Orbit's own by a hard link and a symbolic one too."""
    own = path.parent / "start.lock"
    own.touch()
    manager.reserve([str(own)])
    os.link(own, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(own)
    for target in ("hard", "soft"):
        with pytest.raises(InvalidParams):
            await manager.backup(str(tmp_path / target))
    assert own.stat().st_size == 0


async def test_backup_is_of_one_moment(tmp_path: Path, manager: SessionManager) -> None:
    """Backups made while sessions are created and deleted in pairs never show half a pair."""
    target = tmp_path / "copy.db"
    done = asyncio.Event()

    async def churn() -> None:
        number = 0
        while not done.is_set():
            workspace = await manager.create_workspace(f"w{number}", GRID)
            inside = SessionConfig(session_type="local", workspace_id=workspace.id)
            await manager.create_session(inside)
            await manager.delete_workspace(workspace.id, delete_sessions=True)
            number += 1

    task = asyncio.create_task(churn())
    for _ in range(10):
        await manager.backup(str(target))
        assert rows(target, "PRAGMA integrity_check") == [("ok",)]
        assert rows(target, "PRAGMA foreign_key_check") == []
        orphans = "SELECT count(*) FROM sessions WHERE workspace_id IS NULL"
        assert rows(target, orphans) == [(0,)]
    done.set()
    await task


async def test_places_where_no_backup_goes(tmp_path: Path, path: Path, manager: SessionManager) -> None:
    """The live database under any name, folders and folders that are not there are refused; nothing is left."""
    os.link(path, tmp_path / "hard link")
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").mkdir()
    before = names(tmp_path, path.parent)
    for target in (
        str(path),
        f"{path}-wal",
        f"{path}.lock",
        f"{path.parent}/../orbit/sessions.db",
        str(tmp_path / "hard link"),
        str(tmp_path / "link"),
        str(tmp_path / "folder"),
        f"{tmp_path}/copy.db/",
        str(tmp_path / "nowhere" / "copy.db"),
        "relative.db",
    ):
        with pytest.raises(InvalidParams):
            await manager.backup(target)
    assert names(tmp_path, path.parent) == before
    assert (await manager.check()).ok


async def test_the_folder_of_backups_is_made(manager: SessionManager, path: Path) -> None:
    """Orbit's own folder is made where it is missing, 0700; any other folder has to exist."""
    folder = path.with_name("backups")
    await manager.backup(str(folder / "one.db"))
    assert mode(folder) == 0o700
    with pytest.raises(InvalidParams, match="a folder that exists"):
        await manager.backup(str(path.parent / "more" / "backups" / "one.db"))
