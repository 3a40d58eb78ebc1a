"""Lines that leave the screen are counted by the output: never more than an emulator counts, and often as many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orbitctl.attach.line_count import LineCount
from orbitctl.attach.output_filter import OutputFilter
from orbitd.screens.emulator import Emulator

SIZE = (20, 6)


class Both:
    """An emulator, and the count of what is shown on it."""

    def __init__(self) -> None:
        self.emulator, self.filter, self.lines = Emulator(*SIZE), OutputFilter(), LineCount()
        self.lines.begin(SIZE[1])

    def print(self, output: bytes) -> None:
        """Print one chunk of output."""
        self.emulator.feed(output)
        was_alternate = bool(self.filter.alternate)
        self.lines.feed(self.filter.receive(output), is_alternate=was_alternate)


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both()
    yield made
    made.emulator.close()


def printed(first: int, last: int) -> bytes:
    return b"".join(b"line %d\r\n" % number for number in range(first, last + 1))


def test_plain_lines_are_all_counted(both: Both) -> None:
    """In one chunk or in many."""
    both.print(printed(1, 50))
    for number in range(51, 101):
        both.print(printed(number, number))
    assert both.lines.scrolled == both.emulator.history_line == 95


UP = [b"\x1b[5A", b"\x1b[5F", b"\x1b[H", b"\x1b[1;1H", b"\x1b[1;1f", b"\x1b[1d", b"\x1b[r", b"\x1b[u", b"\x1b8"]
UP += [b"\x1bM" * 5, b"\x1b[?6h\x1b[?6l", b"\x1b[?1048l", b"\x1b[?1049h\x1b[?1049l\x1b[H"]


@pytest.mark.parametrize("up", UP)
def test_a_program_that_draws_over_its_lines_scrolls_nothing(both: Both, up: bytes) -> None:
    """A picture of five rows that is drawn again and again moves nothing up; lines printed behind it do."""
    both.print(b"\x1b7\x1b[s\x1b[?1048h" + printed(1, 5))
    for _ in range(50):
        both.print(up + printed(1, 5))
        assert both.lines.scrolled <= both.emulator.history_line
    before = both.emulator.history_line
    both.print(printed(6, 40))
    assert before + 20 < both.lines.scrolled <= both.emulator.history_line


@pytest.mark.parametrize("at", range(1, 5))
def test_a_sequence_in_two_chunks_is_one(both: Both, at: int) -> None:
    """A batch of messages may end anywhere."""
    up = b"\x1b[5A"
    both.print(printed(1, 5) + up[:at])
    for _ in range(50):
        both.print(up[at:] + printed(1, 5) + up[:at])
    assert both.lines.scrolled == both.emulator.history_line == 0


def test_lines_between_margins_leave_nothing(both: Both) -> None:
    """Below a first row that stays, line feeds move lines up to that and no further."""
    both.print(b"\x1b[2;5r\x1b[5;1H" + b"x\r\n" * 200)
    assert both.lines.scrolled == both.emulator.history_line == 0
    both.print(b"\x1b[1;4r\x1b[6;1H" + b"x\r\n" * 200)  # the cursor is below them
    assert both.lines.scrolled == both.emulator.history_line == 0
    both.print(b"\x1b[r\x1b[6;1H" + b"x\r\n" * 20)
    assert 0 < both.lines.scrolled <= both.emulator.history_line == 20


@pytest.mark.parametrize("begin", [b"\x1b]1337;File=inline=1:", b"\x1bP1;", b"\x1b_G", b"\x1b^", b"\x1bX"])
@pytest.mark.parametrize("end", [b"\x1b\\", b"\x18", b"\x1b[m"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_line_feeds_in_a_string_are_none(both: Both, begin: bytes, end: bytes, pieces: int) -> None:
    """As in an image that is encoded in lines, also where the string comes in pieces."""
    text = b"QUJD\n" * 300
    for piece in [begin, *[text] * pieces, end + printed(1, 20)]:
        both.print(piece)
    assert 0 < both.lines.scrolled <= both.emulator.history_line <= 20


def test_numbers_may_have_any_digits(both: Both) -> None:
    """Leading zeros, and more rows than there are."""
    for _ in range(20):
        both.print(b"\x1b[0000005A\x1b[99999999999A" + printed(1, 5))
    assert both.lines.scrolled == both.emulator.history_line == 0


@pytest.mark.parametrize("mode", [47, 1047, 1049])
def test_lines_of_the_alternate_screen_do_not_count(both: Both, mode: int) -> None:
    """Entered and left in one chunk, or in several."""
    on, off = b"\x1b[?%dh" % mode, b"\x1b[?1;%dl" % mode
    both.print(on + b"x\r\n" * 200 + off)
    for chunk in (on, b"x\r\n" * 200, b"x\r\n" * 200 + off):
        both.print(chunk)
    assert both.lines.scrolled == both.emulator.history_line == 0
