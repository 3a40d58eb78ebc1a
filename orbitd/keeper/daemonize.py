"""How the keeper process starts and ends: lock file, listening socket, fork, setsid, signals.

At most one keeper serves a socket path. Whether one does is asked of the kernel: connect(2)
to a listening socket succeeds. A lock file beside the socket makes that probe and bind(2)
one step, and likewise the unlink(2) at the end. It is held for these moments only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat

from orbit_os.files import PRIVATE_FILE, UnsafeFile, lock, open_private, set_mode
from orbitd.keeper.server import Keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG = 64


def main(path: str) -> None:
    """Become the keeper of a socket path; exit with 0 if there is one already.

    The process that was started exits when its child listens, so its exit status and stderr
    report to the starter. The child keeps nothing of the starter's: no session, process
    group, terminal or working directory.
    """
    os.umask(0o077)
    # The lock is released before the fork: a flock(2) lock belongs to the open file description,
    # which the child would share and hold for as long as it lives.
    try:
        with _locked(path):
            listener = None if _is_served(path) else _listen(path)
    except (UnsafeFile, OSError) as error:
        words = f"{path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        os.write(2, os.fsencode(words))
        os._exit(1)
    if listener is None or os.fork() > 0:
        os._exit(0)
    os.setsid()
    # One fork is enough. A session leader gets a controlling terminal only by opening one without
    # O_NOCTTY (termios(3)), and openpty(3) opens both ends with it.
    os.chdir("/")
    _set_signal_handlers()
    keeper = Keeper(listener)
    # The starter reads stderr until end of file, so what fails above is reported there, and it
    # waits no longer than until here.
    _redirect_stdio()
    own = os.lstat(path)
    keeper.run()
    with _locked(path):
        # Another keeper may have bound the path since, where somebody had removed our socket.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(own, os.lstat(path)):
                os.unlink(path)
        listener.close()


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    # The lock file is never removed: a process that waits in flock(2) would get a lock on a file
    # that the next one cannot find any more.
    descriptor = open_private(path + ".lock", os.O_RDWR | os.O_CREAT)
    try:
        lock(path + ".lock", descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_served(path: str) -> bool:
    """Return whether a process listens on the path."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True  # EAGAIN: its backlog is full (unix(7)), so it is busy or stopped, but it exists
        return True


def _listen(path: str) -> socket.socket:
    """Bind the path, which no process serves; replace the socket that a crash left, and nothing else.

    Raises:
        UnsafeFile: Something else is in its place.
        OSError: It cannot be bound.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UnsafeFile(f"{path} is no socket; move it away")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
    except OSError as error:
        # FAT, CIFS and some FUSE file systems hold no sockets (mknod(2)).
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        words = f"its file system holds no sockets ({error.strerror}); set database_path to a local one"
        raise OSError(error.errno, words) from error
    set_mode(path, PRIVATE_FILE)
    listener.setblocking(False)
    listener.listen(BACKLOG)
    return listener


def _set_signal_handlers() -> None:
    """Survive the end of the starter's terminal and of the daemon; SIGTERM ends the keeper.

    The kernel then closes every master, and hangs up the programs (SIGHUP).
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The handler does nothing: what counts is the byte that the interpreter's own C handler writes
    # to the wake-up descriptor (signal.set_wakeup_fd), for which any Python handler must be set.
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    # The mask is inherited through fork and execve: a starter that blocks SIGCHLD would stop us.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _redirect_stdio() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
