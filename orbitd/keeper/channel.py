"""Frames and descriptors over a Unix socket, on an event loop.

asyncio's transports drop descriptors (SCM_RIGHTS), so this reads the socket itself. All of
it runs on the loop's thread; nothing here waits.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from orbit_protocol.errors import Busy
from orbitd.keeper.messages import MAX_FRAME, Framer, Malformed, Message

MAX_UNSENT = 4 * MAX_FRAME
"""Bytes that may wait for the keeper; it reads at once unless it is stopped."""

_READ = 65536
_ANCILLARY = socket.CMSG_SPACE(64 * 4)
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Channel:
    """One connected stream socket.

    Args:
        sock: Connected; the channel owns it from here on.
        on_message: Called with each message and its descriptor; the descriptor becomes the callee's.
        on_lost: Called once with the reason when the peer is gone; not after `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message, int | None], None],
        on_lost: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._framer = Framer()
        self._descriptors: deque[int] = deque()
        self._unsent = bytearray()
        self._open = True
        self._loop.add_reader(sock, self._read)

    def send(self, frame: bytes) -> None:
        """Send a frame, now or as soon as the socket takes it.

        Raises:
            Busy: The keeper has not read for long.
        """
        if len(self._unsent) + len(frame) > MAX_UNSENT:
            raise Busy("the keeper does not read its requests")
        waiting = bool(self._unsent)
        self._unsent += frame
        if self._open and not waiting:
            self._write()

    def close(self) -> None:
        """Close the socket and every descriptor that nobody was given."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _lose(self, reason: str) -> None:
        if self._open:
            self.close()
            self._on_lost(reason)

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._write)
        except OSError:
            # The reader finds the end too, after the messages that arrived before it.
            self._unsent.clear()
            self._loop.remove_writer(self._sock)
        else:
            self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        """Read once, and pass on the messages that are complete."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(_READ, _ANCILLARY, _CLOSE_ON_EXEC)
        except BlockingIOError:
            return
        except OSError as exc:
            self._lose(str(exc))
            return
        self._descriptors += _received(ancillary)
        if not data or flags & socket.MSG_CTRUNC:
            self._lose("descriptors were lost" if data else "it closed the connection")
            return
        try:
            for message in self._framer.receive(data):
                self._pass_on(message)
        except (KeyError, ValueError) as exc:
            self._lose(f"it sent {exc!r}")

    def _pass_on(self, message: Message) -> None:
        if not self._open:
            return  # closed while the messages before this one were passed on
        carries = message.value("fds", b"0") != b"0"
        if carries and not self._descriptors:
            raise Malformed("a message without its descriptor")
        self._on_message(message, self._descriptors.popleft() if carries else None)


def _received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors in a packet; not inherited by programs that this process starts."""
    found = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            view = memoryview(data)[: len(data) - len(data) % 4].cast("i")
            found += view.tolist()
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return found
