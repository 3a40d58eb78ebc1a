"""One client: bytes in, requests started, answers out.

Everything here runs on the event loop. At most `MAX_IN_FLIGHT` requests, and at most one
message's limit of bytes, are being answered at a time; beyond that, and while the client
does not read its answers, reading pauses, so that the kernel's buffer holds the client back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from orbit_protocol.errors import MessageTooLarge, ShuttingDown
from orbit_protocol.framing import Event, Line, LineFramer, LineTooLong, frame
from orbit_protocol.jsonrpc import encode_error
from orbitd.rpc.dispatch import refuse

MAX_IN_FLIGHT = 16
MAX_AT_ONCE = 64
"""Requests that are answered in one turn of the loop: a client that sends thousands must not keep others waiting."""
MAX_UNSENT_BYTES = 1024 * 1024
DISCARD_SECONDS = 5.0


class Call:
    """One request on its way, as its handler sees it: whose it is, and what is to follow the answer."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._afterwards: list[Callable[[], None]] = []

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the answer has been written, so that what it sends comes second."""
        self._afterwards.append(callback)

    def answered(self) -> None:
        """Run what was to follow the answer."""
        for callback in self._afterwards:
            callback()


class Host(Protocol):
    """What a connection needs of the server that it belongs to."""

    max_message_bytes: int
    stopping: bool

    def dispatch(self, line: bytes, call: Call) -> bytes | Coroutine[Any, Any, bytes | None] | None:
        """Answer one line, at once or by the coroutine that is returned."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task that is held."""

    def forget(self, connection: Connection) -> None:
        """Take note that a connection has ended."""


class Connection(asyncio.Protocol):
    """The server's side of one connection.

    Others add to `on_close` what is to be called when it ends, and to `on_drained` what is
    to be called when a client that did not read has read everything again.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._framer = LineFramer(host.max_message_bytes)
        self._waiting: deque[Event] = deque()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._write_paused = False
        self._reading_paused = False
        self._ended = False
        self._discarding: asyncio.TimerHandle | None = None
        self.on_close: list[Callable[[], None]] = []
        self.on_drained: list[Callable[[], None]] = []

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass of it
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES, low=0)

    def data_received(self, data: bytes) -> None:
        """Take bytes; while discarding, drop them until the over-long line ends."""
        if self._discarding is not None:
            if b"\n" in data:
                self._stop_discarding()
            return
        self._waiting.extend(self._framer.receive(data))
        self._pump()

    def eof_received(self) -> bool:
        """Answer what is left, then close: a client may send, shut down and then read."""
        self._waiting.extend(self._framer.end())
        self._ended = True
        self._stop_discarding()
        return True

    def pause_writing(self) -> None:
        """Take no more work from a client that does not read."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on once it has read."""
        self._write_paused = False
        self._pump()
        for callback in list(self.on_drained):
            callback()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; what is in flight runs to its end unheard."""
        self._transport = None
        self._waiting.clear()
        if self._discarding is not None:
            self._discarding.cancel()
        callbacks, self.on_close = self.on_close, []
        for callback in callbacks:
            callback()
        self._host.forget(self)

    # What the server and the handlers ask.

    @property
    def is_open(self) -> bool:
        """Whether the client can still be written to."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_congested(self) -> bool:
        """Whether more than `MAX_UNSENT_BYTES` wait for the client to read."""
        return self._write_paused

    def send(self, message: bytes) -> None:
        """Write one encoded message in one piece; nothing happens if the client is gone."""
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

    # The pump: decide what can start now, start it, set the tap.

    def _pump(self) -> None:
        for _ in range(MAX_AT_ONCE):
            if not self._waiting or not self._has_room(self._waiting[0]):
                break
            self._begin(self._waiting.popleft())
        else:
            if self._waiting:  # reading is paused until then
                asyncio.get_running_loop().call_soon(self._pump)
        if self._ended and not self._waiting and self._in_flight == 0 and self._discarding is None:
            self._hang_up()
        self._set_tap()

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
            call = Call(self)
            answer = self._host.dispatch(item.data, call)
            if answer is None or isinstance(answer, bytes):
                self._answer(answer, call)
            else:
                self._in_flight += 1
                self._in_flight_bytes += len(item.data)
                self._host.start(self._answer_later(answer, call, len(item.data)))

    def _answer(self, answer: bytes | None, call: Call) -> None:
        if answer is not None:
            self.send(answer)
        call.answered()

    async def _answer_later(self, coroutine: Coroutine[Any, Any, bytes | None], call: Call, size: int) -> None:
        try:
            self._answer(await coroutine, call)
        finally:
            self._in_flight -= 1
            self._in_flight_bytes -= size
            self._pump()

    def _refuse_overflow(self, overflow: LineTooLong) -> None:
        """Answer, then read on for a moment: a client that is still sending could not read the answer."""
        self.send(encode_error(None, MessageTooLarge(f"The message is longer than {overflow.limit} bytes")))
        self._waiting.clear()
        self._ended = True
        if overflow.complete:
            return
        loop = asyncio.get_running_loop()
        self._discarding = loop.call_later(DISCARD_SECONDS, self._stop_discarding)

    def _stop_discarding(self) -> None:
        """Close, once what came before the over-long line has been answered."""
        if self._discarding is not None:
            self._discarding.cancel()
            self._discarding = None
        self._pump()

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _set_tap(self) -> None:
        """Read only while there is nothing waiting and the client reads."""
        pause = bool(self._waiting) or self._write_paused or self._in_flight >= MAX_IN_FLIGHT
        if self._transport is None or self._transport.is_closing() or pause == self._reading_paused:
            return
        self._reading_paused = pause
        (self._transport.pause_reading if pause else self._transport.resume_reading)()
