"""Waiting for a process that is not our child to end, by event: pidfd_open(2), or kqueue(2) on macOS."""

from __future__ import annotations

import os
import select
import sys

if sys.platform == "linux":

    class ProcessWatch:
        """The end of a process, to be waited for; opened while it is known to run, so that its pid is its own."""

        def __init__(self, pid: int) -> None:
            try:
                self._descriptor: int | None = os.pidfd_open(pid)
            except ProcessLookupError:
                self._descriptor = None  # it has ended already

        def wait(self, timeout: float) -> bool:
            """Return whether it ended within `timeout` seconds."""
            if self._descriptor is None:
                return True
            poller = select.poll()
            poller.register(self._descriptor, select.POLLIN)
            return bool(poller.poll(timeout * 1000))

        def close(self) -> None:
            """Stop looking."""
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

else:

    class ProcessWatch:
        """The end of a process, to be waited for; opened while it is known to run, so that its pid is its own."""

        def __init__(self, pid: int) -> None:
            self._queue = select.kqueue()
            wanted = select.kevent(
                pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
            )
            try:
                self._queue.control([wanted], 0)
                self._ended = False
            except ProcessLookupError:
                self._ended = True

        def wait(self, timeout: float) -> bool:
            """Return whether it ended within `timeout` seconds."""
            self._ended = self._ended or bool(self._queue.control(None, 1, timeout))
            return self._ended

        def close(self) -> None:
            """Stop looking."""
            self._queue.close()
