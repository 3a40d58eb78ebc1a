"""Fixtures for every test: a short private folder, and the real daemon in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from support import DaemonProcess, RawClient


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="A test that is skipped fails: this machine has it all.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skip where `--no-skips` forbids them."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped under --no-skips: {report.longreprtext}"
    return report


@pytest.fixture
def home() -> Iterator[Path]:
    """A private folder with a path short enough for sockets below it."""
    path = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def stopped_daemon(home: Path) -> Iterator[DaemonProcess]:
    """A daemon that has not been started yet."""
    daemon = DaemonProcess(home)
    yield daemon
    daemon.end()


@pytest.fixture
def daemon(stopped_daemon: DaemonProcess) -> DaemonProcess:
    """A daemon that serves."""
    return stopped_daemon.start()


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[RawClient]:
    """A raw connection to a daemon that serves."""
    with daemon.client() as client:
        yield client
