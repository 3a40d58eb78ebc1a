"""Descriptors that a supervisor opened become sockets that the daemon accepts on.

Both supervisors end here. A descriptor that is no listening Unix stream socket is refused
rather than skipped: a unit that hands over the wrong thing is to be seen at once, not when
nobody can connect.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

MAX_SOCKETS = 16
"""More than this is a broken environment, not a unit file."""


class HandoverError(Exception):
    """What the supervisor handed over cannot be used; the text says what and by whom."""


def listening_sockets(descriptors: Iterable[int], giver: str) -> list[socket.socket]:
    """Return the descriptors as sockets, closed at exec and non-blocking.

    Args:
        descriptors: Open file descriptors; they belong to the sockets from here on.
        giver: The supervisor, for the error's text.

    Raises:
        HandoverError: One of them is no listening Unix stream socket.
    """
    return [_listening_socket(descriptor, giver) for descriptor in descriptors]


def _listening_socket(descriptor: int, giver: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        handed = socket.socket(fileno=descriptor)
        listens = bool(handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise HandoverError(f"{giver} handed over descriptor {descriptor}, which is no socket: {error}") from error
    if handed.family != socket.AF_UNIX or handed.type != socket.SOCK_STREAM or not listens:
        handed.detach()
        raise HandoverError(
            f"{giver} handed over descriptor {descriptor}, which is no listening Unix stream socket; "
            "check ListenStream= of orbitd.socket, or Sockets of the launchd plist"
        )
    handed.setblocking(False)
    return handed
