"""The line between two programs: after it a terminal is as a fresh one, but for its text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec
import pytest
from msgspec.structs import replace

from orbitd.screens.divider import print_divider, print_note
from orbitd.screens.emulator import Emulator, StateHeader
from orbitd.screens.model import Screen
from orbitd.screens.repaint import MODES
from terminal_support import noise, play

LEFT_BEHIND = {
    "graphic characters": b"\x1b(0",
    "another set locked in": b"\x1b)0\x0e",
    "sets on the right": b"\x1b*0\x1b+0\x1bo\x1b|",
    "the next character of another set": b"\x1b*0\x1bN",
    **{
        f"set {intermediate}{final}": f"\x1b{intermediate}{final}{lock}".encode()
        for intermediate, lock in zip(
            "()*+-./", ("\x0f", "\x0e", "\x1bn", "\x1bo", "\x1b~", "\x1b}", "\x1b|"), strict=True
        )
        for final in "0124567=<>?@ABCEHJKQRSYZfz`"
    },
    "rows of a scroll region": b"\x1b[2;3r",
    "columns of a scroll region": b"\x1b[?69h\x1b[3;9s",
    "a region without its mode": b"\x1b[?69h\x1b[3;9s\x1b[?69l",
    "origin mode in a region": b"\x1b[2;3r\x1b[?6h",
    "kitty keyboard flags": b"\x1b[>1u\x1b[>5u",
    "kitty keyboard flags that are set": b"\x1b[=31;1u",
    "a full stack of kitty keyboard flags": b"\x1b[>1u" * 20,
    "kitty keyboard flags of an alternate screen that was left": b"\x1b[?47h\x1b[>5u\x1b[=3;1u\x1b[?47l",
    "kitty keyboard flags of the alternate screen": b"\x1b[?1049h\x1b[>5u",
    "modified keys": b"\x1b[>4;2m",
    **{f"cursor shape {number}": f"\x1b[{number} q".encode() for number in range(7)},
    "a cursor shape of the alternate screen": b"\x1b[?1049h\x1b[6 q",
    "colours": b"\x1b]4;1;rgb:1/2/3\x07\x1b]10;#f00\x07\x1b]11;#f00\x07\x1b]12;#f00\x07",
    **{f"palette colour {number}": f"\x1b]4;{number};#123456\x07".encode() for number in (0, 7, 8, 15, 16, 255, 256)},
    **{f"colour of OSC {number}": f"\x1b]{number};#123456\x07".encode() for number in range(10, 20)},
    **{f"special colour {number}": f"\x1b]5;{number};#123456\x07".encode() for number in range(5)},
    "colours by name": b"\x1b]21;foreground=#123456;background=red;cursor=red;selection_background=red;7=red\x07",
    "stacked colours and styles": b"\x1b]4;1;red\x07\x1b[#P\x1b[31m\x1b[#{",
    "title and folder": b"\x1b]2;title\x07\x1b]7;file://host/tmp\x07",
    "title and icon": b"\x1b]0;title\x07\x1b]1;icon\x07\x1b[22;0t",
    "how titles are asked for": b"\x1b[>2;3t",
    "a shape of the mouse": b"\x1b]22;pointer\x07",
    "shift for the program": b"\x1b[>1s",
    "progress": b"\x1b]9;4;1;50\x07",
    "the status line": b"\x1b[1$}",
    "a status line of its own": b"\x1b[2$~\x1b[1$}",
    "7-bit answers": b'\x1b[61"p\x1b G',
    "rectangles": b"\x1b[2*x",
    "output after a prompt": b"\x1b]133;C\x07",
    "the end of output": b"\x1b]133;D;1\x07",
    "what is typed at a prompt": b"\x1b]133;B\x07",
    "a prompt of the alternate screen": b"\x1b[?1049h\x1b]133;A\x07",
    "a shell that draws its prompt again": b"\x1b[?1049h\x1b]133;A;redraw=last\x07\x1b[?1049l",
    "a keypad": b"\x1b=",
    "icon and progress": b"\x1b]1;icon\x07\x1b]9;4;1;50\x07",
    "an unfinished icon": b"\x1b]1;icon",
    "a pen": b"\x1b[31;1;4:3m",
    "every style": b"\x1b[1;2;3;4:3;5;7;8;9;53;38;5;9;48;2;1;2;3;58;5;1m",
    "a prompt": b"\r\n\x1b]133;A\x07$ ",
    "a prompt below": b"\x1b[2;1H\x1b]133;A\x07$ \r\n\x1b]133;A\x07$ \x1b]133;C\x07\x1b[H",
    "input": b"\x1b]133;A\x07$ \x1b]133;B\x07ls\r\n",
    "a protected pen": b'\x1b[1"q',
    "a protected pen of ISO 6429": b"\x1bV",
    "ISO 6429's protection": b"\x1bV\x1bW",
    "an open link": b"\x1b]8;;http://x\x07",
    "no tab stops": b"\x1b[3g",
    "a tab stop": b"\x1bH",
    "a saved cursor": b"\x1b[2;3H\x1b[31m\x1b7",
    "a saved cursor of mode 1048": b"\x1b[31m\x1b(0\x1b[?1048h",
    "a saved cursor of the alternate screen": b"\x1b[?1049h\x1b[2;3H\x1b[31m\x1b(0\x1b7",
    "a saved cursor of an alternate screen that was left": b"\x1b[?1049h\x1b[2;3H\x1b[31m\x1b(0\x1b7\x1b[?1049l",
    "a whole pen of the alternate screen": b'\x1b[?1049h\x1b[31;44m\x1b[1"q\x1b)0\x0e',
    **{f"an alternate screen of {mode}": b"\x1b[?%dhfull\x1b[44m\x1b[2J" % mode for mode in (47, 1047, 1049)},
    "text of an alternate screen that was left": b"\x1b7\x1b[?47hfull\x1b[?47l\x1b8",
    "an alternate screen in another": b"\x1b[?47h\x1b[?1049h\x1b[?1047h",
    "a pending wrap": b"x" * 35,
    **{
        f"an unfinished {kind}": data
        for kind, data in {
            "escape": b"\x1b",
            "charset": b"\x1b(",
            "sequence": b"\x1b[1",
            "private sequence": b"\x1b[?1;2",
            "title": b"\x1b]2;title",
            "device control string": b"\x1bP$q",
            "tmux control mode": b"\x1bP1000p%begin\n",
            "image": b"\x1b_Ga=t,f=24,m=1;AA",
            "privacy message": b"\x1b^x",
            "string": b"\x1bXx",
            "character": b"\xe2\x98",
            "character of four bytes": b"\xf0\x9f\x98",
        }.items()
    },
    **{f"mode {mode.name} set": mode.sequence(on=True).encode() for mode in MODES},
    **{f"mode {mode.name} reset": mode.sequence(on=False).encode() for mode in MODES},
}


def settings(emulator: Emulator) -> tuple[Screen, dict[str, object]]:
    """Return what a terminal is set to: all but its text and the cursor's row."""
    screen = emulator.dump()
    cursor = replace(screen.cursor, row=0)
    # The library tells ASCII that was asked for from that of the beginning; both print the same.
    extras = screen.extras.replace(b"\x1b(B\x1b)B\x1b*B\x1b+B", b"")
    # Rows above the line keep the marks of their prompts.
    return replace(screen, lines=(), cursor=cursor, extras=extras, at_prompt=False), emulator._terminal.changed_colors()


