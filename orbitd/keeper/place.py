"""Where a keeper is found: its socket, the note beside it, and the process itself where the socket has lost its name.

    PATH         the socket, in the database's folder; where no socket can have that path, in a short folder
    PATH.lock    the guard: it makes "is one there?" and bind(2) one step, and unlink(2) at the end; held for moments
    PATH.pid     the note: which process the keeper is, locked (flock(2)) by it as long as it lives

A cleaner removes a socket, a restore moves the data folder aside, and the keeper with its programs lives on without a
name. So an orbitd that finds no socket looks for the process (`find_keeper`) before it starts a second one, and has it
bind its path again (`call_keeper`: SIGHUP, which keepers of every release survive). A keeper does not look after its
socket by itself: it would have to wake up for that.

This runs inside the keeper, and in orbitd.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import sys

from orbit_os.files import PRIVATE_FILE, UnsafeFile, UnsafeFolder, lock, open_private, private_folder, set_mode
from orbit_os.sockets import MAX_PATH_BYTES, fitting_socket_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG = 64

_GUARD, _NOTE = ".lock", ".pid"

_OPEN_FILES = "/proc/self/fd"

_MAX_NAME_BYTES = MAX_PATH_BYTES - len(f"{_OPEN_FILES}/{1 << 30}/")
"""Of a socket's name in a folder that is reached by an open descriptor."""

_PROGRAM = b"/orbitd/keeper/__main__.py"

_USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})
"""Why a path cannot be bound now that can be later."""


