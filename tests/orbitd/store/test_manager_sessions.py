"""Sessions through the manager: what is recorded, refused, found and listed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orbit_protocol.errors import (
    AmbiguousReference,
    InvalidParams,
    InvalidTransition,
    NameTaken,
    SessionNotFound,
    WorkspaceNotFound,
)
from orbit_protocol.params import SessionConfigInput
from orbit_protocol.types import Session, SessionConfig, SessionStatus
from orbitd.manager import SessionManager
from orbitd.store import damage, sessions
from orbitd.store.rows import Row, Stored, time_to_text
from store_support import GRID, LOCAL, UNKNOWN, rows

STATUSES: tuple[SessionStatus, ...] = ("active", "detached", "terminated")
ALLOWED = {
    ("active", "detached"),
    ("detached", "active"),
    ("active", "terminated"),
    ("detached", "terminated"),
    ("terminated", "active"),
}


async def names(manager: SessionManager, **query: object) -> list[str | None]:
    page = await manager.list_sessions(**query)  # type: ignore[arg-type]
    return [session.name for session in page.sessions]


async def reopened(path: Path, session_id: str) -> Session:
    async with SessionManager.open(str(path)) as again:
        return await again.get_session(session_id)


async def test_created_session(path: Path, manager: SessionManager) -> None:
    """A new session is active from the moment of its creation, and the same when read from disk."""
    before = datetime.now(UTC)
    config = SessionConfig(session_type="ssh", host="example.org", port=2222, username="me", command="top -d 1")
    session = await manager.create_session(config, name="server")
    assert session.name == "server"
    assert session.session_type == "ssh"
    assert session.status == "active"
    assert session.config == config
    assert session.workspace_id is None
    assert before <= session.created_at == session.last_active <= datetime.now(UTC)
    assert await manager.get_session(session.id) == session
    await manager.close()
    assert await reopened(path, session.id) == session


async def test_ids_are_uuid4(manager: SessionManager) -> None:
    """An id is the text of a version 4 UUID."""
    session = await manager.create_session(LOCAL)
    assert len(session.id) == 36
    assert session.id[14] == "4"
    assert session.id[19] in "89ab"


async def test_row_is_readable_for_others(path: Path, manager: SessionManager) -> None:
    """The columns that the contract names hold what their names say, config as JSON."""
    workspace = await manager.create_workspace("w", GRID)
    session = await manager.create_session(SessionConfig(session_type="local", workspace_id=workspace.id), name="n")
    found = rows(
        path,
        "SELECT session_type, status, config ->> 'session_type', config ->> 'workspace_id', workspace_id, created_at"
        " FROM sessions WHERE id = ?",
        session.id,
    )
    written = session.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert found == [("local", "active", "local", workspace.id, workspace.id, written)]


async def test_input_types_become_base_types(manager: SessionManager) -> None:
    """What a client sent is stored and returned as the type without `Input`."""
    session = await manager.create_session(SessionConfigInput(session_type="local"))
    assert type(session.config) is SessionConfig


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", "\x1b[31m", "a\x7f", "a\x9bb", "\ud800"])
async def test_bad_names_are_refused(manager: SessionManager, name: str) -> None:
    """A name that is empty, too long, steers a terminal or is no Unicode is refused, and nothing is recorded."""
    with pytest.raises(InvalidParams):
        await manager.create_session(LOCAL, name=name)
    session = await manager.create_session(LOCAL, name="good")
    with pytest.raises(InvalidParams):
        await manager.rename_session(session.id, name)
    with pytest.raises(InvalidParams):
        await manager.create_workspace(name, GRID)
    assert await names(manager) == ["good"]


@pytest.mark.parametrize("name", ["x" * 256, "ünïcødé ✓", "two words", "a'b\"; DROP TABLE sessions --", "%_*"])
async def test_good_names(manager: SessionManager, name: str) -> None:
    """Any other name comes back as it was given and finds its session."""
    session = await manager.create_session(LOCAL, name=name)
    assert session.name == name
    assert await manager.find_session(name) == session


async def test_values_of_wrong_types_are_refused(manager: SessionManager) -> None:
    """A configuration that a wire would have refused is refused from Python too."""
    with pytest.raises(InvalidParams):
        await manager.create_session(SessionConfig(session_type="ssh", host="h", port=70_000))
    with pytest.raises(InvalidParams):
        await manager.create_session(SessionConfig(session_type="local", command="\ud800"))


async def test_name_is_unique_among_those_not_terminated(manager: SessionManager) -> None:
    """A name is taken while its session is not terminated, and free again after."""
    first = await manager.create_session(LOCAL, name="one")
    with pytest.raises(NameTaken) as caught:
        await manager.create_session(LOCAL, name="one")
    assert caught.value.extra == {"id": first.id}
    await manager.terminate_session(first.id)
    second = await manager.create_session(LOCAL, name="one")
    with pytest.raises(NameTaken):
        await manager.update_session_status(first.id, "active")
    await manager.terminate_session(second.id)
    assert (await manager.update_session_status(first.id, "active")).name == "one"


async def test_of_many_with_one_name_one_is_created(manager: SessionManager) -> None:
    """Calls at the same time cannot take a name twice."""
    calls = (manager.create_session(LOCAL, name="same") for _ in range(20))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, Session) for result in results) == 1
    assert sum(isinstance(result, NameTaken) for result in results) == 19


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATUSES, STATUSES)))
async def test_moves_of_status(manager: SessionManager, before: SessionStatus, after: SessionStatus) -> None:
    """Of all changes exactly those of the contract are made; each moves last_active, and none to the same does."""
    session = await manager.create_session(LOCAL)
    if before != "active":
        session = await manager.update_session_status(session.id, before)
    if (before, after) in ALLOWED:
        changed = await manager.update_session_status(session.id, after)
        assert changed.status == after
        assert changed.last_active > session.last_active
        assert await manager.get_session(session.id) == changed
    elif before == after:
        assert await manager.update_session_status(session.id, after) == session
        assert await manager.get_session(session.id) == session
    else:
        with pytest.raises(InvalidTransition):
            await manager.update_session_status(session.id, after)
        assert await manager.get_session(session.id) == session


async def test_archived_is_no_status_to_set(manager: SessionManager) -> None:
    """Only archiving archives."""
    session = await manager.create_session(LOCAL)
    with pytest.raises(InvalidTransition):
        await manager.update_session_status(session.id, "archived")


async def test_detach_and_terminate(manager: SessionManager) -> None:
    """The short forms set the status that their names say; a terminated session is still there."""
    session = await manager.create_session(LOCAL, name="x")
    assert (await manager.detach_session(session.id)).status == "detached"
    ended = await manager.terminate_session(session.id)
    assert ended.status == "terminated"
    assert await manager.get_session(session.id) == ended
    with pytest.raises(InvalidTransition):
        await manager.detach_session(session.id)


async def test_rename(manager: SessionManager) -> None:
    """A name can be changed, kept, and taken away; the old one is free and finds nothing."""
    session = await manager.create_session(LOCAL, name="old")
    assert (await manager.rename_session(session.id, "old")).name == "old"
    renamed = await manager.rename_session(session.id, "new")
    assert await manager.find_session("new") == renamed
    with pytest.raises(SessionNotFound):
        await manager.find_session("old")
    other = await manager.create_session(LOCAL, name="old")
    with pytest.raises(NameTaken):
        await manager.rename_session(session.id, "old")
    assert (await manager.rename_session(other.id, None)).name is None
    assert (await manager.rename_session(session.id, "old")).last_active == session.last_active


async def test_delete(path: Path, manager: SessionManager) -> None:
    """A deleted session is gone with its snapshots, and its name is free."""
    session = await manager.create_session(LOCAL, name="x")
    await manager.save_snapshot(session.id, b"screen")
    await manager.delete_session(session.id)
    with pytest.raises(SessionNotFound):
        await manager.get_session(session.id)
    assert rows(path, "SELECT count(*) FROM session_snapshots") == [(0,)]
    await manager.create_session(LOCAL, name="x")


async def test_unknown_session(manager: SessionManager) -> None:
    """Every method answers 1000 for an id that no session has."""
    calls = (
        manager.get_session(UNKNOWN),
        manager.find_session(UNKNOWN),
        manager.find_session("nobody"),
        manager.update_session_status(UNKNOWN, "detached"),
        manager.detach_session(UNKNOWN),
        manager.terminate_session(UNKNOWN),
        manager.delete_session(UNKNOWN),
        manager.rename_session(UNKNOWN, "x"),
        manager.move_session(UNKNOWN, None),
        manager.touch_session(UNKNOWN),
        manager.restore_archived_session(UNKNOWN),
        manager.save_snapshot(UNKNOWN, b""),
        manager.load_latest_snapshot(UNKNOWN),
        manager.list_snapshots(UNKNOWN),
    )
    for call in calls:
        with pytest.raises(SessionNotFound):
            await call


async def test_unknown_workspace(manager: SessionManager) -> None:
    """A workspace that is not there is 1200 wherever a session names it."""
    session = await manager.create_session(LOCAL)
    calls = (
        manager.create_session(SessionConfig(session_type="local", workspace_id=UNKNOWN)),
        manager.move_session(session.id, UNKNOWN),
        manager.list_sessions(workspace_id=UNKNOWN),
    )
    for call in calls:
        with pytest.raises(WorkspaceNotFound):
            await call


async def test_find_by_prefix(manager: SessionManager) -> None:
    """Four characters of an id and more find it, in either case; fewer do not."""
    session = await manager.create_session(LOCAL)
    assert await manager.find_session(session.id) == session
    assert await manager.find_session(session.id[:4]) == session
    assert await manager.find_session(session.id[:20].upper()) == session
    with pytest.raises(SessionNotFound):
        await manager.find_session(session.id[:3])


async def test_ambiguous_prefix(path: Path, manager: SessionManager) -> None:
    """A prefix of two ids is 1003 with both ids and what a person knows them by, also where one is terminated."""
    first = await manager.create_session(SessionConfig(session_type="local", command="top -d 1"), name="n")
    second = await manager.create_session(LOCAL)
    ended = await manager.terminate_session(second.id)
    await manager.close()
    rows(path, "UPDATE sessions SET id = 'abcd1' || substr(id, 6), checksum = NULL WHERE id = ?", first.id)
    rows(path, "UPDATE sessions SET id = 'abcd2' || substr(id, 6), checksum = NULL WHERE id = ?", second.id)
    async with SessionManager.open(str(path)) as again:
        with pytest.raises(AmbiguousReference) as caught:
            await again.find_session("abcd")
        ids = ["abcd1" + first.id[5:], "abcd2" + second.id[5:]]
        since = [time_to_text(first.created_at), time_to_text(ended.last_active)]
        assert caught.value.extra["candidates"] == ids
        assert caught.value.extra["sessions"] == [
            {"id": ids[0], "name": "n", "status": "active", "since": since[0], "command": "top -d 1"},
            {"id": ids[1], "name": None, "status": "terminated", "since": since[1], "command": None},
        ]
        assert (await again.find_session("abcd2")).id == "abcd2" + second.id[5:]


async def test_name_of_the_living_comes_first(manager: SessionManager) -> None:
    """A name finds the one that has it now; if none has, the newest of those that had it, archived ones last."""
    old = await manager.create_session(LOCAL, name="x")
    await manager.terminate_session(old.id)
    new = await manager.create_session(LOCAL, name="x")
    assert (await manager.find_session("x")).id == new.id
    await manager.rename_session(new.id, "y")
    assert (await manager.find_session("x")).id == old.id
    await manager.rename_session(new.id, "x")
    await manager.terminate_session(new.id)
    assert (await manager.find_session("x")).id == new.id
    await manager.archive_sessions(datetime.now(UTC))
    assert (await manager.find_session("x")).id == new.id
    await manager.restore_archived_session(old.id)
    assert (await manager.find_session("x")).id == old.id


async def test_labels_are_set_removed_and_kept(path: Path, manager: SessionManager) -> None:
    """Those that are named change, the others stay; they are on disk, and an archived session keeps its."""
    session = await manager.create_session(LOCAL)
    assert session.labels == {}
    await manager.set_labels(session.id, {"team": "web", "cafe\u0301": "a=b"})
    changed = await manager.set_labels(session.id, {"team": None, "absent": None, "empty": ""})
    assert changed.labels == {"caf\u00e9": "a=b", "empty": ""}
    assert await reopened(path, session.id) == changed
    await manager.terminate_session(session.id)
    await manager.archive_sessions(datetime.now(UTC))
    assert (await manager.get_session(session.id)).labels == changed.labels


async def test_a_session_has_sixty_four_labels_at_most(manager: SessionManager) -> None:
    """The limit counts those that are there afterwards; what is over it, or cannot be typed, changes nothing."""
    session = await manager.create_session(LOCAL)
    await manager.set_labels(session.id, {f"k{number}": "v" for number in range(64)})
    full = await manager.set_labels(session.id, {"k0": None, "k64": "v"})
    assert len(full.labels) == 64
    for bad in ({"k0": "v"}, {"k=1": "v"}, {"k1": "\x1b"}, {"": "v"}, {"k1": "v" * 257}, {"k" * 257: None}):
        with pytest.raises(InvalidParams):
            await manager.set_labels(session.id, bad)
    assert await manager.get_session(session.id) == full


@pytest.mark.parametrize("status", [None, ["terminated"], ["active", "terminated", "archived"]])
async def test_lists_by_labels(manager: SessionManager, status: list[SessionStatus] | None) -> None:
    """All labels that are asked for must be a session's, in memory and on disk, over several pages too."""
    wanted = []
    for labels in ({"a": "1"}, {"a": "1", "b": "2"}, {"b": "2", "a": "12"}, {}, {"a": "2", "b": "1"}, {'"a": "1': "2"}):
        session = await manager.create_session(LOCAL)
        await manager.set_labels(session.id, labels)
        if status is not None:
            await manager.terminate_session(session.id)
        wanted.append(session.id)

    async def ids(labels: dict[str, str]) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = await manager.list_sessions(status=status, labels=labels, limit=1, cursor=cursor)
            found += [one.id for one in page.sessions]
            if (cursor := page.next_cursor) is None:
                return found

    assert await ids({"a": "1"}) == [wanted[0], wanted[1]]
    assert await ids({"a": "1", "b": "2"}) == [wanted[1]]
    assert await ids({"b": "2"}) == [wanted[1], wanted[2]]
    assert await ids({"a": "3"}) == []
    assert await ids({}) == wanted