@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_nothing_is_left_behind(what: str) -> None:
    """The next program finds every mode, charset, margin, flag and colour as a fresh terminal has it."""
    with Emulator(40, 6) as fresh, Emulator(40, 6) as used:
        used.feed(b"text " + LEFT_BEHIND[what])
        used.replies()
        print_divider(used, "x")
        assert not used.dump().at_prompt
        used.feed(b"\x1b8")  # as a program that has saved no cursor
        assert settings(used) == settings(fresh)
        assert used.at_ground
        assert used.replies() == b""


# A terminal counts its links, which nothing resets and nothing shows.
COUNTED = {"an open link"}


def emptied(emulator: Emulator) -> tuple[StateHeader, bytes]:
    """Return the whole state of a terminal, whose both screens have been erased, with its history and its count."""
    emulator.feed(b"\x1b[H\x1b[2J\x1b[3J\x1b[?1047h\x1b[H\x1b[2J\x1b[?1047l")
    # Decoded once more, since it also has the limits of the history, which depend on what that was when they were set.
    with Emulator.decode(emulator.encode()) as again:
        header, snapshot = StateHeader.split(again.encode())
    return msgspec.structs.replace(header, history_line=0), snapshot


def as_it_was(used: Emulator) -> Emulator:
    """Return the terminal itself."""
    return Emulator.decode(used.encode())


