"""Tasks that nothing awaits, held until they are done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from orbitd.logs import event

log = logging.getLogger("orbitd.live")


class BackgroundTasks:
    """Tasks of one owner, on the event loop; an exception that one raises is logged."""

    def __init__(self) -> None:
        # The event loop has weak references only (asyncio.create_task): a task that is not referenced
        # anywhere else may be collected before it is done.
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine as a task that is held until it is done."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def finish(self, grace_secs: float) -> None:
        """Wait for the tasks that run now, at most `grace_secs`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_secs)

    async def cancel(self) -> None:
        """Cancel the tasks that run, and wait until they are done."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            event(log, logging.ERROR, "live session task failed", error=type(error).__name__, exc=error)
