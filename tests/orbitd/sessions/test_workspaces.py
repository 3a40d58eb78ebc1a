"""Workspaces that are opened and parked while all else goes on: real journals and pictures, scripted programs."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from msgspec.structs import replace

from orbit_protocol.errors import (
    LiveUnavailable,
    NameTaken,
    SpawnFailed,
    StorageFull,
    TooManySessions,
    WorkspaceNotFound,
)
from orbit_protocol.params import WorkspaceOpen
from orbit_protocol.results import WorkspaceSessions
from orbit_protocol.types import SessionConfig
from orbitd.keeper.client import Spawned, SpawnRequest
from orbitd.sessions import endings, workspaces
from orbitd.sessions.session import State
from sessions_support import MOMENT, FakeKeeper, Sessions, until


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> dict[str, SpawnRequest]:
    """What the keeper was asked to start."""
    requests: dict[str, SpawnRequest] = {}
    spawn = FakeKeeper.spawn

    async def record(keeper: FakeKeeper, request: SpawnRequest) -> Spawned:
        requests[request.id] = request
        return await spawn(keeper, request)

    monkeypatch.setattr(FakeKeeper, "spawn", record)
    return requests


def add(sessions: Sessions, *ids: str, **fields: Any) -> None:
    """Add sessions to the workspace `shop`."""
    for session_id in ids:
        sessions.store.add(session_id, workspace_id="shop", **fields)


async def open_shop(sessions: Sessions, **params: Any) -> WorkspaceSessions:
    """Open the workspace."""
    return await sessions.methods.workspaces.open(WorkspaceOpen(id="shop", **params))


def end_when_hung_up(sessions: Sessions) -> list[asyncio.Task[None]]:
    """Have every program end with SIGHUP; return the tasks that handle the exits."""
    tasks: list[asyncio.Task[None]] = []

    def on_signal(session_id: str, number: int) -> None:
        if number == signal.SIGHUP and session_id in sessions.keeper.terminals:
            tasks.append(sessions.exit(session_id))

    sessions.keeper.on_signal = on_signal
    return tasks


def live(sessions: Sessions) -> set[str]:
    """Return the sessions that have a program."""
    return {each.id for each in sessions.registry if each.has_program}


async def test_every_session_that_does_not_run_is_started(
    sessions: Sessions, requests: dict[str, SpawnRequest]
) -> None:
    """Those that have ended, were left, or never ran are started at their last size; what runs is not touched."""
    add(sessions, "ended", status="terminated", exit_code=1, cols=100, rows=40)
    add(sessions, "left", cols=90, rows=30)
    add(sessions, "new", status="active")
    add(sessions, "runs")
    sessions.store.add("elsewhere")
    await sessions.run("runs")
    opened = await open_shop(sessions, env={"A": "1"}, umask=0o077, limits={"nofile": 10})
    assert (opened.changed, opened.failed) == (["ended", "left", "new"], [])
    assert [(each.id, each.live, each.cols, each.rows) for each in opened.sessions] == [
        ("ended", True, 100, 40),
        ("left", True, 90, 30),
        ("new", True, 80, 24),
        ("runs", True, 80, 24),
    ]
    assert {requests[each].umask for each in opened.changed} == {0o077}
    assert {requests[each].limits["nofile"] for each in opened.changed} == {10}
    assert {requests[each].env[b"A"] for each in opened.changed} == {b"1"}
    assert live(sessions) == {"ended", "left", "new", "runs"}
    again = await open_shop(sessions)
    assert (again.changed, again.failed) == ([], [])
    assert sessions.store.opened == [("shop", "workspace.opened")]


async def test_a_size_that_is_asked_for(sessions: Sessions, requests: dict[str, SpawnRequest]) -> None:
    """The size of the call counts before the last one; a part that it leaves out is the last one's."""
    add(sessions, "one", cols=90, rows=30)
    await open_shop(sessions, cols=132)
    assert (requests["one"].cols, requests["one"].rows) == (132, 30)


