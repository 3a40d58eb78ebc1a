"""The lock of a database while it is held: its file is deleted, replaced or written to by somebody else."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbit_os.files import UnsafeFile
from orbit_os.lock_note import SERVING, LockNote, format_note, note_of_this_process, parse_note
from orbitd.lock import AlreadyLocked, DatabaseLock, database_lock


@pytest.fixture
def held(tmp_path: Path) -> Iterator[DatabaseLock]:
    with database_lock(str(tmp_path / "db"), "/run/s") as lock:
        yield lock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.lock"


def is_locked(path: Path) -> bool:
    """Return whether somebody has locked the file at a path."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def socket_in(path: Path) -> str:
    note = parse_note(path.read_bytes())
    assert note is not None
    return note.socket


def test_a_lock_file_that_is_in_place_stays(held: DatabaseLock, path: Path) -> None:
    """Nothing is opened, and nothing written, where nothing has changed."""
    before = path.stat()
    assert not held.check()
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_lock_file_that_was_removed_is_locked_again(held: DatabaseLock, path: Path, is_replaced: bool) -> None:
    """No second daemon can have the lock, and clients read where the daemon listens."""
    path.rename(path.with_name("away"))
    if is_replaced:
        path.touch()
    assert held.check()
    assert is_locked(path)
    assert socket_in(path) == "/run/s"
    assert not is_locked(path.with_name("away"))
    assert not held.check()
    held.update(socket="/run/t")
    assert socket_in(path) == "/run/t"


@pytest.mark.parametrize("written", [b"", b"garbage", b" " * 2048])
def test_a_note_that_was_changed_is_written_again(held: DatabaseLock, path: Path, written: bytes) -> None:
    """Clients find the daemon by it."""
    before = path.read_bytes()
    path.write_bytes(written)
    assert not held.check()
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0, 0o400, 0o666])
def test_the_mode_of_a_lock_file_is_put_right(held: DatabaseLock, path: Path, mode: int) -> None:
    """Clients that may not read it find nobody, and start a daemon that may not lock it."""
    path.chmod(mode)
    assert not held.check()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("note", "is_another"),
    [
        (note_of_this_process("/run/s")._replace(boot="of another kernel", host="far", state=SERVING), True),
        (note_of_this_process("")._replace(boot="of another kernel", host="far"), True),
        (note_of_this_process("/run/s")._replace(boot="of another kernel", host="far"), False),
        (note_of_this_process("/run/s"), False),
        (note_of_this_process("/run/s")._replace(started="1"), False),
        (None, False),
    ],
)
def test_another_daemon_that_has_locked_the_new_file(
    held: DatabaseLock, path: Path, note: LockNote | None, is_another: bool
) -> None:
    """It is named, and so is a restore; not so one that starts, our own note, one left behind, and none yet."""
    path.unlink()
    path.write_bytes(format_note(note))
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if is_another:
            with pytest.raises(AlreadyLocked, match="on host far"):
                held.check()
        else:
            assert not held.check()
    assert held.check()


def test_a_link_in_the_place_of_the_lock_file_is_not_followed(held: DatabaseLock, path: Path, tmp_path: Path) -> None:
    """It is an error of the check, and no file is made where it leads."""
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    descriptors = os.listdir("/dev/fd")
    with pytest.raises(UnsafeFile, match="is a symbolic link"):
        held.check()
    assert not (tmp_path / "elsewhere").exists()
    assert len(os.listdir("/dev/fd")) == len(descriptors)