async def test_resume_is_set_and_removed(path: Path, manager: SessionManager) -> None:
    """The command for coming back is a part of the configuration, of an ended session too."""
    session = await manager.create_session(LOCAL)
    await manager.terminate_session(session.id)
    changed = await manager.set_resume(session.id, "vim -r")
    assert changed.config == SessionConfig(session_type="local", resume="vim -r")
    assert await reopened(path, session.id) == changed
    assert (await manager.set_resume(session.id, None)).config == LOCAL
    with pytest.raises(InvalidParams):
        await manager.set_resume(session.id, "a\0b")


async def test_a_name_that_looks_like_a_prefix(manager: SessionManager) -> None:
    """A name is found before an id that begins the same."""
    one = await manager.create_session(LOCAL)
    other = await manager.create_session(LOCAL, name=one.id[:8])
    assert (await manager.find_session(one.id[:8])).id == other.id


async def test_list_defaults_and_filters(manager: SessionManager) -> None:
    """Lists are oldest first; without a status they have what is active or detached; filters combine."""
    workspace = await manager.create_workspace("w", GRID)
    inside = SessionConfig(session_type="local", workspace_id=workspace.id)
    a = await manager.create_session(LOCAL, name="a")
    b = await manager.create_session(SessionConfig(session_type="ssh", host="h"), name="b")
    c = await manager.create_session(inside, name="c")
    d = await manager.create_session(inside, name="d")
    await manager.detach_session(b.id)
    await manager.terminate_session(d.id)
    assert await names(manager) == ["a", "b", "c"]
    assert [session.id for session in await manager.list_active_sessions()] == [a.id, b.id, c.id]
    assert await names(manager, status=["detached"]) == ["b"]
    assert await names(manager, status=["terminated"]) == ["d"]
    assert await names(manager, status=["terminated", "active"]) == ["a", "c", "d"]
    assert await names(manager, status=["active", "detached", "terminated", "archived"]) == ["a", "b", "c", "d"]
    assert await names(manager, session_type="ssh") == ["b"]
    assert await names(manager, workspace_id=workspace.id) == ["c"]
    assert await names(manager, workspace_id=workspace.id, status=["terminated"]) == ["d"]
    assert await names(manager, workspace_id=workspace.id, session_type="ssh") == []


