"""The note in a database's lock: what it says of its writer, and that a reader never sees a mix of two."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from needs import needs
from orbit_os import lock_note
from orbit_os.lock_note import (
    NOTE_BYTES,
    Holder,
    LockNote,
    format_note,
    note_of_this_process,
    parse_note,
    read_note,
    write_note,
)
from orbit_os.processes import boot_id, mac_boot_id, mac_start_time, start_time

NOTE = LockNote(
    pid=7,
    socket="/run/user/1/orbit/orbitd.sock",
    configured="/elsewhere/s",
    supervisor="systemd",
    state="serving",
    host="h",
    boot="b",
    namespace="pid:[1]",
    started="99",
)


def test_pid_and_socket_are_the_first_lines_of_a_fixed_size() -> None:
    """Other programs read the pid from the first line and the socket from the second; the rest is padded."""
    data = format_note(NOTE)
    assert data.splitlines()[:2] == [b"pid 7", b"socket /run/user/1/orbit/orbitd.sock"]
    assert len(data) == len(format_note(LockNote(pid=1))) == len(format_note(None)) == NOTE_BYTES
    assert parse_note(data) == NOTE


@pytest.mark.parametrize("data", [b"", b"\n", b"pid x\n", b"pid 0\n", b"pid -1\n", b"socket /s\n", b"\0" * 100])
def test_nobody_is_named_by_what_is_no_note(data: bytes) -> None:
    """An empty lock, one that was cleared, and what another program has written name nobody."""
    assert parse_note(data) is None
    assert parse_note(format_note(None)) is None


def test_what_an_older_daemon_wrote_is_read() -> None:
    """It has pid, socket and supervisor, and no word on whether that process still runs."""
    note = parse_note(b"pid 12\nsocket /s\nsupervisor launchd\n")
    assert note == LockNote(pid=12, socket="/s", supervisor="launchd")
    assert note.holder() is Holder.UNKNOWN


def test_a_key_of_a_later_daemon_is_passed_over() -> None:
    """A later release may say more."""
    assert parse_note(b"pid 12\nmood good\nstarted 5\n") == LockNote(pid=12, started="5")


@pytest.mark.parametrize("name", ["socket", "configured"])
def test_a_path_cannot_bring_lines_of_its_own(name: str) -> None:
    """A path with a newline is left out: what stands behind it would be read as another key."""
    note = parse_note(format_note(NOTE._replace(**{name: "/a\nstarted 1"})))
    assert note == NOTE._replace(**{name: ""})


def test_bytes_of_a_path_stay(tmp_path: Path) -> None:
    """A path that is not UTF-8 comes back as Python had it."""
    odd = os.fsdecode(b"/caf\xe9/s")
    assert parse_note(format_note(NOTE._replace(socket=odd))) == NOTE._replace(socket=odd)


def test_a_mix_of_two_notes_is_recognized() -> None:
    """Every cut between two notes is either one of them or a checksum mismatch."""
    first, second = format_note(NOTE), format_note(NOTE._replace(pid=8, socket="/other", started="100"))
    for cut in range(NOTE_BYTES):
        mixed = first[:cut] + second[cut:]
        if mixed not in (first, second):
            with pytest.raises(ValueError, match="checksum"):
                parse_note(mixed)


def test_a_reader_beside_a_writer_sees_one_of_the_notes(tmp_path: Path) -> None:
    """The note is replaced as a whole, by shorter and longer ones."""
    notes = [NOTE._replace(pid=pid, socket="/" + "x" * (pid * 30), started=str(pid)) for pid in (1, 2, 3)]
    path = tmp_path / "lock"
    path.write_bytes(format_note(notes[0]))
    is_over = threading.Event()

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            for number in range(3_000):
                write_note(file.fileno(), notes[number % 3])
        is_over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    with path.open("rb") as file:
        while not is_over.is_set():
            seen.add(read_note(file.fileno()))
    writer.join()
    assert seen <= set(notes)


def test_a_longer_file_of_an_older_daemon_is_cut(tmp_path: Path) -> None:
    """Nothing of what was there before stays behind the note."""
    path = tmp_path / "lock"
    path.write_bytes(b"x" * 5 * NOTE_BYTES)
    with path.open("r+b") as file:
        write_note(file.fileno(), NOTE)
    assert path.read_bytes() == format_note(NOTE)


def test_a_process_that_runs_is_here() -> None:
    """Host, boot, namespace and start time fit for the process that has just written them."""
    assert note_of_this_process("/s").holder() is Holder.HERE


@pytest.mark.parametrize(
    ("changes", "holder"),
    [
        ({"host": "another"}, Holder.HERE),  # renamed since, or a container that shares the kernel and the pids
        ({"host": "another", "started": "1"}, Holder.GONE),
        ({"host": "another", "namespace": "pid:[1]"}, Holder.ELSEWHERE),
        ({"boot": ""}, Holder.GONE),
        ({"namespace": "pid:[1]"}, Holder.ELSEWHERE),
        ({"boot": "before"}, Holder.GONE),
        ({"started": "1"}, Holder.GONE),
        ({"pid": 1 << 22}, Holder.GONE),
        ({"started": ""}, Holder.UNKNOWN),
        # A machine that was renamed and rebooted, or a container of yesterday: nobody can look.
        ({"host": "another", "boot": "before"}, Holder.ELSEWHERE),
    ],
)
def test_each_field_has_to_fit(changes: dict[str, object], holder: Holder) -> None:
    """One that does not fit is enough: the pid is another process's, or of another machine."""
    assert note_of_this_process("/s")._replace(**changes).holder() is holder  # type: ignore[arg-type]


