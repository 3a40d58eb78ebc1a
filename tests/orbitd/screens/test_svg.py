"""A screen as an SVG picture: what XML and viewers get of it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from orbitd.screens import svg
from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Colors, Cut, TooLarge
from terminal_support import noise, play

NAMESPACE = "{http://www.w3.org/2000/svg}"
COLORS = Colors(foreground=(1, 2, 3), background=(250, 251, 252), cursor=(9, 9, 9), palette=((16, 0, 0), (17, 0, 0)))


def drawn(data: bytes, cols: int = 40, rows: int = 4, *, cursor: bool = False, colors: Colors = COLORS) -> str:
    """Return the picture of a terminal that was fed this."""
    with Emulator(cols, rows) as emulator:
        emulator.feed(data)
        return emulator.screen("svg", cursor=cursor, colors=colors).decode()


def texts(picture: str) -> list[ElementTree.Element]:
    """Return the pieces of text in a picture."""
    return list(ElementTree.fromstring(picture).iter(f"{NAMESPACE}text"))


def placed(picture: str, rows: int) -> list[str]:
    """Return the rows of text that a picture shows, by where its pieces are; wide characters take one place."""
    lines = [""] * rows
    for piece in texts(picture):
        row, column = (int(piece.attrib["y"]) - 14) // 18, int(piece.attrib["x"]) // 9
        assert len(lines[row]) <= column
        width = int(piece.attrib.get("textLength", "9")) // 9
        lines[row] = lines[row].ljust(column) + (piece.text or "").ljust(width)
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("first", range(0, 100, 50))
def test_noise_is_a_whole_document_with_the_text_of_the_screen(first: int) -> None:
    """Whatever was printed, the picture is XML without scripts and references, and holds each visible character."""
    for seed in range(first, first + 50):
        with play(noise(seed)) as emulator:
            picture = emulator.screen("svg", cursor=True).decode()
            rows = emulator._terminal.screen_rows()
        root = ElementTree.fromstring(picture)
        assert {each.tag.removeprefix(NAMESPACE) for each in root.iter()} <= {"svg", "g", "path", "text"}
        assert not {name for each in root.iter() for name in each.attrib} & {"style", "class", "href", "id", "onload"}
        shown = "".join(cell for row in rows for run in row.runs if not run.style.invisible for cell in run.cells)
        shown = re.sub("[ \u2500-\u2570\u2574-\u259f]", "", shown)  # boxes are drawn
        found = "".join(each.text or "" for each in root.iter(f"{NAMESPACE}text")).replace(" ", "")
        assert svg.FORBIDDEN.sub("\ufffd", shown) == found, seed


def test_text_stands_in_its_columns() -> None:
    """Each piece begins in its column, also behind wide, combined and unusual characters."""
    data = "one  two\tthree\r\n世界 x 🎉 e\u0301 ➜ y\r\nété  œuvre".encode()
    with Emulator(40, 4) as emulator:
        emulator.feed(data)
        lines = emulator.screen().decode().splitlines()
    assert placed(drawn(data), 4) == ["one  two        three", "世界   x 🎉  e\u0301➜ y", "été  œuvre", ""]
    assert lines == ["one  two        three", "世界 x 🎉 e\u0301 ➜ y", "été  œuvre"]


def test_text_is_text() -> None:
    """Markup that a program prints is escaped, and what XML does not allow is replaced."""
    picture = drawn("</text><script>a&b</script>\ufffe\uffff \x1b]8;;javascript:x\x07link\x1b]8;;\x07".encode())
    assert placed(picture, 1)[0] == "</text><script>a&b</script>\ufffd\ufffd link"
    assert "<script" not in picture
    assert "javascript" not in picture


def test_colours_are_the_themes() -> None:
    """Defaults and palette are those that are given, but for what the program has set; other colours are kept."""
    picture = drawn(
        b"plain \x1b[31mred\x1b[m \x1b[38;2;5;6;7mtrue\x1b[m \x1b[38;5;231mwhite\x1b[m \x1b[7minverse\x1b[m"
    )
    fills = {each.text: each.attrib.get("fill") for each in texts(picture)}
    assert fills == {"plain": None, "red": "#110000", "true": "#050607", "white": "#ffffff", "inverse": "#fafbfc"}
    assert " fill='#010203'" in picture
    assert "<path fill='#fafbfc' d='M0 0h360v72H0z'/>" in picture
    changed = drawn(b"\x1b]4;1;#abcdef\x07\x1b]11;#123456\x07\x1b[31mred")
    assert texts(changed)[0].attrib["fill"] == "#abcdef"
    assert "<path fill='#123456' d='M0 0h360" in changed
    assert "<path fill='#010203' d='M0 0h360v72H0z'/>" in drawn(b"\x1b[?5hreverse video")


def test_styles_are_drawn() -> None:
    """Bold and italic are attributes; underlines in their colour, strike and overline are lines; nothing is hidden."""
    picture = drawn(
        b"\x1b[1mbold\x1b[m \x1b[3mital\x1b[m \x1b[2mfaint\x1b[m \x1b[8mhidden\x1b[m \x1b[5mblink\x1b[m\r\n"
        b"\x1b[4ma\x1b[4:2mb\x1b[4:3;58:5:1mc\x1b[59;4:4md\x1b[4:5me\x1b[m \x1b[9ms\x1b[m \x1b[53mo\x1b[m"
    )
    first = {each.text: each.attrib for each in texts(picture) if each.attrib["y"] == "14"}
    assert list(first) == ["bold", "ital", "faint", "blink"]
    assert first["bold"]["font-weight"] == "bold"
    assert first["ital"]["font-style"] == "italic"
    assert first["faint"]["fill"] == "#7e7e80"
    paths = re.findall("<path fill='none' stroke='(#[0-9a-f]+)'(?: stroke-dasharray='([^']+)')? d='([^']+)'", picture)
    assert paths == [
        ("#010203", "", "M0 34.5h9M9 33.5h9M9 35.5h9M54 27.5h9M72 18.5h9"),
        ("#110000", "", "M18 34q2.25-3 4.5 0t4.5 0"),
        ("#010203", "1.5", "M27 34.5h9"),
        ("#010203", "4.5 2.25", "M36 34.5h9"),
    ]


def test_backgrounds_that_touch_are_one_rectangle() -> None:
    """Cells of one background are one rectangle in each row, and one for rows in which they are the same."""
    picture = drawn(b"\x1b[41mab\x1b[32mc\x1b[m\r\n\x1b[41;2mx\x1b[m\x1b[41mxx\x1b[m \x1b[41m\x1b[K\x1b[m", 10, 2)
    group = re.search("<g transform='scale.9 18.' shape-rendering='crispEdges'>(.*?)</g>", picture)
    assert group is not None
    assert group[1] == "<path fill='#110000' d='M0 0h3v2h-3zM4 1h6v1h-6z'/>"
    assert "M0 0h10v2h-10z" in drawn(b"\x1b[41m\x1b[2J", 10, 2)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        (b"", "<path fill='#090909' d='M1 0h1v1h-1z'/>"),
        (b"\x1b[2 q", "<path fill='#090909' d='M1 0h1v1h-1z'/>"),
        (b"\x1b[3 q", "<path fill='#090909' d='M9 0m0 16h9v2h-9z'/>"),
        (b"\x1b[6 q", "<path fill='#090909' d='M9 0h2v18h-2z'/>"),
        (b"\x1b[?25l", ""),
    ],
)
def test_the_cursor_has_its_shape(shape: bytes, found: str) -> None:
    """A block, a line under or before the character that it is on, or none; without `cursor` there is none at all."""
    data = shape + b"ab\x1b[D"
    picture = drawn(data, cursor=True)
    assert ("#090909" in picture) == bool(found)
    assert found in picture
    block = [each.attrib.get("fill") for each in texts(picture) if each.text == "b"]
    assert block == (["#fafbfc"] if "h1v1" in found else [None] if found else [])
    assert "#090909" not in drawn(data)


def test_the_cursor_covers_a_wide_character() -> None:
    """On either half of it; behind the text of a row it stands on a blank."""
    for data in ("世界\x1b[1;3H", "世界\x1b[1;4H"):
        assert "d='M2 0h2v1h-2z'" in drawn(data.encode(), cursor=True)
    assert "d='M7 2h1v1h-1z'" in drawn(b"a\x1b[3;8H", cursor=True)
    assert "d='M39 0h1v1h-1z'" in drawn(b"x" * 40, cursor=True)


def test_part_of_the_history_is_drawn_with_the_cursor_in_its_place() -> None:
    """A part is as high as its lines; the cursor is drawn where it is among them."""
    with Emulator(20, 3) as emulator:
        emulator.feed(b"".join(b"line %d\r\n" % number for number in range(20)) + b"$ ")
        part = emulator.screen("svg", cut=Cut(first=-2, lines=2), cursor=True, colors=COLORS).decode()
        assert placed(part, 2) == ["line 19", "$"]
        assert "height='36'" in part
        assert "M2 1h1v1h-1z" in part
        part = emulator.screen("svg", cut=Cut(first=5, lines=2), cursor=True, colors=COLORS).decode()
        assert placed(part, 2) == ["line 5", "line 6"]
        assert "#090909" not in part
        assert "height='0'" in emulator.screen("svg", cut=Cut(first=50)).decode()


def test_more_than_a_picture_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen with more pieces than are drawn is refused, and does not take minutes."""
    monkeypatch.setattr(svg, "MAX_PIECES", 40)
    assert drawn(b"\x1b[31mx\x1b[32mx" * 9 + b"\x1b[31mx")
    with pytest.raises(TooLarge):
        drawn(b"\x1b[31mx\x1b[32mx" * 11)


