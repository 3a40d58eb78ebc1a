"""What was typed, on its way to the daemon: what is sent when, what an answer or an error leaves, how it is counted."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, cast

import pytest

from orbit_protocol.errors import Busy, Cancelled, NotRunning, OrbitError, ShuttingDown
from orbitctl.attach.connection import (
    CANCEL_REQUEST,
    CHUNK_BYTES,
    MAX_NOTIFICATION_BYTES,
    MAX_UNCONFIRMED_BYTES,
    RETRY_SECONDS,
    SESSION_INPUT,
    AnswerError,
    DaemonConnection,
    InputQueue,
)

PASTE = bytes(range(256)) * 4


class Daemon:
    """A connection that records what is sent, and an input queue that sends on it.

    Attributes:
        typed: What was sent, in order: notifications as bytes, requests as (id, bytes).
        cancelled: The ids of requests that were cancelled.
    """

    def __init__(self) -> None:
        self.typed: list[Any] = []
        self.cancelled: list[Any] = []
        self._last_id = 0
        self.queue = InputQueue()
        self.connect()

    def connect(self) -> None:
        self.queue.start(cast(DaemonConnection, self), "a")

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        if method == CANCEL_REQUEST:
            self.cancelled.append(params["id"])
        else:
            self.typed.append(self._data(method, params))

    def request(self, method: str, params: Mapping[str, Any]) -> int:
        self._last_id += 1
        self.typed.append((self._last_id, self._data(method, params)))
        return self._last_id

    def _data(self, method: str, params: Mapping[str, Any]) -> bytes:
        assert (method, params["attachment_id"]) == (SESSION_INPUT, "a")
        return binascii.a2b_base64(params["data"])

    def answer(self, error: type[OrbitError] | None = None, now: float = 0.0, **data: int) -> None:
        """Answer the last request."""
        found = None if error is None else AnswerError(code=error.code, message="", data=dict(data))
        self.queue.handle_answer(self._last_id, found, now)

    def take(self) -> list[Any]:
        """Return what was sent since the last call."""
        found, self.typed = self.typed, []
        return found


def test_a_key_costs_no_answer() -> None:
    """Keys are notifications; what is longer is a request."""
    daemon = Daemon()
    daemon.queue.put(b"a")
    daemon.queue.put(b"b" * MAX_NOTIFICATION_BYTES)
    assert daemon.take() == [b"a", b"b" * MAX_NOTIFICATION_BYTES]
    daemon.queue.put(b"c" * (MAX_NOTIFICATION_BYTES + 1))
    assert daemon.take() == [(1, b"c" * (MAX_NOTIFICATION_BYTES + 1))]


def test_keys_are_confirmed_now_and_then() -> None:
    """A request follows so many bytes; keys behind it wait for its answer, and are notifications again."""
    daemon = Daemon()
    for _ in range(MAX_UNCONFIRMED_BYTES):
        daemon.queue.put(b"k")
    assert daemon.take() == [b"k"] * MAX_UNCONFIRMED_BYTES
    daemon.queue.put(b"r")
    daemon.queue.put(b"s")
    daemon.queue.put(b"t")
    assert (daemon.take(), daemon.queue.not_taken) == ([(1, b"r")], MAX_UNCONFIRMED_BYTES + 3)
    daemon.answer()
    assert (daemon.take(), daemon.queue.not_taken) == ([b"st"], 2)


def test_a_paste_is_sent_a_chunk_at_a_time() -> None:
    """Each chunk is sent when the one before it has been taken."""
    daemon = Daemon()
    paste = b"x" * (2 * CHUNK_BYTES + 100)
    daemon.queue.put(paste)
    sent = daemon.take()
    for number in (2, 3):
        daemon.answer()
        sent += daemon.take()
        assert [each[0] for each in sent] == list(range(1, number + 1))
    daemon.answer()
    assert b"".join(each[1] for each in sent) == paste
    assert daemon.queue.not_taken == 0


@pytest.mark.parametrize("error", [Busy, ShuttingDown])
@pytest.mark.parametrize("written", [0, 10, len(PASTE)])
def test_what_was_not_taken_is_sent_again(error: type[OrbitError], written: int) -> None:
    """Behind what was taken of it, before what was typed meanwhile, after a moment."""
    daemon = Daemon()
    daemon.queue.put(PASTE)
    daemon.queue.put(b"later")
    daemon.take()
    daemon.answer(error, now=5.0, written=written)
    assert (daemon.take(), daemon.queue.retry_at) == ([], 5.0 + RETRY_SECONDS)
    daemon.queue.put(b"!")
    assert daemon.take() == []
    daemon.queue.retry()
    sent = daemon.take()
    rest = PASTE[written:] + b"later!"
    assert sent == ([rest] if len(rest) <= MAX_NOTIFICATION_BYTES else [(2, rest)])


def test_an_error_without_a_count_took_nothing() -> None:
    """A daemon that refuses a request before it looks at it says no count."""
    daemon = Daemon()
    daemon.queue.put(PASTE)
    daemon.answer(ShuttingDown)
    daemon.queue.retry()
    assert daemon.take() == [(1, PASTE), (2, PASTE)]


def test_what_a_program_will_not_take_is_not_sent_again() -> None:
    """Where there is no program, the rest of the chunk is dropped, and what is typed next is sent."""
    daemon = Daemon()
    daemon.queue.put(PASTE)
    daemon.answer(NotRunning, written=10)
    daemon.take()
    daemon.queue.put(b"next")
    assert (daemon.take(), daemon.queue.retry_at) == ([b"next"], None)


def test_what_was_not_answered_is_never_sent_again() -> None:
    """After an outage only what was not sent goes out: the rest may have been taken."""
    daemon = Daemon()
    daemon.queue.put(b"key")
    daemon.queue.put(PASTE)
    daemon.queue.put(b"unsent")
    daemon.take()
    daemon.queue.stop()
    daemon.queue.put(b"!")
    assert daemon.take() == []
    daemon.connect()
    assert daemon.take() == [b"unsent!"]
    assert daemon.queue.not_taken == 7


def test_an_answer_that_comes_after_a_pause_counts() -> None:
    """While the user has another program in front, what was refused before is kept for the next attachment."""
    daemon = Daemon()
    daemon.queue.put(PASTE)
    daemon.queue.pause()
    daemon.take()
    daemon.answer(Busy, written=10)
    daemon.queue.put(b"!")
    daemon.connect()
    assert daemon.take() == []
    daemon.queue.retry()
    assert daemon.take() == [(2, PASTE[10:] + b"!")]


# Leaving


def test_nothing_typed_nothing_to_wait_for() -> None:
    """Where all was answered, or nothing was typed, a client may leave at once."""
    daemon = Daemon()
    daemon.queue.finish()
    assert (daemon.take(), daemon.queue.is_finished) == ([], True)


def test_the_last_input_is_a_request() -> None:
    """What was typed before the detach key is answered, so that it is known to be taken."""
    daemon = Daemon()
    daemon.queue.finish()
    daemon.queue.put(b"build\r")
    assert (daemon.take(), daemon.queue.is_finished) == ([(1, b"build\r")], False)
    daemon.answer()
    assert (daemon.queue.is_finished, daemon.queue.not_taken) == (True, 0)


def test_an_empty_request_confirms_the_keys_before_it() -> None:
    """It is answered when everything before it has been taken."""
    daemon = Daemon()
    daemon.queue.put(b"k")
    daemon.queue.finish()
    assert (daemon.take(), daemon.queue.is_finished) == ([b"k", (1, b"")], False)
    daemon.answer()
    assert (daemon.queue.is_finished, daemon.queue.not_taken) == (True, 0)


@pytest.mark.parametrize(
    ("data", "not_taken"),
    [
        ({"written": 0, "ahead": 2}, 2 + len(PASTE) + 6),
        ({"written": 0, "ahead": 5000}, 3 + len(PASTE) + 6),
        ({"written": 10, "ahead": 0}, len(PASTE) - 10 + 6),
        ({}, 3 + len(PASTE) + 6),
    ],
)
def test_what_is_taken_back_is_counted(data: dict[str, int], not_taken: int) -> None:
    """The rest of a cancelled chunk, the keys before it that were still to be taken, and what was not sent."""
    daemon = Daemon()
    daemon.queue.put(b"key")
    daemon.queue.put(PASTE)
    daemon.queue.put(b"unsent")
    daemon.queue.finish()
    daemon.queue.cancel()
    assert (daemon.cancelled, daemon.queue.is_finished) == ([1], False)
    daemon.take()
    daemon.answer(Cancelled, **data)
    assert (daemon.take(), daemon.queue.is_finished) == ([], True)
    assert (daemon.queue.not_taken, daemon.queue.retry_at) == (not_taken, None)


def test_an_answer_that_crosses_the_cancel_counts() -> None:
    """What was taken after all is not counted; nothing more is sent."""
    daemon = Daemon()
    daemon.queue.put(PASTE)
    daemon.queue.put(b"unsent")
    daemon.queue.finish()
    daemon.queue.cancel()
    daemon.take()
    daemon.answer()
    assert (daemon.take(), daemon.queue.is_finished, daemon.queue.not_taken) == ([], True, 6)


def test_what_is_refused_while_leaving_is_counted() -> None:
    """A session that has no program any more takes nothing."""
    daemon = Daemon()
    daemon.queue.finish()
    daemon.queue.put(b"key")
    daemon.answer(NotRunning, written=1)
    assert (daemon.queue.is_finished, daemon.queue.not_taken) == (True, 2)