async def test_a_size_that_is_too_large_with_the_last_one(sessions: Sessions) -> None:
    """A session whose rows and the columns of the call make more cells than a terminal has is named."""
    add(sessions, "one", cols=90, rows=4096)
    add(sessions, "two", cols=90, rows=30)
    opened = await open_shop(sessions, cols=4096)
    assert [(each.session_id, each.error.code) for each in opened.failed] == [("one", -32602)]
    assert opened.changed == ["two"]


async def test_sessions_that_an_application_hosts(sessions: Sessions) -> None:
    """One whose screen an application saves is left to it; one that was saved so and has run here since is ours."""
    add(sessions, "external", status="active", last_saved_at=MOMENT, cols=80, rows=24)
    add(sessions, "ours", status="terminated", last_saved_at=MOMENT, exit_code=0)
    sessions.store.external.update(("external", "ours"))
    opened = await open_shop(sessions)
    assert (opened.changed, opened.failed) == (["ours"], [])
    assert live(sessions) == {"ours"}


async def test_what_was_lost_comes_back_by_its_own_command(
    sessions: Sessions, requests: dict[str, SpawnRequest]
) -> None:
    """`resume` is for what was lost; one that has ended, or was imported and never ran, begins with its command."""
    config = SessionConfig(session_type="local", command="work", resume="resume it")
    add(sessions, "lost", config=config, cols=80, rows=24)
    add(sessions, "ended", config=config, cols=80, rows=24, status="terminated", exit_code=0)
    add(sessions, "parked", config=config, cols=80, rows=24, status="terminated")
    add(sessions, "imported", config=config, cols=80, rows=24, status="active")
    await open_shop(sessions)
    started = {session_id: request.argv for session_id, request in requests.items()}
    assert started == {
        "lost": (b"resume", b"it"),
        "ended": (b"work",),
        "parked": (b"work",),
        "imported": (b"work",),
    }


