"""How the keeper process starts and ends: fork, setsid, signals, standard streams."""

from __future__ import annotations

import os
import signal

from orbit_os.files import UnsafeFolder
from orbitd.keeper.place import Place
from orbitd.keeper.server import Keeper


def main(path: str) -> None:
    """Become the keeper of a socket path; exit with 0 if there is one already.

    The process that was started exits when its child listens, so its exit status and stderr
    report to the starter. The child keeps nothing of the starter's: no session, process
    group, terminal or working directory.
    """
    os.umask(0o077)
    try:
        # The note's lock belongs to the open file description (flock(2)), which the child shares and keeps.
        place = Place.take(path)
    except (UnsafeFolder, OSError) as error:
        words = f"{path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        os.write(2, os.fsencode(words))
        os._exit(1)
    if place is None or os.fork() > 0:
        os._exit(0)
    # Before setsid: a process that leads a session is one that may be sent SIGHUP (`place.find_keeper`).
    _set_signal_handlers()
    os.setsid()
    # One fork is enough. A session leader gets a controlling terminal only by opening one without
    # O_NOCTTY (termios(3)), and openpty(3) opens both ends with it.
    os.chdir("/")
    keeper = Keeper(place)
    place.write_note()
    # The starter reads stderr until end of file, so what fails above is reported there, and it
    # waits no longer than until here.
    _redirect_stdio()
    keeper.run()
    place.leave()


def _set_signal_handlers() -> None:
    """Survive the end of the starter's terminal and of the daemon; SIGTERM ends the keeper.

    The kernel then closes every master, and hangs up the programs (SIGHUP).
    """
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The handler does nothing: what counts is the byte that the interpreter's own C handler writes
    # to the wake-up descriptor (signal.set_wakeup_fd), for which any Python handler must be set.
    # SIGHUP asks for a look at the socket; where a terminal has hung up that does no harm.
    for number in (signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    # The mask is inherited through fork and execve: a starter that blocks SIGCHLD would stop us.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _redirect_stdio() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
