"""How the client reaches a daemon: a connected stream of bytes, and why there is none.

The client sees a `Stream` only, so that other ways to a daemon can stand beside the Unix
socket. Every wait has a limit in seconds. Each way of not reaching the daemon has a message
and a next step of its own.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from typing import Protocol

from orbitctl.errors import CommandError, ExitCode

MAX_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # sizeof(sun_path) - 1: unix(7)
READ_BYTES = 1 << 18


class Stream(Protocol):
    """A connected, ordered stream of bytes."""

    def send(self, data: memoryview, timeout: float) -> int:
        """Send some of `data` and return how much. Raises: TimeoutError, OSError."""

    def receive(self, timeout: float) -> bytes:
        """Return the bytes that came, none at the end. Raises: TimeoutError, OSError."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def close(self) -> None:
        """Close it."""


class Unreachable(CommandError):
    """No daemon could be reached.

    Args:
        message: Why.
        hint: The next step.
        nobody: Nobody serves there, so that a daemon may be started.
    """

    def __init__(self, message: str, *, hint: str, no_daemon: bool = False) -> None:
        super().__init__(message, ExitCode.UNREACHABLE, hint=hint)
        self.no_daemon = no_daemon


class SocketStream:
    """A stream over a connected socket; it closes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, data: memoryview, timeout: float) -> int:
        """Send some of `data` and return how much. Raises: TimeoutError, OSError."""
        self._socket.settimeout(timeout)
        return self._socket.send(data)

    def receive(self, timeout: float) -> bytes:
        """Return the bytes that came, none at the end. Raises: TimeoutError, OSError."""
        self._socket.settimeout(timeout)
        return self._socket.recv(READ_BYTES)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class UnixStream(SocketStream):
    """A Unix socket whose other end belongs to our own user."""

    def __init__(self, path: str, timeout: float) -> None:
        """Connect. Raises: Unreachable, or CommandError where it takes longer than `timeout` seconds."""
        _check_path(path)
        super().__init__(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            _connect(self._socket, path, timeout)
            _check_owner(self._socket, path)
        except BaseException:
            self.close()
            raise


def _check_path(path: str) -> None:
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise Unreachable(
            f"socket path is too long ({length} bytes, at most {MAX_PATH_BYTES}): {path}",
            hint="Choose a shorter one with --socket, ORBITD_SOCKET or socket_path in the configuration.",
        )
    if "\0" in path:  # the kernel would use what stands before it
        raise Unreachable(f"not a path: {path!r}", hint="Correct socket_path in the configuration.")


def _connect(connection: socket.socket, path: str, timeout: float) -> None:
    # A socket that does not block fails at once where the backlog is full (unix(7)); so it
    # blocks, with the kernel's own limit.
    microseconds = max(1, int(timeout * 1_000_000))  # 0 would be no limit
    timeval = struct.pack("ll", *divmod(microseconds, 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    try:
        connection.connect(path)
    except BlockingIOError as error:
        raise CommandError(
            f"the daemon did not take the connection within {timeout:g} s: {path}", ExitCode.TIMEOUT
        ) from error
    except OSError as error:
        raise _unreachable(error, path) from error


def _unreachable(error: OSError, path: str) -> Unreachable:
    if error.errno in (errno.ECONNREFUSED, errno.ENOTSOCK, errno.EPROTOTYPE) and not _is_socket(path):
        return Unreachable(
            f"{path} is not a socket", hint="Move it away, or name the daemon's socket with --socket or ORBITD_SOCKET."
        )
    meaning = _REASONS.get(error.errno or 0)
    if meaning is None:
        return Unreachable(f"cannot connect to {path}: {error.strerror}", hint="`orbitctl doctor` looks closer.")
    message, hint, nobody = meaning
    return Unreachable(message.format(path=path), hint=hint, no_daemon=nobody)


_REASONS: dict[int, tuple[str, str, bool]] = {
    errno.ENOENT: ("no daemon is running: there is no socket at {path}", "`orbitctl daemon start` starts it.", True),
    errno.ECONNREFUSED: (
        "no daemon is running: nobody listens on {path} (left over from one that was killed)",
        "`orbitctl daemon start` starts one in its place.",
        True,
    ),
    errno.EACCES: (
        "no permission to use the socket {path}",
        "It must belong to you: `orbitctl doctor` shows whose it and its folders are.",
        False,
    ),
    errno.ENOTDIR: ("no socket at {path}: a part of the path is not a folder", "Correct the socket's path.", False),
    errno.EPROTOTYPE: ("{path} is a socket of another type than orbitd's", "Correct the socket's path.", False),
}


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True  # it is gone by now


def _check_owner(connection: socket.socket, path: str) -> None:
    uid = peer_uid(connection)
    if uid != os.getuid():
        raise Unreachable(
            f"{path} is served by uid {uid}, not by you (uid {os.getuid()}); nothing was sent",
            hint="Name your own daemon's socket with --socket or ORBITD_SOCKET.",
        )


def peer_uid(connection: socket.socket) -> int:
    """Return the uid of the process at the other end, as it was when it began to listen."""
    if sys.platform == "darwin":  # LOCAL_PEERCRED, struct xucred: version, uid, groups (sys/ucred.h)
        return int(struct.unpack_from("II", connection.getsockopt(0, 1, struct.calcsize("IIh16I")))[1])
    return int(struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