async def test_order_survives_a_second_life(manager: SessionManager) -> None:
    """A terminated session that becomes active again is listed where it always was."""
    sessions = [await manager.create_session(LOCAL, name=name) for name in "abc"]
    await manager.terminate_session(sessions[0].id)
    await manager.update_session_status(sessions[0].id, "active")
    assert await names(manager) == ["a", "b", "c"]


@pytest.mark.parametrize("status", [None, ["active", "terminated"]], ids=["memory", "disk"])
async def test_pages(manager: SessionManager, status: list[SessionStatus] | None) -> None:
    """Pages follow each other without gap or repetition, whatever is created and deleted between them."""
    sessions = [await manager.create_session(LOCAL, name=str(number)) for number in range(5)]
    first = await manager.list_sessions(status=status, limit=2)
    assert [session.name for session in first.sessions] == ["0", "1"]
    await manager.delete_session(sessions[1].id)
    await manager.delete_session(sessions[2].id)
    await manager.create_session(LOCAL, name="new")
    second = await manager.list_sessions(status=status, limit=2, cursor=first.next_cursor)
    assert [session.name for session in second.sessions] == ["3", "4"]
    third = await manager.list_sessions(status=status, limit=2, cursor=second.next_cursor)
    assert [session.name for session in third.sessions] == ["new"]
    assert third.next_cursor is None