async def test_what_fails_is_named_and_stops_no_other(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure is the error that a start of its own has; a library's error is one of ours with a reference."""
    errors: dict[str, Exception] = {
        "folder": SpawnFailed("no such folder", hint="Make it."),
        "many": TooManySessions("enough", data={"limit": 1}),
        "bug": RuntimeError("a detail"),
    }
    spawn = FakeKeeper.spawn

    async def fail(keeper: FakeKeeper, request: SpawnRequest) -> Spawned:
        if request.id in errors:
            raise errors[request.id]
        return await spawn(keeper, request)

    monkeypatch.setattr(FakeKeeper, "spawn", fail)
    add(sessions, "folder", "many", "bug", "good")
    opened = await open_shop(sessions)
    assert opened.changed == ["good"]
    failed = {each.session_id: each.error for each in opened.failed}
    assert list(failed) == ["folder", "many", "bug"]
    assert (failed["folder"].code, failed["folder"].message) == (1005, "no such folder")
    assert failed["folder"].data == {"kind": "spawn_failed", "hint": "Make it.", "retryable": False}
    assert failed["many"].data is not None
    assert (failed["many"].code, failed["many"].data["limit"]) == (1009, 1)
    assert failed["bug"].code == -32603
    assert "detail" not in failed["bug"].message
    assert {each.id: each.live for each in opened.sessions} == {
        "folder": False,
        "many": False,
        "bug": False,
        "good": True,
    }
    errors.clear()
    assert (await open_shop(sessions)).changed == ["folder", "many", "bug"]


async def test_a_name_that_was_taken_meanwhile(sessions: Sessions) -> None:
    """A session that has ended and whose name another one has by now is named as the one that failed."""
    add(sessions, "one", name="web", status="terminated")
    sessions.store.errors["start_program"] = [NameTaken("Session two has the name 'web'", data={"id": "two"})]
    opened = await open_shop(sessions)
    assert [(each.session_id, each.error.code) for each in opened.failed] == [("one", 1001)]


async def test_so_many_are_started_together(sessions: Sessions) -> None:
    """Of many sessions only a few are being started at any moment, and all are in the end."""
    names = [f"s{number:02}" for number in range(3 * workspaces.OPENED_TOGETHER)]
    add(sessions, *names)
    gate = sessions.store.gates["start_program"] = asyncio.Event()
    opening = asyncio.create_task(open_shop(sessions))
    await until(lambda: sessions.store.entered.count("start_program") == workspaces.OPENED_TOGETHER)
    for _ in range(50):
        await asyncio.sleep(0)
    assert sessions.store.entered.count("start_program") == workspaces.OPENED_TOGETHER
    gate.set()
    assert (await opening).changed == names


@pytest.mark.parametrize("what", ["deleted", "moved", "started"])
async def test_what_happens_to_a_session_meanwhile(sessions: Sessions, what: str) -> None:
    """One that is deleted, moved or started by another client before its turn is no failure, and not started here."""
    names = [f"s{number}" for number in range(workspaces.OPENED_TOGETHER)]
    add(sessions, *names, "last")
    gate = sessions.store.gates["start_program"] = asyncio.Event()
    opening = asyncio.create_task(open_shop(sessions))
    await until(lambda: sessions.store.entered.count("start_program") == len(names))
    if what == "deleted":
        await sessions.methods.delete("last", purge=True)
    elif what == "moved":
        sessions.store.sessions["last"] = replace(sessions.store.sessions["last"], workspace_id="other")
    else:
        starting = asyncio.create_task(sessions.run("last"))
        await until(lambda: sessions.store.entered.count("start_program") == len(names) + 1)
    gate.set()
    opened = await opening
    assert (opened.changed, opened.failed) == (names, [])
    assert ("last" in live(sessions)) == (what == "started")
    if what == "started":
        await starting


async def test_a_workspace_that_is_deleted_meanwhile(sessions: Sessions) -> None:
    """The call is answered that there is no such workspace; what it has started runs."""
    add(sessions, "one")
    sessions.store.errors["record_opened"] = [WorkspaceNotFound("gone")]
    with pytest.raises(WorkspaceNotFound):
        await open_shop(sessions)
    assert live(sessions) == {"one"}


async def test_two_opens_at_once(sessions: Sessions, requests: dict[str, SpawnRequest]) -> None:
    """Each session is started once; the second call finds all of them running."""
    add(sessions, "one", "two")
    first, second = await asyncio.gather(open_shop(sessions), open_shop(sessions))
    assert (first.changed, second.changed) == (["one", "two"], [])
    assert [each.live for each in second.sessions] == [True, True]
    assert sorted(requests) == ["one", "two"]


async def test_where_nothing_can_be_started(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without terminal emulation the call fails as a whole, unless there is nothing to start."""
    add(sessions, "one")
    monkeypatch.setattr(type(sessions.programs.screens), "unavailable_reason", "no library")
    with pytest.raises(LiveUnavailable, match="no library"):
        await open_shop(sessions)
    assert sessions.store.sessions["one"].status == "detached"
    del sessions.store.sessions["one"]
    assert (await open_shop(sessions)).sessions == []


async def test_a_daemon_that_stops_meanwhile(sessions: Sessions) -> None:
    """What has not had its turn yet is not started, and is named."""
    add(sessions, "one")
    sessions.programs.start_closing()
    opened = await open_shop(sessions)
    assert [(each.session_id, each.error.code) for each in opened.failed] == [("one", -32001)]


# Park


async def test_a_workspace_that_is_parked_comes_back(sessions: Sessions) -> None:
    """Programs end, screens are saved, and an open shows each picture above what its new program prints."""
    add(sessions, "one", "two", "idle")
    for name in ("one", "two"):
        await sessions.run(name)
        await sessions.print(b"screen of " + name.encode(), name)
    exits = end_when_hung_up(sessions)
    parked = await sessions.methods.workspaces.park("shop")
    await asyncio.gather(*exits)
    assert (parked.changed, parked.failed) == (["one", "two"], [])
    assert {each.id: each.status for each in parked.sessions} == {
        "one": "terminated",
        "two": "terminated",
        "idle": "detached",
    }
    assert sessions.store.saved("one") == b"screen of one"
    assert (await sessions.methods.workspaces.park("shop")).changed == []
    assert sessions.store.opened == [("shop", "workspace.parked")]
    sessions.store.errors["record_opened"] = [StorageFull("no room")]
    opened = await open_shop(sessions)
    assert opened.changed == ["one", "two", "idle"]
    shown = await (await sessions.attach("one")).attach("one")
    assert shown.shown.startswith(b"screen of one<started again ")


async def test_a_program_that_does_not_end(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named with its error, and the others are parked."""
    monkeypatch.setattr(endings, "TERMINATE_GRACE_SECS", 0.0)
    add(sessions, "one", "two")
    for name in ("one", "two"):
        await sessions.run(name)

    def on_signal(session_id: str, _: int) -> None:
        if session_id == "two" and session_id in sessions.keeper.terminals:
            sessions.exit(session_id)

    sessions.keeper.on_signal = on_signal
    parked = await sessions.methods.workspaces.park("shop")
    assert [(each.session_id, each.error.code) for each in parked.failed] == [("one", -32002)]
    assert parked.changed == ["two"]
    assert live(sessions) == {"one"}


async def test_a_session_that_goes_when_its_program_has_ended(sessions: Sessions) -> None:
    """`--rm` is for a program that ends by itself: what is parked is kept, and no longer goes."""
    add(sessions, "one", config=SessionConfig(session_type="local", command="cat", auto_remove=True))
    await sessions.run("one")
    end_when_hung_up(sessions)
    await sessions.methods.workspaces.park("shop")
    assert not sessions.store.sessions["one"].config.auto_remove
    assert (await open_shop(sessions)).changed == ["one"]


async def test_an_open_while_it_is_parked(sessions: Sessions) -> None:
    """The open begins when the park is done, and starts all of it again."""
    add(sessions, "one", "two")
    for name in ("one", "two"):
        await sessions.run(name)
    parking = asyncio.create_task(sessions.methods.workspaces.park("shop"))
    await until(lambda: len(sessions.keeper.signals) >= 2)
    opening = asyncio.create_task(open_shop(sessions))
    for _ in range(20):
        await asyncio.sleep(0)
    for name in ("one", "two"):
        sessions.exit(name)
    assert (await parking).changed == ["one", "two"]
    assert (await opening).changed == ["one", "two"]
    assert live(sessions) == {"one", "two"}


async def test_one_that_is_moved_before_it_is_parked(sessions: Sessions) -> None:
    """A session that another workspace has by then goes on."""
    add(sessions, "one")
    await sessions.run("one")
    gate = sessions.store.gates["get_session"] = asyncio.Event()
    parking = asyncio.create_task(sessions.methods.workspaces.park("shop"))
    await until(lambda: sessions.store.entered[-1] == "get_session")
    sessions.store.sessions["one"] = replace(sessions.store.sessions["one"], workspace_id="other")
    gate.set()
    assert (await parking).changed == []
    assert live(sessions) == {"one"}


SSH = SessionConfig(session_type="ssh", host="db.example", reconnect=True)


async def test_an_ssh_session_that_waits_to_connect_again(
    sessions: Sessions, requests: dict[str, SpawnRequest]
) -> None:
    """An open connects it at once, and a park ends its tries."""
    add(sessions, "one", config=SSH, session_type="ssh")
    assert (await open_shop(sessions)).changed == ["one"]
    assert requests["one"].argv == (b"ssh", b"-tt", b"--", b"db.example")
    await sessions.exit("one", exit_code=255)
    live_session = sessions.registry.get("one")
    assert live_session is not None
    assert live_session.state is State.RECONNECTING
    assert (await open_shop(sessions)).changed == ["one"]
    await sessions.exit("one", exit_code=255)
    assert (await sessions.methods.workspaces.park("shop")).changed == ["one"]
    assert sessions.store.sessions["one"].status == "terminated"
    assert sessions.registry.attachable("one") is None
    assert (await open_shop(sessions)).changed == ["one"]
