"""One daemon a database: an flock(2) on a file beside it, held as long as the daemon lives.

The kernel releases the lock when the process ends, however it ends, so a lock file that was
left behind means nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from orbit_os.files import lock, open_private
from orbit_protocol.text import path_text, to_text

_MAX_HOLDER_BYTES = 8192


class AlreadyLocked(Exception):
    """Another process has the lock of this database; the text names it."""


@contextlib.contextmanager
def database_lock(database_path: str, socket_path: str, supervisor: str = "") -> Iterator[None]:
    """Hold the lock of a database.

    Args:
        database_path: The file that the lock is for; the lock file is this path + `.lock`.
        socket_path: Written into the lock file, so that the next daemon can name the one that serves.
        supervisor: Written there too: clients of one that was killed wait for its supervisor to start another.

    Raises:
        AlreadyLocked: Another process holds it.
        UnsafeFile: There is a link, or no regular file of ours, in the lock file's place.
        OSError: The lock file cannot be opened.
    """
    path = database_path + ".lock"
    # Closed on exec: an flock belongs to the open file description, which a child process would share
    # and keep locked after the daemon has ended.
    descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            lock(path, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lines = to_text(os.pread(descriptor, _MAX_HOLDER_BYTES, 0)).split("\n")
            holder = ", ".join(line for line in lines if line) or "unknown"
            raise AlreadyLocked(f"another orbitd serves this database ({holder}; lock {path_text(path)})") from error
        with contextlib.suppress(OSError):  # on a full disk the daemon serves all the same
            os.ftruncate(descriptor, 0)
            # The path's own bytes: clients connect to what they read here.
            note = b"pid %d\nsocket %s\n" % (os.getpid(), os.fsencode(socket_path))
            os.pwrite(descriptor, note + (b"supervisor %s\n" % supervisor.encode() if supervisor else b""), 0)
        yield
    finally:
        # The lock goes with the descriptor; the file stays. If it were unlinked, a process that opened
        # it before could lock a file without a name, and the next one a new file of the same name.
        os.close(descriptor)
