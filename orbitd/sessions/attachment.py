"""One client attached to one session: what it is sent, and what happens when it does not read.

A picture is drawn by another process, and output goes on meanwhile. So output is held back from the
moment a repaint is wanted until it is there, and what the repaint shows already is dropped then:
each byte of output is either in the repaint or behind it, by its position in the journal.

A repaint may also be the answer to a request, `session.attach` or `session.refresh`. Then everything is held until that
answer has been written.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from orbit_protocol.errors import Busy, InvalidParams, NotRunning, OrbitError
from orbit_protocol.notifications import (
    DETACHED,
    EXITED,
    OUTPUT,
    REPAINT,
    DetachedNotice,
    ExitedNotice,
    Notification,
    OutputNotice,
    RepaintNotice,
    RepaintReason,
)
from orbit_protocol.params import ClientTerminal, FrameUse, SessionInput, SessionRefresh, SessionResize
from orbit_protocol.results import Empty, Refreshed
from orbit_protocol.terminal_input import InputScanner
from orbitd.rpc.connection import MAX_UNSENT_BYTES, Call, Connection
from orbitd.screens.messages import Framed
from orbitd.screens.model import Appearance, Rgb
from orbitd.sessions.frames import draw
from orbitd.sessions.program_input import EMPTY, InputQueue, InputTarget, type_input

POSITION_SECS = 1.0
"""After a question where the cursor is, so long what may be an answer or Ctrl-F3 is taken for the answer."""


class State(enum.Enum):
    """What is done with messages for the client."""

    ANSWERING = enum.auto()  # held until the answers with a picture, to its attach above all, have been written
    STREAMING = enum.auto()  # sent, or held while it waits for a repaint
    BEHIND = enum.auto()  # dropped until it has read everything; then one repaint replaces them
    ENDED = enum.auto()


class Repaint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that draw a screen, the size that they are for, and the journal's position that they show.

    `cursor_row` and `history_line` are as in the notification. `frame` is what the bytes draw, where that is a frame.
    """

    data: bytes
    cols: int
    rows: int
    position: int
    cursor_row: int = 0
    history_line: int = 0
    frame: Framed | None = None


class AttachedTo(InputTarget, Protocol):
    """What an attachment needs of its session."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def position_asked_at(self) -> float:
        """The loop's time at which its program last had an answer where the cursor is (CPR)."""

    def note_typing(self, attachment: Attachment) -> None:
        """Have the client that types own the size."""

    def resize(self, attachment: Attachment, cols: int, rows: int) -> None:
        """Set the window size of the client."""

    def frame_soon(self) -> None:
        """Send frames to the clients that take them."""

    def repaint_soon(self) -> None:
        """Send the picture to every client that waits for it."""

    def count_lines(self, attachment: Attachment, position: int) -> None:
        """Call `set_seen_line` of a client whose output ends at this position, once that is known."""

    async def refresh(self, attachment: Attachment, scrollback_lines: int) -> Repaint:
        """Return the picture as it is now. Raises: OrbitError."""

    def remove_attachment(self, attachment: Attachment) -> None:
        """Forget a client that has left."""


