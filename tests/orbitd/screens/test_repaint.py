"""A repaint draws the same terminal anywhere, in the state that the program believes it to be in."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from orbit_protocol.terminal_reset import ENTER, RESET, RESTORE, RESTORE_COLORS
from orbitd.screens._ghostty_snapshot import parse
from orbitd.screens.emulator import Emulator, StateHeader
from orbitd.screens.model import Link, Row
from terminal_support import noise, play, shown

SEEDS = range(0, 120, 10)

SCREENS = {
    "empty": b"",
    "text": b"one\r\ntwo\r\n\r\nfour",
    "palette colours": b"".join(b"\x1b[38;5;%dm%d\x1b[48;5;%dm " % (n, n, 255 - n) for n in range(0, 256, 3)),
    "24-bit colours": b"".join(b"\x1b[38;2;%d;0;9m\x1b[48;2;1;%d;0mx" % (n, n) for n in range(0, 256, 3)),
    "styles": b"".join(b"\x1b[%dmx\x1b[0m" % n for n in (1, 2, 3, 4, 5, 7, 8, 9, 21, 53)),
    "underlines": b"".join(b"\x1b[4:%d;58:2::9:8:%dmx\x1b[0m" % (n, n) for n in range(6)) + b"\x1b[4;58:5:7my",
    "every style at once": b"\x1b[1;2;3;5;7;8;9;53;4:3m\x1b[38;2;1;2;3m\x1b[48;2;4;5;6m\x1b[58:2::7:8:9mx",
    "hyperlinks": b"\x1b]8;;http://a\x07a\x1b]8;;http://b\x07b\x1b[5Cb\x1b]8;;\x07c\r\n\x1b]8;id=1;http://c;d?e\x1b\\f",
    "combining": "e\u0301o\u0302\u0323 a\u200db x\ufe0f".encode(),
    "wide": "你好, 世界 한국어 \uff46\uff55".encode(),
    "wide at the edge": ("x" * 39 + "你" + "y" * 39 + "好").encode(),
    "emoji": "😀 👍🏽 🇩🇪 ☃️ 👩‍👩‍👧 1️⃣".encode(),
    "right to left": "שלום עולם مرحبا".encode(),
    "a line of 500 columns": b"0123456789" * 50,
    "coloured line of 500 columns": b"\x1b[44m" + b"0123456789" * 50 + b"\x1b[m",
    "coloured blanks": b"\x1b[44m\x1b[2J\x1b[3;3Hx\x1b[41m\x1b[K\x1b[5;9H\x1b[42m\x1b[7X\x1b[0m\x1b[6;1Hy",
    "blanks and spaces": b"a\x1b[5Cb     c\x1b[1;30H   ",
    "cursor and pen": b"text\x1b[4;7H\x1b[1;35m",
    "pending wrap": b"\x1b[3;1H\x1b[32m" + b"z" * 40,
    "pending wrap on a wide character": b"\x1b[3;39H" + "你".encode() + b"\x1b[7m",
    "cursor shapes": b"\x1b[5 q\x1b[?25l",
    "blinking default cursor": b"\x1b[?12h",
    "scroll region and origin": b"abc\x1b[3;6r\x1b[?6h\x1b[2;4H",
    "left and right margins": b"abc\x1b[?69h\x1b[5;30s\x1b[2;7r\x1b[?6h\x1b[2;4H",
    "pending wrap in margins": b"\x1b[?69h\x1b[5;30s\x1b[4;5H" + b"m" * 26,
    "tab stops": b"\x1b[3g\x1b[5G\x1bH\x1b[12G\x1bH\x1b[H\ta\tb",
    "charsets": b"\x1b(0lqqk\x1b(B\x1b)0\x0eaaa",
    "keycaps": "1️⃣2️⃣#️⃣ 3\u20e3x".encode(),
    "modes": b"\x1b[?1h\x1b=\x1b[?2004h\x1b[?1003h\x1b[?1006h\x1b[?1004h\x1b[4h\x1b[20h\x1b[?7l\x1b[?5h\x1b[?1007l",
    "keyboard": b"\x1b[>1u\x1b[>5u\x1b[>4;2m",
    "saved cursor": b"\x1b[4;9H\x1b[36m\x1b7\x1b[m\x1b[H",
    "saved cursor in origin mode": b"\x1b[3;6r\x1b[?6h\x1b[2;4H\x1b7\x1b[?6l\x1b[H",
    "title and folder": "\x1b]2;ein Tïtel; mit Strich\x07\x1b]7;file://h/t%20mp\x07".encode(),
    "icon and progress": "\x1b]2;window\x07\x1b]1;ein Ïcon; mit Strich\x07\x1b]9;4;2;30\x07".encode(),
    "one title for both, and progress without an end": b"\x1b]0;both\x1b\\\x1b]9;4;3\x07",
    "icon without a title": b"\x1b]0;both\x1b\\\x1b]2;\x07\x1b]9;4;1;0\x07",
    "colours of its own": b"\x1b]4;5;#112233\x07\x1b]10;#010203\x07\x1b]11;#040506\x07\x1b]12;#070809\x07",
    "protected": b'a\x1b[1"qbc\x1b[0"qd\x1b[1"q',
    "alternate": b"shell$ vim\r\n\x1b[31m\x1b[?1049h\x1b[2J\x1b[3;3Hfull screen\x1b[2;8r\x1b[?1h\x1b[>1u",
    "alternate the old way": b"shell$ vi\r\n\x1b7\x1b[?47h\x1b[2J\x1b[3;3Hfull screen",
    "alternate, 1047": b"shell$ vi\r\n\x1b[?1048h\x1b[?1047h\x1b[3;3Hfull screen\x1b7",
}
PROMPTS = {
    "a prompt": b"\x1b]133;A\x07$ ",
    "input": b"\x1b]133;A\x07$ \x1b]133;B\x07ls",
    "input until the line ends": b"\x1b]133;A\x07$ \x1b]133;I\x07ls",
    "a prompt of two rows": b"\x1b]133;A\x07~/folder\r\n$ \x1b]133;B\x07ls",
    "input of two rows": b"\x1b]133;A\x07$ \x1b]133;B\x07if x\r\n\x1b]133;A;k=s\x07> \x1b]133;B\x07then",
    "output begins": b"\x1b]133;A\x07$ \x1b]133;B\x07ls\r\n\x1b]133;C\x07",
    "output": b"\x1b]133;A\x07$ \x1b]133;B\x07ls\r\n\x1b]133;C\x07out\r\n",
    "output in the prompt's row": b"\x1b]133;A\x07$ \x1b]133;B\x07ls\x1b]133;C\x07 out",
    "ended in the prompt's row": b"\x1b]133;A\x07$ \x1b]133;B\x07ls\x1b]133;D\x07\r",
    "a prompt on the right": b"\x1b]133;A\x07$ \x1b]133;B\x07\x1b[30G\x1b]133;P;k=r\x07right\x1b[3G\x1b]133;B\x07",
    "an empty row with a mark": b"\x1b]133;A\x07$ \r\x1b[K\x1b[4;1H",
    "erased to blanks of a colour": b"\x1b]133;A\x07\x1b[44m$ \x1b]133;B\x07ls\r\x1b[2X\x1b[m\x1b[5G",
    "wide characters": "\x1b]133;A\x07你 \x1b]133;B\x07好 é\r\n\x1b]133;C\x07한\r\n".encode(),
    "a prompt that wraps": b"\x1b]133;A\x07" + b"p" * 50 + b"\x1b]133;B\x07" + b"i" * 50 + b"\r\n\x1b]133;C\x07out\r\n",
    "output that wraps": b"\x1b]133;A\x07$ \x1b]133;B\x07ls\r\n\x1b]133;C\x07" + b"o" * 100 + b"\r\n\x1b]133;D\x07",
    "coloured": b"\x1b]133;A\x07\x1b[1;42m$ \x1b[m\x1b]133;B\x07l\x1b[31ms"
    + b"x" * 50
    + b"\x1b[m\r\n\x1b]133;C\x07out\r\n",
    "on the alternate screen": b"\x1b]133;A\x07$ \x1b]133;B\x07vi\x1b[?1049h\x1b[H\x1b]133;A\x07> ",
    "behind the alternate screen": b"\x1b]133;A\x07$ \x1b]133;B\x07vi\r\n\x1b]133;C\x07\x1b[?1049h\x1b[H\x1b[Jtext",
}
UNFINISHED = {
    "half a title": b"\x1b]2;half",
    "half a sequence": b"\x1b[3",
    "half an image": b"\x1bPq#0",
    "half a character": "€".encode()[:2],
}
LEAVING = b"\x1b8-\x1b[<u\x1b[?1049l+\x1b[?47l\x1b8!\t?\x1b[<u\r\nx"


def copy_of(emulator: Emulator, before: bytes = b"", *, lines: int = 0) -> Emulator:
    """Return a fresh terminal of the same size that has been drawn on."""
    copy = Emulator(*emulator.size)
    copy.feed(before)
    copy.feed(emulator.repaint(lines))
    return copy


@pytest.mark.parametrize("name", SCREENS)
def test_a_repaint_draws_the_same_screen(name: str) -> None:
    """Every cell, style, link, mode and the cursor are equal, wraps of lines included, and so they stay later."""
    with Emulator(40, 10) as original:
        original.feed(SCREENS[name])
        with copy_of(original) as copy:
            assert copy.dump() == original.dump()
            assert copy.repaint() == original.repaint()
            for emulator in (original, copy):
                emulator.feed(LEAVING)
            assert copy.dump() == original.dump()


@pytest.mark.parametrize("name", [*SCREENS, *UNFINISHED, *PROMPTS])
def test_reset_makes_any_terminal_ready_for_a_repaint(name: str) -> None:
    """After RESET no trace is left of what the client's terminal showed, was set to, or was in the middle of."""
    dirt = (
        ENTER
        + {**SCREENS, **UNFINISHED, **PROMPTS}[name]
        + RESTORE_COLORS
        + RESET
        + b"\x1b]0;\x07\x1b]7;\x07\x1b]9;4;0\x07"
    )
    for wanted in ("text", "modes", "alternate", "wide at the edge", "left and right margins"):
        with Emulator(40, 10) as original:
            original.feed(SCREENS[wanted])
            with copy_of(original, dirt) as copy:
                assert shown(copy.dump()) == shown(original.dump()), wanted


