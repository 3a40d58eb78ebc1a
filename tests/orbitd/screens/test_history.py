"""History is drawn and written by the library where that gives the same as reading it row by row, and only there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orbitd.screens._ghostty_rows import GROUPS, RowReader
from orbitd.screens._ghostty_snapshot import SnapshotScreen, parse
from orbitd.screens._ghostty_terminal import Terminal
from orbitd.screens.emulator import Emulator, StateHeader
from orbitd.screens.model import PLAIN, DrawnRows, Row, Style
from orbitd.screens.render import style_of_sgr
from orbitd.screens.vt_writer import sgr
from terminal_support import Operation, noise, play

_STYLES = [
    "",
    "1",
    "4",
    "4:3",
    "31",
    "41",
    "97",
    "48;5;99",
    "38;2;1;200;3",
    "7",
    "9",
    "53",
    "58:2::1:2:3",
    "58:5:9",
    "2;3",
]
_ERASES = ["K", "1K", "2K", "3X", "J", "3P", "2@", "L", "M", "2S", "2T", "4b"]
PIECES: dict[str, Callable[[random.Random, int], str]] = {
    "ASCII": lambda rng, cols: "".join(rng.choices("abc XYZ  .~?@", k=rng.randrange(2 * cols + 9))),
    "wide": lambda rng, cols: "".join(rng.choices("aé─│»…あ你한 ω ж\uff46", k=rng.randrange(2 * cols + 9))),
    "clusters": lambda rng, cols: "".join(
        rng.choices("a 😀☃\u0301\u200d\ufe0f🇩🇪\u0085é👍🏽", k=rng.randrange(cols + 9))
    ),
    "style": lambda rng, _: f"\x1b[{rng.choice(_STYLES)}m",
    "lines": lambda rng, _: "\r\n" * rng.randrange(1, 4),
    "tabs": lambda rng, _: "a\tb\t",
    "erase": lambda rng, _: f"\x1b[{rng.choice(_ERASES)}",
    "move": lambda rng, cols: f"\x1b[{rng.randrange(1, 9)};{rng.randrange(1, cols + 2)}H",
    "protect": lambda rng, _: f'\x1b[{rng.randrange(2)}"q',
    "link": lambda rng, _: rng.choice(["\x1b]8;;http://x/1\x1b\\", "\x1b]8;id=a;http://y/\x07", "\x1b]8;;\x07"]),
    "prompt": lambda rng, _: f"\x1b]133;{rng.choice('ABC')}\x07",
    "back": lambda rng, _: rng.choice(["\b", "\r", "\x1b[7D"]),
    "alternate": lambda rng, _: f"\x1b[?1049{rng.choice('hl')}",
}


def output(seed: int) -> Iterator[Operation]:
    """Yield a first size, and then output of some kinds, with resizes, so that much of it scrolls away."""
    rng = random.Random(seed)
    cols, rows = rng.choice([(20, 5), (7, 3), (40, 10), (80, 24), (2, 3), (1, 1)])
    yield cols, rows
    kinds = [*rng.sample(list(PIECES), rng.randrange(1, 7)), "lines", "ASCII"]
    for _ in range(rng.randrange(20, 200)):
        if rng.random() < 0.01:
            cols, rows = 1 + rng.randrange(60), 1 + rng.randrange(20)
            yield cols, rows
        else:
            yield PIECES[rng.choice(kinds)](rng, cols).encode()


def row_by_row(
    terminal: Terminal, first: int, last: int, snapshot: SnapshotScreen | None = None, *, unwrap: bool = True
) -> Iterator[Row]:
    """Read history as it was read before the library drew any of it."""
    return terminal.rows(first, last, snapshot)


def drawn(emulator: Emulator, data: bytes) -> Emulator:
    """Return a fresh terminal of the same size that was fed with a repaint."""
    copy = Emulator(*emulator.size)
    copy.feed(data)
    return copy


def are_equal(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether both ways to draw the history give the same terminal, text and HTML."""
    fast, html = emulator.repaint(100_000), emulator.screen("html", scrollback=True)
    text = emulator.screen("text", scrollback=True)
    with monkeypatch.context() as patch:
        patch.setattr(Terminal, "drawn_rows", row_by_row)
        patch.setattr(Terminal, "plain_text", lambda *_: None)
        slow = emulator.repaint(100_000)
        if html != emulator.screen("html", scrollback=True) or text != emulator.screen("text", scrollback=True):
            return False
    with drawn(emulator, fast) as one, drawn(emulator, slow) as other:
        for copy in (one, other):
            copy.feed(b"\x18\x1b\\\x1b[?1049l")
        return one.history() == other.history() and one.dump() == other.dump()


