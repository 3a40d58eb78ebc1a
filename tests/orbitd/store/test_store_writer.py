"""The writing thread: one transaction for many, and each caller's work stands or falls alone."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from orbit_protocol.errors import Busy, ShuttingDown
from orbitd.store.writer import Writer
from store_support import rows


def insert(value: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (value,))
        return value

    return work


def same(result: Any) -> Any:
    return result


@contextlib.asynccontextmanager
async def open_writer(path: Path, **options: int) -> AsyncIterator[Writer]:
    def opener() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, timeout=0.05)
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS numbers (n INTEGER UNIQUE);")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    writer = Writer(**options)
    await writer.start(opener)
    try:
        yield writer
    finally:
        await writer.close()


@contextlib.asynccontextmanager
async def held(writer: Writer) -> AsyncIterator[None]:
    """Keep the thread busy, so that what is handed in meanwhile becomes one group."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(10)

    task = asyncio.create_task(writer.run(work, same))
    await begun.wait()
    try:
        yield
        for _ in range(3):  # let the tasks that were made meanwhile hand in their work
            await asyncio.sleep(0)
    finally:
        go_on.set()
        await task


async def together(writer: Writer, *works: Callable[[sqlite3.Connection], Any]) -> list[Any]:
    """Have all the work done as one group; return results and exceptions in order."""
    async with held(writer):
        tasks = [asyncio.create_task(writer.run(work, same)) for work in works]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def commits(writer: Writer, act: Callable[[], Any]) -> int:
    """Count the transactions that are committed while `act` runs."""
    counted: list[str] = []
    await writer.run(lambda c: c.set_trace_callback(counted.append), same, alone=True)
    await act()
    await writer.run(lambda c: c.set_trace_callback(None), same, alone=True)
    return counted.count("COMMIT")


async def test_result_comes_after_commit(tmp_path: Path) -> None:
    """When the caller is answered, another connection sees the change."""
    async with open_writer(tmp_path / "w.db") as writer:
        assert await writer.run(insert(7), lambda value: value * 2) == 14
        assert rows(tmp_path / "w.db", "SELECT n FROM numbers") == [(7,)]


async def test_what_waits_is_committed_once(tmp_path: Path) -> None:
    """All the work that waits goes into one transaction."""
    async with open_writer(tmp_path / "w.db") as writer:
        count = await commits(writer, lambda: together(writer, *map(insert, range(20))))
        assert count == 2  # the one that kept the thread busy, and the twenty
        assert rows(tmp_path / "w.db", "SELECT count(*) FROM numbers") == [(20,)]


async def test_max_group_bounds_a_transaction(tmp_path: Path) -> None:
    """With max_group 1 each call is committed by itself."""
    async with open_writer(tmp_path / "w.db", max_group=1) as writer:
        assert await commits(writer, lambda: together(writer, *map(insert, range(5)))) == 6


async def test_failing_work_takes_back_only_its_own(tmp_path: Path) -> None:
    """One piece of a group that raises half-way leaves no trace, and the others stay."""

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (99)")
        raise KeyError("half-way")

    async with open_writer(tmp_path / "w.db") as writer:
        first, failed, second = await together(writer, insert(1), half, insert(2))
        assert (first, second) == (1, 2)
        assert isinstance(failed, KeyError)
        assert rows(tmp_path / "w.db", "SELECT n FROM numbers ORDER BY n") == [(1,), (2,)]


