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
from orbitd.keeper.frames import Malformed, receive
from orbitd.keeper.messages import MAX_FRAME, Framer, Message

MAX_UNSENT = 4 * MAX_FRAME
"""Bytes that may wait for the keeper; it reads at once unless it is stopped."""


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
            data, descriptors = receive(self._sock)
        except BlockingIOError:
            return
        except (OSError, Malformed) as exc:
            self._connection_lost(str(exc))
            return
        self._descriptors += descriptors
        if not data:
            self._connection_lost("it closed the connection")
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
