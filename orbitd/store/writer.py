"""The one thread that writes, and group commit.

Callers on the event loop give it work: a function of the connection that decides and
writes, and returns or raises. The thread takes all the work that waits (at most
`max_group`) into one transaction, each piece under its own savepoint, commits once, and
then hands everything back to the loop in one call: for each piece, in commit order,
`on_commit` runs and the caller's future is answered. So an answered write is on disk, one
fsync serves many callers, and a piece that fails takes back its own changes only.

Work may run twice (a group that could not be committed is tried again one by one), so it
may change nothing but the database. A caller that stops waiting changes nothing: its work
still runs, wholly, and `on_commit` still sees it.
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

from orbit_protocol.errors import ShuttingDown, StorageError
from orbitd.store.errors import translate
from orbitd.store.file_watch import FileWatch

MAX_GROUP = 256
MAX_WAITING = 4_096

Opener = Callable[[], sqlite3.Connection]
Work = Callable[[sqlite3.Connection], Any]

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class _TransactionLost(Exception):
    """SQLite itself rolled the whole transaction back (sqlite.org/lang_transaction.html, "Response To Errors")."""


@dataclass(slots=True, eq=False)
class _Job:
    """One caller's work and what became of it."""

    work: Work
    on_commit: Callable[[Any], Any]
    future: asyncio.Future[Any]
    alone: bool
    result: Any = None
    error: BaseException | None = None

    def answer(self) -> None:
        """Tell the cache, then the caller; on the event loop."""
        try:
            if self.error is not None:
                raise self.error
            result = self.on_commit(self.result)
        except BaseException as error:  # noqa: BLE001  # whatever it is belongs to the caller
            if not self.future.done():
                self.future.set_exception(error)
        else:
            if not self.future.done():
                self.future.set_result(result)


class Writer:
    """The writing thread; made, used and closed on one event loop.

    Args:
        max_group: The most pieces of work in one transaction; 1 commits each by itself.
        max_waiting: The most pieces of work that wait; then callers wait to hand theirs in.
    """

    def __init__(self, *, max_group: int = MAX_GROUP, max_waiting: int = MAX_WAITING) -> None:
        self.max_group = max_group
        self.file_watch: FileWatch | None = None
        self.trouble: StorageError | None = None
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(max_waiting)
        self._gathered: list[_Job] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False

    async def start(self, opener: Opener) -> None:
        """Start the thread, which opens the connection that only it will use.

        Raises:
            Exception: Whatever `opener` raised; the thread has ended then.
        """
        started: asyncio.Future[None] = self._loop.create_future()
        # A daemon thread: a program that forgets to close can still end, and an unfinished
        # transaction is rolled back as after a crash.
        thread = threading.Thread(target=self._main, args=(opener, started), name="orbit-writer", daemon=True)
        thread.start()
        try:
            await asyncio.shield(started)
        except asyncio.CancelledError:
            self._jobs.put(None)  # it may open still; then it closes at once
            started.add_done_callback(asyncio.Future.exception)  # nobody else asks what went wrong
            raise

    async def run(
        self, work: Callable[[sqlite3.Connection], T], on_commit: Callable[[T], R], *, alone: bool = False
    ) -> R:
        """Have `work` done and committed, and return what `on_commit` makes of its result.

        Args:
            work: Runs in the writer's thread, inside a savepoint; perhaps twice.
            on_commit: Runs on the event loop once the work is on disk, even if nobody waits any more.
            alone: Outside any transaction, by itself (for what SQLite does not do inside one).

        Raises:
            ShuttingDown: The writer is closed.
            Exception: Whatever `work` raised; its changes are taken back.
        """
        await self._slots.acquire()
        if self._closing:
            self._slots.release()
            raise ShuttingDown("The store is closed")
        future: asyncio.Future[R] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Job(work, on_commit, future, alone))
        return await future

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._gathered and self._jobs.empty()

    async def close(self) -> None:
        """Finish what waits, close the connection and end the thread."""
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._jobs.put(None)
        await asyncio.shield(self._ended)

    def _hand_over(self) -> None:
        """Give the thread all that was asked for in one turn of the loop.

        Job by job, it would wake for the first, commit that alone, and fight the loop for the
        interpreter's lock while the others come in: measured, a fifth more time for each.
        """
        for job in self._gathered:
            self._jobs.put(job)
        self._gathered.clear()

    def _main(self, opener: Opener, started: asyncio.Future[None]) -> None:
        try:
            connection = opener()
        except BaseException as error:  # noqa: BLE001  # it is start()'s to raise
            self._tell(_settle, started, error)
            return
        self._tell(_settle, started, None)
        try:
            self._serve(connection)
        finally:
            connection.close()
            self._tell(_settle, self._ended, None)

    def _serve(self, connection: sqlite3.Connection) -> None:
        going_on = True
        while going_on:
            jobs, going_on = self._take()
            for group in _groups(jobs):
                if group[0].alone:
                    _run_bare(connection, group[0])
                else:
                    _run_group(connection, group, self._check)
                self.trouble = next((job.error for job in group if isinstance(job.error, StorageError)), None)
                self._tell(self._answer, group)

    def _check(self) -> None:
        """Raise StorageCorrupt unless what is written now can be found later."""
        if self.file_watch is not None:
            self.file_watch.check()

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for work, then take what waits; False once the sentinel of `close` was met."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) >= self.max_group:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _answer(self, jobs: list[_Job]) -> None:
        for job in jobs:
            self._slots.release()
            job.answer()

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            _log.debug("the event loop was closed before the store")


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if error is not None and not future.done():
        future.set_exception(error)
    elif not future.done():
        future.set_result(None)


