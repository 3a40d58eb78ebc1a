"""Programs that are taken over: their terminals are read once the keeper hands them out and there is room."""

from __future__ import annotations

import asyncio
import os
import signal
import tty

import pytest

from orbit_protocol.errors import AlreadyRunning, LiveUnavailable, OrbitError
from orbitd.descriptors import FOR_HISTORY, FOR_STORE, KEPT_BACK, OWN
from orbitd.keeper.client import KeeperClient, KeeperGone, KeptProgram, SocketLost, SpawnRequest
from orbitd.sessions import programs as programs_module
from orbitd.sessions.session import LiveSession
from sessions_support import MOMENT, FakeKeeper, Sessions, until

SILENT = LiveUnavailable("no answer", data={"reason": "the keeper (pid 7) does not answer"})


def kept(session_id: str) -> KeptProgram:
    """Return a program as the keeper lists it."""
    return KeptProgram(id=session_id, pid=1 << 24, started_at=MOMENT)


def open_terminal(sessions: Sessions, session_id: str) -> None:
    """Have the keeper hold a program's terminal."""
    master, slave = os.openpty()
    tty.setraw(slave)
    sessions.keeper.masters[session_id], sessions.keeper.terminals[session_id] = master, slave


def take_over(sessions: Sessions, *session_ids: str) -> list[LiveSession]:
    """Take over programs of an earlier daemon."""
    found = []
    for session_id in session_ids:
        sessions.store.add(session_id, live=True)
        open_terminal(sessions, session_id)
        with sessions.registry.using(session_id) as live:
            sessions.programs.take_over(live, sessions.store.sessions[session_id], kept(session_id))
        found.append(live)
    return found


def set_room(sessions: Sessions, places: int) -> list[int]:
    """Have room for so many sessions; return a list that grows with each count of what is open."""
    counts: list[int] = []

    def count() -> int:
        counts.append(places)
        return sessions.programs._count_descriptors()[1]

    sessions.programs.room._count_all = count
    sessions.programs.room._limit = lambda: KEPT_BACK + FOR_STORE + FOR_HISTORY + OWN + 2 * places
    return counts


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[OrbitError]:
    """What the next requests for a terminal raise."""
    errors: list[OrbitError] = []
    take = FakeKeeper.take

    async def fail(keeper: FakeKeeper, program_id: str) -> int:
        if errors:
            keeper.taken.append(program_id)
            raise errors.pop(0)
        return await take(keeper, program_id)

    monkeypatch.setattr(FakeKeeper, "take", fail)
    return errors


@pytest.mark.parametrize("error", [SILENT, KeeperGone("gone")], ids=lambda error: error.kind)
@pytest.mark.parametrize("again", ["after a while", "connected again"])
async def test_terminals_that_the_keeper_does_not_hand_out(
    sessions: Sessions, fetches: list[OrbitError], monkeypatch: pytest.MonkeyPatch, error: OrbitError, again: str
) -> None:
    """One answer that does not come is waited for, a warning names all, and all are read once the keeper answers."""
    monkeypatch.setattr(sessions.programs, "_fetch_delay", 0.0 if again == "after a while" else 1000.0)
    both = take_over(sessions, "one", "two")
    fetches.append(error)
    await sessions.programs.fetch_terminals()
    assert sessions.keeper.taken == ["one"]
    [warning] = sessions.programs.warnings()
    assert warning.startswith(f"The output of 2 sessions is not read: {error.extra.get('reason', error.message)}")
    if again == "connected again":
        await sessions.programs._handle_lost_connection([kept("one"), kept("two")])
    await until(lambda: all(live.has_terminal for live in both))
    assert sessions.programs.warnings() == []


