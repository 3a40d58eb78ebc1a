"""`orbitctl logs --follow`: each line once, whatever comes between."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from attach_support import Window
from ctl_support import Orbitctl, Peer, read_line
from live_support import Viewer
from support import WAIT_SECS, DaemonProcess

ID = "5e0c6f6e-0b57-4d35-a3a2-6ea5f5d0d6a1"
SESSION = {
    "id": ID,
    "name": "work",
    "session_type": "local",
    "created_at": "2026-01-31T12:00:00Z",
    "last_active": "2026-01-31T12:00:00Z",
    "status": "detached",
    "config": {"session_type": "local"},
    "workspace_id": None,
    "cols": 20,
    "rows": 4,
}


def test_lines_are_followed_until_the_program_ends(ctl: Orbitctl) -> None:
    """What is there comes first, then each line; the window that is attached keeps its size, and Ctrl-C ends it."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", "echo one; echo two; read x; echo $x; printf end; stty size > size")
    ctl.ok("session", "signal", "work", "WINCH")
    with Window(ctl, "logs", "-f", "work", "-n", "1", size=(40, 10)) as window:
        window.until("two\r\n")
        assert b"one" not in window.output
        with Window(ctl, "logs", "-f", "work", size=(40, 10)) as second:
            second.until("one\r\ntwo\r\n")
            second.type(b"\x03")
            assert second.end() == 130
        ctl.ok("session", "send", "work", "three", "--enter")
        assert window.end() == 0
        assert window.output == b"two\r\nthree\r\nthree\r\nend\r\n"
    assert (ctl.home / "size").read_text() == "24 80\n"
    assert ctl.ok("logs", "work", "-f").lines == ["one", "two", "three", "three", "end"]


def test_no_line_of_a_flood_is_lost_or_printed_twice(ctl: Orbitctl, shared_daemon: DaemonProcess) -> None:
    """Every line comes once, in order, while other windows attach and change the size of the session."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", "stty -echo; echo ready; read x; seq 1 9000; read x; seq 1 9")
    command = [*ctl.command, "logs", "-f", "work"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ctl.environment, cwd=ctl.home) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with shared_daemon.client() as client:
            session_id = client.call("session.find", ref="work")["id"]
            viewer = Viewer(client, session_id, (100, 30))
            viewer.type("\n")
            for columns in (60, 10, 120):
                client.notify("session.resize", attachment_id=viewer.id, cols=columns, rows=30)
            viewer.read_until("9000\r\n")
            viewer.type("\n")
        lines = process.stdout.read().split()
        assert process.wait(WAIT_SECS) == 0
    assert lines == [b"%d" % number for number in (*range(1, 9_001), *range(1, 10))]


def drawn(history: list[str], screen: list[str], cursor: int) -> str:
    """Return a picture as the daemon draws it, for a terminal of 4 rows."""
    above = "\r\n".join(history) + "\r\n" * 4 if history else ""
    rows = "".join(f"\x1b[{number};1H{line}" for number, line in enumerate(screen, 1))
    return base64.b64encode(f"\x1b[H{above}{rows}\x1b[{cursor};1H".encode()).decode()


def notice(method: str, **params: Any) -> dict[str, Any]:
    return {"method": f"session.{method}", "params": {"attachment_id": "a", **params}}


def output(text: str) -> dict[str, Any]:
    return notice("output", data=base64.b64encode(text.encode()).decode())


def attached(history: list[str], screen: list[str], cursor: int, line: int) -> dict[str, Any]:
    picture = drawn(history, screen, cursor)
    return {"result": {"attachment_id": "a", "session": SESSION, "repaint": picture, "history_line": line}}


BEHIND = notice("repaint", data="", cols=20, rows=4, reason="behind", lost_lines=2, cursor_row=0, history_line=9)
RESIZED = notice("repaint", data="", cols=10, rows=4, reason="resized", cursor_row=3, history_line=7)
ENDED = notice("exited", exit_code=0, exit_signal=None, history_line=9)


def refreshed(history: list[str], screen: list[str], cursor: int, line: int) -> dict[str, Any]:
    return {"result": {"repaint": drawn(history, screen, cursor), "history_line": line}}


@pytest.mark.parametrize(
    ("talk", "lines", "said"),
    [
        (
            [[attached(["a"], ["b", "c"], 3, 1), output("d\r\ne\r\n"), output("rest"), ENDED]],
            ["a", "b", "c", "d", "e", "rest"],
            "",
        ),
        (
            [[attached([], ["a", "b"], 3, 0), BEHIND], [refreshed(["a", "b", "c"], ["d", "e"], 3, 3), ENDED]],
            ["a", "b", "c", "d", "e"],
            "",
        ),
        (
            [[attached([], ["a"], 2, 0), BEHIND], [refreshed(["e", "f"], ["g"], 2, 6), output("h\r\n"), ENDED]],
            ["a", "e", "f", "g", "h"],
            "... 3 lines came too fast and are left out\n",
        ),
        (
            [
                [attached([], ["a", "b"], 3, 0), BEHIND, output("c\r\n")],
                [output("d\r\n"), refreshed([], ["a", "b", "c", "d"], 4, 0), output("\r\ne\r\n"), ENDED],
            ],
            ["a", "b", "c", "d", "e"],
            "",
        ),
        (
            [
                [attached([], ["a" * 20, "b", "b"], 4, 0), RESIZED],
                [refreshed(["a" * 10], ["a" * 10, "b", "b", "c"], 4, 1), output("c\r\nd\r\n"), ENDED],
            ],
            ["a" * 20, "b", "b", "c", "d"],
            "",
        ),
        ([[attached([], ["a"], 2, 0), notice("detached", reason="detached")]], ["a"], "was detached from elsewhere"),
    ],
    ids=["output", "behind", "behind the history", "output before the picture", "resized", "detached"],
)
def test_what_was_left_out_is_asked_for(
    offline: Orbitctl, home: Path, talk: list[list[dict[str, Any]]], lines: list[str], said: str
) -> None:
    """Where output was dropped, the history has the lines, and by their numbers none is printed twice."""
    asked: list[str] = []

    def answer(connection: socket.socket) -> None:
        while line := read_line(connection):
            request = json.loads(line)
            asked.append(request["method"])
            messages = [{"result": SESSION}] if request["method"] == "session.find" else talk.pop(0)
            for message in messages:
                identity = {} if "method" in message else {"id": request["id"]}
                connection.sendall(json.dumps({"jsonrpc": "2.0", **identity, **message}).encode() + b"\n")

    peer = Peer(home / "peer", answer)
    try:
        ended = offline("--socket", str(home / "peer"), "logs", "-f", "work")
    finally:
        peer.close()
    assert (ended.code, ended.lines) == (0, lines), ended
    assert re.search(re.escape(said), ended.err)
    assert asked[:2] == ["session.find", "session.attach"]
