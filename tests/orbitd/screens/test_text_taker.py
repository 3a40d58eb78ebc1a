"""The text that is taken of a picture: each line once, none missing, whatever the terminal forgets."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from orbitd.history.text_blocks import NO_NUMBER, Line, TextBlock, unpack
from orbitd.screens import text_taker
from orbitd.screens.emulator import Emulator
from orbitd.screens.messages import TakenText
from orbitd.screens.said import Clock
from orbitd.screens.text_taker import TextTaker
from terminal_support import noise

START = 1_700_000_000_000
AS_LETTERS = bytes.maketrans(b"0123456789", b"abcdfghjkm")


class Shown:
    """A picture whose text is taken, at a position that each event moves by one."""

    def __init__(
        self,
        cols: int = 40,
        rows: int = 10,
        *,
        state: bytes = b"",
        position: int = 0,
        text_from: int = 0,
        text_line: int = 0,
        lines: int = 10_000,
    ) -> None:
        self.emulator = (
            Emulator.decode(state, max_scrollback_lines=lines)
            if state
            else Emulator(cols, rows, max_scrollback_lines=lines)
        )
        self.clock = Clock(lambda: START)
        self.position, self.recorded = position, text_from
        self.taker = TextTaker(
            self.emulator,
            self.clock,
            position=position,
            text_from=text_from,
            text_line=text_line,
            history=(lines, 16 << 20),
        )

    def feed(self, data: bytes) -> None:
        self.position += 1
        for piece in self.taker.pieces(data, self.position):
            self.emulator.feed(piece)
        self.taker.settle(self.position)

    def pass_time(self, milliseconds: int) -> None:
        self.position += 1
        self.taker.pass_time(START + milliseconds, self.position)
        self.clock.recorded = START + milliseconds
        self.taker.settle(self.position)

    def resize(self, cols: int, rows: int) -> None:
        self.position += 1
        self.taker.resize(cols, rows, self.position)
        self.taker.settle(self.position)

    def save(self) -> tuple[list[Line], list[Line] | None]:
        """Return the lines since the last call and those of the tail, None where that is not known."""
        self.taker.save(self.position)
        known, tail = self.taker.tail()
        taken = self.taker.taken(self.recorded)
        self.recorded = self.position
        return lines_of(taken), (lines_of_block(tail) if known else None)

    def close(self) -> None:
        self.taker.close()
        self.emulator.close()


def lines_of_block(block: TextBlock | None) -> list[Line]:
    return [] if block is None else unpack(block.text, block.runs)


def lines_of(taken: tuple[TakenText, ...]) -> list[Line]:
    return [line for each in taken for line in lines_of_block(each.block)]


def numbered(lines: list[Line]) -> list[str]:
    """Return the texts of the lines with numbers, which follow each other."""
    found = [line for line in lines if line.number != NO_NUMBER]
    assert [line.number for line in found] == list(range(found[0].number, found[0].number + len(found))) if found else 1
    return [line.text for line in found]


def unnumbered(lines: list[Line]) -> list[str]:
    return [line.text for line in lines if line.number == NO_NUMBER]


def count(first: int, last: int) -> bytes:
    return b"".join(b"line %d\r\n" % number for number in range(first, last))


@pytest.fixture
def shown() -> Iterator[Shown]:
    shown = Shown()
    yield shown
    shown.close()


def test_lines_that_leave_the_screen_are_taken_with_their_numbers(shown: Shown) -> None:
    """The rest is the tail; the next save has what has left since."""
    shown.feed(count(0, 100))
    taken, tail = shown.save()
    assert numbered(taken) == [f"line {number}" for number in range(91)]
    assert tail is not None
    assert [(line.number, line.text) for line in tail] == [(number, f"line {number}") for number in range(91, 100)]
    shown.feed(count(100, 150))
    taken, _ = shown.save()
    assert numbered(taken) == [f"line {number}" for number in range(91, 141)]
    assert taken[0].number == 91
    assert shown.emulator.history_line == 141


@pytest.mark.parametrize("size", [(40, 10), (1, 3), (4096, 4), (2, 1)])
def test_a_flood_loses_nothing(size: tuple[int, int]) -> None:
    """More lines come in one piece than the history keeps, on the narrowest and the widest terminal too."""
    shown = Shown(*size)
    shown.feed(b"y\r\n" * 60_000)
    taken, tail = shown.save()
    assert tail is not None
    assert numbered(taken) + numbered(tail) == ["y"] * 60_000
    shown.close()


def test_a_short_history_loses_nothing_either() -> None:
    """Lines are taken before the terminal drops them, however few it keeps."""
    shown = Shown(lines=20)
    shown.feed(count(0, 30_000))
    taken, _ = shown.save()
    assert numbered(taken) == [f"line {number}" for number in range(29_991)]
    shown.close()


def test_a_wrapped_line_is_one() -> None:
    """Rows that wrap are joined, also where the line is on the screen still, and its beginning is not."""
    shown = Shown(10, 4)
    shown.feed(b"x" * 95 + b"\r\nshort  \r\n" + b"y" * 100)
    taken, tail = shown.save()
    assert numbered(taken) == ["x" * 95, "short"]
    assert tail == [Line(number=2, at=START, text="y" * 100)]
    shown.feed(b"y" * 100 + b"\r\n" * 5)
    assert numbered(shown.save()[0]) == ["y" * 200, ""]
    shown.close()


def test_a_line_that_does_not_end_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part has its number, the others have none; the next line has the next number."""
    monkeypatch.setattr(text_taker, "MAX_LINE_BYTES", 1000)
    shown = Shown()
    for _ in range(100):
        shown.feed(b"z" * 400)
    shown.feed(b"\r\n" + count(1, 20))
    taken, _ = shown.save()
    assert sum(line.text.count("z") for line in taken) == 40_000
    assert numbered(taken)[1:] == [f"line {number}" for number in range(1, 11)]
    assert shown.emulator.history_line == 11
    shown.close()


