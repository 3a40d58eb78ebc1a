"""What one session does by itself: the state table, its folder, keys, floods."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from typing import cast

import pytest

from orbit_protocol.errors import Busy, InternalError, NotRunning, OrbitError
from orbit_protocol.params import SessionSwitch
from orbitd.rpc.connection import Call, Connection
from orbitd.screens.emulator import Emulator
from orbitd.screens.messages import Facts
from orbitd.sessions import terminal
from orbitd.sessions.session import MOVES, LiveSession, State
from orbitd.sessions.terminal import Landing
from sessions_support import FakeConnection, Sessions, until

CAFE = b"caf\xe9"

ALL_MOVES = list(itertools.product(State, State))


@pytest.mark.parametrize(("before", "after"), ALL_MOVES, ids=[f"{a.name}-{b.name}" for a, b in ALL_MOVES])
async def test_every_move_is_in_the_table_or_raises(sessions: Sessions, before: State, after: State) -> None:
    """A state changes as `MOVES` has it, and in no other way; a move that is refused changes nothing."""
    live = LiveSession("one", sessions.programs._shared)
    live.state = before
    if after in MOVES[before]:
        live.move(after)
        assert live.state is after
    else:
        with pytest.raises(InternalError):
            live.move(after)
        assert live.state is before


def test_every_state_can_be_left_and_reached() -> None:
    """Each state has moves, and from `RECORDED` every one can be reached."""
    assert set(MOVES) == set(State)
    reached, found = {State.RECORDED}, set[State]()
    while found != reached:
        found = set(reached)
        for state in found:
            reached |= MOVES[state]
    assert reached == set(State)
    assert all(MOVES.values())


async def refused(sessions: Sessions) -> OrbitError | None:
    """Type into the session; return how that was refused."""
    try:
        await sessions.send(b"x")
    except OrbitError as error:
        return error
    return None


async def test_a_key_in_each_state(sessions: Sessions) -> None:
    """A key reaches a program that runs, and is refused where there is none; nothing else happens to the session."""
    sessions.store.add("one")
    assert isinstance(await refused(sessions), NotRunning)
    assert sessions.registry.get("one") is None
    live = await sessions.run()
    assert await refused(sessions) is None
    assert sessions.typed() == b"x"
    for state in (State.STARTING, State.RECONNECTING, State.UNSTORED, State.ENDED, State.RECORDED):
        live.state = state
        assert isinstance(await refused(sessions), NotRunning), state
    live.state = State.RUNNING
    assert sessions.typed() == b""


HOST = os.uname().nodename


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        (f"file://{HOST}/caf%e9", b"/" + CAFE),
        (f"file://{HOST.upper()}/x", b"/x"),
        ("file://localhost/x", b"/x"),
        ("file:/x", b"/x"),
        ("/x", b"/x"),
        ("kitty-shell-cwd:///100%25", b"/100%25"),
        ("file:///caf%C3%A9%20x", "/café x".encode()),
        ("file:///caf\u00e9", "/café".encode()),
        ("file:///a#b?c%", b"/a#b?c%"),
        ("file://elsewhere.example/x", None),
        ("http://localhost/x", None),
        ("file:///a%00b", None),
        ("file:///" + "x" * 4096, None),
        ("relative", None),
        ("file://[/x", None),
        ("", None),
    ],
)
async def test_a_folder_that_a_program_reports(sessions: Sessions, url: str, folder: bytes | None) -> None:
    """OSC 7 has any byte of a path percent-encoded; what cannot be a folder of this machine is none."""
    live = await sessions.run()  # its pid is nobody's
    before = live.current_cwd()
    with Emulator(80, 24) as emulator:
        emulator.feed(f"\x1b]7;{url}\x1b\\".encode())
        live.picture.facts = Facts(cwd=emulator.cwd)
    assert live.current_cwd() == (before if folder is None else folder)


class Folders:
    """Where processes are, by pid."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folders: dict[int, bytes | OSError] = {}
        monkeypatch.setattr("orbitd.sessions.session.folder_of", self._folder_of)

    def _folder_of(self, pid: int) -> bytes:
        found = self.folders.get(pid, FileNotFoundError())
        if isinstance(found, OSError):
            raise found
        return found


