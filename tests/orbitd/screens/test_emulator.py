"""The emulated screen: what it takes, what it tells, what it answers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pyghostty import Terminal as Reference

from orbitd.screens import render
from orbitd.screens._ghostty_terminal import Terminal
from orbitd.screens.emulator import Emulator, only_draws, unavailable_reason
from orbitd.screens.model import PLAIN, Colors, Cursor, Cut, Row, Run, Style, TerminalError, TooLarge
from terminal_support import noise, play

QUERIES = {
    "primary attributes": (b"\x1b[c", b"\x1b[?62;22c"),
    "secondary attributes": (b"\x1b[>c", b"\x1b[>1;10;0c"),
    "status": (b"\x1b[5n", b"\x1b[0n"),
    "cursor position": (b"\x1b[3;4H\x1b[6n", b"\x1b[3;4R"),
    "mode": (b"\x1b[?2004h\x1b[?2004$p", b"\x1b[?2004;1$y"),
    "kitty keyboard": (b"\x1b[>5u\x1b[?u", b"\x1b[?5u"),
    "version": (b"\x1b[>q", b"\x1bP>|orbit\x1b\\"),
    "foreground": (b"\x1b]10;?\x1b\\", b"\x1b]10;rgb:d0d0/d0d0/d0d0\x1b\\"),
    "background": (b"\x1b]11;?\x07", b"\x1b]11;rgb:0000/0000/0000\x07"),
    "palette": (b"\x1b]4;1;#102030\x07\x1b]4;1;?\x07", b"\x1b]4;1;rgb:1010/2020/3030\x07"),
    "size in characters": (b"\x1b[18t", b"\x1b[8;24;80t"),
    "setting": (b"\x1bP$qm\x1b\\", b"\x1bP1$r0m\x1b\\"),
    "terminal name": (b"\x1bP+q544e\x1b\\", b"\x1bP1+r544E=787465726D2D323536636F6C6F72\x1b\\"),
}


NOT_ONLY_DRAWN = (
    *(b"\x1b[A", b"\x1b[2F", b"\x1b[H", b"\x1b[1;1f", b"\x1b[J", b"\x1b[?3J", b"\x1bc", b"\x1bD", b"\x1bM", b"\x1b7"),
    *(b"\x1b[3S", b"\x1b[3 S", b"\x1b[99b", b"\x1b[9\n9b", b"\x1b[?25l", b"\x1b[?1049h", b"\x1b[4h", b"\x1b[?2027r"),
    *(
        b"\x1b[6n",
        b"\x1b[?6n",
        b"\x1b[13;2t",
        b"\x1b[x",
        b"\x1b[2;9r",
        b"\x1b]0;t\x07",
        b"\x1bP$qm\x1b\\",
        b"\x1b_Ga=q\x1b\\",
    ),
    *(b"\xc2\x9b?6n", b"\x1b", b"\x1b[", b"\x1b[1;3", b"\x1b[m\x1b", b"\x1b\x1b[m"),
)


def test_what_more_than_draws_is_found_wherever_it_stands() -> None:
    """Text with colours only draws; a sequence that asks, scrolls, erases, sets modes, or is unfinished does more."""
    before, behind = "\x1b[1;32m  CC\x1b[m 画面 [ 7%]\t?2027h\x1b[K\r\n\x1b[38;5;7m".encode(), b"x\x1b[0m\x1b[5Gn\n"
    assert only_draws(before + behind)
    for sequence in NOT_ONLY_DRAWN:
        is_whole = sequence[-1:] not in (b"\x1b", b"[", b"3")
        assert not only_draws(before + sequence + behind * is_whole), sequence


def test_text_styles_and_links_are_told_as_runs() -> None:
    """A row is told as runs of cells that look alike, blank ones apart, with wide characters in two cells."""
    with Emulator(20, 2) as emulator:
        emulator.feed("ab\x1b[1;31mcd\x1b[m\x1b[7G\x1b]8;;http://x\x07你e\u0301\x1b]8;;\x07".encode())
        emulator.feed(b"\r\n\x1b[48;2;1;2;3m\x1b[3X")
        screen = emulator.dump()
    assert screen.lines == (
        Row(
            runs=(
                Run(column=0, cells=("a", "b")),
                Run(column=2, cells=("c", "d"), style=Style(bold=True, fg=1)),
                Run(column=4, cells=("", ""), blank=True),
                Run(column=6, cells=("你", ""), link="http://x"),
                Run(column=8, cells=("e\u0301",), link="http://x"),
            )
        ),
        Row(runs=(Run(column=0, cells=("", "", ""), blank=True, style=Style(bg=(1, 2, 3))),)),
    )
    assert screen.cursor == Cursor(column=0, row=1, style=Style(bg=(1, 2, 3)))


def test_styles_agree_with_the_librarys_own_reading() -> None:
    """Every cell's style, read in bulk, is what libghostty says about that cell when it is asked alone."""
    names = ("bold", "faint", "italic", "blink", "inverse", "invisible", "strikethrough", "overline")
    reference = Reference(40, 10)
    with Emulator(40, 10) as emulator:
        for seed in range(60):
            for operation in list(noise(seed, resizes=False))[1:]:
                if isinstance(operation, bytes) and b"2027" not in operation:
                    emulator.feed(operation)
                    reference.feed(operation)
        for y, line in enumerate(emulator.dump().lines):
            for run in (run for run in line.runs if not run.blank):
                for x, text in enumerate(run.cells, run.column):
                    told = reference.style(x, y)
                    assert {name: getattr(run.style, name) for name in names} == {name: told[name] for name in names}
                    colors = (run.style.fg, run.style.bg, run.style.underline_color)
                    kinds = [told[name] and told[name][1] for name in ("fg", "bg", "underline_color")]
                    assert colors == tuple(kinds), (x, y, text)
    reference.close()


