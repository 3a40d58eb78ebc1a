"""Input on its way to a program: what its terminal has not taken yet, and the calls that wait for that.

Input that a call is answered for is in the kernel, and reaches the program however orbitd ends. So a call is answered
when the terminal has taken all of its bytes: in the same turn of the loop as a rule, and later where the program does
not read. Until then its bytes are queued here, behind those of earlier calls.

What becomes of the bytes of a call that still waits:

- the call is cancelled: they are removed, and the error's `data.written` says how many had been taken;
- the program ends, or orbitd stops: likewise;
- the client leaves, or its connection ends: they stay, and are typed in order, as in tmux. So do those of a
  notification, which nobody waits for; it is not known what becomes of them when orbitd ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from orbit_protocol.errors import Busy, Cancelled, OrbitError
from orbit_protocol.results import Empty
from orbitd.rpc.connection import Call

MAX_UNWRITTEN_BYTES = 1024 * 1024
"""Of one session; input beyond that is refused."""

MAX_UNREAD_ANSWER_BYTES = 64 * 1024
"""Of answers to a program's questions; it gets no more of them while it does not read its input."""

EMPTY = Empty()


class Queued:
    """The input of one call, the end of which is queued.

    Attributes:
        written: How many bytes of it the terminal has taken.
        ahead: How many bytes of earlier input it had still to take, when this was withdrawn.
        is_taken: It has taken all of them.
        done: Set when it has, to None, or when it will not, to the error.
    """

    def __init__(self, start: int, end: int, before: int) -> None:
        self.start, self.end, self._before = start, end, before
        self.written = before
        self.ahead = 0
        self.is_taken = False
        self.done: asyncio.Future[OrbitError | None] = asyncio.get_running_loop().create_future()

    def update(self, position: int) -> None:
        """Count what has been taken: everything before a position."""
        self.written = self._before + max(0, min(position, self.end) - self.start)

    def finish(self, error: OrbitError | None) -> None:
        """Have the call answered, unless it was cancelled, or its client has gone."""
        if not self.done.done():
            self.done.set_result(error)


class InputQueue:
    """The bytes that a terminal has not taken yet. No I/O: its owner writes `data`, and says what was taken.

    Positions count all bytes that were ever queued, but for those that were removed.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self._position = 0  # of the first byte of `data`
        self._answers: deque[tuple[int, int]] = deque()  # where each run of them begins and ends
        self._answer_bytes = 0  # of all of them
        self._calls: deque[Queued] = deque()  # by position
        self._refusal: Callable[[int], OrbitError] | None = None

    def __bool__(self) -> bool:
        return bool(self.data)

    def add(self, rest: bytes, written: int = 0) -> None:
        """Queue the rest of some input, of which so many bytes have been taken. Raises: Busy."""
        if len(self.data) - self._answer_bytes + len(rest) > MAX_UNWRITTEN_BYTES:
            raise Busy(
                "The program does not read its input", hint="Send the rest when it does.", data={"written": written}
            )
        self.data += rest

    def takes_answer(self, size: int) -> bool:
        """Whether answers to the program's questions may be queued behind what was typed. They do not count as that."""
        return self._answer_bytes + size <= MAX_UNREAD_ANSWER_BYTES

    def add_answer(self, rest: bytes) -> None:
        """Queue the rest of some answers."""
        start = self._position + len(self.data)
        if self._answers and self._answers[-1][1] == start:
            start = self._answers.pop()[0]
        self.data += rest
        self._answers.append((start, self._position + len(self.data)))
        self._answer_bytes += len(rest)

    def add_call(self, rest: bytes, written: int) -> Queued:
        """Queue the rest of a call's input. Raises: Busy, and what `refuse` was given."""
        if self._refusal is not None:
            raise self._refusal(written)
        self.add(rest, written)
        end = self._position + len(self.data)
        queued = Queued(end - len(rest), end, written)
        self._calls.append(queued)
        return queued

    def take(self, count: int) -> None:
        """Remove the first bytes: the terminal has taken them."""
        del self.data[:count]
        self._position += count
        while self._answers and self._answers[0][0] < self._position:
            start, end = self._answers.popleft()
            taken = min(end, self._position)
            self._answer_bytes -= taken - start
            if taken < end:
                self._answers.appendleft((taken, end))
        while self._calls and self._calls[0].end <= self._position:
            queued = self._calls.popleft()
            queued.update(self._position)
            queued.is_taken = True
            queued.finish(None)

    def withdraw(self, queued: Queued) -> None:
        """Remove what has not been taken of a call's input, and set its `written` and `ahead`."""
        if queued not in self._calls:
            return
        queued.update(self._position)
        start = max(queued.start, self._position)
        queued.ahead = start - self._position
        del self.data[start - self._position : queued.end - self._position]
        removed = queued.end - start
        at = self._calls.index(queued)
        del self._calls[at]
        for later in list(self._calls)[at:]:
            later.start -= removed
            later.end -= removed
        self._answers = deque(
            (first, last) if first < start else (first - removed, last - removed) for first, last in self._answers
        )

    def fail_calls(self, error: Callable[[int], OrbitError]) -> None:
        """Withdraw the input of every call that waits, and have it raise.

        Args:
            error: Called with how many bytes of it have been taken.
        """
        for queued in list(self._calls):
            if not queued.done.done():  # else its client has gone
                self.withdraw(queued)
                queued.finish(error(queued.written))

    def refuse_calls(self, error: Callable[[int], OrbitError]) -> None:
        """Let no call wait any more, those that wait now included."""
        self._refusal = error
        self.fail_calls(error)


