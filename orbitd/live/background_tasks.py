"""Tasks that nobody awaits, held until they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from orbitd.logs import event

log = logging.getLogger("orbitd.live")


class BackgroundTasks:
    """Tasks of one owner, on the event loop; what they raise is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Run `work` as a task that is held until it ends."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def finish(self, grace_secs: float) -> None:
        """Wait for the tasks that run, this long at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_secs)

    async def cancel(self) -> None:
        """End the tasks that run."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            event(log, logging.ERROR, "live session failed", error=type(error).__name__, exc=error)
