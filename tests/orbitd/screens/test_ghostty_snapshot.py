"""Reading a snapshot by the format in Ghostty's sources: what the library's own interface does not say."""

from __future__ import annotations

import random

import pytest

from orbitd.screens._ghostty_snapshot import SnapshotScreen, parse
from orbitd.screens.emulator import Emulator, StateHeader
from orbitd.screens.model import Link, PromptState, Zone

OUTPUT = (
    b"\x1b]133;A;redraw=last;cl=v\x07$ \x1b]133;I\x07\x1b]8;id=one;http://a/\x07linked\x1b7\x1b[m\r\n"
    + b"\x1b]133;C\x07\x1b]8;;http://b/\x07x\x1b]8;;\x07\r\n" * 3
    + b"\x1b[?1049h\x1b]133;A\x07\x1b]8;id=two;http://c/\x07"
)


def snapshot_of(emulator: Emulator) -> dict[bool, SnapshotScreen]:
    """Return what is read from a terminal's snapshot."""
    _, snapshot = StateHeader.split(emulator.encode())
    screens = parse(snapshot)
    assert screens is not None
    return screens


def test_both_screens_are_read() -> None:
    """Each has its own links, its pen's link, and what was last said of its prompt."""
    with Emulator(20, 3) as emulator:
        emulator.feed(OUTPUT)
        screens = snapshot_of(emulator)
    options = ";redraw=last;cl=v"
    assert screens[False].prompt == PromptState(zone=Zone.OUTPUT, options=options)
    assert screens[False].pen_link is None
    assert screens[False].links(4) == [None, None, *[Link("http://a/", "one")] * 6]
    assert [screens[False].links(row) for row in (1, 2, 3)] == [
        [Link("http://b/", f"orbit0-0.{number}")] for number in (2, 1, 0)
    ]
    assert screens[True].prompt == PromptState(zone=Zone.PROMPT, options=";redraw=last")
    assert screens[True].pen_link == Link("http://c/", "two")
    assert screens[True].links(0) is None


def test_a_zone_until_the_line_ends_is_told() -> None:
    """OSC 133;I ends with the line, OSC 133;B does not."""
    with Emulator(20, 3) as emulator:
        emulator.feed(b"\x1b]133;A\x07$ \x1b]133;I\x07")
        assert snapshot_of(emulator)[False].prompt == PromptState(zone=Zone.INPUT, until_line_end=True)
        emulator.feed(b"\x1b]133;B\x07")
        assert snapshot_of(emulator)[False].prompt == PromptState(zone=Zone.INPUT)


def test_links_of_a_long_history_are_found() -> None:
    """Rows are counted from the end over the pages of both parts of a snapshot."""
    with Emulator(40, 5) as emulator:
        for number in range(5000):
            emulator.feed(b"\x1b]8;id=%d;http://a/\x07x\x1b]8;;\x07\r\n" % number)
        screen = snapshot_of(emulator)[False]
        assert emulator.scrollback_rows == 4996
        for row in (1, 2, 500, 2500, 4999, 5000):
            assert screen.links(row) == [Link("http://a/", str(5000 - row))]
        assert screen.links(0) is screen.links(5001) is None


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_damaged_snapshots_raise_nothing(first: int) -> None:
    """A snapshot that is not what it says gives less, or nothing, whichever of its bytes are others or missing."""
    with Emulator(20, 3) as emulator:
        emulator.feed(OUTPUT)
        _, whole = StateHeader.split(emulator.encode())
    assert parse(whole) is not None
    assert parse(b"other" + whole) is None
    for seed in range(first, first + 100):
        rng, data = random.Random(seed), bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(10, len(data))] = rng.randrange(256)
        for screen in (parse(bytes(data[: rng.randrange(len(data)) or None])) or {}).values():
            assert isinstance(screen.prompt, PromptState)
            assert all(isinstance(screen.links(row), list | None) for row in range(7))
            assert isinstance(screen.pen_link, Link | None)
