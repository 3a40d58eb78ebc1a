"""Checkpoints of a log in a thread of their own, so that no COMMIT runs one (sqlite.org/wal.html#ckpt).

    a transaction of the writer is on disk    count; due after 256 commits, or 4 MiB of log
    due, and none runs                   -->  PASSIVE in the thread of checkpoints, beside the writer
    no commit for some seconds           -->  once more, and a long log file is truncated; then there is no timer

A passive checkpoint copies pages into the database up to the commit that it has found at its beginning. The log begins
again at its first page only where a transaction finds that all of it has been copied. So under a writer that never
rests it grows, until it has `BACKSTOP_PAGES`: then the COMMIT itself runs a checkpoint (`wal_autocheckpoint`), of the
little that is left to copy, and the next transaction begins the log again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable

from orbit_protocol.errors import ShuttingDown
from orbitd.logs import event
from orbitd.store.files import FULL_SYNC, size
from orbitd.store.writer import Writer

COMMITS = 256
LOG_BYTES = 4 * 1024 * 1024
"""After so many commits, or so many bytes by which the log's file has grown, it is checkpointed aside."""

IDLE_SECS = 3.0
"""How long nothing has been committed when the last checkpoint of a burst begins."""

log = logging.getLogger("orbitd.store")


class Checkpointer:
    """Has the log of one writer checkpointed; made and used on the event loop.

    Args:
        path: The database.
        writer: Its writing thread, whose connection has `wal_autocheckpoint = BACKSTOP_PAGES`.
        aside: Runs work with a connection of its own, in a thread of its own.
        is_paused: Returns whether somebody else checkpoints now, or nobody may.
    """

    def __init__(
        self,
        path: str,
        writer: Writer,
        aside: Callable[[Callable[[sqlite3.Connection], None]], Awaitable[None]],
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._path = path
        self._log_file = path + "-wal"
        self._writer = writer
        self._aside = aside
        self._is_paused = is_paused
        self._loop = asyncio.get_running_loop()
        self._commits = 0  # since the last checkpoint began
        self._committed_at = 0.0
        self._length = self._log_bytes()  # of the log's file, when the last checkpoint ended
        self._timer: asyncio.TimerHandle | None = None  # while a burst goes on
        self._task: asyncio.Task[None] | None = None  # the checkpoint that runs
        self._has_failed = False
        self._closing = False
        writer.on_committed = self._committed

    async def close(self) -> None:
        """Begin no checkpoint any more, and wait for one that runs; before the writer is closed."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})

    def _committed(self) -> None:
        self._commits += 1
        self._committed_at = self._loop.time()
        if self._closing or not self._is_due():
            return
        if self._timer is None:
            self._timer = self._loop.call_later(IDLE_SECS, self._look_whether_idle)
        if self._task is None and not self._is_paused():
            self._start(is_last=False)

    def _is_due(self) -> bool:
        return self._commits >= COMMITS or self._log_bytes() - self._length >= LOG_BYTES

    def _log_bytes(self) -> int:
        # By stat(2). To open the file is no way: POSIX drops all of a process's locks on a file when any descriptor of
        # it is closed (sqlite.org/howtocorrupt.html, 2.2).
        with contextlib.suppress(OSError):  # a folder that cannot be reached: the writer says so
            return size(self._log_file)
        return 0

    def _look_whether_idle(self) -> None:
        since = self._loop.time() - self._committed_at
        is_busy = self._task is not None or self._is_paused()
        if is_busy or since < IDLE_SECS:
            left = IDLE_SECS if is_busy else IDLE_SECS - since
            self._timer = self._loop.call_later(left, self._look_whether_idle)
            return
        self._timer = None
        if self._commits or self._log_bytes() > LOG_BYTES:
            self._start(is_last=True)

    def _start(self, *, is_last: bool) -> None:
        self._task = self._loop.create_task(self._run(is_last=is_last))
        self._task.add_done_callback(self._ended)

    async def _run(self, *, is_last: bool) -> None:
        self._commits = 0
        await self._aside(checkpoint_log)
        if is_last and self._log_bytes() > LOG_BYTES:
            # In the writer's thread, where nobody commits meanwhile. All is copied already.
            await self._writer.run(truncate_log, lambda _: None, alone=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._length = self._log_bytes()
        error = None if task.cancelled() else task.exception()
        # What could not be copied stays in the log, which SQLite reads: the next one tries again.
        if error is not None and not isinstance(error, ShuttingDown) and not self._has_failed:
            event(log, logging.WARNING, "checkpoint failed", database=self._path, error=type(error).__name__, exc=error)
        self._has_failed = error is not None


def checkpoint_log(connection: sqlite3.Connection) -> None:
    """Checkpoint the log as far as its readers let it be (sqlite.org/pragma.html#pragma_wal_checkpoint)."""
    connection.executescript(FULL_SYNC)  # a reading connection has not
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def truncate_log(connection: sqlite3.Connection) -> None:
    """Checkpoint the log and shorten its file, and the database's, if no reader has any of it open."""
    # TRUNCATE would wait for every reader in the busy handler, and some stay for as long as they run, as replicators
    # do. Without a timeout it does what it can and returns.
    (timeout,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout:d}").fetchall()
