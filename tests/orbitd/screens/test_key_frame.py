"""Key frames: states with little history, from which the same is drawn as from the whole one."""

from __future__ import annotations

import random

import pytest

from orbitd.screens import emulator as emulators
from orbitd.screens.emulator import KEY_FRAME_ROWS, Emulator, key_frame
from orbitd.screens.model import StateCorrupt, TerminalError
from terminal_support import noise, play

HISTORY = b"".join(b"\x1b[3%dmline %d of a history\x1b[m\r\n" % (number % 8, number) for number in range(9000))


def test_a_key_frame_is_small_and_counts_on() -> None:
    """Some hundred rows of history are in it; the numbers of its lines are those of the whole."""
    with Emulator(80, 24) as whole:
        whole.feed(HISTORY)
        state = whole.encode()
        frame = key_frame(state)
        assert len(frame) < len(state) // 4
        with Emulator.decode(frame) as drawn:
            assert drawn.dump() == whole.dump()
            assert drawn.scrollback_rows >= KEY_FRAME_ROWS
            assert drawn.history(KEY_FRAME_ROWS) == whole.history(KEY_FRAME_ROWS)
            for each in (whole, drawn):
                each.feed(HISTORY)
            assert drawn.history_line == whole.history_line == 17_977


@pytest.mark.parametrize(
    "ending", [b"", b"\x1b[?1049h\x1b[5;5Hfull", b"\x1b[38;2;1", b"\x1b]2;a titl", "你".encode()[:2]]
)
def test_what_follows_a_key_frame_is_drawn_as_on_the_whole_state(ending: bytes) -> None:
    """Also through resizes, behind a part of a sequence, and on the alternate screen."""
    with Emulator(80, 24) as whole:
        whole.feed(HISTORY + ending)
        with Emulator.decode(key_frame(whole.encode())) as drawn:
            for step in (b"2;3mgo on\x07\r\n", (60, 50), b"more\r\n" * 30, (100, 10), b"\x1b[?1049lback", (80, 200)):
                for each in (whole, drawn):
                    if isinstance(step, bytes):
                        each.feed(step)
                    else:
                        each.resize(*step)
                assert drawn.dump() == whole.dump()


@pytest.mark.parametrize("seed", range(40))
def test_noise_goes_on_from_a_key_frame(seed: int) -> None:
    """Whatever a terminal has been through."""
    operations = list(noise(seed))
    half = random.Random(seed).randrange(1, len(operations))
    with play(operations[:half]) as whole:
        try:
            state = whole.encode()
        except TerminalError:
            return
        with Emulator.decode(state) as saved, Emulator.decode(key_frame(state)) as drawn:
            for operation in operations[half:]:
                for each in (saved, drawn):
                    if isinstance(operation, tuple):
                        each.resize(*operation)
                    else:
                        each.feed(operation)
            assert drawn.dump() == saved.dump()


def test_where_the_library_refuses_there_is_no_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A film then has what draws the screen."""
    assert key_frame(b"") == b""
    assert key_frame(b"no state") == b""
    with Emulator(10, 3) as emulator:
        state = emulator.encode()

    def refuse(*_: object) -> None:
        raise StateCorrupt("no")

    monkeypatch.setattr(emulators.Terminal, "trim_scrollback", refuse)
    assert key_frame(state) == b""
