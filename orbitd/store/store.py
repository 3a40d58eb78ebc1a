"""An open store: the writer, the readers, the cache and a pool of threads, shared by the SessionManager's methods.

Used on the event loop that opened it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from orbit_protocol.errors import StorageCorrupt
from orbit_protocol.results import CheckReport
from orbit_protocol.types import Session
from orbitd.store import validation
from orbitd.store.backup import recovery
from orbitd.store.cache import Cache, Change
from orbitd.store.damage import TABLES, DamagedRows, fetch_rows, undecodable_rows
from orbitd.store.database import open_writer
from orbitd.store.errors import translated
from orbitd.store.file_watch import FileWatch
from orbitd.store.readers import Readers
from orbitd.store.rows import SESSION_COLUMNS, WORKSPACE_COLUMNS, Row, Stored, time_from_text
from orbitd.store.writer import MAX_GROUP, MAX_WAITING, Writer

T = TypeVar("T")
R = TypeVar("R")

_THREADS = min(4, os.cpu_count() or 1)
_CACHED_SESSIONS = f"SELECT {SESSION_COLUMNS} FROM sessions WHERE {{sound}} AND status != 'terminated' ORDER BY seq"  # noqa: S608  # ours
_WORKSPACES = f"SELECT {WORKSPACE_COLUMNS} FROM workspaces WHERE {{sound}} ORDER BY seq"  # noqa: S608  # ours
_RECHECKED = 500
"""The most damaged rows that are read once more at a time."""

_LAST_AUTO_SAVE = "SELECT value FROM meta WHERE key = 'last_auto_save_at'"


class Store:
    """An open store.

    Args:
        path: The database, absolute.
        writer: The writing thread, started.
        cache: As loaded.
        damage: The rows that could not be loaded.
        last_auto_save_at: When touches were last written.
    """

    def __init__(
        self, path: str, writer: Writer, cache: Cache, damage: DamagedRows, last_auto_save_at: datetime | None
    ) -> None:
        self.path = path
        self.reserved: tuple[str, ...] = ()  # files and folders that no backup is written to
        self.writer = writer
        self.cache = cache
        self.damage = damage
        self.last_check: CheckReport | None = None
        self.unusual: frozenset[str] = frozenset()  # ids of what could not get its name in NFC
        self.last_auto_save_at = last_auto_save_at
        self.first_page: tuple[tuple[int, int | None], list[Session], str | None] | None = None
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="orbit-store")
        assert writer.file_watch is not None
        self.file_watch = writer.file_watch
        self.readers = Readers(path, self._pool, self.file_watch)
        # Weak: a lock exists as long as somebody holds it or waits for it.
        self._chain_locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def write(self, work: Callable[[sqlite3.Connection], Change[R]]) -> R:
        """Have `work` done in the writer's thread, and its change applied to the cache once it is on disk."""
        return await self.writer.run(work, self.cache.apply)

    async def change_session(self, work: Callable[[sqlite3.Connection], Change[Session]]) -> Session:
        """Do as `write` does, and return the session with its last touch."""
        return self.cache.as_touched(await self.write(work))

    async def fetch(
        self, tables: Sequence[str], query: str, parameters: Sequence[Any] | dict[str, Any] = ()
    ) -> list[Row]:
        """Return the rows of a query, without those whose records SQLite cannot decode (`damage.fetch_rows`)."""
        try:
            return await self.readers.fetch_all(query.replace("{sound}", self.damage.sound(tables)), parameters)
        except StorageCorrupt:
            found = await self.readers.run_in_thread(partial(undecodable_rows, tables=tables))
            if not found:
                raise
        for error in found:
            self.damage.add(error)
        return await self.readers.fetch_all(query.replace("{sound}", self.damage.sound(tables)), parameters)

    async def recheck_damaged(self) -> None:
        """Read the rows that are known to be damaged once more: one may have been deleted, or repaired from outside."""
        for error in itertools.islice(self.damage, _RECHECKED):
            columns, decode = TABLES[error.table]
            query = f"SELECT {columns} FROM {error.table} WHERE seq = ?"  # noqa: S608  # names of ours
            try:
                row = await self.readers.fetch_one(query, (error.seq,))
                stored = None if row is None else decode(row)
            except StorageCorrupt:  # as DamagedRow is
                continue
            self.damage.forget(error)
            if stored is not None and error.table in ("sessions", "workspaces"):
                await self.write(partial(_read_again, table=error.table, seq=error.seq))

    def unusual_names(self) -> Iterator[tuple[str, str, str]]:
        """Iterate over the kind, id and name of what still has a name that is not in NFC, as it is taken in NFC."""
        for item_id in self.unusual:
            session, workspace = self.cache.sessions.get(item_id), self.cache.workspaces.get(item_id)
            if session is not None and session.name is not None and not validation.is_normalized(session.name):
                yield "session", item_id, session.name
            if workspace is not None and not validation.is_normalized(workspace.name):
                yield "workspace", item_id, workspace.name

    async def in_pool(self, work: Callable[[], T]) -> T:
        """Run slow work that does not use the database in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def chain_lock(self, session_id: str) -> asyncio.Lock:
        """Return the lock under which a session's snapshots are saved and deleted, one after the other."""
        lock = self._chain_locks.get(session_id)
        if lock is None:
            lock = self._chain_locks[session_id] = asyncio.Lock()
        return lock

    async def close(self) -> None:
        """Finish what runs, then close."""
        # The writer last: the last connection to close checkpoints the WAL into the database and
        # deletes it, and that is to happen in the writer's thread.
        await self.readers.close()
        await self.writer.close()
        await asyncio.to_thread(self._pool.shutdown)