@pytest.mark.parametrize("first", range(0, 160, 20))
def test_history_drawn_by_the_library_is_the_same(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells, styles, links, blanks and wraps are those of the row-by-row way; so are text and HTML."""
    for seed in range(first, first + 20):
        with play(output(seed)) as emulator:
            assert are_equal(emulator, monkeypatch), seed


def test_history_of_noise_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is for random sequences."""
    for seed in range(2000, 2060):
        with play(noise(seed)) as emulator:
            assert are_equal(emulator, monkeypatch), seed


SIMPLE_LINES = {
    "plain": b"plain text",
    "coloured": b"\x1b[1;31merror\x1b[m: \x1b[38;5;99mx\x1b[48;2;1;2;3my\x1b[m",
    "underlines": b"\x1b[4:3;58:2::1:2:3mcurly\x1b[4;58:5:7msingle\x1b[m",
    "empty": b"",
    "wrapped": b"0123456789" * 9,
    "wrapped and coloured": b"\x1b[44m" + b"0123456789" * 8 + b"\x1b[m",
    "accents and boxes": "é ─│┌ → ж ω".encode(),
    "wide": "你好 한국어".encode(),
    "prompt": b"\x1b]133;A\x07$ \x1b]133;B\x07ls\x1b]133;C\x07",
}


@pytest.mark.parametrize("name", SIMPLE_LINES)
def test_the_library_draws_what_is_usual(name: str) -> None:
    """Lines of usual output are all drawn at once, and restored as they were, wraps included."""
    with Emulator(40, 5) as emulator:
        emulator.feed(b"begin\r\n" + (SIMPLE_LINES[name] + b"\r\nend\r\n") * 100 + b"end\r\n" * 5)
        (history,) = emulator._terminal.drawn_rows(0, emulator.scrollback_rows)
        assert isinstance(history, DrawnRows)
        assert "\x1b[58;" not in history.text  # with semicolons, others take the colour of an underline for attributes
        with drawn(emulator, emulator.repaint(1000)) as copy:
            assert copy.history() == emulator.history()
            assert copy.dump() == emulator.dump()


def test_html_of_drawn_text_is_escaped() -> None:
    """What a program prints is text in the HTML of history as well, and a link to a script is none."""
    with Emulator(80, 5) as emulator:
        emulator.feed(b"\x1b[1m</pre><script>\x1b[m\"&'\r\n\x1b]8;;javascript:x\x07link\x1b]8;;\x07" + b"\r\n" * 9)
        html = emulator.screen("html", scrollback=True)
    assert b'<span style="font-weight:bold">&lt;/pre&gt;&lt;script&gt;</span>&quot;&amp;&#x27;\nlink\n' in html
    assert b"<script" not in html
    assert b"javascript" not in html


@pytest.mark.parametrize(
    "style",
    [
        PLAIN,
        Style(bold=True, faint=True, italic=True, blink=True, inverse=True, invisible=True, strikethrough=True),
        Style(overline=True, underline=1, fg=1, bg=250),
        Style(underline=3, fg=(1, 2, 3), bg=(0, 0, 0), underline_color=(255, 0, 9)),
        Style(underline=2, underline_color=7, fg=0),
    ],
)
def test_styles_are_read_back_from_sgr(style: Style) -> None:
    """The style that the formatter's sequences set is the style of the cell, whatever was set before."""
    with Emulator(40, 5) as emulator:
        emulator.feed(b"\x1b[7m-" + sgr(style).encode() + b"x\x1b[m" + b"\r\n" * 9)
        (history, *_) = emulator._terminal.drawn_rows(0, 1)
        assert isinstance(history, DrawnRows)
        sequences = history.text.split("-")[1].split("x")[0]
        assert style_of_sgr("\x1b[1;4m".replace(";", "m\x1b[") + sequences) == style


OTHER_LINES = {
    "tabs": b"a\tb",
    "gap": b"\x1b[41mred\x1b[m\x1b[5Cx",
    "background": b"\x1b[42mx\x1b[K\x1b[m",
    "link": b"\x1b]8;id=1;http://a\x07a\x1b]8;;\x07",
    "cluster": "e\u0301".encode(),
    "emoji": "😀".encode(),
    "protected": b'\x1b[1"qx\x1b[0"q',
}


@pytest.mark.parametrize("name", OTHER_LINES)
def test_the_rest_is_read_row_by_row(name: str) -> None:
    """The formatter fills gaps with the pen's style, leaves out links and protection, and draws no background alone."""
    with Emulator(40, 5) as emulator:
        emulator.feed(b"before\r\n" * 3 + OTHER_LINES[name] + b"\r\nafter" * 9)
        parts = list(emulator._terminal.drawn_rows(0, emulator.scrollback_rows))
        assert [type(part) for part in parts] == [DrawnRows, Row, DrawnRows]
        with drawn(emulator, emulator.repaint(1000)) as copy:
            assert copy.history() == emulator.history()


def test_a_line_that_wraps_into_the_screen_stays_one_line() -> None:
    """A line whose first rows are history is joined again where a repaint has been resized."""
    with Emulator(20, 5) as emulator:
        emulator.feed(b"y" * 50 + b"\r\nm\r\nn\r\no")
        assert emulator.scrollback_rows == 1
        with drawn(emulator, emulator.repaint(1000)) as copy:
            assert (copy.history(), copy.dump()) == (emulator.history(), emulator.dump())
            for terminal in (emulator, copy):
                terminal.resize(60, 5)
            assert copy.screen(scrollback=True) == emulator.screen(scrollback=True) == b"y" * 50 + b"\nm\nn\no\n"


@pytest.mark.parametrize(
    ("last", "letter"),
    [("text", b"B"), ("blank", b"R"), ("mark", b"R"), ("background", b"o"), ("styled blank", b"o"), ("link", b"o")],
)
def test_a_row_that_wraps_is_full_only_with_text_at_its_end(last: str, letter: bytes) -> None:
    """A blank cell of a prompt is no text, though it is not zero."""
    with Emulator(4, 2) as emulator:
        reader = RowReader(emulator._terminal.library, emulator._terminal.pointer)
        layout = reader._layout
        mark, text = layout.semantic & -layout.semantic, ord("x") << layout.content_shift
        cells = {
            "text": text,
            "blank": 0,
            "mark": mark,
            "background": layout.palette | 3 << layout.content_shift,
            "styled blank": 1 << layout.style_shift,
            "link": text | layout.hyperlink,
        }
        raw = b"".join(cell.to_bytes(8, "little") for cell in (text, text | mark, text, cells[last]))
        assert reader._classify_chunk([raw], [layout.row_wraps])[0] == letter


def letters_of(emulator: Emulator) -> tuple[bytes, bytes]:
    """Return the letters of all rows as they are read, and as the snapshot tells them."""
    terminal, rows = emulator._terminal, emulator.size[1]
    _, data = StateHeader.split(emulator.encode())
    screens, last = parse(data), emulator.scrollback_rows + rows
    assert screens is not None
    with RowReader(terminal.library, terminal.pointer) as reader:
        read, _ = reader.classify(0, last, rows)
    with RowReader(terminal.library, terminal.pointer, screens[emulator.alternate]) as reader:
        assert reader.classify(0, last, rows)[0] == read
        plain = reader._plain_rows(0, last, rows)
        assert reader._plain_rows(last // 2, last - 1, rows) == plain[last // 2 : last - 1]
        return read, plain


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_what_the_snapshot_tells_of_rows_is_what_is_read(first: int) -> None:
    """A row that it tells has the letter that reading its cells gives; the rest is left to reading."""
    told = 0
    for seed in range(first, first + 50):
        for operations in (output(seed), noise(seed)):
            with play(operations) as emulator:
                read, plain = letters_of(emulator)
            assert len(plain) == len(read)
            assert [letter for letter, other in zip(read, plain, strict=True) if other not in (0, letter)] == [], seed
            told += len(plain) - plain.count(0)
    assert told > 100


def test_plain_text_is_not_read_cell_by_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of ASCII, wrapped and coloured or not, need no reading for a repaint; a few around another one do."""
    read: list[int] = []
    classify_chunk = RowReader._classify_chunk

    def counted(self: RowReader, raw: list[bytes], flags: list[int]) -> Any:
        read.append(len(raw))
        return classify_chunk(self, raw, flags)

    monkeypatch.setattr(RowReader, "_classify_chunk", counted)
    with Emulator(20, 5) as emulator:
        emulator.feed(b"plain \x1b[1;31mtext\x1b[m\r\n" * 500 + b"\r\n" + b"0123456789" * 9 + b"\r\nplain\r\n" * 500)
        repaint = emulator.repaint(100_000)
        assert read == []
        emulator.feed("é\r\n".encode() + b"plain text\r\n" * 500)
        emulator.repaint(100_000)
        assert len(read) == 1
    assert repaint.count(b"plain") == 1000


@pytest.mark.parametrize(
    ("letters", "groups"),
    [
        (b"LLELEE", [b"LLEL", b"EE"]),
        (b"BMMFLBF", [b"BMMFLBF"]),
        (b"OOLoF", [b"OO", b"L", b"o", b"F"]),
        (b"BELF", [b"B", b"E", b"L", b"F"]),
        (b"LeFRL", [b"L", b"e", b"FR", b"L"]),
        (b"LRLBRL", [b"LR", b"LBR", b"L"]),
        (b"BOBMrL", [b"B", b"O", b"BMr", b"L"]),
    ],
)
def test_groups_end_where_the_formatter_differs(letters: bytes, groups: list[bytes]) -> None:
    """A wrapped line is in one group, and none begins or ends in one that the formatter would join otherwise."""
    assert GROUPS.findall(letters) == groups
    assert b"".join(groups) == letters
