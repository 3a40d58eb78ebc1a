"""Fixtures for live sessions on the command line: a daemon that a client starts again is stopped in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ctl_support import InProcess, Orbitctl
from support import DaemonProcess


@pytest.fixture
def own_ctl(daemon: DaemonProcess) -> Iterator[Orbitctl]:
    """The command line, run in this process, beside a daemon of its own that may be stopped and started again."""
    ctl = InProcess(daemon.home, daemon.environment)
    yield ctl
    ctl("daemon", "stop")
