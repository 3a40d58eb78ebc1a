"""Checkpoints aside: when one is asked for, and that the log stays short."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orbit_protocol.errors import ShuttingDown, StorageFull
from orbitd.manager import SessionManager
from orbitd.store import checkpointer as module
from orbitd.store.checkpointer import Checkpointer, checkpoint_log, truncate_log
from orbitd.store.files import BACKSTOP_PAGES
from orbitd.store.writer import Writer
from store_support import LOCAL, rows, size
from support import WAIT_SECS

IDLE = 3_600.0
"""No test lasts so long."""


class Scripted:
    """A checkpointer whose writer and thread are played by the test.

    Attributes:
        asked: What was asked for, in order.
        going_on: The checkpoint that is asked for next waits for it.
        error: The checkpoint that is asked for next raises it.
        paused: Whether somebody else checkpoints.
    """

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        self.going_on = asyncio.Event()
        self.going_on.set()
        self.error: Exception | None = None
        self.paused = False
        self.log = Path(f"{path}-wal")
        self.writer = Writer()
        self.writer.run = self._run  # type: ignore[assignment,method-assign]  # a stand-in
        self.checkpointer = Checkpointer(str(path), self.writer, self._aside, lambda: self.paused)

    async def commit(self, times: int = 1) -> None:
        """Have so many transactions committed, and what follows from them done as far as it can be."""
        for _ in range(times):
            self.writer.on_committed()
        await self.turns()

    async def turns(self) -> None:
        """Give tasks and timers that are due their turn."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def _aside(self, work: Callable[[sqlite3.Connection], None]) -> None:
        assert work is checkpoint_log
        self.asked.append("checkpoint")
        await self.going_on.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error

    async def _run(self, work: Callable[[sqlite3.Connection], None], _: Any, *, alone: bool) -> None:
        assert work is truncate_log
        assert alone
        self.asked.append("truncate")
        self.log.write_bytes(b"")


@pytest.fixture
async def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scripted]:
    """A checkpointer that asks after three commits, or ten bytes."""
    monkeypatch.setattr(module, "COMMITS", 3)
    monkeypatch.setattr(module, "LOG_BYTES", 10)
    monkeypatch.setattr(module, "IDLE_SECS", IDLE)
    made = Scripted(tmp_path / "sessions.db")
    yield made
    made.going_on.set()
    await made.checkpointer.close()


async def test_a_checkpoint_is_asked_for_after_some_commits(scripted: Scripted) -> None:
    """The third commit asks, and the third after that again; with fewer nothing waits for the end of a burst."""
    await scripted.commit(2)
    assert scripted.asked == []
    assert scripted.checkpointer._timer is None
    await scripted.commit()
    assert scripted.asked == ["checkpoint"]
    await scripted.commit(2)
    assert scripted.asked == ["checkpoint"]
    await scripted.commit()
    assert scripted.asked == ["checkpoint"] * 2


async def test_a_checkpoint_is_asked_for_where_the_log_has_grown(scripted: Scripted) -> None:
    """One large commit is enough; a file that keeps its length, as the log began again in it, asks for nothing."""
    scripted.log.write_bytes(bytes(9))
    await scripted.commit()
    assert scripted.asked == []
    scripted.log.write_bytes(bytes(10))
    await scripted.commit()
    assert scripted.asked == ["checkpoint"]
    await scripted.commit()
    assert scripted.asked == ["checkpoint"]
    scripted.log.write_bytes(bytes(20))
    await scripted.commit()
    assert scripted.asked == ["checkpoint"] * 2


async def test_no_checkpoint_is_asked_for_while_one_runs(scripted: Scripted) -> None:
    """What is committed meanwhile counts for the next, which the first commit after it asks for."""
    scripted.going_on.clear()
    await scripted.commit(30)
    assert scripted.asked == ["checkpoint"]
    scripted.going_on.set()
    await scripted.turns()
    assert scripted.asked == ["checkpoint"]
    scripted.going_on.clear()
    await scripted.commit(2)
    await scripted.commit(1)
    assert scripted.asked == ["checkpoint"] * 2


