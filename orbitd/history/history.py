"""The histories of all sessions: what a daemon records, and the way to read it.

    async with History(path, settings) as history:
        recording = await history.recording(session_id)
        await history.record(session_id, ...)      # a part of each save
        await history.read(work)                   # `work(connection)` in a thread

A save calls `record` before it commits the snapshot, and the journal is discarded last: a kill in between leaves a
chunk in the film and its records in the journal, and the next save begins behind the chunk. Nothing of a history keeps
a save from being made: what cannot be recorded is logged, and missing from the film.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Self, TypeVar

from msgspec import Struct

from orbit_os.files import PRIVATE_FILE
from orbit_protocol.errors import OrbitError, StorageCorrupt, StorageError
from orbit_protocol.settings import HistorySettings
from orbit_protocol.types import Record
from orbitd.background_tasks import BackgroundTasks
from orbitd.history import database, film, recorder, salvage
from orbitd.history.database import DamagedHistory, Unusable
from orbitd.history.recorder import NO_FILM, Film, KeyFrame, Slice
from orbitd.history.text_blocks import TextBlock
from orbitd.logs import event
from orbitd.screens.messages import Saved
from orbitd.store.backup import copy
from orbitd.store.checkpointer import Checkpointer
from orbitd.store.errors import translated
from orbitd.store.file_watch import FileWatch
from orbitd.store.maintenance import empty_log, rewrite_database
from orbitd.store.progress import Progress
from orbitd.store.writer import Writer

T = TypeVar("T")

log = logging.getLogger("orbitd.history")

MAX_DICTIONARIES = 256
"""Of so many sessions the end of the film is kept, for the next chunk's dictionary."""

MAX_RECORDED_AT_ONCE = 8
"""So many saves have descriptors of their journals, and slices of these in memory (`descriptors.FOR_HISTORY`)."""

MAX_DAMAGED = 100
"""So many damaged rows are remembered, and counted beyond."""

REWRITE_WAIT_SECS = 1.0
"""How long a save waits while the database is written again, before it leaves its part to the next one."""

_THREADS = 2
_GROUP_OF = "SELECT seq, at, to_position, to_at FROM groups WHERE session_id = ? ORDER BY position DESC LIMIT 1"
_RAW_OF = "SELECT total(bytes) FROM chunks WHERE group_seq = ?"


class _Stale(Exception):
    """More of a session is recorded than was known: a save before this one has gone on after it was given up."""


class _Removed(Exception):
    """The session was deleted for good while it was saved."""


class Recording(Struct, kw_only=True):
    """Where the film of a session ends.

    Attributes:
        recorded_to: The journal's position up to which it is recorded.
        next_line: The number of the first line that is not.
        group: The row of the group that goes on; 0 where the next key frame begins one.
        group_bytes: How much of the journal is in it.
        group_at: When it began, in milliseconds since the epoch.
        last_at: When the newest output of the film came, likewise; 0 before there is any.
        before: The end of what is in the group, packed; b"" where that is not known.
    """

    recorded_to: int = 0
    next_line: int = 0
    group: int = 0
    group_bytes: int = 0
    group_at: int = 0
    last_at: int = 0
    before: bytes = b""

    @property
    def wants_key_frame(self) -> bool:
        """Whether the next save is to begin a group."""
        if not self.group:
            return self.recorded_to > 0
        is_old = self.last_at - self.group_at >= recorder.GROUP_MS
        return self.group_bytes >= recorder.GROUP_BYTES or is_old


class Totals(Struct, frozen=True, kw_only=True):
    """What all histories take, by the names that `SessionStats` has for it."""

    recorded_sessions: int
    recording_raw_bytes: int
    recording_bytes: int
    text_bytes: int
    history_bytes: int


def unreadable(reason: str) -> StorageCorrupt:
    """Return the error for a database of histories that cannot be read, so that nobody restores that of sessions."""
    return StorageCorrupt(
        f"The database of histories cannot be read: {reason}",
        hint="Sessions go on. `orbitctl daemon restart` has a new one begun, with what is whole in it.",
    )


