"""A program that asks its terminal all the time, and whatever clients and processes do meanwhile."""

from __future__ import annotations

import base64
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live.asker import FIRST
from live.screens_processes import process_of, screens_processes
from live.sessions import Terminal, kill, restarted, start
from live_support import Viewer, encoded
from needs import needs
from support import DaemonProcess, RawClient

ASKER = f"{sys.executable} {Path(__file__).with_name('asker.py')}"
ROUNDS = 8


def asking(daemon: DaemonProcess, log: Path) -> str:
    """Return the id of a session whose program asks, and has been answered."""
    with daemon.client() as client:
        session_id = start(client, f"{ASKER} {log}")
    wait_for_answers(daemon, session_id)
    return session_id


def wait_for_answers(daemon: DaemonProcess, session_id: str) -> None:
    """Wait until the program has been answered again."""
    with daemon.client() as client:
        viewer = Viewer(client, session_id, read_only=True)
        del viewer.output[:]  # the repaint
        viewer.read_until("answered")


def ended(daemon: DaemonProcess, session_id: str, log: Path) -> tuple[int, list[int], bytes]:
    """Have it end; return how many questions it has asked, whose answers it got, and what else came as input."""
    with daemon.client() as client:
        client.call("session.send", id=session_id, data=encoded("q"))
        viewer = Viewer(client, session_id)
        while (found := re.search(r"asked (\d+)", viewer.text())) is None:
            viewer.step()
    data = log.read_bytes()
    answers = [int(number) - FIRST for number in re.findall(rb"\x1b\[\?(\d+);0\$y", data)]
    return int(found[1]), answers, re.sub(rb"\x1b\[\?\d+;0\$y", b"", data)


def attach_and_leave(daemon: DaemonProcess, session_id: str, dice: random.Random) -> bytes:
    """Attach, look for a moment, and leave or break off."""
    with daemon.client() as client:
        terminal = Terminal(client, session_id)
        for _ in range(dice.randrange(1, 30)):
            terminal.step()
        if dice.random() < 0.5:
            client.call("session.leave", attachment_id=terminal.id)
    return b""


def two_at_once(daemon: DaemonProcess, session_id: str, dice: random.Random) -> bytes:
    """Be two clients whose terminals answer all that they see; one types."""
    with daemon.client() as one, daemon.client() as two:
        terminals = [Terminal(one, session_id), Terminal(two, session_id)]
        for _ in range(dice.randrange(1, 20)):
            for terminal in terminals:
                terminal.step()
        terminals[0].type("k")
        terminals[0].client.call("daemon.ping")
        return b"k"


def only_read(daemon: DaemonProcess, session_id: str, dice: random.Random) -> bytes:
    """Look without the right to type."""
    with daemon.client() as client:
        viewer = Viewer(client, session_id, read_only=True)
        for _ in range(dice.randrange(1, 30)):
            viewer.step()
    return b""


def resize(daemon: DaemonProcess, session_id: str, dice: random.Random) -> bytes:
    """Resize a window again and again."""
    with daemon.client() as client:
        terminal = Terminal(client, session_id)
        for _ in range(5):
            size: dict[str, Any] = {"cols": dice.randrange(20, 200), "rows": dice.randrange(5, 60)}
            client.notify("session.resize", attachment_id=terminal.id, **size)
            for _ in range(dice.randrange(5)):
                terminal.step()
    return b""


def do_not_read(daemon: DaemonProcess, session_id: str, dice: random.Random) -> bytes:
    """Attach several times over, and read nothing."""
    with daemon.client() as client:
        for _ in range(3):
            client.notify("session.attach", id=session_id, cols=80, rows=24)
        with daemon.client() as other:
            terminal = Terminal(other, session_id)
            for _ in range(dice.randrange(1, 30)):
                terminal.step()
    return b""


def kill_the_screens_process(daemon: DaemonProcess, session_id: str, dice: random.Random) -> bytes:
    """Kill the process that answers."""
    if found := screens_processes(daemon):
        kill(dice.choice(found))
    attach_and_leave(daemon, session_id, dice)
    return b""


CLIENTS: list[Callable[[DaemonProcess, str, random.Random], bytes]] = [
    attach_and_leave, two_at_once, only_read, resize, do_not_read,
    pytest.param(kill_the_screens_process, marks=needs(linux=True)),  # type: ignore[list-item]
]  # fmt: skip