@pytest.mark.parametrize("first", SEEDS)
def test_a_repaint_of_anything_draws_the_same_screen(first: int) -> None:
    """After any output and any resizes, a repaint on a fresh terminal shows the same."""
    for seed in range(first, first + 10):
        with play(noise(seed)) as original, copy_of(original) as copy:
            assert shown(copy.dump()) == shown(original.dump()), seed


def test_a_repaint_in_the_middle_of_a_sequence_lets_the_program_finish_it() -> None:
    """What is half read comes last, so that a client which then gets the program's next output understands it."""
    for head, tail in ((b"\x1b[3", b"1mred"), (b"\x1b]2;ti", b"tle\x07x"), ("€".encode()[:2], "€".encode()[2:] + b"1")):
        with Emulator(40, 10) as original:
            original.feed(b"text " + head)
            with copy_of(original) as copy:
                for emulator in (original, copy):
                    emulator.feed(tail)
                assert copy.dump() == original.dump()


def test_history_scrolls_into_the_clients_own() -> None:
    """Lines of history pass through the screen first, newest last, long ones whole, and the screen is the same."""
    with Emulator(20, 5) as original:
        for number in range(300):
            original.feed(b"\x1b[3%dmline %d\x1b[m" % (number % 8, number) + b" long" * (number % 7) + b"\r\n")
        for lines in (1, 3, 50, 10_000):
            with copy_of(original, lines=lines) as copy:
                assert copy.dump().lines == original.dump().lines
                assert copy.scrollback_rows == min(lines, original.scrollback_rows)
                expected = original.history(lines)
                assert [row.runs for row in copy.history()] == [row.runs for row in expected]
                assert [row.wraps for row in copy.history()][:-1] == [row.wraps for row in expected][:-1]


