"""What was typed before the detach key: it reaches the program, or is counted; and pastes that hold the key."""

from __future__ import annotations

import re

import pytest

from attach_support import DETACH, LateReader, Window
from ctl_support import Orbitctl


def left(window: Window) -> int:
    """Wait until the client has left; return how many bytes it says were not taken."""
    assert window.end() == 0
    said = re.search(
        rb"\[detached from web(?:; (\d+) bytes? typed w\w+ not taken by the program)?\]\r\n", window.output
    )
    assert said, window.output[-200:]
    return int(said[1] or 0)


@pytest.mark.parametrize("keys", [b"", b"k", b"x" * 100])
def test_what_is_typed_with_the_detach_key_arrives(ctl: Orbitctl, keys: bytes) -> None:
    """A line and the key in one read: the program gets the line before the client leaves; what follows is dropped."""
    program = LateReader(ctl)
    with Window(ctl, "session", "attach", "web") as window:
        window.screen_until("ready")
        for key in keys:
            window.type(bytes([key]))
        window.type(b"build\r" + DETACH + b"dropped")
        assert left(window) == 0
    program.let_read()
    assert program.end() == keys + b"build\r"


def test_what_a_program_does_not_take_is_counted(ctl: Orbitctl) -> None:
    """Of 100,000 bytes to a program that does not read, the rest of what it will find is said, to the byte."""
    program = LateReader(ctl)
    typed = b"".join(b"%07d\n" % number for number in range(12_500))
    with Window(ctl, "session", "attach", "web") as window:
        window.screen_until("ready")
        window.type(typed + DETACH)
        not_taken = left(window)
    program.let_read()
    arrived = program.end()
    assert 0 < not_taken < len(typed)
    assert arrived == typed[: len(typed) - not_taken]


def test_a_paste_may_hold_the_detach_key(ctl: Orbitctl) -> None:
    """Between the marks of a paste it is text, in one read or several; behind them it detaches."""
    program = LateReader(ctl)
    paste = b"\x1b[200~a\x1cb" + b"-" * 10_000 + b"\x1cc\x1b[201~"
    with Window(ctl, "session", "attach", "web") as window:
        window.screen_until("ready")
        window.type(paste + DETACH)
        assert left(window) == 0
    program.let_read()
    assert program.end() == paste
