"""One daemon a database: an flock(2) on a file beside it, held as long as the daemon lives.

The kernel drops the lock with the process, so a stale file needs no care. The file is
never removed: whoever opened it before the removal would hold a lock that nobody sees.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from orbit_os.files import PRIVATE_FILE

_LONGEST_NOTE = 8192


class AlreadyLocked(Exception):
    """Another daemon serves this database; the text says which."""


@contextlib.contextmanager
def database_lock(database_path: str, socket_path: str) -> Iterator[None]:
    """Hold the lock of a database.

    Args:
        database_path: The file that the lock is for; the lock lies at this path + `.lock`.
        socket_path: Written into the lock file, to tell the next one who serves.

    Raises:
        AlreadyLocked: Another process holds it.
        OSError: The lock file cannot be opened.
    """
    path = database_path + ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    try:
        _take(descriptor, path)
        with contextlib.suppress(OSError):  # a full disk must not keep the daemon from serving
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()}\nsocket {socket_path}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        note = os.pread(descriptor, _LONGEST_NOTE, 0).decode(errors="replace").split("\n")
        holder = ", ".join(line for line in note if line) or "unknown"
        raise AlreadyLocked(f"another orbitd serves this database ({holder}; lock {path})") from error