def test_history_behind_the_alternate_screen() -> None:
    """With a full-screen program in front, it is the shell's history that scrolls by, and the shell is still behind."""
    with Emulator(20, 5) as original:
        original.feed(b"".join(b"line %d\r\n" % number for number in range(50)) + b"$ vim\x1b[?1049h\x1b[Hvim")
        with copy_of(original, lines=10) as copy:
            assert copy.dump() == original.dump()
            for emulator in (original, copy):
                emulator.feed(b"\x1b[?1049l\r\n$ ")
            assert copy.dump() == original.dump()
            assert copy.scrollback_rows == 11


def test_no_palette_unless_the_program_set_one() -> None:
    """A client's own colours are left alone; only what the program changed is set, and can be taken back."""
    with Emulator(40, 10) as emulator:
        emulator.feed(b"\x1b[31mred\x1b[38;5;99m99")
        assert b"\x1b]" not in emulator.repaint()
        emulator.feed(b"\x1b]4;7;#102030\x07")
        assert emulator.repaint().count(b"\x1b]4;") == 1
        emulator.feed(RESTORE_COLORS)
        assert b"\x1b]" not in emulator.repaint()


def test_only_sequences_that_others_know() -> None:
    """A repaint is UTF-8 of printable text, CR, LF and escape sequences: no other control reaches the client."""
    for seed in range(100):
        with play(noise(seed)) as emulator:
            emulator.feed(b"\x18\x1b\\")
            text = emulator.repaint(50).decode()
        assert not set(text) & {chr(code) for code in (*range(32), *range(0x7F, 0xA0))} - set("\x1b\r\n\x0e\x0f")


