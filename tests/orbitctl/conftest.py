"""Fixtures for the command line: beside the shared daemon, beside a daemon of its own, and alone in a home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl_support import InProcess, Orbitctl
from support import DaemonProcess, clean_environment


@pytest.fixture
def ctl(shared_daemon: DaemonProcess, home: Path) -> Orbitctl:
    """The command line, run in this process in a folder of its own, beside the daemon that tests share."""
    return InProcess(home, shared_daemon.environment)


@pytest.fixture
def own_ctl(daemon: DaemonProcess) -> Orbitctl:
    """The command line, run in this process, beside a daemon of its own that may be stopped."""
    return InProcess(daemon.home, daemon.environment)


@pytest.fixture
def process_ctl(shared_daemon: DaemonProcess, home: Path) -> Orbitctl:
    """`python -m orbitctl` in a folder of its own beside the daemon that tests share."""
    return Orbitctl(home, shared_daemon.environment)


@pytest.fixture
def offline(home: Path) -> Orbitctl:
    """The command line, run in this process, in a home without a daemon, and where none is started."""
    return InProcess(home, clean_environment(home, ORBITCTL_NO_AUTOSTART="1"))


@pytest.fixture
def lonely(home: Path) -> Iterator[Orbitctl]:
    """`python -m orbitctl` in a home without a daemon; one that it starts is stopped in the end."""
    yield Orbitctl(home)
    InProcess(home)("daemon", "stop")
