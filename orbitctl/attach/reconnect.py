"""The wait for a daemon that went away under an attached client, one look at a time.

A daemon that was stopped in good order has taken its socket away: somebody wanted that, so it is
only waited for. One that died has left its socket behind: where no supervisor brings it back at
once, it is started again, by another `orbitctl`, so that the user's keys are heard meanwhile.
"""

from __future__ import annotations

import os
import time

from orbit_os.python import python_command
from orbitctl.app import App
from orbitctl.client.transport import Stream, Unreachable
from orbitctl.errors import CommandError, ExitCode

PATIENCE_SECONDS = 60.0
QUIET_SECONDS = 1.0
"""How long a wait is not worth a word."""
_SUPERVISOR_SECONDS = 0.1
_FIRST_DELAY, _LONGEST_DELAY = 0.02, 0.5


class Reconnect:
    """One wait; its owner connects when `attempt` says so, and asks again when that led nowhere.

    Args:
        app: Knows the way to the daemon.
        may_start: Whether a daemon that died is started.
        now: The monotonic time.
    """

    def __init__(self, app: App, *, may_start: bool, now: float) -> None:
        self._app = app
        self._may_start = may_start
        self._began = now
        self._patience = PATIENCE_SECONDS if app.timeout is None else app.timeout
        self._delay = _FIRST_DELAY
        self._next_at = now
        self.is_told = False

    def due(self, *, connected: bool) -> float:
        """Return when to look again."""
        until_told = [] if self.is_told else [self._began + QUIET_SECONDS]
        return min([self._began + self._patience, *until_told, *([] if connected else [self._next_at])])

    def is_worth_a_word(self, now: float) -> bool:
        """Tell, once, that it takes so long that the user should know."""
        if self.is_told or now < self._began + QUIET_SECONDS:
            return False
        self.is_told = True
        return True

    def check(self, now: float) -> None:
        """Give up in the end. Raises: CommandError."""
        if now >= self._began + self._patience:
            raise CommandError(
                f"the daemon has not come back within {self._patience:g} s",
                ExitCode.UNREACHABLE,
                hint="The session's program goes on without it: attach again when the daemon runs.",
            )

    def attempt(self, now: float) -> Stream | None:
        """Try to connect, if it is time. Raises: CommandError where the way to the daemon is barred."""
        if now < self._next_at:
            return None
        self.again(now)
        try:
            return self._app.open_stream()
        except Unreachable as error:
            if not error.no_daemon:
                raise
        if self._may_start and now >= self._began + _SUPERVISOR_SECONDS:
            self._may_start = False
            if os.path.exists(self._app.paths.socket_path):
                _start_elsewhere(self._app)
        return None

    def again(self, now: float) -> None:
        """Wait for the next attempt, each time a little longer."""
        self._next_at = now + self._delay
        self._delay = min(self._delay * 1.5, _LONGEST_DELAY)


class Away:
    """Begins a wait whenever the daemon has gone. From here on `app` itself starts no daemon."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._may_start = app.autostart and not app.hosts
        app.autostart = False

    def __call__(self, now: float) -> Reconnect:
        """Begin to wait."""
        return Reconnect(self._app, may_start=self._may_start, now=now)


def wait_for_daemon(app: App) -> None:
    """Wait, with nothing else to do, until the daemon is back. Raises: CommandError."""
    reconnect = Away(app)(time.monotonic())
    app.close()
    while (stream := reconnect.attempt(time.monotonic())) is None:
        time.sleep(max(0.0, reconnect.due(connected=False) - time.monotonic()))
        reconnect.check(time.monotonic())
        reconnect.is_worth_a_word(time.monotonic())
    stream.close()


def _start_elsewhere(app: App) -> None:
    import subprocess

    where = [] if app.socket is None else ["--socket", app.socket]
    starter = subprocess.Popen(
        python_command("orbitctl", *where, "daemon", "start"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    starter.returncode = 0  # whether it went well, the socket tells
