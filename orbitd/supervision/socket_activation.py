"""Which supervisor started this process, and the sockets and settings that it passed.

All of it is read once, before the first thread and the first child: reading changes
os.environ, and has to see the umask and the parent that the process was started with.

A descriptor that is no listening Unix stream socket is refused rather than skipped: a unit
that passes the wrong thing is to be seen at the start, not when no client can connect. A
socket that was passed belongs to the supervisor: it is closed at the end like any other,
and its path is never unlinked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Literal, Self

from orbit_os.processes import own_umask, soft_limits
from orbit_protocol.environment import OF_A_SERVICE
from orbitd.supervision import launchd, systemd
from orbitd.supervision.systemd import Notifier, watchdog_interval

SupervisorName = Literal["systemd", "launchd", "none"]

MAX_SOCKETS = 16
"""More than this is a broken environment, not a unit file."""

DEFAULT_UMASK = 0o022


class SocketActivationError(Exception):
    """What the supervisor passed cannot be used; the text says what, and which supervisor."""


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What was found at the start; `sockets` is empty where the daemon binds its own."""

    name: SupervisorName
    sockets: tuple[socket.socket, ...]
    notifier: Notifier
    watchdog_secs: float | None
    program_umask: int
    program_limits: Mapping[str, int]

    @classmethod
    def from_environment(
        cls,
        environ: MutableMapping[str, str] = os.environ,
        *,
        library: launchd.ActivationLibrary | None = None,
    ) -> Self:
        """Read everything that the supervisor left for this process, and remove its variables.

        Args:
            environ: Read, then changed: no shell that the daemon starts may believe that the
                variables were meant for it.
            library: launchd's C functions, where they are not the process's own.

        Raises:
            SocketActivationError: A socket was passed that cannot be used.
        """
        name = supervisor_name(environ)
        notifier = Notifier.from_environment(environ)
        watchdog_secs = watchdog_interval(environ)
        umask = program_umask(name)
        sockets = inherited_sockets(environ, library=library)  # last, since it removes the variables
        return cls(
            name=name,
            sockets=tuple(sockets),
            notifier=notifier,
            watchdog_secs=watchdog_secs,
            program_umask=umask,
            program_limits=soft_limits(),
        )


def supervisor_name(environ: MutableMapping[str, str] = os.environ) -> SupervisorName:
    """Return who started this process; "none" once the variables have been removed."""
    if systemd.supervises(environ, os.getpid()):
        return "systemd"
    return "launchd" if launchd.supervises(environ) else "none"


def inherited_sockets(
    environ: MutableMapping[str, str] = os.environ,
    *,
    library: launchd.ActivationLibrary | None = None,
) -> list[socket.socket]:
    """Return the listening sockets that were passed, and remove every variable of a supervisor.

    Raises:
        SocketActivationError: One of them cannot be used.
    """
    try:
        if launchd.supervises(environ):
            return listening_sockets(launchd.activated_descriptors(library, MAX_SOCKETS), "launchd")
        return listening_sockets(systemd.passed_descriptors(environ, os.getpid(), MAX_SOCKETS), "systemd")
    except ValueError as error:
        raise SocketActivationError(str(error)) from error
    finally:
        for variable in OF_A_SERVICE:
            environ.pop(variable.decode(), None)


def listening_sockets(descriptors: list[int], supervisor: str) -> list[socket.socket]:
    """Return the descriptors as sockets, close-on-exec and non-blocking.

    Args:
        descriptors: Open file descriptors; the sockets own them from here on.
        supervisor: Its name, for the error's text.

    Raises:
        SocketActivationError: One of them is no listening Unix stream socket.
    """
    return [_listening_socket(descriptor, supervisor) for descriptor in descriptors]


def _listening_socket(descriptor: int, supervisor: str) -> socket.socket:
    try:
        # They arrive inheritable, or they would not have survived our execve. Python makes only what it
        # opens itself close-on-exec, and a program of a session must not hold the listening socket.
        os.set_inheritable(descriptor, False)
        passed = socket.socket(fileno=descriptor)
        listens = bool(passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise SocketActivationError(
            f"{supervisor} handed over descriptor {descriptor}, which is no socket: {error}"
        ) from error
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not listens:
        passed.detach()  # it is not ours to close: its number may be somebody's open file
        raise SocketActivationError(
            f"{supervisor} handed over descriptor {descriptor}, which is no listening Unix stream socket; "
            "check ListenStream= of orbitd.socket, or Sockets of the launchd plist"
        )
    passed.setblocking(False)
    return passed


def program_umask(name: SupervisorName) -> int:
    """Return the umask for the user's programs, which must not be the unit's own UMask=0077.

    Under systemd that is the umask of the user manager, the parent of this process: PAM and the
    administrator set it there. launchd has no such thing. Elsewhere it is the one that this
    process was started with.
    """
    if name == "systemd":
        return _umask_of(os.getppid())
    if name == "launchd":
        return DEFAULT_UMASK
    return own_umask()


def _umask_of(pid: int) -> int:
    """Read a process's umask (proc(5), since Linux 4.7); return the default where it cannot be read."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), DEFAULT_UMASK)
    except OSError:
        return DEFAULT_UMASK
