"""The constants that bring a terminal into a known state and give it back, on an emulator."""

from __future__ import annotations

import pytest

from orbit_protocol.terminal_reset import (
    ENTER,
    LINES_UP,
    RESET,
    RESET_IN_USE,
    RESTORE,
    RESTORE_BEHIND,
    RESTORE_IN_PLACE,
    RESTORE_PRIMARY,
)
from orbitd.screens.emulator import Emulator
from orbitd.screens.repaint import MODES

WILD = (
    b"\x1b[?1049h\x1b[>1u\x1b[>4;2m\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?25l\x1b[4h\x1b[?7l\x1b[?1h\x1b=\x1b[3;9r"
    b"\x1b[1;31m\x1b(0\x0e\x1b[3g\x1b[5 q\x1b]8;;http://x\x1b\\text"
)


def shown(*output: bytes) -> Emulator:
    emulator = Emulator(40, 10)
    emulator.answering = False
    for data in output:
        emulator.feed(data)
    return emulator


@pytest.mark.parametrize("before", [b"", WILD, b"\x1b[?6h", b"\x1b]0;half a title", b"\x1b[3", "é".encode()[:1]])
def test_reset_leads_to_one_state_from_anywhere(before: bytes) -> None:
    """After RESET a terminal is as a new one that was cleared, whatever it was in the middle of."""
    with shown(before, RESET, b"x") as found, shown(RESET, b"x") as known, shown(b"x") as fresh:
        assert found.dump() == known.dump()
        assert (known.modes(), known.cursor, known.dump().lines) == (fresh.modes(), fresh.cursor, fresh.dump().lines)


@pytest.mark.parametrize(
    "session", [b"", WILD, b"\x1b[?1049h\x1b[2;5rabc", b"\x1b[?1000hmore text", b"\x1b[?6h\x1b[3;5r"]
)
def test_restore_gives_the_users_screen_back(session: bytes) -> None:
    """After RESTORE a terminal is on its main screen, with its modes and its text, and the cursor at the bottom."""
    with shown(ENTER, RESET, b"one\r\ntwo $ ", session, RESTORE, b"|") as found, shown(b"") as fresh:
        assert found.modes() == fresh.modes()
        assert not found.alternate
        lines = found.screen("text").decode().splitlines()
        assert lines[0] == "one"
        assert lines[1].startswith("two $")
        assert lines[9] == "|"


@pytest.mark.parametrize("session", [WILD, b"\x1b[?1049h\x1b[2;5rabc"])
def test_the_users_screen_can_go_on_where_it_was_left(session: bytes) -> None:
    """After RESTORE_BEHIND the cursor is where the alternate screen was entered."""
    with shown(ENTER, RESET, b"one\r\ntwo $ ", session, RESTORE_BEHIND, b"|") as found, shown(b"") as fresh:
        assert found.modes() == fresh.modes()
        assert found.screen("text").decode().splitlines() == ["one", "two $ |"]


def test_the_primary_screen_is_given_back_in_place() -> None:
    """After RESTORE_IN_PLACE the cursor is where it was, whatever margins were set."""
    with shown(b"one\r\ntwo $ \x1b7\x1b[2;5r\x1b8\x1b[4h", RESTORE_IN_PLACE, b"|\x1b[10;1H\n") as found:
        assert found.screen("text").decode().splitlines()[0] == "two $ |"
        assert "4" not in found.modes()


def test_restoring_the_primary_screen_moves_the_cursor_to_no_old_place() -> None:
    """Where the alternate screen is not in use nothing leaves it: tmux would take up a cursor that was saved once."""
    assert b"1049l" not in RESTORE_PRIMARY + RESTORE_IN_PLACE
    with shown(WILD, b"\x1b[?1049l", RESTORE_PRIMARY) as found, shown(b"") as fresh:
        assert found.modes() == fresh.modes()


def test_the_screen_in_use_can_be_reset_alone() -> None:
    """RESET_IN_USE resets modes, margins and pen, and stays on the alternate screen with its text."""
    with shown(WILD, RESET_IN_USE) as found, shown(b"\x1b[?1049h") as fresh:
        assert found.modes() == fresh.modes()
        assert found.alternate
        assert "text" in found.screen("text").decode()


def test_lines_move_up_one_by_one() -> None:
    """Behind LINES_UP each line feed moves one row into the history, whatever margins and origin were set."""
    with shown(b"one\r\ntwo\r\nthree\x1b[?6h\x1b[2;5r\x1b[44m", LINES_UP, b"\n\n") as found:
        assert found.scrollback_rows == 2
        assert found.screen("text").decode().strip() == "three"


def test_every_mode_of_a_repaint_is_reset() -> None:
    """A mode that a repaint may set, RESET and RESTORE take back."""
    for mode in MODES:
        if mode.name not in ("?12", "?1007"):
            wanted = f"\x1b[{mode.name}{'h' if mode.default else 'l'}".encode()
            assert wanted in RESET, mode
            assert wanted in RESTORE, mode
            assert wanted in RESET_IN_USE or mode.name in ("?47", "?1047", "?1049"), mode
