"""What a session's program has said, rung and printed: the marks on the session, and the events of it.

    screens process --Fed--> Picture --> News --record--> Outlet --> store (`record_events`), which publishes it
                               terminal --> News --publish_live--> Outlet --> broker

A picture that is built again reads what was said once more; `Picture` passes on what is behind the highest position
that was taken. That is kept in the stored events, so that another daemon goes on from there: an event, its position and
the marks of its session are committed together, and before the snapshot that covers them (`Outlet.settle`).

Of a private session nothing is stored, and live events are without contents: its marks are here, and nowhere else.

Everything here runs on the event loop, at each output of each program: nothing is parsed, and a session that is quiet
has no timer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from orbit_protocol.event_data import Dropped, Folder, OutputSeen, ProgressChange, Title
from orbit_protocol.results import Empty
from orbit_protocol.text import text_and_bytes, to_text
from orbit_protocol.types import CommandFinished, Progress, ProgressState, Session, TerminalNotification
from orbitd.manager import SessionManager
from orbitd.screens import messages as m
from orbitd.screens.said import Finished
from orbitd.store.events import NewEvent
from orbitd.store.rows import Marks

SAID_A_SECOND, SAID_AT_ONCE = 5, 50
"""How many events of what a session's programs say are stored; the rest is counted."""

BELL_SECS = 1.0
"""The least time between two events of a bell."""

DROPPED_SECS = 2.0
"""What was not stored within so many seconds is one event."""

PROGRESS_SECS = 5.0
"""The least time between two writes for the progress alone."""

SILENCE_SECS, SILENCE_STEP_SECS = 30.0, 1.0
"""How long a session has printed nothing when it is silent, and by how much later that may be noticed."""

_PROGRESS_STATES: dict[int, ProgressState] = {1: "normal", 2: "error", 3: "indeterminate", 4: "paused"}

Event = tuple[str, bytes, int | None]
"""Its kind, its data as JSON, and its position."""

_encode = msgspec.json.Encoder().encode


class LiveEvents(Protocol):
    """Where events go that are never stored."""

    @property
    def has_live_listeners(self) -> bool:
        """Whether anybody listens."""

    def publish_live(self, kind: str, session_id: str, data: bytes | Struct) -> None:
        """Publish an event; bytes are JSON."""


class Outlet:
    """Where the events of all sessions go.

    Args:
        manager: The store.

    Attributes:
        live: Where live events go; None before the daemon has set it.
    """

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self.live: LiveEvents | None = None

    def record(self, session_id: str, marks: Marks, events: Sequence[Event] = ()) -> None:
        """Have events and the marks of their session stored."""
        session = self._manager.cached_session(session_id)
        workspace_id = None if session is None else session.workspace_id
        new = [
            NewEvent(kind=kind, session_id=session_id, workspace_id=workspace_id, data=data, position=position)
            for kind, data, position in events
        ]
        self._manager.record_said(new, {session_id: marks})

    async def settle(self) -> None:
        """Return once what was recorded is committed: no snapshot may cover output that was not heard."""
        await self._manager.said_settled()

    @property
    def has_live_listeners(self) -> bool:
        """Whether anybody listens to live events."""
        return self.live is not None and self.live.has_live_listeners

    def publish_live(self, kind: str, session_id: str, data: Struct) -> None:
        """Publish an event that is never stored."""
        if self.live is not None:
            self.live.publish_live(kind, session_id, data)