class InputTarget(Protocol):
    """What is needed of a session whose program is typed into."""

    def write_input(self, data: bytes) -> bytes | None:
        """Write what the terminal takes now; return the rest, None where there is none. Raises: NotRunning."""

    @property
    def unwritten(self) -> InputQueue:
        """What its terminal has not taken yet."""


def type_input(call: Call, session: InputTarget, data: bytes) -> Empty | Coroutine[Any, Any, Empty]:
    """Type into a session, behind all input that the client has sent before; return when its terminal has taken it.

    Raises:
        NotRunning: There is no program to type into.
        Busy: The program does not read, and too much waits for it. `data.written` is how many bytes were taken.
    """
    if call.is_turn:
        return _type_now(call, session, data)

    async def find() -> InputTarget:
        return session

    return type_in_turn(call, find, data)


async def type_in_turn(call: Call, find: Callable[[], Awaitable[InputTarget]], data: bytes) -> Empty:
    """Do as `type_input` where that cannot be done at once.

    Args:
        call: The call.
        find: Returns the session, with its terminal.
        data: What is to be typed.
    """
    try:
        async with call.in_turn():
            try:
                session = await find()
            except OrbitError as error:
                error.extra.setdefault("written", 0)
                raise
            outcome = _type_now(call, session, data)
    except asyncio.CancelledError:
        if not call.take_cancel():
            raise  # its client has gone, or orbitd stops
        raise Cancelled("The input was cancelled", data={"written": 0}) from None
    return outcome if isinstance(outcome, Empty) else await outcome


def _type_now(call: Call, session: InputTarget, data: bytes) -> Empty | Coroutine[Any, Any, Empty]:
    rest = session.write_input(data)
    if rest is None:
        return EMPTY
    written = len(data) - len(rest)
    if call.is_notification:
        session.unwritten.add(rest, written)
        return EMPTY
    queued = session.unwritten.add_call(rest, written)
    try:
        call.begin_wait()
    except Busy as busy:
        session.unwritten.withdraw(queued)
        busy.extra["written"] = written
        raise
    return _until_taken(call, session.unwritten, queued)


async def _until_taken(call: Call, unwritten: InputQueue, queued: Queued) -> Empty:
    try:
        error = await queued.done
    except asyncio.CancelledError:
        if not call.take_cancel():
            raise  # its client has gone, or orbitd stops
        unwritten.withdraw(queued)
        data = {"written": queued.written, "ahead": queued.ahead}
        error = None if queued.is_taken else Cancelled("The input was cancelled", data=data)
    if error is not None:
        raise error
    return EMPTY
