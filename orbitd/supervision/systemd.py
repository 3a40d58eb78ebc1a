"""systemd: sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3) without libsystemd.

Each function only reads the environment that it is given; `socket_activation` removes the
variables once all have been read. A notification that cannot be sent is logged once and
the daemon goes on: sessions do not depend on it.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Mapping

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
SEND_TIMEOUT_SECS = 1
"""The manager reads at once; where its queue is full, sendto(2) blocks for this long at most."""

logger = logging.getLogger(__name__)


def passed_descriptors(environ: Mapping[str, str], pid: int, limit: int) -> list[int]:
    """Return the descriptors that systemd passed to this process, in the unit's order.

    Args:
        environ: LISTEN_PID and LISTEN_FDS are read.
        pid: This process.
        limit: More descriptors than this are refused.

    Raises:
        ValueError: LISTEN_FDS makes no sense.
    """
    # Environments are inherited: without LISTEN_PID a child of an activated process would take
    # descriptors 3 and up for sockets, whatever they are (sd_listen_fds(3)).
    if environ.get("LISTEN_PID") != str(pid):
        return []
    text = environ.get("LISTEN_FDS", "")
    # int() takes signs, blanks, underscores and the digits of every script; systemd writes none of them.
    if not (text.isascii() and text.isdigit()) or int(text) > limit:
        raise ValueError(f"LISTEN_FDS is {text!r}; expected a number from 0 to {limit}")
    return list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(text)))


def supervises(environ: Mapping[str, str], pid: int) -> bool:
    """Return whether systemd itself executed this process, and not a shell somewhere below a unit.

    INVOCATION_ID alone would say yes in every terminal of a desktop that runs under systemd.
    """
    mine = str(pid)
    # Older versions name a pid only where there is a socket or a watchdog; our units have both.
    if "SYSTEMD_EXEC_PID" in environ:  # since systemd 248
        return environ["SYSTEMD_EXEC_PID"] == mine
    return mine in (environ.get("LISTEN_PID"), environ.get("WATCHDOG_PID"))


def watchdog_interval(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Return the seconds between two `Notifier.watchdog` calls, or None where no watchdog is on.

    The interval is half of WatchdogSec, as sd_watchdog_enabled(3) advises. WATCHDOG_PID names the process
    that is meant; where it is missing, any is.
    """
    text = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID")
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    if meant_for is not None and meant_for != str(os.getpid() if pid is None else pid):
        return None
    return int(text) / 1_000_000 / 2


class Notifier:
    """Send the daemon's state to the service manager (sd_notify(3)); do nothing where there is none.

    Args:
        address: NOTIFY_SOCKET's value: a path, or `@name` for an abstract socket. None or
            empty: every call does nothing.

    Every method returns whether the message was sent. None raises.
    """

    def __init__(self, address: str | None) -> None:
        self._address = _socket_address(address or "")
        self._socket: socket.socket | None = None
        self._error_logged = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """Return a notifier for NOTIFY_SOCKET."""
        return cls(environ.get("NOTIFY_SOCKET"))

    @property
    def enabled(self) -> bool:
        """Whether there is an address to send to."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """Report that the daemon serves; call it once the socket accepts and the store is open."""
        # One datagram: the manager applies all assignments of a message together.
        return self._send("READY=1", *_status(status), f"MAINPID={os.getpid()}")

    def stopping(self, status: str = "") -> bool:
        """Report that the daemon has begun to stop."""
        return self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows."""
        return self._send(*_status(text))

    def watchdog(self, *, waits: bool = True) -> bool:
        """Reset the watchdog; call it only after the loop and the store have answered.

        Args:
            waits: Whether this may block where the manager's queue is full. If not, that is not logged either.
        """
        return self._send("WATCHDOG=1", waits=waits)

    def extend_timeout(self, secs: float) -> bool:
        """Ask for more time to start or stop, counted from now (a long migration, a big checkpoint)."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(secs * 1_000_000)}")

    def close(self) -> None:
        """Close the socket; later calls open it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *assignments: str, waits: bool = True) -> bool:
        if self._address is None or not assignments:
            return False
        try:
            # A datagram socket is not connected and sendto(2) names the address each time, so a manager that
            # was restarted is reached without any work here.
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                # By the kernel: a socket that is not connected always polls as writable, whatever the peer's queue
                # holds, so that Python's own timeout would spin.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_TIMEOUT_SECS, 0))
            flags = 0 if waits else socket.MSG_DONTWAIT
            self._socket.sendto("\n".join(assignments).encode(), flags, self._address)
        except OSError as error:
            if isinstance(error, BlockingIOError) and not waits:
                return False
            if not self._error_logged:
                self._error_logged = True
                logger.warning("cannot reach the service manager at NOTIFY_SOCKET: %s", error)
            return False
        return True


def _socket_address(text: str) -> str | None:
    """Return what sendto takes, or None; a form that is not supported (`vsock:`) is logged."""
    if not text:
        return None
    if text.startswith("@"):  # a socket in the abstract namespace (unix(7)): the name begins with a NUL
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    logger.warning("NOTIFY_SOCKET has a form that is not supported: %s", text)
    return None


def _status(text: str) -> tuple[str, ...]:
    """Return STATUS= with the text on one line: a line break would begin another assignment."""
    return (f"STATUS={' '.join(text.split())}",) if text else ()
