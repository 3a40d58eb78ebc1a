"""The framer: every case whole, byte by byte, and cut at every point."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.framing import Event, Framer, HeaderFramer, Line, LineFramer, LineTooLong, Malformed, frame

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


# Bodies behind headers

BODY = b"Content-Length: 5\r\n\r\n[\n1]\n"
FIVE = Line(b"[\n1]\n")
NO_LENGTH = Malformed("The headers of a message lack Content-Length")
NOT_HEADERS = Malformed("A message is not preceded by headers, such as Content-Length: 52")
NO_NUMBER = Malformed("Content-Length is not a number of bytes")
TWO_LENGTHS = Malformed("Content-Length is given twice, with different numbers")
NO_CHARSET = Malformed("The charset of Content-Type may be utf-8 only")
TOO_MUCH = Malformed("The headers of a message may have 8192 bytes")
NOT_WHOLE = Malformed("The stream ends within a message")


def padded(size: int) -> bytes:
    """Return a message whose headers have so many bytes, the empty line too."""
    return b"X: " + b"x" * (size - 26) + b"\r\n" + BODY


FRAMED: dict[str, tuple[bytes, list[Event]]] = {
    "one body": (BODY, [FIVE]),
    "two bodies": (BODY + BODY, [FIVE, FIVE]),
    "any case": (b"cOnTent-lENGTH:2\r\n\r\n{}", [Line(b"{}")]),
    "bare newlines": (b"Content-Length: 2\n\n{}Content-Length: 3\n\n[1]", [Line(b"{}"), Line(b"[1]")]),
    "blanks around the number": (b"Content-Length: \t 2 \t\r\n\r\n{}", [Line(b"{}")]),
    "leading zeros": (b"Content-Length: 0002\r\n\r\n{}", [Line(b"{}")]),
    "others before it": (b"X-Trace: a:b\r\nContent-Length: 2\r\n\r\n{}", [Line(b"{}")]),
    "others behind it": (b"Content-Length: 2\r\nX-Trace:\r\n\r\n{}", [Line(b"{}")]),
    "a type": (b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n" + BODY, [FIVE]),
    "its older word": (b'Content-Type: x/y; a=b; Charset="UTF8"\r\n' + BODY, [FIVE]),
    "a type without a charset": (b"Content-Type: application/json\r\n" + BODY, [FIVE]),
    "another charset": (BODY + b"Content-Type: x/y; charset=utf-16\r\n" + BODY, [FIVE, NO_CHARSET]),
    "an empty body": (b"Content-Length: 0\r\n\r\n" + BODY, [Line(b""), FIVE]),
    "two empty bodies": (b"Content-Length: 0\r\n\r\n" * 2, [Line(b""), Line(b"")]),
    "blank lines in front": (b"\r\n\n" + BODY + b"\r\n\n\r\n" + BODY, [FIVE, FIVE]),
    "a body of newlines": (b"Content-Length: 4\r\n\r\n\r\n\r\n" + BODY, [Line(b"\r\n\r\n"), FIVE]),
    "a body like a header": (b"Content-Length: 8\r\n\r\nContent-" + BODY, [Line(b"Content-"), FIVE]),
    "as long as the limit": (b"Content-Length: 8\r\n\r\n12345678", [Line(b"12345678")]),
    "over the limit": (BODY + b"Content-Length: 9\r\n\r\n123456789" + BODY, [FIVE, LineTooLong(LIMIT, complete=True)]),
    "more than anybody has": (b"Content-Length: %b\r\n\r\n" % (b"9" * 5000), [LineTooLong(LIMIT, complete=False)]),
    "the same length twice": (b"Content-Length: 5\r\n" + BODY, [FIVE]),
    "two lengths": (b"Content-Length: 4\r\n" + BODY, [TWO_LENGTHS]),
    "a negative length": (b"Content-Length: -1\r\n\r\n{}", [NO_NUMBER]),
    "a signed length": (b"Content-Length: +2\r\n\r\n{}", [NO_NUMBER]),
    "a length with an underscore": (b"Content-Length: 1_0\r\n\r\n{}", [NO_NUMBER]),
    "a length in hexadecimal": (b"Content-Length: 0x2\r\n\r\n{}", [NO_NUMBER]),
    "digits of another script": ("Content-Length: \uff12\r\n\r\n{}".encode(), [NO_NUMBER]),
    "no number": (b"Content-Length:\r\n\r\n{}", [NO_NUMBER]),
    "a header without a length": (b"X-Trace: 1\r\n\r\n{}\n", [NO_LENGTH]),
    "a later header without a length": (BODY + b"X-Trace: 1\n\n{}\n", [FIVE, NO_LENGTH]),
    "garbage between bodies": (BODY + b"garbage\r\n" + BODY, [FIVE, NOT_HEADERS]),
    "a line between bodies": (BODY + b'{"id": 1}\n' + BODY, [FIVE, NOT_HEADERS]),
    "a blank before the colon": (BODY + b"Content-Length : 5\r\n\r\n", [FIVE, NOT_HEADERS]),
    "a header that goes on": (b"Content-Length: 5\r\n 6\r\n\r\n", [NOT_HEADERS]),
    "8 KiB of headers": (padded(8192), [FIVE]),
    "more headers": (padded(8193), [TOO_MUCH]),
    "more later headers": (BODY + padded(8193), [FIVE, TOO_MUCH]),
    "a header without an end": (b"X: " + b"x" * 9000, [TOO_MUCH]),
    "the end in a body": (b"Content-Length: 5\r\n\r\n[1]", [NOT_WHOLE]),
    "the end in headers": (BODY + b"Content-Len", [FIVE, NOT_WHOLE]),
    "a header behind a line": (b"[1]\nX: 5\n\n[\n", [Line(b"[1]"), Line(b"X: 5"), Line(b"[")]),
    "a line like a header": (b"note: x\n{}\n", [Line(b"note: x"), Line(b"{}")]),
    "a line like a header alone": (b"note: x", [Line(b"note: x")]),
    "a line like many a header": (b"note: x\r\n" * 3 + b"{}\n", [Line(b"note: x")] * 3 + [Line(b"{}")]),
    "an indented header": (b" X: 5\n\n{}\n", [Line(b" X: 5"), Line(b"{}")]),
    "one word": (b"word\r\n", [Line(b"word")]),
    "a carriage return in front of a line": (b"a: b\n\r{}\n", [Line(b"a: b"), Line(b"\r{}")]),
}
"""Streams of a client whose framing is found out, and what they hold; `LIMIT` is that of a message."""


def receive(pieces: list[bytes]) -> list[Event]:
    framer = Framer(LIMIT)
    return [event for piece in pieces for event in framer.receive(piece)] + list(framer.end())


def comparable(events: list[Event]) -> list[Event]:
    """Return events in which it does not matter whether the end of what is too long has been seen already."""
    return [LineTooLong(LIMIT, complete=True) if isinstance(event, LineTooLong) else event for event in events]


@pytest.mark.parametrize("name", FRAMED)
def test_a_framing_is_found_out_however_the_stream_is_cut(name: str) -> None:
    """Whole, byte by byte and cut in two at every point, a stream of either framing gives the same messages."""
    stream, expected = FRAMED[name]
    assert receive([stream]) == expected
    assert comparable(receive([bytes([byte]) for byte in stream])) == comparable(expected)
    for cut in range(0, len(stream) + 1, 1 + len(stream) // 200):
        assert comparable(receive([stream[:cut], stream[cut:]])) == comparable(expected)


@pytest.mark.parametrize("name", FRAMED)
def test_what_follows_does_not_change_what_came(name: str) -> None:
    """The messages of a stream are the same with a tail, unless it completes the last of them."""
    stream, expected = FRAMED[name]
    framer = Framer(LIMIT)
    events = [*framer.receive(stream), *framer.receive(b"\r\n"), *framer.receive(b"{}\n")]
    whole = [event for event in expected if event != NOT_WHOLE]
    assert comparable(events)[: len(whole)] == comparable(whole)


@given(
    st.lists(st.sampled_from([BODY, b"Content-Length: ", b"8\r\n", b"X: y\n", b"\r\n", b"{}\n", b"0", b"9"])), st.data()
)
def test_random_cuts_of_headers_change_nothing(pieces: list[bytes], data: st.DataObject) -> None:
    """Whatever a stream is made of, the messages in it do not depend on where it was cut."""
    stream = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    edges = [0, *sorted(cuts), len(stream)]
    cut = receive([stream[start:end] for start, end in itertools.pairwise(edges)])
    assert comparable(cut) == comparable(receive([stream]))


def test_a_client_is_answered_in_its_own_framing() -> None:
    """A client of lines, or one that has sent nothing, is sent lines; one of headers is sent headers."""
    framer, lines, headers = Framer(LIMIT), Framer(LIMIT), Framer(LIMIT)
    lines.receive(b"[1]\n")
    headers.receive(b"Content-Length: 52\r\n")
    lined, headed = b"{}\n[]\n", b"Content-Length: 2\r\n\r\n{}Content-Length: 2\r\n\r\n[]"
    assert [one.frame_all([b"{}", b"[]"]) for one in (framer, lines, headers)] == [lined, lined, headed]
    assert [one.frame_all([]) for one in (framer, lines, headers)] == [b""] * 3
    assert HeaderFramer(LIMIT).receive(headers.frame_all(["é".encode()])) == [Line("é".encode())]
    assert HeaderFramer(LIMIT).receive(headers.frame_all([b"{\n}"])) == [Line(b"{\n}")]
    for messages in ([b"{\n}"], [b"{}", b"{}\n"], [b"{}", b"\n"]):
        for one in (framer, lines):
            with pytest.raises(ValueError, match="newline"):
                one.frame_all(messages)


def test_the_rest_of_a_long_body_is_passed_over() -> None:
    """The framer knows where a body ends that is too long, newlines or not; of what is malformed it does not."""
    framer = Framer(LIMIT)
    assert framer.receive(b"Content-Length: 20\r\n\r\n12345") == [LineTooLong(LIMIT, complete=False)]
    assert framer.receive(b"") == []
    assert [framer.skip(b"\n" * 10), framer.skip(b"1234"), framer.skip(b"56")] == [False, False, True]
    broken = Framer(LIMIT)
    broken.receive(b"Content-Length: x\r\n")
    assert [broken.skip(b"\n" * 10), broken.skip(b"\n")] == [False, False]
    assert list(broken.end()) == []


def test_no_more_than_one_body_is_held() -> None:
    """The framer holds one unfinished body and nothing of those that are finished."""
    framer = HeaderFramer(LIMIT)
    assert len(framer.receive(BODY * 1000 + BODY[:-1])) == 1000
    assert framer.buffered == 4