def test_lines_that_come_back_are_not_taken_twice(shown: Shown) -> None:
    """A taller screen gets lines back from the history; they leave it once more."""
    shown.feed(count(0, 50))
    first, _ = shown.save()
    shown.resize(40, 30)
    _, tail = shown.save()
    assert tail is not None
    assert [line.number for line in tail] == list(range(41, 50))
    shown.feed(count(50, 80))
    shown.resize(13, 10)
    second, tail = shown.save()
    assert tail is not None
    assert numbered(first + second + tail) == [f"line {number}" for number in range(80)]


def test_a_line_that_came_back_and_was_drawn_over_is_taken_without_a_number(shown: Shown) -> None:
    """Its number is taken; its new text is not lost."""
    shown.feed(count(0, 50))
    shown.save()
    shown.resize(40, 30)
    shown.feed(b"\x1b[H\x1b[2K" + b"new text\x1b[30;1H\r\n" + count(50, 90))
    taken, _ = shown.save()
    assert "new text" in unnumbered(taken)
    assert numbered(taken)[0] == "line 41"


@pytest.mark.parametrize("erasing", [b"\x1b[3J", b"\x1bc", b"\x1b[H\x1b[2J\x1b[3J"])
@pytest.mark.parametrize("is_split", [False, True])
def test_what_erases_the_history_erases_nothing_that_is_not_taken(shown: Shown, erasing: bytes, is_split: bool) -> None:
    """It is taken before, within one piece too; what was on the screen is taken without numbers."""
    # Lines that differ in digits only are limited.
    lines = count(0, 200).translate(AS_LETTERS)
    middle = lines.index(b"line baa")
    data = lines[:middle] + erasing + lines[middle:] + erasing
    for piece in [data[at : at + 1] for at in range(len(data))] if is_split else [data]:
        shown.feed(piece)
    taken, tail = shown.save()
    assert tail is not None
    texts = [line.text for line in taken + tail if line.text]
    assert sorted(texts) == sorted(line.decode() for line in lines.split(b"\r\n")[:-1])
    numbers = [line.number for line in taken if line.number != NO_NUMBER]
    assert numbers == sorted(set(numbers))


