"""The one thread that writes, and group commit.

    event loop                                          writer's thread
    run(work): append to the batch
    _flush(): the batch of this turn of the loop  --->  BEGIN
                                                        SAVEPOINT; work(connection); RELEASE    for each job
                                                        COMMIT: one fsync for all of them
    _finish(): on_commit, resolve the future      <---  the group, in commit order
               on_group, for all of them

An answered write is on disk, and a job that fails rolls back its own changes only. `work`
decides and writes, and returns or raises. It may run twice: the jobs of a group that cannot
be committed are tried again one by one. So it may change nothing but the database.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from orbit_protocol.errors import ShuttingDown, StorageError, StorageReadOnly
from orbitd.store.errors import translate
from orbitd.store.file_watch import FileWatch
from orbitd.store.rows import DamagedRow

MAX_GROUP = 256
MAX_WAITING = 4_096

Opener = Callable[[], sqlite3.Connection]
Work = Callable[[sqlite3.Connection], Any]

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class _TransactionAborted(Exception):
    """SQLite rolled the whole transaction back by itself (sqlite.org/lang_transaction.html, "Response To Errors")."""


@dataclass(slots=True, eq=False)
class _Job:
    """One caller's work, and its result or error."""

    work: Work
    on_commit: Callable[[Any], Any]
    future: asyncio.Future[Any]
    alone: bool
    result: Any = None
    error: BaseException | None = None

    def finish(self) -> None:
        """Call `on_commit`, then resolve the caller's future; on the event loop."""
        try:
            if self.error is not None:
                raise self.error
            result = self.on_commit(self.result)
        except BaseException as error:  # noqa: BLE001  # whatever it is belongs to the caller
            if not self.future.done():
                self.future.set_exception(error)
        else:
            # It is done already where the caller was cancelled. The change is on disk nevertheless,
            # and `on_commit` has brought it into the cache.
            if not self.future.done():
                self.future.set_result(result)


