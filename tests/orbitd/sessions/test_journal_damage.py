"""A damaged journal: all that is whole is replayed, the file is kept aside unchanged, and nothing raises."""

from __future__ import annotations

import os
import random
import re
import socket
import stat
import zlib
from pathlib import Path
from typing import cast

import pytest
from msgspec import Struct

from orbitd.history.history import History
from orbitd.manager import SessionManager
from orbitd.sessions import journal_repair
from orbitd.sessions.files import SessionFiles
from orbitd.sessions.journal import Journal, delete
from orbitd.sessions.journal_file import (
    CAPTURE_MAX_BYTES,
    CWD_MAX_BYTES,
    DIVIDER_MAX_BYTES,
    FILE_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Cwd,
    Divider,
    Event,
    Kind,
    Output,
    Resize,
    Time,
    file_header,
    record_header,
    records_of,
)
from orbitd.sessions.journal_repair import KEPT, damaged_journals

MARKER = re.compile(rb"\x18\x1b\\\r\n\[(\d+) bytes of output could not be read\]\r\n")
RESERVED = 9_000
FLIPS = 1_000


class Written(Struct, frozen=True):
    """The bytes of a journal, and where in them each event is."""

    data: bytes
    events: list[tuple[int, int, Event]]

    def untouched(self, start: int, end: int) -> list[Event]:
        """Return the events that have no byte in a range of the file."""
        return [event for begin, stop, event in self.events if stop <= start or begin >= end]


def write(events: list[Event], *, base: int = 0, reserved: int = 0) -> Written:
    data, found = file_header(base), []
    for event in events:
        for record in records_of(event):
            whole = Output(data=record[RECORD_HEADER_BYTES:]) if isinstance(event, Output) else event
            found.append((len(data), len(data) + len(record), whole))
            data += record
    return Written(data + bytes(reserved), found)


def noise(dice: random.Random, *, count: int = 16) -> list[Event]:
    """Return random events; no output ends with a NUL, which a tail of zeros would take."""
    events: list[Event] = []
    for _ in range(count):
        kind = dice.random()
        if kind < 0.2:
            events.append(Resize(cols=dice.randrange(1, 500), rows=dice.randrange(1, 200)))
        elif kind < 0.3:
            events.append(Divider(text=f"{dice.random()} " + "\u2500" * dice.choice([1, 20, 300])))
        elif kind < 0.4:
            events.append(
                Cwd(path=b"/%d/" % dice.randrange(1 << 40) + dice.choice([b"a", b"\xe9" * 100, b"long/" * 800]))
            )
        elif kind < 0.5:
            events.append(Time(milliseconds=dice.randrange(1 << 41) | 1))
        else:
            size = dice.choice([1, 9, 80, 400, 1500])
            events.append(Output(data=dice.randbytes(size) + b"x"))
    return events


class Replayed(Struct, frozen=True):
    """What a damaged file gave: its events, and how many bytes they say are missing; the file kept aside."""

    events: list[Event]
    missing: list[int]
    aside: bytes | None


