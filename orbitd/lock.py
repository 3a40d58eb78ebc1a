"""One daemon a database: an flock(2) on a file beside it, held as long as the daemon lives.

The kernel releases the lock when the process ends, however it ends, so a lock file that was
left behind means nothing. While the lock is held, a note in the file says by whom (`orbit_os.lock_note`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from orbit_os.files import PRIVATE_FILE, lock, open_private, set_mode
from orbit_os.lock_note import (
    NOTE_BYTES,
    STARTING,
    Holder,
    LockNote,
    format_note,
    note_of_this_process,
    read_note,
    write_note,
)
from orbit_protocol.text import path_text


class AlreadyLocked(Exception):
    """Another process has the lock of this database; the text names it."""


class DatabaseLock:
    """A lock that is held, and the note in its file.

    Args:
        path: The lock file.
        descriptor: The locked file; `close` closes it.
        note: What is to be read there.
    """

    def __init__(self, path: str, descriptor: int, note: LockNote) -> None:
        self._path = path
        self._descriptor = descriptor
        self._note = note
        self._write()

    def update(self, *, socket: str | None = None, state: str | None = None) -> None:
        """Say where the daemon listens now, and what it does; nothing is written where nothing has changed.

        Args:
            socket: The path of its socket.
            state: A state of `lock_note`.
        """
        old = self._note
        changed = old._replace(socket=old.socket if socket is None else socket, state=state or old.state)
        # The path that was configured stays known: it is what the variables of users and sessions have.
        configured = old.configured or old.socket
        # A machine that has got another name, as a laptop does in another network, is still this one.
        changed = changed._replace(
            configured="" if configured == changed.socket else configured, host=os.uname().nodename
        )
        if changed != old:
            self._note = changed
            self._write()

    def check(self) -> bool:
        """Lock the file at the path again where it was deleted or replaced, and put its mode and its note right.

        Call it only while the database at the path is the one that is open: of another one the lock is not ours.

        Returns:
            Whether a file had to be locked again.

        Raises:
            AlreadyLocked: Another daemon has locked the new file meanwhile, and serves the same database.
            UnsafeFile, OSError: The file cannot be opened or locked.
        """
        is_new = not self._is_in_place() and self._lock_again()
        if os.pread(self._descriptor, NOTE_BYTES + 1, 0) != format_note(self._note):
            self._write()
        set_mode(self._path, PRIVATE_FILE, self._descriptor)  # else clients cannot read it, nor the next daemon lock it
        return is_new

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _lock_again(self) -> bool:
        descriptor = open_private(self._path, os.O_RDWR | os.O_CREAT)
        try:
            lock(self._path, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            try:
                note = read_note(descriptor)
            finally:
                os.close(descriptor)
            # Our own note: a file system that has given the same file another number. None, or one that was left
            # behind: its holder has not written yet, and the next check sees it. One that starts may still find that
            # it cannot serve, and the next check sees that; a restore has no socket, and replaces the database at once.
            if note is None or note.holder() is Holder.GONE or _process(note) == _process(self._note):
                return False
            if note.state == STARTING and note.socket:
                return False
            raise AlreadyLocked(_refusal(note, self._path)) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor = descriptor
        return True

    def clear(self) -> None:
        """Blank the note: one that is left behind means that its daemon was killed."""
        with contextlib.suppress(OSError):
            write_note(self._descriptor, None)

    def close(self) -> None:
        """Give the lock back."""
        # The lock goes with the descriptor; the file stays. If it were unlinked, a process that opened
        # it before could lock a file without a name, and the next one a new file of the same name.
        os.close(self._descriptor)

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # on a full disk the daemon serves all the same
            write_note(self._descriptor, self._note)


@contextlib.contextmanager
def database_lock(database_path: str, socket_path: str, supervisor: str = "") -> Iterator[DatabaseLock]:
    """Hold the lock of a database.

    Args:
        database_path: The file that the lock is for; the lock file is this path + `.lock`.
        socket_path: Written into the lock file, so that clients find the daemon; empty for a process that serves none.
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
            raise AlreadyLocked(_refusal(read_note(descriptor), path)) from error
        held = DatabaseLock(path, descriptor, note_of_this_process(socket_path, supervisor))
    except BaseException:
        os.close(descriptor)
        raise
    try:
        yield held
    finally:
        held.clear()
        held.close()


def _process(note: LockNote) -> tuple[object, ...]:
    return note.pid, note.started, note.boot, note.namespace


def _refusal(note: LockNote | None, path: str) -> str:
    if note is None:
        return f"another orbitd serves this database (its lock has no note: {path_text(path)})"
    if note.holder() is Holder.ELSEWHERE:
        return f"another orbitd runs{note.where()} and serves this database; stop it there (lock {path_text(path)})"
    doing = f"socket {path_text(note.socket)}" if note.socket else "it serves no socket"
    return f"another orbitd serves this database (pid {note.pid}, {doing}; lock {path_text(path)})"