def drawn_again(used: Emulator) -> Emulator:
    """Return a terminal with what is on another one: what a saved screen is where the native state cannot be read."""
    again = Emulator(*used.size)
    again.feed(used.repaint(100))
    return again


@pytest.mark.parametrize("restored", [as_it_was, drawn_again])
@pytest.mark.parametrize("what", [name for name in LEFT_BEHIND if name not in COUNTED])
def test_the_whole_state_is_that_of_a_fresh_terminal(what: str, restored: Callable[[Emulator], Emulator]) -> None:
    """But for the text, the library's own state is byte for byte that of a terminal that has had no program."""
    with Emulator(40, 6) as fresh, Emulator(40, 6) as left:
        left.feed(b"text " + LEFT_BEHIND[what])
        with restored(left) as used:
            for emulator in (fresh, used):
                print_divider(emulator, "x")
            assert emptied(used) == emptied(fresh)


def reported(emulator: Emulator, modes: Iterable[str]) -> dict[str, int]:
    """Return what a terminal says of the modes that it knows (DECRQM): 1 set, 2 reset, 4 always reset."""
    found = {}
    for mode in modes:
        emulator.feed(f"\x1b[{mode}$p".encode())
        for name, value in re.findall(rb"\x1b\[(\??\d+);(\d)\$y", emulator.replies()):
            found[name.decode()] = int(value)
    return {mode: value for mode, value in found.items() if value}


def test_no_mode_that_the_library_knows_is_left_behind() -> None:
    """Each private mode up to 3000, and each of ANSI up to 100, is as on a fresh terminal, also when it is restored."""
    with Emulator(40, 6) as fresh:
        known = reported(fresh, [*(f"?{number}" for number in range(3001)), *map(str, range(101))])
    assert known.items() >= {"?1": 2, "?7": 1, "?8": 2, "?1048": 2, "?2026": 2, "2": 2, "12": 1}.items()
    for mode, number in ((name, name.removeprefix("?")) for name in known):
        for final in "hl":
            with Emulator(40, 6) as used:
                used.feed(f"text\x1b[?40h\x1b[{mode}{final}\x1b[?{number}s".encode())
                used.replies()
                print_divider(used, "x")
                assert reported(used, known) == known, (mode, final)
                used.feed(f"\x1b[?{number}r".encode())
                used.replies()
                assert reported(used, known) == known, (mode, final, "restored")


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_left_behind_by_noise(seed: int) -> None:
    """The same holds after random output."""
    with play(noise(seed)) as used, Emulator(*used.size) as fresh:
        used.replies()
        print_divider(used, "x")
        assert not used.dump().at_prompt
        used.feed(b"\x1b8")
        assert settings(used) == settings(fresh)
        assert used.replies() == b""


@pytest.mark.parametrize("seed", range(0, 1000, 20))
def test_the_whole_state_is_fresh_after_noise(seed: int) -> None:
    """After random output and resizes, too, the library's own state is a fresh terminal's, but for text and links."""
    played = [each for each in noise(seed) if not (isinstance(each, bytes) and b"\x1b]8;" in each)]
    with play(iter(played)) as used, Emulator(*used.size) as fresh:
        cols, rows = used.size
        for emulator in (fresh, used):
            for size in ((cols, rows + 1), (cols, rows)):  # the first resize gives a terminal its size in pixels
                emulator.resize(*size)
            print_divider(emulator, "x")
        assert emptied(used) == emptied(fresh)


