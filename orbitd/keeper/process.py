"""How a keeper process begins and ends.

Exactly one keeper serves a socket path, and what tells is the kernel: a listening socket
answers connect(2). A lock file beside the socket makes probe and bind one step, and
likewise the unlink at the end; it is held for these moments only, so nobody waits long.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import stat

from orbitd.keeper.holder import Keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG = 64


def main(path: str) -> None:
    """Become the keeper of a socket path, unless there is one.

    The process that was started ends when its child listens, so its exit status tells the
    starter how it went; the child belongs to no session, group or folder of the starter's.
    """
    os.umask(0o077)
    with _locked(path):
        listener = None if _serves(path) else _listen(path)
    if listener is None or os.fork() > 0:
        os._exit(0)
    os.setsid()
    os.chdir("/")
    _set_signals()
    keeper = Keeper(listener)
    _leave_stdio()
    own = os.lstat(path)
    keeper.run()
    with _locked(path):
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(own, os.lstat(path)):
                os.unlink(path)
        listener.close()


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _serves(path: str) -> bool:
    """Tell whether somebody listens on the path."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True  # it has more waiting than it can take: busy or stopped, but there
        return True


def _listen(path: str) -> socket.socket:
    """Bind the path, which nobody serves; a socket left behind by a crash makes way, anything else does not."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.setblocking(False)
    listener.listen(BACKLOG)
    return listener


def _set_signals() -> None:
    """Outlive the terminal and the daemon; SIGTERM still ends the keeper, and the kernel then hangs up its programs."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # wakes the loop through its descriptor
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _leave_stdio() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
