"""Shells that orbitd starts with the integration: which ones do, and after a reboot too. A real daemon."""

from __future__ import annotations

from typing import Any

import pytest

from live.sessions import create, restarted
from live_support import Viewer
from needs import needs
from support import DaemonProcess, RawClient

pytestmark = needs("bash")


@pytest.fixture
def integrating(stopped_daemon: DaemonProcess) -> DaemonProcess:
    """A daemon whose configuration asks for the integration, of a user whose shell is bash."""
    folder = stopped_daemon.home / ".config" / "orbit"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "config.toml").write_text('[events]\nshell_integration = "auto"\n')
    return stopped_daemon.start()


def is_integrated(client: RawClient, session_id: str) -> bool:
    """Return whether a shell that runs marks a command that is typed."""
    viewer = Viewer(client, session_id)
    viewer.type("echo a$((1+1))\r")
    return b"\x1b]133;C;cmdline_url=echo%20a" in viewer.read_until("a2\r\n")


@pytest.mark.parametrize(
    ("command", "asked", "integrated"),
    [
        (None, {}, True),
        ("bash", {}, True),
        ("bash", {"shell_integration": "off"}, False),
        ("bash -c 'exec bash --norc'", {}, False),
    ],
    ids=["the login shell", "bash", "bash, off", "a command of bash"],
)
def test_auto(integrating: DaemonProcess, command: str | None, asked: dict[str, Any], integrated: bool) -> None:
    """With `auto` in the configuration a session whose program is bash is integrated, unless its start says no."""
    with integrating.client() as client:
        session_id = create(client, command, env={"SHELL": "/bin/bash"})
        client.call("session.start", id=session_id, **asked)
        assert is_integrated(client, session_id) == integrated


def test_off(daemon: DaemonProcess) -> None:
    """Without a setting no shell has it, but one whose start asks for it."""
    for asked, integrated in (({}, False), ({"shell_integration": "auto"}, True)):
        with daemon.client() as client:
            session_id = create(client, "bash")
            client.call("session.start", id=session_id, **asked)
            assert is_integrated(client, session_id) == integrated


def test_after_a_reboot(integrating: DaemonProcess) -> None:
    """A shell that comes back after a reboot has the integration again."""
    with integrating.client() as client:
        session_id = create(client, "bash")
        client.call("session.start", id=session_id)
    integrating.kill()
    integrating.end_keeper()
    with restarted(integrating) as client:
        assert is_integrated(client, session_id)
