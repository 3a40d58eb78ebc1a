"""Who is at the other end of a Unix socket (unix(7) SO_PEERCRED; LOCAL_PEERCRED on macOS)."""

from __future__ import annotations

import socket
import struct
import sys

_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1


def peer_uid(connection: socket.socket) -> int:
    """Return the uid that the peer had when it connected.

    Raises:
        OSError: The kernel does not tell.
    """
    if sys.platform == "darwin":
        # struct xucred: version, uid, ngroups, groups[16] (sys/ucred.h)
        credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, struct.calcsize("IIh16I"))
        return int(struct.unpack_from("II", credentials)[1])
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    return int(struct.unpack("iII", credentials)[1])
