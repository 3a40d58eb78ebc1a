"""The journal loses nothing at any kill, repeats nothing, and never stops a session."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from keeper_support import open_files
from killed_anywhere import KilledAnywhere
from orbitd.sessions import journal as journal_module
from orbitd.sessions.journal import Journal, delete
from orbitd.sessions.journal_file import (
    FILE_HEADER_BYTES,
    PAYLOAD_MAX_BYTES,
    RECORD_HEADER_BYTES,
    Cwd,
    Divider,
    Event,
    Output,
    Resize,
    Time,
    read_records,
    records_of,
)

EVENTS: list[Event] = [
    Output(data=b"one"),
    Resize(cols=100, rows=40),
    Divider(text="two programs \u2500\u2500"),
    Cwd(path=b"/caf\xe9"),
    Time(milliseconds=1_800_000_000_123),
    Output(data=b"two\0\0"),
    Output(data=b"\x1b[1m"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def written(path: Path, events: list[Event] = EVENTS) -> list[int]:
    """Write a journal of these events and return the position before each, and after the last."""
    with Journal(path) as journal:
        positions = [journal.position]
        for event in events:
            journal.append(event)
            positions.append(journal.position)
    return positions


def joined(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Output))


def read_from(path: Path, since: int = 0, covered: int = 0) -> list[Event]:
    with Journal(path, covered=covered) as journal:
        return list(journal.events(since))


def test_events_come_back_in_order(path: Path) -> None:
    """What was appended is replayed, from any position between two records, by a journal opened again."""
    positions = written(path)
    for index, position in enumerate(positions):
        assert read_from(path, position) == EVENTS[index:]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_change_of_the_screen_is_recorded_with_its_time(path: Path) -> None:
    """A resize or a divider long after output has a time of its own in front of it; one that comes with it has none."""
    seconds = iter([1000.0, 1000.05, 1000.2, 1000.25])
    with Journal(path, clock=lambda: next(seconds)) as journal:
        journal.append_output(b"a")
        journal.append(Resize(cols=80, rows=24), timed=True)
        journal.append(Cwd(path=b"/"))
        journal.append(Resize(cols=90, rows=24), timed=True)
        journal.append_output(b"b")
        assert list(journal.events(0)) == [
            Time(milliseconds=1_000_000),
            Output(data=b"a"),
            Resize(cols=80, rows=24),
            Cwd(path=b"/"),
            Time(milliseconds=1_000_200),
            Resize(cols=90, rows=24),
            Output(data=b"b"),
        ]


def test_output_is_recorded_with_its_time(path: Path) -> None:
    """Output has the time in front of it, at most every tenth of a second, and whenever the clock went back."""
    seconds = iter([1000.0, 1000.05, 1000.0999, 1000.1, 5.0])
    with Journal(path, clock=lambda: next(seconds)) as journal:
        for letter in b"abcde":
            assert journal.append_output(bytes([letter])) == []
        expected = [
            Time(milliseconds=1_000_000),
            *(Output(data=letter) for letter in (b"a", b"b", b"c")),
            Time(milliseconds=1_000_100),
            Output(data=b"d"),
            Time(milliseconds=5_000),
            Output(data=b"e"),
        ]
        assert list(journal.events(0)) == expected
        assert journal.position == 3 * 17 + 5 * 10
    assert read_from(path) == expected


def test_output_of_all_lengths(path: Path) -> None:
    """Megabytes of output in pieces of all lengths come back whole, and the file holds nothing but them."""
    rng, pieces = random.Random(2), []
    with Journal(path) as journal:
        for _ in range(100):
            pieces.append(rng.randbytes(rng.choice([0, 1, 5000, PAYLOAD_MAX_BYTES, PAYLOAD_MAX_BYTES + 1])))
            journal.append_output(pieces[-1])
        assert path.stat().st_size == FILE_HEADER_BYTES + journal.size
    assert joined(read_from(path)) == b"".join(pieces)


@pytest.mark.parametrize(
    "event",
    [
        Resize(cols=0, rows=1),
        Resize(cols=1 << 16, rows=1),
        Divider(text=""),
        Divider(text="\u00e9" * 501),
        Divider(text="\udcff"),
        Cwd(path=b""),
        Cwd(path=b"a\0b"),
        Cwd(path=b"a" * 4097),
        Time(milliseconds=-1),
        Time(milliseconds=1 << 64),
    ],
)
def test_an_event_that_has_no_record(path: Path, event: Event) -> None:
    """What could not be read back is refused, and the journal goes on."""
    with Journal(path) as journal:
        with pytest.raises(ValueError):
            journal.append(event)
        journal.append(EVENTS[0])
        assert (journal.last_cwd(), list(journal.events(0))) == (None, EVENTS[:1])


def test_the_longest_events(path: Path) -> None:
    """Events at their bounds come back."""
    events: list[Event] = [Divider(text="\u00e9" * 500), Cwd(path=b"\xff" * 4096), Time(milliseconds=(1 << 64) - 1)]
    written(path, events)
    assert read_from(path) == events


def test_the_last_folder(path: Path) -> None:
    """The newest folder is there after it was discarded, recorded or not, and when the journal is opened again."""
    with Journal(path) as journal:
        assert journal.last_cwd() is None
        for folder in (b"/a", b"/b"):
            journal.append(Cwd(path=folder))
            journal.append_output(b"text")
        assert journal.last_cwd() == b"/b"
    with Journal(path, covered=5) as journal:
        assert journal.last_cwd() == b"/b"
        journal.discard_before(journal.mark())
        assert journal.last_cwd() == b"/b"
        journal.degraded = OSError(errno.ENOSPC, "full")
        journal.append(Cwd(path=b"/c"))
        assert journal.last_cwd() == b"/c"


def test_a_reader_follows_the_file(path: Path) -> None:
    """A reader sees what is appended, cannot write, and is of the open file whatever has become of its name."""
    with Journal(path) as journal:
        for place in ("own", "moved", "replaced"):
            if place == "moved":
                path.rename(path.with_name("elsewhere"))
            elif place == "replaced":
                path.write_bytes(b"another file")
            descriptor = journal.reader()
            before = journal.position
            journal.append(EVENTS[0])
            record = os.pread(descriptor, 100, FILE_HEADER_BYTES + before)
            assert record == next(records_of(EVENTS[0]))
            assert not os.get_inheritable(descriptor)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(descriptor, b"x")
            os.close(descriptor)
        number = journal.file_number
        journal.discard_before(journal.mark())
        assert journal.file_number == number + 1
        descriptor = journal.reader()
        assert os.pread(descriptor, 100, 0) == path.read_bytes()
        os.close(descriptor)


def test_a_torn_tail_is_ignored_and_cut_off(path: Path) -> None:
    """However a crash cut the file, the whole records before the cut are replayed and new ones follow them."""
    positions = written(path)
    whole = path.read_bytes()
    for size in range(FILE_HEADER_BYTES, len(whole)):
        path.write_bytes(whole[:size])
        kept = sum(FILE_HEADER_BYTES + position <= size for position in positions[1:])
        assert read_from(path) == EVENTS[:kept]
        with Journal(path) as journal:
            journal.append(Output(data=b"more"))
        assert read_from(path) == [*EVENTS[:kept], Output(data=b"more")]


def test_output_whose_header_was_never_written_is_found(path: Path) -> None:
    """A kill between the read and the record's header loses nothing: what was read is in the file already."""
    positions = written(path)
    with open(path, "r+b") as file:
        file.seek(FILE_HEADER_BYTES + positions[-1] + RECORD_HEADER_BYTES)
        file.write(b"read and not recorded" + b"\0" * 5000)
    assert read_from(path) == [*EVENTS, Output(data=b"read and not recorded")]
    assert read_from(path) == [*EVENTS, Output(data=b"read and not recorded")]