async def test_full_last_page_has_no_cursor(manager: SessionManager) -> None:
    """A page that ends with the last session says that it is the last."""
    for _ in range(2):
        await manager.create_session(LOCAL)
    assert (await manager.list_sessions(limit=2)).next_cursor is None
    assert (await manager.list_sessions(limit=2, status=["active", "terminated"])).next_cursor is None


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 10_001}, {"cursor": "zz"}, {"cursor": ""}, {"status": ["x"]}]
)
async def test_bad_queries(manager: SessionManager, query: dict[str, object]) -> None:
    """A limit, cursor or status that cannot be is refused."""
    with pytest.raises(InvalidParams):
        await names(manager, **query)


async def test_page_is_bounded_in_bytes(manager: SessionManager) -> None:
    """Sessions with long commands fill a page before its limit does; the rest follows."""
    config = SessionConfig(session_type="local", command="x" * 65_536)
    await asyncio.gather(*(manager.create_session(config) for _ in range(50)))
    sizes, cursor = [], None
    while True:
        page = await manager.list_sessions(cursor=cursor)
        sizes.append(len(page.sessions))
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sum(sizes) == 50
    assert max(sizes) * 65_536 * 6 <= 8 * 1024 * 1024


async def test_move(manager: SessionManager) -> None:
    """A session moves between workspaces and out; column, config and the front of the workspace follow."""
    one, two = [await manager.create_workspace(name, GRID) for name in ("one", "two")]
    session = await manager.create_session(SessionConfig(session_type="local", workspace_id=one.id))
    await manager.set_active_session(one.id, session.id)
    assert (await manager.move_session(session.id, one.id)).workspace_id == one.id
    assert (await manager.get_workspace(one.id)).active_session_id == session.id
    moved = await manager.move_session(session.id, two.id)
    assert (moved.workspace_id, moved.config.workspace_id) == (two.id, two.id)
    assert (await manager.get_workspace(one.id)).active_session_id is None
    out = await manager.move_session(session.id, None)
    assert (out.workspace_id, out.config.workspace_id) == (None, None)