@pytest.mark.parametrize("name", [*SCREENS, *PROMPTS])
def test_restore_gives_the_clients_terminal_back(name: str) -> None:
    """After a client has left, its terminal is on the main screen with every mode as before, and its text stays."""
    with Emulator(40, 10) as client:
        client.feed(b"$ orbitctl attach")
        before = client.dump()
        client.feed(ENTER + RESET + {**SCREENS, **PROMPTS}[name] + RESTORE)
        after = client.dump()
        client.feed(b"\r\n")
        assert not client.dump().at_prompt
        assert after.modes == before.modes
        assert (after.keyboard, after.alternate, after.cursor.visible, after.cursor.shape) == (0, False, True, 0)
        assert after.cursor.style == before.cursor.style
        extras = after.extras.replace(b"\x1b(B", b"").replace(b"\x1b)B", b"")
        assert extras == before.extras


@pytest.mark.parametrize("scrolled", [0, 3, 30])
@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_keep_their_marks(name: str, scrolled: int) -> None:
    """Prompt, input and output are the same cells and rows again, and what the program prints next is the same too."""
    with Emulator(40, 10) as original:
        original.feed(b"before\r\n" + PROMPTS[name] * 3)
        if scrolled:
            leave = b"\x1b[?1049l" if original.alternate else b""
            original.feed(leave + b"\r\n\x1b]133;C\x07" + b"\r\n" * scrolled + PROMPTS[name])
        leave = b"\x1b[?1049l" if original.alternate else b""
        with copy_of(original, lines=1000) as copy:
            assert copy.history() == original.history()
            assert copy.dump() == original.dump()
            for emulator in (original, copy):
                emulator.feed(b"x\r\ny\r\n" + b"z" * 50 + leave + b"1\r\n2")
            assert copy.dump() == original.dump()


