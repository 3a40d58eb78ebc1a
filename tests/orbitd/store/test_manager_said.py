"""What programs say is stored with the marks of its session: both or neither, and each with its position."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from orbit_protocol.errors import StorageFull
from orbit_protocol.types import CommandFinished, Event, Progress, Session, TerminalNotification
from orbitd.manager import SessionManager
from orbitd.store import event_recorder
from orbitd.store.events import NewEvent
from orbitd.store.rows import Marks
from store_support import LOCAL, UNKNOWN, rows

NOTE = TerminalNotification(title="Tests", body="3 failed", urgency="critical")
MARKS = Marks(
    bell=True,
    notification=NOTE,
    unseen_output=True,
    progress=Progress(state="error", percent=45),
    last_command=CommandFinished(command="make", exit_code=2, duration_secs=81.5, cwd="/srv"),
)


def said(session: Session, position: int | None = None, kind: str = "terminal.notification") -> NewEvent:
    """Return an event."""
    return NewEvent(kind=kind, session_id=session.id, data=b'{"body":"x"}', position=position)


def marks_of(session: Session) -> Marks:
    """Return the marks on a session."""
    return Marks(**{field: getattr(session, field) for field in Marks.__struct_fields__})


async def test_marks_are_kept(manager: SessionManager, path: Path) -> None:
    """They are on the session at once, in lists, after a change of something else, and in another store's eyes."""
    session = await manager.create_session(LOCAL, name="x")
    seen: list[tuple[str, Marks]] = []

    def look(events: object) -> None:
        assert isinstance(events, list)
        seen.extend((each.kind, marks_of(manager.cached_session(session.id) or session)) for each in events)

    manager.on_events = look
    manager.record_said([said(session, 7)], {session.id: MARKS})
    await manager.said_settled()
    assert seen == [("terminal.notification", MARKS)]
    assert marks_of(await manager.get_session(session.id)) == MARKS
    await manager.rename_session(session.id, "y")
    assert marks_of((await manager.list_sessions()).sessions[0]) == MARKS
    (program,) = rows(path, "SELECT program FROM sessions")[0]
    assert json.loads(program)["notification"] == {"title": "Tests", "body": "3 failed", "urgency": "critical"}
    async with SessionManager.open(str(path)) as other:
        assert marks_of(await other.get_session(session.id)) == MARKS
    manager.record_said([], {session.id: Marks()})
    await manager.said_settled()
    assert rows(path, "SELECT program FROM sessions") == [(None,)]


