"""One orbitd's connection as the keeper sees it: frames in, frames and descriptors out, never a wait.

Runs inside the keeper. What a peer has not read is bounded; the owner drops a connection
on any OSError or ValueError from here.
"""

from __future__ import annotations

import os
import socket
import sys

from orbitd.keeper.messages import Framer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from orbitd.keeper.messages import Message

MAX_UNSENT = 1024 * 1024
"""Bytes that may wait for a peer; a waiting descriptor counts as `DESCRIPTOR_WEIGHT` of them."""

DESCRIPTOR_WEIGHT = 4096

_READ = 65536


class Connection:
    """A non-blocking stream socket and what is still to be sent on it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._framer = Framer()
        self._unsent: list[tuple[bytes, int]] = []
        self.descriptor = sock.fileno()

    def receive(self) -> Iterator[Message]:
        """Read once and yield the messages that are complete; descriptors that a peer sends are discarded.

        Raises:
            OSError: The peer is gone.
            Malformed: It does not speak this protocol.
        """
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return iter(())
        if not data:
            raise ConnectionResetError
        return self._framer.receive(data)

    def queue(self, data: bytes, descriptor: int = -1) -> None:
        """Add a frame, and a descriptor that travels with its first byte.

        The descriptor is duplicated, so that the owner may close its own before this one is sent.
        """
        self._unsent.append((data, os.dup(descriptor) if descriptor >= 0 else -1))

    def flush(self) -> bool:
        """Send what the socket takes now.

        Returns:
            Whether something is left.

        Raises:
            OSError: The peer is gone, or does not read.
        """
        while self._unsent:
            data, descriptor = self._unsent[0]
            try:
                sent = self._sock.sendmsg([data], _rights(descriptor))
            except BlockingIOError:
                break
            if descriptor >= 0:
                os.close(descriptor)
            self._unsent[:1] = [(data[sent:], -1)] if sent < len(data) else []
        if sum(len(data) + DESCRIPTOR_WEIGHT * (descriptor >= 0) for data, descriptor in self._unsent) > MAX_UNSENT:
            raise BufferError
        return bool(self._unsent)

    def close(self) -> None:
        """Close the socket and the descriptors that were not sent."""
        for _, descriptor in self._unsent:
            if descriptor >= 0:
                os.close(descriptor)
        self._unsent.clear()
        self._sock.close()


def _rights(descriptor: int) -> list[tuple[int, int, bytes]]:
    if descriptor < 0:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder))]