def _groups(jobs: list[_Job]) -> list[list[_Job]]:
    """Split into transactions, keeping the order: what must be alone stands alone."""
    groups: list[list[_Job]] = []
    for job in jobs:
        if job.alone or not groups or groups[-1][0].alone:
            groups.append([job])
        else:
            groups[-1].append(job)
    return groups


def _run_bare(connection: sqlite3.Connection, job: _Job) -> None:
    try:
        job.result = job.work(connection)
    except BaseException as error:  # noqa: BLE001  # it belongs to the caller
        job.error = _meaning(error)


def _run_group(connection: sqlite3.Connection, jobs: list[_Job], check: Callable[[], None]) -> None:
    """Do the jobs in one transaction; if that cannot be, each in its own.

    `check` raises where the database is no longer the one at its path; asked before, so that
    nothing is written in vain, and after, so that nothing is answered in vain.
    """
    try:
        check()
        connection.execute("BEGIN IMMEDIATE")
    except (sqlite3.Error, StorageError) as error:
        _fail(jobs, error)
        return
    try:
        for job in jobs:
            _run_in_savepoint(connection, job)
        connection.execute("COMMIT")
    except (sqlite3.Error, _TransactionLost) as error:
        _roll_back(connection)
        if len(jobs) == 1:
            _fail(jobs, error.__cause__ or error)
            return
        for job in jobs:
            _run_group(connection, [job], check)
        return
    try:
        check()
    except StorageError as error:
        _fail(jobs, error)


def _run_in_savepoint(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT job")
    job.error = None
    try:
        job.result = job.work(connection)
    except BaseException as error:
        if not connection.in_transaction:
            raise _TransactionLost from error
        connection.execute("ROLLBACK TO job")
        job.error = _meaning(error)
    connection.execute("RELEASE job")


def _roll_back(connection: sqlite3.Connection) -> None:
    if not connection.in_transaction:
        return
    try:
        connection.execute("ROLLBACK")
    except sqlite3.Error:
        _log.exception("a transaction could not be rolled back")


def _fail(jobs: list[_Job], error: BaseException) -> None:
    for job in jobs:
        job.error = _meaning(error)


def _meaning(error: BaseException) -> BaseException:
    if not isinstance(error, sqlite3.Error):
        return error
    meaning = translate(error)
    if meaning is not error:
        meaning.__cause__ = error
    return meaning
