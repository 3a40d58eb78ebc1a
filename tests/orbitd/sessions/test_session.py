"""What one session does by itself: the state table, its folder, keys, floods."""

from __future__ import annotations

import asyncio
import errno
import itertools

import pytest

from orbit_protocol.errors import InternalError, NotRunning, OrbitError
from orbitd.screens.emulator import Emulator
from orbitd.screens.messages import Facts
from orbitd.sessions import terminal
from orbitd.sessions.session import MOVES, LiveSession, State
from orbitd.sessions.terminal import Landing
from sessions_support import Sessions, until

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


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file://host/caf%e9", b"/" + CAFE),
        ("file:///caf%C3%A9%20x", "/café x".encode()),
        ("file:///caf\u00e9", "/café".encode()),
        ("file:///a%00b", None),
        ("file:///" + "x" * 4096, None),
        ("relative", None),
        ("file://[/x", None),
        ("", None),
    ],
)
async def test_a_folder_that_a_program_reports(sessions: Sessions, url: str, folder: bytes | None) -> None:
    """OSC 7 has any byte of a path percent-encoded; what cannot be one is none."""
    live = LiveSession("one", sessions.programs._shared)
    with Emulator(80, 24) as emulator:
        emulator.feed(f"\x1b]7;{url}\x1b\\".encode())
        live.picture.facts = Facts(cwd=emulator.cwd)
    assert live.current_cwd() == folder


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