class History:
    """The histories of all sessions, in a database that is opened when it is first needed.

    Args:
        path: The database; see `database.history_path`.
        settings: What is kept.
        clock: The time in seconds since the epoch.
    """

    def __init__(self, path: str, settings: HistorySettings, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.settings = settings
        self._clock = clock
        self._limits = recorder.Limits(
            session_bytes=settings.recording_max_bytes,
            total_bytes=settings.total_recording_bytes,
            text_bytes=settings.text_max_bytes,
        )
        self._recordings: dict[str, Recording] = {}
        self._with_dictionary: dict[str, None] = {}  # in the order of their last use
        self._removed: set[str] = set()  # a save of one that runs still records nothing more; read in any thread
        self._writer: Writer | None = None
        self._checkpointer: Checkpointer | None = None  # the writer's
        self._opening = asyncio.Lock()
        self._failure = ""
        self._not_recorded = ""  # why the last save has recorded nothing
        self._damaged: set[str] = set()
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="orbit-history")
        # Of its own, so that no save waits while long reads, a backup and a check say, take all threads of the other.
        self._recording_pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="orbit-recording")
        self._turns = asyncio.Semaphore(MAX_RECORDED_AT_ONCE)
        self._reads = 0
        self._journals = 0  # descriptors of journals that saves read
        self._is_closed = False
        self._tasks = BackgroundTasks(log, "history not brought over")
        self._mending, self._salvaging = asyncio.Lock(), asyncio.Lock()
        self._rewritten: asyncio.Event | None = None  # while the database is written again: set at the end
        self._recording_saves = 0
        self._none_records = asyncio.Event()
        self._none_records.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what is being written, and close."""
        async with self._opening:
            self._is_closed = True
            await self._tasks.cancel()
            await self._close_writer()
        for pool in (self._pool, self._recording_pool):
            await asyncio.to_thread(pool.shutdown)

    # Reading and writing

    @property
    def descriptors(self) -> int:
        """How many descriptors are open for a moment or longer.

        Each connection has the database and its log, the writer their shared memory, and saves read journals.
        """
        return 2 * self._reads + (0 if self._writer is None else 3) + self._journals

    async def in_pool(self, work: Callable[[], T]) -> T:
        """Run slow work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def in_recording_pool(self, work: Callable[[], T]) -> T:
        """Run a part of a save in a thread; each is short."""
        return await asyncio.get_running_loop().run_in_executor(self._recording_pool, work)

    async def read(
        self,
        work: Callable[[sqlite3.Connection], T],
        default: T,
        *,
        for_recording: bool = False,
        progress: Progress | None = None,
    ) -> T:
        """Run `work` in a thread with a connection that cannot write.

        Args:
            work: What reads; rows that it finds damaged it may give to `note_damage`.
            default: What is returned where nothing was ever recorded.
            for_recording: It is short, and a save waits for it, or a session's start.
            progress: Ends the work where the caller is cancelled: else its thread would go on, and a stop wait for it.

        Raises:
            StorageCorrupt: The database is damaged.
            StorageError, Busy: It cannot be read now.
        """

        def run() -> T:
            if not os.path.isfile(self.path):  # a FIFO would keep the thread
                return default
            with translated(self.path), contextlib.closing(database.open_reader(self.path)) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'films'").fetchone():
                    return default
                return work(connection)

        writer = self._writer  # before: one that is opened meanwhile has another database
        self._reads += 1
        try:
            return await (self.in_recording_pool if for_recording else self.in_pool)(run)
        except asyncio.CancelledError:
            if progress is not None:
                progress.cancel()
            raise
        except StorageCorrupt as error:
            reason = error.__cause__
            if not isinstance(reason, sqlite3.Error):
                raise
            # The writer need not notice: it has the pages in memory, and would go on writing what nobody can read. In a
            # task, since the checkpointer reads too, and is closed there.
            if writer is not None and reason.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                self._tasks.start(self._begin_again(writer))
            raise unreadable(str(reason)) from reason
        finally:
            self._reads -= 1

    async def exists(self) -> bool:
        """Return whether anything was ever recorded. Raises: OrbitError."""
        return await self.read(lambda _: True, default=False)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have `work` done in the writer's thread, in a transaction that is on the disk when this returns.

        Raises:
            OrbitError: It cannot be written now.
        """
        writer = await self._open()
        try:
            return await writer.run(work, lambda result: result)
        except StorageCorrupt:
            await self._begin_again(writer)
            raise

    async def _open(self) -> Writer:
        async with self._opening:
            if self._is_closed:
                raise StorageError("The history is closed")
            if self._writer is not None:
                return self._writer
            writer = Writer()
            try:
                await writer.start(partial(self._open_writer, writer))
            except (OrbitError, OSError, sqlite3.Error) as error:
                reason = error.message if isinstance(error, OrbitError) else str(error)
                level = logging.DEBUG if reason == self._failure else logging.ERROR  # each save tries again
                self._failure = reason
                event(log, level, "history cannot be opened", database=self.path, error=reason)
                if isinstance(error, OrbitError):
                    raise
                raise StorageError(f"The database of histories cannot be opened: {error}") from error
            self._failure = ""
            self._writer = writer
            self._checkpointer = Checkpointer(self.path, writer, self._checkpoint)
            self._tasks.start(self._salvage())
            return writer

    def _open_writer(self, writer: Writer) -> sqlite3.Connection:
        with translated(self.path):
            try:
                connection = database.open_writer(self.path)
            except Unusable as error:
                target = database.set_aside(self.path, datetime.now(UTC))
                event(log, logging.ERROR, "history set aside", database=self.path, reason=str(error), kept=target)
                connection = database.open_writer(self.path)
            writer.file_watch = FileWatch(self.path)
            return connection

    async def _checkpoint(self, work: Callable[[sqlite3.Connection], None]) -> None:
        writer = self._writer

        def run(connection: sqlite3.Connection) -> None:
            if writer is not None and writer.file_watch is not None:
                writer.file_watch.check()  # what stands at the path may be another database by now
                work(connection)

        await self.read(run, None)

    async def _close_writer(self) -> None:
        writer, checkpointer = self._writer, self._checkpointer
        self._writer = self._checkpointer = None
        if checkpointer is not None:
            await checkpointer.close()
        if writer is not None:
            await writer.close()

    async def _salvage(self) -> None:
        """Bring over what is whole in databases that were set aside, once for each; what is done is remembered."""
        async with self._salvaging:
            for path in await self.in_pool(partial(database.pending, self.path)):
                inserting, found = salvage.Inserting(), salvage.batches(path)
                while (batch := await self.in_pool(lambda: next(found, None))) is not None:  # noqa: B023  # waited for
                    await self.write(partial(inserting.insert, batch=batch))
                await self.write(inserting.count)
                for session_id in inserting.sessions:
                    await self._go_on_behind(session_id)
                await self.in_pool(partial(_make_file, path + database.BROUGHT_OVER))
                event(log, logging.WARNING, "history brought over", kept=path, rows=inserting.rows)

    async def _go_on_behind(self, session_id: str) -> None:
        """Let a session that is recorded now use no position and no line number twice."""
        if (recording := self._recordings.get(session_id)) is not None:
            found = await self.read(partial(recorder.read_film, session_id=session_id), NO_FILM)
            recording.recorded_to = max(recording.recorded_to, found.recorded_to)
            recording.next_line = max(recording.next_line, found.next_line)

    def start_mending(self) -> None:
        """Do in the background what an earlier daemon has left to be done, though no session is saved; see `mend`."""
        self._tasks.start(self.mend())

    async def mend(self) -> None:
        """Set a database aside that cannot be read, and bring over what is whole in those that were, which takes long.

        What is erased then does not come back.

        Raises:
            OrbitError: That cannot be done now.
        """
        async with self._mending:
            try:
                await self.read(lambda _: True, default=True)
            except StorageCorrupt:
                await self._open()
            try:
                await self.in_pool(partial(database.remove_marks, self.path))
                if await self.in_pool(partial(database.pending, self.path)):
                    await self._open()  # first: see `database.finish_setting_aside`
                    await self._salvage()  # after the one that runs, if any
            except OSError as error:
                raise StorageError(f"What is in databases that were set aside cannot be read: {error}") from error

    async def check(self, secs: float | None, progress: Progress) -> tuple[list[str], list[str], bool]:
        """Look at each row.

        Args:
            secs: How long that may take.
            progress: Reports how far it is.

        Returns:
            Sentences about damaged rows and about damage of the database, and whether all was looked at.
        """
        deadline = math.inf if secs is None else time.monotonic() + secs

        def look() -> None:
            progress.report("history")
            if time.monotonic() >= deadline:
                raise TimeoutError

        def work(connection: sqlite3.Connection) -> tuple[list[str], list[str], bool]:
            rows: list[str] = []
            try:
                for error in salvage.damaged_rows(connection, look):
                    self.note_damage(error)
                    rows.append(f"{self.path}, {error}")
                    if len(rows) >= MAX_DAMAGED:
                        break
            except TimeoutError:
                return rows, [], False
            except sqlite3.DatabaseError as error:
                return rows, [f"{self.path}: {error}"], True
            return rows, [], True

        try:
            return await self.read(work, ([], [], True), progress=progress)
        except StorageCorrupt as error:
            return [], [error.message], True
        except StorageError as error:
            return [], [f"{self.path} cannot be read: {error.message}"], False

    async def _begin_again(self, writer: Writer) -> None:
        """Begin a new database where the old one is damaged, or is not at its path any more."""
        async with self._opening:
            if self._writer is not writer:
                return  # somebody else has
            await self._close_writer()
            self._recordings.clear()
            self._with_dictionary.clear()
            with contextlib.suppress(OSError):
                await self.in_pool(self._set_aside_if_damaged)

    def _set_aside_if_damaged(self) -> None:
        if os.path.exists(self.path) and not _is_sound(self.path):
            target = database.set_aside(self.path, datetime.now(UTC))
            event(log, logging.ERROR, "history set aside", database=self.path, kept=target)

    # Recording

    def record_of(self, record: Record) -> Record:
        """Return what is recorded of a session whose configuration says this."""
        return "screen" if record == "full" and self.settings.record == "screen" else record

    def expect(self, session_id: str) -> None:
        """Record a session that the store has: one that was deleted for good, and is imported again, has its old id."""
        self._removed.discard(session_id)

    async def recording(self, session_id: str) -> Recording:
        """Return where the film of a session ends; a new one where nothing is known of it, or can be."""
        found = self._recordings.get(session_id)
        if found is None:
            try:
                found = await self.read(
                    partial(_read_recording, session_id=session_id), Recording(), for_recording=True
                )
            except (OrbitError, sqlite3.Error) as error:
                event(log, logging.ERROR, "history cannot be read", database=self.path, error=str(error))
                found = Recording()
            found = self._recordings.setdefault(session_id, found)
        return found

    async def records(self, session_id: str, start: int, end: int) -> bytes | None:
        """Return a journal's records between two positions; None where the film has not all of them."""
        work = partial(film.records_between, session_id=session_id, start=start, end=end, note_damage=self.note_damage)
        try:
            return await self.read(work, None, for_recording=True)
        except (OrbitError, sqlite3.Error):
            return None

    def is_removed(self, session_id: str) -> bool:
        """Return whether a session was deleted for good; in any thread."""
        return session_id in self._removed

    def release(self, session_id: str) -> None:
        """Forget what is in memory of a session whose journal is closed."""
        self._recordings.pop(session_id, None)
        self._with_dictionary.pop(session_id, None)

    async def record(
        self, session_id: str, record: Record, readers: Callable[[], list[tuple[int, int]]], saved: Saved
    ) -> bool:
        """Record what a save brings: the journal up to its position, its text, and perhaps a key frame.

        What cannot be recorded is logged, and is missing.

        Args:
            session_id: The session.
            record: What is recorded of it.
            readers: Returns new descriptors of the journal's files and their positions, as `Journal.readers`.
            saved: What the picture has returned.

        Returns:
            Whether the journal may be discarded: not where the database is written again just now, which may take as
            long as its size asks for. Then a later save records it.
        """
        if self._rewritten is not None and not await self._wait_for_rewrite(self._rewritten):
            return False
        self._recording_saves += 1
        self._none_records.clear()
        try:
            try:
                await self._record(session_id, record, readers, saved)
            except _Stale:
                await self._record(session_id, record, readers, saved)
        except _Removed:
            pass
        except Exception as error:  # noqa: BLE001  # whatever it is, as with damaged records: the screen is saved
            # The journal may have it at the next save, too. What the text would have held, the picture keeps for then.
            level = logging.DEBUG if str(error) == self._not_recorded else logging.ERROR
            self._not_recorded = str(error)
            event(log, level, "history not recorded", session=session_id, error=str(error), exc=error)
        else:
            self._not_recorded = ""
            self._limit_dictionaries(session_id)
        finally:
            self._recording_saves -= 1
            if not self._recording_saves:
                self._none_records.set()
        return True

    async def _wait_for_rewrite(self, rewritten: asyncio.Event) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REWRITE_WAIT_SECS):
                return await rewritten.wait()
        return False

    @contextlib.asynccontextmanager
    async def reading(self, readers: Callable[[], list[tuple[int, int]]]) -> AsyncIterator[Sequence[tuple[int, int]]]:
        """Have a journal's files open while a save reads them; a few do at a time. Raises: OSError."""
        async with self._turns:
            files = readers()
            self._journals += len(files)
            try:
                yield files
            finally:
                self._journals -= len(files)
                for fd, _ in files:
                    os.close(fd)

    async def _record(
        self, session_id: str, record: Record, readers: Callable[[], list[tuple[int, int]]], saved: Saved
    ) -> None:
        recording = await self.recording(session_id)
        try:
            await _Save(self, session_id, recording, self._limits).write(record, readers, saved)
        except BaseException:
            # Cancelled, say: whether the last transaction was committed, the database knows.
            self.release(session_id)
            raise

    def _limit_dictionaries(self, session_id: str) -> None:
        self._with_dictionary.pop(session_id, None)
        self._with_dictionary[session_id] = None
        while len(self._with_dictionary) > MAX_DICTIONARIES:
            oldest = next(iter(self._with_dictionary))
            del self._with_dictionary[oldest]
            if oldest in self._recordings:
                self._recordings[oldest].before = b""

    def now(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return int(self._clock() * 1000)

    # Limits, and what is gone

    async def remove(self, session_id: str) -> None:
        """Remove all of a session that is deleted for good. Raises: OrbitError."""
        self._removed.add(session_id)
        self.release(session_id)
        await self.mend()
        if await self.read(partial(_has_rows, session_id=session_id), default=False):
            while await self.write(partial(recorder.drop_of_session, session_id=session_id)):
                pass

    async def backup(self, path: str, progress: Progress) -> int:
        """Write a consistent copy while recording goes on, as `SessionManager.backup`; return its size in bytes.

        Where nothing is recorded, there is none, and an earlier one goes.

        Raises:
            StorageFull, StorageReadOnly: It cannot be written.
            StorageCorrupt: The database is damaged; nothing was replaced.
        """
        length = await self.read(lambda connection: copy.write(connection, path, progress.report), 0, progress=progress)
        if not length:
            with contextlib.suppress(FileNotFoundError):
                await self.in_pool(partial(os.unlink, path))
        return length

    async def rewrite(self, progress: Progress) -> bool:
        """Write the database again and empty its log, as `SessionManager.rewrite`; one call at a time.

        A save does not wait for that: see `record`.
        """
        if not await self.exists():
            return True
        progress.report("history")
        self._rewritten = rewritten = asyncio.Event()
        try:
            await self._none_records.wait()  # their transactions would wait in the writer's queue
            writer = await self._open()
            running = asyncio.ensure_future(
                writer.run(partial(rewrite_database, progress=progress), lambda _: None, alone=True)
            )
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                progress.cancel()
                raise
            return await empty_log(writer)
        finally:
            self._rewritten = None
            rewritten.set()

    async def drop_expired(self) -> int:
        """Drop the groups that are older than `recording_retention_secs`; return how many bytes went."""
        if not await self.exists():
            return 0
        before, dropped = self.now() - self.settings.recording_retention_secs * 1000, 0
        while gone := await self.write(partial(recorder.drop_older, before=before)):
            dropped += gone
        await self.note_dropped()
        await self.write(lambda connection: connection.execute("PRAGMA incremental_vacuum(2048)").fetchall())
        return dropped

    async def note_dropped(self) -> None:
        """Have the next saves of sessions whose newest groups were dropped begin new ones."""
        held = {found.group for found in self._recordings.values() if found.group}
        there = await self.read(partial(_groups_there, held=held), set[int](), for_recording=True)
        for found in self._recordings.values():
            if found.group in held and found.group not in there:
                found.group = 0

    def note_damage(self, error: DamagedHistory) -> None:
        """Remember a damaged row, for the warnings; may be called in any thread."""
        if len(self._damaged) < MAX_DAMAGED and str(error) not in self._damaged:
            self._damaged.add(str(error))
            event(log, logging.ERROR, "history damaged", database=self.path, row=str(error))

    def warnings(self) -> list[str]:
        """Return a sentence about each problem that lasts."""
        sentences = [
            f"The database of histories was damaged and lies in {path}, unchanged; a new one was begun, with what is "
            "whole in it. Move it away when you need it no more."
            for path in database.damaged_files(self.path)
        ]
        if self._damaged:
            examples = "; ".join(sorted(self._damaged)[:3])
            sentences.append(
                f"{len(self._damaged)} rows of {self.path} are damaged ({examples}): that much of what sessions have "
                "shown is missing from searches and films. Check the disk."
            )
        if self._failure:
            sentences.append(f"Nothing is recorded of what sessions show: {self._failure}.")
        return sentences

    async def totals(self) -> Totals | None:
        """Return what all histories take; None where there is none."""
        return await self.read(self._totals, None)

    def _totals(self, connection: sqlite3.Connection) -> Totals:
        count, raw, films, text = connection.execute(
            "SELECT count(*), total(raw_bytes), total(film_bytes), total(text_bytes) FROM films"
        ).fetchone()
        return Totals(
            recorded_sessions=count,
            recording_raw_bytes=int(raw),
            recording_bytes=int(films),
            text_bytes=int(text),
            history_bytes=database.file_bytes(self.path),
        )


class _Save:
    """One save's part of a history: in one transaction, or where the journal is long, in several."""

    def __init__(self, history: History, session_id: str, recording: Recording, limits: recorder.Limits) -> None:
        self._history = history
        self._id = session_id
        self._recording = recording
        self._limits = limits

    async def write(self, record: Record, readers: Callable[[], list[tuple[int, int]]], saved: Saved) -> None:
        recording = self._recording
        if saved.position < recording.recorded_to:
            return  # a journal that has lost its end; what is recorded goes further
        if record != "full":
            await self._commit(None, saved, is_last=True, key_frame=None)
            return
        async with self._history.reading(readers) as files:
            await self._write_parts(files, saved)

    async def _write_parts(self, files: Sequence[tuple[int, int]], saved: Saved) -> None:
        recording = self._recording
        parts = recorder.slices_of(files, recording.recorded_to, saved.position)
        if not self._can_go_on(files):
            recording.group, parts = 0, iter(())
        part = await self._next(parts)
        while True:
            following = None if part is None else await self._next(parts)
            is_last = following is None
            await self._commit(part, saved, is_last=is_last, key_frame=self._frame(saved) if is_last else None)
            if is_last:
                return
            part = following

    async def _next(self, parts: Iterator[Slice]) -> Slice | None:
        return await self._history.in_recording_pool(lambda: next(parts, None))

    def _can_go_on(self, files: Sequence[tuple[int, int]]) -> bool:
        """Return whether the journal's records can be drawn on what is recorded: on a key frame, or a blank screen."""
        recorded_to = self._recording.recorded_to
        return bool(files) and files[0][1] <= recorded_to and (self._recording.group != 0 or recorded_to == 0)

    def _frame(self, saved: Saved) -> KeyFrame | None:
        """Return the key frame that a save brings, where it is to begin a group."""
        if not saved.key_frame:
            return None
        return KeyFrame(
            position=saved.position,
            at=saved.at or self._recording.last_at or self._history.now(),
            line=saved.history_line,
            cols=saved.cols,
            rows=saved.rows,
            native=saved.key_frame,
        )

    async def _commit(self, part: Slice | None, saved: Saved, *, is_last: bool, key_frame: KeyFrame | None) -> None:
        recording, history = self._recording, self._history
        recorded_to = recording.recorded_to
        has_gap = part is not None and part.start > recorded_to  # records are in no file
        before = b"" if has_gap else recording.before
        chunk = None if part is None else await history.in_recording_pool(partial(recorder.compress, part, before))
        end = saved.position if is_last or part is None else part.end

        def work(connection: sqlite3.Connection) -> tuple[int, Film, bool, bool]:
            if history.is_removed(self._id):
                raise _Removed
            old, group = recorder.read_film(connection, self._id), recording.group
            if old.recorded_to != recording.recorded_to:
                raise _Stale(f"{old.recorded_to} bytes are recorded, not {recording.recorded_to}")
            stored = raw = 0
            # Its group went to the limits, when others were saved or a part before it was. On a blank screen only the
            # first output can be drawn.
            is_lost = chunk is not None and not (_has_group(connection, group) if group else chunk.slice.start == 0)
            if chunk is not None and not is_lost:
                if not group:
                    group, stored = recorder.insert_group(connection, self._id, self._blank(chunk.slice, saved))
                stored += recorder.insert_chunk(connection, self._id, group, chunk, self._times(chunk.slice, saved))
                raw = chunk.slice.records.raw_bytes
            next_line, grown = self._insert_text(connection, saved, old, None if is_last else end)
            if key_frame is not None:
                group, size = recorder.insert_group(connection, self._id, key_frame)
                stored += size
            new = Film(
                recorded_to=max(old.recorded_to, end),
                next_line=next_line,
                raw_bytes=old.raw_bytes + raw,
                film_bytes=old.film_bytes + stored,
                text_bytes=max(0, old.text_bytes + grown),
            )
            recorder.write_film(connection, self._id, new)
            concerns_others = self._drop_what_is_over(connection)
            return group, new, _has_group(connection, group), concerns_others

        group, kept, is_there, concerns_others = await history.write(work)
        is_whole = key_frame is not None or (end == recorded_to if part is None else not has_gap and part.end == end)
        recording.recorded_to, recording.next_line = kept.recorded_to, kept.next_line
        recording.group = group if is_there and is_whole else 0  # 0: nothing can be drawn before the next key frame
        if part is not None:
            self._grow(part, before, self._times(part, saved))
        if key_frame is not None:
            recording.group_bytes, recording.group_at, recording.before = 0, key_frame.at, b""
            recording.last_at = key_frame.at  # as by the clock now, which may have been set back
        if concerns_others:
            await history.note_dropped()

    def _insert_text(self, connection: sqlite3.Connection, saved: Saved, old: Film, end: int | None) -> tuple[int, int]:
        """Insert what of a save's text belongs to a part of the journal, to its end in the last; and then the tail.

        Returns:
            The number of the next line, and by how much the session's text has grown.
        """
        next_line = old.next_line
        blocks = list[TextBlock]()
        for each in saved.text:
            if old.recorded_to and each.position <= old.recorded_to:
                continue  # a save that was given up had committed it
            if end is not None and each.position > end:
                break
            # Where the history could not be read as the picture was opened, it has taken all that there is.
            block = recorder.without_known(connection, self._id, each.block, old.next_line)
            blocks += [] if block is None else [block]
            next_line = max(next_line, each.block.next_line)
        grown = recorder.insert_text(connection, self._id, blocks)
        if saved.has_tail and end is None:
            grown += recorder.replace_tail(connection, self._id, saved.tail)
        return next_line, grown

    def _grow(self, part: Slice, before: bytes, times: tuple[int, int]) -> None:
        """Note that the group has grown by a chunk."""
        recording = self._recording
        recording.group_at = recording.group_at or times[0]
        recording.last_at = max(recording.last_at, times[1])
        recording.group_bytes += part.records.raw_bytes
        recording.before = (before + part.records.data)[-recorder.DICTIONARY_BYTES :]

    def _times(self, part: Slice, saved: Saved) -> tuple[int, int]:
        last = self._recording.last_at or saved.at or self._history.now()
        return part.records.from_at or last, part.records.to_at or last

    def _blank(self, part: Slice, saved: Saved) -> KeyFrame:
        cols, rows = part.records.size or (saved.cols, saved.rows)
        return KeyFrame(position=part.start, at=self._times(part, saved)[0], line=0, cols=cols, rows=rows)

    def _drop_what_is_over(self, connection: sqlite3.Connection) -> bool:
        """Keep to the limits; return whether film of other sessions may have gone."""
        limits = self._limits
        recorder.limit_session(connection, self._id, limits.session_bytes)
        films, text = connection.execute("SELECT total(film_bytes), total(text_bytes) FROM films").fetchone()
        if films > limits.total_bytes:
            recorder.limit_total(connection, int(films) - limits.total_bytes)
        if text > limits.text_bytes:
            recorder.limit_text(connection, int(text) - limits.text_bytes)
        return bool(films > limits.total_bytes)


def _read_recording(connection: sqlite3.Connection, session_id: str) -> Recording:
    known = recorder.read_film(connection, session_id)
    if known == NO_FILM:
        return Recording()
    recording = Recording(recorded_to=known.recorded_to, next_line=known.next_line)
    row = connection.execute(_GROUP_OF, (session_id,)).fetchone()
    # Only a group whose end is that of the film goes on: else a part of it could not be recorded.
    if row is not None and row[2] == known.recorded_to:
        recording.group, recording.group_at, _, recording.last_at = row
        (raw,) = connection.execute(_RAW_OF, (row[0],)).fetchone()
        recording.group_bytes = int(raw)
    return recording


def _groups_there(connection: sqlite3.Connection, held: set[int]) -> set[int]:
    query = "SELECT seq FROM groups WHERE seq IN (SELECT value FROM json_each(?))"
    return {seq for (seq,) in connection.execute(query, (json.dumps(list(held)),))}


def _has_group(connection: sqlite3.Connection, seq: int) -> bool:
    return connection.execute("SELECT 1 FROM groups WHERE seq = ?", (seq,)).fetchone() is not None


def _has_rows(connection: sqlite3.Connection, session_id: str) -> bool:
    query = "SELECT 1 FROM films WHERE session_id = ?"
    return connection.execute(query, (session_id,)).fetchone() is not None


def _make_file(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))


def _is_sound(path: str) -> bool:
    """Return whether a database has no damage, its indexes neither: with one, no row could be deleted for ever."""
    try:
        with contextlib.closing(database.open_reader(path)) as connection:
            return bool(connection.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False
