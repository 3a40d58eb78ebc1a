"""Fixtures for replication: Litestream beside a daemon that serves."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from litestream_support import Litestream
from needs import require
from support import DaemonProcess


@pytest.fixture
def litestream(daemon: DaemonProcess) -> Iterator[Litestream]:
    """Litestream, which replicates the daemon's database."""
    require("litestream")
    litestream = Litestream(daemon)
    litestream.start()
    yield litestream
    litestream.stop(signal.SIGKILL)