async def test_marks_come_with_their_events_though_many_wait(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where so many sessions have others that they are not all written by one job."""
    monkeypatch.setattr(event_recorder, "_MAX_MARKED", 3)
    *others, last = [await manager.create_session(LOCAL) for _ in range(5)]
    seen: list[bool] = []
    manager.on_events = lambda _: seen.append((manager.cached_session(last.id) or last).bell)
    for each in others:
        manager.record_said([], {each.id: Marks(bell=True)})
    manager.record_said([said(last)], {last.id: Marks(bell=True)})
    await manager.said_settled()
    assert seen == [True]


async def test_many_marks_are_settled_all(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot is saved behind the marks that were recorded before it, however many jobs they take."""
    monkeypatch.setattr(event_recorder, "_MAX_MARKED", 3)
    sessions = [await manager.create_session(LOCAL) for _ in range(8)]
    for each in sessions:
        manager.record_said([], {each.id: Marks(bell=True)})
    await manager.said_settled()
    assert [(manager.cached_session(each.id) or each).bell for each in sessions] == [True] * 8


async def test_the_newest_position(manager: SessionManager) -> None:
    """It is the highest that a session has, or None."""
    one, two = await manager.create_session(LOCAL), await manager.create_session(LOCAL)
    assert await manager.newest_position(one.id) is None
    manager.record_said([said(one, 7), said(one, 900), said(one), said(two, 5_000)], {})
    await manager.said_settled()
    assert await manager.newest_position(one.id) == 900


async def test_a_session_that_is_gone(manager: SessionManager) -> None:
    """Marks and events of a session that was deleted meanwhile are left out, and those of others are stored."""
    session = await manager.create_session(LOCAL)
    gone = await manager.create_session(LOCAL)
    await manager.delete_session(gone.id)
    manager.record_said([said(gone), said(session)], {gone.id: MARKS, UNKNOWN: MARKS, session.id: MARKS})
    await manager.said_settled()
    found = await manager.list_events(after=0, kinds=["terminal.*"])
    assert [each.session_id for each in found] == [session.id]
    assert marks_of(await manager.get_session(session.id)) == MARKS


async def test_a_session_that_has_ended(manager: SessionManager) -> None:
    """What was said last is on a session whose program has ended meanwhile, too."""
    session = await manager.create_session(LOCAL)
    await manager.terminate_session(session.id)
    manager.record_said([said(session)], {session.id: MARKS})
    await manager.said_settled()
    assert marks_of(await manager.get_session(session.id)) == MARKS
    assert manager.cached_session(session.id) is None


async def test_settled_in_order(manager: SessionManager) -> None:
    """Whoever waits does so for all that was recorded before, however much that is, and for nothing later."""
    session = await manager.create_session(LOCAL)
    committed: list[Event] = []
    manager.on_events = committed.extend
    await manager.said_settled()
    for number in range(3 * event_recorder._AT_ONCE):
        manager.record_said([said(session, number)], {session.id: MARKS})
    await manager.said_settled()
    assert len(committed) == 3 * event_recorder._AT_ONCE
    assert await manager.newest_position(session.id) == 3 * event_recorder._AT_ONCE - 1
    await manager.said_settled()


async def test_nothing_is_written_for_marks_that_are_there(manager: SessionManager, path: Path) -> None:
    """A row whose marks are the same stays as it is."""
    session = await manager.create_session(LOCAL)
    manager.record_said([], {session.id: MARKS})
    await manager.said_settled()
    before = rows(path, "SELECT * FROM sessions")
    changes = manager._store.cache.sessions.changes
    manager.record_said([], {session.id: MARKS})
    await manager.said_settled()
    assert rows(path, "SELECT * FROM sessions") == before
    assert manager._store.cache.sessions.changes == changes


async def test_progress_ends_with_the_program(manager: SessionManager) -> None:
    """What the last program showed is gone with it, and before the next one."""
    session = await manager.create_session(LOCAL)
    for change in (
        lambda: manager.start_program(session.id, 80, 24),
        lambda: manager.end_program(session.id, "detached"),
    ):
        manager.record_said([], {session.id: MARKS})
        await manager.said_settled()
        assert marks_of(await change()) == replace(MARKS, progress=None)


async def test_marks_outlive_a_full_disk(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks that could not be written are written with the next ones, and are not tried in a loop; newer ones win."""
    session, other = await manager.create_session(LOCAL), await manager.create_session(LOCAL)
    insert, tries, full = manager._store.events.insert, 0, True

    def failing(connection: sqlite3.Connection, events: Sequence[NewEvent]) -> list[Event]:
        nonlocal tries
        tries += 1
        if full:
            raise StorageFull("The disk is full")
        return insert(connection, events)

    monkeypatch.setattr(manager._store.events, "insert", failing)
    manager.record_said([said(session, 7)], {session.id: MARKS, other.id: MARKS})
    await manager.said_settled()
    assert (tries, marks_of(await manager.get_session(session.id))) == (1, Marks())
    full = False
    manager.record_said([], {other.id: Marks(bell=True)})
    await manager.said_settled()
    assert marks_of(await manager.get_session(session.id)) == MARKS
    assert marks_of(await manager.get_session(other.id)) == Marks(bell=True)


async def test_a_batch_that_fails_stops_no_other(manager: SessionManager) -> None:
    """A defect in one call loses what was recorded with it; what waits behind it is recorded."""
    session = await manager.create_session(LOCAL)
    manager.record_said([said(session, 1 << 70)] * event_recorder._AT_ONCE, {})
    manager.record_said([said(session, 5)], {})
    await manager.said_settled()
    assert await manager.newest_position(session.id) == 5
