"""Stored events: each change records exactly its own, with a cursor to read on from; the old ones are dropped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import json as encoder

from orbit_protocol.errors import (
    CursorExpired,
    InvalidParams,
    OrbitError,
    StorageCorrupt,
    StorageFull,
)
from orbit_protocol.types import Event, SessionConfig, SessionStatus, WorkspaceLayout
from orbitd.manager import SessionManager
from orbitd.store import event_methods, event_recorder, maintenance, sessions
from orbitd.store.backup import restore
from orbitd.store.events import LEFT_OUT, NewEvent
from orbitd.store.sessions import ClientChange
from store_support import GRID, LOCAL, UNKNOWN, rows

EVERY_STATUS: list[SessionStatus] = ["active", "detached", "terminated", "archived"]
BELL = "terminal.bell"


def data_of(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(event.data))
    return found


class Heard:
    """What a manager has published, from now on."""

    def __init__(self, manager: SessionManager) -> None:
        self.events: list[Event] = []
        manager.on_events = self.events.extend

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def take(self) -> list[str]:
        """Return the kinds of what was heard, and begin again."""
        kinds, self.events[:] = self.kinds, []
        return kinds

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  # it is of the code under test, which sets no event for tests
                await asyncio.sleep(0)


@pytest.fixture
def heard(manager: SessionManager) -> Heard:
    return Heard(manager)


async def settled(manager: SessionManager) -> None:
    """Return once what waits to be recorded, or to be dropped, is."""
    async with asyncio.timeout(10):
        while len(manager._store.recorder._tasks):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)


async def test_changes_of_a_session_record_their_events(manager: SessionManager, heard: Heard) -> None:
    """Each change of a session is one event, whose data is the session as it is then."""
    workspace = await manager.create_workspace("w", GRID)
    session = await manager.create_session(LOCAL, "one")
    session_id = session.id
    steps: list[tuple[Callable[[], Awaitable[object]], list[str]]] = [
        (lambda: manager.rename_session(session_id, "two"), ["session.updated"]),
        (lambda: manager.set_labels(session_id, {"a": "b"}), ["session.updated"]),
        (lambda: manager.set_resume(session_id, "vim"), ["session.updated"]),
        (lambda: manager.move_session(session_id, workspace.id), ["session.updated"]),
        (lambda: manager.set_active_session(workspace.id, session_id), ["workspace.updated"]),
        (lambda: manager.detach_session(session_id), ["session.detached"]),
        (lambda: manager.update_session_status(session_id, "active"), ["session.attached"]),
        (lambda: manager.start_program(session_id, 80, 24), ["session.started"]),
        (lambda: manager.end_program(session_id, "detached", 255, reason="connection_lost"), ["session.disconnected"]),
        (lambda: manager.start_program(session_id, 80, 24, reconnects=True), ["session.reconnected"]),
        (lambda: manager.end_program(session_id, "terminated", 0), ["session.exited"]),
        (lambda: manager.start_program(session_id, 80, 24), ["session.started"]),
        (lambda: manager.undo_start(session), ["session.exited"]),
        (lambda: manager.terminate_session(session_id), ["session.terminated"]),
        (lambda: manager.start_program(session_id, 80, 24), ["session.started"]),
        (
            lambda: manager.end_program(session_id, "terminated", None, 9, reason="terminated"),
            ["session.exited", "session.terminated"],
        ),
        (lambda: manager.save_snapshot(session_id, b"x"), ["snapshot.saved"]),
        (lambda: manager.archive_sessions(datetime.now(UTC)), ["session.archived", "workspace.updated"]),
        (lambda: manager.restore_archived_session(session_id), ["session.restored"]),
        (lambda: manager.update_session_status(session_id, "active"), ["session.started"]),
        (lambda: manager.set_active_session(workspace.id, session_id), ["workspace.updated"]),
        (lambda: manager.trash_session(session_id), ["session.deleted", "workspace.updated"]),
        (lambda: manager.undelete_session(session_id), ["session.undeleted"]),
        (lambda: manager.delete_session(session_id), ["session.deleted"]),
    ]
    assert heard.take() == ["workspace.created", "session.created"]
    for number, (change, kinds) in enumerate(steps):
        await change()
        assert (number, heard.kinds) == (number, kinds)
        for event in heard.events:
            told = data_of(event)
            if event.kind.startswith("workspace."):
                assert told == encoder.decode(encoder.encode(await manager.get_workspace(workspace.id)))
            elif event.kind not in ("session.deleted", "snapshot.saved"):
                now = encoder.decode(encoder.encode(await manager.get_session(session_id)))
                more = {name: told.pop(name) for name in ("client_pid", "read_only", "reason") if name in told}
                assert (event.session_id, event.workspace_id) == (session_id, now["workspace_id"])
                assert told == now
                assert ("client_pid" in more) == (event.kind in ("session.attached", "session.detached"))
        heard.take()


async def test_changes_of_a_workspace_record_their_events(manager: SessionManager, heard: Heard) -> None:
    """Each change of a workspace is one event; its deletion comes with one for each of its sessions."""
    workspace = await manager.create_workspace("w", GRID)
    session = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id))
    await manager.rename_workspace(workspace.id, "v")
    await manager.update_workspace_layout(workspace.id, WorkspaceLayout(layout_type="x", config=[]))
    await manager.set_active_session(workspace.id, session.id)
    assert heard.take() == ["workspace.created", "session.created", *["workspace.updated"] * 3]
    await manager.move_session(session.id, None)
    assert heard.take() == ["session.updated", "workspace.updated"]
    await manager.move_session(session.id, workspace.id)
    await manager.delete_workspace(workspace.id)
    assert heard.kinds == ["session.updated", "session.updated", "workspace.deleted"]
    assert data_of(heard.events[1])["workspace_id"] is None
    assert heard.events[2].workspace_id == workspace.id
    other = await manager.create_workspace("o", GRID)
    await manager.move_session(session.id, other.id)
    heard.take()
    await manager.delete_workspace(other.id, delete_sessions=True, purge=False)
    assert heard.take() == ["session.deleted", "workspace.deleted"]


async def test_what_changes_nothing_records_nothing(manager: SessionManager, heard: Heard) -> None:
    """The same name, place, status, layout or label again is no event, and no write; nor is a touch, or an error."""
    workspace = await manager.create_workspace("w", GRID)
    session = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id), "one")
    await manager.create_session(LOCAL, "two")
    await manager.set_active_session(workspace.id, session.id)
    heard.take()
    before = await manager._store.writer.run(lambda connection: connection.total_changes, lambda count: count)
    await manager.rename_session(session.id, "one")
    await manager.move_session(session.id, workspace.id)
    await manager.update_session_status(session.id, "active")
    await manager.set_labels(session.id, {"a": None})
    await manager.set_resume(session.id, None)
    await manager.rename_workspace(workspace.id, "w")
    await manager.update_workspace_layout(workspace.id, GRID)
    await manager.set_active_session(workspace.id, session.id)
    await manager.touch_session(session.id)
    for refused in (
        manager.rename_session(session.id, "two"),
        manager.trash_session(UNKNOWN),
        manager.undelete_session(session.id),
        manager.move_session(session.id, UNKNOWN),
    ):
        with pytest.raises(OrbitError):
            await refused
    after = await manager._store.writer.run(lambda connection: connection.total_changes, lambda count: count)
    assert (heard.take(), after) == ([], before)


async def test_an_event_fails_with_its_change(
    manager: SessionManager, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an event cannot be written, its change is rolled back, and the others of the same commit are not."""
    good, insert = await manager.create_session(LOCAL, "good"), manager._store.events.insert
    heard.take()

    def failing(connection: sqlite3.Connection, events: Sequence[NewEvent]) -> list[Event]:
        found = insert(connection, events)
        if b'"bad"' in b"".join(each.data for each in events):
            raise sqlite3.IntegrityError("no")
        return found

    monkeypatch.setattr(manager._store.events, "insert", failing)
    outcomes = await asyncio.gather(
        manager.rename_session(good.id, "better"),
        manager.create_session(LOCAL, "bad"),
        manager.create_session(LOCAL, "other"),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], StorageCorrupt | OrbitError | sqlite3.Error)
    assert [one.name for one in await manager.list_active_sessions()] == ["better", "other"]
    assert heard.kinds == ["session.updated", "session.created"]
    assert [event.seq for event in await manager.list_events(after=None)] == [1, 2, 3]


