"""Much output, much input, and clients that do not keep up."""

from __future__ import annotations

import hashlib
import re
import signal

import pytest

from attach_support import DETACH, RUN_SHELL, Window, settled
from ctl_support import Orbitctl

pytestmark = pytest.mark.slow

LINES = 100_000
MANY = 700_000
"""Lines of `seq`: less than, and far more than, a client may leave unread."""


def test_all_output_arrives_in_order(ctl: Orbitctl) -> None:
    """Nothing is lost or reordered on the way to a client that keeps up."""
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        window.type(f"seq 1 {LINES}; echo e''nd\r")
        start = window.searched
        window.until("\r\nend\r\n")
        numbers = re.findall(rb"[\r\n](\d+)(?=\r\n)", window.output[start:])
        assert list(map(int, numbers)) == list(range(1, LINES + 1))


def test_a_flood_ends_with_the_right_screen(ctl: Orbitctl) -> None:
    """After more than a client may leave unread, its screen is the program's, and the history is whole."""
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        window.type(f"seq 1 {MANY}; echo e''nd\r")
        shown = window.screen_until("\nend\n").splitlines()
        assert shown[:22] == [str(number) for number in range(MANY - 21, MANY + 1)]
        assert shown[22] == "end"
    history = [line for line in ctl.ok("session", "screen", "web", "--scrollback").lines if line.isdigit()]
    assert len(history) > 5_000
    assert history == [str(number) for number in range(MANY - len(history) + 1, MANY + 1)]


def test_a_flood_is_left_at_any_moment(ctl: Orbitctl) -> None:
    """The detach key works while output comes as fast as it can."""
    with Window(ctl, "session", "run", "--name", "web", "--", "yes", "0123456789" * 7) as window:
        window.until("0123456789\r\n")
        window.type(DETACH)
        assert window.end() == 0
        assert window.settings() == window.before
        assert "[detached from web]" in window.screen()


def test_a_frozen_client_holds_nobody_up(ctl: Orbitctl) -> None:
    """While a client is stopped the program and others go on; when it goes on, its screen is right."""
    with Window(ctl, *RUN_SHELL) as frozen:
        settled(frozen)
        frozen.process.send_signal(signal.SIGSTOP)
        with Window(ctl, "session", "attach", "web") as other:
            other.until("ready")
            other.type(f"seq 1 {MANY}; echo e''nd\r")
            wanted = other.screen_until("\nend\n")
            frozen.process.send_signal(signal.SIGCONT)
            frozen.screen_until("\nend\n")
            assert frozen.screen().splitlines()[:23] == wanted.splitlines()[:23]


def test_a_terminal_that_does_not_read_can_be_left(ctl: Orbitctl) -> None:
    """A window that takes no output does not keep the client from ending, by key or by signal."""
    with Window(ctl, "session", "run", "--name", "web", "--", "yes", "0123456789" * 7) as window:
        window.until("0123456789\r\n")
        window.process.send_signal(signal.SIGTERM)
        assert window.process.wait(20) == 128 + signal.SIGTERM
        assert window.settings() == window.before


def test_a_large_paste_arrives_whole(ctl: Orbitctl) -> None:
    """Far more than the terminal of the program takes at once is typed without a loss."""
    data = b"".join(b"%07d " % number for number in range(50_000))
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        window.type(f"stty raw -echo; echo g''o; head -c {len(data)} | md5sum; stty sane\r")
        window.until("go")
        for first in range(0, len(data), 4096):
            window.type(data[first : first + 4096])
        window.until(hashlib.md5(data).hexdigest())
