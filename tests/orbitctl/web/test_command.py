"""`orbitctl web` where it does not serve: each error with its exit code and the next step."""

from __future__ import annotations

import contextlib
import sys

import pytest

from ctl_support import Orbitctl
from orbitctl.web.server import bind


def test_a_port_that_is_taken_is_named(ctl: Orbitctl) -> None:
    """Another program's port is a conflict, and nothing is printed as a URL."""
    with contextlib.closing(bind(0)) as listener:
        port = listener.getsockname()[1]
        ended = ctl("web", "--port", str(port))
    assert (ended.code, ended.out) == (5, b"")
    assert ended.err == f"error: port {port} is taken by another program\nhint: Leave --port out for a free one.\n"


@pytest.mark.parametrize("port", ["65536", "-1", "x", ""])
def test_what_is_no_port_is_a_usage_error(ctl: Orbitctl, port: str) -> None:
    """A port is a number from 0 to 65535."""
    ended = ctl("web", f"--port={port}")
    assert (ended.code, ended.out) == (2, b"")
    assert "--port" in ended.err


def test_without_a_daemon_nothing_is_served(offline: Orbitctl) -> None:
    """Where no daemon runs and none may be started, the error is that of every command."""
    ended = offline("web")
    assert (ended.code, ended.out) == (3, b"")
    assert "no daemon is running" in ended.err


WITHOUT_LIBRARY = "import sys; sys.modules['websockets'] = None; from orbitctl.cli import run; sys.exit(run(['web']))"


def test_without_the_library_it_is_said_how_to_install_it(process_ctl: Orbitctl) -> None:
    """An installation without the extra says what is missing, and which command brings it."""
    process_ctl.command = [sys.executable, "-c", WITHOUT_LIBRARY]
    ended = process_ctl()
    assert (ended.code, ended.out) == (1, b"")
    assert "needs the library websockets" in ended.err
    assert "hint: pip install 'orbit-sessions[web]'" in ended.err