async def test_events_are_published_in_the_order_of_their_numbers(manager: SessionManager) -> None:
    """Of many changes at once each is heard after the cache has it, numbered without a gap, and before its answer."""
    heard: list[Event] = []

    def hear(events: Sequence[Event]) -> None:
        heard.extend(events)
        assert manager.newest_seq == events[-1].seq
        for event in events:
            assert event.session_id is not None
            assert manager.cached_session(event.session_id) is not None

    manager.on_events = hear
    made = await asyncio.gather(*(manager.create_session(LOCAL) for _ in range(300)))
    assert [event.seq for event in heard] == list(range(1, 301))
    assert [event.session_id for event in heard] == [one.id for one in made]
    assert [event.cursor for event in heard] == [manager.cursor(number) for number in range(1, 301)]


async def test_a_listener_that_raises_keeps_nobody_from_an_answer(manager: SessionManager) -> None:
    """The change is on disk, whatever becomes of those who hear of it."""

    def hear(events: Sequence[Event]) -> None:
        raise ZeroDivisionError

    manager.on_events = hear
    assert (await manager.create_session(LOCAL, "one")).name == "one"
    assert [event.kind for event in await manager.list_events(after=0)] == ["session.created"]


async def test_the_events_of_a_commit_are_heard_together(manager: SessionManager) -> None:
    """Those who hear of the changes of one transaction hear of all at once, find them all, and hear of each once."""
    heard: list[list[int | None]] = []
    found: list[int] = []

    def hear(events: Sequence[Event]) -> None:
        heard.append([event.seq for event in events])
        found.append(len(manager._store.cache.sessions))

    manager.on_events = hear
    first = manager.newest_seq + 1
    results = await asyncio.gather(
        *(manager.create_session(LOCAL, name) for name in ("one", "two", "one", "three")), return_exceptions=True
    )
    assert [type(each).__name__ for each in results] == ["Session", "Session", "NameTaken", "Session"]
    assert (heard, found) == ([[first, first + 1, first + 2]], [3])


