"""The landing buffer: a kill at any moment loses no output, and records none twice."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import random
import select
import struct
import tty
import zlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest

from keeper_support import open_files
from killed_anywhere import KilledAnywhere
from needs import require
from orbit_os.files import UnsafeFile
from orbit_protocol.errors import SpawnFailed
from orbitd.keeper.messages import LANDING_BYTES
from orbitd.sessions import journal as journal_module
from orbitd.sessions import terminal as landing_module
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import Output, Resize, Time
from orbitd.sessions.terminal import Landing, Pending
from sessions_support import Sessions

ROOM = LANDING_BYTES - 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "landing"


@pytest.fixture
def landing(path: Path) -> Iterator[Landing]:
    opened = Landing(Landing.create_file(str(path)))
    yield opened
    opened.close()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A master that does not block, and its slave, which changes no byte."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    yield master, slave
    os.close(master)
    os.close(slave)


def source(folder: Path, data: bytes) -> int:
    """Return a descriptor from which reads give these bytes."""
    (folder / "source").write_bytes(data)
    return os.open(folder / "source", os.O_RDONLY)


def reopened(path: Path) -> Pending | None:
    opened = Landing(Landing.create_file(str(path)))
    try:
        return opened.pending()
    finally:
        opened.close()


def test_reading_from_a_terminal(landing: Landing, terminal: tuple[int, int]) -> None:
    """Up to the budget is returned of what there is, and nothing where there is nothing; nobody waits."""
    master, slave = terminal
    assert landing.read(master, "A", 0, 100) == (b"", False)
    os.write(slave, b"hello")
    select.select([master], [], [], 10)
    assert landing.read(master, "A", 7, 3) == (b"hel", False)
    assert landing.pending() == Pending(session="A", position=7, data=b"hel")
    landing.clear()
    assert landing.read(master, "A", 10, 100) == (b"lo", False)
    landing.clear()
    assert landing.pending() is None


def test_output_before_a_hang_up(landing: Landing) -> None:
    """What a program wrote before its terminal was closed comes first, and with it that nothing follows."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    os.write(slave, b"last")
    select.select([master], [], [], 10)
    os.close(slave)
    assert landing.read(master, "A", 0, 2) == (b"la", False)
    landing.clear()
    assert landing.read(master, "A", 0, 100) == (b"st", True)
    landing.clear()
    assert landing.read(master, "A", 0, 100) == (b"", True)
    os.close(master)


def test_the_end_of_a_file_is_a_hang_up(landing: Landing, tmp_path: Path) -> None:
    """As systems other than Linux report it."""
    descriptor = source(tmp_path, b"last")
    assert landing.read(descriptor, "A", 0, 100) == (b"last", True)
    landing.clear()
    assert landing.read(descriptor, "A", 0, 100) == (b"", True)
    os.close(descriptor)


def test_the_budget_is_bounded_by_the_buffer(landing: Landing, tmp_path: Path) -> None:
    """However much is asked for, no more is read than the buffer holds."""
    data = random.Random(1).randbytes(ROOM + 100)
    descriptor = source(tmp_path, data)
    assert landing.read(descriptor, "A", 0, 1 << 30) == (data[:ROOM], False)
    landing.clear()
    assert landing.read(descriptor, "A", 0, 100) == (data[ROOM:], False)
    os.close(descriptor)