class RateLimit:
    """A token bucket: so many at once, then so many a second."""

    def __init__(self, now: float, a_second: float = SAID_A_SECOND, at_once: float = SAID_AT_ONCE) -> None:
        self._a_second, self._at_once = a_second, at_once
        self._tokens, self._at = float(at_once), now

    def take(self, now: float) -> bool:
        """Return whether one more is within the limit, and count it then."""
        self._tokens = min(self._at_once, self._tokens + (now - self._at) * self._a_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class News:
    """The news of one session.

    Args:
        session_id: Its id.
        outlet: Where events go.
        cwd: Returns the folder that its shell is in.
        silence_secs: How long it prints nothing until it is silent.
        on_command: Called with each command that has finished, and the position at which it had.
    """

    def __init__(
        self,
        session_id: str,
        outlet: Outlet,
        cwd: Callable[[], bytes | None],
        silence_secs: float = SILENCE_SECS,
        on_command: Callable[[CommandFinished, int], None] = lambda _, __: None,
    ) -> None:
        self._id = session_id
        self._outlet = outlet
        self._cwd = cwd
        self._on_command = on_command
        self._silence_secs = silence_secs
        self._loop = asyncio.get_running_loop()
        self._marks: Marks | None = None  # until they are known
        self._recorded = Marks()
        self._is_watched = self._is_private = False
        self._facts: m.Facts | None = None
        self._title = ""
        self._is_remote = False
        self._limit = RateLimit(self._loop.time())
        self._next_bell = self._next_progress = float("-inf")
        self._dropped = self._dropped_to = 0
        self._dropped_timer: asyncio.TimerHandle | None = None
        self._printed_at = 0.0
        self._is_silent = False
        self._silence_timer: asyncio.TimerHandle | None = None

    # The marks

    def restore(self, session: Session) -> None:
        """Take the marks of a session as they are stored, unless they are known."""
        self._is_private = session.config.record == "none"
        if self._marks is None:
            self._title, self._is_remote = session.title or "", session.session_type == "ssh"
            self._marks = self._recorded = Marks(**{each: getattr(session, each) for each in Marks.__struct_fields__})

    def fields(self) -> dict[str, object]:
        """Return the fields of its `Session`; none while they are not known."""
        return {} if self._marks is None else asdict(self._marks)

    def save(self) -> None:
        """Have the marks stored where they have changed."""
        if self._marks is not None and self._marks != self._recorded:
            self._record(())

    def forget(self, *, command: bool = True, notification: bool = True) -> None:
        """Forget what its program has said: title and bell, and its last command and notification where that is wanted.

        Stored once `Outlet.settle` returns.
        """
        before = self._marks or Marks()
        self._title = ""
        self._marks = Marks(
            last_command=None if command else before.last_command,
            notification=None if notification else before.notification,
            progress=before.progress,
        )
        self._record(())

    def _mark(self, **changes: object) -> None:
        self._marks = replace(self._marks or Marks(), **changes)

    def _record(self, events: Sequence[Event]) -> None:
        self._recorded = self._marks = self._marks or Marks()
        if not self._is_private:
            self._outlet.record(self._id, self._marks, events)

    def set_watched(self, *, is_watched: bool) -> None:
        """Note whether a client that may type follows, which sees everything."""
        if is_watched and not self._is_watched and self._marks is not None:
            self._mark(bell=False, notification=None, unseen_output=False)
            self.save()
        self._is_watched = is_watched

    def mark_unseen(self) -> None:
        """Note that there is output; it is unseen while nobody follows."""
        if not self._is_watched and (self._marks is None or not self._marks.unseen_output):
            self._mark(unseen_output=True)
            self.save()

    # What its terminal and its picture report

    def handle_output(self, moment: float) -> None:
        """Handle new output, which has come at a moment in seconds since the epoch."""
        self.mark_unseen()
        self._printed_at = self._loop.time()
        if self._silence_timer is None:
            self._start_silence_timer()
            if self._is_silent:
                self._is_silent = False
                self._outlet.publish_live("session.active", self._id, Empty())
        if self._outlet.has_live_listeners:
            at = datetime.fromtimestamp(moment, UTC)
            seen = OutputSeen(last_output_at=at, unseen_output=not self._is_watched)
            self._outlet.publish_live("session.output_seen", self._id, seen)

    def _start_silence_timer(self) -> None:
        # To the step: sessions that fall silent at about the same time wake the loop once.
        step = min(SILENCE_STEP_SECS, self._silence_secs / 8)
        due = math.ceil((self._printed_at + self._silence_secs) / step) * step
        self._silence_timer = self._loop.call_at(due, self._look_for_silence)

    def _look_for_silence(self) -> None:
        # One timer for all output of a while: it is started again for what is left since the last of it.
        if self._printed_at + self._silence_secs > self._loop.time():
            self._start_silence_timer()
            return
        self._silence_timer, self._is_silent = None, True
        self._outlet.publish_live("session.silent", self._id, Empty())

    def handle_folder(self, cwd: bytes) -> None:
        """Handle a new folder."""
        text, companion = text_and_bytes(cwd)
        folder = Folder(cwd=None) if self._is_private else Folder(cwd=text, cwd_bytes=companion)
        self._outlet.publish_live("session.cwd", self._id, folder)

    def handle_facts(self, facts: m.Facts) -> None:
        """Handle what its program shows now: title and progress."""
        if self._marks is None or facts is self._facts:
            return
        before, self._facts = self._facts, facts
        # A title that was stored stays until there is another one.
        if facts.title != self._title and (facts.title or before is not None):
            self._title = facts.title
            title = Title(title=None if self._is_private else facts.title or None)
            self._outlet.publish_live("session.title", self._id, title)
        progress = progress_of(facts)
        if progress != self._marks.progress:
            self._mark(progress=progress)
            if (now := self._loop.time()) >= self._next_progress:
                self._next_progress = now + PROGRESS_SECS
                self.save()
            shown = ProgressChange(progress=None if self._is_private else progress)
            self._outlet.publish_live("session.progress", self._id, shown)

    def handle_said(self, fed: m.Fed) -> None:
        """Handle what its program has said; each time comes once."""
        now, events, dropped = self._loop.time(), list[Event](), fed.unsaid
        cwd = self._folder() if any(isinstance(each, Finished) for each in fed.said) else None
        for each in fed.said:
            if isinstance(each, Finished):
                command, code = each.command, each.exit_code
                finished = CommandFinished(command=command, exit_code=code, duration_secs=each.duration_secs, cwd=cwd)
                self._mark(last_command=finished)
                self._on_command(finished, each.position)
                event = ("command.finished", _encode(finished), each.position)
            else:
                note = TerminalNotification(title=each.title, body=each.body, urgency=each.urgency)
                if not self._is_watched:
                    self._mark(notification=note)
                event = ("terminal.notification", _encode(note), each.position)
            if self._limit.take(now):
                events.append(event)
            else:
                dropped += 1
        if fed.bells and not self._is_watched:
            self._mark(bell=True)
            if now >= self._next_bell and self._limit.take(now):
                self._next_bell = now + BELL_SECS
                events.append(("terminal.bell", b"{}", None))
        if events or (not dropped and self._marks != self._recorded):
            self._record(events)
        if dropped:
            self._dropped, self._dropped_to = self._dropped + dropped, fed.position
            if self._dropped_timer is None:
                self._dropped_timer = self._loop.call_later(DROPPED_SECS, self._record_dropped)

    def _folder(self) -> str | None:
        """Return the folder of a command; of another machine it is not known."""
        cwd = None if self._is_remote else self._cwd()
        return None if cwd is None else to_text(cwd)

    def _record_dropped(self) -> None:
        if self._dropped_timer is not None:
            self._dropped_timer.cancel()
            self._dropped_timer = None
        if self._dropped:
            # With a position: after a kill it is not heard once more.
            self._record((("terminal.dropped", _encode(Dropped(count=self._dropped)), self._dropped_to),))
            self._dropped = 0

    def end(self, *, has_ended: bool) -> None:
        """Store what is left and stop all timers, since the program has ended or the daemon stops."""
        if has_ended and self._marks is not None and self._marks.progress is not None:
            self._mark(progress=None)
        self._record_dropped()
        self.save()
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None


def progress_of(facts: m.Facts) -> Progress | None:
    """Return the progress that a program shows."""
    state, percent = facts.progress or (0, -1)
    name = _PROGRESS_STATES.get(state)
    return None if name is None else Progress(state=name, percent=percent if 0 <= percent <= 100 else None)
