"""An open store: the writer, the readers, the cache and a pool of threads, shared by the SessionManager's methods.

Used on the event loop that opened it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sqlite3
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from orbit_protocol.errors import Busy, StorageCorrupt, StorageError, StorageFull, StorageReadOnly
from orbit_protocol.results import CheckReport
from orbit_protocol.types import Event, Session
from orbitd.logs import event
from orbitd.store import events, validation
from orbitd.store.backup import recovery
from orbitd.store.cache import Cache, Change
from orbitd.store.checkpointer import Checkpointer
from orbitd.store.damage import TABLES, DamagedRows, fetch_rows, undecodable_rows
from orbitd.store.database import READER_SETUP, open_reader, open_writer, reader_setup
from orbitd.store.errors import translate, translated
from orbitd.store.event_recorder import EventRecorder
from orbitd.store.events import EventLog
from orbitd.store.file_watch import FileWatch
from orbitd.store.readers import LONG_THREADS, Readers
from orbitd.store.rows import SESSION_COLUMNS, WORKSPACE_COLUMNS, Row, Stored, time_from_text
from orbitd.store.writer import MAX_GROUP, MAX_WAITING, Writer

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("orbitd.store")

_THREADS = min(4, os.cpu_count() or 1)
_CACHED_SESSIONS = f"""
    SELECT {SESSION_COLUMNS} FROM sessions
    WHERE {{sound}} AND status != 'terminated' AND deleted_at IS NULL ORDER BY seq