def test_a_save_between_any_two_records_neither_loses_nor_repeats(path: Path) -> None:
    """Replay from the snapshot's position gives what came after it, before and after the file is shortened."""
    for index in range(len(EVENTS) + 1):
        delete(path)
        with Journal(path) as journal:
            for event in EVENTS[:index]:
                journal.append(event)
            position = journal.mark()
            for event in EVENTS[index:]:
                journal.append(event)
            assert read_from(path, position, covered=position) == EVENTS[index:]
            journal.discard_before(position)
            assert (journal.base, journal.gap(position)) == (position, 0)
            journal.append(Output(data=b"later"))
            end = journal.position
        assert read_from(path, position, covered=position) == [*EVENTS[index:], Output(data=b"later")]
        with Journal(path, covered=position) as journal:
            assert journal.position == end


def test_an_older_snapshot_than_the_journal_follows_shows_a_gap(path: Path) -> None:
    """If the newest snapshot turns out bad, the journal tells how much is missing since the one before."""
    positions = written(path)
    with Journal(path) as journal:
        journal.discard_before(positions[3])
        assert journal.gap(positions[1]) == positions[3] - positions[1]
        assert list(journal.events(positions[1])) == EVENTS[3:]


def test_a_journal_that_ends_before_its_snapshot_begins_anew(path: Path) -> None:
    """After a power cut the file may be older than the snapshot; positions still never go back."""
    positions = written(path)
    with Journal(path, covered=positions[-1] + 1000) as journal:
        assert (journal.base, journal.position) == (positions[-1] + 1000,) * 2
    assert read_from(path, positions[-1] + 1000) == []


