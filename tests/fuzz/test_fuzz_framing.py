"""Fuzzing the framing, without I/O: how bytes are cut changes nothing, and little is held."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fuzz.target import bounded
from orbit_protocol.framing import Event, Line, LineFramer, LineTooLong

PIECES = st.sampled_from([b"\n", b"\r\n", b"\r", b" ", b"\t", b"{}", b"\0", b"\xff", b"x" * 9, b"x" * 10, b"x" * 11])
STREAMS = st.lists(PIECES | st.binary(max_size=12), max_size=12).map(b"".join)


def plainly(stream: bytes, limit: int) -> list[Event]:
    """Frame a whole stream in the most obvious way."""
    events: list[Event] = []
    *complete, rest = stream.split(b"\n")
    for number, text in enumerate([*complete, rest]):
        line = text.removesuffix(b"\r")
        if len(line) > limit:
            return [*events, LineTooLong(limit, number < len(complete))]
        if line.strip():
            events.append(Line(line))
    return events


@bounded(150)
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 150)), limit=st.integers(1, 12))
def test_cuts_change_nothing(stream: bytes, cuts: list[int], limit: int) -> None:
    """A stream in pieces of any size frames as it does whole, and no more than a line and a piece is held."""
    framer = LineFramer(limit)
    edges = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    events: list[Event] = []
    for start, end in itertools.pairwise(edges):
        events += framer.receive(stream[start:end])
        assert framer.buffered <= limit + 1  # a carriage return may wait for its line feed
    events += framer.end()
    expected = plainly(stream, limit)
    assert [type(one) for one in events] == [type(one) for one in expected]
    assert [one for one in events if isinstance(one, Line)] == [one for one in expected if isinstance(one, Line)]
    assert framer.receive(b"more\n") == []
