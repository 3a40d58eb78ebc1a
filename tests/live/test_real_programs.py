"""Real programs on real terminals: what comes back is what was there, cell by cell."""

from __future__ import annotations

import base64
import os
import signal
from pathlib import Path

import pytest

from live.programs import NEEDED, PROGRAMS, Program, prepare, recorded
from live.sessions import Terminal, create, drawn, recorded_screen, restarted, saved_screen
from needs import require
from orbitd.screens.model import Screen
from support import DaemonProcess, RawClient
from terminal_support import shown

pytestmark = pytest.mark.slow


def differences(found: Screen, wanted: Screen) -> str:
    """Return what is not the same, to be read by a person."""
    told = [name for name in found.__struct_fields__ if getattr(found, name) != getattr(wanted, name)]
    lines = [f"{name}: {getattr(found, name)!r} is not {getattr(wanted, name)!r}" for name in told if name != "lines"]
    pairs = enumerate(zip(found.lines, wanted.lines, strict=False))
    lines += [f"line {number}: {one!r} is not {other!r}" for number, (one, other) in pairs if one != other]
    return "\n".join(lines)


class Session:
    """A program in a session, with a record of everything that it wrote."""

    def __init__(self, client: RawClient, name: str, program: Program, place: Path) -> None:
        self.name = name
        self.log = place / f"{name.replace(' ', '-')}.log"
        command = recorded(program.command, self.log)
        self.id = create(client, command, cwd=str(place), env=program.env)
        self.pid = int(client.call("session.start", id=self.id)["pid"])

    def play(self, daemon: DaemonProcess, program: Program) -> None:
        """Type what is to be typed, from a terminal of its own."""
        with daemon.client() as client:
            terminal = Terminal(client, self.id)
            for wanted, keys in program.steps:
                terminal.follow_until(wanted)
                terminal.type(keys)

    def freeze(self) -> None:
        """Let the program, which may draw whenever it likes, draw no more."""
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGSTOP)

    def difference(self, daemon: DaemonProcess) -> str:
        """Attach with a fresh terminal; say what is not as on one that has seen everything, "" if all is."""
        with daemon.client() as client:
            terminal = Terminal(client, self.id)
            try:
                while (found := shown(terminal.emulator.dump())) != (wanted := recorded_screen(self.log)):
                    terminal.step()
            except TimeoutError:
                return f"{self.name}:\n{differences(found, wanted)}"
        return ""


@pytest.fixture
def played(home: Path, daemon: DaemonProcess) -> list[Session]:
    """Every program, at the place where its steps have led to."""
    require(*NEEDED)
    prepare(home)
    with daemon.client() as client:
        sessions = [Session(client, name, program, home) for name, program in PROGRAMS.items()]
    for session in sessions:
        session.play(daemon, PROGRAMS[session.name])
        session.freeze()
    return sessions


def test_screens_come_back_cell_by_cell(played: list[Session], daemon: DaemonProcess) -> None:
    """A fresh attach, one after kill -9 of orbitd, and the saved screens after a reboot equal an unbroken terminal."""
    assert [found for session in played if (found := session.difference(daemon))] == []
    restarted(daemon).close()
    assert [found for session in played if (found := session.difference(daemon))] == []
    daemon.kill()
    daemon.end_keeper()
    with daemon.start().client() as client:
        for session in played:
            wanted = recorded_screen(session.log)
            assert not client.call("session.get", id=session.id)["live"]
            found = saved_screen(client, session.id)
            assert found == wanted, f"{session.name}:\n{differences(found, wanted)}"
            portable = base64.b64decode(client.call("snapshot.latest", session_id=session.id)["terminal_buffer"])
            assert drawn(portable) == wanted, f"{session.name}:\n{differences(drawn(portable), wanted)}"