def test_trimming_loses_nothing(shown: Shown) -> None:
    """What is dropped was taken before."""
    shown.feed(count(0, 1000))
    shown.taker.prepare(shown.position)
    shown.emulator.trim_scrollback(max_lines=0)
    shown.feed(count(1000, 2000))
    assert numbered(shown.save()[0]) == [f"line {number}" for number in range(1991)]


def test_a_full_screen_program_is_seen_and_hides_nothing(shown: Shown) -> None:
    """Its text has no numbers and is taken once; the lines of the primary screen are known meanwhile."""
    shown.feed(count(0, 100) + b"\x1b[?1049h\x1b[Hfile text\r\n~\r\n~\x1b[5;1Hstatus")
    taken, tail = shown.save()
    assert numbered(taken) == [f"line {number}" for number in range(91)]
    assert sorted(unnumbered(taken)) == ["file text", "status", "~"]
    assert tail is not None
    assert [line.number for line in tail] == list(range(91, 100))
    assert shown.save()[0] == []
    shown.feed(b"\x1b[2;1Hmore text\x1b[?1049l" + count(100, 150))
    taken, _ = shown.save()
    assert (numbered(taken)[0], numbered(taken)[-1], unnumbered(taken)) == ("line 91", "line 140", ["more text"])


def test_a_resize_behind_a_full_screen_program_repeats_nothing(shown: Shown) -> None:
    """Lines that a smaller screen moves into the hidden history are taken, and not again when the program ends."""
    shown.feed(count(0, 30) + b"\x1b[?1049h")
    first, _ = shown.save()
    shown.resize(40, 5)
    second, tail = shown.save()
    assert tail is not None
    assert numbered(first + second + tail) == [f"line {number}" for number in range(30)]
    shown.feed(b"\x1b[?1049l" + count(30, 60))
    third, tail = shown.save()
    assert tail is not None
    assert numbered(first + second + third + tail) == [f"line {number}" for number in range(60)]


def test_a_cleared_screen_is_taken(shown: Shown) -> None:
    """Also where it is erased from the cursor on; what is drawn again is not taken twice."""
    for text in (b"first", b"second", b"second", b"third"):
        shown.feed(b"\x1b[H\x1b[J%b\r\nsame\r\n" % text)
        shown.pass_time(shown.position * 1000)
    taken, tail = shown.save()
    assert unnumbered(taken) == ["first", "second"]
    assert tail is not None
    assert numbered(tail) == ["third", "same"]