async def test_cache_and_disk_agree(path: Path, manager: SessionManager) -> None:
    """After many changes at once, what is in memory is what a new start reads."""
    workspace = await manager.create_workspace("w", GRID)
    sessions = await asyncio.gather(*(manager.create_session(LOCAL, name=f"s{n}") for n in range(30)))
    calls = []
    for number, session in enumerate(sessions):
        calls += [
            manager.rename_session(session.id, f"t{number}"),
            manager.move_session(session.id, workspace.id if number % 2 else None),
            manager.detach_session(session.id),
        ]
        if number % 3 == 0:
            calls.append(manager.terminate_session(session.id))
        if number % 5 == 0:
            calls.append(manager.delete_session(session.id))
    await asyncio.gather(*calls)
    everything: list[SessionStatus] = ["active", "detached", "terminated"]
    live, stored = await manager.list_sessions(), await manager.list_sessions(status=everything)
    await manager.close()
    async with SessionManager.open(str(path)) as again:
        assert await again.list_sessions() == live
        assert await again.list_sessions(status=everything) == stored
    assert len(live.sessions) == 16
    assert len(stored.sessions) == 24


NFC, NFD = "caf\u00e9", "cafe\u0301"


async def test_the_spellings_of_a_name_are_one_name(manager: SessionManager) -> None:
    """A name is kept in NFC, is taken in either spelling, and is found by either, ended and archived too."""
    session = await manager.create_session(LOCAL, NFD)
    assert session.name == NFC
    other = await manager.create_session(LOCAL, "other")
    for spelling in (NFC, NFD):
        with pytest.raises(NameTaken):
            await manager.create_session(LOCAL, spelling)
        with pytest.raises(NameTaken):
            await manager.rename_session(other.id, spelling)
    assert [(await manager.find_session(one)).id for one in (NFC, NFD)] == [session.id] * 2
    await manager.terminate_session(session.id)
    assert [(await manager.find_session(one)).id for one in (NFC, NFD)] == [session.id] * 2
    await manager.archive_sessions(datetime.now(UTC))
    assert [(await manager.find_session(one)).id for one in (NFC, NFD)] == [session.id] * 2