async def test_a_cancelled_change_is_heard_all_the_same(manager: SessionManager, heard: Heard) -> None:
    """A caller that has gone undoes no change, and so no event."""
    call = asyncio.ensure_future(manager.create_session(LOCAL, "one"))
    await asyncio.sleep(0)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    await heard.until(lambda: heard.events)
    assert heard.kinds == ["session.created"]


async def test_events_have_the_fields_of_the_running_program(manager: SessionManager, heard: Heard) -> None:
    """They are asked for when the change is submitted, on the event loop; one whose program has ended has none."""
    session = await manager.create_session(LOCAL)
    await manager.start_program(session.id, 80, 24)
    loop = asyncio.get_running_loop()

    def live(session_id: str) -> dict[str, object]:
        assert asyncio.get_running_loop() is loop
        return {"pid": 42, "clients": 2, "last_active": datetime(2020, 1, 1, tzinfo=UTC)}

    manager.live_fields = live
    heard.take()
    renamed = await manager.rename_session(session.id, "one")
    await manager.end_program(session.id, "terminated", 0)
    await manager.rename_session(session.id, "two")
    assert [data_of(event)["pid"] for event in heard.events] == [42, None, None]
    assert data_of(heard.events[0])["last_active"] == encoder.decode(encoder.encode(renamed.last_active))


async def test_clients_are_recorded_with_the_status(manager: SessionManager, heard: Heard) -> None:
    """The first client to come and the last to leave change the status, in one commit; the others are recorded too."""
    session = await manager.create_session(LOCAL)
    await manager.start_program(session.id, 80, 24)
    heard.take()
    one = ClientChange(attached=True, pid=7, read_only=False)
    two = ClientChange(attached=True, pid=None, read_only=True)
    await manager.update_session_status(session.id, "active", clients=[one])
    await manager.record_clients(session.id, [two])
    gone = [ClientChange(attached=False, pid=each.pid, read_only=each.read_only) for each in (one, two)]
    await manager.update_session_status(session.id, "detached", clients=gone)
    assert heard.kinds == ["session.attached"] * 2 + ["session.detached"] * 2
    told = [data_of(event) for event in heard.events]
    assert [(each["client_pid"], each["read_only"]) for each in told] == [(7, False), (None, True)] * 2
    assert [each["status"] for each in told] == ["active", "active", "detached", "detached"]


async def test_a_client_comes_to_the_session_as_it_is_by_then(manager: SessionManager, heard: Heard) -> None:
    """What the last event of a session says is what it is, also where a change of it is on its way to the disk."""
    session = await manager.create_session(LOCAL, "old")
    renaming = asyncio.ensure_future(manager.rename_session(session.id, "new"))
    await asyncio.sleep(0)
    await manager.record_clients(session.id, [ClientChange(attached=True, pid=7, read_only=False)])
    await renaming
    told = [(event.kind, data_of(event)["name"]) for event in heard.events[1:]]
    assert told == [("session.updated", "new"), ("session.attached", "new")]


# Lists and cursors


async def test_events_are_listed_by_kind_session_and_workspace(manager: SessionManager) -> None:
    """Filters are of names and of groups; saved snapshots come only where they are asked for."""
    workspace = await manager.create_workspace("w", GRID)
    inside = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id), "in")
    outside = await manager.create_session(LOCAL, "out")
    await manager.save_snapshot(inside.id, b"x")
    await manager.rename_session(outside.id, "side")

    async def listed(**options: Any) -> list[int | None]:
        return [event.seq for event in await manager.list_events(**{"after": 0, **options})]

    assert await listed() == [1, 2, 3, 5]
    assert await listed(kinds=["session.*"]) == [2, 3, 5]
    assert await listed(kinds=["snapshot.saved", "workspace.created"]) == [1, 4]
    assert await listed(kinds=["*"]) == [1, 2, 3, 4, 5]
    assert await listed(kinds=["session"]) == []
    assert await listed(session_id=outside.id) == [3, 5]
    assert await listed(workspace_id=workspace.id, kinds=["*"]) == [1, 2, 4]
    assert await listed(after=2) == [3, 5]
    assert await listed(after=1, until=3) == [2, 3]
    assert await listed(limit=2) == [1, 2]
    assert await listed(limit=0) == []
    assert await listed(after=None) == [1, 2, 3, 5]
    (event,) = await manager.list_events(after=4)
    assert (event.kind, event.cursor, data_of(event)["name"]) == ("session.updated", manager.cursor(5), "side")


async def test_events_are_listed_as_json_as_they_are(manager: SessionManager) -> None:
    """What subscribers are sent from the table is what they would have been sent at the commit, filters and all."""
    workspace = await manager.create_workspace('a "w" \u2028 é', GRID)
    await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id), "in")
    await manager.record_events([NewEvent(kind="daemon.warning", data=b'{"a" : 1.0, "\xc3\xa9":[null]}')])
    await settled(manager)
    for options in ({}, {"limit": 1}, {"kinds": ["session.*"]}, {"workspace_id": workspace.id}, {"after": 1}):
        found = await manager.list_events(**{"after": None, **options})  # type: ignore[arg-type]
        listed = await manager.list_events_json(**{"after": None, **options})  # type: ignore[arg-type]
        assert [seq for seq, _ in listed] == [each.seq for each in found]
        decoded = [msgspec.json.decode(json, type=Event) for _, json in listed]
        assert decoded == found
        assert [bytes(each.data) for each in decoded] == [bytes(each.data) for each in found]


