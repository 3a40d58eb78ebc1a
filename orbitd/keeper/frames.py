"""Frames on a Unix stream socket, and the descriptors that travel with them: with the keeper, with screens processes.

A frame is its payload's length (4 bytes, big-endian) and the payload. A descriptor (SCM_RIGHTS) travels with the
first byte of its frame.

This runs inside the keeper and in screens processes too, where memory counts: no imports but `os` and `socket`.
"""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = 4
_READ = 64 << 10
_ANCILLARY = socket.CMSG_SPACE(64 * 4)
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # macOS has none


class Malformed(ValueError):
    """The bytes are not the protocol; the connection cannot go on."""


def frame(payload: bytes, max_bytes: int) -> bytes:
    """Return one frame. Raises: ValueError, if the payload is longer than the reader takes."""
    if len(payload) > max_bytes:
        raise ValueError(f"message of {len(payload)} bytes; at most {max_bytes}")
    return len(payload).to_bytes(_HEADER, "big") + payload


class Framer:
    """Split received bytes into payloads; at most one unfinished frame is buffered.

    Args:
        max_bytes: The longest payload.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Add received bytes and yield the payloads that are complete now.

        Raises:
            Malformed: A payload would be too long.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER:
            end = _HEADER + int.from_bytes(self._buffer[:_HEADER], "big")
            # Checked before the payload is here, so that a wrong length cannot make the buffer grow.
            if end > _HEADER + self._max_bytes:
                raise Malformed(f"frame of {end} bytes")
            if len(self._buffer) < end:
                return
            payload = bytes(memoryview(self._buffer)[_HEADER:end])
            # Removed before the yield: the caller may stop iterating, and the rest stays for the next call.
            del self._buffer[:end]
            yield payload


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Read once: bytes, b"" at the end, and the descriptors that came with them, set close-on-exec.

    A read never goes past one set of descriptors (unix(7)), so they come in the order of the frames that carry them.

    Raises:
        OSError: The peer is gone, or nothing is there yet.
        Malformed: There was no room for all descriptors, here or in this process's table of open files. Which frame
            lost its own cannot be known any more; those that came are closed.
    """
    data, ancillary, flags, _ = sock.recvmsg(_READ, _ANCILLARY, _CLOSE_ON_EXEC)
    found: list[int] = []
    for level, kind, array in ancillary:
        # The kernel may have cut the array off in the middle of an int, where there was no room (cmsg(3)).
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found += memoryview(array)[: len(array) - len(array) % 4].cast("i").tolist()
    if flags & socket.MSG_CTRUNC:
        for descriptor in found:
            os.close(descriptor)
        raise Malformed("descriptors were lost")
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return data, found