def test_a_screen_that_stood_still_is_taken(shown: Shown) -> None:
    """An agent draws over what it has drawn; a state that was there for a moment only may be missed."""
    shown.feed(b"start\r\n\r\n")
    for number in range(0, 40_000, 2000):
        shown.pass_time(number)
        shown.feed(b"\x1b[A\x1b[2Kstep %s\r\n" % (b"abcdefghijklmnopqrstuvwxyz"[number // 2000 :][:3]))
    taken, _ = shown.save()
    assert unnumbered(taken) == [f"step {'abcdefghijklmnopqrstuvwxyz'[at:][:3]}" for at in range(19)]


def test_text_that_grows_is_taken_once(shown: Shown) -> None:
    """The beginning of a line that is there now is not stored."""
    shown.feed(b"\x1b[?1049h")
    for number, letter in enumerate(b"a text that is typed"):
        shown.feed(bytes([letter]))
        shown.pass_time(number * 1000)
    assert unnumbered(shown.save()[0]) == ["a text that is typed"]


def test_lines_that_differ_in_digits_are_limited(shown: Shown) -> None:
    """A clock is stored 16 times in ten minutes of recorded time."""
    shown.feed(b"\x1b[?1049h")
    for second in range(1200):
        shown.pass_time(second * 1000)
        shown.feed(b"\x1b[Htime %04d!" % second)
    assert 32 <= len(unnumbered(shown.save()[0])) <= 34


def test_a_log_that_is_cleared_is_taken_whole(shown: Shown) -> None:
    """Lines that stood there together are no variants of one that changes."""
    shown.resize(40, 30)
    shown.feed(count(0, 25) + b"\x1b[H\x1b[2J")
    assert unnumbered(shown.save()[0]) == [f"line {number}" for number in range(25)]


def test_looking_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that clears its screen all the time is looked at now and then."""
    looks = []
    monkeypatch.setattr(TextTaker, "_store_gone", lambda *args: looks.append(args))
    shown = Shown(200, 50)
    shown.feed(b"".join(b"\x1b[H\x1b[2J%d" % number for number in range(20_000)))
    assert len(looks) < 200
    shown.close()


def test_lines_have_the_time_when_they_were_written(shown: Shown) -> None:
    """Not that when they left the screen."""
    for number in range(20):
        shown.pass_time(number * 60_000)
        shown.feed(count(number, number + 1))
    taken, tail = shown.save()
    assert tail is not None
    assert [line.at for line in taken + tail] == [START + number * 60_000 for number in range(20)]


def test_a_saved_screen_keeps_the_times_of_its_lines(shown: Shown) -> None:
    """They are in the state, for whoever goes on from there."""
    for number in range(15):
        shown.pass_time(number * 60_000)
        shown.feed(count(number, number + 1))
    first, _ = shown.save()
    later = Shown(
        state=shown.emulator.encode(), position=shown.position, text_from=shown.position, text_line=len(first)
    )
    later.pass_time(3_600_000)
    later.feed(count(15, 40))
    taken, _ = later.save()
    assert [line.text for line in first + taken] == [f"line {number}" for number in range(31)]
    assert [line.at - START for line in taken] == [number * 60_000 for number in range(6, 15)] + [3_600_000] * 16
    later.close()


def test_what_is_recorded_is_not_taken_again(shown: Shown) -> None:
    """A picture that is built on an older state passes what the newer one has taken, with numbers and without."""
    shown.feed(count(0, 50) + b"\x1b[H\x1b[2Jgone 1\r\n")
    state, position = (shown.save(), shown.emulator.encode())[1], shown.position

    def go_on(picture: Shown) -> None:
        picture.pass_time(1000)
        picture.feed(count(50, 100) + b"\x1b[H\x1b[2Jgone 2\r\n\x1b[?1049hfull\x1b[?1049l")
        picture.pass_time(2000)

    go_on(shown)
    first, _ = shown.save()
    later = Shown(state=state, position=position, text_from=shown.position, text_line=first[-1].number + 1)
    numbers = [line.number for line in first if line.number != NO_NUMBER]
    later.close()
    later = Shown(state=state, position=position, text_from=shown.position, text_line=max(numbers) + 1)
    go_on(later)
    assert later.save()[0] == []
    later.feed(b"\x1b[H\x1b[2J" + count(100, 120))
    assert "gone 2" in unnumbered(later.save()[0])
    later.close()


def test_a_blank_picture_goes_on_behind_what_is_recorded() -> None:
    """Where the screen was lost, its lines get numbers that are free."""
    shown = Shown(position=10, text_from=10, text_line=5000)
    shown.feed(count(0, 20))
    taken, _ = shown.save()
    assert [line.number for line in taken] == list(range(5000, 5011))
    shown.close()


def test_the_history_of_a_session_that_was_not_recorded_is_taken(shown: Shown) -> None:
    """As far as its state has it."""
    with Emulator(40, 10) as emulator:
        emulator.feed(count(0, 100))
        state = emulator.encode()
    later = Shown(state=state, position=50)
    assert numbered(later.save()[0]) == [f"line {number}" for number in range(91)]
    later.close()


def test_unrecorded_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest blocks are dropped where nobody records them."""
    monkeypatch.setattr(text_taker, "MAX_TAKEN_BYTES", 1_000_000)
    rng = random.Random(1)
    shown = Shown()
    for _ in range(60):
        shown.feed(b"".join(b"%x\r\n" % rng.getrandbits(128) for _ in range(2000)))
    taken, _ = shown.save()
    assert 0 < len(taken) < 70_000
    assert taken[-1].number == shown.emulator.history_line - 1
    shown.close()


TEXT = [
    "a",
    "word ",
    "longer words of text ",
    "é😀",
    "你好",
    "x" * 50,
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\x1b[31m",
    "\x1b[m",
]
MOVES = ["\x1b[A", "\x1b[H", "\x1b[5;5H", "\r", "\b", "\x1b[K", "\x1b7", "\x1b8", "\x1b[9b"]
NARROW = [word for word in TEXT if word.isascii()]  # a wide character leaves a blank row in one column


def letters(text: str) -> list[str]:
    """Return lines without blanks, and no blank ones: what a resize leaves of blank cells is another matter."""
    return [line for line in text.replace(" ", "").split("\n") if line]


@pytest.mark.parametrize("seed", range(60))
def test_all_lines_of_random_output_are_taken(seed: int) -> None:
    """They are those that a terminal with an unlimited history has, wherever the output is split and resized."""
    rng = random.Random(seed)
    cols, rows = rng.choice([(1, 2), (7, 3), (40, 10), (80, 24)])
    shown = Shown(cols, rows, lines=rng.choice([30, 10_000]))
    whole = Emulator(cols, rows, max_scrollback_lines=10**7, scrollback_max_bytes=1 << 34)
    taken: list[Line] = []
    for _ in range(rng.randrange(3, 20)):
        words = [*(TEXT if cols > 1 else NARROW), *(MOVES if seed % 2 else [])]
        data = "".join(rng.choices(words, k=rng.randrange(1, 200))).encode()
        start = 0
        while start < len(data):
            end = start + rng.randrange(1, len(data) + 1)
            shown.feed(data[start:end])
            start = end
        whole.feed(data)
        if rng.random() < 0.2:
            taken += shown.save()[0]
        if rng.random() < 0.1 and not seed % 2:
            cols, rows = rng.randrange(2 if cols > 1 else 1, 90), rng.randrange(1, 30)
            shown.resize(cols, rows)
            whole.resize(cols, rows)
    more, tail = shown.save()
    assert tail is not None
    text = text_taker.clean(whole.text_from(0, 0) + b"\n").decode()
    ours = letters("\n".join(numbered(taken + more + tail)))
    # The formatter that has made the text ends a line where a row wraps that was erased; the terminal does not.
    assert "".join(ours) == "".join(letters(text)) if seed % 2 else ours == letters(text)
    assert shown.emulator.history_line == whole.history_line
    whole.close()
    shown.close()


@pytest.mark.parametrize("seed", range(40))
def test_taking_changes_no_picture(seed: int) -> None:
    """Whatever a program prints, the picture is that of a terminal from which nothing is taken; numbers only grow."""
    operations = noise(seed)
    size = next(operations)
    assert isinstance(size, tuple)
    shown, plain = Shown(*size), Emulator(*size)
    for number, operation in enumerate(operations):
        if isinstance(operation, tuple):
            shown.resize(*operation)
            plain.resize(*operation)
        else:
            shown.feed(operation)
            plain.feed(operation)
        shown.pass_time(number * 300)
    assert shown.emulator.dump() == plain.dump()
    taken, _ = shown.save()
    numbers = [line.number for line in taken if line.number != NO_NUMBER]
    assert numbers == sorted(set(numbers))
    shown.close()
    plain.close()


@pytest.mark.parametrize("character", ["x", "字"])
def test_a_few_bytes_have_no_gigabyte_of_text(shown: Shown, character: str) -> None:
    """What REP draws of a letter is taken up to a bound, and what is printed behind it as ever."""
    shown.feed(count(0, 20))
    shown.feed(character.encode() + b"\x1b[65535b" * 500)  # 32 million cells
    shown.feed(b"\r\n" + count(20, 20_000))
    lines, _ = shown.save()
    assert sum(len(line.text.encode()) for line in lines) < 16 << 20
    found = [line.text for line in lines if line.text.startswith("line ")]
    assert found[:20] == [f"line {number}" for number in range(20)]
    assert found[-1] == "line 19990"
    assert len(found) > 19_000
