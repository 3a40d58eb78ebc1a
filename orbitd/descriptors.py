"""File descriptors: how many there are, and who may take the last ones (RLIMIT_NOFILE, getrlimit(2)).

A live session takes two: its terminal and its journal. `KEPT_BACK` are not for sessions, so that clients can connect,
and of these `FOR_REPAIR` are not for clients either but for the reserve of connections, a backup, a check.

Descriptors are given lowest number first. So a new one with a high number means that all below it are taken.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
from collections.abc import Callable, Iterator

from orbit_protocol.errors import TooManySessions
from orbitd.logs import event

log = logging.getLogger("orbitd")

A_SESSION = 2
KEPT_BACK = 32
FOR_REPAIR = 12
FOR_STORE = 16
"""What the store opens when many read from it at once: up to eight more connections, with a log each."""
FOR_HISTORY = 16
"""What histories take for a moment: four connections that read, with a log each, and the journals of eight saves."""
OWN = 24
"""What the daemon has open besides, once its other processes run: before, their pipes are not there to be counted."""

MAX_LIMIT = 1 << 20
"""More is not asked for: where the hard limit is a billion, something that goes through all numbers takes minutes."""
OPEN_MAX = 10_240
"""What macOS grants at most, whatever it says that its hard limit is."""

STARTED_WITH = resource.getrlimit(resource.RLIMIT_NOFILE)
"""What the user's programs get: one that uses select(2) breaks with more than 1,024 (`raise_limit`)."""

RAISE_IT = "raise the limit of open files (`ulimit -n` where orbitd is started, LimitNOFILE= of its service)"
_ALLOW_THREADS = (
    "raise the limits of processes and memory (`ulimit -u` and `ulimit -v` where orbitd is started, TasksMax= and "
    "MemoryMax= of its service)"
)
_RESOURCES = {
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.EAGAIN: "processes",
    errno.ENOMEM: "memory",
}
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> None:
    """Raise this process's soft limit to its hard one, or as far as the system lets it."""
    soft, hard = STARTED_WITH
    for wanted in (hard, OPEN_MAX):
        if wanted == resource.RLIM_INFINITY or wanted > MAX_LIMIT:
            wanted = MAX_LIMIT
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            event(log, logging.WARNING, "limit of open files not raised", wanted=wanted, error=type(error).__name__)
        else:
            return


def current_limit() -> int:
    """Return the soft limit of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_LIMIT if soft == resource.RLIM_INFINITY else soft


def count_open() -> int:
    """Return how many descriptors this process has open."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:  # none is left for the listing, or a chroot without /proc: the lowest that is free is a bound
        return lowest_free()


def lowest_free() -> int:
    """Return the number that the next descriptor gets; the limit where there is none."""
    try:
        probe = os.dup(2)
    except OSError:
        return current_limit()
    os.close(probe)
    return probe


def is_for_repair(number: int) -> bool:
    """Return whether a new descriptor is one of the last, which no ordinary client may take."""
    return number >= current_limit() - FOR_REPAIR


def affordable_connections(wanted: int) -> int:
    """Return how many clients the limit allows at most; at least one."""
    return max(1, min(wanted, current_limit() - KEPT_BACK - 2 * FOR_STORE - FOR_HISTORY))


def shortage(error: BaseException) -> tuple[str, str] | None:
    """Return what the system had none of, if that is why something failed, and what the user can do about it."""
    if isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS:
        return "file descriptor", RAISE_IT
    # Python says no more of it (_thread.start_new_thread).
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return "thread", _ALLOW_THREADS
    return None


def too_many(error: OSError, what: str) -> TooManySessions | None:
    """Return the error of a session for which the system has no room; None if `error` means something else.

    Args:
        error: Of a system call.
        what: What could not be had, as the beginning of a sentence.
    """
    kind = _RESOURCES.get(error.errno or 0)
    if kind is None:
        return None
    return exhausted(kind, f"{what}: {error.strerror or os.strerror(error.errno or 0)}")


_HINTS = {
    "descriptors": f"End a session, or {RAISE_IT} and restart the daemon.",
    "processes": "End a session, or raise the limit of processes (`ulimit -u`, TasksMax= of the service).",
    "memory": "End a session, or another program.",
    "terminals": "End a session, or raise the number of terminals (`sysctl kernel.pty.max`).",
}


def exhausted(kind: str, message: str) -> TooManySessions:
    """Return the error of a session for which there is no room.

    Args:
        kind: What there is too little of: descriptors, processes, memory or terminals.
        message: One sentence.
    """
    limit: int | None = None
    if kind == "descriptors":
        limit = current_limit()
    elif kind == "processes":
        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        limit = None if soft == resource.RLIM_INFINITY else soft
    return TooManySessions(message, hint=_HINTS[kind], data={"resource": kind, "limit": limit})


class SessionRoom:
    """Decides whether there are descriptors for another session.

    What clients and the databases have open of what is kept back for them is not taken from sessions a second time: so
    there is room for the same number of sessions whoever is connected, or reads.

    Args:
        count_sessions: Returns how many sessions have their terminals, and how many descriptors these have.
        count_database: Returns how many descriptors the connections to databases have.
        count_all: Returns how many this process has open.
        limit: Returns how many it may have.

    Attributes:
        count_clients: Returns how many clients are connected.
    """

    def __init__(
        self,
        count_sessions: Callable[[], tuple[int, int]],
        count_database: Callable[[], int] = lambda: 0,
        count_all: Callable[[], int] = count_open,
        limit: Callable[[], int] = current_limit,
    ) -> None:
        self._count_sessions = count_sessions
        self._count_database = count_database
        self._count_all = count_all
        self._limit = limit
        self._taken = 0
        self.count_clients: Callable[[], int] = lambda: 0

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Have room for a session during the block, in which it gets its descriptors. Raises: TooManySessions."""
        present, room = self.used()
        if present >= room:
            limit = self._limit()
            raise TooManySessions(
                f"There is no room for another live session: orbitd may have {limit} files open",
                hint=_HINTS["descriptors"],
                data={"resource": "descriptors", "limit": limit},
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def used(self) -> tuple[int, int]:
        """Return how many sessions have their descriptors, and how many could."""
        # A session whose journal is closed, since it is quiet, opens it again when its program prints: so each counts
        # for two, and what it has now is subtracted from all.
        present, held = self._count_sessions()
        in_reserve = min(self.count_clients(), KEPT_BACK) + min(self._count_database(), FOR_STORE + FOR_HISTORY)
        others = max(OWN, self._count_all() - held - in_reserve)
        room = max(0, self._limit() - KEPT_BACK - FOR_STORE - FOR_HISTORY - others) // A_SESSION
        return present + self._taken, room

    def warning(self) -> list[str]:
        """Return a sentence when four fifths of the sessions are there that could be."""
        present, room = self.used()
        if 5 * present < 4 * room:
            return []
        return [
            f"{present} of at most {room} live sessions have their files open, with the limit of {self._limit()} open "
            f"files: {RAISE_IT} before there is no room for more."
        ]