class Attachment:
    """A client's attachment to a session.

    Args:
        attachment_id: Unique on its connection.
        connection: The client's.
        read_only: It may neither type nor own the size.
        size: Columns and rows of its window.
        session: What it is attached to.
        counts_lines: It is sent the `history_line` with the end, too.
        frames: Whether it is sent frames: where the sizes of window and session differ, never, or always.
        after_line: How many lines of the session its window had been given before.
        appearance: What its terminal looks like; None where the client has not said.
        before: The sessions that its window has shown, newest first; None for a client that cannot be switched.

    Attributes:
        typed_at: The loop's time at which it typed last; -inf where it has not.
        is_framed: It is sent frames now, and no output.
        history_line: How many lines of the session its window has been given.
        wants_repaint: What is on its screen is out of date: output is held until `send_repaint`, or `release_output`.
        reason: Why, as the notification says it.
        least_position: A repaint that shows less than this is of no use: output before it was dropped.
        sits_in: The sessions in whose terminals the client shows this one, as they were when that was looked at last.
    """

    def __init__(
        self,
        attachment_id: str,
        connection: Connection,
        *,
        read_only: bool,
        size: tuple[int, int],
        session: AttachedTo,
        counts_lines: bool = False,
        frames: FrameUse = "auto",
        after_line: int = 0,
        appearance: Appearance | None = None,
        before: Sequence[str] | None = None,
    ) -> None:
        self.id = attachment_id
        self.connection = connection
        self.read_only = read_only
        self.size = size
        self.counts_lines = counts_lines
        self.wants_repaint = False
        self.reason: RepaintReason = "refreshed"
        self.least_position = 0
        self.sits_in: frozenset[str] = frozenset()
        self.is_framed = False
        self.history_line = after_line
        self._frames = frames
        self._frame: Framed | None = None  # what its window shows, as far as that is known
        self._is_holding = False
        self.session = session
        self._state = State.ANSWERING
        self._answers_due = 1  # answers with a picture that are not written yet
        self._seen_line: int | None = None  # of a client that is behind: how many lines had left its screen
        self._held: list[tuple[int, bytes]] = []
        self._held_bytes = 0
        self.appearance = appearance
        self.before = before
        self.typed_at = float("-inf")
        self._scanner = InputScanner()
        self._scan_timer: asyncio.TimerHandle | None = None
        self._scanned: asyncio.Future[OrbitError | None] | None = None  # done when the scanner holds nothing more
        connection.attachments[attachment_id] = self

    @property
    def is_behind(self) -> bool:
        """Whether output was dropped, since it does not read."""
        return self._state is State.BEHIND

    @property
    def is_answering(self) -> bool:
        """Whether an answer with a picture is due: one that ends now is never shown."""
        return self._state is State.ANSWERING

    @property
    def takes_repaint(self) -> bool:
        """Whether a repaint would be sent now: no answer with a picture is due, and it reads."""
        return self._state is State.STREAMING and self.wants_repaint

    def takes_frame(self) -> bool:
        """Return whether a frame would be sent now: no answer with a picture is due, and it has read the last one.

        Where it has not, a frame is asked for once it has: frames are skipped, and never queued.
        """
        return self.is_framed and self._state is State.STREAMING and self.connection.has_sent_all()

    def resize_window(self, size: tuple[int, int]) -> None:
        """Note the size of its window. What that shows then is not known: terminals rewrap."""
        if size != self.size:
            self.size, self._frame = size, None

    def follow_size(self, session_size: tuple[int, int], position: int) -> None:
        """Begin or end being sent frames, as the sizes of the session and of the window have it.

        Args:
            session_size: Columns and rows of the session.
            position: The journal's. What the client is sent next shows no less.
        """
        is_framed = self._frames == "always" or (self._frames == "auto" and self.size != session_size)
        if is_framed == self.is_framed or self._state is State.ENDED:
            return
        self.is_framed, self._frame = is_framed, None
        if is_framed:
            # The first frame replaces what is held, and what a client that is behind has not been sent.
            self._take_held()
            self.wants_repaint = self._is_holding = False
            self.least_position = position
            if self._state is State.BEHIND:
                self._state = State.STREAMING
        else:
            self.expect_repaint(position, "resized")
            if self._state is State.STREAMING and self.connection.is_congested:
                self._state = State.BEHIND

    def require_open(self) -> None:
        """Raise NotRunning where it has ended: the client left, the program ended, or it was detached."""
        if self._state is State.ENDED:
            raise NotRunning("The attachment was ended before it began", hint="Look at the session, then attach again.")

    def begin_refresh(self) -> None:
        """Hold everything back until a picture has been answered: by `begin`, then `start_streaming`.

        Raises:
            NotRunning: It has ended.
        """
        self.require_open()
        self._answers_due += 1
        self._state, self._seen_line = State.ANSWERING, None
        self.wants_repaint = False

    def begin(self, repaint: Repaint, *, is_complete: bool) -> None:
        """Drop the output that a repaint shows which is about to be answered.

        Args:
            repaint: That repaint.
            is_complete: It is the picture, and not only what stands in for one that is not there yet.
        """
        if self.is_framed:
            self._frame = repaint.frame
            return
        self.wants_repaint = self._is_holding = not is_complete or repaint.position < self.least_position
        self._seen_line = repaint.history_line if is_complete else None
        self.history_line = repaint.history_line
        if is_complete:
            self._drop_shown(repaint.position)

    def start_streaming(self) -> None:
        """Send what is held, then every message at once: an answer with a picture has been written, or has failed."""
        self._answers_due -= 1
        if self._answers_due:
            return  # the next answer of a batch
        if self._state is State.ANSWERING:
            self._state = State.STREAMING
        if self.wants_repaint and self._state is State.STREAMING:
            self.session.repaint_soon()
            return
        if self.is_framed:
            self.session.frame_soon()
        # Also where it has ended meanwhile: the client then still gets the notification that says so.
        for _, message in self._take_held():
            self.connection.send(message)

    def send_output(self, data: bytes, position: int) -> None:
        """Send output that ends at a position of the journal, unless the client is behind, or sent frames."""
        if self.is_framed:
            return
        if self._state is State.BEHIND:
            self.least_position = position
        elif self._state is not State.ENDED:
            self._send(_encode(OUTPUT, OutputNotice(attachment_id=self.id, data=data)), position)

    def fail_refresh(self) -> None:
        """Go on: no picture can be answered now, and what was left out meanwhile is repainted."""
        self._frame = None
        self.expect_repaint(0, self.reason)
        self.start_streaming()

    def expect_repaint(self, position: int, reason: RepaintReason) -> None:
        """Hold output back until `send_repaint`: the picture at this position differs from the client's."""
        if self._state is not State.ENDED and not self.is_framed:
            if not self.wants_repaint or self.reason != "behind":  # that some is missing must not get lost
                self.reason = reason
            self.wants_repaint = self._is_holding = True
            self.least_position = max(self.least_position, position)

    def hold_output(self) -> None:
        """Hold output back again until `send_repaint`."""
        self._is_holding = self.wants_repaint

    def release_output(self) -> None:
        """Send output on to what the client shows: the repaint is late. It must then show all that was sent."""
        self._is_holding = False
        if self._state is State.STREAMING:
            for position, message in self._take_held():
                self._send(message, position)

    def send_repaint(self, repaint: Repaint) -> None:
        """Send a picture, and the output behind it; nothing happens where it shows too little."""
        if not self.takes_repaint or repaint.position < self.least_position:
            return
        self.wants_repaint = self._is_holding = False
        self._drop_shown(repaint.position)
        held = self._take_held()
        self._send(self._repaint_notice(repaint), repaint.position)
        for position, message in held:
            self._send(message, position)

    def send_frame(self, frame: Framed) -> None:
        """Send what differs in a frame from the one before; nothing happens where it shows too little."""
        if not self.is_framed or self._state is not State.STREAMING or frame.position < self.least_position:
            return
        notice = self._frame_notice(frame)
        if notice is not None:
            self.connection.send(notice)

    def _frame_notice(self, frame: Framed) -> bytes | None:
        before, self._frame = self._frame, frame
        data = draw(frame, before)
        if not data:
            return None
        notice = RepaintNotice(
            attachment_id=self.id,
            data=data,
            cols=self.size[0],
            rows=self.size[1],
            reason="frame",
            cursor_row=frame.row,
            history_line=self.history_line,
        )
        return _encode(REPAINT, notice)

    def _repaint_notice(self, repaint: Repaint) -> bytes:
        lost = 0
        if self.reason == "behind" and self._seen_line is not None:
            lost = max(0, repaint.history_line - self._seen_line)
        self._seen_line, self.history_line = None, repaint.history_line
        notice = RepaintNotice(
            attachment_id=self.id,
            data=repaint.data,
            cols=repaint.cols,
            rows=repaint.rows,
            reason=self.reason,
            lost_lines=lost,
            cursor_row=repaint.cursor_row,
            history_line=repaint.history_line,
        )
        return _encode(REPAINT, notice)

    def set_seen_line(self, line: int) -> None:
        """Record how many lines had left the screen where the output of a client ended that is behind."""
        if self._state is State.BEHIND or (self.wants_repaint and self.reason == "behind"):
            self._seen_line = line

    def send_exited(
        self,
        exit_code: int | None,
        exit_signal: int | None,
        last: Repaint | None,
        history_line: int | None = None,
        last_frame: Framed | None = None,
    ) -> None:
        """Send the last screen to a client that has not all of it, then the exit, and end."""
        if self.is_framed:
            history_line = self.history_line
            frame = None if last_frame is None else self._frame_notice(last_frame)
            if frame is not None and self._state is State.ANSWERING:
                self._hold(frame, sys.maxsize)
            elif frame is not None:
                self.connection.send(frame)
        if self._state is State.BEHIND:
            self._state, self.wants_repaint, self.reason = State.STREAMING, True, "behind"
        if last is not None and self.wants_repaint:
            self.least_position = 0  # nothing newer will come
            if self._state is State.ANSWERING:
                self._drop_shown(last.position)
                self._held.insert(0, (last.position, self._repaint_notice(last)))
            else:
                self.send_repaint(last)
        self._release_held()
        line = history_line if self.counts_lines else None
        notice = ExitedNotice(attachment_id=self.id, exit_code=exit_code, exit_signal=exit_signal, history_line=line)
        self._send(_encode(EXITED, notice))
        self.end()

    # Its input. It stands before the session as what is typed into: `program_input` has the calls that wait.

    @property
    def unwritten(self) -> InputQueue:
        """What the program's terminal has not taken yet."""
        return self.session.unwritten

    @property
    def scanned(self) -> asyncio.Future[OrbitError | None] | None:
        """Done when what is held of the input has been written or dropped, with an error if it cannot be; or None."""
        return self._scanned

    def write_input(self, data: bytes) -> bytes | None:
        """Write what the client sends to the program, but for what its terminal answers.

        The end of it may be the beginning of an answer, and is held then, until more comes or a moment has passed.

        Returns:
            The rest, which the terminal does not take now; None where there is none.

        Raises:
            NotRunning: The program has ended.
            Busy: It does not read, not even what was held before.
        """
        held = self._scanner.held
        position_asked = b"R" in data and _now() - self.session.position_asked_at < POSITION_SECS
        passed, is_typing = self._scanner.receive(data, position_asked=position_asked)
        secs, rest = self._scanner.flush_secs, None
        if is_typing and self._state is not State.ENDED:
            self.typed_at = _now()
            self.session.note_typing(self)  # first: the program is to handle the key at the new size
        if secs is None and self._scanned is None:  # nothing is held, nor was: the usual case
            return self.session.write_input(passed) if passed else None
        if passed:
            rest = self._write_scanned(passed, held if passed.startswith(held) else b"")
        elif secs is None:
            self._settle_scanned(None)
        if secs is not None:
            if self._scan_timer is not None:
                self._scan_timer.cancel()
            loop = asyncio.get_running_loop()
            self._scan_timer = loop.call_later(secs, self.flush_input)
            self._scanned = self._scanned or loop.create_future()
        return rest

    def _write_scanned(self, passed: bytes, held: bytes) -> bytes | None:
        """Write what has passed, which begins with what was held, and return the rest; that of `held` is queued here.

        The calls of what was held wait for `scanned`, and have the error too where this raises one.
        """
        try:
            rest = self.session.write_input(passed)
            if rest is not None and (left := len(held) - len(passed) + len(rest)) > 0:
                queued = self.unwritten.add_call(rest[:left], 0)
                scanned, self._scanned = self._scanned, None
                if scanned is not None:
                    queued.done.add_done_callback(lambda done: _settle(scanned, done.result()))
                rest = rest[left:] or None
        except OrbitError as error:
            self._settle_scanned(error)
            raise
        self._settle_scanned(None)
        return rest

    def _settle_scanned(self, error: OrbitError | None) -> None:
        if self._scan_timer is not None:
            self._scan_timer.cancel()
            self._scan_timer = None
        scanned, self._scanned = self._scanned, None
        if scanned is not None:
            _settle(scanned, error)

    def flush_input(self) -> None:
        """Write what is held of the client's input: no more of it has come, or something else follows."""
        held = self._scanner.flush()
        with contextlib.suppress(OrbitError):  # the calls that wait have it
            if held:
                if self._state is not State.ENDED:
                    self.typed_at = _now()
                    self.session.note_typing(self)
                self._write_scanned(held, held)
        self._settle_scanned(None)

    def detach(self, history_line: int | None = None, *, switched_to: str | None = None) -> None:
        """Notify the client that its attachment was ended by a request of another one, and end.

        Args:
            history_line: How many lines have left the session's screen.
            switched_to: The session that the client is to show now, if that is why.
        """
        if self.is_framed:
            history_line = self.history_line
        self._release_held()
        notice = DetachedNotice(
            attachment_id=self.id,
            reason="detached" if switched_to is None else "switched",
            history_line=history_line if self.counts_lines else None,
            session_id=switched_to,
        )
        self._send(_encode(DETACHED, notice))
        self.end()

    def end(self) -> None:
        """Send nothing more, but what is held for after the attach's answer. Again does nothing."""
        if self._state is State.ENDED:
            return
        self._state = State.ENDED
        if self._scan_timer is not None:
            self.flush_input()
        self.connection.attachments.pop(self.id, None)
        self.session.remove_attachment(self)

    def _release_held(self) -> None:
        """Send what waits for a repaint that will not come any more."""
        self.wants_repaint = self._is_holding = False
        if self._state is State.STREAMING:
            for _, message in self._take_held():
                self.connection.send(message)

    def _take_held(self) -> list[tuple[int, bytes]]:
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    def _drop_shown(self, position: int) -> None:
        self._held = [each for each in self._held if each[0] > position]
        self._held_bytes = sum(len(message) for _, message in self._held)

    def _send(self, message: bytes, position: int = sys.maxsize) -> None:
        if self._state is State.ANSWERING or (self._is_holding and position < sys.maxsize):
            self._hold(message, position)
        elif self._state is not State.ENDED:  # whoever is behind is sent the end all the same
            self.connection.send(message)
            if self.wants_repaint:
                self.least_position = max(self.least_position, position)
            # What has been sent stays in the transport's buffer, in order. Only what comes from now on is
            # dropped, so the buffer is bounded, and the client never misses a part in the middle unnoticed:
            # the repaint replaces all of it.
            if self.connection.is_congested and self._state is State.STREAMING:
                self._state = State.BEHIND
                if position < sys.maxsize:
                    self.session.count_lines(self, position)

    def _hold(self, message: bytes, position: int) -> None:
        # In a batch the answer waits for the requests after the attach, which may be a `session.wait` of a day.
        if self._held_bytes > MAX_UNSENT_BYTES and position < sys.maxsize:
            self.wants_repaint = self._is_holding = True
            self.reason = "behind"
            self.least_position = position
            self._held, self._held_bytes = [], 0
            return
        self._held.append((position, message))
        self._held_bytes += len(message)

    def handle_drained(self) -> None:
        """Go on: a client that was behind has read everything, and is sent the picture."""
        if self._state is State.BEHIND:
            self._state, self.wants_repaint, self._is_holding = State.STREAMING, True, True
            self.reason = "behind"
            self.session.repaint_soon()
        elif self.is_framed and self._state is State.STREAMING:
            self.session.frame_soon()


