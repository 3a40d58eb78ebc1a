"""Unix sockets: the longest path, and the uid and the pid of the peer."""

from __future__ import annotations

import errno
import os
import struct
import sys

# Constants and a type alone: nothing in the folder `protocol` opens a socket.
from _socket import SOL_SOCKET

if sys.platform != "darwin":
    from _socket import SO_PEERCRED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

MAX_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""sizeof(sun_path) - 1: unix(7). A longer path is refused by bind(2) and connect(2)."""

_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_XUCRED = struct.Struct("@IIh16I")
"""struct xucred: version, uid, ngroups, groups[16] (sys/ucred.h of macOS)."""
_XUCRED_VERSION = 0


class SocketPathTooLong(ValueError):
    """A path does not fit into sun_path; the message has it and both lengths."""


def check_socket_path(path: str) -> None:
    """Refuse a path that is too long for a socket.

    Raises:
        SocketPathTooLong: It has more than `MAX_PATH_BYTES` bytes.
    """
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise SocketPathTooLong(f"socket path is too long ({length} bytes, at most {MAX_PATH_BYTES}): {path}")


def fitting_socket_path(natural: str, runtime_folder: str = "") -> str:
    """Return a path at which a socket can be bound: the natural one, or a short one where that is too long.

    A short one is named by a digest of the natural path, so that each process that starts from the same natural path
    and the same folder gets the same answer. Nothing is looked at or created.

    Args:
        natural: Where the socket belongs; absolute.
        runtime_folder: $XDG_RUNTIME_DIR, or empty where there is none.

    Returns:
        A path in `natural`'s folder, in `orbit` of the runtime folder, or in `/tmp/orbit-UID`; the last two must be
        made with `files.private_folder` before the bind(2).
    """
    if len(os.fsencode(natural)) <= MAX_PATH_BYTES:
        return natural
    import hashlib  # most paths fit

    name = hashlib.sha256(os.fsencode(natural)).hexdigest()[:16] + ".sock"
    in_runtime_folder = os.path.join(runtime_folder, "orbit", name)
    if runtime_folder.startswith("/") and len(os.fsencode(in_runtime_folder)) <= MAX_PATH_BYTES:
        return in_runtime_folder
    return os.path.join(f"/tmp/orbit-{os.getuid()}", name)  # noqa: S108 - a private folder is made of it, or refused


def peer_uid(connection: socket) -> int:
    """Return the uid of the process at the other end.

    Seen from a server, that is the uid at the time of connect(2); from a client, at the time of listen(2).

    Raises:
        OSError: The kernel does not know it.
    """
    # The kernel records the credentials when the connection is made: a process cannot change them afterwards, and a
    # descriptor that was passed on keeps them.
    if sys.platform == "darwin":
        # A peer that has gone already leaves ENOTCONN or EINVAL here, or nothing.
        credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
        if len(credentials) < _XUCRED.size:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        version, uid, *_groups = _XUCRED.unpack(credentials)
        if version != _XUCRED_VERSION:
            raise OSError(errno.EPROTO, f"the kernel's struct xucred has version {version}")
        return int(uid)
    return _peer_credentials(connection)[1]


def peer_pid(connection: socket) -> int:
    """Return the pid of the process that made the connection; 0 where it is in another namespace of pids.

    That process may have ended since, and its pid be another's.

    Raises:
        OSError: The kernel does not know it.
    """
    if sys.platform == "darwin":
        return int.from_bytes(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4), sys.byteorder)
    return _peer_credentials(connection)[0]


def _peer_credentials(connection: socket) -> tuple[int, int]:
    # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
    credentials = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, struct.calcsize("iII"))
    pid, uid, _ = struct.unpack("iII", credentials)
    return int(pid), int(uid)