def _read_again(connection: sqlite3.Connection, table: str, seq: int) -> Change[None]:
    """Return a repaired row as a change of the cache, in the writer's order of changes."""
    columns, decode = TABLES[table]
    row = connection.execute(f"SELECT {columns} FROM {table} WHERE seq = ?", (seq,)).fetchone()  # noqa: S608  # ours
    found: tuple[Stored[Any], ...] = () if row is None else (decode(row),)
    return Change(result=None, sessions=found) if table == "sessions" else Change(result=None, workspaces=found)


async def open_store(
    path: str, *, start_empty: bool = False, max_group: int = MAX_GROUP, max_waiting: int = MAX_WAITING
) -> Store:
    """Open the database at an absolute path, making or migrating it if needed, and load the cache.

    Raises:
        StorageCorrupt: It was damaged and has been set aside (`database.open_writer`).
        StorageReadOnly: It is not ours, too new, or cannot be written.
    """
    writer = Writer(max_group=max_group, max_waiting=max_waiting)
    damage = DamagedRows()
    loaded: list[tuple[Cache, datetime | None]] = []

    def opener() -> sqlite3.Connection:
        # In the writer's thread, before anything is served. Damage that shows only in the rows that
        # the cache loads is handled like damage that shows when the file is opened; the connection
        # is closed before the file is renamed.
        with translated(), recovery.set_aside_if_damaged(path), contextlib.ExitStack() as stack:
            connection = stack.enter_context(contextlib.closing(open_writer(path, start_empty=start_empty)))
            sessions = fetch_rows(connection, ("sessions",), _CACHED_SESSIONS, (), damage.add)
            workspaces = fetch_rows(connection, ("workspaces",), _WORKSPACES, (), damage.add)
            cache = Cache(sessions, workspaces, damage.add)
            loaded.append((cache, _last_auto_save(connection)))
            writer.file_watch = FileWatch(path)  # after a statement: the WAL exists from the first one on
            stack.pop_all()
            return connection

    await writer.start(opener)
    cache, last_auto_save_at = loaded[0]
    return Store(path, writer, cache, damage, last_auto_save_at)


def _last_auto_save(connection: sqlite3.Connection) -> datetime | None:
    row = connection.execute(_LAST_AUTO_SAVE).fetchone()
    try:
        return None if row is None else time_from_text(row[0])
    except (TypeError, ValueError):  # damaged, and written anew by the next auto-save
        return None
