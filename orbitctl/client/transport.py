"""The stream of bytes to a daemon, and why there is none.

`Stream` is all that the client sees: `UnixStream` here and `SshStream` in `ssh` are the two that
there are. Every wait has a timeout in seconds. Each way of not reaching the daemon has a message
and a next step of its own.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from _socket import AF_UNIX, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET, socket

from orbit_os.sockets import SocketPathTooLong, check_socket_path, peer_pid, peer_uid
from orbit_protocol.visible import seconds
from orbitctl.errors import CommandError, ExitCode

READ_BYTES = 1 << 18
SILENCE_SECS = 1.0
"""How long an answer is waited for without a word."""

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it: `socket` and `typing` are not imported, since that takes longer than connecting
    from typing import Protocol

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
        no_daemon: Whether that is because none runs, so that starting one would help.
        may_start: Whether starting one may help though another may run: on another machine, which only the lock knows.
        is_passing: Whether one runs that starts, ends, or will listen again.
        exit_code: Of the command that fails so.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        no_daemon: bool = False,
        may_start: bool = False,
        is_passing: bool = False,
        exit_code: ExitCode = ExitCode.UNREACHABLE,
    ) -> None:
        super().__init__(message, exit_code, hint=hint)
        self.no_daemon = no_daemon
        self.may_start = no_daemon or may_start
        self.is_passing = is_passing


class SocketStream:
    """A stream over a connected socket, which the stream closes.

    A timeout of 0 is a socket that does not block: BlockingIOError where nothing can be sent or received now.
    """

    def __init__(self, connection: socket) -> None:
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
        self.path = path
        super().__init__(socket(AF_UNIX, SOCK_STREAM))
        try:
            _connect(self._socket, path, timeout)
            _check_owner(self._socket, path)
        except BaseException:
            self.close()
            raise

    def peer_pid(self) -> int:
        """Return the pid of the process that listens; 0 where it is in another namespace of pids, or not known."""
        try:
            return peer_pid(self._socket)
        except OSError:  # macOS no longer knows a peer that has ended
            return 0


def _check_path(path: str) -> None:
    try:
        check_socket_path(path)
    except SocketPathTooLong as error:
        hint = "Choose a shorter one with --socket, ORBITD_SOCKET or socket_path in the configuration."
        raise Unreachable(str(error), hint=hint) from error
    if "\0" in path:  # the kernel would take what stands before it for the path
        raise Unreachable(f"not a path: {path!r}", hint="Correct socket_path in the configuration.")


def _connect(connection: socket, path: str, timeout: float) -> None:
    # A daemon that is busy accepts late. While its backlog is full, connect(2) waits for room on a blocking socket;
    # a non-blocking one, which Python's settimeout makes of it, gets EAGAIN at once and nothing to wait for with
    # poll. So the socket stays blocking, and the kernel limits the wait: SO_SNDTIMEO holds for connect too
    # (socket(7)), which then fails with EAGAIN. A timeval of 0 would mean no limit.
    microseconds = max(1, int(timeout * 1_000_000))
    timeval = struct.pack("ll", *divmod(microseconds, 1_000_000))
    connection.setsockopt(SOL_SOCKET, SO_SNDTIMEO, timeval)
    try:
        connection.connect(path)
    except BlockingIOError as error:
        raise CommandError(
            f"the daemon did not take the connection within {seconds(timeout)}: {path}",
            ExitCode.TIMEOUT,
            hint="It hangs, or too many clients wait for it: try again, or `orbitctl daemon restart --force`.",
        ) from error
    except OSError as error:
        raise _unreachable(error, path) from error


def _unreachable(error: OSError, path: str) -> Unreachable:
    # Linux answers ECONNREFUSED for a plain file as for a socket without a listener; other systems, ENOTSOCK.
    if error.errno in (errno.ECONNREFUSED, errno.ENOTSOCK, errno.EPROTOTYPE) and not _is_socket(path):
        return Unreachable(
            f"{path} is not a socket", hint="Move it away, or name the daemon's socket with --socket or ORBITD_SOCKET."
        )
    meaning = _REASONS.get(error.errno or 0)
    if meaning is None:
        hint = "Correct the socket's path: --socket, ORBITD_SOCKET, or socket_path in the configuration."
        return Unreachable(f"cannot connect to {path}: {error.strerror}", hint=hint)
    message, hint, no_daemon = meaning
    return Unreachable(message.format(path=path), hint=hint, no_daemon=no_daemon)


_REASONS: dict[int, tuple[str, str, bool]] = {
    errno.ENOENT: ("no daemon is running: there is no socket at {path}", "`orbitctl daemon start` starts it.", True),
    errno.ECONNREFUSED: (
        "no daemon is running: nothing listens on {path} (left over from one that was killed)",
        "`orbitctl daemon start` starts one in its place.",
        True,
    ),
    errno.EACCES: (
        "no permission to use the socket {path}",
        "It and its folders must be yours: `ls -ld` shows whose they are; XDG_RUNTIME_DIR may be another user's.",
        False,
    ),
    errno.ENOTDIR: ("no socket at {path}: a part of the path is not a folder", "Correct the socket's path.", False),
    errno.EPROTOTYPE: ("{path} is a socket of another type than orbitd's", "Correct the socket's path.", False),
}


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True  # removed since the connect: then it was one


def _check_owner(connection: socket, path: str) -> None:
    # Any process that can create the socket's path could serve it: nothing is sent before the kernel has named the
    # process at the other end, by the uid that it had when it called listen(2).
    try:
        uid = peer_uid(connection)
    except OSError as error:  # macOS no longer knows a peer that has closed its end already
        raise Unreachable(
            f"{path} closed the connection at once ({error.strerror})", hint="Run `orbitctl doctor`."
        ) from error
    if uid != os.getuid():
        raise Unreachable(
            f"{path} is served by uid {uid}, not by you (uid {os.getuid()}); nothing was sent",
            hint="Name your own daemon's socket with --socket or ORBITD_SOCKET.",
        )