def test_errors(landing: Landing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is raised if nothing was read before it, and otherwise comes with the next read."""
    with pytest.raises(OSError, match="Bad file") as caught:
        landing.read(-1, "A", 0, 100)
    assert caught.value.errno == errno.EBADF
    assert landing.pending() is None
    descriptor = source(tmp_path, b"abcdef")
    readv = os.readv

    def fails_late(fd: int, views: list[memoryview]) -> int:
        if os.lseek(fd, 0, os.SEEK_CUR):
            raise OSError(errno.ENXIO, "gone")
        return readv(fd, [views[0][:3]])

    with monkeypatch.context() as patched:
        patched.setattr(os, "readv", fails_late)
        assert landing.read(descriptor, "A", 0, 100) == (b"abc", False)
        landing.clear()
        with pytest.raises(OSError, match="gone"):
            landing.read(descriptor, "A", 0, 100)
    assert landing.read(descriptor, "A", 0, 3) == (b"def", False)
    with pytest.raises(RuntimeError):
        landing.read(descriptor, "A", 0, 3)
    landing.clear()
    with pytest.raises(ValueError, match="101 bytes"):
        landing.read(descriptor, "A" * 101, 0, 3)
    os.close(descriptor)


def test_what_is_not_cleared_is_found(path: Path, tmp_path: Path) -> None:
    """The next process finds session, position and output, until it clears them; NULs at the end are left out."""
    opened = Landing(Landing.create_file(str(path)))
    name, position = "\u00e9" * 50, (1 << 64) - 1
    descriptor = source(tmp_path, b"\0output\0\0" + b"x" * 60_000)
    opened.read(descriptor, name, position, 9)
    opened.close()
    opened.close()
    assert reopened(path) == Pending(session=name, position=position, data=b"\0output")
    opened = Landing(Landing.create_file(str(path)))
    opened.clear()
    opened.close()
    assert reopened(path) is None
    assert path.read_bytes()[4096:] == bytes(ROOM)
    os.close(descriptor)


def in_use(position: int = 3, length: int = 1, data: bytes = b"data", magic: bytes = b"ORBITL\x01\n") -> bytes:
    header = struct.pack(">8sQB100s", magic, position, length, b"\xc3\xa9")
    whole = b"\1" + bytes(7) + header + zlib.crc32(header).to_bytes(4, "big")
    return whole.ljust(4096, b"\0") + data.ljust(ROOM, b"\0")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/bin/sh\n",
        os.urandom(LANDING_BYTES),
        b"\1" * (LANDING_BYTES + 5000),
        bytes(LANDING_BYTES - 5) + b"stray",
        in_use(length=1),  # half a character
        in_use(length=0),
        in_use(length=200),
        in_use(length=2, data=b""),
        in_use(length=2, magic=b"ORBITL\x02\n"),
        in_use(length=2)[:30] + b"?" + in_use(length=2)[31:],
    ],
)
def test_what_is_no_buffer(path: Path, tmp_path: Path, content: bytes) -> None:
    """A file with anything else in it has no output, and is a good buffer from then on."""
    path.write_bytes(content)
    opened = Landing(Landing.create_file(str(path)))
    assert opened.pending() is None
    descriptor = source(tmp_path, b"abc")
    assert opened.read(descriptor, "A", 1, 3) == (b"abc", False)
    opened.close()
    os.close(descriptor)
    assert reopened(path) == Pending(session="A", position=1, data=b"abc")
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (LANDING_BYTES, 0o600)


def test_the_bytes_of_a_buffer_in_use(path: Path) -> None:
    """The form is this one for ever: keepers hold buffers of older releases."""
    path.write_bytes(in_use(length=2))
    assert reopened(path) == Pending(session="\u00e9", position=3, data=b"data")


def test_something_else_in_its_place(path: Path, tmp_path: Path) -> None:
    """A link is not followed, and a descriptor that holds too little is refused and closed."""
    (tmp_path / "victim").write_bytes(b"precious")
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(UnsafeFile):
        Landing.create_file(str(path))
    assert (tmp_path / "victim").read_bytes() == b"precious"
    descriptor = os.open(tmp_path / "victim", os.O_RDWR)
    with pytest.raises(ValueError, match="8 bytes"):
        Landing(descriptor)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_a_file_that_is_cut_short_in_use(landing: Landing, path: Path, tmp_path: Path) -> None:
    """Reading goes on, where touching a page that is gone would end the process."""
    descriptor = source(tmp_path, b"x" * 20_000)
    os.truncate(path, 0)
    assert landing.read(descriptor, "A", 1, 20_000) == (b"x" * 20_000, False)
    assert landing.pending() == Pending(session="A", position=1, data=b"x" * 20_000)
    os.truncate(path, 4096)
    landing.clear()
    os.close(descriptor)


def output_after_restart(folder: Path) -> bytes:
    """Return the output of a session after a start on what a kill has left, and after another one on that."""
    results = []
    for clears in (False, True):
        opened = Landing(Landing.create_file(str(folder / "landing")))
        with Journal(folder / "journal") as journal:
            pending = opened.pending()
            if pending is not None:
                assert pending.session == "A"
                assert journal.complete_landing(pending) == []
            if clears:  # the first start is killed before it has cleared the buffer
                opened.clear()
            assert journal.damage is None
            results.append(b"".join(event.data for event in journal.events(0) if isinstance(event, Output)))
        opened.close()
    assert results[0] == results[1]
    return results[0]


def test_a_kill_between_any_two_lines(path: Path, tmp_path: Path) -> None:
    """Whenever the daemon is killed, the next one has every byte that has left the terminal, once."""
    data = b"first \0 output" + b"\x1b[1m second" * 500 + b"third"
    descriptor = source(tmp_path, data)
    opened = Landing(Landing.create_file(str(path)))
    seconds = iter(range(10))
    with Journal(tmp_path / "journal", clock=lambda: next(seconds) * 0.06) as journal:

        def steps() -> None:
            for budget in (14, 5000, 500, 5):
                output, _ = opened.read(descriptor, "A", journal.position, budget)
                assert journal.append_output(output) == []
                opened.clear()
                journal.append(Resize(cols=budget, rows=1))

        killed = KilledAnywhere(
            [path, tmp_path / "journal"],
            [landing_module, journal_module],
            lambda: os.lseek(descriptor, 0, os.SEEK_CUR),
        )
        killed.run(steps)
    opened.close()
    os.close(descriptor)
    assert len(killed.states) > 20
    again = tmp_path / "again"
    again.mkdir()
    for state, consumed in killed.states:
        killed.restore(state, again)
        assert output_after_restart(again) == data[:consumed]


def test_a_kill_within_a_write(path: Path, tmp_path: Path) -> None:
    """However much of the record, and of the time before it, is in the file: the output is there once."""
    descriptor = source(tmp_path, b"abc" + b"output\0" * 5)
    opened = Landing(Landing.create_file(str(path)))
    with Journal(tmp_path / "journal") as journal:
        journal.append_output(opened.read(descriptor, "A", journal.position, 3)[0])
        opened.clear()
        journal._last_time = 0  # as if it were long ago
        before = (tmp_path / "journal").stat().st_size
        journal.append_output(opened.read(descriptor, "A", journal.position, 35)[0])
        assert [type(event) for event in journal.events(0)] == [Time, Output, Time, Output]
    opened.close()
    os.close(descriptor)
    landing, whole = path.read_bytes(), (tmp_path / "journal").read_bytes()
    for size in range(before, len(whole) + 1):
        path.write_bytes(landing)
        (tmp_path / "journal").write_bytes(whole[:size])
        found = output_after_restart(tmp_path)
        assert found.rstrip(b"\0") == b"abc" + b"output\0" * 4 + b"output"


def test_positions_that_do_not_fit(tmp_path: Path) -> None:
    """What a save has covered is not recorded again; what a damaged file may have lost is."""
    with Journal(tmp_path / "journal") as journal:
        journal.append(Output(data=b"saved"))
        journal.append(Output(data=b"one"))
        journal.discard_before(14)
        for position, recorded in ((13, False), (14, True), (15, True), (26, True), (1000, True)):
            pending = Pending(session="A", position=position, data=b"two %d" % position)
            before = journal.position
            assert journal.complete_landing(pending) == []
            assert (journal.position > before) == recorded
        assert journal.complete_landing(Pending(session="A", position=14, data=b"one")) == []
        found = [event.data for event in journal.events(0) if isinstance(event, Output)]
        assert found == [b"one", b"two 14", b"two 15", b"two 26", b"two 1000"]


def test_a_full_disk_while_a_landing_is_completed(tmp_path: Path) -> None:
    """The output is returned, as by any append."""
    with Journal(tmp_path / "journal", max_bytes=0) as journal:
        [(end, record)] = journal.complete_landing(Pending(session="A", position=0, data=b"two"))
        assert (end, record[-3:]) == (12, b"two")


def test_a_memfd_cannot_be_cut_short(tmp_path: Path) -> None:
    """A sealed memfd is a buffer too, and the process is given no signal, since nobody can shorten it."""
    require(linux=True)
    descriptor = os.memfd_create("landing", os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, LANDING_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    other = os.dup(descriptor)
    opened = Landing(descriptor)
    with pytest.raises(PermissionError):
        os.truncate(other, 0)
    data = source(tmp_path, b"abc")
    assert opened.read(data, "A", 0, 3) == (b"abc", False)
    opened.close()
    opened = Landing(other)
    assert opened.pending() == Pending(session="A", position=0, data=b"abc")
    opened.close()
    os.close(data)


@pytest.mark.parametrize("how", ["missing", "refused"])
def test_a_system_without_fallocate(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is filled with zeros then; what an earlier process has left in it stays."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    if how == "missing":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    path.write_bytes(in_use(length=2)[:20_000])
    assert reopened(path) == Pending(session="\u00e9", position=3, data=b"data")
    assert path.read_bytes() == in_use(length=2)


def test_no_room_for_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is an error when the file is made, and not a signal when it is touched."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    before = open_files()
    with pytest.raises(OSError, match="No space"):
        Landing.create_file(str(path))
    assert open_files() == before


async def test_a_landing_buffer_that_cannot_be_made(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """That start fails; the next one makes it, and its program is read."""
    monkeypatch.setattr(sessions.keeper, "landing", AsyncMock(return_value=None))
    with monkeypatch.context() as patch:
        patch.setattr(Landing, "create_file", Mock(side_effect=OSError(errno.ENOSPC, "full")))
        with pytest.raises(SpawnFailed, match="full"):
            await sessions.run()
    await sessions.run()
    await sessions.print(b"hello")


async def test_a_start_where_nothing_was_restored(sessions: Sessions) -> None:
    """What an earlier daemon has left in the buffer is recorded before the first program is read."""
    left = Landing(await sessions.keeper.landing())
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, b"left")
    left.read(reader, "two", 0, 100)
    for descriptor in (reader, writer):
        os.close(descriptor)
    left.close()
    sessions.store.add("two")
    await sessions.run()
    await sessions.print(b"hello")
    assert b"left" in sessions.journal("two").read_bytes()