def test_a_long_line_wraps_and_is_wrapped_anew_by_a_resize() -> None:
    """A line of 500 columns takes as many rows as it needs, and follows the width."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"0123456789" * 50)
        assert [row.wraps for row in emulator.dump().lines[:8]] == [True] * 6 + [False] * 2
        emulator.resize(500, 24)
        assert emulator.size == (500, 24)
        assert emulator.screen() == b"0123456789" * 50 + b"\n"


def test_title_folder_modes_and_cursor() -> None:
    """What the program has told the terminal can be asked for."""
    with Emulator(80, 24) as emulator:
        assert (emulator.title, emulator.cwd, emulator.alternate, emulator.at_ground) == ("", "", False, True)
        emulator.feed("\x1b]2;täst\x07\x1b]7;file://host/home/ä\x07".encode())
        emulator.feed(b"\x1b[?2004h\x1b[4h\x1b[3 q\x1b[?25l\x1b[5;6H\x1b[?1049h\x1b")
        assert (emulator.title, emulator.cwd) == ("täst", "file://host/home/ä")
        assert emulator.modes() == {"4", "12", "?7", "?12", "?1007", "?1049", "?2004"}
        assert emulator.cursor == Cursor(column=5, row=4, visible=False, shape=3, style=PLAIN)
        assert (emulator.alternate, emulator.at_ground) == (True, False)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_answered(name: str) -> None:
    """What programs ask of a terminal is answered as a real one would, once."""
    query, answer = QUERIES[name]
    with Emulator(80, 24) as emulator:
        emulator.feed(query)
        assert emulator.replies() == answer
        assert emulator.replies() == b""


def test_a_terminal_may_answer_nothing() -> None:
    """Nothing is answered while that is switched off; afterwards it is again."""
    with Emulator(80, 24) as emulator:
        emulator.answering = False
        emulator.feed(b"\x1b[6n\x1b[c")
        assert emulator.replies() == b""
        emulator.answering = True
        emulator.feed(b"\x1b[6n")
        assert emulator.replies() == b"\x1b[1;1R"


def test_bells_are_counted() -> None:
    """BEL rings except where it ends a string; neither a repaint nor a saved state rings again."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"a\x07\x07\x1b]2;title\x07\x1b]52;c;")
        assert emulator.bells == 2
        emulator.feed(b"\x07\x07")
        assert emulator.bells == 3
        state, portable = emulator.save()
        assert b"\x07" not in portable
        with Emulator.decode(state) as copy:
            assert (copy.bells, emulator.bells) == (0, 3)
            copy.feed(b"\x07")
            assert copy.bells == 1


