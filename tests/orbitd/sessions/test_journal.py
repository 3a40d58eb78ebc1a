"""The journal loses nothing at any kill, repeats nothing, and never stops a session."""

from __future__ import annotations

import errno
import os
import pty
import random
import resource
import select
import signal
import subprocess
import sys
import tty
from pathlib import Path

import pytest

from orbitd.sessions.journal import CAPTURE_MAX_BYTES, Journal, delete
from orbitd.sessions.journal_file import FILE_HEADER_BYTES, RECORD_HEADER_BYTES, Event, Output, Resize

EVENTS: list[Event] = [Output(data=b"one"), Resize(cols=100, rows=40), Output(data=b"two\0\0"), Output(data=b"\x1b[1m")]


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


def test_capture_reads_into_the_journal(path: Path) -> None:
    """What is read from a terminal is returned and recorded; nothing to read and hang-up raise as os.read does."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    with Journal(path) as journal:
        with pytest.raises(BlockingIOError):
            journal.capture(master)
        os.write(slave, b"hello")
        select.select([master], [], [], 10)
        assert journal.capture(master, 3) == b"hel"
        assert journal.capture(master) == b"lo"
        os.close(slave)
        with pytest.raises(OSError, match="rror") as caught:
            journal.capture(master)
        assert caught.value.errno == errno.EIO
        assert journal.size == 2 * RECORD_HEADER_BYTES + 5
    os.close(master)
    assert read_from(path) == [Output(data=b"hel"), Output(data=b"lo")]


def test_capture_across_many_windows(path: Path) -> None:
    """Megabytes captured in pieces of all sizes come back whole, and the closed file holds nothing but them."""
    data = random.Random(1).randbytes(3 << 20)
    rng, pieces = random.Random(2), []
    with Journal(path) as journal, open(path.with_name("source"), "wb+") as source:
        source.write(data)
        source.seek(0)
        while piece := journal.capture(source.fileno(), rng.randrange(1, CAPTURE_MAX_BYTES * 2)):
            assert len(piece) <= CAPTURE_MAX_BYTES
            pieces.append(piece)
            if rng.random() < 0.1:
                journal.append(Resize(cols=80, rows=24))
        assert b"".join(pieces) == data
        assert path.stat().st_size > journal.size
        size = journal.size
    assert path.stat().st_size == FILE_HEADER_BYTES + size
    assert joined(read_from(path)) == data


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


def _limit_file_size(size: int) -> tuple[int, int]:
    """Let the kernel refuse files over a size, as a full disk would, and return the limits from before."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    return before


def test_a_full_disk_stops_the_recording_and_not_the_session(path: Path) -> None:
    """Without room output still flows; what was recorded stays; a save with room again makes it whole."""
    source = path.with_name("source")
    source.write_bytes(b"0123456789" * 10)
    with Journal(path) as journal, open(source, "rb") as file:
        journal.append(EVENTS[0])
        before = _limit_file_size(FILE_HEADER_BYTES + RECORD_HEADER_BYTES + 5)
        try:
            journal.append(Output(data=b"does not fit"))
            assert journal.degraded is not None
            assert journal.degraded.errno == errno.EFBIG
            assert journal.capture(file.fileno(), 10) == b"0123456789"
            lost = journal.mark()
            journal.append(Resize(cols=1, rows=1))
            assert lost < journal.position
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        position = journal.mark()
        assert journal.degraded is None
        journal.append(EVENTS[1])
        journal.discard_before(position)
        assert journal.capture(file.fileno(), 10) == b"0123456789"
    assert read_from(path, position, covered=position) == [EVENTS[1], Output(data=b"0123456789")]


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


def test_a_full_disk_is_met_while_capturing(path: Path) -> None:
    """If no room can be set aside for a capture, the output is read all the same."""
    with Journal(path) as journal, open("/dev/zero", "rb") as zeros:
        before = _limit_file_size(10_000)
        try:
            assert journal.capture(zeros.fileno(), 100) == bytes(100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert journal.degraded is not None
        assert path.stat().st_size == FILE_HEADER_BYTES


def test_delete_removes_all_files_of_a_journal(path: Path) -> None:
    """A deleted session leaves nothing, and there need be nothing."""
    written(path)
    path.with_name("journal.new").write_bytes(b"x")
    delete(path)
    delete(path)
    assert list(path.parent.iterdir()) == []


KILLER = """
import os, random, select, signal, sys, time
from orbitd.sessions.journal import Journal

path, master, rng = sys.argv[1], int(sys.argv[2]), random.Random(int(sys.argv[3]))
kills = 0
while True:
    ready, started = os.pipe()
    reader = os.fork()
    if not reader:
        with Journal(path) as journal:
            os.write(started, b"+")
            try:
                while True:
                    journal.capture(master)
            except OSError:
                os._exit(7)
    os.read(ready, 1)
    moment = time.perf_counter() + rng.random() * 0.004
    while time.perf_counter() < moment:
        pass
    os.kill(reader, signal.SIGKILL)
    _, status = os.waitpid(reader, 0)
    os.close(ready)
    os.close(started)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 7
        break
    kills += 1
print(kills)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_moment_loses_no_byte(path: Path, seed: int) -> None:
    """While a program floods its terminal the reader is killed again and again: the journal has every byte, once."""
    numbers = range(400_000)
    master, slave = pty.openpty()
    tty.setraw(slave)
    flood = (
        f"import os\ndata = b''.join(b'%09d ' % n for n in {numbers})\n"
        "for start in range(0, len(data), 4000): os.write(1, data[start : start + 4000])"
    )
    with subprocess.Popen([sys.executable, "-c", flood], stdout=slave) as program:
        os.close(slave)
        try:
            arguments = [sys.executable, "-c", KILLER, os.fspath(path), str(master), str(seed)]
            killer = subprocess.run(arguments, pass_fds=[master], capture_output=True, text=True, check=True)
        finally:
            os.close(master)
            program.kill()
    assert int(killer.stdout) >= 3
    assert joined(read_from(path)) == b"".join(b"%09d " % number for number in numbers)


def test_a_journal_has_its_longest(path: Path) -> None:
    """Beyond max_bytes nothing is recorded any more, until a snapshot has what there is."""
    reader, writer = os.pipe()
    try:
        with Journal(path, max_bytes=FILE_HEADER_BYTES) as journal:
            for _ in range(2):
                os.write(writer, b"four")
                assert journal.capture(reader) == b"four"
            assert journal.degraded is not None
            assert journal.degraded.errno == errno.EFBIG
            journal.discard_before(journal.mark())
            assert journal.degraded is None
            os.write(writer, b"more")
            assert journal.capture(reader) == b"more"
            assert list(journal.events(0)) == [Output(data=b"more")]
    finally:
        os.close(reader)
        os.close(writer)