# The methods that concern an attachment. It belongs to the connection that made it: no other one finds it.


def write_input(call: Call, q: SessionInput) -> Empty | Coroutine[Any, Any, Empty]:
    """Answer `session.input`: write to the input of an attached session."""
    attachment = require(call.connection, q.attachment_id)
    if attachment.read_only:
        raise InvalidParams("`attachment_id` is of a read-only attachment", hint="Attach without read_only.")
    outcome = type_input(call, attachment, q.data)
    if not isinstance(outcome, Empty):
        return _when_typed(call, attachment, outcome)
    scanned = attachment.scanned
    if scanned is None or call.is_notification:
        return outcome
    try:
        call.begin_wait()
    except Busy:
        return _type_held(attachment, scanned)
    return _when_scanned(call, attachment, scanned)


async def _when_typed(call: Call, attachment: Attachment, outcome: Coroutine[Any, Any, Empty]) -> Empty:
    """Return when all input of a call has been taken, what is held of it included."""
    await outcome
    return EMPTY if attachment.scanned is None else await _when_scanned(call, attachment, attachment.scanned)


async def _when_scanned(call: Call, attachment: Attachment, scanned: asyncio.Future[OrbitError | None]) -> Empty:
    try:
        error = await asyncio.shield(scanned)  # other calls may wait for it too
    except asyncio.CancelledError:
        if not call.take_cancel():
            raise  # its client has gone, or orbitd stops
        return _type_held(attachment, scanned)
    if error is not None:
        raise error
    return EMPTY


