"""Fuzzing the real daemon: it never dies, never hangs, answers what it owes once, and stays small."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from fuzz.grammar import DRAWN, lines, wild_params
from fuzz.oracle import check_shape, owed, settle, unbatched
from fuzz.target import Target, bounded
from orbit_protocol.errors import MessageTooLarge

pytestmark = pytest.mark.slow


def _debts(sent: list[bytes]) -> list[Any]:
    return [debt for line in sent for debt in owed(line)[1]]


@bounded(60)
@given(data=st.data())
def test_a_conversation_is_answered_exactly(target: Target, data: st.DataObject) -> None:
    """Valid, damaged and senseless lines, cut anywhere on several connections, get each their one answer."""
    drawn = data.draw(st.lists(st.lists(lines(target.world), max_size=8), min_size=1, max_size=3))
    ending = data.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n \r\n"]))
    streams = [b"".join(line + ending for line in sent) for sent in drawn]
    if data.draw(st.booleans()):
        streams[0] = streams[0].rstrip()  # the last line may lack its ending
    answers = target.converse(streams, data.draw(st.integers(0, 1000)))
    for sent, came in zip(drawn, answers, strict=True):
        note(f"sent {sent!r}, received {came!r}")
        settle(_debts(sent), unbatched(came))
    target.assert_well()


@bounded(25)
@given(data=st.data())
def test_a_batch_is_answered_as_one(target: Target, data: st.DataObject) -> None:
    """One line comes back, with an answer for each item that asks, in the order of the items."""
    items = data.draw(st.lists(lines(target.world), min_size=1, max_size=8))
    line = b"[" + b",".join(items) + b"]"
    is_batch, debts = owed(line)
    (came,) = target.converse([line + b"\n"], 0)
    note(f"received {came!r}")
    settle(debts, unbatched(came))
    if is_batch:
        assert [one for one in came if isinstance(one, list)] == ([unbatched(came)] if debts else [])
        ids = [answer["id"] for answer in unbatched(came)]
        assert ids == [debt.ids[0] for debt in debts]
    target.assert_well()


@pytest.mark.parametrize("method", DRAWN)
def test_any_params_are_answered_as_the_method_promises(target: Target, method: str) -> None:
    """The result is of the method's type, or the error one of those that the method declares."""

    @bounded(12)
    @given(data=st.data())
    def every_params(data: st.DataObject) -> None:
        many = data.draw(st.lists(wild_params(method, target.world), min_size=1, max_size=4))
        sent = [
            json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": number}).encode()
            for number, params in enumerate(many)
        ]
        (came,) = target.converse([b"\n".join(sent)], 1)
        note(f"sent {sent!r}, received {came!r}")
        settle(_debts(sent), unbatched(came))

    every_params()
    target.assert_well()


@bounded(20)
@given(data=st.data())
def test_a_message_over_the_limit_ends_its_connection_only(target: Target, data: st.DataObject) -> None:
    """What came before it is answered, it gets its error, what follows is never read; others go on."""
    before = data.draw(st.lists(lines(target.world), max_size=3))
    after = data.draw(st.lists(lines(target.world), max_size=3))
    over = target.max_message_bytes + data.draw(st.sampled_from([1, 2, 100_000]))
    filler = data.draw(st.sampled_from([b"x", b"[", b"\xff", b"\0", b'"']))
    stream = b"".join(line + b"\n" for line in [*before, filler * over, *after])
    other = b'{"jsonrpc":"2.0","method":"daemon.ping","id":"other"}'
    came, pong = target.converse([stream, other], data.draw(st.integers(0, 1000)))
    (refusal,) = [one for one in unbatched(came) if _is_overflow(one)]
    check_shape(refusal)
    settle(_debts(before), [one for one in unbatched(came) if not _is_overflow(one)])
    assert pong == [{"jsonrpc": "2.0", "result": {"pong": True}, "id": "other"}]
    target.assert_well()


def _is_overflow(answer: dict[str, Any]) -> bool:
    return "error" in answer and answer["error"]["data"]["kind"] == MessageTooLarge.kind


def test_forty_connections_at_once_stay_in_bounds(target: Target) -> None:
    """Forty connections that each pipeline every method with no params at all are answered in full."""
    methods = [method for method in DRAWN if method != "events.wait"]  # which waits for ever then
    sent = [json.dumps({"jsonrpc": "2.0", "method": method, "id": method}).encode() for method in methods]
    answers = target.converse([b"\n".join(sent) for _ in range(40)], 7)
    for came in answers:
        settle(_debts(sent), unbatched(came))
    target.assert_well()
