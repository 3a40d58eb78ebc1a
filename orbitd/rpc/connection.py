"""One client of the socket: bytes in, requests started, answers out.

Everything here runs on the event loop. At most `MAX_IN_FLIGHT` requests, and at most one
message's limit of bytes, are being answered at a time. Beyond that, and while the client
does not read its answers, requests are held back. When `MAX_HELD` are, reading is paused, and
the client blocks when the kernel's socket buffer is full: back-pressure.

**Urgent requests overtake those that are held back**: input, a window's size, signals, leaving,
`$/cancelRequest` (`Method.is_urgent`). So Ctrl-C reaches a program whose output the client has stopped
reading. Their order among themselves is kept, and they overtake no batch, which may have some of them. Their answers
are small; when `MAX_URGENT_UNSENT_BYTES` of them have piled up behind a client that does not read, or `MAX_URGENT` of
them are in flight beyond the others' places, they wait too.

**A call that waits for a program, or works for long** (`Method.can_wait`) gives its place back until it is answered. At
most `MAX_WAITING` wait; one more is refused. `$/cancelRequest` and the end of the connection cancel them, those too
that are held back. `$/watchProgress` has those that work send how far they are.

**Input is typed in the order in which it was sent.** Almost always it is typed in the turn of the loop that
reads it. Where it cannot be, since it waits for a terminal to be fetched or for another request of its batch, the
input behind it waits for its turn (`InputTurns`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, Self, cast

from msgspec import UNSET, Struct

from orbit_os.sockets import peer_pid
from orbit_protocol.errors import Busy, Cancelled, InternalError, MessageTooLarge, OrbitError, ParseError, ShuttingDown
from orbit_protocol.framing import Event, Framer, Line, LineTooLong, Malformed, NewlineInMessage
from orbit_protocol.jsonrpc import encode_error, encode_message
from orbit_protocol.notifications import PROGRESS, ProgressNotice
from orbitd.logs import event
from orbitd.rpc.dispatch import refuse
from orbitd.store.progress import Progress, Step

log = logging.getLogger("orbitd.rpc.connection")

MAX_IN_FLIGHT = 16
MAX_AT_ONCE = 64
"""Requests that are answered in one turn of the loop: a client that sends thousands must not keep others waiting."""
MAX_WAITING = 256
MAX_HELD = 256
MAX_URGENT = 16
MAX_UNSENT_BYTES = 1024 * 1024
MAX_URGENT_UNSENT_BYTES = 64 * 1024
MAX_URGENT_BYTES = 2 * 1024 * 1024
"""A longer line is not searched for its method: it is held back, and so is what is urgent behind it."""
DISCARD_SECONDS = 5.0
DISCARD_MALFORMED_SECONDS = 0.2
"""For what follows headers that cannot be followed: nothing says where it ends."""
REPORT_SECS = 0.1
"""Between two looks at how far a request is that the client watches."""


class InputTurns:
    """Which line of a connection types next, where input could not be typed as soon as it was read."""

    def __init__(self) -> None:
        self._turns: deque[asyncio.Event] = deque()

    def is_next(self, turn: asyncio.Event | None) -> bool:
        """Return whether a line may type now: one with this turn, or without one."""
        return not self._turns or self._turns[0] is turn

    def take(self) -> asyncio.Event:
        """Return a turn behind all others; it is set when it has come."""
        turn = asyncio.Event()
        if not self._turns:
            turn.set()
        self._turns.append(turn)
        return turn

    def end(self, turn: asyncio.Event) -> None:
        """Give up a turn, whether it has come or not."""
        self._turns.remove(turn)
        if self._turns:
            self._turns[0].set()


class Call:
    """One line, as the handlers of its requests see it: whose it is, what follows its answer, how it waits.

    Attributes:
        request_id: The id of the request that is being handled; UNSET of a notification.
        is_last_input: No input comes behind this request in its batch.
        has_place: It counts among those in flight.
        is_urgent: It has overtaken others.
        in_reserve: The connection was one of those that are kept back when it was received.
    """

    request_id: Any = None
    is_last_input = True
    has_place = False
    is_urgent = False
    _is_waiting = False
    _is_cancelled = False
    _task: asyncio.Task[Any] | None = None
    _turn: asyncio.Event | None = None
    _progress: Progress | None = None
    _sent: Step | None = None
    _next_report: asyncio.TimerHandle | None = None

    def __init__(self, connection: Connection, size: int = 0) -> None:
        self.connection = connection
        self.in_reserve = connection.in_reserve
        self.size = size
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

    @property
    def is_watched(self) -> bool:
        """Whether the client is sent how far the request is."""
        return self._next_report is not None

    @property
    def progress(self) -> Progress:
        """How far the request is that is being handled, one that works for long."""
        if self._progress is None:
            self._progress = Progress()
        return self._progress

    def watch_progress(self) -> None:
        """Send how far the request is, now and whenever it has come further, until it is answered."""
        # Looked at in intervals: the work is done in another thread, and reports each of a million items.
        step = self.progress.step
        if step is not None and step is not self._sent and not self.connection.is_congested:
            self._sent = step
            notice = ProgressNotice(id=self.request_id, what=step.what, done=step.done, total=step.total)
            self.connection.send(encode_message({"jsonrpc": "2.0", "method": PROGRESS.name, "params": notice}))
        self._next_report = asyncio.get_running_loop().call_later(REPORT_SECS, self.watch_progress)

    # Waiting

    @property
    def is_waiting(self) -> bool:
        """Whether it takes no place in flight, since it waits for a program."""
        return self._is_waiting

    def begin_wait(self) -> None:
        """Take none of the places in flight until the request is answered. Again does nothing. Raises: Busy."""
        if not self._is_waiting:
            self.connection.begin_wait(self)
            self._is_waiting = True

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let `$/cancelRequest`, and the end of the connection, cancel the current task."""
        self._task = asyncio.current_task()
        if not self.connection.is_open:
            self.abandon()
        try:
            yield
        finally:
            self._is_waiting = False
            if self._next_report is not None:
                self._next_report.cancel()
            self._progress = self._sent = self._next_report = None  # the next request of a batch has its own
            self.connection.end_wait(self)
            self.take_cancel()  # one that came too late
            self._task = None

    def cancel(self) -> None:
        """Cancel the request that waits, on behalf of the client."""
        if self._task is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()

    def abandon(self) -> None:
        """Cancel the line, since the client has gone; what is left of a batch is not carried out."""
        if self._task is not None:
            self._task.cancel()

    def take_cancel(self) -> bool:
        """Return whether `$/cancelRequest` has cancelled the current task, which then goes on."""
        if not self._is_cancelled or self._task is None:
            return False
        self._is_cancelled = False
        return self._task.uncancel() == 0  # else the client has gone, or the server stops, too

    # Input

    @property
    def is_notification(self) -> bool:
        """Whether nobody waits for its answer."""
        return self.request_id is UNSET

    @property
    def is_turn(self) -> bool:
        """Whether all input that the client sent before has been typed, or refused."""
        return self.connection.turns.is_next(self._turn)

    def reserve_turn(self) -> None:
        """Have the input of this line typed before that of the lines behind it."""
        if self._turn is None:
            self._turn = self.connection.turns.take()

    def release_turn(self) -> None:
        """Let the input behind this line be typed. Again does nothing."""
        if self._turn is not None:
            turn, self._turn = self._turn, None
            self.connection.turns.end(turn)

    @contextlib.asynccontextmanager
    async def in_turn(self) -> AsyncIterator[None]:
        """Wait until input may be typed; it has been typed, or refused, at the end."""
        self.reserve_turn()
        assert self._turn is not None
        try:
            await self._turn.wait()
            yield
        finally:
            if self.is_last_input:
                self.release_turn()