def test_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence has host and pid; a container with the name of its host is called one."""
    note = note_of_this_process("/s")
    assert note.where() == f" (pid {os.getpid()})"
    assert note._replace(host="far", boot="another").where() == f" on host far (pid {os.getpid()})"
    monkeypatch.setattr(lock_note, "pid_namespace", lambda: "pid:[2]")
    assert note.where() == f" in another container (pid {os.getpid()})"


@needs(linux=True)
def test_a_process_has_one_start_time_until_it_ends() -> None:
    """It stays the same while the process runs; one that has ended has none, reaped or not."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        started = start_time(process.pid)
        assert started
        assert start_time(process.pid) == started
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        assert start_time(process.pid) == ""
    assert start_time(process.pid) == ""
    assert len(boot_id()) == 36


class FakeLibrary:
    """What macOS answers with: struct proc_bsdinfo, and the boot's id."""

    def __init__(self, status: int = 2, size: int = 136) -> None:
        self.info = (0).to_bytes(4, sys.byteorder) + status.to_bytes(4, sys.byteorder) + bytes(112)
        self.info += (1_700_000_000).to_bytes(8, sys.byteorder) + (42).to_bytes(8, sys.byteorder)
        self.size = size

    def proc_pidinfo(self, pid: int, flavor: int, argument: object, buffer: ctypes.Array, size: int) -> int:
        assert (flavor, size, len(self.info)) == (3, 136, 136)
        ctypes.memmove(buffer, self.info, size)
        return self.size

    def sysctlbyname(self, name: bytes, buffer: ctypes.Array, size: object, new: object, length: object) -> int:
        assert name == b"kern.bootsessionuuid"
        ctypes.memmove(buffer, b"UUID\0", 5)
        return 0


def test_start_time_and_boot_on_macos() -> None:
    """Both come from the kernel's structures: seconds and microseconds; none for a zombie or a pid without process."""
    assert mac_start_time(1, FakeLibrary()) == "1700000000.000042"
    assert mac_start_time(1, FakeLibrary(status=5)) == ""
    assert mac_start_time(1, FakeLibrary(size=0)) == ""
    assert mac_boot_id(FakeLibrary()) == "UUID"