@pytest.mark.parametrize("status", ["detached", "terminated"])
async def test_an_old_name_in_another_spelling_is_found_and_taken(
    path: Path, manager: SessionManager, status: SessionStatus
) -> None:
    """A name that an older version kept decomposed is found by either spelling, and is not given a second time."""
    session = await manager.create_session(LOCAL, "old")
    await manager.update_session_status(session.id, status)
    await manager.close()
    rows(path, "UPDATE sessions SET name = ?, checksum = NULL", NFD)
    async with SessionManager.open(str(path)) as again:
        assert [(await again.find_session(one)).id for one in (NFC, NFD)] == [session.id] * 2
        if status == "detached":
            with pytest.raises(NameTaken):
                await again.create_session(LOCAL, NFC)
            await again.rename_session(session.id, "new")
            with pytest.raises(SessionNotFound):
                await again.find_session(NFC)
        newer = await again.create_session(LOCAL, NFC)
        assert (await again.find_session(NFD)).id == newer.id


async def test_of_two_old_names_that_are_one_the_composed_is_found(path: Path, manager: SessionManager) -> None:
    """Two sessions of an older version that differ in the spelling only: one is found by name, then the other."""
    first, second = [await manager.create_session(LOCAL, name) for name in ("first", "second")]
    await manager.close()
    rows(path, "UPDATE sessions SET name = ?, checksum = NULL WHERE id = ?", NFD, first.id)
    rows(path, "UPDATE sessions SET name = ?, checksum = NULL WHERE id = ?", NFC, second.id)
    async with SessionManager.open(str(path)) as again:
        assert {(await again.find_session(one)).id for one in (NFC, NFD)} == {second.id}
        await again.delete_session(second.id)
        assert {(await again.find_session(one)).id for one in (NFC, NFD)} == {first.id}


async def test_a_reference_that_no_name_can_be_is_refused(manager: SessionManager) -> None:
    """Empty, too long and not Unicode are errors of the reference."""
    for ref in ("", "x" * 257, "\ud800"):
        with pytest.raises(InvalidParams, match="`ref`"):
            await manager.find_session(ref)


async def test_an_old_host_that_would_be_refused_today_stays_readable(path: Path, manager: SessionManager) -> None:
    """A session that an older version recorded is listed as before; a new one like it is refused."""
    config = SessionConfig(session_type="ssh", host="a;b", username="c d")
    with pytest.raises(InvalidParams, match="`host`"):
        await manager.create_session(config)
    session = await manager.create_session(SessionConfig(session_type="ssh", host="h", username="u"))
    await manager.close()
    old = '{"session_type":"ssh","host":"a;b","username":"c d"}'
    rows(path, "UPDATE sessions SET config = ?, checksum = NULL", old)
    assert (await reopened(path, session.id)).config == config


@pytest.fixture
async def turns() -> AsyncIterator[list[int]]:
    """Return a list that another task appends to at each turn of the event loop."""
    found: list[int] = []

    async def take_turns() -> None:
        while True:
            found.append(len(found))
            await asyncio.sleep(0)

    task = asyncio.create_task(take_turns())
    yield found
    task.cancel()
    await asyncio.wait({task})


