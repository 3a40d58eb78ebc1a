"""What the tests of live sessions share: sessions that run, and the screens that they should show."""

from __future__ import annotations

import base64
import os
import select
import signal
from pathlib import Path
from typing import Any

from live_support import Viewer
from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Screen
from support import WAIT_SECS, DaemonProcess, RawClient
from terminal_support import shown


def create(client: RawClient, command: str | None = None, **config: Any) -> str:
    """Return the id of a new session; a local one, unless its config says otherwise."""
    config = {"session_type": "local", "command": command, **config}
    return str(client.call("session.create", config=config)["id"])


def start(client: RawClient, command: str | None = None, **config: Any) -> str:
    """Return the id of a new session whose program runs."""
    session_id = create(client, command, **config)
    client.call("session.start", id=session_id)
    return session_id


def stat(pid: int) -> list[str]:
    """Return what proc(5) says in /proc/PID/stat, from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def keeper_of(program: int) -> int:
    """Return the keeper of a program: its parent."""
    return int(stat(program)[1])


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """End a process that need not be our child, and wait until it has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
        assert select.select([descriptor], [], [], WAIT_SECS)[0], f"{pid} does not end"
    finally:
        os.close(descriptor)


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor):
        assert select.select([descriptor], [], [], WAIT_SECS)[0], f"{pid} does not end"


class Terminal(Viewer):
    """A viewer that answers the program's questions, as a real terminal does."""

    def _draw(self, data: bytes) -> None:
        self.emulator.answering = True
        super()._draw(data)
        replies = self.emulator.replies()
        if replies:
            self.type(replies)

    def follow_until(self, wanted: str) -> None:
        """Follow until a text is on the screen."""
        while wanted not in self.text():
            try:
                self.step()
            except TimeoutError:
                raise AssertionError(f"{wanted!r} does not come to:\n{self.text()}") from None


def recorded_screen(log: Path, size: tuple[int, int] = (80, 24)) -> Screen:
    """Return what a terminal shows that has seen everything that was written down."""
    with Emulator(*size) as emulator:
        emulator.answering = False
        emulator.feed(log.read_bytes())
        return shown(emulator.dump())


def recorded_history(log: Path, size: tuple[int, int] = (80, 24)) -> str:
    """Return the text of history and screen of such a terminal."""
    with Emulator(*size) as emulator:
        emulator.feed(log.read_bytes())
        return emulator.screen("text", scrollback=True).decode()


def drawn(data: bytes, size: tuple[int, int] = (80, 24)) -> Screen:
    """Return what a cleared terminal shows after a repaint."""
    with Emulator(*size) as emulator:
        emulator.feed(data)
        return shown(emulator.dump())


def saved_screen(client: RawClient, session_id: str) -> Screen:
    """Return a session's screen, restored into a fresh terminal."""
    screen = client.call("session.screen", id=session_id, format="vt")
    return drawn(base64.b64decode(screen["data"]), (screen["cols"], screen["rows"]))


def restarted(daemon: DaemonProcess) -> RawClient:
    """Kill the daemon as hard as it goes, start it again and return a connection."""
    daemon.kill()
    return daemon.start().client()
