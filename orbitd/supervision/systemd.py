"""systemd's side: sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3) without libsystemd.

Each reader takes an environment mapping and only reads it; `adoption` removes the variables
once all have been read. A message to the supervisor may fail: it is logged once and the
daemon goes on, since a daemon that serves is worth more than one that reports.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from orbitd.supervision.handover import MAX_SOCKETS, HandoverError, listening_sockets

VARIABLES = (
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "SYSTEMD_EXEC_PID",
)
"""What systemd.exec(5) sets for this process alone; none of it is meant for a child."""

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
SEND_SECS = 1.0  # the manager reads at once; where it does not, the loop must not wait for it longer

logger = logging.getLogger(__name__)


def passed_sockets(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """Return the sockets that systemd passed to this process, in the unit's order.

    Args:
        environ: LISTEN_PID and LISTEN_FDS are read.
        pid: This process; variables meant for another are not ours.

    Raises:
        HandoverError: The variables or a descriptor make no sense.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return []
    text = environ.get("LISTEN_FDS", "")
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_SOCKETS:
        raise HandoverError(f"LISTEN_FDS is {text!r}; expected a number from 0 to {MAX_SOCKETS}")
    return listening_sockets(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(text)), "systemd")


def supervises(environ: Mapping[str, str], pid: int) -> bool:
    """Tell whether systemd itself executed this process, and not a shell somewhere below a unit.

    INVOCATION_ID alone would say yes in every terminal of a desktop that runs under systemd.
    """
    mine = str(pid)
    if "SYSTEMD_EXEC_PID" in environ:  # since systemd 248
        return environ["SYSTEMD_EXEC_PID"] == mine
    return mine in (environ.get("LISTEN_PID"), environ.get("WATCHDOG_PID"))


def watchdog_interval(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Return the seconds between two `Notifier.watchdog` calls, or None where no watchdog is on.

    That is half of WatchdogSec, as sd_watchdog_enabled(3) advises.
    """
    text = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID")
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    if meant_for is not None and meant_for != str(os.getpid() if pid is None else pid):
        return None
    return int(text) / 1_000_000 / 2


class Notifier:
    """Tells the service manager how the daemon is doing; silent where there is none.

    Args:
        address: NOTIFY_SOCKET's value: a path, or `@name` for an abstract socket. None or
            empty: every call does nothing.

    Every method returns whether the message went out. They do not raise.
    """

    def __init__(self, address: str | None) -> None:
        self._address = _socket_address(address or "")
        self._socket: socket.socket | None = None
        self._complained = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """Return a notifier for NOTIFY_SOCKET."""
        return cls(environ.get("NOTIFY_SOCKET"))

    @property
    def enabled(self) -> bool:
        """Tell whether somebody is listening."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """Say that the daemon serves; call it once the socket accepts and the store is open."""
        return self._send("READY=1", *_status(status), f"MAINPID={os.getpid()}")

    def stopping(self, status: str = "") -> bool:
        """Say that the daemon has begun to end."""
        return self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows."""
        return self._send(*_status(text))

    def watchdog(self) -> bool:
        """Say that the daemon is well; only after what it is to vouch for has answered."""
        return self._send("WATCHDOG=1")

    def extend_timeout(self, secs: float) -> bool:
        """Ask for more time to start or stop, counted from now (a long migration, a big checkpoint)."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(secs * 1_000_000)}")

    def close(self) -> None:
        """Close the socket; later calls open it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *assignments: str) -> bool:
        if self._address is None or not assignments:
            return False
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.settimeout(SEND_SECS)
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            self._complain(error)
            return False
        return True

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            logger.warning("cannot reach the service manager at NOTIFY_SOCKET: %s", error)


def _socket_address(text: str) -> str | None:
    """Return what sendto takes; a form that is not known (`vsock:`) is logged and left alone."""
    if not text:
        return None
    if text.startswith("@"):
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    logger.warning("NOTIFY_SOCKET has a form that is not supported: %s", text)
    return None


def _status(text: str) -> tuple[str, ...]:
    """Return STATUS= on one line: a line break would begin another assignment."""
    return (f"STATUS={' '.join(text.split())}",) if text else ()
