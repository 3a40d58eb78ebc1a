"""An attachment before the answer to its attach: what is kept, what becomes of it where the attach fails."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import msgspec
import pytest

from orbitd.rpc.connection import MAX_UNSENT_BYTES, Call, Connection
from orbitd.sessions.attachment import Attachment, Repaint


class FakeConnection:
    """Records what is sent; nothing is ever congested."""

    is_congested = False

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.on_close: list[object] = []
        self.on_drained: list[object] = []

    def send(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    @property
    def story(self) -> list[str]:
        return [message["method"] for message in self.sent]


class Fixture(msgspec.Struct):
    """A new attachment and everything around it."""

    connection: FakeConnection
    call: Call
    attachment: Attachment
    ended: list[Attachment]


@pytest.fixture
def attaching() -> Fixture:
    """An attach whose repaint has been made, and whose answer has not been written."""
    connection, ended = FakeConnection(), list[Attachment]()
    attachment = Attachment(
        "one/1",
        cast(Connection, connection),
        read_only=False,
        size=(80, 24),
        repaint=lambda: Repaint(data=b"the screen", cols=80, rows=24),
        on_end=ended.append,
    )
    attachment.start_queueing()
    call = Call(cast(Connection, connection))
    call.after_answer(attachment.start_streaming, attachment.end)
    return Fixture(connection, call, attachment, ended)


def test_output_follows_the_answer(attaching: Fixture) -> None:
    """What the program writes before the answer is sent after it, in order."""
    attaching.attachment.send_output(b"a")
    attaching.attachment.send_output(b"b")
    attaching.call.settle(succeeded=True)
    assert attaching.connection.sent == []
    attaching.call.run_callbacks()
    assert [base64.b64decode(each["params"]["data"]) for each in attaching.connection.sent] == [b"a", b"b"]
    assert attaching.ended == []


def test_an_attach_that_fails_after_all_leaves_no_attachment(attaching: Fixture) -> None:
    """Where the answer is an error, the attachment has ended, its connection forgets it, and nothing is kept for it."""
    attaching.attachment.send_output(b"a")
    attaching.call.settle(succeeded=False)
    attaching.attachment.send_output(b"b")
    attaching.call.run_callbacks()
    assert attaching.ended == [attaching.attachment]
    assert attaching.connection.sent == []
    assert attaching.connection.on_close == attaching.connection.on_drained == []


def test_requests_of_a_batch_fail_alone(attaching: Fixture) -> None:
    """An item that fails after the attach of the same batch does not end the attachment."""
    attaching.call.settle(succeeded=True)
    attaching.call.settle(succeeded=False)
    attaching.attachment.send_output(b"a")
    attaching.call.run_callbacks()
    assert attaching.connection.story == ["session.output"]
    assert attaching.ended == []


def flood(attachment: Attachment) -> None:
    """Write more than what may wait for an answer, eight times."""
    for _ in range(8):
        attachment.send_output(bytes(MAX_UNSENT_BYTES))


def test_an_answer_that_waits_keeps_a_bounded_queue(attaching: Fixture) -> None:
    """Behind a wait in the same batch a flood is dropped; one repaint of the screen follows the answer."""
    flood(attaching.attachment)
    attaching.call.settle(succeeded=True)
    attaching.call.run_callbacks()
    attaching.attachment.send_output(b"later")
    assert attaching.connection.story == ["session.repaint", "session.output"]
    assert base64.b64decode(attaching.connection.sent[0]["params"]["data"]) == b"the screen"


@pytest.mark.parametrize("end", ["exited", "detached"])
def test_the_end_is_sent_after_a_flood(attaching: Fixture, end: str) -> None:
    """A program that ends, or a detach, before the answer is heard of all the same; an exit with the last screen."""
    flood(attaching.attachment)
    if end == "exited":
        attaching.attachment.send_exited(0, None)
    else:
        attaching.attachment.detach()
    attaching.call.settle(succeeded=True)
    attaching.call.run_callbacks()
    assert attaching.connection.story == [*(["session.repaint"] if end == "exited" else []), f"session.{end}"]
