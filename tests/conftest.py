"""Fixtures for every test: a short private folder, the real daemon in it, and one daemon for many tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

import xterm_support
from support import DaemonProcess, RawClient


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="A test that is skipped fails: this machine has it all.")


def pytest_configure() -> None:
    """Have programs begin without what `pytest &` of a script and `nohup pytest` ignore: they inherit it."""
    # execve(2) resets a signal that is caught, so a caught hangup still does not end a `nohup pytest`.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, lambda *_: None),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


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


@pytest.fixture(scope="session")
def worker_daemon() -> Iterator[DaemonProcess]:
    """The daemon behind `shared_daemon`; it lives as long as the test run, or as long as a worker of pytest-xdist."""
    home = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    daemon = DaemonProcess(home)
    yield daemon
    daemon.end()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def shared_daemon(worker_daemon: DaemonProcess) -> Iterator[DaemonProcess]:
    """A daemon with an empty store, for tests that neither stop it, nor kill its keeper, nor touch its files.

    Starting one takes longer than most tests, so one daemon serves them all in turn, and its store is emptied
    after each. A test that needs a daemon of its own asks for `daemon`.
    """
    if not worker_daemon.is_running:
        worker_daemon.start()
    yield worker_daemon
    worker_daemon.empty()


@pytest.fixture
def shared_client(shared_daemon: DaemonProcess) -> Iterator[RawClient]:
    """A raw connection to the shared daemon."""
    with shared_daemon.client() as client:
        yield client


@pytest.fixture(scope="session")
def xterm_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where xterm.js is installed: once for all workers of pytest-xdist, whose folders are in one."""
    base = tmp_path_factory.getbasetemp()
    return xterm_support.install((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xterm")


@pytest.fixture
def xterm(xterm_modules: Path) -> Iterator[Callable[[int, int], xterm_support.XtermJs]]:
    """Makes terminals of xterm.js of so many columns and rows; they end with the test."""
    with contextlib.ExitStack() as opened:
        yield lambda cols, rows: opened.enter_context(
            contextlib.closing(xterm_support.XtermJs(xterm_modules, cols, rows))
        )
