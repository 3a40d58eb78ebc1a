"""One client of the socket: bytes in, requests started, answers out.

Everything here runs on the event loop. At most `MAX_IN_FLIGHT` requests, and at most one
message's limit of bytes, are being answered at a time. Beyond that, and while the client
does not read its answers, reading is paused, and the client blocks when the kernel's
socket buffer is full: back-pressure.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, Self, cast

from msgspec import Struct

from orbit_os.sockets import peer_pid
from orbit_protocol.errors import InternalError, MessageTooLarge, ShuttingDown
from orbit_protocol.framing import Event, Line, LineFramer, LineTooLong, NewlineInMessage, frame
from orbit_protocol.jsonrpc import encode_error
from orbitd.logs import event
from orbitd.rpc.dispatch import refuse

log = logging.getLogger("orbitd.rpc.connection")

MAX_IN_FLIGHT = 16
MAX_AT_ONCE = 64
"""Requests that are answered in one turn of the loop: a client that sends thousands must not keep others waiting."""
MAX_UNSENT_BYTES = 1024 * 1024
DISCARD_SECONDS = 5.0


class Call:
    """One request, as its handler sees it: whose it is, and what follows its answer."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._unsettled: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._callbacks: list[Callable[[], None]] = []

    def after_answer(self, callback: Callable[[], None], undo: Callable[[], None]) -> None:
        """Call `callback` once the result has been written, so that what it sends comes second.

        If the request is answered with an error after all, since its result cannot be encoded, `undo` is called.
        """
        self._unsettled.append((callback, undo))

    def settle(self, *, succeeded: bool) -> None:
        """Keep the callbacks of a request that has succeeded; undo one that has failed.

        The requests of a batch share this object and run one after the other: what is unsettled is the last one's.
        """
        if not self._unsettled:
            return
        unsettled, self._unsettled = self._unsettled, []
        for callback, undo in unsettled:
            if succeeded:
                self._callbacks.append(callback)
            else:
                _call(undo)

    def run_callbacks(self) -> None:
        """Call what waits for the answer."""
        for callback in self._callbacks:
            _call(callback)


def _call(callback: Callable[[], None]) -> None:
    """Call a callback; one that fails is logged, and stops neither the others, nor the answer, nor the connection."""
    try:
        callback()
    except Exception as exc:  # noqa: BLE001  # the handler has returned: nobody is left to raise it to
        event(log, logging.ERROR, "callback failed", error=type(exc).__name__, exc=exc)


class Attached(Protocol):
    """What a connection needs of an attachment to a session."""

    def handle_drained(self) -> None:
        """Go on: the client has read everything."""

    def end(self) -> None:
        """End: the client has gone. It removes itself from the connection's attachments."""


class PeerProcess(Struct, frozen=True, kw_only=True):
    """The process at the other end of a connection.

    Attributes:
        pid: Its pid when it connected; 0 where that is not known.
        connected_at: When that was at the latest, on the clock by which the kernel says when a process was started.
    """

    pid: int
    connected_at: float

    @classmethod
    def of(cls, accepted: socket.socket) -> Self:
        """Return the process that has made a connection, which has just been accepted. Raises: OSError."""
        clock = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC
        return cls(pid=peer_pid(accepted), connected_at=time.clock_gettime(clock))


