"""Watch a process that is not our child, and signal it, by pidfd_open(2); on macOS by kqueue(2).

waitpid(2) is for children only, and looking at the pid again and again would be polling. A pid can
be given to another process once its owner has ended and been reaped, so a `ProcessWatch` must be
made while the process is known to run: from then on the descriptor, not the pid, stands for it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from orbit_os.processes import start_time

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.25

if sys.platform == "linux":

    class ProcessWatch:
        """Waits for a process to end; made while it is known to run.

        Attributes:
            can_signal: Whether there is a pidfd to signal it by; without one its pid could be another process's.
        """

        def __init__(self, pid: int) -> None:
            self._pid = pid
            self._started = ""
            self._descriptor: int | None = None
            try:
                self._descriptor = os.pidfd_open(pid)  # close-on-exec, always
            except ProcessLookupError:
                pass  # it has ended already
            except (AttributeError, OSError):
                # Python was built on a system without it, the kernel is older than 5.3 (ENOSYS), or a filter of system
                # calls refuses it (EPERM).
                self._started = start_time(pid)
            self.can_signal = not self._started

        def wait(self, timeout: float) -> bool:
            """Return whether it has ended within `timeout` seconds."""
            if self._descriptor is None:
                return self._wait_without_pidfd(timeout)
            # A pidfd becomes readable when the process terminates, before its parent has reaped it. poll and not
            # select, which takes no descriptor of 1024 or more.
            poller = select.poll()
            poller.register(self._descriptor, select.POLLIN)
            return bool(poller.poll(timeout * 1000))

        def _wait_without_pidfd(self, timeout: float) -> bool:
            # Nothing else reports the end of a process that is not our child.
            deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE
            while self._started and start_time(self._pid) == self._started:
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._started = ""
            return True

        def send_signal(self, number: int) -> bool:
            """Send a signal; return False if the process has ended, or may not be signalled."""
            if self._descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(self._descriptor, number)
            except OSError:
                return False
            return True

        def close(self) -> None:
            """Close the descriptor."""
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

else:

    class ProcessWatch:
        """Waits for a process to end; made while it is known to run."""

        can_signal = True

        def __init__(self, pid: int) -> None:
            self._pid = pid
            self._queue = select.kqueue()
            exit_event = select.kevent(
                pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
            )
            try:
                self._queue.control([exit_event], 0)  # registers, and fails with ESRCH if there is no such process
                self._ended = False
            except ProcessLookupError:
                self._ended = True

        def wait(self, timeout: float) -> bool:
            """Return whether it has ended within `timeout` seconds."""
            # EV_ONESHOT: the event is delivered once, so it is remembered.
            self._ended = self._ended or bool(self._queue.control(None, 1, timeout))
            return self._ended

        def send_signal(self, number: int) -> bool:
            """Send a signal; return False if the process has ended, or may not be signalled."""
            # By pid, since there is nothing else: right after the queue was asked, the pid is still its own.
            if self.wait(0):
                return False
            try:
                os.kill(self._pid, number)
            except OSError:
                return False
            return True

        def close(self) -> None:
            """Close the queue."""
            self._queue.close()
