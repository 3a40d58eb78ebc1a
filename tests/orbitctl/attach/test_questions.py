"""What orbitctl asks the user's terminal, and that neither questions nor answers get in anybody's way."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import live.asker
from attach_support import DETACH, RUN_SHELL, Window, settled
from ctl_support import Orbitctl
from orbit_protocol.params import ClientTerminal
from orbitctl.attach.questions import ASK_SECS, LATE_SECS, TerminalQuestions, questions_for
from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Appearance

LOOKS = Appearance(foreground=(0x10, 0x20, 0x30), background=(0xFF, 0xFF, 0xF0), kitty_graphics=True)
XTERM = {"TERM": "xterm-256color"}
DA1, DSR, APC = b"\x1b[c", b"\x1b[5n", b"\x1b_G"


def answers(environ: dict[str, str] = XTERM, looks: Appearance = LOOKS) -> bytes:
    """Return what a terminal answers."""
    with Emulator(80, 24) as emulator:
        emulator.set_appearance(looks)
        emulator.feed(questions_for(environ))
        return emulator.replies()


@pytest.mark.parametrize(
    ("environ", "asks_colours", "asks_graphics", "asks_anything"),
    [
        (XTERM, True, True, True),
        ({"TERM": "xterm-kitty"}, True, True, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, True, False, True),
        ({"TERM": "tmux-256color"}, True, False, True),
        ({"TERM": "screen.xterm-256color"}, True, False, True),
        ({"TERM": "xterm-256color", "TMUX": "/tmp/tmux,1,0"}, True, False, True),
        ({"TERM": "xterm", "STY": "123.pts"}, True, False, True),
        ({"TERM": "linux"}, False, False, True),
        ({"TERM": "vt220"}, False, False, True),
        ({"TERM": "dumb"}, False, False, False),
        ({"TERM": ""}, False, False, False),
        ({}, False, False, False),
    ],
)
def test_a_terminal_is_asked_what_it_does_not_show(
    environ: dict[str, str], asks_colours: bool, asks_graphics: bool, asks_anything: bool
) -> None:
    """A dumb terminal is asked nothing, a console no strings, and where APC is a title, not about graphics."""
    asked = questions_for(environ)
    assert (b"\x1b]11;?" in asked, APC in asked, asked.endswith(DA1)) == (asks_colours, asks_graphics, asks_anything)


@given(
    st.lists(st.tuples(st.integers(min_value=0), st.sampled_from([b"x", b"ls\r", b"\x1b[A", b"\x1bOP"])), max_size=5)
)
def test_answers_are_told_from_keys(typed: list[tuple[int, bytes]]) -> None:
    """Whatever the user types between the answers is kept, in order, and the answers are known."""
    data = [bytes([byte]) for byte in answers()]
    # Keys are typed between whole answers; each answer ends before the next ESC that does not end a string.
    borders = [0] + [index for index in range(1, len(data)) if data[index] == b"\x1b" and data[index + 1] != b"\\"]
    for place, key in typed:
        data[borders[place % len(borders)]] = key + data[borders[place % len(borders)]]
    questions = TerminalQuestions()
    questions.ask(XTERM, 0.0)
    kept = b"".join(questions.receive(piece, 0.0) for piece in data)
    assert len(kept) == sum(len(key) for _, key in typed)
    assert questions.deadline is None
    found = msgspec.convert(questions.terminal(), ClientTerminal)
    assert (found.foreground, found.background, found.kitty_graphics) == ("#102030", "#fffff0", True)
    assert found.palette is not None
    assert len(found.palette) == 16


def test_what_has_come_in_time_counts() -> None:
    """Without the last answer, what was answered is known; a palette with a gap ends there."""
    questions = TerminalQuestions()
    questions.ask(XTERM, 5.0)
    assert questions.deadline == 5.0 + ASK_SECS
    assert questions.terminal() is None
    assert (
        questions.receive(b"a\x1b]4;0;rgb:f/8/0\x07\x1b]4;2;#aabbcc\x1b\\\x1b]11;rgba:1111/2222/3333/ffff\x07b", 5.0)
        == b"ab"
    )
    assert msgspec.convert(questions.terminal(), ClientTerminal) == ClientTerminal(
        background="#112233", palette=["#ff8800"]
    )
    assert questions.barrier == b""


def test_late_answers_are_noticed() -> None:
    """Over a slow line it is noticed later that the terminal answers; after some seconds nothing is held any more."""
    questions = TerminalQuestions()
    questions.ask(XTERM, 0.0)
    assert questions.receive(b"x\x1b[0n\x1b[?62;22c", 0.3) == b"x"
    assert questions.barrier == DA1 + DSR
    questions.ask(XTERM, 0.0)
    assert questions.receive(b"\x1b[A\x1b", LATE_SECS + 1) == b"\x1b[A\x1b"
    assert questions.flush_at is None
    assert questions.receive(b"\x1b[?62c", LATE_SECS + 1) == b"\x1b[?62c"


def test_escape_is_held_for_a_moment() -> None:
    """While answers may come, Escape is passed on by `flush`."""
    questions = TerminalQuestions()
    questions.ask(XTERM, 0.0)
    assert questions.receive(b"\x1b", 0.0) == b""
    assert questions.flush_at is not None
    assert questions.flush_at < 0.05
    assert questions.flush() == b"\x1b"
    assert questions.flush_at is None


@pytest.mark.parametrize(("first", "sent"), [
    (b"\x1b[0n\x1b[?62c", b"\x1b[?62c\x1b[24;1R\x1b[?62c\x1b[0n"),
    (b"\x1b[?62c", b"\x1b]11;rgb:0/0/0\x07\x1b[?62c"),
])  # fmt: skip
def test_what_is_typed_behind_the_last_answer_stays(first: bytes, sent: bytes) -> None:
    """At the end everything up to the answer to the last question is dropped, and nothing behind it is read."""
    questions = TerminalQuestions()
    questions.ask(XTERM, time.monotonic())
    questions.receive(first, time.monotonic())
    reading, writing = os.pipe()
    os.write(writing, sent + b"ls\r")
    questions.wait_for_answers(reading, has_barrier=True)
    assert os.read(reading, 99) == b"ls\r"
    os.close(writing)
    questions.wait_for_answers(reading, has_barrier=True)  # a hangup
    os.close(reading)


def test_a_terminal_that_is_not_asked_is_not_waited_for() -> None:
    """Nothing is read of it at the end."""
    reading, writing = os.pipe()
    os.write(writing, b"ls\r")
    TerminalQuestions().wait_for_answers(reading, has_barrier=True)
    dumb = TerminalQuestions()
    assert dumb.ask({"TERM": "dumb"}, time.monotonic()) == b""
    dumb.wait_for_answers(reading, has_barrier=False)
    assert os.read(reading, 99) == b"ls\r"
    os.close(reading)
    os.close(writing)


# With a terminal


ASK = r"""printf '\e]11;?\a'; read -rsd $'\a' answer; echo "${answer#*rgb:}" """


def test_programs_see_the_users_colours(ctl: Orbitctl) -> None:
    """A program that asks for the background is answered with that of the terminal that orbitctl is in."""
    with Window(ctl, *RUN_SHELL, looks=LOOKS, TERM="xterm-256color") as window:
        settled(window)
        window.type(f"{ASK}\r")
        window.until("ffff/ffff/f0f0")


def test_what_is_typed_while_it_asks_is_kept(ctl: Orbitctl) -> None:
    """Keys between the first question and the attach reach the program, in order."""
    with Window(ctl, *RUN_SHELL, TERM="xterm-256color") as window:
        window.until(re.escape(DA1))
        window.type("echo one$((1)); ")
        window.type(answers())
        window.type("echo two$((2))\r")
        window.until(b"one1\r\ntwo2")


def test_a_dumb_terminal_shows_no_question(ctl: Orbitctl) -> None:
    """Nothing is asked of a terminal that would show it."""
    with Window(ctl, *RUN_SHELL, TERM="dumb") as window:
        settled(window)
        assert DA1 not in window.output
        assert b"\x1b]11;" not in window.output


@pytest.mark.parametrize("number", range(3))
def test_no_answer_reaches_the_shell(ctl: Orbitctl, home: Path, number: int) -> None:
    """A program asks all the time; when the user leaves, every answer of the terminal has been read."""
    asker = (sys.executable, str(Path(live.asker.__file__)), str(home / "log"))
    with Window(ctl, "session", "run", "--name", "web", "--", *asker, looks=LOOKS, TERM="xterm-256color") as window:
        for _ in range(number + 1):
            window.until("answered")
        window.type(DETACH)
        assert window.end() == 0
        assert window.unread() == b""
        assert window.settings() != window.before  # `unread` has set it to raw mode
    assert ctl("session", "delete", "--yes", "web").code == 0


def test_a_program_that_ends_at_once_leaves_no_answers(ctl: Orbitctl) -> None:
    """The answers to the first questions are waited for, though the program was quicker."""
    with Window(ctl, "session", "run", "--", "sh", "-c", "exit 3", looks=LOOKS, TERM="xterm-256color") as window:
        assert window.end() == 3
        assert window.unread() == b""
