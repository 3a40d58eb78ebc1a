"""The connections that only read: opened when first needed, at most nine, kept for the next reader.

With the writer's one they are ten in all. Short reads go through aiosqlite; long ones
(backup, check) get a connection of their own and a thread, and count as one of the nine.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

import aiosqlite

from orbit_protocol.errors import ShuttingDown
from orbitd.store.database import BUSY_SECONDS, READER_SETUP, open_reader
from orbitd.store.errors import translated
from orbitd.store.file_watch import FileWatch
from orbitd.store.files import file_uri

MAX_READERS = 9

T = TypeVar("T")
Row = tuple[Any, ...]


class Readers:
    """The pool of reading connections.

    Args:
        path: The database, which exists.
        executor: Where long reads run.
        file_watch: Tells whether the file at the path is still that database.
    """

    def __init__(self, path: str, executor: Executor, file_watch: FileWatch) -> None:
        self._path = path
        self._executor = executor
        self._file_watch = file_watch
        self._slots = asyncio.Semaphore(MAX_READERS)
        self._idle: list[aiosqlite.Connection] = []
        self._long: set[sqlite3.Connection] = set()
        self._busy = 0
        self._all_back = asyncio.Event()
        self._closed = False

    async def fetch_all(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """Return the rows of one query, which see one moment."""
        async with self._connection() as connection:
            return list(await connection.execute_fetchall(sql, parameters))  # type: ignore[arg-type]  # tuples, as no row_factory is set

    async def fetch_one(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Row | None:
        """Return the first row of a query, or None."""
        rows = await self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    async def in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run long work with a reading connection of its own; it runs to its end even if nobody waits."""
        await self._enter()
        if len(self._idle) + self._busy > MAX_READERS:
            await self._idle.pop().close()
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._work, work)
        running.add_done_callback(self._leave)
        return await asyncio.shield(running)

    async def close(self) -> None:
        """Wait for what is being read, then close every connection."""
        self._closed = True
        for connection in list(self._long):
            connection.interrupt()  # an integrity check of a large store would outlast any patience
        while self._busy:
            self._all_back.clear()
            await self._all_back.wait()
        while self._idle:
            await self._idle.pop().close()

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._file_watch.check()
        with translated(), contextlib.closing(open_reader(self._path)) as connection:
            self._long.add(connection)
            try:
                return work(connection)
            finally:
                self._long.discard(connection)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiosqlite.Connection]:
        await self._enter()
        try:
            with translated():
                connection = self._idle.pop() if self._idle else await self._open()
                try:
                    yield connection
                finally:
                    self._idle.append(connection)
        finally:
            self._leave()

    async def _open(self) -> aiosqlite.Connection:
        self._file_watch.check()
        uri = file_uri(self._path, "mode=rw")
        connection = await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            await connection.executescript(READER_SETUP)
        except BaseException:
            await asyncio.shield(connection.close())
            raise
        return connection

    async def _enter(self) -> None:
        await self._slots.acquire()
        if self._closed:
            self._slots.release()
            raise ShuttingDown("The store is closed")
        self._busy += 1

    def _leave(self, _: object = None) -> None:
        self._busy -= 1
        self._slots.release()
        self._all_back.set()
