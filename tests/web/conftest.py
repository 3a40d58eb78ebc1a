"""Fixtures for the page in a real browser: one Chromium for all tests of a worker, each test with its own daemon."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import web_support
from support import DaemonProcess
from web_support import Browser, WebProcess


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where playwright-core and xterm.js are: once for all workers of pytest-xdist, whose folders are in one."""
    base = tmp_path_factory.getbasetemp()
    return web_support.install((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "web")


@pytest.fixture(scope="session")
def browser(packages: Path) -> Iterator[Browser]:
    """A Chromium; each test opens tabs of its own."""
    browser = Browser(packages)
    yield browser
    browser.close()


@pytest.fixture
def serve(packages: Path) -> Iterator[Callable[..., WebProcess]]:
    """Starts `orbitctl web` beside a daemon, with more options and variables; it ends with the test."""
    with contextlib.ExitStack() as started:

        def start(daemon: DaemonProcess, *arguments: str, **environ: str) -> WebProcess:
            environment = {**daemon.environment, "XDG_CACHE_HOME": str(packages / "cache"), **environ}
            return started.enter_context(contextlib.closing(WebProcess(environment, *arguments)))

        yield start
