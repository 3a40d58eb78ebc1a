"""What the daemon says of itself, in a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from orbitd.events.broker import Broker
from orbitd.events.daemon_events import DaemonEvents
from orbitd.events.subscriptions import Waiter, Wanted
from orbitd.manager import SessionManager


class Told:
    """A store, the problems that there are, and what was recorded of them."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        self.broker = Broker()
        manager.on_events = self.broker.publish
        self.now: list[str] = []
        self.events = self.restarted()

    def restarted(self) -> DaemonEvents:
        """Return what another daemon would begin with."""
        return DaemonEvents(self.manager, self.broker, lambda: self.now)

    async def look(self, *now: str) -> None:
        """Compare the problems that there are now; something that follows is committed after it."""
        self.now = list(now)
        await self.events.record_warnings()
        waiter = Waiter(self.manager, Wanted(kinds=frozenset({"daemon.started"})), self.manager.newest_seq, live=False)
        self.broker.add(waiter)
        await waiter.read()
        await self.events.record_start()
        await waiter.found

    async def told(self) -> list[tuple[str, str]]:
        """Return every warning that was recorded, and each that was cleared."""
        found = await self.manager.list_events(after=None, kinds=["daemon.warning", "daemon.cleared"])
        return [(each.kind.partition(".")[2], msgspec.json.decode(each.data)["warning"]) for each in found]


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    async with SessionManager.open(tmp_path / "sessions.db") as manager:
        yield Told(manager)


async def test_a_problem_is_told_of_once_and_its_end_too(told: Told) -> None:
    """Not again while it lasts, in its own words when it is over."""
    for now in ([], ["full"], ["full"], ["full", "old"], ["old"], ["old"], ["full", "old"]):
        await told.look(*now)
    assert await told.told() == [("warning", "full"), ("warning", "old"), ("cleared", "full"), ("warning", "full")]


async def test_a_restart_tells_nothing_twice(told: Told) -> None:
    """What lasts over a restart is not told again, what ended meanwhile is."""
    await told.look("full", "old")
    told.events = told.restarted()
    await told.look("old", "new")
    assert await told.told() == [("warning", "full"), ("warning", "old"), ("cleared", "full"), ("warning", "new")]


async def test_another_count_is_the_same_problem(told: Told) -> None:
    """`3 sessions` after `2 sessions` is no news; two problems that differ in a count are two."""
    await told.look("2 sessions are lost", "row 7 of /x/1.db")
    await told.look("3 sessions are lost", "row 7 of /x/2.db")
    await told.look("4 sessions are lost", "5 sessions are lost")
    await told.look("9 sessions are lost")
    assert await told.told() == [
        ("warning", "2 sessions are lost"),
        ("warning", "row 7 of /x/1.db"),
        ("cleared", "row 7 of /x/1.db"),
        ("warning", "row 7 of /x/2.db"),
        ("cleared", "row 7 of /x/2.db"),
        ("warning", "5 sessions are lost"),
        ("cleared", "5 sessions are lost"),
    ]


async def test_the_stop_is_published_before_it_goes_on(told: Told) -> None:
    """Whoever follows is sent it, before connections are closed."""
    waiter = Waiter(told.manager, Wanted(kinds=frozenset({"daemon.stopping"})), 0, live=False)
    told.broker.add(waiter)
    await waiter.read()
    await told.events.record_stop()
    assert waiter.found.done()
