"""When a lost connection is tried again: the pauses, and who may stop that. Real timers, of a millisecond."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from orbit_protocol.errors import Busy, NotRunning, OrbitError
from orbit_protocol.types import Session, SessionConfig
from orbitd.background_tasks import BackgroundTasks
from orbitd.sessions.ssh_reconnect import CONNECTION_LOST, Backoff, Reconnector
from support import WAIT_SECS

SHORT = Backoff(first_secs=0.001, max_secs=0.004, reset_after_secs=1_000.0)


def session(**changes: object) -> Session:
    """Return an ssh session that has lost its connection."""
    known = {"reconnect": True, "exit_code": CONNECTION_LOST, **changes}
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Session(
        id="a",
        name=None,
        session_type="ssh",
        created_at=moment,
        last_active=moment,
        status="detached",
        config=SessionConfig(session_type="ssh", host="h", reconnect=bool(known["reconnect"])),
        workspace_id=None,
        exit_code=known["exit_code"],  # type: ignore[arg-type]
    )


class Line:
    """A reconnector, and what it has done."""

    def __init__(self, pauses: Backoff | None = None, *errors: OrbitError) -> None:
        self.errors = list(errors)
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.given_up: asyncio.Queue[str] = asyncio.Queue()
        self.held = BackgroundTasks(logging.getLogger(__name__), "trying again failed")
        self.reconnector = Reconnector(self.start, self.given_up.put, self.held.start, pauses)

    async def start(self, session_id: str) -> None:
        await self.started.put(session_id)
        if self.errors:
            raise self.errors.pop(0)


async def soon(queue: asyncio.Queue[str]) -> str:
    async with asyncio.timeout(WAIT_SECS):
        return await queue.get()


async def test_the_pauses_grow_up_to_a_minute() -> None:
    """Each connection that does not last doubles the pause, from a second on."""
    line = Line()
    pauses = []
    for _ in range(9):
        pauses.append(line.reconnector.schedule(session()))
        line.reconnector.started("a")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    line.reconnector.close()


async def test_a_connection_that_held_begins_anew() -> None:
    """After a good connection the first pause is short again."""
    line = Line(Backoff(reset_after_secs=0.0))
    line.reconnector.schedule(session())
    line.reconnector.started("a")
    await asyncio.to_thread(int)  # some time passes
    assert line.reconnector.schedule(session()) == 1
    line.reconnector.close()


async def test_it_is_started_after_the_pause() -> None:
    """A lost session is started once."""
    line = Line(SHORT)
    line.reconnector.schedule(session())
    assert await soon(line.started) == "a"
    await line.held.finish(WAIT_SECS)
    assert line.started.empty()


async def test_what_may_pass_is_tried_again() -> None:
    """A start that fails for now is tried again; one that fails for good is given up."""
    line = Line(SHORT, Busy("now"), Busy("now"), NotRunning("ever"))
    line.reconnector.schedule(session())
    assert await soon(line.given_up) == "a"
    assert line.started.qsize() == 3


@pytest.mark.parametrize("changes", [{"reconnect": False}, {"exit_code": 0}, {"exit_code": None}])
async def test_who_does_not_want_it(changes: dict[str, object]) -> None:
    """Only ssh that has lost its connection, in a session that wants that, is started again."""
    assert Line().reconnector.schedule(session(**changes)) is None


async def test_a_start_by_somebody_else_comes_first() -> None:
    """A session that is started, forgotten or whose daemon closes meanwhile is not started a second time."""
    for stop in (
        lambda line: line.reconnector.started("a"),
        lambda line: line.reconnector.forget("a"),
        lambda line: line.reconnector.close(),
    ):
        line, other = Line(SHORT), Line(SHORT)
        line.reconnector.schedule(session())
        stop(line)
        other.reconnector.schedule(session())
        await soon(other.started)  # its timer was due later
        assert line.started.empty()
