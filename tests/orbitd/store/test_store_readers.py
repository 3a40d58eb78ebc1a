"""The reading connections when their callers are cancelled: no slot is lost, and the pool can be closed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from orbit_protocol.errors import Busy, ShuttingDown
from orbitd.store import readers as readers_module
from orbitd.store.file_watch import FileWatch
from orbitd.store.readers import LONG_THREADS, MAX_READERS, Readers
from support import WAIT_SECS


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """The threads of long work."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
async def readers(tmp_path: Path, executor: ThreadPoolExecutor) -> AsyncIterator[Readers]:
    """The connections to a database of one row; at the end all slots are free, and the pool is closed."""
    path = str(tmp_path / "sessions.db")
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (7)")
        opened = Readers(path, executor, FileWatch(path), "PRAGMA query_only = ON")
        yield opened
        async with asyncio.timeout(WAIT_SECS):
            await asyncio.gather(*(opened.fetch_one("SELECT x FROM t") for _ in range(3 * MAX_READERS)))
            await opened.close()


def x(connection: sqlite3.Connection) -> int:
    """Long work, in short."""
    return int(connection.execute("SELECT x FROM t").fetchone()[0])


async def cancel_after(steps: int, coroutine: Coroutine[Any, Any, object]) -> bool:
    """Run a coroutine as a task and cancel it after some turns of the loop; return whether it was cancelled."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


@pytest.mark.parametrize("steps", range(8))
async def test_a_query_that_is_cancelled(readers: Readers, steps: int) -> None:
    """Wherever the query is by then, its slot is free again."""
    for _ in range(2 * MAX_READERS):
        await cancel_after(steps, readers.fetch_one("SELECT x FROM t"))


@pytest.mark.parametrize("steps", range(8))
async def test_long_work_that_is_cancelled(readers: Readers, steps: int) -> None:
    """Its slot is free again, also where it was cancelled before its thread had begun."""
    for _ in range(2 * MAX_READERS):
        await cancel_after(steps, readers.run_in_thread(x))


async def test_long_work_that_is_cancelled_while_it_makes_room(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every connection open, an idle one is closed first; a cancellation meanwhile gives the slot back."""
    await asyncio.gather(*(readers.fetch_one("SELECT x FROM t") for _ in range(MAX_READERS)))
    closing = asyncio.Event()
    close = aiosqlite.Connection.close

    async def slow_close(connection: aiosqlite.Connection) -> None:
        closing.set()
        try:
            await asyncio.Event().wait()
        finally:
            await close(connection)

    with monkeypatch.context() as patched:
        patched.setattr(aiosqlite.Connection, "close", slow_close)
        work = asyncio.ensure_future(readers.run_in_thread(x))
        await closing.wait()
        work.cancel()
        await asyncio.wait({work})
    assert work.cancelled()