@pytest.mark.parametrize(
    ("in_foreground", "reported", "folder"),
    [
        (b"/deep", "", b"/deep"),
        (PermissionError(), "file:///root", b"/root"),
        (PermissionError(), "file://elsewhere.example/root", b"/own"),
        (PermissionError(), "", b"/own"),
        (FileNotFoundError(), "file:///stale", b"/own"),
    ],
)
async def test_the_folder_is_the_foregrounds(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, in_foreground: bytes | OSError, reported: str, folder: bytes
) -> None:
    """A shell in a shell counts; of one that may not be looked at what it reports; else the program's own folder."""
    live = await sessions.run()
    monkeypatch.setattr(LiveSession, "foreground_group", 4242)
    Folders(monkeypatch).folders.update({live.pid: b"/own", 4242: in_foreground})
    live.picture.facts = Facts(cwd=reported)
    assert live.current_cwd() == folder


async def test_a_folder_is_recorded_with_the_output_that_shows_it(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first change is in the journal at once, the next one a second later; a save stores what the journal has."""
    monkeypatch.setattr("orbitd.sessions.session.CWD_SECS", 0.01)
    live = await sessions.run()
    where = Folders(monkeypatch).folders
    where[live.pid] = b"/first"
    await sessions.print(b"$ ")
    assert (live.recorded_cwd, live._cwd_timer) == (b"/first", None)
    where[live.pid] = b"/second"
    await sessions.print(b"$ ")
    assert (live.recorded_cwd, live.cwd_to_save, live.current_cwd()) == (b"/first", b"/first", b"/second")
    await until(lambda: live.recorded_cwd == b"/second")
    assert live._cwd_timer is None, "nothing wakes an idle session up"
    where[live.pid] = b"/third"
    live.live_fields(sessions.store.sessions["one"])
    assert live.recorded_cwd in (b"/second", b"/third")
    await until(lambda: live.recorded_cwd == b"/third")


async def test_the_last_folder_is_recorded_when_the_daemon_stops(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was changed just after another, and would have been recorded a second later."""
    live = await sessions.run()
    where = Folders(monkeypatch).folders
    for folder in (b"/first", b"/second"):
        where[live.pid] = folder
        await sessions.print(b"$ ")
    assert live.recorded_cwd == b"/first"
    await sessions.programs.close()
    assert live.cwd_to_save == b"/second"
    assert sessions.store.snapshots[-1][1] == live.position


async def test_a_window_stays_where_it_could_not_be_taken(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not moved to a session that is full, and one whose row is gone or damaged keeps it from no other one."""
    live = await sessions.run()
    for name in ("two", "three"):
        await sessions.run(name)
    await sessions.attach()
    live.attachments[0].before = []
    await sessions.attach("two")
    monkeypatch.setattr("orbitd.sessions.methods.MAX_ATTACHMENTS", 1)
    call = Call(cast(Connection, FakeConnection()))
    with pytest.raises(Busy):
        await sessions.methods.switch(call, SessionSwitch(id="one", to="two"))
    assert len(live.attachments) == 1
    del sessions.store.sessions["two"]
    assert (await sessions.methods.switch(call, SessionSwitch(id="one"))).id == "three"


async def test_when_a_session_was_used_last(sessions: Sessions) -> None:
    """Output and keys move it at once, what a terminal reports by itself does not."""
    live = await sessions.run()
    client = await sessions.attach()
    row = sessions.store.sessions["one"]
    assert sessions.methods.with_live_fields(row).last_input_at is None
    client.type(b"\x1b[I")  # the window has got the focus
    assert sessions.methods.with_live_fields(row).last_input_at is None
    client.type(b"x")
    typed = sessions.methods.with_live_fields(row)
    assert typed.last_active == typed.last_input_at is not None
    await sessions.print(b"x")
    printed = sessions.methods.with_live_fields(row)
    assert printed.last_active == printed.last_output_at is not None
    live.last_input_at = 0.0
    await sessions.send(b"y")
    sent = sessions.methods.with_live_fields(row)
    assert sent.last_active == sent.last_input_at is not None


async def test_a_terminal_that_cannot_be_read(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and tried again later: the loop goes on with everything else."""
    monkeypatch.setattr(terminal, "HUNG_UP_SECS", 3600.0)
    live = await sessions.run()
    before = live.position

    def fail(*_: object) -> None:
        raise OSError(errno.ENXIO, "no such device")

    with monkeypatch.context() as patch:
        patch.setattr(Landing, "read", fail)
        sessions.write(b"hello")
        await until(lambda: "terminal not read" in caplog.text)
        for _ in range(10):
            await asyncio.sleep(0)
    assert caplog.text.count("terminal not read") == 1
    assert live._master is not None
    live._master.resume("hung up")
    await until(lambda: live.position > before)
