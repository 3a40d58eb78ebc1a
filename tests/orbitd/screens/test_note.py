"""The note in shared memory: what it says, also of a process that has died in the middle of it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from orbitd.screens import note
from orbitd.screens.note import Kind, Note, Work


@pytest.fixture
def fd() -> Iterator[int]:
    created = note.create()
    yield created
    os.close(created)


@pytest.fixture
def shared(fd: int) -> Iterator[Note]:
    mapped = Note(fd)
    yield mapped
    mapped.close()


def test_without_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS it is a file without a name, and has its blocks: a full disk is an error here, and no SIGBUS later."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(note, "tempfile", tempfile, raising=False)
    created = note.create()
    found = os.fstat(created)
    assert (found.st_size, found.st_nlink) == (note.SIZE, 0)
    os.close(created)

    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="No space"):
        note.create()
    assert len(os.listdir("/dev/fd")) == before


def test_a_new_note_says_nothing(shared: Note) -> None:
    """A process that has done nothing yet works on nothing."""
    assert shared.read() is None


def test_what_is_written_is_read(shared: Note) -> None:
    """The note names the session, the kind of work, the record's range, and since when."""
    before = time.monotonic_ns()
    shared.write("session-1", Kind.FEED, 1 << 40, (1 << 40) + 17)
    work = shared.read()
    assert work is not None
    assert before <= work.started_ns <= time.monotonic_ns()
    expected = Work(session="session-1", kind=Kind.FEED, start=1 << 40, end=(1 << 40) + 17, started_ns=work.started_ns)
    assert work == expected


def test_a_cleared_note_says_nothing(shared: Note) -> None:
    """Once a piece is done nothing is noted, until the next one begins."""
    shared.write("a long name of a session", Kind.OPEN, 1, 1)
    shared.clear()
    assert shared.read() is None
    shared.write("short", Kind.DRAW, 2, 2)
    work = shared.read()
    assert work is not None
    assert (work.session, work.kind) == ("short", Kind.DRAW)


@pytest.mark.parametrize("name", ["", "x" * 255, "é" * 200, "\udcff"])
def test_any_name_of_a_session_fits(shared: Note, name: str) -> None:
    """A name that is too long is cut: the note never fails."""
    shared.write(name, Kind.FEED, 0, 1)
    work = shared.read()
    assert work is not None
    assert len(work.session.encode("utf-8", "surrogateescape")) <= 258


@pytest.mark.parametrize("garbage", [b"\xff" * note.SIZE, b"\x01" + bytes(note.SIZE - 1)])
def test_garbage_in_the_memory_is_read_as_nothing(fd: int, shared: Note, garbage: bytes) -> None:
    """A process that wrote anywhere before it died leaves no exception to orbitd."""
    os.pwrite(fd, garbage, 0)
    assert shared.read() is None


def test_the_note_of_a_killed_process_stays(fd: int, shared: Note) -> None:
    """What a process worked on when it was killed is read in another process afterwards."""
    script = (
        "import sys; from orbitd.screens.note import Kind, Note; "
        f"Note({fd}).write('victim', Kind.FEED, 5, 9); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        victim.stdout.readline()
        victim.kill()
    work = shared.read()
    assert work is not None
    assert (work.session, work.start, work.end) == ("victim", 5, 9)
