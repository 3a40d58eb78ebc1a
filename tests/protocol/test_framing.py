"""The framer: every case whole, byte by byte, and cut at every point."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.framing import Event, Line, LineFramer, LineTooLong, frame

LIMIT = 8


def feed(pieces: list[bytes]) -> list[Event]:
    framer = LineFramer(LIMIT)
    return [event for piece in pieces for event in framer.receive(piece)] + framer.end()


CASES: dict[str, tuple[bytes, list[Event]]] = {
    "one line": (b"abc\n", [Line(b"abc")]),
    "two lines": (b"abc\ndef\n", [Line(b"abc"), Line(b"def")]),
    "carriage return": (b"abc\r\ndef\n", [Line(b"abc"), Line(b"def")]),
    "only one carriage return is an ending": (b"abc\r\r\n", [Line(b"abc\r")]),
    "carriage return inside": (b"a\rb\n", [Line(b"a\rb")]),
    "blank lines": (b"\n\r\n  \n\t\nabc\n\n", [Line(b"abc")]),
    "nothing": (b"", []),
    "no ending": (b"abc\nde", [Line(b"abc"), Line(b"de")]),
    "as long as the limit": (b"12345678\n", [Line(b"12345678")]),
    "as long as the limit with a carriage return": (b"12345678\r\n", [Line(b"12345678")]),
    "as long as the limit without an ending": (b"12345678", [Line(b"12345678")]),
    "NUL and high bytes": (b"\x00\xff\n", [Line(b"\x00\xff")]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_the_same_lines_however_it_is_cut(name: str) -> None:
    """Whole, byte by byte, and cut in two at every point, a stream gives the same lines."""
    stream, expected = CASES[name]
    assert feed([stream]) == expected
    assert feed([bytes([byte]) for byte in stream]) == expected
    for cut in range(len(stream) + 1):
        assert feed([stream[:cut], stream[cut:]]) == expected


@given(st.binary(max_size=60).map(lambda data: data.replace(b"x", b"\n")), st.lists(st.integers(0, 60), max_size=6))
def test_random_cuts_change_nothing(stream: bytes, cuts: list[int]) -> None:
    """The lines before an over-long one do not depend on where the stream was cut."""
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    whole, cut = feed([stream]), feed(pieces)
    assert [event for event in cut if isinstance(event, Line)] == [event for event in whole if isinstance(event, Line)]
    assert [type(event) for event in cut] == [type(event) for event in whole]


def test_an_over_long_line_ends_the_framing() -> None:
    """After a line over the limit nothing more is framed, and nothing is kept."""
    framer = LineFramer(LIMIT)
    assert framer.receive(b"ok\n123456789\nmore\n") == [Line(b"ok"), LineTooLong(LIMIT, complete=True)]
    assert framer.receive(b"again\n") == []
    assert framer.end() == []
    assert framer.buffered == 0


def test_an_over_long_line_is_noticed_before_it_ends() -> None:
    """A line without an end is refused as soon as it passes the limit, not when memory is full."""
    framer = LineFramer(LIMIT)
    assert framer.receive(b"12345678") == []
    assert framer.receive(b"9") == [LineTooLong(LIMIT, complete=False)]


def test_no_more_than_the_limit_is_held() -> None:
    """The framer holds one unfinished line and nothing of those that are finished."""
    framer = LineFramer(LIMIT)
    framer.receive(b"abc\n" * 1000 + b"rest")
    assert framer.buffered == 4


def test_frame_ends_a_message() -> None:
    """A framed message is one line that the framer gives back."""
    assert LineFramer(LIMIT).receive(frame(b"{}")) == [Line(b"{}")]


@pytest.mark.parametrize("message", [b"{\n}", b"\n", b"{}\n", b'{"a":\r\n1}'])
def test_a_message_with_a_newline_is_refused(message: bytes) -> None:
    """What follows a newline would be a message of its own, so such a message is never framed."""
    with pytest.raises(ValueError, match="newline"):
        frame(message)