def socket_path(path: str) -> str:
    """Return where the socket of a keeper is: at its path, else in a short folder, the same for every environment."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        return path
    if len(os.fsencode(os.path.basename(path))) <= _MAX_NAME_BYTES and os.path.isdir(_OPEN_FILES):
        return path
    return fitting_socket_path(path)


@contextlib.contextmanager
def socket_address(path: str) -> Iterator[str]:
    """Yield what bind(2) and connect(2) take for a path that `socket_path` has returned.

    A path that is too long is spelled by a descriptor of its folder: the socket is where it belongs all the same.

    Raises:
        OSError: There is no such folder.
    """
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"{_OPEN_FILES}/{descriptor}/{name}"
    finally:
        os.close(descriptor)


class Place:
    """The keeper's side: its path, its listening socket and its note.

    Args:
        path: The keeper's; absolute. Changed where the data folder has been moved, with the keeper's files in it.

    Attributes:
        listener: Bound and listening, non-blocking. `look_after` may replace it; the caller closes the one before.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.listener: socket.socket
        self._own: os.stat_result
        self._note = -1

    @classmethod
    def take(cls, path: str) -> Place | None:
        """Listen at a path; return None if there is a keeper of it already, which binds it again if need be.

        Raises:
            UnsafeFolder: Something else is in its place.
            OSError: It cannot be bound.
        """
        place = cls(path)
        with _guarded(path):
            if _is_served(path):
                return None
            with contextlib.suppress(BlockingIOError):  # somebody has locked the note
                place._bind(path)
                return place
        call_keeper(path)
        return None

    def write_note(self) -> None:
        """Write into the note which process this is: after the fork, once SIGHUP does not end it any more."""
        pid = os.getpid()
        lines = b"pid %d\nstarted %s\nboot %s\n" % (pid, _start_time(pid), _boot_id())
        note = lines + b"path " + os.fsencode(self.path)
        with contextlib.suppress(OSError):  # on a full disk; it is found by the note before, or its command line
            if os.pwrite(self._note, note, 0) == len(note):
                os.ftruncate(self._note, len(note))

    def is_own(self) -> bool:
        """Return whether the path leads to this keeper's socket."""
        return self._leads_here(self.path)

    def look_after(self) -> bool | None:
        """Bind the path again if it does not lead to this keeper's socket any more.

        Returns:
            Whether it leads there now; None if that cannot be said: there is no descriptor, say, to bind it with.
        """
        if self.is_own():
            return True
        # The folder may be there again: made again, or restored. Else it has been moved, and the note in it.
        is_bound = self._bind_again(self.path)
        if is_bound is not False:
            return is_bound
        moved = self._moved_path()
        self.follow(moved)
        return bool(moved) and (self.path == moved or self._bind_again(moved))

    def follow(self, path: str) -> None:
        """Take another path for this keeper's, if it leads to its socket: somebody has come that way."""
        if path == self.path or not path.startswith("/") or not self._leads_here(path):
            return
        with contextlib.suppress(OSError, UnsafeFolder):
            self._lock_note(path)
            self.path = path
            self.write_note()

    def leave(self) -> None:
        """Remove the socket and the note, where they are this keeper's, and close both."""
        if not self.is_own():
            self.follow(self._moved_path())
        # The folder may be gone for good.
        with contextlib.suppress(OSError, UnsafeFolder), _guarded(self.path):
            if self.is_own():
                os.unlink(socket_path(self.path))
            # Under the guard: nobody has opened the note to lock it, and would lock a file without a name.
            if os.path.samestat(os.fstat(self._note), os.lstat(self.path + _NOTE)):
                os.unlink(self.path + _NOTE)
        self.listener.close()
        os.close(self._note)

    def _leads_here(self, path: str) -> bool:
        try:
            return os.path.samestat(self._own, os.lstat(socket_path(path)))
        except OSError:
            return False

    def _moved_path(self) -> str:
        """Return where this keeper's path is now if its folder was moved; "" if that is not known."""
        try:
            note = os.readlink(f"{_OPEN_FILES}/{self._note}")  # the kernel follows renames
        except OSError:
            return ""
        path = note.removesuffix(_NOTE)
        return path if path not in (note, self.path) else ""

    def _bind_again(self, path: str) -> bool | None:
        """Bind a path if no process serves it; return whether that was done, None if it may be possible later."""
        try:
            with _guarded(path, waits=False):
                if not _is_served(path):
                    self._bind(path)
                    self.path = path
                    self.write_note()
                    return True
        except (OSError, UnsafeFolder) as error:
            if isinstance(error, OSError) and error.errno in _USED_UP:
                return None
        return False

    def _bind(self, path: str) -> None:
        """Lock the note and listen, under the guard, where no process listens.

        Raises:
            BlockingIOError: Another process has locked the note.
            UnsafeFolder: Something else is in the place of the socket or the note.
            OSError: It cannot be bound.
        """
        before = self._note
        self._lock_note(path)
        try:
            self.listener, self._own = _listen(path)
        except BaseException:
            if before < 0:
                os.close(self._note)
            raise

    def _lock_note(self, path: str) -> None:
        """Open and lock the note beside a path, and let go of the one before.

        Raises:
            BlockingIOError: Another process has locked it.
            UnsafeFolder: Something else is in its place.
            OSError: It cannot be opened or locked.
        """
        descriptor = open_private(path + _NOTE, os.O_RDWR | os.O_CREAT)
        try:
            if self._note >= 0 and os.path.sameopenfile(self._note, descriptor):
                os.close(descriptor)
                return
            lock(path + _NOTE, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        if self._note >= 0:
            os.close(self._note)
        self._note = descriptor


def find_keeper(path: str) -> int | None:
    """Find the living keeper of a path without its socket; this reads files, and /proc: call it in a thread.

    Returns:
        Its pid; 0 if it lives and its process is not to be seen (in another namespace, say); None if there is none.
    """
    note = _read_locked_note(path + _NOTE)
    if note is not None and (pid := _pid_of(note)):
        return pid
    # There is no note, or none that says who has locked it: the disk was full, say, when it was written.
    keepers = _keeper_processes()
    # A program that is about to be executed is a copy of its keeper until then.
    return next(
        (pid for pid, (parent, of) in keepers.items() if of == os.fsencode(path) and parent not in keepers),
        None if note is None else 0,
    )


def call_keeper(path: str) -> int | None:
    """Have the living keeper of a path bind it again, if there is one; return as `find_keeper` does.

    On Linux no signal is sent without a pidfd.
    """
    pid = find_keeper(path)
    if not pid:
        return pid
    try:
        process = os.pidfd_open(pid)
    except AttributeError:  # macOS; it held the lock a moment ago. Or Python was built on a system without it.
        if sys.platform == "darwin":
            os.kill(pid, signal.SIGHUP)
        return pid
    except OSError:
        return find_keeper(path)
    try:
        # Looked at once more: from here on the pid is not another process's.
        if find_keeper(path) == pid:
            signal.pidfd_send_signal(process, signal.SIGHUP)
            return pid
    except ProcessLookupError:
        pass
    finally:
        os.close(process)
    return find_keeper(path)


@contextlib.contextmanager
def _guarded(path: str, *, waits: bool = True) -> Iterator[None]:
    """Hold the guard. Raises: BlockingIOError, if somebody has it and this does not wait."""
    # The file is never removed: a process that waits in flock(2) would get a lock on a file that the next one
    # cannot find any more.
    descriptor = open_private(path + _GUARD, os.O_RDWR | os.O_CREAT)
    try:
        lock(path + _GUARD, descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _is_served(path: str) -> bool:
    """Return whether a process listens on a keeper's path."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            with socket_address(socket_path(path)) as address:
                probe.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True  # EAGAIN: its backlog is full (unix(7)), so it is busy or stopped, but it exists
        return True


def _listen(path: str) -> tuple[socket.socket, os.stat_result]:
    """Bind a path that no process serves; replace the socket that a crash left, and nothing else.

    Returns:
        The listening socket, and its file.

    Raises:
        UnsafeFolder: Something else is in its place, or the short folder is not private.
        OSError: It cannot be bound, or its file system holds no sockets.
    """
    place = socket_path(path)
    if place != path:
        private_folder(os.path.dirname(place))
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(place).st_mode):
            raise UnsafeFile(f"{place} is no socket; move it away")
        os.unlink(place)
    listener = socket.socket(socket.AF_UNIX)
    try:
        with socket_address(place) as address:
            listener.bind(address)
        set_mode(place, PRIVATE_FILE)
        listener.setblocking(False)
        listener.listen(BACKLOG)
        return listener, os.lstat(place)
    except BaseException as error:
        listener.close()
        # FAT, CIFS and some FUSE file systems hold no sockets (mknod(2)).
        if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EOPNOTSUPP):
            words = f"its file system holds no sockets ({error.strerror}); set database_path to a local one"
            raise OSError(error.errno, words) from error
        raise


def _read_locked_note(path: str) -> dict[bytes, bytes] | None:
    """Return what a note says if the keeper that wrote it lives; else None."""
    try:
        descriptor = open_private(path, os.O_RDONLY)
    except (OSError, UnsafeFolder):
        return None
    try:
        # A shared lock, for this moment: a keeper that starts now does not get its own, and is started again.
        lock(path, descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        return _parse_note(descriptor) if exc.errno == errno.EWOULDBLOCK else None
    finally:
        os.close(descriptor)
    return None


def _parse_note(descriptor: int) -> dict[bytes, bytes]:
    """Return the lines of a note. A path may hold a newline: it comes last."""
    lines, _, path = os.pread(descriptor, 8192, 0).partition(b"path ")
    found = dict(line.split(b" ", 1) for line in lines.splitlines() if b" " in line)
    return {**found, b"path": path}


def _pid_of(note: dict[bytes, bytes]) -> int:
    """Return the pid of the process that a note names; 0 if it is not on this machine, or not to be seen from here."""
    number = note.get(b"pid", b"")
    pid = int(number) if number.isdigit() else 0
    fits = pid > 1 and note.get(b"boot") == _boot_id() and note.get(b"started") == _start_time(pid)
    return pid if fits else 0


def _keeper_processes() -> dict[int, tuple[int, bytes]]:
    """Return this user's keepers: pid -> parent's pid and path. Empty where there is no /proc."""
    found: dict[int, tuple[int, bytes]] = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return found
    for pid in pids:
        try:
            words = _read(f"/proc/{pid}/cmdline").split(b"\0")
            # One that has not left its starter's session yet is not ready for a signal, and has no program.
            if len(words) < 3 or not words[-3].endswith(_PROGRAM) or os.getsid(pid) != pid:
                continue
            # A path in a container leads to another file.
            is_ours = os.stat(f"/proc/{pid}").st_uid == os.geteuid()
            if is_ours and os.path.samefile(f"/proc/{pid}/root", "/"):
                found[pid] = int(_process_fields(pid)[1]), _claimed_path(pid) or words[-2]
        except (OSError, ValueError, IndexError):
            continue  # it has ended meanwhile
    return found


def _claimed_path(pid: int) -> bytes:
    """Return the path that is in a keeper's own note; b"" for one of an earlier release, which has none."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        link = f"/proc/{pid}/fd/{name}"
        with contextlib.suppress(OSError):  # closed meanwhile
            if not os.readlink(link).removesuffix(" (deleted)").endswith(_NOTE):
                continue
            descriptor = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _parse_note(descriptor)[b"path"]
            finally:
                os.close(descriptor)
    return b""


def _boot_id() -> bytes:
    """Return what names this boot of the machine; b"" where the system has no such thing."""
    return _read("/proc/sys/kernel/random/boot_id").strip()


def _start_time(pid: int) -> bytes:
    """Return when a process was started, in clock ticks since the boot; b"" where that cannot be known."""
    fields = _process_fields(pid)
    return fields[19] if len(fields) > 19 else b""


def _process_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat (proc(5)) from the third on: the second, a name, may hold anything."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    """Return what a file of /proc says; b"" if it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