@pytest.mark.parametrize("kept", ["nothing", "part", "all"])
def test_a_crash_while_the_file_is_shortened(path: Path, kept: str) -> None:
    """Until the new file is in place the old one counts, whatever of the new one was written."""
    positions = written(path)
    with Journal(path) as journal:
        journal.discard_before(positions[2])
        short = path.read_bytes()
    delete(path)
    written(path)
    side = path.with_name("journal.new")
    side.write_bytes({"nothing": b"", "part": short[:-3], "all": short}[kept])
    assert read_from(path, positions[2], covered=positions[2]) == EVENTS[2:]
    assert not side.exists()


def test_a_kill_between_any_two_lines_of_a_save(path: Path, tmp_path: Path) -> None:
    """Whenever the daemon is killed while a save discards, or after it, what the snapshot has not is there, once."""
    with Journal(path) as journal:
        for event in EVENTS[:4]:
            journal.append(event)
        covered = journal.position
        appended = EVENTS[4:6]
        for event in appended:
            journal.append(event)

        def steps() -> None:
            journal.discard_before(covered)
            appended.append(EVENTS[6])
            journal.append(EVENTS[6])

        killed = KilledAnywhere([path, path.with_name("journal.new")], [journal_module], lambda: list(appended))
        killed.run(steps)
    assert len(killed.states) > 5
    again = tmp_path / "again"
    again.mkdir()
    for state, known in killed.states:
        killed.restore(state, again)
        found = read_from(again / "journal", covered, covered=covered)
        assert found in (known, known[:2])  # the last one may not be in the file yet
        assert not (again / "journal.new").exists()


def test_a_kill_between_any_two_lines_after_a_full_disk(path: Path, tmp_path: Path) -> None:
    """From the commit of the snapshot on, the side file takes over, wherever the rename was interrupted."""
    with Journal(path) as journal:
        journal.append(EVENTS[0])
        journal.degraded = OSError(errno.ENOSPC, "full")
        journal.append(EVENTS[1])
        covered = journal.mark()
        journal.append(EVENTS[2])
        killed = KilledAnywhere([path, path.with_name("journal.new")], [journal_module], lambda: None)
        killed.run(lambda: journal.discard_before(covered))
    again = tmp_path / "again"
    again.mkdir()
    assert len(killed.states) == 2
    for state, _ in killed.states:
        killed.restore(state, again)
        assert read_from(again / "journal", covered, covered=covered) == [EVENTS[2]]