async def test_a_page_of_large_events_is_a_short_one(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts may be large: a page ends before its limit where they are, and has at least one event."""
    monkeypatch.setattr(event_methods, "MAX_PAGE_BYTES", 10_000)
    large = WorkspaceLayout(layout_type="x", config="x" * 20_000)
    for number in range(3):
        await manager.create_workspace(str(number), large if number else GRID)
    assert [event.seq for event in await manager.list_events(after=0)] == [1, 2]
    assert [event.seq for event in await manager.list_events(after=2)] == [3]
    assert await manager.list_events(after=3) == []


async def test_cursors_are_checked(manager: SessionManager) -> None:
    """One that no event can have given is refused as such; one of another store, or ahead of this one, has expired."""
    await manager.create_session(LOCAL)
    assert manager.parse_cursor(manager.cursor(0)) == 0
    assert manager.parse_cursor(manager.cursor(1)) == 1
    for text in (
        "",
        "1",
        "x",
        "-1",
        f"{manager.epoch}-",
        f"{manager.epoch}-1 ",
        f"{manager.epoch}--1",
        "9" * 64,
        "é-1",
    ):
        with pytest.raises(InvalidParams):
            manager.parse_cursor(text)
    for text in ("0badcafe-1", manager.cursor(2), manager.cursor(10**18)):
        with pytest.raises(CursorExpired) as raised:
            manager.parse_cursor(text)
        assert raised.value.extra == {"oldest": manager.cursor(0)}


async def test_a_cursor_outlives_a_restart(path: Path) -> None:
    """Numbers go on where they were, but for some that are left out; what is read from a cursor on is what has come."""
    async with SessionManager.open(path) as manager:
        await manager.create_session(LOCAL, "one")
        cursor = manager.cursor(manager.newest_seq)
    async with SessionManager.open(path) as manager:
        assert manager.parse_cursor(cursor) == 1
        ahead = manager.cursor(manager.newest_seq)
        await manager.create_session(LOCAL, "two")
        (event,) = await manager.list_events(after=manager.parse_cursor(cursor))
        assert event.seq == 2 + LEFT_OUT
    async with SessionManager.open(path) as manager:
        assert len(await manager.list_events(after=manager.parse_cursor(ahead))) == 1


@pytest.mark.parametrize("way", ["restored", "copied over", "a copy in its place", "salvaged"])
async def test_another_store_has_another_epoch(path: Path, tmp_path: Path, way: str) -> None:
    """A backup in the database's place, however it came there, and what is salvaged give no old number again."""
    backup = tmp_path / "backup.db"
    async with SessionManager.open(path) as manager:
        await manager.create_session(LOCAL, "one")
        await manager.backup(str(backup))
        await manager.create_session(LOCAL, "two")
        old = manager.cursor(1)
    if way == "restored":
        restore.restore(str(backup), str(path))
    elif way == "copied over":
        shutil.copyfile(backup, path)
    elif way == "a copy in its place":
        shutil.copy(path, tmp_path / "copy")
        (tmp_path / "copy").chmod(0o600)
        (tmp_path / "copy").rename(path)
    else:
        with path.open("r+b") as file:
            file.write(b"\0" * 100)
        with pytest.raises(StorageCorrupt):
            await SessionManager.open(path)
    async with SessionManager.open(path, start_empty=way == "salvaged") as manager:
        assert (await manager.list_active_sessions())[0].name == "one"
        with pytest.raises(CursorExpired):
            manager.parse_cursor(old)
        epoch = manager.epoch
    async with SessionManager.open(path) as manager:
        assert manager.epoch == epoch


async def test_a_damaged_epoch_is_another_one(path: Path) -> None:
    """What the database says of its epoch or of what was dropped may be damaged: the store opens."""
    async with SessionManager.open(path) as manager:
        await manager.create_session(LOCAL)
    for value in ("", "x", "\udcff".encode("utf-8", "surrogateescape")):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for key in ("events_epoch", "events_dropped"):
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, CAST(? AS TEXT))", (key, value))
            connection.commit()
        async with SessionManager.open(path) as manager:
            assert len(await manager.list_events(after=None)) == 1
            assert manager.oldest_seq == 0


# What programs say


async def test_what_programs_say_waits_for_nobody(manager: SessionManager, heard: Heard) -> None:
    """It is on its way when the call returns, and is committed before what is written after it."""
    session = await manager.create_session(LOCAL)
    heard.take()
    await manager.record_events([NewEvent(kind=BELL, session_id=session.id, position=12)])
    assert heard.events == []
    await settled(manager)
    await manager.rename_session(session.id, "one")
    assert heard.kinds == [BELL, "session.updated"]
    assert await manager.newest_position(session.id) == 12