async def test_no_checkpoint_is_asked_for_while_another_one_checkpoints(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while slices are written, or room is made; when that is over, the rest of the burst is checkpointed once."""
    monkeypatch.setattr(module, "IDLE_SECS", 0.0)
    scripted.paused = True
    await scripted.commit(30)
    assert scripted.asked == []
    scripted.paused = False
    await scripted.turns()
    assert scripted.asked == ["checkpoint"]
    assert scripted.checkpointer._timer is None


async def test_the_end_of_a_burst_is_checkpointed_once(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing has been committed for a while, the rest goes into the database; after that nothing is done."""
    monkeypatch.setattr(module, "IDLE_SECS", 0.0)
    scripted.going_on.clear()
    await scripted.commit(3)
    await scripted.commit(2)
    assert scripted.asked == ["checkpoint"]
    scripted.going_on.set()
    await scripted.turns()
    assert scripted.asked == ["checkpoint"] * 2
    assert scripted.checkpointer._timer is None
    await scripted.commit(2)  # too few for a burst
    assert scripted.asked == ["checkpoint"] * 2
    assert scripted.checkpointer._timer is None


async def test_a_burst_that_ends_with_its_checkpoint_needs_no_other(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing was committed since and the log is short, there is nothing to do."""
    monkeypatch.setattr(module, "IDLE_SECS", 0.0)
    await scripted.commit(3)
    assert scripted.asked == ["checkpoint"]
    assert scripted.checkpointer._timer is None


async def test_a_burst_goes_on_as_long_as_commits_come(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer that finds a young commit waits on, and there is one timer, however many commits there are."""
    await scripted.commit(3)
    timer = scripted.checkpointer._timer
    assert timer is not None
    await scripted.commit(2)
    assert scripted.checkpointer._timer is timer
    scripted.checkpointer._look_whether_idle()
    again = scripted.checkpointer._timer
    assert again is not None
    assert scripted.asked == ["checkpoint"]
    monkeypatch.setattr(module, "IDLE_SECS", 0.0)
    again.cancel()
    scripted.checkpointer._look_whether_idle()
    await scripted.turns()
    assert scripted.asked == ["checkpoint"] * 2


async def test_a_long_log_is_truncated_when_its_burst_is_over(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is idle takes no room on the disk for what is in its database."""
    monkeypatch.setattr(module, "IDLE_SECS", 0.0)
    scripted.log.write_bytes(bytes(11))
    await scripted.commit()
    assert scripted.asked == ["checkpoint", "checkpoint", "truncate"]
    assert scripted.checkpointer._timer is None


async def test_a_checkpoint_that_fails_is_tried_again(scripted: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk the log keeps everything; the log file says so once, until one has succeeded."""
    for error, lines in ((StorageFull("no room"), 1), (OSError("gone"), 1), (None, 1), (StorageFull("no room"), 2)):
        scripted.error = error
        await scripted.commit(3)
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * lines
    assert scripted.asked == ["checkpoint"] * 4


async def test_the_end_of_the_store_is_no_failure(scripted: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """A checkpoint that the closing of the readers ends is not logged: the close of the writer checkpoints all."""
    scripted.error = ShuttingDown("closed")
    await scripted.commit(3)
    assert caplog.records == []


async def test_closing_waits_for_the_checkpoint_that_runs(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """And begins none any more, neither for commits nor for the end of the burst."""
    monkeypatch.setattr(module, "IDLE_SECS", 0.0)
    scripted.going_on.clear()
    await scripted.commit(3)
    closing_it = asyncio.create_task(scripted.checkpointer.close())
    await scripted.turns()
    assert not closing_it.done()
    scripted.going_on.set()
    async with asyncio.timeout(WAIT_SECS):
        await closing_it
    await scripted.commit(30)
    assert scripted.asked == ["checkpoint"]


async def test_the_log_of_many_changes_stays_short(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 2,000 changes the database itself has all of them, and the log of the idle store is empty."""
    truncated = asyncio.Event()
    loop = asyncio.get_running_loop()

    def truncate(connection: sqlite3.Connection) -> None:
        truncate_log(connection)
        loop.call_soon_threadsafe(truncated.set)

    monkeypatch.setattr(module, "truncate_log", truncate)
    monkeypatch.setattr(module, "COMMITS", 20)
    monkeypatch.setattr(module, "LOG_BYTES", 1 << 18)
    monkeypatch.setattr(module, "IDLE_SECS", IDLE)
    await _set_backstop(manager, 200)
    sessions = [await manager.create_session(LOCAL) for _ in range(10)]
    longest = 0
    for number in range(200):
        await asyncio.gather(*(manager.set_labels(each.id, {"n": str(number)}) for each in sessions))
        longest = max(longest, size(Path(f"{path}-wal")))
    assert longest < 4 << 20  # all that was written is several times as much
    timer = manager._store._checkpointer._timer
    assert timer is not None
    timer.cancel()
    monkeypatch.setattr(module, "IDLE_SECS", 0.0)
    manager._store._checkpointer._look_whether_idle()
    async with asyncio.timeout(WAIT_SECS):
        await truncated.wait()
    assert size(Path(f"{path}-wal")) == 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as without_log:
        labels = without_log.execute("SELECT labels FROM sessions").fetchall()
    assert labels == [('{"n":"199"}',)] * 10
    assert (await manager.check()).ok


async def test_a_reader_that_stays_does_no_harm(
    path: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the log from beginning again, sees what it saw, and no change waits; when it has gone, the log does."""
    monkeypatch.setattr(module, "COMMITS", 5)
    await _set_backstop(manager, 50)
    session = await manager.create_session(LOCAL)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        before = reader.execute("SELECT labels FROM sessions").fetchall()
        for number in range(60):
            await manager.set_labels(session.id, {"n": str(number)})
        grown = size(Path(f"{path}-wal"))
        assert grown > 100 * 4096
        assert reader.execute("SELECT labels FROM sessions").fetchall() == before
    for number in range(100, 160):
        await manager.set_labels(session.id, {"n": str(number)})
    assert size(Path(f"{path}-wal")) < 1.5 * grown
    assert rows(path, "SELECT labels FROM sessions") == [('{"n":"159"}',)]


async def test_a_commit_checkpoints_a_log_that_has_become_long(manager: SessionManager) -> None:
    """Where the thread of checkpoints does not keep up, the writer itself keeps the log bounded."""
    found = await manager._store.writer.run(
        lambda connection: connection.execute("PRAGMA wal_autocheckpoint").fetchone(), lambda row: row
    )
    assert found == (BACKSTOP_PAGES,)


async def _set_backstop(manager: SessionManager, pages: int) -> None:
    await manager._checkpoint_at(pages, 64 << 20)
