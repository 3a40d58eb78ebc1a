"""File systems that cannot flush a folder or keep a mode, and the flush that reaches the disk on macOS."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orbit_os.files import (
    NO_MODES,
    UnsafeFolder,
    lock,
    make_private_folders,
    open_private,
    private_folder,
    read_regular,
    set_mode,
    sync,
    sync_descriptor,
)

UNSUPPORTED = [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS]
FAILURES = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS]
FULL_SYNC = 51
"""F_FULLFSYNC of macOS."""


def failing(number: int) -> Callable[..., None]:
    """Return a system call that fails."""

    def fail(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch(mode=0o600)
    return path


@pytest.mark.parametrize("number", [*UNSUPPORTED, errno.EBADF, errno.EACCES, errno.EPERM], ids=errno.errorcode.get)
def test_a_folder_that_cannot_be_flushed_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """CIFS, sshfs and vboxsf refuse to flush a folder, which is no failure: by its path and by a descriptor."""
    monkeypatch.setattr(os, "fsync", failing(number))
    sync(str(tmp_path))
    make_private_folders(str(tmp_path / "one" / "two"))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", [*UNSUPPORTED, *FAILURES, errno.EACCES, errno.EPERM], ids=errno.errorcode.get)
def test_a_file_that_cannot_be_flushed_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A file whose fsync fails, for whatever reason, is not on disk; the error names it."""
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(OSError) as caught:
        sync(str(file))
    assert (caught.value.errno, caught.value.filename) == (number, str(file))


@pytest.mark.parametrize("number", FAILURES, ids=errno.errorcode.get)
def test_a_failing_disk_is_an_error_of_a_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Only that it is not supported passes: a folder that the disk did not take is an error, which names it."""
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(OSError) as caught:
        sync(str(tmp_path))
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path))


def test_a_folder_that_can_only_be_written_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of mode 0300 takes files and cannot be opened; a file that cannot be opened is an error."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    sync(str(tmp_path))
    with pytest.raises(PermissionError):
        sync(str(tmp_path / "file"))


def test_a_file_is_flushed_by_a_descriptor_that_can_write(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of CIFS refuses to flush what is open for reading only (EACCES), as other systems do (EBADF)."""

    def flush(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "fsync", flush)
    sync(str(file))


def test_macos_flushes_the_disks_own_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where F_FULLFSYNC exists it is used, for files and for folders, and fsync is not."""
    calls: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL_SYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _descriptor, command: calls.append(command))
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    sync(str(file))
    sync(str(file.parent))
    assert calls == [FULL_SYNC, FULL_SYNC]


@pytest.mark.parametrize("number", [errno.ENOTTY, *UNSUPPORTED], ids=errno.errorcode.get)
def test_macos_without_a_full_flush_falls_back(file: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A network file system of macOS has no F_FULLFSYNC: fsync takes its place, as in SQLite."""
    flushed: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL_SYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", failing(number))
    monkeypatch.setattr(os, "fsync", flushed.append)
    sync(str(file))
    assert len(flushed) == 1


def test_a_full_flush_that_fails_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO of F_FULLFSYNC is a failure of the disk: an fsync that then succeeds would hide it."""
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL_SYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", failing(errno.EIO))
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    with pytest.raises(OSError) as caught:
        sync(str(file))
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EROFS], ids=errno.errorcode.get)
def test_a_mode_that_is_right_needs_no_chmod(file: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What has its mode already passes on a file system that refuses chmod(2)."""
    monkeypatch.setattr(os, "chmod", failing(number))
    set_mode(str(file), 0o600)
    private_folder(str(file.parent / "folder"))
    os.close(open_private(str(file), os.O_RDONLY))


@pytest.mark.parametrize("number", [None, errno.EPERM, errno.ENOTSUP], ids=["ignored", "EPERM", "ENOTSUP"])
@pytest.mark.parametrize(("shown", "wanted"), [(0o700, 0o600), (0o777, 0o644)])
def test_a_mode_that_is_closed_enough_passes(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, shown: int, wanted: int
) -> None:
    """CIFS shows one mode for all files: it has to keep others away where the wanted one does, and no more."""
    file.chmod(shown)
    monkeypatch.setattr(os, "chmod", (lambda *_: None) if number is None else failing(number))
    set_mode(str(file), wanted)
    assert mode_of(file) == shown