def test_the_largest_screens_are_drawn() -> None:
    """At the bounds of a terminal's size, full of text, a picture is drawn all the same."""
    for cols, rows in ((4096, 244), (244, 4096), (1, 4096), (4096, 1), (1, 1)):
        picture = drawn(b"word " * (cols * rows // 5), cols, rows, cursor=True)
        assert picture.count("<text") >= rows * 3 // 4


SHELL = (
    b"\x1b]0;shop\x07"
    + b"\x1b[1;32mada@shop\x1b[m:\x1b[1;34m~/src\x1b[m$ ls\r\n"
    + b"Makefile  README.md  src\r\n" * 20
)
WORDS = b"\x1b[3%dmdef\x1b[m \x1b[1;3%dmname\x1b[m(\x1b[4%dmself\x1b[m) -> \x1b[38;5;%dmtuple\x1b[m, 'text of a line'  "


def test_pictures_are_small() -> None:
    """A shell's screen takes less than 4 kB, and a dense one, in colours everywhere, less than 25 kB."""
    assert len(drawn(SHELL, 80, 24, cursor=True)) < 4096
    dense = b"".join(WORDS % (row % 8, row % 7, row % 5, row + 100) * 2 + b"\r\n" for row in range(24))
    assert len(drawn(dense, 80, 24, cursor=True)) < 25_000
