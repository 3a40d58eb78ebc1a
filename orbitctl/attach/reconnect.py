"""Reconnect an attached client after the daemon has stopped or crashed, with back-off.

A daemon that was stopped has removed its socket: somebody wanted that, so the client only waits
for the next one. One that crashed has left its socket behind: it is started again, after a second if it was
run by a supervisor, which has that long to do so.
"""

from __future__ import annotations

import os
import time

from orbit_os.files import UnsafeFolder
from orbit_protocol.visible import seconds
from orbitctl.client.transport import Unreachable
from orbitctl.errors import CommandError, ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it: an attached client, which lives for weeks, has none of click
    from orbitctl.app import App
    from orbitctl.client.local import LocalDaemon
    from orbitctl.client.transport import Stream

TIMEOUT_SECONDS = 60.0
NOTIFY_SECONDS = 1.0
"""How long an outage lasts before the user is notified; most restarts are quicker."""
_SUPERVISOR_SECONDS = 1.0
"""How long a supervisor has to start the daemon again before we do: systemd waits for 0.1 s by default."""
_MIN_DELAY, _MAX_DELAY = 0.01, 0.5
_DELAY_OF_OUTAGE = 0.1
"""The share of the outage so far after which the next attempt is made: so much longer it becomes at most."""


class Reconnect:
    """Attempts to connect again, one outage after the other.

    It keeps no timer: the owner waits until `next_deadline`, then calls `check_deadline`,
    `should_notify` and `attempt` with the time. All times are seconds on the monotonic clock.

    Args:
        app: The app; it starts no daemon in this process from here on.

    Attributes:
        is_active: Whether there is an outage.
        user_notified: Whether the user has been notified of it.
    """

    def __init__(self, app: App | LocalDaemon) -> None:
        self._app = app
        # Starting a daemon takes as long as its database needs, and `open_stream` would block for it: the detach
        # key would do nothing. So another process starts it.
        self._may_start = app.autostart and not app.hosts
        app.autostart = False
        self._timeout = TIMEOUT_SECONDS if app.timeout is None else app.timeout
        self._started_at = 0.0
        self._next_attempt = 0.0
        self._start_tried = False
        self.is_active = False
        self.user_notified = False

    def prepare(self) -> None:
        """Import what an outage needs: an upgrade ends the daemon, and has replaced the modules by then.

        Not earlier than the session is shown: it takes a tenth of the time until then.
        """
        import orbitctl.client.daemon  # noqa: F401

    def start(self, now: float) -> None:
        """Begin an outage; in one that goes on, schedule the next attempt."""
        if self.is_active:
            self._back_off(now)
            return
        self.is_active, self.user_notified = True, False
        self._started_at = self._next_attempt = now
        self._start_tried = not self._may_start

    def stop(self) -> None:
        """End the outage: the daemon is back."""
        self.is_active = self.user_notified = False

    def next_deadline(self, *, connected: bool) -> float:
        """Return when something is due; while `connected`, that is no attempt."""
        deadlines = [self._started_at + self._timeout]
        if not self.user_notified:
            deadlines.append(self._started_at + NOTIFY_SECONDS)
        if not connected:
            deadlines.append(self._next_attempt)
        return min(deadlines)

    def should_notify(self, now: float) -> bool:
        """Return whether to notify the user now: True once in an outage that has become long."""
        if self.user_notified or now < self._started_at + NOTIFY_SECONDS:
            return False
        self.user_notified = True
        return True

    def check_deadline(self, now: float) -> None:
        """Raise CommandError when the daemon has been away for the timeout."""
        if now >= self._started_at + self._timeout:
            raise CommandError(
                f"the daemon has not come back within {seconds(self._timeout)}",
                ExitCode.UNREACHABLE,
                hint="The session's program goes on without it: attach again when the daemon runs.",
            )

    def attempt(self, now: float) -> Stream | None:
        """Connect if an attempt is due; return the stream, or None if there is none yet.

        Raises:
            CommandError: The socket is there and cannot be used; waiting would not help.
        """
        if now < self._next_attempt:
            return None
        self._back_off(now)
        try:
            return self._app.open_stream(wait=False)
        except Unreachable as error:
            if error.is_passing:
                return None
            if not error.no_daemon:
                raise
        if not self._start_tried and self._has_crashed():
            self._start_tried = self._start_daemon(now)
        return None

    def _has_crashed(self) -> bool:
        """Return whether the daemon was killed: one that exits in good order unlinks its socket and clears its note."""
        from orbitctl.client.daemon import was_killed

        paths = self._app.paths
        try:
            return os.path.exists(paths.socket_path) or (not paths.is_socket_chosen and was_killed(paths))
        except CommandError:  # the configuration is broken: which daemon it was is not known
            return False

    def _start_daemon(self, now: float) -> bool:
        """Have a daemon started if it is our turn; return whether that was tried."""
        from orbitctl.client.daemon import start_apart, was_supervised

        paths = self._app.paths
        try:
            if now < self._started_at + _SUPERVISOR_SECONDS and was_supervised(paths):
                return False
            return start_apart(paths)
        # ImportError: the installation has been replaced since. Left is to wait: somebody else may start one.
        except (CommandError, ImportError, OSError, UnsafeFolder):
            return True

    def _back_off(self, now: float) -> None:
        delay = (now - self._started_at) * _DELAY_OF_OUTAGE
        self._next_attempt = now + min(max(delay, _MIN_DELAY), _MAX_DELAY)


def wait_for_daemon(app: App | LocalDaemon) -> None:
    """Block until the daemon can be reached again. Raises: CommandError."""
    reconnect = Reconnect(app)
    reconnect.start(time.monotonic())
    app.close()
    while (stream := reconnect.attempt(time.monotonic())) is None:
        # connect(2) on a Unix socket cannot wait for a listener that is not there yet, so this is a back-off.
        time.sleep(max(0.0, reconnect.next_deadline(connected=False) - time.monotonic()))
        reconnect.check_deadline(time.monotonic())
        reconnect.should_notify(time.monotonic())  # there is no terminal to write to; it moves the next deadline on
    stream.close()