def test_prompts_that_a_resize_has_wrapped_keep_their_marks() -> None:
    """Each of their rows has the mark of a prompt; terminals that know the usual marks only are shown one prompt."""
    with Emulator(40, 10) as original:
        original.feed(PROMPTS["a prompt that wraps"] * 2 + PROMPTS["output"])
        original.resize(15, 6)
        with copy_of(original, lines=1000) as copy:
            assert copy.history() == original.history()
            assert copy.dump() == original.dump()
        assert original.repaint(1000).count(b"\x1b]133;A") == 3


def test_output_is_marked_where_shells_mark_it() -> None:
    """Marks are where shells put them: `C` not behind the input, whose row other terminals would mark as output."""
    with Emulator(40, 10) as emulator:
        emulator.feed(PROMPTS["output"] + PROMPTS["a prompt"] + b"\r\n\x1b]133;D\x07" * 2)
        for _ in range(2):
            painted = emulator.repaint(1000).replace(b"\x1b\\", b"|").replace(b"\x1b]133;", b"<")
            emulator.feed(b"\r\n" * 12)
            assert b"<A|$ <B|ls" in painted
            assert b"ls<C" not in painted
            assert b"<C|out" in painted


def test_what_a_shell_does_at_its_prompt_is_kept() -> None:
    """Whether it redraws its prompt after a resize, and takes clicks, is said with each prompt."""
    with Emulator(40, 10) as emulator:
        emulator.feed(b"\x1b]133;A\x07$ ")
        assert b"\x1b]133;A\x1b\\$ " in emulator.repaint()
        emulator.feed(b"\r\n\x1b]133;A;redraw=1;click_events=1\x07$ ")
        assert b"\x1b]133;A;redraw=1;click_events=1\x1b\\$ " in emulator.repaint()
        emulator.feed(b"\r\n\x1b]133;A;redraw=last;click_events=2\x07$ ")
        assert b"\x1b]133;A;redraw=last;click_events=2\x1b\\$ " in emulator.repaint()


COLOURED_LINES = {
    "a background": b"\x1b[41m" + b"x" * 50 + b"\x1b[m\r\n",
    "a background up to the edge": b"\x1b[41m" + b"x" * 80 + b"\x1b[m\r\n",
    "reverse video": b"\x1b[7;42m" + b"x" * 50 + b"\x1b[m\r\n",
    "the second row alone": b"x" * 40 + b"\x1b[48;2;1;2;3m" + b"y" * 9 + b"\x1b[m\r\n",
    "a gap behind the wrap": b"\x1b[41m" + b"x" * 45 + b"\x1b[5Cx\x1b[m\r\n",
    "a link": b"\x1b]8;id=a;http://a\x07\x1b[44m" + b"x" * 50 + b"\x1b[m\x1b]8;;\x07\r\n",
    "wide": b"\x1b[41m" + "你".encode() * 30 + b"\x1b[m\r\n",
    "wide that does not fit": b"\x1b[41mx" + "你".encode() * 30 + b"\x1b[m\r\n",
    "wide that does not fit, of another colour": b"x" * 38 + b"\x1b[44my\x1b[41m" + "你好".encode() + b"\x1b[m\r\n",
    "wide behind a blank": b"x\x1b[40G" + "你".encode() + b"\x1b[41m" + "好".encode() * 20 + b"\x1b[m\r\n",
}


@pytest.mark.parametrize("cols", [40, 30, 17, 60])
@pytest.mark.parametrize("name", COLOURED_LINES)
def test_a_background_does_not_run_on(name: str, cols: int) -> None:
    """A row that a wrapped line scrolls in has the pen's background in many terminals; in a repaint nothing is left."""
    for above in (0, 1, 5, 8, 9, 40):
        with Emulator(40, 10) as original:
            # Printed from above, nothing scrolls in; then each screen is pushed out by plain lines.
            original.feed((b"\x1b[H\x1b[2J" + COLOURED_LINES[name] + b"\x1b[10;1H" + b"\r\n" * 9 + b"plain") * 3)
            original.feed(b"\x1b[H\x1b[2J" + b"\r\n" * above + COLOURED_LINES[name] * 4)
            original.resize(cols, 10)
            with copy_of(original, lines=1000) as copy:
                assert joined(copy, cols) == joined(original, cols)


