"""Fixtures for the command line: runs of `python -m orbitctl` in a private home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from support import DaemonProcess


@pytest.fixture
def ctl(daemon: DaemonProcess) -> Orbitctl:
    """The command line beside a daemon that serves."""
    return Orbitctl(daemon.home, daemon.environment)


@pytest.fixture
def lonely(home: Path) -> Iterator[Orbitctl]:
    """The command line in a home without a daemon; one that it starts is stopped in the end."""
    ctl = Orbitctl(home)
    yield ctl
    ctl("daemon", "stop")