async def test_terminals_without_room(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay with the keeper, which is not asked for them, and are read by themselves once there is room."""
    monkeypatch.setattr(sessions.programs, "_fetch_delay", 0.0)
    monkeypatch.setattr(programs_module, "MAX_FETCH_SECS", 0.0)
    lives = take_over(sessions, *"abcde")
    counts = set_room(sessions, 3)
    await sessions.programs.fetch_terminals()
    assert len(counts) == 1, "once for all"
    assert [live.is_left_to_keeper for live in lives] == [False, False, False, True, True]
    assert sessions.keeper.taken == ["a", "b", "c"]
    assert "of 2 sessions is not read, since orbitd may not open more files" in sessions.programs.warnings()[0]
    set_room(sessions, 100)
    await until(lambda: all(live.has_terminal for live in lives))
    assert sessions.programs.warnings() == []


async def test_terminals_are_fetched_once(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call while the first waits for the keeper asks for nothing twice."""
    lives = take_over(sessions, "one", "two")
    gate, take = asyncio.Event(), FakeKeeper.take

    async def wait(keeper: FakeKeeper, program_id: str) -> int:
        taken = await take(keeper, program_id)
        await gate.wait()
        return taken

    monkeypatch.setattr(FakeKeeper, "take", wait)
    first = asyncio.ensure_future(sessions.programs.fetch_terminals())
    await until(lambda: sessions.keeper.taken == ["one"])
    await sessions.programs.fetch_terminals()
    gate.set()
    await first
    assert sessions.keeper.taken == ["one", "two"]
    assert all(live.has_terminal for live in lives)


async def test_the_last_place_is_enough_for_an_unknown_program(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that finds the session's program with the keeper takes one place, not two."""

    async def refuse(keeper: FakeKeeper, request: SpawnRequest) -> None:
        raise AlreadyRunning("it is there")

    async def programs(keeper: FakeKeeper) -> list[KeptProgram]:
        return [kept("one")]

    monkeypatch.setattr(FakeKeeper, "spawn", refuse)
    monkeypatch.setattr(FakeKeeper, "programs", programs)
    open_terminal(sessions, "one")
    set_room(sessions, 1)
    assert (await sessions.run()).has_terminal


@pytest.mark.parametrize("reason", ["", "damaged", "not recorded"])
async def test_a_program_of_a_session_that_was_deleted(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """It is ended when the keeper is back, unless a damaged row may be its session's, or it could not be recorded."""
    monkeypatch.setattr(sessions.store, "has_damaged_sessions", lambda: reason == "damaged")
    await sessions.programs.keeper.client()
    with sessions.programs.registry.using("deleted") as live:
        live.not_restored = "the disk is full" if reason == "not recorded" else ""
        await sessions.programs._handle_lost_connection([kept("deleted")])
    assert sessions.keeper.signals == ([] if reason else [("deleted", signal.SIGKILL)])


async def test_a_keeper_that_dies_while_the_daemon_stops(sessions: Sessions) -> None:
    """Nothing connects again, and no keeper is started in its place."""
    keeper = sessions.programs.keeper
    await keeper.client()
    await keeper.stop_reaching()
    sessions.keeper.is_gone = True
    keeper._handle_gone(KeeperGone("gone"))
    assert keeper._reaching is None
    with pytest.raises(LiveUnavailable, match="the daemon stops"):
        await keeper.client()


async def test_an_earlier_connection_that_is_lost(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The present one goes on; one that was lost in the moment in which it was made is made again."""
    keeper = sessions.programs.keeper
    first = await keeper.client()
    keeper._handle_gone(KeeperGone("gone"))
    assert keeper.is_known
    assert await keeper.client() is first
    sessions.keeper.is_gone = True
    second = FakeKeeper(sessions.home)

    async def connect(*_: object, **__: object) -> FakeKeeper:
        return second

    monkeypatch.setattr(KeeperClient, "connect", connect)
    assert await keeper.connect_existing() == []
    assert await keeper.client() is second  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("error", [KeeperGone("it does not answer"), SocketLost("it has lost its socket")])
async def test_the_advice_for_a_keeper_out_of_reach(sessions: Sessions, error: KeeperGone) -> None:
    """One that may be stopped can be let go on; that does not help one without its socket."""
    sessions.programs.keeper._set_unreachable(error.message, error)
    [warning] = sessions.programs.keeper.warnings()
    assert error.message in warning
    assert ("kill -CONT" in warning) != isinstance(error, SocketLost)
