"""What was typed before the detach key: it reaches the program, or is counted; and pastes that hold the key."""

from __future__ import annotations

import base64
import re
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from attach_support import DETACH, LateReader, Window
from ctl_support import Orbitctl
from orbitctl.attach import attachment
from orbitctl.attach.attachment import AttachResult
from orbitctl.attach.mark import Mark
from scripted_attach import ScriptedTerminal, attached, running, scripted_attachment, send


def left(window: Window) -> int:
    """Wait until the client has left; return how many bytes it says were not taken."""
    assert window.end() == 0
    said = re.search(
        rb"\[detached from web(?:; (\d+) bytes? typed w\w+ not taken by the program)?\]\r\n", window.output
    )
    assert said, window.output[-200:]
    return int(said[1] or 0)


@pytest.mark.parametrize("keys", [b"", b"k", b"x" * 100])
def test_what_is_typed_with_the_detach_key_arrives(ctl: Orbitctl, keys: bytes) -> None:
    """A line and the key in one read: the program gets the line before the client leaves; what follows is dropped."""
    program = LateReader(ctl)
    with Window(ctl, "session", "attach", "web") as window:
        window.screen_until("ready")
        for key in keys:
            window.type(bytes([key]))
        window.type(b"build\r" + DETACH + b"dropped")
        assert left(window) == 0
    program.let_read()
    assert program.end() == keys + b"build\r"


def test_what_a_program_does_not_take_is_counted(ctl: Orbitctl) -> None:
    """Of 100,000 bytes to a program that does not read, the rest of what it will find is said, to the byte."""
    program = LateReader(ctl)
    typed = b"".join(b"%07d\n" % number for number in range(12_500))
    with Window(ctl, "session", "attach", "web") as window:
        window.screen_until("ready")
        window.type(typed + DETACH)
        not_taken = left(window)
    program.let_read()
    arrived = program.end()
    assert 0 < not_taken < len(typed)
    assert arrived == typed[: len(typed) - not_taken]


def test_a_paste_may_hold_the_detach_key(ctl: Orbitctl) -> None:
    """Between the marks of a paste it is text, in one read or several; behind them it detaches."""
    program = LateReader(ctl)
    paste = b"\x1b[200~a\x1cb" + b"-" * 10_000 + b"\x1cc\x1b[201~"
    with Window(ctl, "session", "attach", "web") as window:
        window.screen_until("ready")
        window.type(paste + DETACH)
        assert left(window) == 0
    program.let_read()
    assert program.end() == paste


# With a scripted terminal and daemon: what comes when


def leave(typed: bytes, *answers: dict[str, Any], pending: int = 0) -> tuple[list[Any], AttachResult]:
    """Run an attachment in such a terminal, to a daemon whose answers are there; return what it sent, and its end."""
    terminal = ScriptedTerminal(typed)
    terminal.pending = pending
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, attached(1, "a"), *answers)
        result = scripted_attachment(terminal, ours).run()
        lines = theirs.recv(1 << 16).splitlines()
    terminal.close()
    return [msgspec.json.decode(line) for line in lines], result


def typed_in(sent: list[Any]) -> list[tuple[bytes, int | None]]:
    """Return the input among messages, each with the id of its request."""
    inputs = [each for each in sent if each["method"] == "session.input"]
    return [(base64.b64decode(each["params"]["data"]), each.get("id")) for each in inputs]


def test_keys_and_detach_key_that_come_before_the_session() -> None:
    """They are sent once the client is attached, and it leaves when they have been taken."""
    sent, result = leave(b"early\x1c", {"id": 2, "result": {}})
    assert typed_in(sent) == [(b"early", 2)]
    assert result == AttachResult(reason="detached")


def test_a_terminal_that_is_stopped_is_left_too() -> None:
    """What it should still show does not keep the answer from being read."""
    sent, result = leave(b"early\x1c", {"id": 2, "result": {}}, pending=attachment.MAX_PENDING_BYTES)
    assert typed_in(sent) == [(b"early", 2)]
    assert result == AttachResult(reason="detached")


def test_what_is_not_answered_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the client cancels its input, and leaves however the daemon answers that."""
    monkeypatch.setattr(attachment, "LEAVE_SECS", 2 * attachment.CANCEL_SECS)
    sent, result = leave(b"early\x1c")
    assert [each["params"] for each in sent if each["method"] == "$/cancelRequest"] == [{"id": 2}]
    assert result == AttachResult(reason="detached", not_taken=5)


def test_what_is_refused_is_counted() -> None:
    """The client waits no longer than for the answer."""
    refused = {"id": 2, "error": {"code": 1006, "message": "", "data": {"written": 2}}}
    sent, result = leave(b"early\x1c", refused)
    assert typed_in(sent) == [(b"early", 2)]
    assert result == AttachResult(reason="detached", not_taken=3)


def test_a_window_that_is_closed_sends_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before the hangup is sent, and waited for."""
    monkeypatch.setattr(attachment, "LEAVE_SECS", 2 * attachment.CANCEL_SECS)
    sent, result = leave(b"last words\r")
    assert [data for data, _ in typed_in(sent)] == [b"last words\r", b""]
    assert result.reason == "hangup"


@pytest.mark.parametrize("line", [107, None])
def test_how_much_of_the_history_a_window_has(tmp_path: Path, line: int | None) -> None:
    """The daemon says it; where no answer comes in time, what was printed for certain is not printed again."""
    mark = Mark(str(tmp_path), "window", "s")
    terminal = ScriptedTerminal()
    with running(terminal, mark=mark) as daemon:
        assert daemon.receive()[0] == "session.attach"
        daemon.send(attached(1, "a", b"first"))
        terminal.shown_until(b"first")
        terminal.type(DETACH)
        while daemon.receive()[0] != "session.leave":
            pass
        if line is not None:
            daemon.send({"id": 3, "result": {"history_line": line}})
    assert daemon.outcome == AttachResult(reason="detached")
    assert mark.load() == (line or 100)