@pytest.mark.parametrize("act", CLIENTS)
def test_each_question_is_answered_once(
    daemon: DaemonProcess, home: Path, act: Callable[[DaemonProcess, str, random.Random], bytes]
) -> None:
    """Every question has one answer, in order, and nothing of what clients' own terminals answer is typed."""
    dice, log = random.Random(act.__name__), home / "log"
    session_id = asking(daemon, log)
    typed = b"".join(act(daemon, session_id, dice) for _ in range(ROUNDS))
    asked, answers, rest = ended(daemon, session_id, log)
    assert answers == list(range(asked))
    assert rest == typed + b"q\x1b[0n"


@pytest.mark.slow
def test_a_killed_daemon_answers_no_question_twice(daemon: DaemonProcess, home: Path) -> None:
    """After kills at random moments each question has one answer at most, and the next daemon goes on answering."""
    dice, log = random.Random(3), home / "log"
    session_id = asking(daemon, log)
    for _ in range(ROUNDS):
        attach_and_leave(daemon, session_id, dice)
        restarted(daemon).close()
        wait_for_answers(daemon, session_id)
    asked, answers, rest = ended(daemon, session_id, log)
    assert answers == sorted(set(answers))
    assert len(answers) > asked // 2
    assert rest == b"q\x1b[0n"


# Colours

ASK = """
import os, tty
tty.setraw(0)
os.write(1, b"ready")
while True:
    if b"?" in os.read(0, 99):
        os.write(1, b"\\x1b]11;?\\x07")
        answer = b""
        while not answer.endswith(b"\\x07"):
            answer += os.read(0, 99)
        os.write(1, b"<" + answer[5:-1] + b">")
"""
"""A program that asks for the background at each "?", and prints the answer."""


def background(viewer: Viewer) -> str:
    """Have `ASK` ask for the background; return the answer."""
    del viewer.output[:]
    viewer.client.call("session.send", id=viewer.session["id"], data=encoded("?"))
    viewer.read_until(">")
    return re.findall(rb"<rgb:(.*)>", bytes(viewer.output))[-1].decode()


@needs(linux=True)
def test_colours_are_the_size_owners(daemon: DaemonProcess, client: RawClient, home: Path) -> None:
    """The last owner's stay when it has left, and when the process that draws is another one; a repaint has none."""
    program = home / "ask.py"
    program.write_text(ASK)
    session_id = start(client, f"{sys.executable} {program}")
    viewer = Viewer(client, session_id, read_only=True)
    viewer.read_until("ready")
    assert background(viewer) == "0000/0000/0000"
    with daemon.client() as one, daemon.client() as two:
        dark = Viewer(one, session_id, terminal={"foreground": "#ffffff", "background": "#102030"})
        assert background(viewer) == "1010/2020/3030"
        light = Viewer(two, session_id, terminal={"background": "#fffffe"})
        assert background(viewer) == "ffff/ffff/fefe"
        dark.type("x")
        one.call("daemon.ping")
        assert background(viewer) == "1010/2020/3030"
        two.call("session.leave", attachment_id=light.id)
    assert background(viewer) == "1010/2020/3030"
    kill(process_of(daemon, session_id))
    assert background(viewer) == "1010/2020/3030"
    screen = client.call("session.screen", id=session_id, format="vt")
    assert b"\x1b]11;rgb" not in base64.b64decode(screen["data"])


ASK_POSITION = """
import os, select, sys, tty
tty.setraw(0); os.write(1, b"\\x1b[1;5H\\x1b[6n"); got = b""
while b"R" not in got: got += os.read(0, 100)
os.write(1, b"answered")
while not got.endswith(b"q"): got += os.read(0, 100)
open(sys.argv[1], "wb").write(got)
os.write(1, b"finished"); os.read(0, 1)
"""


def test_where_the_cursor_is_has_one_answer(shared_daemon: DaemonProcess, shared_client: RawClient, home: Path) -> None:
    """In the first row a terminal's answer looks like a key; it is dropped, though it comes before the emulator's."""
    program, log = home / "ask_position.py", home / "position"
    program.write_text(ASK_POSITION)
    session_id = start(shared_client, f"sh -c 'read x; exec {sys.executable} {program} {log}'")
    with shared_daemon.client() as client:
        terminal = Terminal(client, session_id)
        terminal.type("\r")
        terminal.read_until("\x1b[6n")
        terminal.type("\x1b[1;5R")
        terminal.read_until("answered")
        terminal.type("q")
        terminal.read_until("finished")
    assert log.read_bytes().count(b"\x1b[1;5R") == 1
