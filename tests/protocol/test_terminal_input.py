"""What passes of a client's input: keys, pastes and data, and nothing that its terminal answers by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.terminal_input import (
    ANSWER_SECS,
    CLIPBOARD_SECS,
    ESCAPE_SECS,
    MAX_HELD_BYTES,
    InputScanner,
    has_position,
)

ANSWERS = [
    b"\x1b[?62;22c", b"\x1b[?1;2c", b"\x1b[>1;10;0c", b"\x1bP!|00000000\x1b\\",
    b"\x1b[0n", b"\x1b[3n", b"\x1b[24;80R", b"\x1b[1;1R", b"\x1b[1;17R", b"\x1b[2;5R", b"\x1b[?1;5R", b"\x1b[?3;4;1R",
    b"\x1b[?2004;2$y", b"\x1b[4;0$y", b"\x1b[?0u", b"\x1b[?13n", b"\x1b[?997;1n", b"\x1b[0*{",
    b"\x1b[1t", b"\x1b[3;0;0t", b"\x1b[4;384;640t", b"\x1b[6;16;8t", b"\x1b[8;24;80t", b"\x1b[9;24;80t",
    b"\x1b[48;24;80;384;640t", b"\x1b[?1;0;256S", b"\x1b[2;1;1;128;128;1;0x", b"\x1b[>4;2m",
    b"\x1b]10;rgb:d0d0/d0d0/d0d0\x07", b"\x1b]11;rgba:0000/0000/0000/ffff\x1b\\", b"\x1b]12;#ffffff\x1b\\",
    b"\x1b]4;1;rgb:cccc/6666/6666\x1b\\", b"\x1b]5;0;rgb:c/6/6\x07", b"\x1b]19;rgb:00/00/00\x07",
    b"\x1b]21;foreground=rgb:d0/d0/d0;cursor=?\x1b\\", b"\x1b]52;c;\x07", b"\x1b]52;c;aGVsbG8=\x1b\\",
    b"\x1b]5522;type=read:status=EPERM\x1b\\", b"\x1b]lthe title\x1b\\", b"\x1b]Licon \xc3\xa4\x1b\\",
    b"\x1bP>|XTerm(390)\x1b\\", b"\x1bP1$r0m\x1b\\", b"\x1bP0$r\x1b\\", b"\x1bP1+r544E=7874\x1b\\", b"\x1bP0+r\x1b\\",
    b"\x1bP2$u9/17/25\x1b\\", b"\x1bP63!~0000\x1b\\", b"\x1b_Gi=31;OK\x1b\\", b"\x1b_Gi=1;ENOENT: no\x1b\\",
]  # fmt: skip
CLIPBOARD = b"\x1b]52;c;"
"""Of the answer that may be of any length: it is dropped as it comes."""

KEYS = [
    b"a", b"hello", b"\r", b"\x03", b"\x7f", "ä😀".encode(), b"\xff\xfe", b"\x9b1c", b"12;5R", b"0n",
    b"\x1b[A", b"\x1bOP", b"\x1bOR", b"\x1b[3~", b"\x1b[1;5D", b"\x1b[1;2R", b"\x1b[1;16R", b"\x1b[1;5:3R", b"\x1b[R",
    b"\x1b[97;5u", b"\x1b[97;1:3u", b"\x1b[27;5;9~", b"\x1b[Z", b"\x1bx", b"\x1b\r", b"\x1b\x7f", b"\x1b[15;2~",
]  # fmt: skip
REPORTS = [
    b"\x1b[<0;10;20M", b"\x1b[<35;1;2m", b"\x1b[32;10;20M", b"\x1b[M !!", b"\x1b[M#\xff\xfe",
    b"\x1b[M \xc4\x80\xc4\x81", b"\x1b[I", b"\x1b[O",
]  # fmt: skip
PASTES = [
    b"\x1b[200~\x1b[201~",
    b"\x1b[200~text\nmore\x1b[201~",
    b"\x1b[200~\x1b[?62c\x1b]52;c;aaaa\x07\x1b[201\x1b[20\x1b\x1b[201~",
    b"\x1b[200~\x1b[200~\x1bP>|\x1b[201~",
]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_dropped(answer: bytes) -> None:
    """Each kind of answer is dropped whole and byte by byte, between keys too, and is no typing."""
    scanner = InputScanner()
    assert scanner.receive(answer) == (b"", False)
    assert scanner.answers == [answer]
    assert scanner.receive(b"a" + answer + b"b") == (b"ab", True)
    assert [scanner.receive(bytes([byte])) for byte in answer] == [(b"", False)] * len(answer)
    assert scanner.flush_secs is None


@pytest.mark.parametrize("key", KEYS)
def test_a_key_passes(key: bytes) -> None:
    """Keys and data pass as they are, in one piece or byte by byte, and are typing."""
    scanner = InputScanner()
    assert scanner.receive(key) == (key, True)
    scanner = InputScanner()
    assert b"".join(scanner.receive(bytes([byte]))[0] for byte in key) + scanner.flush() == key
    assert scanner.answers == []


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_passes_and_is_no_typing(report: bytes) -> None:
    """Mouse and focus reports, in every encoding of theirs, pass; beside a key there is typing."""
    scanner = InputScanner()
    assert scanner.receive(report) == (report, False)
    assert scanner.receive(report + report) == (report + report, False)
    assert scanner.receive(report + b"x") == (report + b"x", True)


def test_typing_is_told_from_reports_in_much_input() -> None:
    """A mebibyte of reports is no typing, but for one key in it."""
    reports = b"\x1b[<35;10;10M" * (1 << 16)
    assert InputScanner().receive(reports) == (reports, False)
    assert InputScanner().receive(reports + b"x") == (reports + b"x", True)


@given(
    st.lists(st.sampled_from(["answer", "key", "report", "paste"]).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.sampled_from({"answer": ANSWERS, "key": KEYS, "report": REPORTS, "paste": PASTES}[kind])
        )
    ), max_size=8),
    st.lists(st.integers(min_value=0), max_size=12),
)  # fmt: skip
def test_whatever_is_cut_anywhere(pieces: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """Of any input, cut anywhere, exactly what is no answer passes, and the answers are found."""
    scanner = InputScanner()
    passed, answers = b"", []
    for data in cut(b"".join(piece for _, piece in pieces), cuts):
        passed += scanner.receive(data)[0]
        answers += scanner.answers
    passed += scanner.flush()
    assert passed == b"".join(piece for kind, piece in pieces if kind != "answer")
    whole = [answer for answer in answers if not answer.startswith(CLIPBOARD)]
    assert whole == [piece for kind, piece in pieces if kind == "answer" and not piece.startswith(CLIPBOARD)]


@given(st.binary(max_size=200).filter(lambda data: b"\x1b" not in data), st.lists(st.integers(min_value=0), max_size=9))
def test_data_without_escape_passes_at_once(data: bytes, cuts: list[int]) -> None:
    """Arbitrary bytes pass as they come."""
    scanner = InputScanner()
    assert [scanner.receive(piece)[0] for piece in cut(data, cuts)] == cut(data, cuts)


def test_f3_is_a_position_only_when_that_was_asked() -> None:
    """F3 with a modifier looks like an answer to CPR: it is one where the program has just asked for it."""
    scanner = InputScanner()
    assert scanner.receive(b"\x1b[1;5R") == (b"\x1b[1;5R", True)
    assert scanner.receive(b"\x1b[1;5R", position_asked=True) == (b"", False)
    assert has_position(b"\x1b[?62c\x1b[1;5R")
    assert not has_position(b"\x1b[?1;5R\x1b[0n")


def test_f3_is_a_key_with_the_locks_on() -> None:
    """CapsLock and NumLock add 64 and 128 to the modifiers of F3; other columns are positions, asked for or not."""
    locked = {1 + lock + modifiers for lock in (0, 64, 128, 192) for modifiers in range(16)} - {1}
    scanner = InputScanner()
    for column in range(1, 300):
        sequence = b"\x1b[1;%dR" % column
        assert scanner.receive(sequence) == ((sequence, True) if column in locked else (b"", False))
        assert scanner.receive(sequence, position_asked=True) == (b"", False)


def test_a_search_after_escape_passes() -> None:
    """Escape and `/Z` in one read are keys, though VT52 terminals identify themselves so: none is asked here."""
    scanner = InputScanner()
    assert scanner.receive(b"\x1b/Zoo\r") == (b"\x1b/Zoo\r", True)
    assert scanner.receive(b"\x1b/") == (b"\x1b/", True)
    assert scanner.receive(b"Z") == (b"Z", True)


def test_escape_waits_a_moment_only() -> None:
    """Escape and an Alt key that begins answers are held for 10 ms, a longer beginning for 100, and then pass."""
    scanner = InputScanner()
    for key in (b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b_"):
        assert scanner.receive(key) == (b"", False)
        assert scanner.flush_secs == ESCAPE_SECS
        assert scanner.flush() == key
    assert scanner.receive(b"x\x1b]11;rgb:") == (b"x", True)
    assert scanner.flush_secs == ANSWER_SECS
    assert scanner.receive(b"\x1b[A") == (b"\x1b]11;rgb:\x1b[A", True)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_cut_off_is_dropped(answer: bytes) -> None:
    """Of a beginning whose rest does not come only what keys begin with too passes: `CSI 1;5`, Alt-P, Escape."""
    for length in range(1, len(answer)):
        beginning = answer[:length]
        scanner = InputScanner()
        assert scanner.receive(beginning) == (b"", False)
        may_be_key = length <= 2 or (beginning[1:2] == b"[" and not set(beginning[2:]) - set(b"0123456789;"))
        assert scanner.flush() == (beginning if may_be_key else b"")
        assert scanner.receive(b"x") == (b"x", True)


@pytest.mark.parametrize("key", [b"\x1b[1;5", b"\x1b[2$", b"\x1b[<0;1", b"\x1b[M !"])
def test_a_key_that_is_cut_off_passes(key: bytes) -> None:
    """The beginning of a key or a report passes, and a key of rxvt that an answer may begin with."""
    scanner = InputScanner()
    assert scanner.receive(key) == (b"", False)
    assert scanner.flush() == key


def test_what_is_held_has_a_limit() -> None:
    """The beginning of a string that becomes no answer passes once it is long; a clipboard of any size is dropped."""
    scanner = InputScanner()
    title = b"\x1b]l" + b"x" * MAX_HELD_BYTES
    assert scanner.receive(title) == (title, True)
    clipboard = b"\x1b]52;c;" + b"QUJD" * 100_000
    assert scanner.receive(clipboard) == (b"", False)
    assert scanner.receive(b"QUJD" * 100_000 + b"\x1b") == (b"", False)
    assert scanner.receive(b"\\ls\r") == (b"ls\r", True)


def test_a_clipboard_that_is_cut_off_ends() -> None:
    """Where the rest of a clipboard's answer does not come, keys pass again: after two seconds, or at once."""
    scanner = InputScanner()
    for beginning in (b"\x1b]52;c;", b"\x1b]52;c;QUJD", b"QUJD", b"QUJD\x1b"):
        assert scanner.receive(beginning) == (b"", False)
        assert scanner.flush_secs == CLIPBOARD_SECS
    assert scanner.receive(b"[A") == (b"\x1b[A", True)
    assert scanner.receive(b"\x1b]52;c;QUJD") == (b"", False)
    assert scanner.receive(b"QUJD\x03ls") == (b"\x03ls", True)
    assert scanner.flush_secs is None
    assert scanner.receive(b"\x1b]52;c;QUJD") == (b"", False)
    assert scanner.flush() == b""
    assert scanner.receive(b"ls") == (b"ls", True)


def test_a_paste_passes_as_it_comes() -> None:
    """Nothing of a paste is held, not even what its end may begin with."""
    scanner = InputScanner()
    assert scanner.receive(b"\x1b[200~abc\x1b[20") == (b"\x1b[200~abc\x1b[20", True)
    assert scanner.receive(b"1") == (b"1", True)
    assert scanner.receive(b"~\x1b[?62c") == (b"~", True)
