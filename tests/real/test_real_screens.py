"""Screens of real programs, saved through the socket and the command line, and read back byte for byte."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from ctl_support import InProcess
from live_support import encoded
from real.capture import COLS, PROGRAMS, ROWS, furnish, record
from support import DaemonProcess, RawClient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with something in it to list, log and edit."""
    furnish(tmp_path / "work")
    return tmp_path / "work"


def split(drawn: bytes) -> tuple[bytes, bytes]:
    """Return what a terminal app would save: what came before the last lines, and those."""
    lines = drawn.splitlines(keepends=True)
    return b"".join(lines[:-ROWS]), b"".join(lines[-ROWS:])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_screen_survives_the_socket(daemon: DaemonProcess, folder: Path, name: str) -> None:
    """What a program drew is the same after a save and a restart, screen and scrollback."""
    scrollback, screen = split(record(PROGRAMS[name], folder))
    with daemon.client() as client:
        session = client.call("session.create", config={"session_type": "local"})["id"]
        info = client.call(
            "snapshot.save",
            session_id=session,
            terminal_buffer=encoded(screen),
            scrollback=encoded(scrollback),
            cols=COLS,
            rows=ROWS,
        )
    assert (info["buffer_bytes"], info["scrollback_bytes"]) == (len(screen), len(scrollback))
    daemon.restart()
    with daemon.client() as client:
        latest = client.call("snapshot.latest", session_id=session)
    assert (latest["cols"], latest["rows"]) == (COLS, ROWS)
    assert base64.b64decode(latest["terminal_buffer"]) == screen
    assert base64.b64decode(latest["scrollback"]) == scrollback


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_screen_survives_the_command_line(shared_daemon: DaemonProcess, home: Path, folder: Path, name: str) -> None:
    """What goes into `snapshot save` comes out of `snapshot show`."""
    scrollback, screen = split(record(PROGRAMS[name], folder))
    ctl = InProcess(home, shared_daemon.environment)
    (home / "above").write_bytes(scrollback)
    ctl.ok("session", "create", "--name", "web")
    ctl.ok("snapshot", "save", "web", "-", "--scrollback", "above", stdin=screen)
    assert ctl.ok("snapshot", "show", "--latest", "web").out == screen
    assert ctl.ok("snapshot", "show", "--latest", "web", "--scrollback").out == scrollback


@pytest.mark.slow
def test_every_moment_of_a_screen_stays_readable(shared_client: RawClient, folder: Path) -> None:
    """Saved again and again while it grows, each state of ten thousand lines comes back as it was."""
    drawn = record(PROGRAMS["ten thousand lines"], folder)
    moments = [drawn[: len(drawn) * part // 12] for part in range(1, 13)]
    session = shared_client.call("session.create", config={"session_type": "local"})["id"]
    saved = []
    for moment in moments:
        scrollback, screen = split(moment)
        params = {"terminal_buffer": encoded(screen), "scrollback": encoded(scrollback)}
        saved.append(shared_client.call("snapshot.save", session_id=session, **params)["id"])
    for snapshot, moment in zip(saved, moments, strict=True):
        found = shared_client.call("snapshot.get", id=snapshot)
        assert base64.b64decode(found["scrollback"]) + base64.b64decode(found["terminal_buffer"]) == moment
    assert shared_client.call("maintenance.check")["ok"]
