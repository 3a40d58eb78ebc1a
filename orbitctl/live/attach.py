"""The loop of an attached client.

It is in one of three states: away (no connection; `_comeback` looks for the daemon), attaching
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

from orbitctl.live.comeback import Comeback
from orbitctl.live.detaching import HOLD_SECONDS, KeyFilter
from orbitctl.live.link import Link, LinkLost, Message
from orbitctl.live.model import Ending, Wish, notice
from orbitctl.live.terminal import Terminal
from orbitctl.live.typing import Typing
from protocol.errors import Busy, ShuttingDown, from_object
from protocol.live import Attached, ByAttachment, SessionAttach, SessionResize
from protocol.live_methods import DETACHED, EXITED, OUTPUT, REPAINT, SESSION_ATTACH, SESSION_LEAVE, SESSION_RESIZE

MAX_PENDING_BYTES = 256 * 1024
MAX_TYPED_WHILE_AWAY = 4 * 1024


class Attachment:
    """One user at one session.

    Args:
        wish: The session, and how to attach to it.
        terminal: The user's, raw already.
        link: A new connection.
        away: Begins the wait for a daemon that has gone.

    Attributes:
        was_shown: Whether the session has been seen.
    """

    def __init__(self, wish: Wish, terminal: Terminal, link: Link, away: Callable[[float], Comeback]) -> None:
        self._wish = wish
        self._terminal = terminal
        self._away = away
        self._keys = KeyFilter(wish.detach_key)
        self._flush_at: float | None = None
        self._typing = Typing()
        self._link: Link | None = link
        self._comeback: Comeback | None = None
        self._id = ""
        self._attach_request = 0
        self._asked_size = (0, 0)
        self.was_shown = False
        self._output: list[bytes] = []
        self._ending: Ending | None = None
        self._notices: dict[str, Callable[[Message], None]] = {
            OUTPUT.name: lambda message: self._output.append(message.params.data),
            REPAINT.name: self._repainted,
            EXITED.name: self._exited,
            DETACHED.name: lambda _: self._end("put off"),
        }

    def run(self) -> Ending:
        """Follow the session to some end.

        Raises:
            OrbitError: The daemon refuses the attach, at first or after a restart.
            Failure: The daemon has not come back.
            Ended: A signal asks this process to end.
        """
        try:
            self._guarded(self._attach)
            while self._ending is None:
                self._step()
            while self._ending.how == "ended" and self._terminal.pending and self._show_the_rest():
                pass
            return self._ending
        finally:
            if self._link is not None:
                self._link.close()

    # One turn of the loop

    def _step(self) -> None:
        terminal, link = self._terminal, self._link
        readable, writable, _ = select.select(*self._wanted(), [], self._patience())
        if terminal.input_fd in readable:
            self._guarded(self._type)
        if terminal.wake_fd in readable:
            self._guarded(self._obey)
        if terminal.output_fd in writable:
            terminal.flush()
        if link is not None and link is self._link and self._ending is None:
            if link in writable:
                self._guarded(link.flush)
            if link in readable:
                self._guarded(self._listen)
        self._guarded(self._look_at_the_clock)

    def _wanted(self) -> tuple[list[int | Link], list[int | Link]]:
        """Return what is waited for: to be readable, and to be writable."""
        terminal, link = self._terminal, self._link
        reading: list[int | Link] = [terminal.wake_fd]
        writing: list[int | Link] = [terminal.output_fd] if terminal.pending else []
        if link is None or not self._typing.is_full:
            reading.append(terminal.input_fd)
        if link is not None and terminal.pending < MAX_PENDING_BYTES:
            reading.append(link)
        if link is not None and link.is_sending:
            writing.append(link)
        return reading, writing

    def _patience(self) -> float | None:
        """Return how long nothing needs to be looked at, in seconds."""
        due = [self._flush_at, self._typing.retry_at]
        if self._comeback is not None:
            due.append(self._comeback.due(connected=self._link is not None))
        moments = [moment for moment in due if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do something with the connection, which may be lost over it."""
        try:
            work()
        except LinkLost:
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
        if data and not self._wish.read_only and (self._link is not None or self._may_wait(data)):
            self._typing.type(data)

    def _may_wait(self, data: bytes) -> bool:
        """Tell whether keys are kept for a daemon that is away: few, and before the user was told."""
        is_told = self._comeback is not None and self._comeback.is_told
        return not is_told and self._typing.waiting + len(data) <= MAX_TYPED_WHILE_AWAY

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
        if self._link is not None and self._id and size != self._asked_size:
            self._asked_size = size
            self._link.notify(SESSION_RESIZE, SessionResize(attachment_id=self._id, cols=size[0], rows=size[1]))

    def _end(self, how: Literal["detached", "put off", "hung up"]) -> None:
        self._ending = Ending(how=how)

    # From the daemon

    def _attach(self) -> None:
        assert self._link is not None
        self._asked_size = cols, rows = self._terminal.size
        wish = self._wish
        params = SessionAttach(
            id=wish.session.id,
            cols=cols,
            rows=rows,
            read_only=wish.read_only,
            scrollback_lines=None if self.was_shown else wish.scrollback_lines,
            env=wish.env,
        )
        self._attach_request = self._link.request(SESSION_ATTACH, params)

    def _attach_again(self) -> None:
        if self._link is not None and self._id:
            self._typing.stop()
            self._link.notify(SESSION_LEAVE, ByAttachment(attachment_id=self._id))
            self._id = ""
            self._attach()

    def _listen(self) -> None:
        assert self._link is not None
        for message in self._link.receive():
            if message.method:
                if message.params.attachment_id == self._id and message.method in self._notices:
                    self._notices[message.method](message)
            elif message.id == self._attach_request:
                self._attached(message)
            elif message.id is not None:
                self._typing.answered(message.id, message.error, time.monotonic())
        self._show_output()

    def _show_output(self) -> None:
        if self._output:
            self._terminal.write(b"".join(self._output))
            self._output.clear()

    def _attached(self, message: Message) -> None:
        if message.error is not None:
            error = from_object(message.error)
            if isinstance(error, Busy | ShuttingDown):
                raise LinkLost(error.message)
            raise error
        assert self._link is not None
        found = msgspec.json.decode(message.result or b"", type=Attached)
        self._id = found.attachment_id
        self._output.clear()
        self._terminal.paint(found.repaint)
        self.was_shown = True
        self._comeback = None
        self._typing.begin(self._link, self._id)
        self._resize()

    def _repainted(self, message: Message) -> None:
        self._show_output()
        self._terminal.paint(message.params.data)

    def _exited(self, message: Message) -> None:
        self._show_output()
        told = message.params
        self._ending = Ending(how="ended", exit_code=told.exit_code, exit_signal=told.exit_signal)

    # While the daemon is away

    def _lost(self) -> None:
        """Begin, or go on with, the wait for the daemon."""
        if self._link is not None:
            self._link.close()
        self._link, self._id = None, ""
        self._typing.stop()
        now = time.monotonic()
        if self._comeback is None:
            self._comeback = self._away(now)
        else:
            self._comeback.again(now)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._flush_at is not None and now >= self._flush_at:
            self._flush_at = None
            self._pass_on(self._keys.flush())
        if self._typing.retry_at is not None and now >= self._typing.retry_at:
            self._typing.retry()
        if self._comeback is not None and self._ending is None:
            self._look_for_the_daemon(self._comeback, now)

    def _look_for_the_daemon(self, comeback: Comeback, now: float) -> None:
        comeback.check(now)
        if comeback.is_worth_a_word(now):
            words = f"orbitd has gone; waiting for it, and keys are lost. {self._wish.detach_key.hint}"
            self._terminal.write(notice(words))
        if self._link is None and (stream := comeback.attempt(now)) is not None:
            self._link = Link(stream)
            self._attach()