class Host(Protocol):
    """What a connection needs of its server.

    Attributes:
        dispatch: Answers one line, at once or by the coroutine that is returned.
    """

    max_message_bytes: int
    stopping: bool

    @property
    def dispatch(self) -> Callable[[bytes, Call], bytes | Coroutine[Any, Any, bytes | None] | None]:
        """Answer one line, at once or by the coroutine that is returned."""

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task, and hold a reference to it until it is done."""

    def connection_closed(self, connection: Connection) -> None:
        """Remove a connection that has ended."""


class Connection(asyncio.Protocol):
    """The server's side of one connection.

    Args:
        host: The server.
        peer: The client's process, where that is known.

    Attributes:
        attachments: What the client is attached to, by id.
    """

    def __init__(self, host: Host, peer: PeerProcess | None = None) -> None:
        self._host = host
        self.peer = peer
        self._framer = LineFramer(host.max_message_bytes)
        self._queue: deque[Event] = deque()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._unstarted = 0
        self._next_pump: asyncio.Handle | None = None
        self._transport: asyncio.Transport | None = None
        self._write_paused = False
        self._reading_paused = False
        self._ended = False
        self._discarding: asyncio.TimerHandle | None = None
        self.attachments: dict[str, Attached] = {}

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass of asyncio's
        # low=0: `resume_writing` then means that everything has been handed to the kernel.
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES, low=0)

    def data_received(self, data: bytes) -> None:
        """Frame bytes and start what they ask for; discard the rest of a line that is too long."""
        if self._discarding is not None:
            if b"\n" in data:
                self._stop_discarding()
            return
        self._queue.extend(self._framer.receive(data))
        self._pump()

    def eof_received(self) -> bool:
        """Answer what is left, then close: a client may send, shut down its sending side, and then read."""
        self._queue.extend(self._framer.end())
        self._ended = True
        self._stop_discarding()
        return True

    def pause_writing(self) -> None:
        """Start no more requests of a client that does not read."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on with a client that has read everything."""
        self._write_paused = False
        # First: answers of queued requests could fill the buffer again.
        for attachment in list(self.attachments.values()):
            attachment.handle_drained()
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what is queued; requests in flight run to their end, and their answers are dropped."""
        self._transport = None
        self._queue.clear()
        if self._discarding is not None:
            self._discarding.cancel()
        for attachment in list(self.attachments.values()):
            attachment.end()
        self._host.connection_closed(self)

    # Called by the server and by handlers.

    @property
    def is_open(self) -> bool:
        """Whether the client can still be written to."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_congested(self) -> bool:
        """Whether more than `MAX_UNSENT_BYTES` wait for the client to read."""
        return self._write_paused

    def send(self, message: bytes) -> None:
        """Write one encoded message in one piece, unless the client has gone. Raises: NewlineInMessage."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(message))

    def close_when_idle(self) -> None:
        """Take no more requests, answer those in flight, then close."""
        self._ended = True
        self._pump()

    def abort(self) -> None:
        """Close at once; unsent answers are dropped."""
        if self._transport is not None:
            self._transport.abort()

    # The queue: start what may start now, then decide whether to read on.

    def _pump(self) -> None:
        if self._next_pump is not None:
            return
        # A request that never waits is answered inside `_begin`. So the bound here is what keeps
        # a client that has sent thousands of them from holding up every other client.
        for _ in range(MAX_AT_ONCE):
            if not self._queue or not self._has_room(self._queue[0]):
                break
            self._begin(self._queue.popleft())
        else:
            if self._queue:  # reading stays paused until the queue is empty
                self._next_pump = asyncio.get_running_loop().call_soon(self._pump_again)
        if self._ended and not self._queue and self._in_flight == 0 and self._discarding is None:
            self._close()
        self._update_reading()

    def _pump_again(self) -> None:
        self._next_pump = None
        self._pump()

    def _has_room(self, item: Event) -> bool:
        if self._write_paused:
            return False
        if self._in_flight == 0 or self._host.stopping:
            return True
        size = len(item.data) if isinstance(item, Line) else 0
        return self._in_flight < MAX_IN_FLIGHT and self._in_flight_bytes + size <= self._host.max_message_bytes

    def _begin(self, item: Event) -> None:
        if not isinstance(item, Line):
            self._refuse_overflow(item)
        elif self._host.stopping:
            refusal = refuse(item.data, ShuttingDown("The daemon is shutting down"))
            if refusal is not None:
                self.send(refusal)
        else:
            self._begin_request(item.data)

    def _begin_request(self, line: bytes) -> None:
        call = Call(self)
        if self._unstarted == 0:
            answer = self._host.dispatch(line, call)
            if answer is None or isinstance(answer, bytes):
                self._answer(answer, call, line)
                return
        else:
            # A task takes its first step in the next turn of the loop, in the order of creation. A request
            # that never waits would overtake those before it: `session.input` after `session.send` would
            # type first. So it waits for its turn as a task of its own.
            answer = self._dispatch_in_turn(line, call)
        self._in_flight += 1
        self._in_flight_bytes += len(line)
        self._unstarted += 1
        self._host.start_task(self._answer_later(answer, call, line))

    async def _dispatch_in_turn(self, line: bytes, call: Call) -> bytes | None:
        answer = self._host.dispatch(line, call)
        return answer if answer is None or isinstance(answer, bytes) else await answer

    def _answer(self, answer: bytes | None, call: Call, line: bytes) -> None:
        try:
            if answer is not None:
                self.send(answer)
        except NewlineInMessage as exc:
            event(log, logging.ERROR, "answer refused", error=str(exc))
            refusal = refuse(line, InternalError("Internal error"))
            if refusal is not None:
                self.send(refusal)
        call.run_callbacks()

    async def _answer_later(self, coroutine: Coroutine[Any, Any, bytes | None], call: Call, line: bytes) -> None:
        self._unstarted -= 1
        try:
            self._answer(await coroutine, call, line)
        finally:
            self._in_flight -= 1
            self._in_flight_bytes -= len(line)
            self._pump()

    def _refuse_overflow(self, overflow: LineTooLong) -> None:
        """Answer, then read on for `DISCARD_SECONDS`.

        Closing a socket with unread data sends a reset, and a client that is still sending would
        get that (EPIPE, ECONNRESET) in the place of the answer.
        """
        self.send(encode_error(None, MessageTooLarge(f"The message is longer than {overflow.limit} bytes")))
        self._queue.clear()
        self._ended = True
        if overflow.complete:
            return
        loop = asyncio.get_running_loop()
        self._discarding = loop.call_later(DISCARD_SECONDS, self._stop_discarding)

    def _stop_discarding(self) -> None:
        """Close as soon as everything before the over-long line has been answered."""
        if self._discarding is not None:
            self._discarding.cancel()
            self._discarding = None
        self._pump()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _update_reading(self) -> None:
        """Read only while nothing is queued and the client reads its answers."""
        pause = bool(self._queue) or self._write_paused or self._in_flight >= MAX_IN_FLIGHT
        if self._transport is None or self._transport.is_closing() or pause == self._reading_paused:
            return
        self._reading_paused = pause
        (self._transport.pause_reading if pause else self._transport.resume_reading)()
