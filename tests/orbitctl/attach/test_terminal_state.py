"""The constants that bring a terminal into a known state and give it back, on an emulator."""

from __future__ import annotations

import pytest

from orbit_protocol.terminal_reset import ENTER, RESET, RESTORE, RESTORE_IN_PLACE
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


@pytest.mark.parametrize("session", [b"", WILD, b"\x1b[?1049h\x1b[2;5rabc", b"\x1b[?1000hmore text"])
def test_restore_gives_the_users_screen_back(session: bytes) -> None:
    """After RESTORE_IN_PLACE a terminal is on its main screen, with its modes, and the cursor where the text ended."""
    with shown(ENTER, RESET, b"one\r\ntwo $ ", session, RESTORE_IN_PLACE, b"|") as found, shown(b"") as fresh:
        assert found.modes() == fresh.modes()
        assert not found.alternate
        lines = found.screen("text").decode().splitlines()
        assert lines[0] == "one"
        assert lines[1].startswith("two $ ")
        assert lines[1].endswith("|")


def test_every_mode_of_a_repaint_is_reset() -> None:
    """A mode that a repaint may set, RESET and RESTORE take back."""
    for mode in MODES:
        if mode.name not in ("?12", "?1007"):
            wanted = f"\x1b[{mode.name}{'h' if mode.default else 'l'}".encode()
            assert wanted in RESET, mode
            assert wanted in RESTORE, mode
            assert wanted in RESTORE_IN_PLACE, mode
