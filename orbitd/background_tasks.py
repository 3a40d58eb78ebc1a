"""Tasks that nothing awaits, held until they are done; and work that is awaited to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from orbitd.logs import event

T = TypeVar("T")


async def finished(work: Awaitable[T], discard: Callable[[T], object] = lambda _: None) -> T:
    """Await the work of a thread that uses descriptors, which nobody can stop: who is cancelled waits for its end.

    Closed before, a descriptor's number may be another file's by the time that the thread writes to it.

    Args:
        work: What the thread does.
        discard: Called with the result where the caller is cancelled.
    """
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        if not running.cancelled() and running.exception() is None:
            discard(running.result())
        raise


class BackgroundTasks:
    """Tasks of one owner, on the event loop; its length is how many run.

    Args:
        log: Where an exception that a task raises is logged.
        failure: The event that is logged then.
        on_done: Called each time when one is done.
    """

    def __init__(self, log: logging.Logger, failure: str, on_done: Callable[[], None] = lambda: None) -> None:
        self._log = log
        self._failure = failure
        self._on_done = on_done
        # The event loop has weak references only (asyncio.create_task): a task that is not referenced
        # anywhere else may be collected before it is done.
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

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
            event(self._log, logging.ERROR, self._failure, error=type(error).__name__, exc=error)
        self._on_done()
