"""Fixtures for faults: a home in memory, and a small disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.shim import Shim
from needs import require
from support import DaemonProcess

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"
"""What a kill leaves does not depend on the disk, and nothing here has to outlast the machine."""


@pytest.fixture(autouse=True)
def shim_can_be_built() -> None:
    """The disk that misbehaves is a library that the dynamic linker puts before the C library's own."""
    require("cc", linux=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """A private folder with a path short enough for sockets below it."""
    path = Path(tempfile.mkdtemp(prefix="orbit-", dir=MEMORY))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def hand(home: Path) -> Shim:
    """What makes the daemon's disk and clock misbehave; ORBIT_SHIM_MODES_BIND=1 lets modes hold root back, too."""
    return Shim(home, home / ".local" / "share")


@pytest.fixture
def stopped_daemon(home: Path, hand: Shim) -> Iterator[DaemonProcess]:
    """A daemon in that hand that has not been started yet."""
    daemon = DaemonProcess(home, environment=hand.environment)
    yield daemon
    daemon.end()


class SmallDisk:
    """A file system of its own, of a few MiB.

    Args:
        place: Where it is mounted.
        size: In bytes.
    """

    def __init__(self, place: Path, size: int) -> None:
        self.place = place
        place.mkdir(parents=True, mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "orbit", str(place)], check=True)

    def fill(self) -> Path:
        """Take all the room there is with one file, and return it."""
        ballast = self.place / "ballast"
        with ballast.open("ab", buffering=0) as file:
            for block in (1 << 16, 1 << 12):
                try:
                    while file.write(bytes(block)) == block:
                        pass
                except OSError:
                    continue
        return ballast

    def remount(self, *options: str) -> None:
        """Change how it is mounted."""
        subprocess.run(["mount", "-o", ",".join(["remount", *options]), str(self.place)], check=True)

    def unmount(self) -> None:
        """Take it away, in use or not."""
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)


@pytest.fixture
def disk(home: Path) -> Iterator[SmallDisk]:
    """A disk of 4 MiB where the database's folder is."""
    require(root=True)
    place = home / ".local" / "share" / "orbit"
    for folder in (home / ".local", home / ".local" / "share"):
        folder.mkdir(mode=0o700)
    small = SmallDisk(place, 4 << 20)
    yield small
    small.unmount()