@pytest.mark.parametrize("mode", ["47", "1047", "1049"])
@pytest.mark.parametrize("left_by", ["47", "1047", "1049"])
def test_the_alternate_screen_is_blank(mode: str, left_by: str) -> None:
    """A program that enters it finds nothing of what the last program drew there, whichever way both took."""
    with Emulator(10, 4) as emulator:
        emulator.feed(f"\x1b[?{left_by}h\x1b[44m\x1b[2Jediting\x1b[?{left_by}l".encode())
        print_divider(emulator, "x")
        emulator.feed(f"\x1b[?{mode}h".encode())
        assert {run.text.strip() for line in emulator.dump().lines for run in line.runs} <= {""}
        assert emulator.screen() == b""


def test_what_is_printed_is_drawn_after_a_status_line() -> None:
    """A program that died while it wrote to the status line swallows nothing of the next one's output."""
    with Emulator(10, 4) as emulator:
        emulator.feed(b"1\x1b[2$~\x1b[1$}status")
        print_divider(emulator, "x")
        emulator.feed(b"2")
        assert emulator.screen().decode().splitlines() == ["1", "-- x -----", "2"]


def test_the_text_stays_above_the_line() -> None:
    """The line is as wide as the screen, below the cursor; the cursor is at the beginning of the next one."""
    with Emulator(10, 4) as emulator:
        emulator.feed(b"1\r\n2\r\n3")
        print_divider(emulator, "x")
        assert emulator.screen(scrollback=True).decode().splitlines() == ["1", "2", "3", "-- x -----"]
        assert (emulator.cursor.row, emulator.cursor.column) == (3, 0)


def test_the_alternate_screen_is_left() -> None:
    """The line stands on the primary screen, behind what was there before the program."""
    with Emulator(10, 4) as emulator:
        emulator.feed(b"shell\x1b[?1049h\x1b[2Jediting")
        print_divider(emulator, "x")
        assert emulator.screen().decode().splitlines() == ["shell", "-- x -----"]


@pytest.mark.parametrize("mode", ["47", "1047", "1049"])
def test_a_screen_that_was_left_by_another_mode_is_not_erased(mode: str) -> None:
    """The flag of the alternate screen is reset, though it is not shown any more, and the text stays."""
    with Emulator(10, 4) as emulator:
        emulator.feed(f"\x1b[?{mode}h\x1b[?47l\x1b[?1047l\x1b[?{mode}h\x1b[?47lshell".encode())
        print_divider(emulator, "x")
        assert emulator.screen().decode().splitlines() == ["shell", "-- x -----"]
        assert not emulator.modes() & {"?47", "?1047", "?1049"}


def test_the_same_picture_makes_the_same_line() -> None:
    """A divider that is replayed from the journal gives the same screen again."""
    states = []
    for _ in range(2):
        with Emulator(30, 4) as emulator:
            emulator.feed(b"\x1b[31mprogram\x1b[?1h")
            print_divider(emulator, "restarted")
            states.append(emulator.encode())
    assert states[0] == states[1]


def test_a_note_is_a_line_and_changes_nothing_else() -> None:
    """The program that runs keeps its modes and its title; its alternate screen gets no line."""
    emulator = Emulator(20, 5)
    emulator.feed(b"\x1b[?2004h\x1b]2;title\x07prompt")
    print_note(emulator, "9 are missing")
    assert emulator.screen("text", scrollback=False).decode().split("\n")[:2] == ["prompt", "-- 9 are missing ---"]
    assert emulator.title == "title"
    assert b"\x1b[?2004h" in emulator.repaint(0)
    emulator.feed(b"\x1b[?1049hfull")
    before = emulator.repaint(0)
    print_note(emulator, "9 are missing")
    assert emulator.repaint(0) == before
