"""Records of a journal without their headers: the same bytes again, whatever they are."""

from __future__ import annotations

import random

import pytest

from orbitd.history.packed_records import pack, unpack
from orbitd.sessions.journal_file import CWD_MAX_BYTES, Cwd, Divider, Event, Output, Resize, Time, records_of

AT = 1_700_000_000_000


def some_events(dice: random.Random) -> list[Event]:
    """Return events of each kind, with times that go back now and then."""
    makers = [
        lambda: Output(data=dice.randbytes(dice.choice((1, 2, 100, 70_000)))),
        lambda: Resize(cols=dice.randrange(1, 300), rows=dice.randrange(1, 100)),
        lambda: Divider(text="é" * dice.randrange(1, 400)),
        lambda: Cwd(path=b"/" * dice.randrange(1, CWD_MAX_BYTES)),
        lambda: Time(milliseconds=AT + dice.randrange(-5_000, 5_000)),
    ]
    return [dice.choice(makers)() for _ in range(dice.randrange(40))]


def bytes_of(*events: Event) -> bytes:
    """Return the records of events."""
    return b"".join(record for event in events for record in records_of(event))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_packed_is_unpacked(seed: int) -> None:
    """Of any records the same bytes come again, as far as they are whole."""
    dice = random.Random(seed)
    records = bytes_of(*some_events(dice))
    rest = bytes_of(Output(data=b"not whole"))[: dice.randrange(10)]
    packed = pack(records + rest)
    assert (packed.raw_bytes, unpack(packed.data)) == (len(records), records)


def test_what_is_known_of_records() -> None:
    """The times of the first and the last output are in it, and the first size."""
    events = Time(milliseconds=AT), Output(data=b"x"), Resize(cols=90, rows=30), Resize(cols=80, rows=24)
    packed = pack(bytes_of(*events, Time(milliseconds=AT + 700), Output(data=b"y")))
    assert (packed.from_at, packed.to_at, packed.size) == (AT, AT + 700, (90, 30))
    assert pack(b"no records") == pack(b"")


@pytest.mark.parametrize("bit", range(0, 17 * 8, 3))
def test_a_damaged_record_ends_what_is_packed(bit: int) -> None:
    """What its checksum does not fit is in no film, nor what comes behind it."""
    whole, damaged = bytes_of(Output(data=b"whole")), bytearray(bytes_of(Time(milliseconds=AT)))
    damaged[bit // 8] ^= 1 << bit % 8
    assert pack(whole + damaged + whole) == pack(whole)


def test_a_time_that_no_clock_has() -> None:
    """It ends what is packed as damage does; times go back and forth as they like below it."""
    records = bytes_of(*(Time(milliseconds=at) for at in (0, AT, (1 << 56) - 1, 0)))
    packed = pack(records + bytes_of(Time(milliseconds=1 << 56)))
    assert unpack(packed.data) == records


def test_headers_take_a_byte_or_two() -> None:
    """What a key echoes takes one byte more than itself, and a time two or three."""
    events = [event for number in range(100) for event in (Time(milliseconds=AT + number * 110), Output(data=b"k"))]
    assert len(pack(bytes_of(*events)).data) <= 100 * 5 + 20


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\1",
        b"\0\0\0\1\xc0",
        *(b"\0\0\0\2\x91%c" % head for head in (0, 6, 7, 9, 0xFD)),  # no kind, and lengths of nothing
        b"\0\0\0\1\x90xx",
    ],
)
def test_what_nobody_has_packed(data: bytes) -> None:
    """It is refused, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"."):
        unpack(data)