def _call(callback: Callable[[], None]) -> None:
    """Call a callback; one that fails is logged, and stops neither the others, nor the answer, nor the connection."""
    try:
        callback()
    except Exception as exc:  # noqa: BLE001  # the handler has returned: nobody is left to raise it to
        event(log, logging.ERROR, "callback failed", error=type(exc).__name__, exc=exc)


class Attached(Protocol):
    """What a connection needs of what it is sent unasked: an attachment to a session, a subscription to events."""

    def handle_drained(self) -> None:
        """Go on: the client has read everything."""

    def end(self) -> None:
        """End: the client has gone. It removes itself from the connection."""


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


class _Held(Struct):
    """A line that is held back.

    Attributes:
        is_in_order: No urgent line behind it may overtake it.
        wait_id: Its id where it is a call that can wait; else UNSET.
    """

    item: Event
    is_in_order: bool
    wait_id: Any


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

    @property
    def is_urgent(self) -> Callable[[bytes], bool]:
        """Return whether a line has nothing but requests that are not held back with the others."""

    @property
    def wait_id(self) -> Callable[[bytes], Any]:
        """Return the id of a line that is one call that can wait; else UNSET."""

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task, and hold a reference to it until it is done."""

    def connection_closed(self, connection: Connection) -> None:
        """Remove a connection that has ended."""

    def promote(self) -> None:
        """Have connections that are kept back serve everything, where there is room for that meanwhile."""


class Connection(asyncio.Protocol):
    """The server's side of one connection.

    Args:
        host: The server.
        peer: The client's process, where that is known.

    Attributes:
        attachments: What the client is attached to, by id.
        subscriptions: Which events it hears, by id.
        turns: Which line types next.
        since: When it was made.
        made_at: The same by `time.monotonic`.
        in_reserve: It is one of those that are kept back, and serves some methods only.
        last_request_at: When it has sent its last request, by `time.monotonic`; kept up to date of one in the reserve.
    """

    def __init__(self, host: Host, peer: PeerProcess | None = None) -> None:
        self._host = host
        self.peer = peer
        self._framer = Framer(host.max_message_bytes)
        self._queue: deque[Event] = deque()
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._held_in_order = 0  # how many of them no urgent line may overtake
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._waiting: dict[Call, Any] = {}  # with the id of the request that waits
        self._waiting_bytes = 0
        self._urgent_unsent_bytes = 0
        self._unstarted = 0
        self._next_pump: asyncio.Handle | None = None
        self._transport: asyncio.Transport | None = None
        self._write_paused = False
        self._awaits_sent = False
        self._reading_paused = False
        self._ended = False
        self._discarding: asyncio.TimerHandle | None = None
        self.attachments: dict[str, Attached] = {}
        self.subscriptions: dict[str, Attached] = {}
        self.turns = InputTurns()
        self.since = datetime.now(UTC)
        self.in_reserve = False
        self.made_at = self.last_request_at = time.monotonic()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass of asyncio's
        # low=0: `resume_writing` then means that everything has been handed to the kernel.
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES, low=0)

    def data_received(self, data: bytes) -> None:
        """Frame bytes and start what they ask for; discard the rest of a message that is too long."""
        if self._discarding is not None:
            if self._framer.skip(data):
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
        # By `has_sent_all` this is called at the first byte that is left.
        self._write_paused = not self._awaits_sent or self._is_over_limit()

    def resume_writing(self) -> None:
        """Go on with a client that has read everything."""
        self._write_paused = False
        if self._awaits_sent and self._transport is not None:
            self._awaits_sent = False
            self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES, low=0)
        self._urgent_unsent_bytes = 0
        # First: answers of queued requests could fill the buffer again.
        for each in (*self.attachments.values(), *self.subscriptions.values()):
            each.handle_drained()
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what is queued and cancel what waits; requests in flight run to their end, and are not answered."""
        self._transport = None
        self._queue.clear()
        self._held.clear()
        for call in list(self._waiting):
            call.abandon()
        if self._discarding is not None:
            self._discarding.cancel()
        for each in (*self.attachments.values(), *self.subscriptions.values()):
            each.end()
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
        self.send_all((message,))

    def send_all(self, messages: Sequence[bytes]) -> None:
        """Write encoded messages with one call of the system, unless the client has gone. Raises: NewlineInMessage."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._framer.frame_all(messages))
            if self._awaits_sent and not self._write_paused:
                self._write_paused = self._is_over_limit()  # the transport has called `pause_writing` already

    def has_sent_all(self) -> bool:
        """Return whether the kernel has taken everything; else call `handle_drained` of the attachments once it has."""
        if self._transport is None or not self._transport.get_write_buffer_size():
            return True
        if not self._awaits_sent:
            self._awaits_sent = True
            self._transport.set_write_buffer_limits(high=0, low=0)
        return False

    def _is_over_limit(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES

    @property
    def is_answering(self) -> bool:
        """Whether a handler is at work for it, or waits."""
        return bool(self._in_flight or self._waiting)

    @property
    def has_unsent(self) -> bool:
        """Whether the kernel has not yet taken all that was sent."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def refuse(self, error: OrbitError) -> None:
        """Send an error that is no answer to a request, and close."""
        self.send(encode_error(None, error))
        if self._transport is not None:
            self._transport.close()
            if self._transport.get_write_buffer_size():  # its client does not read: it would stay for ever
                self._transport.abort()

    def close_when_idle(self) -> None:
        """Take no more requests, answer those in flight, then close."""
        self._ended = True
        self._pump()

    def abort(self) -> None:
        """Close at once; unsent answers are dropped."""
        if self._transport is not None:
            self._transport.abort()

    def begin_wait(self, call: Call) -> None:
        """Take a call out of those in flight. Raises: Busy, where so many wait that it may not."""
        is_too_much = self._waiting and self._waiting_bytes + call.size > self._host.max_message_bytes
        if len(self._waiting) >= MAX_WAITING or is_too_much:
            raise Busy(f"{len(self._waiting)} calls of this connection wait already", hint="Cancel one of them.")
        self._waiting[call] = call.request_id
        self._waiting_bytes += call.size
        if call.has_place:
            self._give_place_back(call)
            self._pump_soon()

    def end_wait(self, call: Call) -> None:
        """Put a call among those in flight, however many there are: it is about to be answered."""
        del self._waiting[call]
        self._waiting_bytes -= call.size
        self._take_place(call)

    def cancel_waits(self, request_id: str | float) -> None:
        """Cancel the calls that wait and have this id; 1 and 1.0 are one id, 1 and "1" are two (JSON-RPC 2.0, 4).

        The cancel may have overtaken a call that is held back: that is answered, and never begun.
        """
        for call, waiting_id in list(self._waiting.items()):
            if waiting_id == request_id:
                call.cancel()
        for held in [each for each in self._held if each.wait_id == request_id]:
            self._held.remove(held)
            self._forget_held(held)
            refusal = encode_error(held.wait_id, Cancelled("The call was cancelled"))
            self.send(refusal)
            if self._write_paused:
                self._urgent_unsent_bytes += len(refusal)
            self._pump_soon()

    def watch_progress(self, request_id: str | float) -> None:
        """Send `$/progress` of the calls that wait and have this id, as they come further."""
        for call, waiting_id in self._waiting.items():
            if waiting_id == request_id and not call.is_watched:
                call.watch_progress()

    # The queue: start what may start now, then decide whether to read on.

    def _pump(self) -> None:
        if self._next_pump is not None:
            return
        # A request that never waits is answered inside `_begin`. So the bound here is what keeps
        # a client that has sent thousands of them from holding up every other client.
        for _ in range(MAX_AT_ONCE):
            if self._held and self._has_room(self._held[0].item):
                self._begin(self._unhold())
            elif not self._queue:
                break
            elif not self._held and self._has_room(self._queue[0]):
                self._begin(self._queue.popleft())
            elif not self._overtake_or_hold(self._queue[0]):
                break
        else:
            if self._queue or self._held:  # reading stays paused until the queue is empty
                self._pump_soon()
        is_answered = not (self._queue or self._held or self._in_flight or self._waiting)
        if self._ended and is_answered and self._discarding is None:
            self._close()
        self._update_reading()

    def _pump_soon(self) -> None:
        if self._next_pump is None:
            self._next_pump = asyncio.get_running_loop().call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._next_pump = None
        self._pump()

    def _has_room(self, item: Event) -> bool:
        if self._write_paused:
            return False
        if self._in_flight == 0 or self._host.stopping:
            return True
        size = _size(item)
        return self._in_flight < MAX_IN_FLIGHT and self._in_flight_bytes + size <= self._host.max_message_bytes

    def _overtake_or_hold(self, item: Event) -> bool:
        """Begin an urgent line at once, or hold a line for which there is no room; return whether either was possible.

        Args:
            item: The first of the queue.
        """
        is_long = _size(item) > MAX_URGENT_BYTES
        is_urgent = isinstance(item, Line) and not is_long and self._host.is_urgent(item.data)
        if is_urgent and not self._held_in_order:
            if self._in_flight >= MAX_IN_FLIGHT + MAX_URGENT or self._urgent_unsent_bytes >= MAX_URGENT_UNSENT_BYTES:
                return False
            self._begin(self._queue.popleft(), is_urgent=True)
            return True
        if self._is_full_of_held or (self._held and self._held_bytes + _size(item) > self._host.max_message_bytes):
            return False
        # An urgent line behind a batch waits with it, and so do those that come behind it.
        is_in_order = is_urgent or is_long or (isinstance(item, Line) and item.data.lstrip()[:1] == b"[")
        wait_id = self._host.wait_id(item.data) if isinstance(item, Line) and not is_in_order else UNSET
        self._held.append(_Held(self._queue.popleft(), is_in_order, wait_id))
        self._held_bytes += _size(item)
        self._held_in_order += is_in_order
        return True

    def _unhold(self) -> Event:
        held = self._held.popleft()
        self._forget_held(held)
        return held.item

    def _forget_held(self, held: _Held) -> None:
        self._held_bytes -= _size(held.item)
        self._held_in_order -= held.is_in_order

    @property
    def _is_full_of_held(self) -> bool:
        return len(self._held) >= MAX_HELD

    def _take_place(self, call: Call) -> None:
        call.has_place = True
        self._in_flight += 1
        self._in_flight_bytes += call.size

    def _give_place_back(self, call: Call) -> None:
        call.has_place = False
        self._in_flight -= 1
        self._in_flight_bytes -= call.size

    def _begin(self, item: Event, *, is_urgent: bool = False) -> None:
        if not isinstance(item, Line):
            self._refuse_rest(item)
        elif self._host.stopping:
            refusal = refuse(item.data, ShuttingDown("The daemon is shutting down"))
            if refusal is not None:
                self.send(refusal)
        else:
            if self.in_reserve:
                self.last_request_at = time.monotonic()
                self._host.promote()
            call = Call(self, len(item.data))
            call.is_urgent = is_urgent
            self._begin_request(item.data, call)

    def _begin_request(self, line: bytes, call: Call) -> None:
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
        if not call.is_waiting:
            self._take_place(call)
        self._unstarted += 1
        self._host.start_task(self._answer_later(answer, call, line))

    async def _dispatch_in_turn(self, line: bytes, call: Call) -> bytes | None:
        answer = self._host.dispatch(line, call)
        return answer if answer is None or isinstance(answer, bytes) else await answer

    def _answer(self, answer: bytes | None, call: Call, line: bytes) -> None:
        try:
            if answer is not None:
                self.send(answer)
                if self._write_paused and call.is_urgent:
                    self._urgent_unsent_bytes += len(answer)
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
            self._give_place_back(call)
            self._pump()

    def _refuse_rest(self, broken: LineTooLong | Malformed) -> None:
        """Answer, then read on for a while, where more of the message may come.

        Closing a socket with unread data sends a reset, and a client that is still sending would
        get that (EPIPE, ECONNRESET) in the place of the answer.
        """
        if isinstance(broken, LineTooLong):
            error: OrbitError = MessageTooLarge(f"The message is longer than {broken.limit} bytes")
            seconds = 0.0 if broken.complete else DISCARD_SECONDS
        else:
            hint = "Connect again, and send each message behind headers: Content-Length: BYTES, and an empty line."
            error, seconds = ParseError(broken.reason, hint=hint), DISCARD_MALFORMED_SECONDS
        self.send(encode_error(None, error))
        self._queue.clear()
        if seconds and not self._ended:
            self._discarding = asyncio.get_running_loop().call_later(seconds, self._stop_discarding)
        self._ended = True

    def _stop_discarding(self) -> None:
        """Close as soon as everything before what was refused has been answered."""
        if self._discarding is not None:
            self._discarding.cancel()
            self._discarding = None
        self._pump()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _update_reading(self) -> None:
        """Read on while nothing is queued that could neither be started nor held."""
        pause = bool(self._queue) or self._is_full_of_held
        if self._transport is None or self._transport.is_closing() or pause == self._reading_paused:
            return
        self._reading_paused = pause
        (self._transport.pause_reading if pause else self._transport.resume_reading)()


def _size(item: Event) -> int:
    return len(item.data) if isinstance(item, Line) else 0