async def test_group_that_cannot_be_committed_is_done_one_by_one(tmp_path: Path) -> None:
    """Where COMMIT itself fails, only the piece that made it fail is answered with the error."""
    path = tmp_path / "w.db"

    def dangling(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("INSERT INTO children VALUES (12345)")

    async with open_writer(path) as writer:
        create = "CREATE TABLE children (n INTEGER REFERENCES numbers (n))"
        await writer.run(lambda c: c.execute(create) and None, same)
        first, failed, second = await together(writer, insert(1), dangling, insert(2))
        assert (first, second) == (1, 2)
        assert isinstance(failed, sqlite3.IntegrityError)
        assert rows(path, "SELECT n FROM numbers ORDER BY n") == [(1,), (2,)]
        assert rows(path, "SELECT count(*) FROM children") == [(0,)]


async def test_transaction_that_sqlite_rolled_back_is_done_one_by_one(tmp_path: Path) -> None:
    """Work that loses the whole transaction, as a full disk does, fails alone; what came before it is done again."""

    def lose(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR ROLLBACK INTO numbers VALUES (1)")

    async with open_writer(tmp_path / "w.db") as writer:
        first, failed, second = await together(writer, insert(1), lose, insert(2))
        assert (first, second) == (1, 2)
        assert isinstance(failed, sqlite3.IntegrityError)
        assert rows(tmp_path / "w.db", "SELECT n FROM numbers ORDER BY n") == [(1,), (2,)]


async def test_locked_database_is_busy_for_all(tmp_path: Path) -> None:
    """While another program holds the database, calls are answered `busy`; later ones succeed."""
    async with open_writer(tmp_path / "w.db") as writer:
        with contextlib.closing(sqlite3.connect(tmp_path / "w.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            results = await asyncio.gather(*(writer.run(insert(n), same) for n in range(3)), return_exceptions=True)
            assert [type(result) for result in results] == [Busy, Busy, Busy]
            other.execute("ROLLBACK")
        assert await writer.run(insert(1), same) == 1


async def test_cancelled_caller_changes_nothing(tmp_path: Path) -> None:
    """Work whose caller stopped waiting is done wholly, and on_commit sees it."""
    seen: list[int] = []
    async with open_writer(tmp_path / "w.db") as writer:
        async with held(writer):
            task = asyncio.create_task(writer.run(insert(5), seen.append))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert seen == []
        await writer.run(insert(6), same)
        assert seen == [5]
        assert rows(tmp_path / "w.db", "SELECT n FROM numbers ORDER BY n") == [(5,), (6,)]


async def test_on_commit_runs_in_commit_order(tmp_path: Path) -> None:
    """The callbacks of a group run in the order in which the work was handed in."""
    seen: list[int] = []
    async with open_writer(tmp_path / "w.db") as writer:
        async with held(writer):
            tasks = [asyncio.create_task(writer.run(insert(n), seen.append)) for n in (3, 1, 2)]
        await asyncio.gather(*tasks)
    assert seen == [3, 1, 2]


async def test_failing_on_commit_reaches_its_caller_only(tmp_path: Path) -> None:
    """An on_commit that raises does not keep the others of its group from their answers."""

    def refuse(_: int) -> None:
        raise LookupError("no")

    async with open_writer(tmp_path / "w.db") as writer:
        async with held(writer):
            bad = asyncio.create_task(writer.run(insert(1), refuse))
            good = asyncio.create_task(writer.run(insert(2), same))
        with pytest.raises(LookupError):
            await bad
        assert await good == 2


async def test_alone_runs_outside_any_transaction(tmp_path: Path) -> None:
    """Work that must be alone splits the group, in order."""

    def look(connection: sqlite3.Connection) -> tuple[bool, int]:
        return connection.in_transaction, connection.execute("SELECT count(*) FROM numbers").fetchone()[0]

    async with open_writer(tmp_path / "w.db") as writer:
        async with held(writer):
            before = asyncio.create_task(writer.run(insert(1), same))
            alone = asyncio.create_task(writer.run(look, same, alone=True))
            after = asyncio.create_task(writer.run(insert(2), same))
        assert await asyncio.gather(before, alone, after) == [1, (False, 1), 2]


async def test_queue_is_bounded(tmp_path: Path) -> None:
    """At max_waiting, the next caller waits before its work is handed in, and can give up without a trace."""
    async with open_writer(tmp_path / "w.db", max_waiting=3) as writer:
        async with held(writer):  # takes one of the three
            tasks = [asyncio.create_task(writer.run(insert(n), same)) for n in range(4)]
            await asyncio.sleep(0)
            tasks[3].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[3]
        assert await asyncio.gather(*tasks[:3]) == [0, 1, 2]
        assert rows(tmp_path / "w.db", "SELECT n FROM numbers ORDER BY n") == [(0,), (1,), (2,)]


async def test_close_finishes_what_waits(tmp_path: Path) -> None:
    """Closing answers what was handed in before; what comes after is refused."""
    async with open_writer(tmp_path / "w.db") as writer:
        tasks = [asyncio.create_task(writer.run(insert(n), same)) for n in range(10)]
        await asyncio.sleep(0)
        await writer.close()
        assert await asyncio.gather(*tasks) == list(range(10))
        with pytest.raises(ShuttingDown):
            await writer.run(insert(11), same)


async def test_opener_that_fails_is_told(tmp_path: Path) -> None:
    """What goes wrong while opening is raised by start."""

    def opener() -> sqlite3.Connection:
        raise FileNotFoundError("nowhere")

    with pytest.raises(FileNotFoundError, match="nowhere"):
        await Writer().start(opener)
