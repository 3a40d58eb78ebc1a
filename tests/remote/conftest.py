"""Fixtures for other machines: the user's own, and any number that an ssh reaches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needs import require
from ssh_support import Machine, Near


@pytest.fixture
def near(home: Path) -> Near:
    """The user's machine, without a daemon."""
    require("ssh", "ssh-keygen")
    return Near(home)


@pytest.fixture
def new_machine(near: Near) -> Iterator[Callable[[], Machine]]:
    """Return a function that makes one more machine, which is trusted and lets the user in."""
    require("sshd")
    machines: list[Machine] = []

    def make() -> Machine:
        machine = Machine(Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp")), near.public_key)
        machines.append(machine)
        near.trust(machine)
        return machine

    yield make
    for machine in machines:
        machine.close()
        shutil.rmtree(machine.home, ignore_errors=True)


@pytest.fixture
def machine(new_machine: Callable[[], Machine]) -> Machine:
    """A machine whose orbitd does not run."""
    return new_machine()


@pytest.fixture
def far(machine: Machine) -> Machine:
    """A machine whose orbitd serves."""
    machine.daemon.start()
    return machine
