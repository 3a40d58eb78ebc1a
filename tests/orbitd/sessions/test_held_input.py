"""Input of which the end is held, as it may be the beginning of a terminal's answer: no error for what is typed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from connection_support import Served, request, turns
from orbit_protocol import terminal_input
from orbit_protocol.errors import NotRunning
from orbit_protocol.methods import CANCEL_REQUEST, SESSION_INPUT, SESSION_WAIT
from orbit_protocol.params import CancelRequest, SessionInput, SessionWait
from orbit_protocol.results import Empty, Exit
from orbitd.rpc.connection import MAX_WAITING, Call
from orbitd.rpc.dispatch import Dispatcher, Handlers
from orbitd.sessions import attachment
from orbitd.sessions.attachment import AttachedTo, Attachment
from orbitd.sessions.program_input import InputQueue


@pytest.fixture(autouse=True)
def no_moment_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is held stay so, however slow the machine is."""
    monkeypatch.setattr(terminal_input, "ESCAPE_SECS", 3600)
    monkeypatch.setattr(terminal_input, "ANSWER_SECS", 3600)


class Session:
    """A session whose program reads at once, or has ended."""

    position_asked_at = 0.0

    def __init__(self) -> None:
        self.typed = b""
        self.unwritten = InputQueue()
        self.has_ended = False

    def note_typing(self, _: Attachment) -> None:
        """The size is of no concern here."""

    def remove_attachment(self, _: Attachment) -> None:
        """Nothing is kept of it."""

    def write_input(self, data: bytes) -> None:
        if self.has_ended:
            raise NotRunning("The program has ended")
        self.typed += data


class Daemon:
    """Serves one client that is attached to one session."""

    def __init__(self) -> None:
        self.session = Session()
        handlers: Handlers[Call] = Handlers()
        handlers.add(SESSION_INPUT, self._input)
        handlers.add(SESSION_WAIT, self._wait)
        handlers.add(CANCEL_REQUEST, self._cancel)
        methods = (SESSION_INPUT, SESSION_WAIT, CANCEL_REQUEST)
        self.client = Served(Dispatcher(handlers, {each.name: each for each in methods}))
        session = cast(AttachedTo, self.session)
        Attachment("a", self.client.connection, read_only=False, size=(80, 24), session=session)

    def type(self, data: bytes, request_id: Any) -> None:
        self.client.send(request("session.input", request_id, attachment_id="a", data=base64.b64encode(data).decode()))

    def _input(self, call: Call, q: SessionInput) -> Empty | Coroutine[Any, Any, Empty]:
        return attachment.write_input(call, q)

    async def _wait(self, _: Call, __: SessionWait) -> Exit:
        return await asyncio.get_running_loop().create_future()

    def _cancel(self, call: Call, q: CancelRequest) -> Empty:
        call.connection.cancel_waits(q.id)
        return Empty()


async def test_held_input_that_may_not_wait_is_typed_at_once() -> None:
    """Beside as many waits as may be, Escape is typed and answered with success."""
    daemon = Daemon()
    daemon.client.send(*(request("session.wait", number, id="s") for number in range(MAX_WAITING)))
    await turns(3 * MAX_WAITING)
    daemon.type(b"\x1b", "x")
    assert (daemon.client.results, daemon.session.typed) == ({"x": {}}, b"\x1b")
    daemon.client.connection.connection_lost(None)
    await turns(3 * MAX_WAITING)


@pytest.mark.parametrize("cancelled", [1, 2])
async def test_a_cancel_of_held_input_has_it_typed(cancelled: int) -> None:
    """It may be of several calls, so it is not taken back: all are answered with success, and it is typed once."""
    daemon = Daemon()
    daemon.type(b"\x1b[", 1)
    await turns()
    daemon.type(b"1", 2)
    await turns()
    assert (daemon.client.results, daemon.session.typed) == ({}, b"")
    daemon.client.send(request("$/cancelRequest", id=cancelled))
    await turns()
    assert (daemon.client.results, daemon.session.typed) == ({1: {}, 2: {}}, b"\x1b[1")
    assert daemon.client.tasks == set()


async def test_a_cancel_of_held_input_says_that_nobody_reads_it() -> None:
    """Where the program has ended meanwhile, the call has that error."""
    daemon = Daemon()
    daemon.type(b"\x1b[1", 1)
    await turns()
    daemon.session.has_ended = True
    daemon.client.send(request("$/cancelRequest", id=1))
    await turns()
    assert daemon.client.results == {1: NotRunning.code}