class Writer:
    """The writing thread; made, used and closed on one event loop.

    Args:
        max_group: The most jobs in one transaction; 1 commits each by itself.
        max_waiting: The most jobs that wait; further callers wait until there is room.

    Attributes:
        on_group: Called once after the `on_commit` of all jobs of a transaction, in the same step of the event loop.
        on_committed: Called after that, but not after what ran alone.
    """

    def __init__(self, *, max_group: int = MAX_GROUP, max_waiting: int = MAX_WAITING) -> None:
        self.max_group = max_group
        self.on_group: Callable[[], None] = lambda: None
        self.on_committed: Callable[[], None] = lambda: None
        # The next two are set in the writer's thread and read on the event loop: whole references,
        # which the GIL makes atomic.
        self.file_watch: FileWatch | None = None
        self.last_storage_error: StorageError | None = None  # of the last group; None if it was written
        self.refusal: StorageReadOnly | None = None  # of every job, where the database is served read-only
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(max_waiting)
        self._batch: list[_Job] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False

    async def start(self, opener: Opener) -> None:
        """Start the thread, which opens its connection.

        Args:
            opener: Runs in the thread: a sqlite3 connection may only be used where it was made.

        Raises:
            Exception: Whatever `opener` raised; the thread has ended then.
        """
        started: asyncio.Future[None] = self._loop.create_future()
        # A daemon thread, so that a program that forgets to close can end. A transaction that is
        # open then is rolled back at the next start, as after a crash.
        thread = threading.Thread(target=self._main, args=(opener, started), name="orbit-writer", daemon=True)
        thread.start()
        try:
            # Shielded, as the thread goes on: it resolves `started` whatever becomes of this call.
            await asyncio.shield(started)
        except asyncio.CancelledError:
            self._jobs.put(None)  # the thread may be opening still; it closes as soon as it has
            started.add_done_callback(asyncio.Future.exception)  # retrieved, so that asyncio does not log it
            raise

    async def run(
        self, work: Callable[[sqlite3.Connection], T], on_commit: Callable[[T], R], *, alone: bool = False
    ) -> R:
        """Have `work` done and committed, and return what `on_commit` makes of its result.

        A cancelled call does not undo its work: once it is in the batch, it is done and committed.

        Args:
            work: Runs in the writer's thread, inside a savepoint; perhaps twice.
            on_commit: Runs on the event loop once the work is on disk, even if the caller was cancelled.
            alone: Run it by itself, in no transaction (for statements that fail inside one).

        Raises:
            ShuttingDown: The writer is closed.
            StorageReadOnly: The database is served read-only.
            Exception: Whatever `work` raised; its changes are rolled back.
        """
        self.refuse_if_read_only()
        await self._slots.acquire()
        if self._closing:  # `close` may have run while this waited for the slot
            self._slots.release()
            raise ShuttingDown("The store is closed")
        future: asyncio.Future[R] = self._loop.create_future()
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append(_Job(work, on_commit, future, alone))
        return await future

    def refuse_if_read_only(self) -> None:
        """Raise StorageReadOnly if the database is served read-only."""
        if self.refusal is not None:
            raise StorageReadOnly(self.refusal.message, hint=self.refusal.hint)

    @property
    def is_idle(self) -> bool:
        """Whether no job waits to be written."""
        return not self._batch and self._jobs.empty()

    async def close(self) -> None:
        """Finish the jobs that wait, close the connection and end the thread."""
        if not self._closing:
            self._closing = True
            self._flush()
            self._jobs.put(None)
        await asyncio.shield(self._ended)  # one future for every caller of `close`

    def _flush(self) -> None:
        """Put the jobs of one turn of the loop into the thread's queue."""
        # All at once: the first put wakes the thread. If jobs came one by one, it would commit the
        # first alone, and meanwhile compete with the loop for the GIL while the others come in:
        # measured, a fifth more time for each.
        for job in self._batch:
            self._jobs.put(job)
        self._batch.clear()

    def _finish(self, jobs: list[_Job]) -> None:
        for job in jobs:
            self._slots.release()
            job.finish()
        self.on_group()
        if not jobs[0].alone:
            self.on_committed()

    # What follows runs in the writer's thread.

    def _main(self, opener: Opener, started: asyncio.Future[None]) -> None:
        try:
            connection = opener()
        except BaseException as error:  # noqa: BLE001  # it is start()'s to raise
            self._call_on_loop(_resolve, started, error)
            return
        self._call_on_loop(_resolve, started, None)
        try:
            while self._run_next_jobs(connection):
                pass
        finally:
            connection.close()  # the last connection to close checkpoints the WAL and deletes it
            self._call_on_loop(_resolve, self._ended, None)

    def _run_next_jobs(self, connection: sqlite3.Connection) -> bool:
        """Wait for jobs and run all that are queued; return False once `close` has put its sentinel."""
        jobs: list[_Job] = []
        is_open = True
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) >= self.max_group:
                break
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        else:
            is_open = False
        for group in _split(jobs):
            if group[0].alone:
                try:
                    group[0].result = group[0].work(connection)
                except BaseException as error:  # noqa: BLE001  # it belongs to the caller
                    group[0].error = _translated(error)
            else:
                self._run_group(connection, group)
            self.last_storage_error = next(filter(None, map(_storage_error, group)), None)
            # One call for the whole group: each call_soon_threadsafe wakes the loop with a system call.
            self._call_on_loop(self._finish, group)
        return is_open

    def _run_group(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        """Run jobs in one transaction; if that cannot be committed, run each in its own."""
        try:
            # Before and after: a database that was moved away would take every write and lose it at
            # the next start (`file_watch`). Before, so that nothing is written in vain; after the
            # commit, so that nothing is acknowledged in vain.
            self._check_files()
            # IMMEDIATE takes the write lock at once: a deferred transaction that reads first gets
            # SQLITE_BUSY_SNAPSHOT without any waiting if another program writes in between.
            connection.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, StorageError) as error:
            self._fail(jobs, error)
            return
        try:
            for job in jobs:
                _run_in_savepoint(connection, job)
            connection.execute("COMMIT")
        except (sqlite3.Error, _TransactionAborted) as error:
            if connection.in_transaction:  # a failed COMMIT may leave it open (SQLITE_BUSY)
                try:
                    connection.execute("ROLLBACK")
                except sqlite3.Error:
                    _log.exception("a transaction could not be rolled back")
            if len(jobs) == 1:
                self._fail(jobs, error.__cause__ or error)
                return
            # Nothing of the group is on disk, and one job may be to blame (a blob that fills the
            # disk, say). Alone, the others succeed.
            for job in jobs:
                self._run_group(connection, [job])
            return
        try:
            self._check_files()
        except StorageError as error:
            self._fail(jobs, error)

    def _fail(self, jobs: list[_Job], error: BaseException) -> None:
        for job in jobs:
            job.error = _translated(error, None if self.file_watch is None else self.file_watch.path)

    def _check_files(self) -> None:
        """Raise StorageCorrupt unless the database is still at its path."""
        if self.file_watch is not None:
            self.file_watch.check()

    def _call_on_loop(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            _log.debug("the event loop was closed before the store")


def _resolve(future: asyncio.Future[None], error: BaseException | None) -> None:
    if error is not None and not future.done():
        future.set_exception(error)
    elif not future.done():
        future.set_result(None)


def _split(jobs: list[_Job]) -> list[list[_Job]]:
    """Split jobs into transactions in their order; a job that runs alone is a group of its own."""
    groups: list[list[_Job]] = []
    for job in jobs:
        if job.alone or not groups or groups[-1][0].alone:
            groups.append([job])
        else:
            groups[-1].append(job)
    return groups


def _run_in_savepoint(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT job")
    job.error = None  # of a first try
    try:
        job.result = job.work(connection)
    except BaseException as error:
        # SQLITE_FULL, IOERR, NOMEM and a few more can roll back the whole transaction, with every
        # savepoint and the earlier jobs' changes. Then there is nothing left to roll back to.
        if not connection.in_transaction:
            raise _TransactionAborted from error
        connection.execute("ROLLBACK TO job")
        job.error = _translated(error)
    # After ROLLBACK TO too: it leaves the savepoint on the stack (sqlite.org/lang_savepoint.html).
    connection.execute("RELEASE job")


def _storage_error(job: _Job) -> StorageError | None:
    """Return the job's error if it is about the database as a whole."""
    return job.error if isinstance(job.error, StorageError) and not isinstance(job.error, DamagedRow) else None


def _translated(error: BaseException, path: str | None = None) -> BaseException:
    """Return the Orbit error that an sqlite3 error means, caused by it; any other error as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    translated = translate(error, path)
    if translated is not error:
        translated.__cause__ = error
    return translated