"""  # noqa: S608  # ours
_WORKSPACES = f"SELECT {WORKSPACE_COLUMNS} FROM workspaces WHERE {{sound}} ORDER BY seq"  # noqa: S608  # ours
_RECHECKED = 500
"""The most damaged rows that are read once more at a time."""

_LAST_AUTO_SAVE = "SELECT value FROM meta WHERE key = 'last_auto_save_at'"


class Loaded(Struct, frozen=True, kw_only=True):
    """What a start has read from the database.

    Args:
        cache: Of the rows that are kept in memory.
        events: What is known of the stored events.
        damage: The rows that could not be loaded.
        last_auto_save_at: When touches were last written.
        repairs: Sentences about what was damaged and has been put right.
        read_only: Why nothing can be written; None for a store as it should be.
        reader_setup: The script that each reading connection begins with.
    """

    cache: Cache
    events: EventLog
    damage: DamagedRows
    last_auto_save_at: datetime | None = None
    repairs: list[str] = []
    read_only: str | None = None
    reader_setup: str = READER_SETUP


class Store:
    """An open store.

    Args:
        path: The database, absolute.
        writer: The writing thread, started.
        loaded: What was read at the start.
    """

    def __init__(self, path: str, writer: Writer, loaded: Loaded) -> None:
        self.path = path
        self.reserved: tuple[str, ...] = ()  # files and folders that no backup is written to
        self.writer = writer
        self.cache = loaded.cache
        self.events = loaded.events
        self.last_auto_save_at = loaded.last_auto_save_at
        self.repairs = loaded.repairs
        self.read_only = loaded.read_only
        self.damage = loaded.damage
        self.last_check: CheckReport | None = None
        self.bulk_writers = 0  # how many write in slices now
        self.room_lock = asyncio.Lock()
        self.trash_emptied = 0  # how often, for want of room
        self.is_making_room = False
        self.make_room: Callable[[], Awaitable[bool]] | None = None  # on a full disk; returns whether it made any
        self.unusual: frozenset[str] = frozenset()  # ids of what could not get its name in NFC
        self.first_page: tuple[tuple[int, int | None], list[Session], str | None] | None = None
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="orbit-store")
        # Threads of its own for work that reads for long: two of them, a check and a backup say, would have every
        # snapshot wait that is compressed or decompressed (measured: for 15 s).
        self._long_pool = ThreadPoolExecutor(max_workers=LONG_THREADS, thread_name_prefix="orbit-reader")
        # One for checkpoints, which wait for no check.
        self._checkpoint_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="orbit-checkpoint")
        assert writer.file_watch is not None
        self.file_watch = writer.file_watch
        self.readers = Readers(path, self._long_pool, self.file_watch, loaded.reader_setup)
        self.recorder = EventRecorder(writer, loaded.events, self.readers.fetch_one, self._apply_sessions)
        self._checkpointer = Checkpointer(
            path, writer, self.in_checkpoint_thread, lambda: self.bulk_writers > 0 or self.is_making_room
        )
        # Weak: a lock exists as long as somebody holds it or waits for it.
        self._chain_locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def write(self, work: Callable[[sqlite3.Connection], Change[R]]) -> R:
        """Have `work` done in the writer's thread, and its change applied to the cache once it is on disk."""
        return await self.run(partial(self._record, work), self._apply)

    async def run(self, work: Callable[[sqlite3.Connection], T], on_commit: Callable[[T], R]) -> R:
        """Do as `Writer.run` does; where the disk is full, make room and try once more."""
        try:
            return await self.writer.run(work, on_commit)
        except StorageFull:
            if self.make_room is None or not await self.make_room():
                raise
        return await self.writer.run(work, on_commit)

    async def write_once(self, work: Callable[[sqlite3.Connection], Change[R]]) -> R:
        """Do as `write` does, without making room: for what itself makes room."""
        return await self.writer.run(partial(self._record, work), self._apply)

    def _record(
        self, work: Callable[[sqlite3.Connection], Change[R]], connection: sqlite3.Connection
    ) -> tuple[Change[R], list[Event]]:
        change = work(connection)
        return change, self.events.insert(connection, change.events)

    def _apply_sessions(self, sessions: Sequence[Stored[Session]]) -> None:
        self.cache.apply(Change(result=None, sessions=tuple(sessions)))

    def _apply(self, outcome: tuple[Change[R], list[Event]]) -> R:
        # Without an await until they are published: who hears of a change finds it in the cache.
        change, recorded = outcome
        result = self.cache.apply(change)
        self.recorder.committed(recorded)
        return result

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
            if stored is not None and error.table in ("sessions", "workspaces"):
                await self.write(partial(_read_again, table=error.table, seq=error.seq))
            self.damage.forget(error)  # last: if the cache does not get the row, it is tried again

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

    async def in_checkpoint_thread(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run a checkpoint with a connection of its own, in a thread of its own."""
        await self.readers.run_beside(self._checkpoint_pool, work)

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
        try:
            await self.recorder.close()
            await self.readers.close()  # ends a checkpoint that runs
        finally:
            await self._checkpointer.close()
            await self.writer.close()
        for pool in (self._pool, self._long_pool, self._checkpoint_pool):
            await asyncio.to_thread(pool.shutdown)


def _read_again(connection: sqlite3.Connection, table: str, seq: int) -> Change[None]:
    """Return a repaired row as a change of the cache, in the writer's order of changes."""
    columns, decode = TABLES[table]
    row = connection.execute(f"SELECT {columns} FROM {table} WHERE seq = ?", (seq,)).fetchone()  # noqa: S608  # ours
    found: tuple[Stored[Any], ...] = () if row is None else (decode(row),)
    return Change(result=None, sessions=found) if table == "sessions" else Change(result=None, workspaces=found)


async def open_store(
    path: str,
    *,
    start_empty: bool = False,
    max_group: int = MAX_GROUP,
    max_waiting: int = MAX_WAITING,
    migrations: Sequence[str] | None = None,
) -> Store:
    """Open the database at an absolute path, making or migrating it if needed, and load the cache.

    Whatever fails beyond what is refused on purpose, what can be read is served, and nothing is written.

    Raises:
        StorageCorrupt: It was damaged and has been set aside (`database.open_writer`), or the disk cannot be read.
        StorageReadOnly: It is not ours, too new, or cannot be written.
        StorageFull, Busy: There is no room, or another program holds it.
    """
    writer = Writer(max_group=max_group, max_waiting=max_waiting)
    loaded: list[Loaded] = []

    def opener() -> sqlite3.Connection:
        # In the writer's thread, before anything is served. Damage that shows only in the rows that
        # the cache loads is handled like damage that shows when the file is opened; the connection
        # is closed before the file is renamed.
        try:
            with translated(path), recovery.set_aside_if_damaged(path), contextlib.ExitStack() as stack:
                opened = open_writer(path, start_empty=start_empty, migrations=migrations)
                connection = stack.enter_context(contextlib.closing(opened.connection))
                loaded.append(_load(connection, path, opened.repairs))
                writer.file_watch = FileWatch(path)  # after a statement: the WAL exists from the first one on
                stack.pop_all()
                return connection
        except (StorageError, Busy, OSError):
            raise
        except Exception as error:  # noqa: BLE001  # the last resort, whatever it is
            reason = str(error) if isinstance(error, recovery.Unexpected) else type(error).__name__
            event(log, logging.ERROR, "store is served read-only", database=path, error=reason, exc=error)
            try:
                connection, found = _open_read_only(path, reason)
                writer.file_watch = FileWatch(path)
            except (StorageError, OSError, MemoryError):
                raise
            except Exception as worse:  # as above
                if isinstance(worse, sqlite3.Error) and recovery.is_environment(worse):
                    raise translate(worse) from worse  # the database may be sound
                raise recovery.set_aside(path, f"{reason}, {type(worse).__name__}") from error
            loaded.append(found)
            writer.refusal = _refusal(reason)
            return connection

    await writer.start(opener)
    return Store(path, writer, loaded[0])


def _load(connection: sqlite3.Connection, path: str, repairs: list[str]) -> Loaded:
    damage = DamagedRows()
    sessions = fetch_rows(connection, ("sessions",), _CACHED_SESSIONS, (), damage.add)
    cache = Cache(sessions, fetch_rows(connection, ("workspaces",), _WORKSPACES, (), damage.add), damage.add)
    return Loaded(
        cache=cache,
        events=events.load(connection, os.stat(path).st_ino),
        damage=damage,
        last_auto_save_at=_last_auto_save(connection),
        repairs=repairs,
    )


def _last_auto_save(connection: sqlite3.Connection) -> datetime | None:
    row = connection.execute(_LAST_AUTO_SAVE).fetchone()
    try:
        return None if row is None else time_from_text(row[0])
    except (TypeError, ValueError):  # damaged, and written again by the next auto-save
        return None


def _open_read_only(path: str, reason: str) -> tuple[sqlite3.Connection, Loaded]:
    """Open the database to read what can be read: a table that cannot be counts as empty."""
    setup = reader_setup(path)
    connection = open_reader(path, setup)

    damage = DamagedRows()

    def rows(table: str, query: str) -> list[Row]:
        with contextlib.suppress(sqlite3.Error):
            return fetch_rows(connection, (table,), query, (), damage.add)
        return []

    cache = Cache(rows("sessions", _CACHED_SESSIONS), rows("workspaces", _WORKSPACES), damage.add)
    known = EventLog(events.new_epoch(), 0, 0)
    with contextlib.suppress(sqlite3.Error):
        known = events.load(connection, os.stat(path).st_ino, writable=False)
    return connection, Loaded(cache=cache, events=known, damage=damage, read_only=reason, reader_setup=setup)


def _refusal(reason: str) -> StorageReadOnly:
    return StorageReadOnly(
        f"The store is read-only, as the database could not be opened as usual: {reason}",
        hint="`orbitctl daemon logs` has the details; what can be read is served, and nothing is changed.",
    )
