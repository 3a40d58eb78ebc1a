"""What the daemon does by itself at intervals: save, clean up, vacuum, back up, check its files.

Intervals are counted on the event loop's clock, which is monotonic: setting the wall clock
changes nothing. A run that fails is logged, shown by `daemon.info`, and tried again soon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from orbit_os.files import UnsafeFolder
from orbit_protocol.errors import OrbitError
from orbit_protocol.results import MaintenanceStatus
from orbitd.descriptors import shortage
from orbitd.logs import event
from orbitd.rpc.sockets import SocketUnusable

log = logging.getLogger("orbitd.maintenance")

RETRY_SECS = 60.0


@dataclass(frozen=True)
class MaintenanceTask:
    """One recurring task.

    Args:
        name: As users see it.
        interval_secs: From the end of one run to the start of the next.
        run: Does it; raises if it could not.
        first_after_secs: When to run first; after one interval if this is None.
    """

    name: str
    interval_secs: float
    run: Callable[[], Awaitable[object]]
    first_after_secs: float | None = None


@dataclass
class _Record:
    due: float
    last_run_at: datetime | None = None
    last_success_at: datetime | None = None
    last_error: str | None = None


class Maintenance:
    """Runs maintenance tasks until it is cancelled.

    Args:
        tasks: What to run.
    """

    def __init__(self, tasks: Sequence[MaintenanceTask]) -> None:
        now = asyncio.get_running_loop().time()
        self._records = {
            task: _Record(due=now + (task.interval_secs if task.first_after_secs is None else task.first_after_secs))
            for task in tasks
        }

    async def run(self) -> None:
        """Run every task at its interval, forever."""
        # Each in an asyncio task of its own, so that a slow one delays no other.
        async with asyncio.TaskGroup() as group:
            for task, record in self._records.items():
                group.create_task(self._repeat(task, record), name=f"maintenance task {task.name}")

    def status(self) -> list[MaintenanceStatus]:
        """Return the state of each task."""
        now = asyncio.get_running_loop().time()
        return [
            MaintenanceStatus(
                name=task.name,
                interval_secs=task.interval_secs,
                last_run_at=record.last_run_at,
                last_success_at=record.last_success_at,
                last_error=record.last_error,
                overdue=record.last_error is not None or now > record.due + task.interval_secs,
            )
            for task, record in self._records.items()
        ]

    async def _repeat(self, task: MaintenanceTask, record: _Record) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.0, record.due - loop.time()))
            succeeded = await self._run_once(task, record)
            # From the end of the run: a task that takes longer than its interval still pauses.
            pause = task.interval_secs if succeeded else min(task.interval_secs, RETRY_SECS)
            record.due = loop.time() + pause

    async def _run_once(self, task: MaintenanceTask, record: _Record) -> bool:
        record.last_run_at = datetime.now(UTC)
        try:
            await task.run()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is recorded and the task tried again
            message = _message_of(error)
            level = logging.DEBUG if message == record.last_error else logging.ERROR  # once, not at every try
            event(log, level, "maintenance task failed", task=task.name, error=message, exc=error)
            record.last_error = message
            return False
        if record.last_error is not None:
            event(log, logging.INFO, "maintenance task succeeds again", task=task.name)
        record.last_success_at, record.last_error = datetime.now(UTC), None
        return True


def _message_of(error: Exception) -> str:
    """Return what an error says, if it was written for people and quotes nothing that a client sent; else its type."""
    if isinstance(error, OrbitError):
        return f"{error.message}. {error.hint}"
    if (missing := shortage(error)) is not None:
        what, remedy = missing
        return f"no {what} is left: {remedy}"
    return str(error) if isinstance(error, OSError | UnsafeFolder | SocketUnusable) else type(error).__name__
