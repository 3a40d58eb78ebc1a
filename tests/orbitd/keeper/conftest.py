"""Fixtures of the keeper's tests: a short private folder, and a keeper in it that is gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keeper_support import KeeperProcess, Orbitd


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder whose path leaves room for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def stopped(folder: Path) -> Iterator[KeeperProcess]:
    """A keeper that has not been started."""
    process = KeeperProcess(str(folder / "keeper.sock"))
    yield process
    process.kill()


@pytest.fixture
def keeper(stopped: KeeperProcess) -> KeeperProcess:
    """A keeper that listens."""
    stopped.start()
    return stopped


@pytest.fixture
async def orbitd(stopped: KeeperProcess) -> Orbitd:
    """An orbitd's side that has started its keeper."""
    return await stopped.orbitd()