def _limit_file_size(size: int) -> tuple[int, int]:
    """Let the kernel refuse files over a size, as a full disk would, and return the limits from before."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    return before


def test_a_full_disk_stops_the_recording_and_not_the_session(path: Path) -> None:
    """Without room output still flows; what was recorded stays; a save with room again makes it whole."""
    fifty = next(records_of(Output(data=b"x" * 50)))
    with Journal(path, clock=lambda: 0.05) as journal:
        journal.append(EVENTS[0])
        before = _limit_file_size(FILE_HEADER_BYTES + RECORD_HEADER_BYTES + 5)
        try:
            start = journal.position
            assert journal.append_output(b"x" * 50) == [(start + 59, fifty)]
            assert journal.degraded is not None
            assert journal.degraded.errno == errno.EFBIG
            assert path.stat().st_size == FILE_HEADER_BYTES + start
            lost = journal.mark()
            assert journal.append(Output(data=b"x" * 50)) == [(lost + 59, fifty)]
            assert journal.append(Output(data=b"")) == []
            assert journal.position == lost + 59
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        position = journal.mark()
        assert journal.degraded is None
        assert journal.append(EVENTS[1]) == []
        journal.discard_before(position)
        journal.append_output(b"more")
    assert read_from(path, position, covered=position) == [EVENTS[1], Output(data=b"more")]


def test_a_crash_after_a_full_disk_was_healed(path: Path) -> None:
    """The file beside takes over exactly if the snapshot that it follows was committed."""
    with Journal(path) as journal:
        journal.append(EVENTS[0])
        before = _limit_file_size(FILE_HEADER_BYTES + RECORD_HEADER_BYTES + 5)
        try:
            journal.append(Output(data=b"does not fit"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        position = journal.mark()
        journal.append(EVENTS[1])
    both = {name: path.with_name(name).read_bytes() for name in ("journal", "journal.new")}
    assert read_from(path, position, covered=position) == [EVENTS[1]]
    for name, data in both.items():
        path.with_name(name).write_bytes(data)
    assert read_from(path, 0, covered=0) == [EVENTS[0]]


def test_delete_removes_all_files_of_a_journal(path: Path) -> None:
    """A deleted session leaves nothing, and there need be nothing."""
    written(path)
    path.with_name("journal.new").write_bytes(b"x")
    delete(path)
    delete(path)
    assert list(path.parent.iterdir()) == []


def test_a_journal_has_its_longest(path: Path) -> None:
    """Beyond max_bytes nothing is recorded any more, until a snapshot has what there is."""
    with Journal(path, max_bytes=FILE_HEADER_BYTES, clock=lambda: 0.05) as journal:
        assert journal.append_output(b"fits") == []
        assert journal.append_output(b"does not") != []
        assert journal.degraded is not None
        assert journal.degraded.errno == errno.EFBIG
        journal.discard_before(journal.mark())
        assert journal.degraded is None
        journal.append_output(b"more")
        assert list(journal.events(0)) == [Output(data=b"more")]


def test_a_save_copies_little(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where much came since a save began, the file stays as it is, correct, until the next save."""
    monkeypatch.setattr(journal_module, "COPY_MAX_BYTES", 100)
    with Journal(path) as journal:
        journal.append(EVENTS[0])
        position = journal.mark()
        journal.append(Output(data=b"x" * 100))
        journal.discard_before(position)
        assert journal.base == 0
        assert list(journal.events(position)) == [Output(data=b"x" * 100)]
        journal.discard_before(journal.mark())
        assert (journal.base, journal.size) == (journal.position, 0)


LOST = re.compile(rb"\x18\x1b\\\r\n\[(\d+) bytes of output could not be read\]\r\n\0*")


@pytest.mark.parametrize("event", [Output(data=b"x"), Output(data=b"x" * 200), Output(data=b"x" * (3 << 20))])
def test_a_file_that_is_cut_short_while_it_is_in_use(path: Path, event: Output) -> None:
    """What is whole stays, the rest is a line that tells how much, positions stay, and nothing that follows is lost."""
    events: list[Event] = [Cwd(path=b"/a"), Resize(cols=90, rows=30), event]
    sizes = [0, 5, FILE_HEADER_BYTES, FILE_HEADER_BYTES + 11, FILE_HEADER_BYTES + 12, FILE_HEADER_BYTES + 26]
    for size in sizes:
        delete(path)
        with Journal(path) as journal:
            for each in events:
                journal.append(each)
            before = journal.position
            os.truncate(path, size)
            journal.append_output(b"later")
            assert journal.damage is not None
            assert [type(each) for each in journal.events(before)] == [Cwd, Resize, Time, Output]
            kept = events[: 0 if size < sizes[4] else 1 if size < sizes[5] else 2]
            end, damage = journal.position, journal.damage
        with Journal(path) as journal:
            assert (journal.damage, journal.position, journal.last_cwd()) == (None, end, b"/a")
            after = list(journal.events(0))
            assert after[: len(kept)] == kept
            assert after[-1] == Output(data=b"later")
            filler = joined(after[len(kept) : -4])
            assert not filler.strip(b"\0") or int(LOST.fullmatch(filler)[1]) == damage.lost_bytes  # type: ignore[index]


def test_a_reader_of_a_file_that_was_cut_short(path: Path) -> None:
    """A new reader finds whole records up to the journal's position, whether anything was appended since or not."""
    with Journal(path) as journal:
        journal.append(Output(data=b"x" * 200))
        os.truncate(path, 0)
        descriptor = journal.reader()
        lengths = [length for length, _ in read_records(descriptor)]
        assert sum(lengths) == journal.position == 209
        assert journal.damage is not None
        assert journal.damage.lost_bytes == 209
        os.close(descriptor)


