"""Records out of a journal's files and of what is in no file, in whatever order orbitd announces them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbitd.screens.follower import BLOCK_BYTES, Damaged, Follower
from orbitd.sessions.journal_file import PAYLOAD_MAX_BYTES, Cwd, Divider, Event, Output, Resize, Time
from screens_support import JournalFile, record_of


@pytest.fixture
def follower() -> Iterator[Follower]:
    made = Follower()
    yield made
    made.close()


@pytest.fixture
def journal(tmp_path: Path) -> JournalFile:
    return JournalFile(tmp_path / "journal")


def follow(follower: Follower, *journals: JournalFile) -> None:
    """Let the follower read all that these files hold."""
    for journal in journals:
        follower.follow(journal.descriptor(), journal.base)
        follower.end = max(follower.end, journal.position)


def events(follower: Follower) -> list[Event]:
    """Return what the follower has until its end."""
    found = []
    while (record := follower.next()) is not None:
        found.append(record.event)
        follower.position = record.end
    return found


def outputs(follower: Follower) -> list[bytes]:
    return [event.data for event in events(follower) if isinstance(event, Output)]


def test_each_record_is_returned_in_order(follower: Follower, journal: JournalFile) -> None:
    """All kinds of records come out as they were written."""
    written = [Output(data=b"a"), Resize(cols=3, rows=2), Divider(text="é"), Cwd(path=b"/\xff"), Time(milliseconds=7)]
    journal.append(*written)
    follow(follower, journal)
    assert events(follower) == written
    assert follower.position == journal.position


def test_a_record_that_is_not_taken_comes_again(follower: Follower, journal: JournalFile) -> None:
    """Only the caller moves the position: to the record's end, once the record has been drawn."""
    end = journal.append(b"one")
    follow(follower, journal)
    first, second = follower.next(), follower.next()
    assert first == second
    assert first is not None
    assert (first.start, first.end) == (0, end)


def test_reading_begins_at_the_position_of_the_snapshot(follower: Follower, journal: JournalFile) -> None:
    """Records that the snapshot covers are not read again."""
    middle = journal.append(b"covered")
    journal.append(b"since")
    follower.position = middle
    follow(follower, journal)
    assert outputs(follower) == [b"since"]


def test_nothing_behind_the_announced_end_is_read(follower: Follower, journal: JournalFile) -> None:
    """What orbitd is writing while the file is read is left alone until it is announced."""
    end = journal.append(b"whole")
    journal.append(b"being written")
    journal.damage(end + 12, b"\0")
    follower.follow(journal.descriptor(), 0)
    follower.end = end
    assert outputs(follower) == [b"whole"]


def test_records_that_come_later_are_read_then(follower: Follower, journal: JournalFile) -> None:
    """The same file is read on when it has grown."""
    follower.follow(journal.descriptor(), 0)
    for text in (b"one", b"two"):
        follower.end = journal.append(text)
        assert outputs(follower) == [text]


@pytest.mark.parametrize("size", [1, 5000, BLOCK_BYTES - 9, BLOCK_BYTES, PAYLOAD_MAX_BYTES])
def test_records_of_any_length_are_read(follower: Follower, journal: JournalFile, size: int) -> None:
    """Records lie across the borders of blocks, and may be longer than one."""
    written = [bytes([65 + number]) * size for number in range(5)]
    journal.append(*written)
    follow(follower, journal)
    assert outputs(follower) == written


def test_the_next_file_is_read_where_it_begins(follower: Follower, journal: JournalFile, tmp_path: Path) -> None:
    """After a save the journal goes on in another file; the old one is closed once it has been read."""
    first, second = journal.append(b"one"), journal.append(b"two")
    journal.append(b"three")
    renamed = JournalFile(tmp_path / "next", base=second)
    renamed.append(b"three", b"four")
    follower.position = first
    follow(follower, journal, renamed)
    assert outputs(follower) == [b"two", b"three", b"four"]
    assert [base for _, base in follower._files] == [second]


def test_a_file_that_begins_there_takes_over(follower: Follower, journal: JournalFile, tmp_path: Path) -> None:
    """Where both files have a record, the newer one is read: the older one is not written any more."""
    end = journal.append(b"one")
    journal.append(b"old")
    newer = JournalFile(tmp_path / "next", base=end)
    newer.append(b"new")
    follow(follower, journal, newer)
    assert outputs(follower) == [b"one", b"new"]


def test_what_a_full_disk_kept_out_of_the_file_is_drawn_in_its_place(
    follower: Follower, journal: JournalFile, tmp_path: Path
) -> None:
    """Records come from the file, then from messages, then from the file that orbitd starts when there is room."""
    position = journal.append(b"filed")
    follow(follower, journal)
    for text in (b"unfiled 1", b"unfiled 2"):
        record = record_of(text)
        position += len(record)
        follower.add(position, record)
    newer = JournalFile(tmp_path / "next", base=position)
    newer.append(b"filed again")
    follow(follower, newer)
    assert outputs(follower) == [b"filed", b"unfiled 1", b"unfiled 2", b"filed again"]
    assert follower.queued == 0


