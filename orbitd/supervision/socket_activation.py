"""Finding out who supervises, and taking what they hand over, once.

Call `adopt` before the first thread and the first child: it changes os.environ, and it has
to see the umask that the process was started with.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Literal

from orbitd.supervision import launchd, systemd
from orbitd.supervision.systemd import Notifier, watchdog_interval

SupervisorName = Literal["systemd", "launchd", "none"]

USUAL_UMASK = 0o022


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What was found at the start; `sockets` is empty where the daemon binds its own."""

    name: SupervisorName
    sockets: tuple[socket.socket, ...]
    notifier: Notifier
    watchdog_secs: float | None
    program_umask: int


def adopt(
    environ: MutableMapping[str, str] = os.environ,
    *,
    library: launchd.ActivationLibrary | None = None,
) -> Supervision:
    """Take everything the supervisor left for this process, and its variables out of the environment.

    Args:
        environ: Read, then changed.
        library: launchd's C functions, where they are not the process's own.

    Raises:
        HandoverError: A socket was handed over that cannot be used.
    """
    name = supervisor_name(environ)
    notifier = Notifier.from_environment(environ)
    watchdog_secs = watchdog_interval(environ)
    umask = program_umask(name)
    sockets = inherited_sockets(environ, library=library)
    return Supervision(
        name=name,
        sockets=tuple(sockets),
        notifier=notifier,
        watchdog_secs=watchdog_secs,
        program_umask=umask,
    )


def supervisor_name(environ: MutableMapping[str, str] = os.environ) -> SupervisorName:
    """Tell who started this process: meaningful until the environment has been adopted."""
    if systemd.supervises(environ, os.getpid()):
        return "systemd"
    return "launchd" if launchd.supervises(environ) else "none"


def inherited_sockets(
    environ: MutableMapping[str, str] = os.environ,
    *,
    library: launchd.ActivationLibrary | None = None,
) -> list[socket.socket]:
    """Return the listening sockets handed over, and remove every variable of a supervisor.

    Raises:
        HandoverError: One of them cannot be used.
    """
    try:
        if launchd.supervises(environ):
            return launchd.activated_sockets(library)
        return systemd.passed_sockets(environ, os.getpid())
    finally:
        for variable in (*systemd.VARIABLES, *launchd.VARIABLES):
            environ.pop(variable, None)


def program_umask(name: SupervisorName) -> int:
    """Return the umask for the user's programs, which the unit's own UMask=0077 must not reach.

    Under systemd that is the user manager's, which is the parent of this process: PAM and the
    administrator set it there. launchd keeps no such thing. Elsewhere it is the one we were
    started with.
    """
    if name == "systemd":
        return _umask_of(os.getppid())
    if name == "launchd":
        return USUAL_UMASK
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _umask_of(pid: int) -> int:
    """Read a process's umask (proc(5), since Linux 4.7); the usual one where it cannot be read."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), USUAL_UMASK)
    except OSError:
        return USUAL_UMASK