def test_bytes_behind_the_end_of_a_file_in_use(path: Path) -> None:
    """What somebody else appends is cut off before the next record."""
    with Journal(path) as journal:
        journal.append(EVENTS[0])
        with open(path, "ab") as file:
            file.write(b"x" * 1000)
        journal.append(EVENTS[1])
        assert journal.damage is None
    assert read_from(path) == EVENTS[:2]


GOLDEN = [
    b"ORBITJ\x01\n\x00\x00\x00\x00\x00\x00\x03\xe8\x04u\xdf\x18",
    b"\x01\x00\x00\x00\x03{\xae\xec\xc6one",
    b"\x02\x00\x00\x00\x04\xf4\x9d\xa1q\x00P\x00\x18",
    b"\x03\x00\x00\x00\x08\x02\xcb\xcf\x06\xe2\x94\x80 back",
    b"\x04\x00\x00\x00\x05\x83\x0c\xbe\xc4/caf\xe9",
    b"\x05\x00\x00\x00\x08Fp\xda\xfe\x00\x00\x01\xa3\x18\\P{",
]


@pytest.mark.parametrize("reserved", [0, 100_000])
def test_a_file_to_the_letter(path: Path, reserved: int) -> None:
    """Version 1 has these bytes for ever; the zeros that an older release preallocated are cut off."""
    path.write_bytes(b"".join(GOLDEN) + bytes(reserved))
    expected: list[Event] = [
        Output(data=b"one"),
        Resize(cols=80, rows=24),
        Divider(text="\u2500 back"),
        Cwd(path=b"/caf\xe9"),
        Time(milliseconds=1_800_000_000_123),
    ]
    with Journal(path) as journal:
        assert (journal.base, journal.damage, list(journal.events(0))) == (1000, None, expected)
        assert journal.last_cwd() == b"/caf\xe9"
    assert path.read_bytes() == b"".join(GOLDEN)
    delete(path)
    with Journal(path, covered=1000) as journal:
        for event in expected:
            journal.append(event)
    assert path.read_bytes() == b"".join(GOLDEN)


class Threads:
    """Stands in for threading.Thread: what was to be done in one waits here."""

    def __init__(self, *, are_there: bool) -> None:
        self.are_there, self.waiting = are_there, list[Callable[[], object]]()

    def __call__(self, *, target: Callable[[int], None], args: tuple[int], name: str) -> Threads:
        self.waiting.append(lambda: target(*args))
        return self

    def start(self) -> None:
        if not self.are_there:
            self.waiting.pop()
            raise RuntimeError("can't start new thread")


def is_open(fd: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("are_there", [True, False])
def test_a_large_file_that_was_replaced_is_closed_in_a_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch, are_there: bool
) -> None:
    """The kernel frees its blocks then; where no thread is to be had it is closed all the same."""
    threads = Threads(are_there=are_there)
    monkeypatch.setattr(threading, "Thread", threads)
    with Journal(path) as journal:
        journal.append(Output(data=b"small"))
        journal.discard_before(journal.mark())
        assert threads.waiting == []
        journal.append(Output(data=bytes(PAYLOAD_MAX_BYTES)))
        old = journal._fd
        journal.discard_before(journal.mark())
        assert is_open(old) is are_there
        for close in threads.waiting:
            close()
        assert not is_open(old)
        journal.append(Output(data=b"after"))
        assert list(journal.events(0))[-1] == Output(data=b"after")


def test_a_large_journal_is_removed_at_once_and_its_blocks_are_freed_in_a_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name is left when `delete` returns, and no descriptor when the thread is done."""
    written(path, [Output(data=bytes(PAYLOAD_MAX_BYTES))])
    threads, before = Threads(are_there=True), open_files()
    monkeypatch.setattr(threading, "Thread", threads)
    delete(path)
    assert not path.exists()
    (close,) = threads.waiting
    close()
    assert open_files() == before


def test_what_may_not_be_opened_is_removed_too(path: Path) -> None:
    """A link in a journal's place, to nowhere or to a file that stays."""
    other = path.with_name("other")
    other.write_text("stays")
    for target in ("/nowhere", other):
        path.symlink_to(target)
        delete(path)
        assert not path.is_symlink()
    assert other.read_text() == "stays"