def test_unfiled_records_that_the_snapshot_covers_are_dropped(follower: Follower, journal: JournalFile) -> None:
    """A picture that is built at a later position does not draw what is in it already."""
    one, two = record_of(b"one"), record_of(b"two")
    follower.position = len(one)
    follower.add(len(one), one)
    follower.add(len(one) + len(two), two)
    assert outputs(follower) == [b"two"]
    assert follower.queued == 0


def test_what_is_in_no_file_and_was_not_sent_is_left_out(
    follower: Follower, journal: JournalFile, tmp_path: Path
) -> None:
    """A process that is started after a full disk goes on where the next file begins."""
    lost = journal.append(b"one") + 500
    follow(follower, journal)
    newer = JournalFile(tmp_path / "next", base=lost)
    newer.append(b"two")
    follow(follower, newer)
    assert outputs(follower) == [b"one", b"two"]
    assert follower.position == newer.position


def test_zeros_behind_the_last_record_are_its_end(follower: Follower, journal: JournalFile, tmp_path: Path) -> None:
    """Space that an older release reserved behind the records does not hide the file that follows."""
    lost = journal.append(b"one") + 500
    journal.damage(journal.position, bytes(4096))
    follow(follower, journal)
    newer = JournalFile(tmp_path / "next", base=lost)
    newer.append(b"two")
    follow(follower, newer)
    assert outputs(follower) == [b"one", b"two"]


def test_a_file_that_begins_behind_the_snapshot_is_read_from_its_beginning(follower: Follower, tmp_path: Path) -> None:
    """What is missing between snapshot and journal is left out."""
    journal = JournalFile(tmp_path / "journal", base=1000)
    journal.append(b"after a hole")
    follower.position = 10
    follow(follower, journal)
    assert outputs(follower) == [b"after a hole"]


DAMAGE = {
    "a changed byte of the payload": (9, b"X"),
    "a changed checksum": (5, b"\xff"),
    "an unknown kind": (0, b"\x77"),
    "a length beyond the end": (1, b"\0\0\xff\xff"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_record_is_refused(follower: Follower, journal: JournalFile, what: str) -> None:
    """The record before the damage is drawn; then reading ends at the damage, and stays there."""
    middle = journal.append(b"whole")
    journal.append(b"damaged", b"behind it")
    offset, data = DAMAGE[what]
    journal.damage(middle + offset, data)
    follow(follower, journal)
    first = follower.next()
    assert first is not None
    follower.position = first.end
    for _ in range(2):
        with pytest.raises(Damaged):
            follower.next()
    assert follower.position == middle


def test_a_file_that_was_truncated_is_refused(follower: Follower, journal: JournalFile) -> None:
    """Whoever empties the file ends what can be drawn, and nothing else."""
    journal.append(b"gone")
    follow(follower, journal)
    os.truncate(journal.path, 0)
    with pytest.raises(Damaged):
        follower.next()


def test_an_empty_file_that_begins_behind_the_position(follower: Follower, tmp_path: Path) -> None:
    """What is before it is lost, as with one that holds records: nothing is damaged."""
    follow(follower, JournalFile(tmp_path / "later", base=50))
    assert follower.next() is None
    assert (follower.position, follower.end) == (50, 50)


def test_without_any_file_the_position_cannot_be_reached(follower: Follower) -> None:
    """An announced position without a file is refused, not waited for."""
    follower.end = 10
    with pytest.raises(Damaged):
        follower.next()


def test_closing_closes_every_file(journal: JournalFile) -> None:
    """No descriptor is left behind, neither of the current file nor of the next."""
    follower = Follower()
    descriptors = [journal.descriptor(), journal.descriptor()]
    for base, fd in enumerate(descriptors):
        follower.follow(fd, base)
    follower.close()
    for fd in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize("size", [1, 40, BLOCK_BYTES - 3, BLOCK_BYTES, BLOCK_BYTES * 3 + 5])
@pytest.mark.parametrize("fill", [b"\0", b"\x01", b"\x01\0\0\0\x04"])
def test_reading_goes_on_behind_damage(follower: Follower, journal: JournalFile, size: int, fill: bytes) -> None:
    """The next whole record behind damage is found, whatever the damage looks like, and however long it is."""
    begin = journal.append(b"before")
    behind = journal.append(b"x" * size)
    journal.append(b"behind")
    follower.follow(journal.descriptor(), 0)
    follower.end = journal.position
    first = follower.next()
    assert first is not None
    follower.position = first.end
    follower.release()
    journal.damage(begin, (fill * (behind - begin))[: behind - begin])
    with pytest.raises(Damaged):
        follower.next()
    follower.position = follower.behind_damage()
    assert follower.position == behind
    last = follower.next()
    assert last is not None
    assert last.event == Output(data=b"behind")


def test_damage_up_to_the_end_is_passed_over(follower: Follower, journal: JournalFile) -> None:
    """Where no whole record is left, reading goes on at the end, not at a part of a record before it."""
    journal.append(b"damaged")
    follower.follow(journal.descriptor(), 0)
    follower.end = journal.position
    journal.append(b"not to be read yet")
    journal.damage(0, bytes(12))
    with pytest.raises(Damaged):
        follower.next()
    assert follower.behind_damage() == follower.end
