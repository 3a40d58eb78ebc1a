"""Fixtures for live sessions on the command line: programs that a test starts end with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ctl_support import Orbitctl
from support import DaemonProcess


@pytest.fixture
def ctl(stopped_daemon: DaemonProcess) -> Iterator[Orbitctl]:
    """The command line beside a daemon that serves; in the end every program is ended, and so is their keeper."""
    daemon = stopped_daemon.start()
    ctl = Orbitctl(daemon.home, daemon.environment)
    yield ctl
    for session in ctl.ok("session", "list", "--json").json["sessions"]:
        if session["live"]:
            ctl.ok("session", "signal", session["id"], "KILL")
            ctl.ok("session", "wait", session["id"])
    ctl.ok("daemon", "stop")