def test_replies_that_nobody_takes_are_bounded() -> None:
    """A program that asks without end and never reads cannot fill the memory."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"\x1b[6n" * 100_000)
        assert 60_000 < len(emulator.replies()) <= 64 << 10


def test_history_is_kept_limited_and_trimmed() -> None:
    """The newest lines that scrolled away are kept up to the limit; trimming drops the oldest, once."""
    with Emulator(80, 24, max_scrollback_lines=2000) as emulator:
        emulator.feed(b"".join(b"line %d\r\n" % number for number in range(1000)))
        assert emulator.scrollback_rows == 977
        assert emulator.scrollback_bytes == 977 * 648
        assert emulator.history(2)[1] == Row(runs=(Run(column=0, cells=tuple("line 976")),))
        emulator.feed(b"".join(b"line %d\r\n" % number for number in range(1000, 9000)))
        assert 2000 <= emulator.scrollback_rows < 4000
        emulator.trim_scrollback(max_lines=0)
        assert emulator.scrollback_rows < 500
        emulator.feed(b"".join(b"line %d\r\n" % number for number in range(9000, 10_000)))
        assert emulator.scrollback_rows >= 1000
        emulator.trim_scrollback(max_bytes=0)
        assert emulator.scrollback_rows < 500
        assert emulator.screen().startswith(b"line 9977\n")


KINDS_OF_LINES = {
    "coloured": lambda number: b"\x1b[3%dmline %d\x1b[m\r\n" % (number % 8, number),
    "many styles": lambda number: b"".join(b"\x1b[38;5;%d;48;5;%dm." % (number % 256, n) for n in range(60)) + b"\r\n",
    "links": lambda number: b"\x1b]8;;http://host/%d\x1b\\link\x1b]8;;\x1b\\\r\n" % number,
    "clusters": lambda number: "e\u0301o\u0302".encode() * 20 + b"\r\n",
}


@pytest.mark.parametrize("kind", KINDS_OF_LINES)
@pytest.mark.parametrize("cols", [20, 80, 160])
def test_lines_are_kept_whatever_their_pages_need(kind: str, cols: int) -> None:
    """While the bytes allow, never fewer lines are kept than promised, once there have been a few times as many."""
    line, lines = KINDS_OF_LINES[kind], 1500
    with Emulator(cols, 10, max_scrollback_lines=lines) as emulator:
        for first in range(0, 9000, 250):
            emulator.feed(b"".join(map(line, range(first, first + 250))))
            # Pages that turn out larger than usual push out lines once, before more bytes are allowed.
            assert emulator.scrollback_rows >= lines or first < 7000
        assert emulator.scrollback_rows <= 4 * lines + 250_000 // cols


def test_limits_of_history_follow_a_resize() -> None:
    """Wider rows need more bytes: as many lines are kept after a resize as before."""
    with Emulator(20, 10, max_scrollback_lines=2000) as emulator:
        for cols in (20, 200, 60):
            emulator.resize(cols, 10)
            emulator.feed(b"".join(b"line %d\r\n" % number for number in range(12_000)))
            assert 2000 <= emulator.scrollback_rows < 2000 + 200_000 // cols


def test_resizing_and_restoring_drop_no_lines_of_large_pages() -> None:
    """Lines with many styles, which need more bytes than others, outlive a resize and a saved state."""
    with Emulator(80, 10, max_scrollback_lines=1500) as emulator:
        for first in range(0, 9000, 250):
            emulator.feed(b"".join(map(KINDS_OF_LINES["many styles"], range(first, first + 250))))
        lines = emulator.scrollback_rows
        assert lines >= 1500
        emulator.resize(79, 10)
        emulator.resize(80, 10)
        assert emulator.scrollback_rows >= lines
        for sequence in (b"", b"\x1b[?1049h"):
            emulator.feed(sequence)
            with Emulator.decode(emulator.encode(), max_scrollback_lines=1500) as copy:
                copy.feed(b"\x1b[?1049l")
                assert copy.scrollback_rows >= 1500  # the library itself decodes somewhat fewer than it has encoded


def test_bytes_of_history_are_limited_first() -> None:
    """The limit of bytes holds whatever number of lines is asked for."""
    with Emulator(80, 24, scrollback_max_bytes=1 << 20) as emulator:
        emulator.feed(b"".join(b"line %d\r\n" % number for number in range(20_000)))
        assert emulator.scrollback_bytes < 1 << 20


def test_packed_history_is_the_same_history() -> None:
    """Packing changes nothing that can be seen, read, saved or restored."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"".join(b"\x1b[3%dmline %d\x1b[m\r\n" % (number % 8, number) for number in range(3000)))
        history, state = emulator.history(), emulator.encode()
        emulator.compress()
        assert emulator.encode() == state
        assert emulator.repaint(state=state) == emulator.repaint()
        assert emulator.history() == history
        emulator.compress()
        emulator.feed(b"more\r\n")
        emulator.resize(60, 24)
        emulator.resize(80, 24)
        assert emulator.history()[:-2] == history[: len(emulator.history()) - 2]


def test_screen_as_text_html_and_vt() -> None:
    """The screen is told as plain text, as HTML, or as bytes that draw it; with the history if asked."""
    with Emulator(10, 2) as emulator:
        emulator.feed(b"one\r\n\r\n  <two>  \r\n\x1b[1;32mthree\x1b[m\x1b[44m \x1b[m")
        assert emulator.screen() == b"  <two>\nthree\n"
        assert emulator.screen("text", scrollback=True) == b"one\n\n  <two>\nthree\n"
        page = emulator.screen("html").decode()
        assert "  &lt;two&gt;" in page
        assert '<span style="font-weight:bold;color:#b5bd68">three</span>' in page
        with Emulator(10, 2) as copy:
            copy.feed(emulator.screen("vt", scrollback=True))
            assert copy.screen(scrollback=True) == b"one\n\n  <two>\nthree\n"
        with pytest.raises(KeyError):
            emulator.screen("pdf")


def test_html_with_a_cursor_and_a_theme() -> None:
    """The cursor is drawn in its shape, on a character or on a blank; colours are the given ones or the program's."""
    colors = Colors(foreground=(1, 1, 1), background=(2, 2, 2), cursor=(3, 3, 3), palette=((4, 4, 4),))
    pages = {}
    for shape in (b"", b"\x1b[4 q", b"\x1b[5 q", b"\x1b[?25l"):
        with Emulator(10, 3) as emulator:
            emulator.feed(b"one\r\n\x1b[30mt<o\x1b[2D" + shape)
            pages[shape] = emulator.screen("html", cursor=True, colors=colors).decode()
            without = emulator.screen("html", colors=colors).decode()
    start = '<pre style="font-family:monospace;color:#010101;background:#020202">one\n<span style="color:#040404">t'
    assert without == pages[b"\x1b[?25l"] == start + "&lt;o</span>\n</pre>\n"
    end = '</span>{}<span style="color:#040404">o</span>\n</pre>\n'
    inner = '<span style="color:#040404">&lt;</span>'
    assert pages[b""] == start + end.format('<span style="color:#020202;background:#030303">&lt;</span>')
    shadow = '<span style="box-shadow:inset {} #030303">' + inner + "</span>"
    assert pages[b"\x1b[4 q"] == start + end.format(shadow.format("0 -2px"))
    assert pages[b"\x1b[5 q"] == start + end.format(shadow.format("2px 0"))
    with Emulator(10, 3) as emulator:
        emulator.feed(b"x\x1b[2;4H")
        block = '<span style="color:#020202;background:#030303"> </span>'
        assert f">x\n   {block}\n</pre>" in emulator.screen("html", cursor=True, colors=colors).decode()


def cut_of(emulator: Emulator, first: int | None = None, lines: int | None = None) -> list[str]:
    """Return a part of history and screen as lines of text."""
    return emulator.screen("text", cut=Cut(first=first, lines=lines)).decode().splitlines()


def test_a_part_of_the_history_and_the_screen() -> None:
    """Lines are counted from the oldest, or from the last that shows anything; beyond either end there are none."""
    with Emulator(20, 4) as emulator:
        emulator.feed(b"".join(b"line %d\r\n" % number for number in range(8)) + b"\x1b[2J\x1b[Htop\r\n$ ")
        total = emulator.scrollback_rows + 2
        assert cut_of(emulator, 1, 2) == ["line 1", "line 2"]
        assert cut_of(emulator, -1) == cut_of(emulator, lines=1) == ["$"]
        assert cut_of(emulator, -3, 2)[1:] == ["top"]
        assert cut_of(emulator, total) == cut_of(emulator, total + 5, 9) == cut_of(emulator, 0, 0) == []
        assert cut_of(emulator, -1000, 1) == ["line 0"]
        assert len(cut_of(emulator)) == len(cut_of(emulator, lines=10**6)) == total
        assert emulator.cut_lines(Cut(first=-2)) == (total - 2, total, total)
        emulator.feed(b"\x1b[?1049h\x1b[2;2Hfull")
        assert cut_of(emulator) == ["", " full"]
        assert cut_of(emulator, lines=1) == [" full"]


def test_a_part_as_vt_has_its_styles() -> None:
    """Lines as VT are printed by any terminal where its cursor is, in their colours, and leave the pen plain."""
    with Emulator(20, 4) as emulator:
        emulator.feed("\x1b[1;31mone\x1b[m x\r\n  \x1b[44m世\x1b[K\x1b[m\r\n\r\nlast\r\n\r\n\r\n".encode())
        with Emulator(20, 6) as copy:
            copy.feed(emulator.screen("vt", cut=Cut(first=0, lines=4)))
            assert copy.dump().lines[:4] == (*emulator.history(), *emulator.dump().lines)[:4]
            assert copy.cursor == Cursor(row=4)
        assert emulator.screen("vt", cut=Cut(lines=0)) == b""


def test_lines_to_be_searched() -> None:
    """Wrapped lines are one, also where they begin above the screen; the cursor's line ends at the cursor."""
    with Emulator(10, 3) as emulator:
        emulator.feed(b"gone\r\n" + b"0123456789" * 4 + b"end\r\n$ l")
        assert emulator.searchable() == (b"0123456789" * 4 + b"end\n$ l", b"$ l")
        emulator.feed(b"\x1b[D")
        assert emulator.searchable()[1] == b"$ "
        emulator.feed("\r\n世界世界世界".encode())
        assert emulator.searchable() == ("$ l\n世界世界世界".encode(), "世界世界世界".encode())
        emulator.feed(b"\x1b[2J\x1b[H")
        assert emulator.searchable() == (b"", b"")


def test_too_many_colours_for_html_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen in which every cell has a colour of its own is refused from a number on: it would take minutes."""
    monkeypatch.setattr(render, "MAX_STYLES", 20)
    with Emulator(80, 2) as emulator:
        emulator.feed(b"".join(b"\x1b[38;5;%dmx" % color for color in range(30)))
        with pytest.raises(TooLarge):
            emulator.screen("html")


def test_html_holds_no_script() -> None:
    """A hyperlink's address reaches the HTML only if a browser would just go there, and always escaped."""
    with Emulator(40, 2) as emulator:
        emulator.feed(b'\x1b]8;;javascript:alert(1)\x07bad\x1b]8;;http://x/"><script>\x07good\x1b]8;;\x07')
        page = emulator.screen("html").decode()
    assert "javascript" not in page
    assert '<a href="http://x/&quot;&gt;&lt;script&gt;">good</a>' in page


def test_a_closed_terminal_says_so() -> None:
    """Closing frees the memory at once, twice is fine, and use afterwards is an error instead of a crash."""
    emulator = Emulator(80, 24)
    emulator.close()
    emulator.close()
    for use in (lambda: emulator.feed(b"x"), lambda: emulator.size, emulator.encode, emulator.repaint):
        with pytest.raises(TerminalError):
            use()


def test_input_that_crashes_the_library_does_not_reach_it() -> None:
    """Clusters that grow wide below a scroll region, and cut wide characters that are wrapped anew, are survived."""
    with Emulator(13, 6) as emulator:
        emulator.feed("\x1b[?2027h\x1b[;4r\x1b[6;7H\u2603\xe9Z\U0001f600~\u2603\u200d\U0001f600".encode())
        emulator.feed(b"\x1b[?20")
        emulator.feed("27h\x1b[;4r\x1b[6;7H\u2603\xe9Z\U0001f600~\u2603\u200d\U0001f600".encode())
        assert "?2027" not in emulator.modes()
        assert not emulator._terminal.mode(2027)
    for seed in range(1000, 1100):
        with play(noise(seed)) as emulator:
            for cols, rows in ((7, 5), (60, 20), (3, 3), (41, 2)):
                emulator.feed("\x1b[?7l你好😀ᄀ\x1b[?7h你好😀ᄀ\x1b[?47h你好😀ᄀ".encode() * 3)
                emulator.resize(cols, rows)
            assert emulator.size == (41, 2)


@pytest.mark.parametrize(
    "sequences",
    [
        (b"\x1b[?40h\x1b[?3h",),
        (b"\x1b[?40;3h",),
        (b"\x1b[?40;3", b"h"),
        (b"\x1b[?4\x000h\x1b[?3h",),
        (b"\x1b[?3h\x1b[?40h\x1b[?3l",),
        (b"\x1b[?40h\x1b[?40s\x1bc\x1b[?40r\x1b[?3h",),
        (b"\x1b[?40h\x1b[?3h\x1bc\x1b[?40;3h\x1b[?3l",),
    ],
)
def test_a_program_cannot_change_the_columns(sequences: tuple[bytes, ...]) -> None:
    """DECCOLM, however it is allowed and asked for, leaves the size to `resize`."""
    with Emulator(100, 30) as emulator:
        for sequence in sequences:
            emulator.feed(sequence)
            assert emulator.size == (100, 30)
            assert not emulator._terminal.mode(40)
        emulator.resize(90, 20)
        emulator.feed(b"\x1b[?3hx")
        assert emulator.size == (90, 20)
        assert not emulator._terminal.mode(3)


CLEARED = (b"\x1b[?3h", b"\x1b[?3l", b"\x1b[?25;3h", b"\x1b[?3;40h", b"\x1b[?\x073h")
KEPT = (
    b"?3h",
    b"\x1b]2;?3h\x07",
    b"\x1bP?3h\x1b\\",
    b"\x1b[3h",
    b"\x1b[?30h",
    b"\x1b[?3r",
    b"\x1b[?40l\x1b[?3h",
    b"\x1bc\x1b[?3h",
)


@pytest.mark.parametrize("sequence", [*CLEARED, *KEPT])
def test_a_change_of_columns_clears_the_screen(sequence: bytes) -> None:
    """DECCOLM, where mode 40 allows it, erases, resets margins and moves the cursor; what looks like it does not."""
    for cut in range(1, len(sequence) + 1):
        with Emulator(100, 30) as emulator:
            emulator.feed(b"text\x1b[?69h\x1b[3;9s\x1b[2;5r\x1b[?40h\x1b[4;5H")
            with Emulator.decode(emulator.encode()) as copy:
                for one in (emulator, copy):
                    one.feed(sequence[:cut])
                    one.feed(sequence[cut:] + b"x")
                    assert one.size == (100, 30)
                    if sequence in CLEARED:
                        assert (one.screen(), one.cursor.column) == (b"x\n", 1)
                        assert one._terminal.extras("scrolling_region") == b""
                    elif b"\x1bc" not in sequence:
                        assert one.screen().startswith(b"text\n")
                    else:
                        assert one.screen() == b"x\n"


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is written to native terminals during the test."""
    written, write = list[bytes](), Terminal._write

    def record(terminal: Terminal, data: memoryview) -> None:
        written.append(bytes(data))
        write(terminal, data)

    monkeypatch.setattr(Terminal, "_write", record)
    return written


@pytest.mark.parametrize("text", [b"2027;", b"?2027;", b"\x1b[?2027;", b"?", b"?40", b"\x1b[?2026h", b"2027h"])
def test_text_that_looks_like_modes_is_fed_in_one_go(text: bytes, writes: list[bytes]) -> None:
    """A mebibyte of almost-sequences is searched once and written once; a search from each of them would take hours."""
    flood = text * ((1 << 20) // len(text))
    with Emulator(80, 24) as emulator:
        emulator.feed(flood)
    assert writes == [flood]


def test_each_sequence_that_sets_a_mode_is_one_write(writes: list[bytes]) -> None:
    """Behind each sequence that may set mode 2027 or 40 the emulator looks once, and nowhere else."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"a\x1b[?2027hb\x1b[?7;0040hc\x1b[?20\x0727rd\x1b[?25he\x1b[2027hf")
    assert writes == [b"a\x1b[?2027h", b"b\x1b[?7;0040h", b"c\x1b[?20\x0727r", b"d\x1b[?25he\x1b[2027hf"]


@pytest.mark.parametrize("size", [(0, 24), (80, 0), (4097, 1), (1, 4097), (1001, 1000), (-1, 24)])
def test_a_size_out_of_bounds_is_refused(size: tuple[int, int]) -> None:
    """An emulator has 1 to 4096 columns and rows, and a million cells at most."""
    with pytest.raises(ValueError, match="not possible"):
        Emulator(*size)
    with Emulator(80, 24) as emulator:
        with pytest.raises(ValueError, match="not possible"):
            emulator.resize(*size)
        assert emulator.size == (80, 24)


@pytest.mark.parametrize("size", [(4096, 1), (1, 4096), (1000, 1000), (4096, 244)])
def test_a_size_at_the_bounds_is_served(size: tuple[int, int]) -> None:
    """The largest sizes can be filled, resized and saved."""
    with Emulator(*size) as emulator:
        emulator.feed(b"\x1b#8\x1bc\x1b#8")
        emulator.resize(80, 24)
        emulator.resize(*size)
        with Emulator.decode(emulator.encode()) as copy:
            assert copy.size == size


def test_without_the_library_only_live_sessions_are_missing() -> None:
    """Where no build of libghostty exists everything imports, and asking says why it is not available."""
    program = (
        "import sys; sys.modules['pyghostty'] = None; sys.modules['pyghostty._ffi'] = None\n"
        "from orbitd.screens import emulator, model, repaint\n"
        "print(emulator.unavailable_reason())\n"
        "try: emulator.Emulator(80, 24)\n"
        "except model.TerminalUnavailable as exc: print('refused:', exc)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    reason, refusal = result.stdout.splitlines()
    assert reason.startswith("pyghostty is not installed")
    assert refusal == f"refused: {reason}"
    assert unavailable_reason() is None


def test_importing_loads_nothing() -> None:
    """The native library and its binding cost nothing until a terminal is made."""
    program = "import sys, orbitd.screens.emulator; print('pyghostty' in sys.modules, 'cffi' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False False\n"
