"""Screens survive packing to the byte, and what is damaged is told and never guessed."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orbitd.store import screen_codec
from orbitd.store.screen_codec import Damaged, Packed, Screen, Sizes

parts = st.none() | st.binary(max_size=300) | st.binary(max_size=20).map(lambda piece: piece * 50)
screens = st.builds(
    Screen,
    terminal_buffer=parts.map(lambda part: part or b""),
    scrollback=parts,
    native_state=parts,
)


def sizes(screen: Screen) -> Sizes:
    return Sizes(
        terminal_buffer=len(screen.terminal_buffer),
        scrollback=None if screen.scrollback is None else len(screen.scrollback),
        native_state=None if screen.native_state is None else len(screen.native_state),
    )


@given(screen=screens, base=st.none() | screens)
@example(screen=Screen(terminal_buffer=b""), base=Screen(terminal_buffer=b""))
@example(screen=Screen(terminal_buffer=b"\0\xff\xfe", scrollback=b""), base=Screen(terminal_buffer=b"1234567"))
@settings(deadline=None, max_examples=200)
def test_round_trip(screen: Screen, base: Screen | None) -> None:
    """Any screen comes back equal, alone or against any base; None and empty stay different."""
    packed = screen_codec.pack(screen, base)
    assert screen_codec.unpack(packed, sizes(screen), base) == screen


@pytest.mark.parametrize("size", [1, 131_071, 131_072, 131_073])
def test_a_dictionary_is_used_as_it_is_at_each_side_of_one_block(size: int) -> None:
    """A screen comes back from a base of one zstd block and from a larger one, whatever it begins with."""
    base = Screen(terminal_buffer=(b"\x37\xa4\x30\xec" + random.Random(size).randbytes(size))[:size])
    screen = Screen(terminal_buffer=base.terminal_buffer + b"more", scrollback=base.terminal_buffer)
    packed = screen_codec.pack(screen, base)
    assert screen_codec.unpack(packed, sizes(screen), base) == screen
    broken = Packed(terminal_buffer=packed.terminal_buffer[:-1], scrollback=packed.scrollback, native_state=None)
    with pytest.raises(Damaged):
        screen_codec.unpack(broken, sizes(screen), base)


@given(one=screens, other=screens)
@settings(deadline=None)
def test_checksum_tells_screens_apart(one: Screen, other: Screen) -> None:
    """Two screens have the same checksum only if they are equal, wherever a part ends."""
    assert (screen_codec.checksum(one) == screen_codec.checksum(other)) == (one == other)


def test_bytes_moved_between_parts_change_the_checksum() -> None:
    """The same bytes, split elsewhere, are another screen."""
    one = Screen(terminal_buffer=b"ab", scrollback=b"c")
    other = Screen(terminal_buffer=b"a", scrollback=b"bc")
    assert screen_codec.checksum(one) != screen_codec.checksum(other)


@pytest.mark.parametrize("size", [200_000, 2 << 20, 15 << 20])
def test_a_base_of_any_size_is_used_to_its_far_end(size: int) -> None:
    """Bytes that cannot be compressed alone take next to nothing against a base that has them."""
    noise = random.Random(size).randbytes(size)
    base = Screen(terminal_buffer=noise[-4_000:], scrollback=noise)
    screen = Screen(terminal_buffer=noise[:4_000], scrollback=noise[: size - 5_000])
    packed = screen_codec.pack(screen, base)
    assert packed.size < 8_000
    assert screen_codec.unpack(packed, sizes(screen), base) == screen


def test_wrong_base_is_noticed() -> None:
    """Against other bytes than it was packed with, a screen is damaged or has another checksum."""
    text = b"".join(b"line %d of a screen\r\n" % number for number in range(500))
    base, screen = Screen(terminal_buffer=text), Screen(terminal_buffer=text[:5_000])
    packed = screen_codec.pack(screen, base)
    with pytest.raises(Damaged):
        screen_codec.unpack(packed, sizes(screen), None)
    wrong = screen_codec.unpack(packed, sizes(screen), Screen(terminal_buffer=text.upper()))
    assert screen_codec.checksum(wrong) != screen_codec.checksum(screen)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"no frame",
        zstandard.compress(b"x" * 11),
        zstandard.compress(b"x" * 10)[:-1],
        zstandard.compress(bytes(1 << 30)),
    ],
    ids=["empty", "text", "other size", "cut", "bomb"],
)
def test_damaged_frames(frame: bytes) -> None:
    """What is no frame of the size that was saved is refused, before it takes any memory."""
    packed = Packed(terminal_buffer=frame, scrollback=None, native_state=None)
    with pytest.raises(Damaged):
        screen_codec.unpack(packed, Sizes(terminal_buffer=10, scrollback=None, native_state=None), None)


def test_missing_part_is_damage() -> None:
    """A part that should be there and is not, or the other way round, is damage."""
    packed = screen_codec.pack(Screen(terminal_buffer=b"x", scrollback=b"y"), None)
    with pytest.raises(Damaged):
        screen_codec.unpack(packed, Sizes(terminal_buffer=1, scrollback=None, native_state=None), None)
    packed = screen_codec.pack(Screen(terminal_buffer=b"x"), None)
    with pytest.raises(Damaged):
        screen_codec.unpack(packed, Sizes(terminal_buffer=1, scrollback=1, native_state=None), None)
