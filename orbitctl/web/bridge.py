"""Relay JSON-RPC messages between one WebSocket and one connection to orbitd, one message for one line.

Back-pressure goes both ways. To the browser no more than `WINDOW_BYTES` are on the way: a page cannot stop its
WebSocket, so it says how many messages it has used up, `{"received": 3}`, a message that orbitd does not get. Beyond
that orbitd's socket is not read, and orbitd leaves output out and sends one `session.repaint` (`behind`) later.
To orbitd, a message is read from the browser once the one before it has been taken.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from orbit_protocol.framing import LineFramer, LineTooLong
from orbitctl.web.guest import Guest

WINDOW_BYTES = 1 << 20
"""Of messages that the page has not used up yet; one that is longer is sent when nothing else is on the way."""
MAX_MESSAGE_BYTES = 2 << 20
"""Of the browser; the page types and pastes in pieces."""
MAX_ANSWER_BYTES = 64 << 20
_READ_BYTES = 1 << 16
_CLOSE_SECS = 0.5
_RECEIVED = re.compile(r'\{"received": ?([0-9]{1,9})\}')
_MAX_REASON = 120  # of a close frame: 123 bytes (RFC 6455, 5.5)


class Window:
    """What is on the way to the page: messages that were sent, and not used up."""

    def __init__(self) -> None:
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    def add(self, size: int) -> None:
        """Count a message that is sent."""
        self._sizes.append(size)
        self._bytes += size
        if self._bytes >= WINDOW_BYTES:
            self._has_room.clear()

    def remove(self, count: int) -> None:
        """Take away the oldest messages, which the page has used up."""
        for _ in range(min(count, len(self._sizes))):
            self._bytes -= self._sizes.popleft()
        if self._bytes < WINDOW_BYTES:
            self._has_room.set()

    async def wait(self) -> None:
        """Wait until another message may be sent."""
        await self._has_room.wait()


async def relay(
    websocket: ServerConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, guest: Guest | None
) -> None:
    """Relay until one side has ended, and end the other.

    Args:
        websocket: The browser's.
        reader: What orbitd sends; its buffer is bounded by its own limit.
        writer: What orbitd is sent.
        guest: What stands between, for a read-only guest.
    """
    window = Window()
    up = asyncio.create_task(_to_daemon(websocket, writer, window, guest))
    down = asyncio.create_task(_to_browser(websocket, reader, window, guest))
    # The end of the WebSocket shows to neither of them while it waits for an orbitd that neither reads nor sends.
    gone = asyncio.create_task(websocket.wait_closed())
    tasks = (up, down, gone)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await _close(writer)
    refused = next((one for one in ended if isinstance(one, _Refused)), None)
    code = CloseCode.SERVICE_RESTART if refused is None else refused.code
    await websocket.close(code, "orbitd has closed the connection" if refused is None else refused.reason)
    for one in ended:
        if isinstance(one, Exception) and not isinstance(one, _Refused | ConnectionClosed | OSError):
            raise one


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close the connection to orbitd; what was typed last is sent, unless orbitd does not take it."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), _CLOSE_SECS)
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass  # orbitd has closed it, with something unread


class _Refused(Exception):
    """A message cannot be relayed; the WebSocket is closed."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason[:_MAX_REASON]


async def _to_daemon(
    websocket: ServerConnection, writer: asyncio.StreamWriter, window: Window, guest: Guest | None
) -> None:
    async for message in websocket:
        if isinstance(message, bytes):
            raise _Refused(CloseCode.UNSUPPORTED_DATA, "a message must be text")
        if (received := _RECEIVED.fullmatch(message)) is not None:
            window.remove(int(received[1]))
            continue
        if "\n" in message:  # it would be two messages for orbitd
            raise _Refused(CloseCode.POLICY_VIOLATION, "a message may not hold a newline")
        sent: bytes | None = message.encode()
        if guest is not None:
            sent, answer = guest.request(message)
            if answer is not None:
                await _send(websocket, answer, window)
        if sent is not None:
            writer.write(sent + b"\n")
            await writer.drain()


async def _to_browser(
    websocket: ServerConnection, reader: asyncio.StreamReader, window: Window, guest: Guest | None
) -> None:
    framer = LineFramer(MAX_ANSWER_BYTES)
    while data := await reader.read(_READ_BYTES):
        for event in framer.receive(data):
            if isinstance(event, LineTooLong):
                raise _Refused(CloseCode.MESSAGE_TOO_BIG, f"an answer is longer than {event.limit} bytes")
            line: bytes | None = event.data
            if guest is not None:
                try:
                    line = guest.message(event.data)
                except (ValueError, KeyError, TypeError, msgspec.DecodeError):
                    line = None  # whatever cannot be read is not shown to a guest
            if line is not None:
                await window.wait()
                await _send(websocket, line, window)


async def _send(websocket: ServerConnection, line: bytes, window: Window) -> None:
    """Send a message and count it: the page counts each, answers of ours too."""
    window.add(len(line))
    await websocket.send(line.decode())
