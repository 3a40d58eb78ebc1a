"""Frames and descriptors over a Unix socket, on an event loop: orbitd's side of the connection.

asyncio's transports drop descriptors (SCM_RIGHTS), so this reads the socket itself. All of
it runs on the loop's thread, and nothing blocks.
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
        on_message: Called with each message and its descriptor, which the callee has to close.
        on_lost: Called once with the reason when the connection is lost; not after `close`.
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
            Busy: The keeper does not read; `MAX_UNSENT` bytes wait for it.
        """
        if len(self._unsent) + len(frame) > MAX_UNSENT:
            raise Busy("the keeper does not read its requests")
        # With something unsent the loop watches for room in the socket, and `_write` is called by it.
        is_watched = bool(self._unsent)
        self._unsent += frame
        if self._open and not is_watched:
            self._write()

    def close(self) -> None:
        """Close the socket and every received descriptor that was not delivered."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _connection_lost(self, reason: str) -> None:
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
            # The peer is gone. The connection is not closed here: messages that it sent before may
            # still wait in the socket, and the reader finds the end behind them.
            self._unsent.clear()
            self._loop.remove_writer(self._sock)
        else:
            self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        """Read once, and deliver the messages that are complete."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(_READ, _ANCILLARY, _CLOSE_ON_EXEC)
        except BlockingIOError:
            return
        except OSError as exc:
            self._connection_lost(str(exc))
            return
        # A descriptor arrives with the first byte of its frame (unix(7): a read never goes past one
        # set of ancillary data), so the queue is in the order of the frames that announce one.
        self._descriptors += _received_descriptors(ancillary)
        if not data or flags & socket.MSG_CTRUNC:
            # MSG_CTRUNC: no room for them all, here or in this process's table of open files. Which
            # frame lost its own cannot be known any more.
            self._connection_lost("descriptors were lost" if data else "it closed the connection")
            return
        try:
            for message in self._framer.receive(data):
                if not self._open:
                    return  # closed by the callback of the message before
                has_descriptor = message.value("fds", b"0") != b"0"
                if has_descriptor and not self._descriptors:
                    raise Malformed("a message without its descriptor")
                self._on_message(message, self._descriptors.popleft() if has_descriptor else None)
        except (KeyError, ValueError) as exc:
            self._connection_lost(f"it sent {exc!r}")


def _received_descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors in ancillary data, set close-on-exec.

    MSG_CMSG_CLOEXEC has done that already where there is one; macOS has none.
    """
    found = []
    for level, kind, data in ancillary:
        # The kernel may have cut the array off in the middle of an int, where there was no room (cmsg(3)).
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            view = memoryview(data)[: len(data) - len(data) % 4].cast("i")
            found += view.tolist()
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return found