async def test_a_query_that_is_cancelled_while_it_waits_for_a_slot(readers: Readers) -> None:
    """With every slot taken a query waits, and long work with it; cancelled, they take none later."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MAX_READERS):
            await stack.enter_async_context(readers._connection())
        assert await cancel_after(2, readers.fetch_one("SELECT x FROM t"))
        assert await cancel_after(2, readers.run_in_thread(x))
    assert await asyncio.gather(*(readers.run_in_thread(x) for _ in range(2 * LONG_THREADS))) == [7] * 2 * LONG_THREADS


@contextlib.asynccontextmanager
async def long_work(readers: Readers, amount: int) -> AsyncIterator[None]:
    """Have so much long work begun, as far as it is let, while the block runs."""
    running, go_on = threading.Semaphore(0), threading.Event()

    def block(_: sqlite3.Connection) -> None:
        running.release()
        go_on.wait(WAIT_SECS)

    work = [asyncio.ensure_future(readers.run_in_thread(block)) for _ in range(amount)]
    try:
        await asyncio.to_thread(running.acquire)
        yield
    finally:
        go_on.set()
        await asyncio.gather(*work)


async def test_short_reads_never_wait_for_long_work(readers: Readers, executor: ThreadPoolExecutor) -> None:
    """However much that reads for long is begun, as many short reads as ever go on beside it, and other threads too."""
    with ThreadPoolExecutor(1) as other:
        async with long_work(readers, 3 * MAX_READERS), contextlib.AsyncExitStack() as stack:
            for _ in range(MAX_READERS - LONG_THREADS - 1):
                await stack.enter_async_context(readers._connection())
            assert await readers.run_beside(other, x) == 7
            assert await readers.fetch_one("SELECT x FROM t") == (7,)


async def test_long_work_waits_no_longer_than_it_may(readers: Readers) -> None:
    """Where it cannot begin in its time it is refused, and leaves all slots as they are; where it can, it is done."""
    assert await readers.run_in_thread(x, wait_secs=1e-9) == 7
    async with long_work(readers, LONG_THREADS):
        with pytest.raises(Busy):
            await readers.run_in_thread(x, wait_secs=1e-9)
    assert await asyncio.gather(*(readers.run_in_thread(x) for _ in range(2 * LONG_THREADS))) == [7] * 2 * LONG_THREADS


async def test_work_that_no_thread_takes(readers: Readers, executor: ThreadPoolExecutor) -> None:
    """Where no thread can be had the work fails, and its slot is free again."""
    executor.shutdown()
    for _ in range(2 * MAX_READERS):
        with pytest.raises(RuntimeError):
            await readers.run_in_thread(x)


async def test_nothing_is_read_after_the_end(readers: Readers) -> None:
    """A call that comes after the close is refused, and takes no slot."""
    assert await readers.run_in_thread(x) == 7
    await readers.close()
    with pytest.raises(ShuttingDown):
        await readers.run_in_thread(x)
    with pytest.raises(ShuttingDown):
        await readers.fetch_one("SELECT x FROM t")
    readers.closing.clear()  # for the fixture's own look


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


async def test_a_statement_that_begins_after_the_interrupt_is_ended_too(readers: Readers) -> None:
    """Work that was between two statements when the store was closed does not hold up the close."""
    running, may_begin = threading.Event(), threading.Event()

    def look_away(connection: sqlite3.Connection) -> None:
        running.set()
        may_begin.wait(WAIT_SECS)
        connection.execute(ENDLESS)

    work = asyncio.ensure_future(readers.run_in_thread(look_away))
    await asyncio.to_thread(running.wait, WAIT_SECS)
    closing = asyncio.ensure_future(readers.close())
    await asyncio.sleep(0)  # the interrupt has been sent, and nothing ran
    may_begin.set()
    async with asyncio.timeout(WAIT_SECS):
        with pytest.raises(ShuttingDown):
            await work
        await closing
    readers.closing.clear()


async def test_work_whose_connection_opens_while_the_store_is_closed(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not begun: nobody would interrupt it."""

    def open_late(path: str, setup: str) -> sqlite3.Connection:
        readers.closing.set()
        return open_reader(path, setup)

    open_reader = readers_module.open_reader
    monkeypatch.setattr(readers_module, "open_reader", open_late)
    begun: list[sqlite3.Connection] = []
    with pytest.raises(ShuttingDown):
        await readers.run_in_thread(begun.append)
    assert begun == []
    readers.closing.clear()


async def test_a_connection_that_its_thread_has_just_closed_is_no_error_of_the_close(readers: Readers) -> None:
    """The writer is closed after the readers, whatever they do."""
    closed = sqlite3.connect(":memory:")
    closed.close()
    readers._long.add(closed)
    async with long_work(readers, 1):
        closing = asyncio.ensure_future(readers.close())
        await asyncio.sleep(0)
        assert not closing.done()
    await closing
    readers._long.clear()
    readers.closing.clear()
