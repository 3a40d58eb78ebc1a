"""An attached client between a scripted terminal and a scripted daemon, for what is about the order of events."""

from __future__ import annotations

import base64
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from orbit_protocol.results import Attached
from orbit_protocol.types import Session, SessionConfig
from orbitctl.app import App
from orbitctl.attach.attachment import Attachment, AttachOptions, AttachResult
from orbitctl.attach.connection import DaemonConnection
from orbitctl.attach.detach_key import DetachKey
from orbitctl.attach.mark import Mark, Shown
from orbitctl.attach.output_filter import OutputFilter
from orbitctl.attach.questions import TerminalQuestions
from orbitctl.attach.reconnect import Reconnect
from orbitctl.attach.terminal import Terminal
from orbitctl.client.transport import SocketStream
from support import WAIT_SECS


class ScriptedTerminal:
    """A terminal that answers nothing.

    Args:
        typed: What has been typed; the terminal is closed behind it. None for one that stays open.
    """

    def __init__(self, typed: bytes | None = None) -> None:
        self.size = (80, 24)
        self.pending = 0
        self.input_fd, self._keyboard = os.pipe()
        self.wake_fd, self._wake = os.pipe()
        self.output_fd = os.open(os.devnull, os.O_WRONLY)
        if typed is not None:
            os.write(self._keyboard, typed)
            os.close(self._keyboard)
            self._keyboard = -1
        self.shown = b""
        self.questions = TerminalQuestions()
        self.is_in_foreground = False
        self.output_filter = OutputFilter()
        self.rows_below: int | None = None
        self._has_seen = threading.Semaphore(0)
        self._changed = threading.Condition()

    def type(self, data: bytes) -> None:
        """Press keys."""
        os.write(self._keyboard, data)

    def resize(self, cols: int, rows: int) -> None:
        """Change the size; return when the client has seen that."""
        self.size = cols, rows
        os.write(self._wake, b"\0")
        assert self._has_seen.acquire(timeout=WAIT_SECS)

    def signals(self) -> set[int]:
        """Return the signals that have come."""
        os.read(self.wake_fd, 64)
        self._has_seen.release()
        return {signal.SIGWINCH}

    def ask(self) -> None:
        """It is one that is asked nothing."""

    def read(self) -> bytes:
        return os.read(self.input_fd, 4096)

    def write(self, data: bytes) -> None:
        self.shown += data

    def show(self, data: bytes) -> bytes:
        with self._changed:
            self.shown += data
            self._changed.notify()
        return data

    def shown_until(self, end: bytes) -> None:
        """Wait until what is shown ends so."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.shown.endswith(end), WAIT_SECS)

    def enter(self) -> None:
        """It is entered."""

    def flush(self) -> None:
        """It takes nothing."""

    def close(self) -> None:
        for descriptor in (self.input_fd, self.wake_fd, self._wake, self.output_fd, self._keyboard):
            if descriptor >= 0:
                os.close(descriptor)


def scripted_session() -> Session:
    """Return a session called web."""
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


def scripted_attachment(
    terminal: ScriptedTerminal,
    stream: socket.socket | DaemonConnection | None,
    session_id: str = "s",
    shown: Shown | None = None,
    mark: Mark | None = None,
) -> Attachment:
    """Return an attachment to that session, without any of its history."""
    options = AttachOptions(
        session_id=session_id,
        read_only=False,
        detach_key=DetachKey("C-\\"),
        scrollback_lines=0,
        env=[],
        shown=shown,
        mark=mark,
    )
    connection = DaemonConnection(SocketStream(stream)) if isinstance(stream, socket.socket) else stream
    return Attachment(options, cast(Terminal, terminal), connection, Reconnect(App({})))


def attached(request_id: int, attachment_id: str, repaint: bytes = b"") -> dict[str, Any]:
    """Return the answer to an attach."""
    answer = Attached(attachment_id=attachment_id, session=scripted_session(), repaint=repaint, history_line=100)
    return {"id": request_id, "result": answer}


def notice(method: str, attachment_id: str, **params: Any) -> dict[str, Any]:
    """Return a notification; `data` is bytes."""
    if "data" in params:
        params["data"] = base64.b64encode(params["data"]).decode()
    return {"method": f"session.{method}", "params": {"attachment_id": attachment_id, **params}}


def send(stream: socket.socket, *messages: dict[str, Any]) -> None:
    """Send messages."""
    stream.sendall(b"".join(msgspec.json.encode(each) + b"\n" for each in messages))


class ScriptedDaemon:
    """A client that runs, and the other end of its connection.

    Attributes:
        outcome: How its attachment has ended: a result, or what was raised.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._lines = stream.makefile("rb")
        self.outcome: AttachResult | BaseException | None = None

    def send(self, *messages: dict[str, Any]) -> None:
        """Send the client messages."""
        send(self._stream, *messages)

    def receive(self) -> tuple[str, dict[str, Any]]:
        """Return the method and the params of its next request or notification."""
        message = msgspec.json.decode(self._lines.readline())
        return message["method"], message["params"]

    def close(self) -> None:
        self._lines.close()


@contextmanager
def running(
    terminal: ScriptedTerminal, shown: Shown | None = None, mark: Mark | None = None
) -> Iterator[ScriptedDaemon]:
    """Run a client in this terminal, which shows the sessions that it is switched to; on leaving, it has ended."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(WAIT_SECS)
    with ours, theirs:
        daemon = ScriptedDaemon(theirs)

        def run() -> None:
            try:
                attachment = scripted_attachment(terminal, ours, shown=shown, mark=mark)
                while (result := attachment.run()).reason == "switched":
                    attachment = scripted_attachment(terminal, attachment.connection, result.session_id, shown)
                daemon.outcome = result
            except BaseException as error:  # noqa: BLE001 - it is the outcome
                daemon.outcome = error

        client = threading.Thread(target=run)
        client.start()
        try:
            yield daemon
        finally:
            daemon.close()
            theirs.close()  # what the client has not read yet, it still will
            client.join(WAIT_SECS)
            terminal.close()
