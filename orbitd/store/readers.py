"""The connections that only read: at most nine, opened when first needed and then reused.

With the writer's one they are ten in all. Short queries go through aiosqlite, which has a
thread for each connection. Long work (backup, check) gets a connection of its own in the
store's thread pool, and counts as one of the nine; at most four of them are such, so that short
queries never wait for it. WAL readers block neither each other nor the writer
(sqlite.org/wal.html#concurrency).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

import aiosqlite

from orbit_protocol.errors import Busy, ShuttingDown
from orbitd.store.database import BUSY_SECONDS, READER_SETUP, open_reader
from orbitd.store.errors import translated
from orbitd.store.file_watch import FileWatch
from orbitd.store.files import file_uri
from orbitd.store.progress import Progress
from orbitd.store.rows import Row, lenient_text

MAX_READERS = 9
LONG_THREADS = 4
"""How much that reads for long goes on at once; more would only take the GIL from each other."""

_INTERRUPT_SECS = 0.1

T = TypeVar("T")


class Readers:
    """The pool of reading connections; used on one event loop.

    Args:
        path: The database, which exists.
        executor: Runs long work.
        file_watch: Checks that the file at the path is still that database.
        setup: The script that each connection begins with.
    """

    def __init__(self, path: str, executor: Executor, file_watch: FileWatch, setup: str = READER_SETUP) -> None:
        self._path = path
        self._setup = setup
        self._executor = executor
        self._file_watch = file_watch
        self._slots = asyncio.Semaphore(MAX_READERS)
        self._long_slots = asyncio.Semaphore(LONG_THREADS)  # always taken before a slot
        self._idle: list[aiosqlite.Connection] = []
        self._long: set[sqlite3.Connection] = set()  # changed in the pool's threads; add and discard are atomic
        self._busy = 0  # slots that are taken
        self._slot_released = asyncio.Event()
        self.closing = threading.Event()
        """Set when the store is being closed: long work looks at it between two statements."""

    @property
    def descriptors(self) -> int:
        """How many descriptors the connections have open: each the database and its log."""
        return 2 * (len(self._idle) + self._busy)

    async def fetch_all(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """Return the rows of one query, all from one snapshot of the database."""
        async with self._connection() as connection:
            return list(await connection.execute_fetchall(sql, parameters))  # type: ignore[arg-type]  # tuples, as no row_factory is set

    async def fetch_one(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Row | None:
        """Return the first row of a query, or None."""
        rows = await self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    async def run_in_thread(
        self,
        work: Callable[[sqlite3.Connection], T],
        progress: Progress | None = None,
        *,
        wait_secs: float | None = None,
    ) -> T:
        """Run long work with a reading connection of its own.

        If the caller is cancelled, it runs to its end nevertheless, or ends soon where it has a `progress`.

        Args:
            work: Gets the connection.
            progress: Ends the work.
            wait_secs: How long it may wait for other long work to end, if not for ever.

        Raises:
            Busy: It could not begin by then.
        """
        try:
            async with asyncio.timeout(wait_secs):
                await self._long_slots.acquire()
                try:
                    await self._acquire_slot()
                except BaseException:
                    self._long_slots.release()
                    raise
        except TimeoutError as error:
            raise Busy(f"{LONG_THREADS} checks, backups or the like read the database already") from error
        return await self._run(self._executor, work, progress, self._long_slots.release)

    async def run_beside(self, executor: Executor, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do as `run_in_thread` does in a thread of another executor, which waits for no long work."""
        await self._acquire_slot()
        return await self._run(executor, work)

    async def _run(
        self,
        executor: Executor,
        work: Callable[[sqlite3.Connection], T],
        progress: Progress | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> T:
        """Run work for which a slot was acquired; release that, and call `on_end`, once its thread is done."""

        def release() -> None:
            self._release_slot()
            on_end()

        own: list[sqlite3.Connection] = []

        def run() -> T:
            self._file_watch.check()
            with translated(), contextlib.closing(open_reader(self._path, self._setup)) as connection:
                self._long.add(connection)
                own.append(connection)
                try:
                    if self.closing.is_set():  # `close` may have looked for connections just before
                        raise ShuttingDown("The store is closed")
                    return work(connection)
                finally:
                    own.clear()
                    self._long.discard(connection)

        try:
            if len(self._idle) + self._busy > MAX_READERS:
                # The thread opens a connection of its own, so an idle one is closed: nine stay the most.
                await self._idle.pop().close()
            running = asyncio.get_running_loop().run_in_executor(executor, run)
        except BaseException:  # cancelled, or the executor takes nothing any more
            release()
            raise
        # The slot is released when the thread is done. A cancelled await does not stop the thread,
        # and without the shield it would mark the future as done while the connection is in use.
        running.add_done_callback(lambda _: release())
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if progress is not None:
                progress.cancel()  # before the statement that runs is ended, so that no other one follows it
                _interrupt(own)
            raise

    async def close(self) -> None:
        """Wait for the queries that run, then close every connection. Long work is interrupted."""
        self.closing.set()
        # interrupt() may be called from another thread; the statement that runs fails with
        # SQLITE_INTERRUPT, which callers get as ShuttingDown. An integrity check of a large store
        # would outlast the grace period of a stop.
        while self._busy:
            _interrupt(self._long)
            self._slot_released.clear()
            # Again and again: what comes between two statements is lost, and the next one may take long.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERRUPT_SECS):
                    await self._slot_released.wait()
        while self._idle:
            await self._idle.pop().close()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiosqlite.Connection]:
        await self._acquire_slot()
        try:
            with translated():
                connection = self._idle.pop() if self._idle else await self._open()
                try:
                    yield connection
                finally:
                    # After a cancellation the query may still run in aiosqlite's thread. The
                    # connection can be reused all the same: its thread runs one call after the other.
                    self._idle.append(connection)
        finally:
            self._release_slot()

    async def _open(self) -> aiosqlite.Connection:
        # A new connection opens by path: after the database was replaced it would read another
        # one than the writer has open.
        self._file_watch.check()
        uri = file_uri(self._path, "mode=rw")
        opening = asyncio.ensure_future(_connect(uri))
        try:
            connection = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # aiosqlite (0.22) forgets a connection whose opening is cancelled, and leaves it open: it is opened, some
            # milliseconds, and closed.
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()
            raise
        connection.text_factory = lenient_text
        try:
            await connection.executescript(self._setup)
        except BaseException:
            await asyncio.shield(connection.close())  # also when cancelled: only close() ends its thread
            raise
        return connection

    async def _acquire_slot(self) -> None:
        await self._slots.acquire()
        if self.closing.is_set():  # `close` may have run while this waited for the slot
            self._slots.release()
            raise ShuttingDown("The store is closed")
        self._busy += 1

    def _release_slot(self) -> None:
        self._busy -= 1
        self._slots.release()
        self._slot_released.set()


def _interrupt(connections: Collection[sqlite3.Connection]) -> None:
    """End the statements that run on connections of other threads."""
    for connection in tuple(connections):
        with contextlib.suppress(sqlite3.ProgrammingError):  # its thread has closed it just now
            connection.interrupt()


async def _connect(uri: str) -> aiosqlite.Connection:
    return await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
