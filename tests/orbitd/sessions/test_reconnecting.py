"""When a lost connection is tried again: the delays, and who may stop that. Real timers, of a millisecond."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from orbit_protocol.errors import Busy, NotRunning, OrbitError
from orbit_protocol.types import Session, SessionConfig
from orbitd.background_tasks import BackgroundTasks
from orbitd.sessions.reconnecting import CONNECTION_LOST, Backoff, Reconnector
from orbitd.sessions.session import LiveSession, Retry
from sessions_support import Sessions
from support import WAIT_SECS

T = TypeVar("T")

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
    """A session that loses its connection, its reconnector, and what that has done."""

    def __init__(self, sessions: Sessions, backoff: Backoff | None = None, *errors: OrbitError) -> None:
        self.errors = list(errors)
        self.live = LiveSession("a", sessions.programs._shared)
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.failed: asyncio.Queue[LiveSession] = asyncio.Queue()
        self.held = BackgroundTasks(logging.getLogger(__name__), "trying again failed")
        self.reconnector = Reconnector(self.start, self.failed.put, self.held.start, backoff)

    async def start(self, session_id: str) -> None:
        await self.started.put(session_id)
        if self.errors:
            raise self.errors.pop(0)

    def schedule(self) -> float | None:
        return self.reconnector.schedule(self.live, session())


async def soon(queue: asyncio.Queue[T]) -> T:
    async with asyncio.timeout(WAIT_SECS):
        return await queue.get()


async def test_the_delays_grow_up_to_a_minute(sessions: Sessions) -> None:
    """Each connection that does not last doubles the delay, from a second on."""
    line = Line(sessions)
    delays = []
    for _ in range(9):
        delays.append(line.schedule())
        line.live.retry_started()
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    line.reconnector.cancel(line.live)


async def test_a_connection_that_held_begins_anew(sessions: Sessions) -> None:
    """After a good connection the first delay is short again."""
    line = Line(sessions, Backoff(reset_after_secs=0.0))
    line.schedule()
    line.live.retry_started()
    await asyncio.to_thread(int)  # some time passes
    assert line.schedule() == 1
    line.reconnector.cancel(line.live)


async def test_it_is_started_after_the_delay(sessions: Sessions) -> None:
    """A lost session is started once."""
    line = Line(sessions, SHORT)
    line.schedule()
    assert await soon(line.started) == "a"
    await line.held.finish(WAIT_SECS)
    assert line.started.empty()


async def test_what_may_pass_is_tried_again(sessions: Sessions) -> None:
    """A start that fails for now is tried again; one that fails for good is not, and the session is told."""
    line = Line(sessions, SHORT, Busy("now"), Busy("now"), NotRunning("ever"))
    line.schedule()
    assert await soon(line.failed) is line.live
    assert line.started.qsize() == 3
    assert line.live.retry is None


async def test_a_failure_that_nobody_expects_ends_it(sessions: Sessions) -> None:
    """Whatever a start raises, the session does not wait for ever."""
    line = Line(sessions, SHORT, MemoryError())  # type: ignore[arg-type]
    line.schedule()
    assert await soon(line.failed) is line.live


@pytest.mark.parametrize("changes", [{"reconnect": False}, {"exit_code": 0}, {"exit_code": None}])
async def test_who_does_not_want_it(sessions: Sessions, changes: dict[str, object]) -> None:
    """Only ssh that has lost its connection, in a session that wants that, is started again."""
    line = Line(sessions)
    assert line.reconnector.schedule(line.live, session(**changes)) is None
    assert line.live.retry is None


STOPS: list[Callable[[Line], None]] = [
    lambda line: line.live.retry_started(),
    lambda line: line.reconnector.cancel(line.live),
    lambda line: line.live.close(),
]


@pytest.mark.parametrize("stop", STOPS, ids=["started", "cancelled", "closed"])
async def test_a_start_by_somebody_else_comes_first(sessions: Sessions, stop: Callable[[Line], None]) -> None:
    """A session that is started, ended or closed meanwhile is not started a second time."""
    line, other = Line(sessions, SHORT), Line(sessions, SHORT)
    line.schedule()
    stop(line)
    other.schedule()
    await soon(other.started)  # its timer was due later
    assert line.started.empty()


async def test_a_failed_start_of_before_stops_no_newer_one(sessions: Sessions) -> None:
    """A try that fails after its session was ended, and lost its connection again, leaves the new try alone."""
    line = Line(sessions, SHORT, NotRunning("it was ended"))
    go_on = asyncio.Event()

    async def start(session_id: str) -> None:
        line.started.put_nowait(session_id)
        await go_on.wait()
        raise NotRunning("it was ended")

    reconnector = Reconnector(start, line.failed.put, line.held.start, SHORT)
    reconnector.schedule(line.live, session())
    await soon(line.started)
    reconnector.cancel(line.live)
    newer = line.live.retry = Retry(delay_secs=60.0)
    go_on.set()
    await line.held.finish(WAIT_SECS)
    assert line.live.retry is newer
    assert line.failed.empty()