@pytest.mark.parametrize("number", [None, errno.EPERM, errno.ENOTSUP], ids=["ignored", "EPERM", "ENOTSUP"])
def test_a_file_that_stays_open_to_others_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    """Where chmod fails or does nothing and others can read, the error names the file and its file system's lack."""
    file.chmod(0o755)
    monkeypatch.setattr(os, "chmod", (lambda *_: None) if number is None else failing(number))
    with pytest.raises(PermissionError) as caught:
        open_private(str(file), os.O_RDONLY)
    assert (caught.value.strerror, caught.value.filename) == (NO_MODES, str(file))


def test_a_file_that_its_owner_cannot_write_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode that lacks a right of ours, and cannot be changed, is an error that says which mode it is."""
    file.chmod(0o400)
    monkeypatch.setattr(os, "chmod", failing(errno.EPERM))
    with pytest.raises(PermissionError, match="it stays at mode 0400"):
        set_mode(str(file), 0o600)


def test_a_chmod_that_fails_otherwise_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is not taken for one without modes."""
    file.chmod(0o644)
    monkeypatch.setattr(os, "chmod", failing(errno.EIO))
    with pytest.raises(OSError) as caught:
        set_mode(str(file), 0o600)
    assert caught.value.errno == errno.EIO


def test_a_folder_on_a_file_system_without_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On FAT each folder is open: made or found, it is refused, without the advice of a chmod, which does nothing."""
    make = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        make(path)
        change(path, 0o755)

    change = os.chmod
    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "chmod", lambda *_: None)
    folder = tmp_path / "orbit"
    with pytest.raises(PermissionError) as made:
        private_folder(str(folder))
    assert (made.value.strerror, made.value.filename) == (NO_MODES, str(folder))
    with pytest.raises(UnsafeFolder) as found:
        private_folder(str(folder))
    assert str(folder) in str(found.value)
    assert NO_MODES in str(found.value)
    assert "chmod" not in str(found.value)
    assert list(folder.iterdir()) == []


def test_a_folder_that_a_chmod_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On any other file system the message has the command that closes the folder, and nothing is left in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(UnsafeFolder, match="close it: chmod 700"):
        private_folder(str(folder))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("home", ["/", None, "same"])
def test_a_folder_that_must_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    """Nobody is advised to close HOME itself, or a folder elsewhere, as /etc is: that would harm other programs."""
    tmp_path.chmod(0o755)
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv(
        "HOME", str(tmp_path) if home == "same" else home
    )
    with pytest.raises(UnsafeFolder, match="configure a folder of your own"):
        private_folder(str(tmp_path))


@pytest.mark.parametrize("number", [errno.ENOLCK, *UNSUPPORTED], ids=errno.errorcode.get)
def test_a_file_system_without_locks(file: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The error names the file and what its file system lacks, and keeps its number."""
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with pytest.raises(OSError, match="no locks") as caught:
        lock(str(file), 0, fcntl.LOCK_EX)
    assert (caught.value.errno, caught.value.filename) == (number, str(file))


def test_a_lock_that_another_has(file: Path) -> None:
    """A lock that is held elsewhere is refused as flock(2) refuses it, and is had once it is free."""
    first, second = (os.open(file, os.O_RDWR) for _ in range(2))
    try:
        lock(str(file), first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            lock(str(file), second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(first, fcntl.LOCK_UN)
        lock(str(file), second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(first)
        os.close(second)


@pytest.mark.parametrize(("uid", "is_read"), [(0, True), (1000, True), (1001, False)])
def test_a_configuration_of_somebody_else_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, uid: int, is_read: bool
) -> None:
    """In a HOME that is shared anybody may put one: only root's and our own count."""
    stat_of = os.fstat

    def fake_stat(descriptor: int) -> os.stat_result:
        found = list(stat_of(descriptor))
        found[stat.ST_UID] = uid
        return os.stat_result(found)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("orbit_os.files.os.fstat", fake_stat)
    if is_read:
        assert read_regular(str(file), 100) == file.read_bytes()
    else:
        with pytest.raises(PermissionError, match="belongs to uid 1001, not to you or root"):
            read_regular(str(file), 100)