async def test_a_power_cut_gives_no_number_twice(path: Path) -> None:
    """What a disk has lost was published; the next event has a number that nobody has seen."""
    async with SessionManager.open(path) as manager:
        session = await manager.create_session(LOCAL)
        await manager.record_events([NewEvent(kind=BELL, session_id=session.id)] * 500)
        await settled(manager)
        seen = manager.newest_seq
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM events WHERE seq > 1")
        connection.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'events'")
        connection.commit()
    async with SessionManager.open(path) as manager:
        assert manager.parse_cursor(manager.cursor(seen)) == seen
        await manager.rename_session(session.id, "one")
        assert [event.kind for event in await manager.list_events(after=seen)] == ["session.updated"]


async def test_a_power_cut_that_leaves_no_event_gives_no_number_twice(path: Path) -> None:
    """A store so new that nothing of it is left leaves out numbers, too."""
    async with SessionManager.open(path) as manager:
        await manager.record_events([NewEvent(kind="daemon.started", data=b'{"version":"1"}')])
        await settled(manager)
        seen = manager.cursor(manager.newest_seq)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM events")
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
        connection.commit()
    async with SessionManager.open(path) as manager:
        session = await manager.create_session(LOCAL)
        (event,) = await manager.list_events(after=manager.parse_cursor(seen))
        assert (event.kind, event.session_id) == ("session.created", session.id)


async def test_what_a_gone_session_said_is_left_out(manager: SessionManager, heard: Heard) -> None:
    """Events that come after their session was deleted for good are not kept; the others of the call are."""
    session, gone = await manager.create_session(LOCAL), await manager.create_session(LOCAL)
    await manager.delete_session(gone.id)
    heard.take()
    said = [NewEvent(kind=BELL, session_id=each) for each in (gone.id, session.id, None)]
    await manager.record_events(said)
    await settled(manager)
    assert [event.session_id for event in heard.events] == [session.id, None]


async def test_closing_records_what_waits(path: Path) -> None:
    """What was said before the store was closed is there afterwards."""
    async with SessionManager.open(path) as manager:
        await manager.record_events([NewEvent(kind="daemon.stopping", data=b'{"version":"1"}')] * 250)
    async with SessionManager.open(path) as manager:
        assert len(await manager.list_events(after=None)) == 250


