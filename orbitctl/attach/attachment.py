"""The loop of an attached client.

It is in one of three states: away (no connection; `_reconnect` looks for the daemon), attaching
(asked, not answered yet) and following. Keys go first, then signals, then output, so that a
flood never keeps anybody from leaving. Output is read only while the terminal takes it: a slow
terminal makes a slow client, which the daemon knows how to treat.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from orbit_protocol.errors import Busy, ShuttingDown, from_object
from orbit_protocol.methods import SESSION_ATTACH, SESSION_LEAVE, SESSION_RESIZE
from orbit_protocol.notifications import DETACHED, EXITED, OUTPUT, REPAINT
from orbit_protocol.params import ByAttachment, SessionAttach, SessionResize
from orbit_protocol.results import Attached
from orbitctl.attach.connection import ConnectionLost, DaemonConnection, Message
from orbitctl.attach.detach_key import HOLD_SECONDS, KeyFilter
from orbitctl.attach.input_queue import InputQueue
from orbitctl.attach.options import AttachOptions, AttachResult, notice
from orbitctl.attach.reconnect import Reconnect
from orbitctl.attach.terminal import Terminal

MAX_PENDING_BYTES = 256 * 1024
MAX_TYPED_WHILE_AWAY = 4 * 1024


class Attachment:
    """One user at one session.

    Args:
        options: The session, and how to attach to it.
        terminal: The user's, raw already.
        connection: A new connection.
        away: Begins the wait for a daemon that has gone.

    Attributes:
        was_shown: Whether the session has been seen.
    """

    def __init__(
        self,
        options: AttachOptions,
        terminal: Terminal,
        connection: DaemonConnection,
        away: Callable[[float], Reconnect],
    ) -> None:
        self._options = options
        self._terminal = terminal
        self._away = away
        self._keys = KeyFilter(options.detach_key)
        self._flush_at: float | None = None
        self._input = InputQueue()
        self._connection: DaemonConnection | None = connection
        self._reconnect: Reconnect | None = None
        self._id = ""
        self._attach_request = 0
        self._asked_size = (0, 0)
        self.was_shown = False
        self._output: list[bytes] = []
        self._result: AttachResult | None = None
        self._notices: dict[str, Callable[[Message], None]] = {
            OUTPUT.name: lambda message: self._output.append(message.params.data),
            REPAINT.name: self._repainted,
            EXITED.name: self._exited,
            DETACHED.name: lambda _: self._end("put off"),
        }

    def run(self) -> AttachResult:
        """Follow the session to some end.

        Raises:
            OrbitError: The daemon refuses the attach, at first or after a restart.
            CommandError: The daemon has not come back.
            SignalReceived: A signal asks this process to end.
        """
        try:
            self._guarded(self._attach)
            while self._result is None:
                self._step()
            while self._result.how == "ended" and self._terminal.pending and self._show_the_rest():
                pass
            return self._result
        finally:
            if self._connection is not None:
                self._connection.close()

    # One turn of the loop

    def _step(self) -> None:
        terminal, connection = self._terminal, self._connection
        readable, writable, _ = select.select(*self._wanted(), [], self._patience())
        if terminal.input_fd in readable:
            self._guarded(self._type)
        if terminal.wake_fd in readable:
            self._guarded(self._obey)
        if terminal.output_fd in writable:
            terminal.flush()
        if connection is not None and connection is self._connection and self._result is None:
            if connection in writable:
                self._guarded(connection.flush)
            if connection in readable:
                self._guarded(self._listen)
        self._guarded(self._look_at_the_clock)

    def _wanted(self) -> tuple[list[int | DaemonConnection], list[int | DaemonConnection]]:
        """Return what is waited for: to be readable, and to be writable."""
        terminal, connection = self._terminal, self._connection
        reading: list[int | DaemonConnection] = [terminal.wake_fd]
        writing: list[int | DaemonConnection] = [terminal.output_fd] if terminal.pending else []
        if connection is None or not self._input.is_full:
            reading.append(terminal.input_fd)
        if connection is not None and terminal.pending < MAX_PENDING_BYTES:
            reading.append(connection)
        if connection is not None and connection.is_sending:
            writing.append(connection)
        return reading, writing

    def _patience(self) -> float | None:
        """Return how long nothing needs to be looked at, in seconds."""
        due = [self._flush_at, self._input.retry_at]
        if self._reconnect is not None:
            due.append(self._reconnect.due(connected=self._connection is not None))
        moments = [moment for moment in due if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do something with the connection, which may be lost over it."""
        try:
            work()
        except ConnectionLost:
            self._lost()

    def _show_the_rest(self) -> bool:
        """Wait for a slow terminal; return False where the user does not want to."""
        terminal = self._terminal
        readable, writable, _ = select.select([terminal.input_fd], [terminal.output_fd], [])
        if writable:
            terminal.flush()
        data = terminal.read() if readable else None
        return data is None or (bool(data) and not self._keys.feed(data)[1])

    # From the user

    def _type(self) -> None:
        data = self._terminal.read()
        if data is None:
            return
        if not data:
            self._end("hung up")
            return
        passed, is_detach = self._keys.feed(data)
        self._flush_at = time.monotonic() + HOLD_SECONDS if self._keys.is_waiting else None
        if is_detach:
            self._end("detached")
        else:
            self._pass_on(passed)

    def _pass_on(self, data: bytes) -> None:
        if data and not self._options.read_only and (self._connection is not None or self._may_wait(data)):
            self._input.type(data)

    def _may_wait(self, data: bytes) -> bool:
        """Tell whether keys are kept for a daemon that is away: few, and before the user was told."""
        is_told = self._reconnect is not None and self._reconnect.is_told
        return not is_told and self._input.waiting + len(data) <= MAX_TYPED_WHILE_AWAY

    def _obey(self) -> None:
        """Do what signals ask for."""
        found = self._terminal.signals()
        if signal.SIGTSTP in found:
            self._terminal.suspend()
            found |= self._terminal.signals() | {signal.SIGCONT}
        if signal.SIGCONT in found:  # a shell may have had the terminal meanwhile
            self._terminal.go_on()
            self._attach_again()
        elif signal.SIGWINCH in found:
            self._resize()

    def _resize(self) -> None:
        size = self._terminal.size
        if self._connection is not None and self._id and size != self._asked_size:
            self._asked_size = size
            self._connection.notify(SESSION_RESIZE, SessionResize(attachment_id=self._id, cols=size[0], rows=size[1]))

    def _end(self, how: Literal["detached", "put off", "hung up"]) -> None:
        self._result = AttachResult(how=how)

    # From the daemon

    def _attach(self) -> None:
        assert self._connection is not None
        self._asked_size = cols, rows = self._terminal.size
        options = self._options
        params = SessionAttach(
            id=options.session.id,
            cols=cols,
            rows=rows,
            read_only=options.read_only,
            scrollback_lines=None if self.was_shown else options.scrollback_lines,
            env=options.env,
        )
        self._attach_request = self._connection.request(SESSION_ATTACH, params)

    def _attach_again(self) -> None:
        if self._connection is not None and self._id:
            self._input.stop()
            self._connection.notify(SESSION_LEAVE, ByAttachment(attachment_id=self._id))
            self._id = ""
            self._attach()

    def _listen(self) -> None:
        assert self._connection is not None
        for message in self._connection.receive():
            if message.method:
                if message.params.attachment_id == self._id and message.method in self._notices:
                    self._notices[message.method](message)
            elif message.id == self._attach_request:
                self._attached(message)
            elif message.id is not None:
                self._input.answered(message.id, message.error, time.monotonic())
        self._show_output()

    def _show_output(self) -> None:
        if self._output:
            self._terminal.write(b"".join(self._output))
            self._output.clear()

    def _attached(self, message: Message) -> None:
        if message.error is not None:
            error = from_object(message.error)
            if isinstance(error, Busy | ShuttingDown):
                raise ConnectionLost(error.message)
            raise error
        assert self._connection is not None
        found = msgspec.json.decode(message.result or b"", type=Attached)
        self._id = found.attachment_id
        self._output.clear()
        self._terminal.paint(found.repaint)
        self.was_shown = True
        self._reconnect = None
        self._input.begin(self._connection, self._id)
        self._resize()

    def _repainted(self, message: Message) -> None:
        self._show_output()
        self._terminal.paint(message.params.data)

    def _exited(self, message: Message) -> None:
        self._show_output()
        told = message.params
        self._result = AttachResult(how="ended", exit_code=told.exit_code, exit_signal=told.exit_signal)

    # While the daemon is away

    def _lost(self) -> None:
        """Begin, or go on with, the wait for the daemon."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._id = None, ""
        self._input.stop()
        now = time.monotonic()
        if self._reconnect is None:
            self._reconnect = self._away(now)
        else:
            self._reconnect.again(now)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._flush_at is not None and now >= self._flush_at:
            self._flush_at = None
            self._pass_on(self._keys.flush())
        if self._input.retry_at is not None and now >= self._input.retry_at:
            self._input.retry()
        if self._reconnect is not None and self._result is None:
            self._look_for_the_daemon(self._reconnect, now)

    def _look_for_the_daemon(self, reconnect: Reconnect, now: float) -> None:
        reconnect.check(now)
        if reconnect.is_worth_a_word(now):
            words = f"orbitd has gone; waiting for it, and keys are lost. {self._options.detach_key.hint}"
            self._terminal.write(notice(words))
        if self._connection is None and (stream := reconnect.attempt(now)) is not None:
            self._connection = DaemonConnection(stream)
            self._attach()