async def test_others_are_served_while_a_list_looks_at_many_sessions(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, turns: list[int]
) -> None:
    """A list for which few of the sessions in memory are wanted looks at some of them at a time, and finds all."""
    made = [await manager.create_session(LOCAL) for _ in range(10)]
    wanted = [made[each].id for each in (0, 2, 3, 8, 9)]
    for session_id in wanted:
        await manager.detach_session(session_id)
    monkeypatch.setattr(sessions, "_LOOKED_AT_ONCE", 3)
    monkeypatch.setattr(sessions, "_TURN_SECS", 0.0)
    for limit, pages in ((None, 1), (1, 5), (2, 3), (3, 2), (5, 1)):
        turns.clear()
        found, cursor = [], None
        for page_number in range(pages):
            page = await manager.list_sessions(status=["detached"], limit=limit, cursor=cursor)
            found += [session.id for session in page.sessions]
            cursor = page.next_cursor
            assert (cursor is None) == (page_number == pages - 1)
        assert found == wanted
        assert turns


async def test_others_are_served_while_a_page_is_decoded(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, turns: list[int]
) -> None:
    """The rows of a page, which may be ten thousand, are decoded some at a time."""
    monkeypatch.setattr(damage, "_CHUNK", 3)
    decoded: list[int] = []

    async def fetch(_: int, __: int) -> list[Row]:
        turns.clear()
        return [(seq,) for seq in range(1, 11)]

    def decode(row: Row) -> Stored[Session]:
        decoded.append(len(turns))
        return Stored(row[0], session)

    session = await manager.create_session(LOCAL)
    found = await manager._store.damage.fetch_readable(fetch, decode, 0, None)
    assert [each.seq for each in found] == list(range(1, 11))
    assert [decoded.count(turn) for turn in sorted(set(decoded))] == [3, 3, 3, 1]


async def test_what_a_private_session_runs_is_in_memory_only(path: Path) -> None:
    """Its row, its event and every file are without command, folder and variables; name and labels are the user's."""
    secret = "5f1c0c9b7d"
    config = SessionConfig(
        session_type="local",
        record="none",
        command_bytes=f"run {secret}\xff".encode("latin-1"),
        cwd_bytes=f"/{secret}\xff".encode("latin-1"),
        env_bytes=[(b"S", f"{secret}\xff".encode("latin-1"))],
        auto_remove=True,
    )
    async with SessionManager.open(path) as manager:
        created = await manager.create_session(config, "mine")
        assert created.config == SessionConfig(session_type="local", record="none", auto_remove=True)
        assert manager.private_config(created.id) == config
        with pytest.raises(InvalidParams, match="private"):
            await manager.save_snapshot(created.id, secret.encode(), title=secret, cwd=secret.encode())
        with pytest.raises(InvalidParams, match="`record`"):
            await manager.set_resume(created.id, secret)
        await manager.start_program(created.id, 80, 24)
        ended = await manager.end_program(created.id, "detached", cwd=f"/{secret}".encode(), reason="program_lost")
        assert (ended.status, ended.cwd, ended.name) == ("terminated", None, "mine")
        manager.forget_private_config(created.id)
        assert manager.private_config(created.id) is None
        for file in path.parent.iterdir():
            assert secret.encode() not in file.read_bytes(), file
    for file in path.parent.iterdir():
        assert secret.encode() not in file.read_bytes(), file


async def test_private_sessions_that_are_never_started(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the newest run is kept; of a session that is deleted it is forgotten."""
    monkeypatch.setattr(sessions, "MAX_PRIVATE_CONFIGS", 2)
    config = SessionConfig(session_type="local", record="none", command="cat")
    made = [(await manager.create_session(config)).id for _ in range(3)]
    assert [manager.private_config(each) for each in made] == [None, config, config]
    await manager.delete_session(made[1])
    assert manager.private_config(made[1]) is None


@pytest.mark.parametrize("more", [{"restart": True}, {"resume": "vim"}, {"reconnect": True}])
def test_a_private_session_does_not_come_back(more: dict[str, Any]) -> None:
    """What would start it again, of which nothing is known then, is refused."""
    with pytest.raises(ValueError, match="`record` is `none`"):
        SessionConfig(session_type="ssh", host="h", record="none", **more)
