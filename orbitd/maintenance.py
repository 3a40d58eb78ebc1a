"""What the daemon does by itself, at intervals: save, clean up, vacuum.

Each chore is a task of its own, so that a slow one delays no other. Intervals are counted
on the monotonic clock: setting the wall clock back or forth changes nothing. A run that
fails is logged, shown by `daemon.info`, and tried again soon.
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
from orbitd.logs import event
from orbitd.rpc.sockets import SocketUnusable

log = logging.getLogger("orbitd.maintenance")

RETRY_SECS = 60.0


@dataclass(frozen=True)
class MaintenanceTask:
    """One recurring task.

    Args:
        name: What it does, as users know it.
        interval_secs: From the end of one run to the start of the next.
        run: Does it; raises if it could not.
        first_after_secs: When to run first; after one interval where this is None.
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
    """Runs chores until it is cancelled."""

    def __init__(self, chores: Sequence[MaintenanceTask]) -> None:
        now = asyncio.get_running_loop().time()
        self._records = {chore: _Record(due=now + _first(chore)) for chore in chores}

    async def run(self) -> None:
        """Run every chore at its interval, for ever."""
        async with asyncio.TaskGroup() as group:
            for chore, record in self._records.items():
                group.create_task(self._repeat(chore, record), name=f"chore {chore.name}")

    def status(self) -> list[MaintenanceStatus]:
        """Return how each chore fares now."""
        now = asyncio.get_running_loop().time()
        return [
            MaintenanceStatus(
                name=chore.name,
                interval_secs=chore.interval_secs,
                last_run_at=record.last_run_at,
                last_success_at=record.last_success_at,
                last_error=record.last_error,
                overdue=record.last_error is not None or now > record.due + chore.interval_secs,
            )
            for chore, record in self._records.items()
        ]

    async def _repeat(self, chore: MaintenanceTask, record: _Record) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.0, record.due - loop.time()))
            succeeded = await self._run_once(chore, record)
            pause = chore.interval_secs if succeeded else min(chore.interval_secs, RETRY_SECS)
            record.due = loop.time() + pause

    async def _run_once(self, chore: MaintenanceTask, record: _Record) -> bool:
        record.last_run_at = datetime.now(UTC)
        try:
            await chore.run()
        except Exception as error:  # noqa: BLE001  # whatever went wrong, it is noted and tried again
            told = f"{error.message}. {error.hint}" if isinstance(error, OrbitError) else _describe(error)
            level = logging.DEBUG if told == record.last_error else logging.ERROR  # once, not at every try
            event(log, level, "chore failed", chore=chore.name, error=told, exc=error)
            record.last_error = told
            return False
        if record.last_error is not None:
            event(log, logging.INFO, "chore goes well again", chore=chore.name)
        record.last_success_at, record.last_error = datetime.now(UTC), None
        return True


def _describe(error: Exception) -> str:
    """Say what went wrong where the error was not made for people; an OSError of ours names a file, nothing else."""
    return str(error) if isinstance(error, OSError | UnsafeFolder | SocketUnusable) else type(error).__name__


def _first(chore: MaintenanceTask) -> float:
    return chore.interval_secs if chore.first_after_secs is None else chore.first_after_secs