def replay(path: Path, data: bytes, *, covered: int = 0) -> Replayed:
    """Write a file and open it; check that what was kept aside is the same, and that the journal goes on."""
    for name in damaged_journals(str(path.parent)):
        os.unlink(name)
    path.write_bytes(data)
    with Journal(path, covered=covered) as journal:
        found = list(journal.events(covered))
        damage = journal.damage
        journal.append(Output(data=b"later"))
        end = journal.position
    with Journal(path, covered=covered) as journal:
        assert list(journal.events(covered)) == [*found, Output(data=b"later")]
        assert (journal.damage, journal.position) == (None, end)
    markers = [MARKER.fullmatch(event.data) if isinstance(event, Output) else None for event in found]
    kept = [] if damage is None else [damage.path]
    assert damaged_journals(str(path.parent)) == kept
    return Replayed(
        [event for event, marker in zip(found, markers, strict=True) if marker is None],
        [int(marker[1]) for marker in markers if marker is not None],
        None if damage is None else Path(damage.path).read_bytes(),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing: a test opens thousands of damaged files."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("reserved", [0, RESERVED], ids=["closed", "killed"])
def test_one_wrong_bit_costs_nothing(path: Path, reserved: int) -> None:
    """Whichever bit is wrong, it is put right: every record is replayed in order, and the file is kept aside."""
    dice = random.Random(reserved)
    written = write(noise(dice), reserved=reserved)
    used = 8 * (len(written.data) - reserved)
    header_bits = [*range(8 * FILE_HEADER_BYTES)]
    for begin, _, _ in written.events:
        header_bits += range(8 * begin, 8 * (begin + RECORD_HEADER_BYTES))
    bits = dice.sample(header_bits, FLIPS // 2) + [dice.randrange(used) for _ in range(FLIPS // 2)]
    for bit in bits:
        data = bytearray(written.data)
        data[bit // 8] ^= 1 << bit % 8
        found = replay(path, bytes(data))
        if bit == 8 * written.events[-1][0] and isinstance(written.events[-1][2], Output):
            # The kind of the last record became that of a read whose header was not written; its checksum fits.
            assert found == Replayed([event for *_, event in written.events], [], None)
            continue
        assert found == Replayed([event for *_, event in written.events], [], bytes(data)), bit


SHORT: list[Event] = [
    Output(data=b"a"),
    Resize(cols=80, rows=24),
    Divider(text="\u2500"),
    Cwd(path=b"12345678"),
    Time(milliseconds=0x0102_0304_0506_0708),
]


@pytest.mark.parametrize("event", SHORT, ids=repr)
def test_every_bit_of_a_record(path: Path, event: Event) -> None:
    """Whichever bit of any kind of record is wrong, alone, in the middle or last: the same event comes back."""
    places = [write([event]), write([event, Output(data=b"x")]), write([Output(data=b"x"), event])]
    for bit in range(8 * (places[0].events[0][1] - FILE_HEADER_BYTES)):
        written = places[(bit // 8 + bit) % 3]
        events = [each for *_, each in written.events]
        begin, *_ = written.events[events.index(event)]
        data = bytearray(written.data)
        data[begin + bit // 8] ^= 1 << bit % 8
        found = replay(path, bytes(data))
        assert (found.events, found.missing) == (events, []), bit


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 9, 100, 999, 1000, 1001, 4095, 4096, 4097, 8191, 8192])
def test_a_wrong_bit_in_the_kind(path: Path, length: int) -> None:
    """A kind that became another possible one is told from a wrong bit of the payload, at every length."""
    events: list[Event] = [Output(data=b"o" * length)]
    if length <= DIVIDER_MAX_BYTES:
        events.append(Divider(text="d" * length))
    if length <= CWD_MAX_BYTES:
        events.append(Cwd(path=b"c" * length))
    written = write([*events, Output(data=b"end")])
    for begin, *_ in written.events[:-1]:
        for bit in range(8):
            data = bytearray(written.data)
            data[begin] ^= 1 << bit
            assert replay(path, bytes(data)) == Replayed([*events, Output(data=b"end")], [], bytes(data))


def test_a_payload_that_its_kind_cannot_have(path: Path) -> None:
    """Text that is no UTF-8, and a folder with a NUL, are damage, however well the checksum fits."""
    written = write([Output(data=b"before"), Output(data=b"behind")])
    middle = written.events[0][1]
    for kind, payload in (
        (Kind.DIVIDER, b"\xff"),
        (Kind.CWD, b"a\0b"),
        (Kind.CWD, b"a" * 4097),
        (Kind.TIME, b"1234567"),
    ):
        data = written.data[:middle] + record_header(kind, payload) + payload + written.data[middle:]
        found = replay(path, data)
        assert (found.events, found.missing) == ([Output(data=b"before"), Output(data=b"behind")], [9 + len(payload)])


@pytest.mark.parametrize("kind", list(Kind))
def test_a_torn_record_of_each_kind(path: Path, kind: Kind) -> None:
    """A record of which a kill has left the beginning is no damage, wherever it was cut."""
    payload = {Kind.RESIZE: bytes([0, 80, 0, 24]), Kind.TIME: bytes(range(8))}.get(kind, b"/twelve bytes")
    record = record_header(kind, payload) + payload
    whole = write([Output(data=b"one")])
    for size in range(1, len(record)):
        found = replay(path, whole.data + record[:size])
        assert found == Replayed([Output(data=b"one")], [], None)


@pytest.mark.parametrize("size", [0, 10, FILE_HEADER_BYTES, FILE_HEADER_BYTES + 30, FILE_HEADER_BYTES + 59])
def test_a_file_that_was_cut_short_and_appended_to(path: Path, size: int) -> None:
    """With a hole in front of them, records are all there: also where nobody saw that the file was cut short."""
    events: list[Event] = [*(Output(data=bytes([65 + number]) * 50) for number in range(6)), Cwd(path=b"/new")]
    written = write(events)
    hole = written.events[4][0]
    data = written.data[:size] + bytes(hole - size) + written.data[hole:]
    found = replay(path, data)
    first = [events[0]] if size == FILE_HEADER_BYTES + 59 else []
    assert (found.events, found.aside) == ([*first, *events[4:]], data)
    with Journal(path) as journal:
        assert journal.last_cwd() == b"/new"


@pytest.mark.parametrize("reserved", [0, RESERVED], ids=["closed", "killed"])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_more_wrong_bits_cost_one_record(path: Path, reserved: int, count: int) -> None:
    """With more of them, all other records are replayed in order, what is missing is named, and the file is kept."""
    dice = random.Random(reserved + count)
    for _ in range(FLIPS // 20):
        written = write(noise(dice), reserved=reserved)
        # Not the last one, which with a wrong length looks like a record that was not written to its end.
        begin, end, _ = dice.choice(written.events[:-1])
        places = dice.choice([range(8 * begin, 8 * end), range(8 * begin, 8 * (begin + RECORD_HEADER_BYTES))])
        data = bytearray(written.data)
        for bit in dice.sample(places, count):
            data[bit // 8] ^= 1 << bit % 8
        found = replay(path, bytes(data))
        assert found == Replayed(written.untouched(begin, end), [end - begin], bytes(data))


@pytest.mark.parametrize("kind", ["garbage", "zeros", "removed", "inserted", "cut"])
def test_a_damaged_range_costs_the_records_in_it(path: Path, kind: str) -> None:
    """Garbage, a hole, bytes that are gone or too many: every record without a wrong byte is replayed, in order."""
    dice = random.Random(kind)
    for _ in range(200):
        reserved = dice.choice([0, RESERVED])
        written = write(noise(dice), reserved=reserved)
        start = dice.randrange(len(written.data) - reserved)
        length = min(dice.choice([1, 5, 50, 3000, 20_000]), len(written.data) - start)
        replaced = {"garbage": dice.randbytes(length), "zeros": bytes(length), "inserted": dice.randbytes(length)}
        behind = start if kind == "inserted" else len(written.data) if kind == "cut" else start + length
        data = written.data[:start] + replaced.get(kind, b"") + written.data[behind:]
        found = replay(path, data)
        # A byte that was changed into itself is none; a range that was removed may leave a whole record behind.
        whole = written.untouched(start, behind)
        originals = [event for *_, event in written.events]
        extra = [event for event in found.events if event not in originals]
        if extra:  # output of a read whose header is zeros: what was in front of it is not believed
            assert kind == "zeros"
            assert len(extra) == 1
        assert [event for event in found.events if event in whole] == whole
        assert found.aside in (None, data)
        assert found.aside is not None or len(found.events) >= len(whole)


def test_damage_inside_is_told_and_a_torn_tail_is_not(path: Path) -> None:
    """What a kill or a power cut leaves at the end is no damage; the same bytes with records behind them are."""
    whole = write([Output(data=b"a" * 5000), Output(data=b"b" * 5000)])
    record = next(records_of(Output(data=b"c" * 9000)))
    unfinished = bytes(RECORD_HEADER_BYTES) + b"captured"
    unmarked = b"\0" + record_header(Kind.OUTPUT, b"with nuls\0\0")[1:] + b"with nuls\0\0"
    page = 4096 - len(whole.data) % 4096
    torn = [b"", bytes(9000), record[:4], record[:100], record[:page] + bytes(20_000), record[: page + 4096]]
    for tail in torn:
        found = replay(path, whole.data + tail)
        assert (found.events, found.missing, found.aside) == (whole.untouched(0, 0), [], None), tail[:20]
    for tail, output in ((unfinished, b"captured"), (unmarked, b"with nuls\0\0")):
        for reserved in (b"", bytes(20_000)):
            found = replay(path, whole.data + tail + reserved)
            assert found.aside is None
            assert found.events[-1] == Output(data=output)
    behind = next(records_of(Output(data=b"behind")))
    assert replay(path, whole.data + unmarked + behind).aside is not None
    for tail in (*torn[2:], unfinished, bytes(100_000)):
        found = replay(path, whole.data + tail + behind)
        assert found.events == [*whole.untouched(0, 0), Output(data=b"behind")]
        assert (found.missing, found.aside is not None) == ([len(tail)], True)
    for stray in (b"@", os.urandom(512)):  # bits of the preallocated zeros that are wrong, and no output
        found = replay(path, whole.data + bytes(3000) + stray + bytes(9000))
        assert found.events == whole.untouched(0, 0)
        assert found.aside is not None
    too_long = bytes(RECORD_HEADER_BYTES) + b"c" * (CAPTURE_MAX_BYTES + 1)
    assert replay(path, whole.data + too_long).aside is not None


@pytest.mark.parametrize("size", range(FILE_HEADER_BYTES))
def test_a_header_that_was_not_written(path: Path, size: int) -> None:
    """A file that is empty, or ends within its header, is a new journal; no damage."""
    for data in (file_header(7)[:size], bytes(size)):
        path.write_bytes(data)
        with Journal(path, covered=500) as journal:
            assert (journal.base, journal.position, journal.damage) == (500, 500, None)


@pytest.mark.parametrize(
    "data",
    [b"#!/bin/sh\necho a script\n", b"x", os.urandom(50_000), b"SQLite format 3\0" + bytes(5000), b"\n" * 19],
    ids=["script", "byte", "noise", "database", "lines"],
)
def test_a_file_that_is_no_journal(path: Path, data: bytes) -> None:
    """It is kept aside as it is, and a new journal begins where the snapshot ends."""
    path.write_bytes(data)
    with Journal(path, covered=500) as journal:
        assert (journal.base, journal.position, list(journal.events(0))) == (500, 500, [])
        assert journal.damage is not None
        assert Path(journal.damage.path).read_bytes() == data


def test_a_journal_of_a_later_version(path: Path) -> None:
    """Nothing in it is taken for a record; it is kept aside for the Orbit that wrote it."""
    start = b"ORBITJ\x02\n" + bytes(8)
    data = (
        start + zlib.crc32(start).to_bytes(4, "big") + write([Output(data=b"in another form")]).data[FILE_HEADER_BYTES:]
    )
    assert replay(path, data) == Replayed([], [], data)


def test_a_position_survives_a_wrong_bit_in_the_header(path: Path) -> None:
    """A bit of the header that is wrong is found by its checksum: what the snapshot has is not replayed again."""
    written = write([Output(data=b"saved"), Output(data=b"new")], base=1000)
    covered = 1000 + written.events[0][1] - FILE_HEADER_BYTES
    for bit in range(8 * FILE_HEADER_BYTES):
        data = bytearray(written.data)
        data[bit // 8] ^= 1 << bit % 8
        assert replay(path, bytes(data), covered=covered).events == [Output(data=b"new")]
    data = bytearray(written.data)
    data[9] ^= 3
    assert replay(path, bytes(data), covered=covered).events == [Output(data=b"saved"), Output(data=b"new")]


def test_what_the_snapshot_has_is_not_replayed(path: Path) -> None:
    """Damage in records that the snapshot has loses nothing; records behind its position are all there."""
    events: list[Event] = [Output(data=bytes([65 + number]) * 50) for number in range(6)]
    written = write(events, base=300)
    for covered_index in range(7):
        covered = 300 + 59 * covered_index
        for damaged_index in range(6):
            data = bytearray(written.data)
            data[written.events[damaged_index][0] + 30] ^= 7
            found = replay(path, bytes(data), covered=covered)
            expected = [event for event in events[covered_index:] if event != events[damaged_index]]
            assert found.events == expected
            assert found.missing == ([59] if damaged_index >= covered_index else [])
            assert found.aside == data


def test_positions_that_do_not_fit_lose_nothing(path: Path) -> None:
    """Where bytes were removed, positions are wrong: everything behind is replayed, a line twice rather than none."""
    events: list[Event] = [Output(data=bytes([65 + number]) * 50) for number in range(6)]
    written = write(events, base=300)
    covered = 300 + 59 * 4
    data = written.data[: written.events[1][0] + 10] + written.data[written.events[1][0] + 40 :]
    assert replay(path, data, covered=covered).events == events[2:]


def test_a_journal_that_ends_before_the_snapshot_is_not_replayed(path: Path) -> None:
    """A power cut may leave an older file than the snapshot, with a hole in it: the snapshot has all of it."""
    written = write([Output(data=b"a" * 5000), Output(data=b"b" * 5000), Output(data=b"c")])
    data = bytearray(written.data)
    data[4096:8192] = bytes(4096)
    found = replay(path, bytes(data), covered=100_000)
    assert (found.events, found.missing, found.aside) == ([], [], data)


def test_output_that_looks_like_records(path: Path) -> None:
    """Records that a program printed are output while the record around them is whole; else they may be replayed."""
    fake = next(records_of(Resize(cols=7, rows=7)))
    around = Output(data=b"text" + fake + b"text")
    written = write([around, Output(data=b"behind")])
    assert replay(path, written.data).events == [around, Output(data=b"behind")]
    data = bytearray(written.data)
    data[FILE_HEADER_BYTES + RECORD_HEADER_BYTES] ^= 3
    assert replay(path, bytes(data)).events == [Output(data=b"behind")]
    data[FILE_HEADER_BYTES + 2] ^= 0xFF  # without its length the next record is looked for byte by byte
    assert replay(path, bytes(data)).events == [Resize(cols=7, rows=7), Output(data=b"behind")]


@pytest.mark.parametrize("size", [(0, 24), (80, 0), (65_535, 65_535), (1001, 1000)])
def test_a_size_that_nobody_can_ask_for(path: Path, size: tuple[int, int]) -> None:
    """A record of such a size is damage, however well its checksum fits: it would take the machine's memory."""
    payload = b"".join(number.to_bytes(2, "big") for number in size)
    written = write([Output(data=b"before"), Output(data=b"behind")])
    middle = written.events[0][1]
    data = written.data[:middle] + record_header(Kind.RESIZE, payload) + payload + written.data[middle:]
    found = replay(path, data)
    assert (found.events, found.missing) == ([Output(data=b"before"), Output(data=b"behind")], [13])


def test_the_search_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes of bytes that each could begin a record cost no more than the budget."""
    reads = 0
    read_record = journal_repair.read_record

    def counted(fd: int, offset: int) -> tuple[int, Event] | None:
        nonlocal reads
        reads += 1
        return read_record(fd, offset)

    monkeypatch.setattr(journal_repair, "read_record", counted)
    hostile = b"\x01\x00\x0f\xff\xff" * 800_000
    written = write([Output(data=b"before"), Output(data=hostile), Output(data=b"behind")])
    data = bytearray(written.data)
    data[written.events[1][0] + 1] = 0xFF
    found = replay(path, bytes(data))
    assert Output(data=b"before") in found.events
    assert found.aside == data
    assert reads < 1_000


def test_many_wrong_bits_are_put_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in each of many records is found; beyond a number that bounds the work, the records are missing."""
    dice = random.Random(6)
    written = write([Output(data=dice.randbytes(200)) for _ in range(400)])
    data = bytearray(written.data)
    for begin, end, _ in written.events[::2]:
        data[dice.randrange(begin, end)] ^= 1 << dice.randrange(8)
    assert replay(path, bytes(data)) == Replayed([event for *_, event in written.events], [], bytes(data))
    with monkeypatch.context() as patched:
        patched.setattr(journal_repair, "_MAX_CORRECTIONS", 10)
        found = replay(path, bytes(data))
    assert len(found.missing) == 190
    assert len(found.events) == 210


def test_a_long_journal_with_much_damage(path: Path) -> None:
    """Multi-megabyte output is split into records; each that is whole is replayed, however many are not."""
    dice = random.Random(5)
    written = write([Output(data=dice.randbytes(3 << 20)), *noise(dice, count=500)])
    data = bytearray(written.data)
    hit = dice.sample(range(len(written.events)), 60)
    for index in hit:
        data[dice.randrange(written.events[index][0], written.events[index][1])] ^= dice.choice([3, 7, 129])
    found = replay(path, bytes(data))
    assert found.events == [event for index, (*_, event) in enumerate(written.events) if index not in hit]


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "fifo", "socket"])
@pytest.mark.parametrize("suffix", ["", ".new", ".repair"])
def test_something_else_in_a_journals_place(path: Path, kind: str, suffix: str) -> None:
    """It is moved aside, what a link leads to is not touched, and the journal begins as a new one."""
    there, victim = path.with_name(path.name + suffix), path.with_name("victim")
    victim.write_bytes(b"precious")
    if kind == "folder":
        there.mkdir()
    elif kind == "fifo":
        os.mkfifo(there)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(there))
    else:
        there.symlink_to(victim if kind == "link" else path.with_name("nothing"))
    with Journal(path, covered=10) as journal:
        assert suffix or journal.damage is not None
        journal.append(Output(data=b"one"))
        journal.discard_before(journal.mark())
        journal.append(Output(data=b"two"))
        assert list(journal.events(0)) == [Output(data=b"two")]
    assert stat.S_ISREG(path.lstat().st_mode)
    assert victim.read_bytes() == b"precious"
    assert not path.with_name("nothing").exists()
    delete(path)
    assert not os.path.lexists(path)


def test_a_second_name_of_a_journal(path: Path) -> None:
    """A copy by hard links is not written to; the journal goes on in a file of its own."""
    with Journal(path) as journal:
        journal.append(Output(data=b"one"))
    copy = path.with_name("copy")
    os.link(path, copy)
    before = copy.read_bytes()
    with Journal(path) as journal:
        journal.append(Output(data=b"two"))
        assert list(journal.events(0)) == [Output(data=b"one"), Output(data=b"two")]
        assert journal.damage is None
    assert copy.read_bytes() == before


def test_a_file_that_became_unreadable_or_open(path: Path) -> None:
    """A journal of another mode is read, and its mode is 0600 afterwards."""
    for mode in (0o000, 0o400, 0o644):
        delete(path)
        with Journal(path) as journal:
            journal.append(Output(data=b"one"))
        path.chmod(mode)
        with Journal(path) as journal:
            assert list(journal.events(0)) == [Output(data=b"one")]
        assert path.stat().st_mode & 0o077 == 0


def test_few_are_kept_of_one_session(path: Path) -> None:
    """The newest three damaged journals of a session are kept, those of others stay; a deletion removes all."""
    other = path.with_name("other.damaged-20260101T000000Z")
    other.write_bytes(b"")
    kept = []
    for number in range(KEPT + 3):
        path.write_bytes(b"garbage %d" % number)
        with Journal(path) as journal:
            assert journal.damage is not None
            kept.append(journal.damage.path)
    assert [Path(name).read_bytes() for name in kept[-KEPT:]] == [b"garbage %d" % number for number in (3, 4, 5)]
    assert damaged_journals(str(path.parent)) == [*kept[-KEPT:], str(other)]
    delete(path)
    assert len(damaged_journals(str(path.parent))) == KEPT + 1
    delete(path, kept_aside=True)
    assert damaged_journals(str(path.parent)) == [str(other)]


@pytest.mark.parametrize("step", ["link", "replace"])
def test_a_kill_while_a_journal_is_repaired(path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it comes, the next start finds the damaged file in its place, and keeps it aside once."""
    written = write([Output(data=b"one"), Output(data=b"two")])
    data = written.data[:25] + b"\xff" + written.data[26:]
    path.write_bytes(data)

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, step, kill)
        with pytest.raises(Killed):
            Journal(path)
    assert path.read_bytes() == data
    with Journal(path) as journal:
        assert Output(data=b"two") in list(journal.events(0))
    [aside] = damaged_journals(str(path.parent))
    assert Path(aside).read_bytes() == data


def test_no_room_for_a_repair(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the damaged journal stays as it is, and the error is raised."""
    data = write([Output(data=b"one"), Output(data=b"two")]).data
    data = data[:25] + b"\xff" + data[26:]
    path.write_bytes(data)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journal_repair, "write_all", full)
        with pytest.raises(OSError, match="No space"):
            Journal(path)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == data


def test_no_empty_file_is_kept_of_output_that_is_gone(tmp_path: Path) -> None:
    """A file that is kept aside has output: of what no file has, there is none."""
    files = SessionFiles(cast(SessionManager, None), cast(History, None), str(tmp_path))
    with Journal(tmp_path / "session") as journal:
        files.keep_unreadable("session", journal, journal.position, journal.position + 100)
        assert os.listdir(tmp_path) == ["session"]
        journal.append(Output(data=b"kept"))
        files.keep_unreadable("session", journal, 0, journal.position)
    assert len(os.listdir(tmp_path)) == 2