def joined(emulator: Emulator, cols: int) -> list[Row]:
    """Return all rows, with the wraps that a sequence can make: with text before and behind them."""
    rows = [*emulator.history(), *emulator.dump().lines]
    return [
        replace(row, wraps=row.wraps and is_text_at(row, cols - 1) and is_text_at(after, 0))
        for row, after in zip(rows, [*rows[1:], Row()], strict=True)
    ]


def is_text_at(row: Row, column: int) -> bool:
    return any(not run.blank and run.column <= column < run.column + len(run.cells) for run in row.runs)


def test_pieces_of_links_are_joined() -> None:
    """Pieces with one id are one link again, so are those of one without an id, and the pen's; others stay apart."""
    with Emulator(40, 6) as original:
        original.feed(
            b"\x1b]8;id=42;http://a/\x07one\x1b]8;;\x07 \x1b]8;id=42;http://a/\x07again\x1b]8;;\x07\r\n"
            b"\x1b]8;id=43;http://a/\x07other\x1b]8;;\x07\r\n"
            b"\x1b]8;;http://a/\x07" + b"n" * 50 + b"\x1b[2C\x1b[1mo id\x1b]8;;\x07\r\n"
            b"\x1b]8;;http://a/\x07no id either\x1b]8;;\x07\r\n\r\n"
            b"\x1b]8;id=x;http://b/\x07open"
        )
        assert original.scrollback_rows
        with copy_of(original, lines=1000) as copy:
            for emulator in (original, copy):
                emulator.feed(b" still\r\n\x1b]8;;http://a/\x07new")
                words = linked(emulator)
            ids = {text: link_id for text, (uri, link_id) in words.items()}
            assert {uri for text, (uri, _) in words.items() if text not in ("open still",)} == {"http://a/"}
            assert (ids["one"], ids["again"], ids["other"], ids["open still"]) == ("42", "42", "43", "x")
            assert ids["n" * 40] == ids["n" * 10] == ids["o id"]
            assert len({ids[text] for text in ("one", "other", "o id", "no id either", "new")}) == 5
            assert copy.history() == original.history()


def test_ids_of_links_differ_from_those_of_an_earlier_repaint() -> None:
    """A link without an id gets one that no other link has, though ids of an earlier repaint came back."""
    with Emulator(40, 6) as original:
        original.feed(b"\x1b]8;;http://a/\x07first\x1b]8;;\x07")
        with copy_of(original) as copy:
            copy.feed(b" \x1b]8;;http://a/\x07second\x1b]8;;\x07")
            with copy_of(copy) as again:
                words = linked(again)
    assert words["first"].id != words["second"].id


def test_odd_bytes_of_links_stay_inside() -> None:
    """Control characters in an address or an id, and bytes that are no UTF-8, are percent-encoded."""
    with Emulator(40, 6) as original:
        original.feed(b"\x1b]8;id=a\xc2\x9cb;http://a/\xc2\x9c\xff \xc3\xbc;?\x07text\x1b]8;;\x07")
        painted = original.repaint()
        assert b"\x1b]8;id=a%C2%9Cb;http://a/%C2%9C%FF \xc3\xbc;?\x1b\\text" in painted
        with copy_of(original) as copy:
            assert linked(copy)["text"] == Link("http://a/%C2%9C%FF ü;?", "a%C2%9Cb")


def linked(emulator: Emulator) -> dict[str, Link]:
    """Return the text of each run with a link, and the link."""
    snapshot = parse(StateHeader.split(emulator.encode())[1])
    assert snapshot is not None
    terminal = emulator._terminal
    rows = terminal.rows(0, terminal.scrollback_rows + emulator.size[1], snapshot[emulator.alternate])
    return {"".join(run.cells): Link(run.link, run.link_id) for row in rows for run in row.runs if run.link}