async def test_what_cannot_be_recorded_is_lost_without_harm(
    manager: SessionManager, heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a full disk what programs say is dropped, with one line in the log, and later events are recorded."""
    session, insert = await manager.create_session(LOCAL), manager._store.events.insert
    heard.take()
    full = True

    def failing(connection: sqlite3.Connection, events: Sequence[NewEvent]) -> list[Event]:
        if full:
            raise StorageFull("The disk is full")
        return insert(connection, events)

    monkeypatch.setattr(manager._store.events, "insert", failing)
    for _ in range(20):
        await manager.record_events([NewEvent(kind=BELL, session_id=session.id)])
        await settled(manager)
    full = False
    await manager.record_events([NewEvent(kind=BELL, session_id=session.id)])
    await settled(manager)
    assert heard.kinds == [BELL]
    logged = [(each.message, vars(each)["fields"]) for each in caplog.records if "record" in each.message]
    assert logged == [
        ("events not recorded", {"error": "The disk is full"}),
        ("events are recorded again", {"lost": 20}),
    ]


async def test_only_so_much_waits_for_the_writer(
    manager: SessionManager, heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What programs say beyond the limit, while nothing is written, is dropped and counted."""
    monkeypatch.setattr(event_recorder, "MAX_PENDING", 10)
    session = await manager.create_session(LOCAL)
    heard.take()
    for _ in range(3):
        await manager.record_events([NewEvent(kind=BELL, session_id=session.id)] * 6)
    await settled(manager)
    assert heard.kinds == [BELL] * 10
    assert [vars(each)["fields"] for each in caplog.records if "were dropped" in each.message] == [{"events": 8}]


# Retention


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can reach."""
    monkeypatch.setattr(event_recorder, "SAID_A_SESSION", 20)
    monkeypatch.setattr(event_recorder, "_AT_ONCE", 7)


@pytest.mark.usefixtures("small")
async def test_the_newest_changes_are_kept(path: Path, manager: SessionManager) -> None:
    """So many of them; a cursor from before has expired, and names the oldest that can be used, which can."""
    manager.event_retention_count = 30
    session = await manager.create_session(LOCAL)
    await manager.record_events([NewEvent(kind=BELL, session_id=session.id)])
    await settled(manager)
    for number in range(60):
        await manager.rename_session(session.id, str(number))
    await settled(manager)
    kept = await manager.list_events(after=None, kinds=["session.*"])
    assert 30 <= len(kept) <= 33
    assert [event.seq for event in kept] == list(range(62 - len(kept) + 1, 63))
    assert len(await manager.list_events(after=None, kinds=[BELL])) == 0  # it is older than the oldest cursor
    assert rows(path, "SELECT count(*) FROM events WHERE kind = ?", BELL) == [(1,)]
    with pytest.raises(CursorExpired) as raised:
        manager.parse_cursor(manager.cursor(5))
    assert manager.parse_cursor(raised.value.extra["oldest"]) == manager.oldest_seq == 62 - len(kept)
    with pytest.raises(CursorExpired):
        await manager.list_events(after=5)
    async with SessionManager.open(path) as second:
        assert second.oldest_seq == manager.oldest_seq


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", [BELL, "snapshot.saved"])
async def test_a_program_pushes_out_its_own_events_only(manager: SessionManager, kind: str) -> None:
    """Of what one session says so much is kept, and all of what others say, and of the changes."""
    loud, quiet = await manager.create_session(LOCAL), await manager.create_session(LOCAL)
    await manager.record_events([NewEvent(kind=BELL, session_id=quiet.id)] * 5)
    for _ in range(10):
        await manager.record_events([NewEvent(kind=kind, session_id=loud.id)] * 10)
        await settled(manager)
    kept = await manager.list_events(after=0, kinds=["*"])
    assert [event.session_id for event in kept if event.kind == "session.created"] == [loud.id, quiet.id]
    assert len([event for event in kept if event.session_id == quiet.id]) == 6
    assert 20 <= len([event for event in kept if (event.session_id, event.kind) == (loud.id, kind)]) <= 30
    assert kept[-1].seq == 107


async def test_there_is_a_budget_of_bytes(path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large layouts push older events out before their number does; what programs say has a budget of its own."""
    monkeypatch.setattr(event_recorder, "MIN_BYTES", 100_000)
    monkeypatch.setattr(event_recorder, "BYTES_A_CHANGE", 0)
    monkeypatch.setattr(event_recorder, "SAID_BYTES", 50_000)
    monkeypatch.setattr(event_recorder, "_PRUNED_AFTER_BYTES", 10_000)
    workspace = await manager.create_workspace("w", GRID)
    session = await manager.create_session(LOCAL)
    for number in range(30):
        config = f"{number}" + "x" * 20_000
        await manager.update_workspace_layout(workspace.id, WorkspaceLayout(layout_type="x", config=config))
        said = NewEvent(kind="terminal.notification", session_id=session.id, data=b'{"body":"%b"}' % (b"y" * 10_000))
        await manager.record_events([said])
        await settled(manager)
    sizes = dict(rows(path, "SELECT retention, sum(size) FROM events GROUP BY retention"))
    assert 50_000 <= sizes[None] <= 130_000
    assert 30_000 <= sizes[1] <= 70_000
    assert manager.oldest_seq > 0


@pytest.mark.usefixtures("small")
async def test_a_smaller_limit_counts_from_the_next_event_on(path: Path) -> None:
    """Where the settings have changed, what is too much is dropped in slices after the start."""
    async with SessionManager.open(path) as manager:
        for _ in range(50):
            await manager.create_session(LOCAL)
    async with SessionManager.open(path) as manager:
        manager.event_retention_count = 5
        await manager.create_session(LOCAL)
        await settled(manager)
        assert len(await manager.list_events(after=None)) == 5


async def test_listing_notices_what_is_dropped_meanwhile(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reader never passes over events silently: where its place was dropped while it read, it is told."""
    for _ in range(3):
        await manager.create_session(LOCAL)
    fetch = manager._store.fetch

    async def slow(*args: Any) -> Any:
        found = await fetch(*args)
        manager._store.events.floor = 2
        return found

    monkeypatch.setattr(manager._store, "fetch", slow)
    with pytest.raises(CursorExpired):
        await manager.list_events(after=1)


async def test_listing_notices_a_drop_that_is_on_disk_and_not_told_of(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit of what drops events and the loop's turn that hears of it, nothing is passed over either."""
    session = await manager.create_session(LOCAL)
    for number in range(20):
        await manager.rename_session(session.id, str(number))
    writer, drop = manager._store.writer, event_recorder._drop_slice
    tell, has_dropped, is_on_disk, go_on = writer._call_on_loop, threading.Event(), threading.Event(), threading.Event()

    def noting(*args: Any, **more: Any) -> Any:
        has_dropped.set()
        return drop(*args, **more)

    def held(*args: Any) -> None:
        if has_dropped.is_set():
            is_on_disk.set()
            assert go_on.wait(10)
        tell(*args)

    monkeypatch.setattr(event_recorder, "_drop_slice", noting)
    monkeypatch.setattr(writer, "_call_on_loop", held)
    manager.event_retention_count = 5
    await manager.rename_session(session.id, "last")
    try:
        assert await asyncio.to_thread(is_on_disk.wait, 10)
        with pytest.raises(CursorExpired):
            await manager.list_events(after=2)
        assert [event.seq for event in await manager.list_events(after=manager.oldest_seq)] == [18, 19, 20, 21, 22]
    finally:
        go_on.set()


# Deletion for good, damage


@pytest.mark.parametrize("first", ["trashed", "at once"])
async def test_a_purge_takes_the_events_along(manager: SessionManager, heard: Heard, first: str) -> None:
    """Nothing of a session that is deleted for good stays in its events, but that it is gone; that is told once."""
    session, other = await manager.create_session(LOCAL, "secret"), await manager.create_session(LOCAL, "other")
    await manager.save_snapshot(session.id, b"x")
    await manager.record_events([NewEvent(kind="command.finished", session_id=session.id, data=b'{"command":"pw"}')])
    if first == "trashed":
        await manager.trash_session(session.id)
    await settled(manager)
    heard.take()
    await manager.purge_deleted() if first == "trashed" else await manager.delete_session(session.id)
    assert heard.take() == ([] if first == "trashed" else ["session.deleted"])
    (event,) = await manager.list_events(after=0, session_id=session.id, kinds=["*"])
    assert (event.kind, data_of(event)) == ("session.deleted", {"purged": True})
    assert [one.kind for one in await manager.list_events(after=0, session_id=other.id)] == ["session.created"]
    report = await manager.check()
    assert (report.ok, report.rows) == (True, [])


async def test_nothing_is_counted_of_a_session_in_the_trash(manager: SessionManager, heard: Heard) -> None:
    """What is known of a session goes with it: a daemon that runs for a year has had many."""
    session = await manager.create_session(LOCAL)
    await manager.record_events([NewEvent(kind=kind, session_id=session.id) for kind in (BELL, "snapshot.saved")])
    await settled(manager)
    counted = manager._store.recorder._said
    assert set(counted) == {(session.id, 1), (session.id, 2)}
    await manager.trash_session(session.id)
    assert not counted


@pytest.mark.parametrize("first", ["trashed", "at once"])
async def test_many_events_are_purged_in_slices(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """A session that has many is gone after one call all the same, and others write in between."""
    for module in (maintenance, sessions):
        monkeypatch.setattr(module, "_DELETED_AT_ONCE", 5)
    session = await manager.create_session(LOCAL)
    for number in range(22):
        await manager.rename_session(session.id, str(number))
    for _ in range(7):
        await manager.save_snapshot(session.id, b"x")
    if first == "trashed":
        await manager.trash_session(session.id)
        assert await manager.purge_deleted() == 1
    else:
        await manager.delete_session(session.id)
    assert [event.kind for event in await manager.list_events(after=0, kinds=["*"])] == ["session.deleted"]


async def test_a_session_that_an_earlier_orbit_has_trashed_is_purged_silently(
    path: Path, manager: SessionManager, heard: Heard
) -> None:
    """Whoever reads events has never heard of it."""
    session = await manager.create_session(LOCAL)
    await manager.trash_session(session.id)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM events")
        connection.commit()
    heard.take()
    await manager.delete_session(session.id)
    assert (heard.kinds, await manager.list_events(after=0)) == ([], [])


async def test_the_archive_keeps_events(manager: SessionManager) -> None:
    """What has happened to a session is there when it is in the archive."""
    session = await manager.create_session(LOCAL)
    await manager.terminate_session(session.id)
    await manager.archive_sessions(datetime.now(UTC))
    kinds = [event.kind for event in await manager.list_events(after=0, session_id=session.id)]
    assert kinds == ["session.created", "session.terminated", "session.archived"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("data", "'{}'"), ("kind", "'session.x'"), ("checksum", "0"), ("data", "CAST(x'ff' AS TEXT)"), ("size", "'many'")],
)
async def test_a_damaged_event_is_left_out_and_named(path: Path, column: str, value: str) -> None:
    """All others are listed; it is named by the check until retention drops it."""
    async with SessionManager.open(path) as manager:
        for name in ("one", "two", "three"):
            await manager.create_session(LOCAL, name)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        with contextlib.suppress(sqlite3.IntegrityError):  # a wrong type: STRICT refuses it, and nothing is damaged
            connection.execute(f"UPDATE events SET {column} = {value} WHERE seq = 2")
        connection.commit()
        changed = connection.total_changes
    async with SessionManager.open(path) as manager:
        left = {event.seq for event in await manager.list_events(after=0)}
        assert left == {seq for seq, _ in await manager.list_events_json(after=0)}
        assert left == ({1, 3} if changed else {1, 2, 3})
        named = [row for row in (await manager.check()).rows if "row 2 of events" in row]
        assert len(named) == changed
        assert (await manager.list_events(after=0, limit=1))[0].seq == 1
        assert (await manager.list_events(after=1, limit=1))[0].seq == (3 if changed else 2)
        manager.event_retention_count = 1
        await manager.create_session(LOCAL)
        await settled(manager)
        await manager.watch()
        assert (await manager.check()).rows == []


# The events are the changes


class Model:
    """What somebody knows who has only ever heard events."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}
        self.workspaces: dict[str, dict[str, Any]] = {}

    def copy(self) -> Model:
        copied = Model()
        copied.sessions, copied.workspaces = self.sessions.copy(), self.workspaces.copy()
        return copied

    def apply(self, event: Event) -> None:
        family, _, what = event.kind.partition(".")
        known = self.sessions if family == "session" else self.workspaces
        item_id = event.session_id if family == "session" else event.workspace_id
        assert item_id is not None
        if what == "deleted":
            known.pop(item_id, None)
        else:
            known[item_id] = _comparable(data_of(event))

    @classmethod
    async def read(cls, manager: SessionManager) -> Model:
        """Return what a client reads by the other methods."""
        model = cls()
        for session in (await manager.list_sessions(status=EVERY_STATUS)).sessions:
            model.sessions[session.id] = _comparable(json.loads(encoder.encode(session)))
        for workspace in (await manager.list_workspaces()).workspaces:
            model.workspaces[workspace.id] = json.loads(encoder.encode(workspace))
        return model


def _comparable(told: dict[str, Any]) -> dict[str, Any]:
    """Return an item without what changes without an event: touches and saves."""
    left_out = ("last_active", "last_saved_at", "client_pid", "read_only", "reason")
    return {name: value for name, value in told.items() if name not in left_out}


class Changes:
    """Changes by name, each of a session and with a choice."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        self.sessions = [UNKNOWN]
        self.workspaces = [UNKNOWN]

    async def make(self, name: str, which: int, choice: int) -> None:
        session, m = self.sessions[which % len(self.sessions)], self.manager
        workspace = self.workspaces[choice % len(self.workspaces)]
        where = None if workspace == UNKNOWN else workspace
        names = [None, "a", "b", "c"]
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "rename": lambda: m.rename_session(session, names[choice % 4]),
            "label": lambda: m.set_labels(session, {"a": names[choice % 4]}),
            "move": lambda: m.move_session(session, where),
            "front": lambda: m.set_active_session(workspace, session),
            "status": lambda: m.update_session_status(session, EVERY_STATUS[choice % 3]),
            "start": lambda: m.start_program(session, 80, 24),
            "end": lambda: m.end_program(session, EVERY_STATUS[1 + choice % 2], choice),
            "save": lambda: m.save_snapshot(session, b"x"),
            "touch": lambda: m.touch_session(session),
            "trash": lambda: m.trash_session(session),
            "undelete": lambda: m.undelete_session(session),
            "purge": lambda: m.delete_session(session),
            "empty trash": m.purge_deleted,
            "archive": lambda: m.archive_sessions(datetime.now(UTC)),
            "restore": lambda: m.restore_archived_session(session),
            "rename workspace": lambda: m.rename_workspace(workspace, names[1 + choice % 3] or ""),
            "layout": lambda: m.update_workspace_layout(workspace, WorkspaceLayout(layout_type="x", config=choice)),
            "delete workspace": lambda: m.delete_workspace(workspace, choice % 2 == 0, purge=which % 2 == 0),
        }
        if name == "create":
            config = SessionConfig(session_type="local", workspace_id=where)
            self.sessions.append((await m.create_session(config, names[which % 4])).id)
        elif name == "create workspace":
            self.workspaces.append((await m.create_workspace(f"{which}", GRID)).id)
        else:
            await calls[name]()


NAMES = [
    *("create", "create", "create workspace", "rename", "label", "move", "front", "status", "start", "end", "save"),
    *("touch", "trash", "undelete", "purge", "empty trash", "archive", "restore", "rename workspace", "layout"),
    *("delete workspace", "reopen", "mark", "fail"),
]
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5), st.integers(0, 5)), min_size=5, max_size=40)


