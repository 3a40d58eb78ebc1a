"""What was typed before the detach key: it reaches the program, or is counted; and pastes that hold the key."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import threading
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from attach_support import DETACH, LateReader, Window
from ctl_support import Orbitctl
from orbit_protocol.errors import NotRunning
from orbit_protocol.results import Attached
from orbit_protocol.types import Session, SessionConfig
from orbitctl.app import App
from orbitctl.attach import attachment
from orbitctl.attach.attachment import Attachment, AttachOptions, AttachResult
from orbitctl.attach.connection import DaemonConnection
from orbitctl.attach.detach_key import DetachKey
from orbitctl.attach.output_filter import OutputFilter
from orbitctl.attach.questions import TerminalQuestions
from orbitctl.attach.reconnect import Reconnect
from orbitctl.attach.terminal import Terminal
from orbitctl.client.transport import SocketStream


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


class ScriptedTerminal:
    """A terminal in which keys have been typed, and that is closed behind them; None for one that stays open."""

    size = (80, 24)
    pending = 0

    def __init__(self, typed: bytes | None) -> None:
        self.input_fd, self._keyboard = os.pipe()
        self.wake_fd, self.output_fd = os.pipe()
        if typed is not None:
            os.write(self._keyboard, typed)
            os.close(self._keyboard)
            self._keyboard = -1
        self.shown = b""
        self.questions = TerminalQuestions()
        self.is_in_foreground = False
        self.output_filter = OutputFilter()

    def ask(self) -> None:
        """It is one that is asked nothing."""

    def read(self) -> bytes:
        return os.read(self.input_fd, 4096)

    def write(self, data: bytes) -> None:
        self.shown += data

    def show(self, data: bytes) -> bytes:
        self.shown += data
        return data

    def enter(self) -> None:
        """It is entered."""

    def flush(self) -> None:
        """It takes nothing."""

    def close(self) -> None:
        for descriptor in (self.input_fd, self.wake_fd, self.output_fd, self._keyboard):
            if descriptor >= 0:
                os.close(descriptor)


def scripted_session() -> Session:
    config = SessionConfig(session_type="local")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Session(
        id="s",
        name="web",
        session_type="local",
        created_at=moment,
        last_active=moment,
        status="active",
        config=config,
        workspace_id=None,
    )


def scripted_attachment(terminal: ScriptedTerminal, stream: socket.socket) -> Attachment:
    session = scripted_session()
    options = AttachOptions(session=session, read_only=False, detach_key=DetachKey("C-\\"), scrollback_lines=0, env=[])
    return Attachment(options, cast(Terminal, terminal), DaemonConnection(SocketStream(stream)), Reconnect(App({})))


def attached(request_id: int, attachment_id: str, repaint: bytes = b"") -> dict[str, Any]:
    answer = Attached(attachment_id=attachment_id, session=scripted_session(), repaint=repaint, history_line=100)
    return {"id": request_id, "result": answer}


def send(stream: socket.socket, *messages: dict[str, Any]) -> None:
    stream.sendall(b"".join(msgspec.json.encode(each) + b"\n" for each in messages))


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


# While a new attachment is needed, since the window's size has changed


def notice(method: str, attachment_id: str, **params: Any) -> dict[str, Any]:
    """Return a notification; `data` is bytes."""
    if "data" in params:
        params["data"] = base64.b64encode(params["data"]).decode()
    return {"method": f"session.{method}", "params": {"attachment_id": attachment_id, **params}}


class ResizedTerminal(ScriptedTerminal):
    """A terminal that has another size as soon as a client has attached."""

    def __init__(self) -> None:
        super().__init__(None)
        self._sizes = iter([(80, 24)])

    @property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        return next(self._sizes, (70, 24))


def attach_late(*messages: dict[str, Any]) -> tuple[AttachResult, ScriptedTerminal]:
    """Run an attachment in it, to which these come behind the picture."""
    terminal = ResizedTerminal()
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.closing(terminal):
        send(theirs, attached(1, "a", b"late"), *messages)
        return scripted_attachment(terminal, ours).run(), terminal


def test_a_program_that_ends_meanwhile_has_its_last_screen_shown() -> None:
    """What it printed last has not been shown: the caller does that, as where it ended without a daemon."""
    with pytest.raises(NotRunning):
        attach_late(notice("output", "a", data=b"last words"), notice("exited", "a", exit_code=0, history_line=104))


def test_a_client_that_is_detached_meanwhile_stays_detached() -> None:
    """It does not attach itself again."""
    result, terminal = attach_late(notice("detached", "a", reason="requested", history_line=104))
    assert result == AttachResult(reason="detached_elsewhere")
    assert b"late" not in terminal.shown


def test_a_new_attachment_has_the_windows_size() -> None:
    """It asks for all that the first one did; output for that is not shown any more."""
    terminal = ResizedTerminal()
    ours, theirs = socket.socketpair()
    asked: list[Any] = []

    def serve() -> None:
        send(theirs, attached(1, "a", b"late"), notice("output", "a", data=b"too early"))
        with theirs.makefile("rb") as lines:
            for line in lines:
                asked.append(msgspec.json.decode(line))
                if asked[-1].get("id") == 2:
                    break
        send(
            theirs,
            notice("output", "a", data=b"too late"),
            attached(2, "b", b"in its size"),
            notice("output", "b", data=b"and on"),
            notice("exited", "b", exit_code=3, history_line=105),
        )

    with ours, theirs, contextlib.closing(terminal):
        daemon = threading.Thread(target=serve)
        daemon.start()
        result = scripted_attachment(terminal, ours).run()
        daemon.join()
    assert result == AttachResult(reason="exited", exit_code=3)
    assert [each["method"] for each in asked] == ["session.attach", "session.leave", "session.attach"]
    sizes = [(each["params"]["cols"], each["params"]["scrollback_lines"]) for each in (asked[0], asked[-1])]
    assert sizes == [(80, 0), (70, 0)]
    assert terminal.shown.endswith(b"in its sizeand on")
    assert not re.search(rb"late|too early", terminal.shown)