@pytest.mark.parametrize("first", SEEDS)
def test_links_of_anything_are_joined_as_they_were(first: int) -> None:
    """After any output and any resizes, cells that were one link are one link, and two links are two."""
    for seed in range(first, first + 10):
        with play(noise(seed)) as original, copy_of(original, lines=1000) as copy:
            assert groups_of_links(copy) == groups_of_links(original), seed


def groups_of_links(emulator: Emulator) -> list[tuple[int, int, str | None, int]]:
    """Return row, column, address and a number of each linked run: the links are numbered as they come."""
    snapshot = parse(StateHeader.split(emulator.encode())[1])
    assert snapshot is not None
    terminal, numbers = emulator._terminal, dict[Link, int]()
    rows = terminal.rows(0, terminal.scrollback_rows + emulator.size[1], snapshot[emulator.alternate])
    return [
        (number, run.column, run.link, numbers.setdefault(Link(run.link, run.link_id), len(numbers)))
        for number, row in enumerate(rows)
        for run in row.runs
        if run.link is not None
    ]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("1️⃣2", "1️⃣\x1b[2G2"),
        ("1️⃣1️⃣", "1️⃣\x1b[2G1️⃣"),
        ("☃️x", "☃️\x1b[2Gx"),
        ("e\u0301o\u0302", "e\u0301\x1b[2Go\u0302"),
        ("🇩🇪x", "🇩🇪x"),
        ("👍🏽x", "👍🏽x"),
        ("👩\u200d🚀x", "👩\u200d\x1b[3G🚀x"),
        ("☃☃\x1b[1mx", "☃☃\x1b[0;1m\x1b[3Gx"),
    ],
)
def test_what_follows_a_disputed_width_has_its_own_column(text: str, drawn: str) -> None:
    """A terminal that draws a cluster wider than the emulator has it does not shift what is behind it."""
    with Emulator(40, 5) as emulator:
        emulator.feed(text.encode())
        assert (
            emulator.repaint().decode().replace("\x1b[3G\x1b[0;1m", "\x1b[0;1m\x1b[3G").startswith(f"\x1b[1;1H{drawn}")
        )


def test_wide_characters_that_a_charset_has_not_are_two_spaces() -> None:
    """Libghostty keeps a space in two cells for them: all that follows stays in its column, in history as well."""
    with Emulator(40, 5) as original:
        original.feed("\x1b(0q你q\x1b[41m好\u0301x\x1b(B你\r\n\x1b[m\x1b(0你好qq\r\n".encode() * 6)
        with copy_of(original, lines=100) as copy:
            assert copy.history() == original.history()
            assert copy.dump() == original.dump()
        assert original.history()[1].runs[0].cells == (" ", " ", " ", " ", "─", "─")


def test_links_are_drawn_without_a_snapshot_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later library may write another format: links stay, without ids that only the snapshot has."""
    monkeypatch.setattr("orbitd.screens.emulator.parse", lambda _: None)
    with Emulator(40, 6) as original:
        original.feed(b"\x1b]8;id=1;http://a/\x07one\x1b]8;id=2;http://b/\xc2\x9c\x07two")
        painted = original.repaint()
        assert b"\x1b]8;;http://a/\x1b\\one\x1b]8;;http://b/%C2%9C\x1b\\two" in painted
        assert painted.endswith(b"\x1b]8;id=2;http://b/%C2%9C\x1b\\")


@pytest.mark.parametrize("on", [True, False])
def test_the_keypad_is_switched_as_all_terminals_know(on: bool) -> None:
    """DECKPAM and DECKPNM are mode 66, which tmux does not know."""
    with Emulator(10, 3) as program, Emulator(10, 3) as window:
        program.feed(b"\x1b=" if on else b"")
        window.feed(b"" if on else b"\x1b=")
        window.feed(RESET + program.repaint())
        assert ("?66" in window.modes(), b"\x1b=" in program.repaint()) == (on, on)