@contextlib.contextmanager
def failing_once(manager: SessionManager) -> Iterator[None]:
    """Have the next change fail after its event was inserted."""
    events, insert = manager._store.events, manager._store.events.insert

    def fail(connection: sqlite3.Connection, new: Sequence[NewEvent]) -> list[Event]:
        insert(connection, new)
        raise ZeroDivisionError

    events.insert = fail  # type: ignore[method-assign]  # for one call
    try:
        yield
    finally:
        events.insert = insert  # type: ignore[method-assign]  # as it was


@example([("create workspace", 0, 0), ("create", 1, 1), ("front", 1, 1), ("mark", 0, 0), ("delete workspace", 0, 1)])
@example([("create", 1, 0), ("mark", 0, 0), ("trash", 1, 0), ("mark", 0, 0), ("purge", 1, 0), ("create", 1, 0)])
@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_events_replayed_are_the_state(steps: list[tuple[str, int, int]]) -> None:
    """Whoever has heard every event knows every session and workspace; so does who reads on from any moment."""

    async def play(path: Path) -> None:
        heard: list[Event] = []
        marks: list[tuple[str, Model]] = []
        manager = await SessionManager.open(path)
        changes = Changes(manager)
        is_failing = False
        for name, which, choice in steps:
            manager.on_events = heard.extend
            if name == "reopen":
                await manager.close()
                changes.manager = manager = await SessionManager.open(path)
            elif name == "mark":
                marks.append((manager.cursor(manager.newest_seq), await Model.read(manager)))
            elif name == "fail":
                is_failing = True
            else:
                failing = failing_once(manager) if is_failing else contextlib.nullcontext()
                with failing, contextlib.suppress(OrbitError, ZeroDivisionError):
                    await changes.make(name, which, choice)
                is_failing = False
        now = await Model.read(manager)
        marks.append((manager.cursor(0), Model()))
        for cursor, model in marks:
            for event in await manager.list_events(after=manager.parse_cursor(cursor)):
                model.apply(event)
            assert (model.sessions, model.workspaces) == (now.sessions, now.workspaces)
        live = Model()
        for event in heard:
            if event.kind != "snapshot.saved":
                live.apply(event)
        assert (live.sessions, live.workspaces) == (now.sessions, now.workspaces)
        assert [event.seq for event in heard] == sorted({event.seq for event in heard if event.seq is not None})
        assert (await manager.check()).ok
        await manager.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "orbit" / "sessions.db"))