def _type_held(attachment: Attachment, scanned: asyncio.Future[OrbitError | None]) -> Empty:
    """Answer a call that may not wait for what is held: that is typed now. It cannot be taken back, as others share it.

    Where the program does not read, these few bytes are typed like a notification's.
    """
    if attachment.scanned is scanned:
        attachment.flush_input()
    error = scanned.result() if scanned.done() else None
    if error is not None:
        raise error
    return EMPTY


def _now() -> float:
    return asyncio.get_running_loop().time()


def _settle(future: asyncio.Future[OrbitError | None], error: OrbitError | None) -> None:
    if not future.done():
        future.set_result(error)


def appearance_of(terminal: ClientTerminal) -> Appearance:
    """Return what a client has said about its terminal as the screens process takes it."""
    return Appearance(
        foreground=rgb(terminal.foreground) if terminal.foreground else None,
        background=rgb(terminal.background) if terminal.background else None,
        palette=tuple(rgb(color) for color in terminal.palette or ()),
        kitty_graphics=terminal.kitty_graphics,
    )


def rgb(color: str) -> Rgb:
    """Return the parts of a colour that is written `#rrggbb`."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def resize(call: Call, q: SessionResize) -> Empty:
    """Answer `session.resize`: set the size of an attached client's window."""
    attachment = require(call.connection, q.attachment_id)
    attachment.session.resize(attachment, q.cols, q.rows)
    return EMPTY


async def refresh(call: Call, q: SessionRefresh) -> Refreshed:
    """Answer `session.refresh`: draw the picture again, with lines of its history before it."""
    attachment = require(call.connection, q.attachment_id)
    attachment.begin_refresh()
    try:
        repaint = await attachment.session.refresh(attachment, q.scrollback_lines or 0)
        attachment.require_open()
    except BaseException:
        attachment.fail_refresh()
        raise
    attachment.begin(repaint, is_complete=True)
    call.after_answer(attachment.start_streaming, attachment.fail_refresh)
    return Refreshed(repaint=repaint.data, history_line=repaint.history_line)


def require(connection: Connection, attachment_id: str) -> Attachment:
    """Return an attachment of a connection. Raises: NotRunning."""
    attachment = connection.attachments.get(attachment_id)
    if not isinstance(attachment, Attachment):
        raise NotRunning("No attachment of this connection has this id, or it has ended", hint="Attach again.")
    return attachment


N = TypeVar("N", bound=msgspec.Struct)


def _encode(notification: Notification[N], params: N) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "method": notification.name, "params": params})
