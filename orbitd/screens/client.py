"""orbitd's side of the screens processes: which picture is where, and what becomes of it when its process fails.

    Screens     the template, the processes, which of them is shared; one a daemon
    Process     one screens process: its socket, its note, its pictures
    Picture     the picture of one session: built on demand, rebuilt after a failure, asked for repaints and states
    Child       a fork of the template that draws nothing: a search

All of it runs on the event loop and waits for nobody: a process that hangs keeps its own pictures waiting and nothing
else. A picture whose session nobody looks at has no emulator at all (`PictureState.ABSENT`).

**Whose fault it was.** A process notes in shared memory what it feeds before it feeds it (`note`). When it ends, or
spends too long on one piece, the session in the note is the offender: it is rebuilt in a process of its own, the others
in a shared one. If it fails again at the same place, that place is skipped: the records are kept aside, and a blank
screen goes on behind them under a divider. After `MAX_SKIPPED` such places the picture is damaged: it is fed nothing
more until its program has been quiet for `QUIET_SECS`.

**Slow pieces.** While anything is unanswered a timer looks at the note. Where a piece takes longer than `SLOW_SECS` the
other pictures that somebody waits for are rebuilt in another process at once, from snapshot and journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from orbit_os.python import python_command
from orbit_protocol.errors import Busy, InvalidParams, NotRunning, OrbitError, SnapshotNotFound
from orbit_protocol.types import ScreenStatus
from orbitd.background_tasks import BackgroundTasks
from orbitd.installation import this_installation
from orbitd.keeper.frames import Framer, Malformed
from orbitd.logs import event
from orbitd.screens import messages as m
from orbitd.screens import note as notes
from orbitd.screens.model import Appearance, Colors, Cut
from orbitd.screens.note import Kind, Note, Work

log = logging.getLogger("orbitd.screens")

GROWN_DELAY_SECS = 0.004
"""How long output may wait before the screens process is notified of it: a flood is fed in few and large steps, and
a key's echo reaches its client before the other process competes for the processor."""

SLOW_SECS = 0.1
SILENT_SECS = 2.0
"""A process that answers nothing for so long, and notes no work either, is stopped or starved."""

MAX_PIECE_SECS = 30.0
MAX_LAG_BYTES, MIN_LAG_BYTES, MAX_LAG_SECS = 8 << 20, 256 << 10, 0.5
"""A picture that is further behind holds its program back: in bytes, and in the time that it takes to be fed them. Some
unfinished strings are fed at a hundredth of the speed of text, and a client that asks for the screen waits for that."""

MEASURED_BYTES = 4096
MAX_UNFILED_BYTES = 16 << 20
"""How much output of one session is kept in memory while the disk is full; older output is missing then."""

MAX_SKIPPED = 3
QUIET_SECS = 1.0
MAX_KILLED = 5
"""How often a process may be killed from outside at one place before that place is skipped all the same."""

MAX_SEARCHES = 4096
"""How many calls may wait for texts of one session."""

TEMPLATE_RETRY_SECS = 1.0
MAX_TEMPLATE_RETRY_SECS = 60.0
MAX_FAILED_STARTS = 6
STATUS_SECS = 0.2
_READ = 1 << 18
_NO_LIMIT = 1 << 60


class Restart(Struct, frozen=True, kw_only=True):
    """Where a picture begins again, blank, under a divider: what is before `position` could not be drawn."""

    position: int
    cols: int
    rows: int
    divider: str


class Loaded(Struct, frozen=True, kw_only=True):
    """What a picture is built from: a snapshot, and the journal position that it covers."""

    base: m.Base
    position: int


class Recorded(Struct, frozen=True, kw_only=True):
    """What of a session's text is in its history already.

    Attributes:
        takes_text: Whether its text is recorded at all.
        position: The journal's position up to which it is.
        line: The number of the first line that is not.
    """

    takes_text: bool = False
    position: int = 0
    line: int = 0


class Source(Protocol):
    """The session that a picture belongs to."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""

    @property
    def position(self) -> int:
        """The journal's position: where its next record begins."""

    @property
    def filed_position(self) -> int:
        """Where the records end that are in the journal's file; less than `position` on a full disk."""

    @property
    def recorded(self) -> Recorded:
        """What of its text is in its history."""

    async def load_picture(self) -> Loaded:
        """Return the newest snapshot that can be used. Raises: OrbitError."""

    def journal_readers(self, *, newest: bool) -> list[tuple[int, int]]:
        """Return new read-only descriptors of the journal's files, or of its newest, and their bases; oldest first."""

    def gap(self, since: int) -> int:
        """Return how much of the journal is missing between a position and the beginning of its oldest file."""

    def handle_fed(self, replies: bytes) -> None:
        """The picture has moved on: facts, `held` and `fed` are new."""

    def handle_said(self, fed: m.Fed) -> None:
        """The program has said something, or has rung; each time comes once."""

    def handle_skipped(self, start: int, end: int) -> None:
        """Records could not be drawn: keep them aside. The picture goes on behind them, and should be saved."""


class PictureState(enum.Enum):
    """Where a picture is."""

    ABSENT = "absent"  # nowhere: nobody needs it
    LOADING = "loading"  # its snapshot is being read
    OPENING = "opening"  # a process has been asked to build it
    OPEN = "open"
    DAMAGED = "damaged"  # it is fed nothing until its program is quiet


class _Request(Struct):
    """A request that is not answered yet; it is sent again when its picture had to be rebuilt."""

    message: m.Paint | m.Frame | m.Count | m.Save | m.Render
    answer: asyncio.Future[Any]


class _Search(Struct):
    """A text that somebody waits for; it is sent again when its picture had to be rebuilt."""

    message: m.Watch
    line: asyncio.Future[str]


class Picture:
    """The picture of one session.

    Args:
        source: The session.
        screens: Where pictures are built.

    Attributes:
        state: See `PictureState`.
        is_failed: It was lost by a failure and is not back yet.
        fed: The position that it has reached.
        facts: What the program has said about itself, its title say; they stay when the picture is closed. While it is
            built again they are not those of an older screen.
        has_facts: They are known, since it has been built once.
        held: About how much memory it takes, in bytes.
        history_line: How many lines had left the screen when it was last drawn, saved or asked; None before.
        appearance: What questions about colours and graphics are answered with; None before a client has given it.
    """

    def __init__(self, source: Source, screens: Screens) -> None:
        self._source = source
        self._screens = screens
        self.state = PictureState.ABSENT
        self.is_failed = False
        self.fed = 0
        self.facts = self._facts = m.Facts()
        self.has_facts = False
        self.held = 0
        self._trim_sent = self._trimmed = 0  # the numbers of the last trims
        self.history_line: int | None = None
        self.appearance: Appearance | None = None
        self.process: Process | None = None
        self.restart: Restart | None = None
        self._requests: dict[int, _Request] = {}
        self._searches: dict[int, _Search] = {}
        self._opening = 0
        self._grown_sent = 0
        self._fed_at = 0.0
        self._bytes_a_sec = MAX_LAG_BYTES / MAX_LAG_SECS
        self._saved = 0  # the newest snapshot's position, as far as it was saved here
        self._answered = 0  # questions before this position have had their answers
        self._heard = 0  # what was said up to this position has been taken
        self._is_own = False
        self._was_moved = False
        self._strike: tuple[Kind, int] | None = None
        self._killed = 0
        self._skipped = 0
        self._base_level = 0  # 0: the native state; 1: the portable bytes alone; 2: a blank screen
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._unfiled: deque[tuple[int, bytes]] = deque()
        self._unfiled_bytes = 0

    @property
    def session_id(self) -> str:
        """Whose it is."""
        return self._source.id

    @property
    def status(self) -> ScreenStatus:
        """`ok`, `rebuilding` or `damaged`: what clients are shown as `Session.screen`."""
        if self.state is PictureState.DAMAGED:
            return "damaged"
        return "rebuilding" if self.is_failed else "ok"

    @property
    def lag(self) -> int:
        """How many bytes of the journal it has not been fed; 0 while that must not hold the program back."""
        if self.is_failed or self.state in (PictureState.ABSENT, PictureState.DAMAGED):
            return 0
        return self._source.position - self.fed

    @property
    def is_too_far_behind(self) -> bool:
        """Whether its program must be held back: beyond `MAX_LAG_BYTES`, or what it is fed within `MAX_LAG_SECS`."""
        return self.lag > self._max_lag()

    @property
    def has_caught_up(self) -> bool:
        """Whether a program that was held back may go on."""
        return self.lag <= self._max_lag() // 2

    def _max_lag(self) -> int:
        return min(MAX_LAG_BYTES, max(MIN_LAG_BYTES, int(self._bytes_a_sec * MAX_LAG_SECS)))

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for it now: for an answer, for a text, or for output to be fed."""
        return bool(self._requests or self._searches) or self._source.position > self.fed

    # What the session does

    def grown(self) -> None:
        """Feed what the journal has now, soon."""
        if self.state is PictureState.OPEN and self.process is not None:
            self.process.feed_soon(self)
        elif self.state is PictureState.DAMAGED:
            self._wait_for_quiet()
        else:
            self.wake()

    def data(self, records: list[tuple[int, bytes]]) -> None:
        """Feed records that are in no file, since the disk is full; they are kept here until they are saved."""
        for position, record in records:
            self._unfiled.append((position, record))
            self._unfiled_bytes += len(record)
            # Also while it is being built: `_open` has sent only what there was then.
            if self.state in (PictureState.OPENING, PictureState.OPEN) and self.process is not None:
                self._send_data(self.process, position, record)
        while self._unfiled_bytes > MAX_UNFILED_BYTES:
            self._unfiled_bytes -= len(self._unfiled.popleft()[1])

    def _send_data(self, process: Process, position: int, record: bytes) -> None:
        process.send(m.Data(session=self._source.id, position=position, record=record))
        self._grown_sent = position

    def follow(self) -> None:
        """Read the journal's new file from now on."""
        if self.process is not None and self.state in (PictureState.OPENING, PictureState.OPEN):
            self._send_follow(self.process, newest=True)

    def trim(self, size: int) -> None:
        """Drop the oldest history down to about `size` bytes."""
        if self.state is PictureState.OPEN and self.process is not None:
            self._trim_sent = self._screens.next_request()
            self.process.send(m.Trim(number=self._trim_sent, session=self._source.id, size=size))

    def trim_before(self, line: int) -> bool:
        """Drop the history before a line, before what is asked from now on; return False where it is not open."""
        if self.state is not PictureState.OPEN or self.process is None:
            return False
        self._trim_sent = self._screens.next_request()
        self.process.send(m.Trim(number=self._trim_sent, session=self._source.id, size=_NO_LIMIT, before_line=line))
        return True

    @property
    def is_trimming(self) -> bool:
        """Whether `held` is still what it was before the last trim."""
        return self._trimmed < self._trim_sent

    def set_appearance(self, appearance: Appearance) -> None:
        """Answer questions about colours and graphics with these from now on, also when it is built again."""
        if appearance == self.appearance:
            return
        self.appearance = appearance
        if self.process is not None and self.state in (PictureState.OPENING, PictureState.OPEN):
            self.process.send(m.SetAppearance(session=self._source.id, appearance=appearance))

    async def paint(self, at_least: int, scrollback_lines: int = 0, after_line: int | None = None) -> m.Painted:
        """Return the bytes that draw it, once it has reached a position. Raises: OrbitError."""
        message = m.Paint(
            request=self._screens.next_request(),
            session=self._source.id,
            at_least=at_least,
            scrollback_lines=scrollback_lines,
            after_line=after_line,
        )
        painted: m.Painted = await self._ask(message)
        self.history_line = painted.history_line
        return painted

    async def frame(self, at_least: int, size: tuple[int, int], offset: tuple[int, int]) -> m.Framed:
        """Return what a window of another size shows of it, once it has reached a position. Raises: OrbitError."""
        message = m.Frame(
            request=self._screens.next_request(),
            session=self._source.id,
            at_least=at_least,
            cols=size[0],
            rows=size[1],
            left=offset[0],
            top=offset[1],
        )
        return await self._ask(message)  # type: ignore[no-any-return]

    async def count(self, at_least: int) -> int:
        """Return how many lines have left the screen, once it has reached a position. Raises: OrbitError."""
        message = m.Count(request=self._screens.next_request(), session=self._source.id, at_least=at_least)
        counted: m.Counted = await self._ask(message)
        self.history_line = counted.history_line
        return counted.history_line

    async def save(self, at_least: int, *, key_frame: bool = False, text_from: int = 0) -> m.Saved:
        """Return what a snapshot holds, once it has reached a position.

        Args:
            at_least: The position.
            key_frame: Return a key frame of a film, too.
            text_from: The position up to which its text is recorded; what was taken behind it is returned.

        Raises:
            OrbitError: It cannot be had.
        """
        message = m.Save(
            request=self._screens.next_request(),
            session=self._source.id,
            at_least=at_least,
            key_frame=key_frame,
            text_from=text_from,
        )
        saved: m.Saved = await self._ask(message)
        self.history_line = saved.history_line
        return saved

    async def render(
        self,
        at_least: int,
        format: str,  # noqa: A002
        *,
        scrollback: bool = False,
        cut: Cut | None = None,
        cursor: bool = False,
        colors: Colors = Colors(),  # noqa: B008 - frozen
    ) -> m.Rendered:
        """Return it as text, VT, HTML or SVG, once it has reached a position; see `Emulator.screen`.

        Raises:
            InvalidParams: There is too much to draw.
            OrbitError: It cannot be drawn.
        """
        message = m.Render(
            request=self._screens.next_request(),
            session=self._source.id,
            at_least=at_least,
            format=format,  # type: ignore[arg-type]  # checked by the method's params
            scrollback=scrollback,
            cut=cut,
            cursor=cursor,
            colors=colors,
        )
        rendered: m.Rendered = await self._ask(message)
        if rendered.too_large:
            raise InvalidParams(f"Of the screen, {rendered.too_large}", hint="Ask for fewer `lines`.")
        return rendered

    def search(self, since: int, pattern: str) -> asyncio.Future[str]:
        """Search for a text on the screen at a position, and in all that is printed behind it.

        Returns:
            What is set with the first line that holds it, or with an OrbitError where the picture is gone. Cancelling
            it ends the search.

        Raises:
            Busy: Too many wait for a text already.
        """
        if len(self._searches) >= MAX_SEARCHES:
            raise Busy(f"{MAX_SEARCHES} calls wait for texts of this session already", hint="Wait for one of them.")
        number = self._screens.next_request()
        message = m.Watch(number=number, session=self._source.id, pattern=pattern, since=since)
        search = self._searches[number] = _Search(message, asyncio.get_running_loop().create_future())
        search.line.add_done_callback(lambda _: self._end_search(number))
        self.wake()
        if self.process is not None and self.state in (PictureState.OPENING, PictureState.OPEN):
            # Before the records behind `since`, of which nothing has been fed then.
            self.process.send(message)
        return search.line

    def _end_search(self, number: int) -> None:
        search = self._searches.pop(number)
        is_there = self.process is not None and self.state in (PictureState.OPENING, PictureState.OPEN)
        if search.line.cancelled() and is_there and self.process is not None:
            self.process.send(m.Unwatch(number=number, session=self._source.id))

    def starts_at(self, fed: int, answered: int, heard: int) -> None:
        """Set where it begins again.

        Args:
            fed: The position of the snapshot that it would be built on.
            answered: Questions and bells before this one are old.
            heard: What was said up to this one has been taken.
        """
        self.fed = self._grown_sent = fed
        self._answered = max(self._answered, answered)
        self._heard = max(self._heard, heard)

    def wake(self) -> None:
        """Have it built, unless it is there or on its way."""
        if self.state is not PictureState.ABSENT:
            return
        reason = self._screens.unavailable_reason
        if reason is not None:
            self._fail_requests(SnapshotNotFound(f"No screen can be drawn here: {reason}"))
            return
        self.state = PictureState.LOADING
        self._screens.tasks.start(self._load())

    def close(self) -> None:
        """Free it. What is asked meanwhile fails; asking again builds it again."""
        self._leave()
        self.state = PictureState.ABSENT
        self.is_failed = self._is_own = False
        self.held = 0
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
            self._quiet_timer = None
        self._fail_requests(NotRunning("The session has just ended", hint="Ask again."))

    def saved(self, position: int) -> None:
        """A snapshot up to a position is committed: what was skipped before it is no longer replayed."""
        self._saved = position
        if self.restart is not None and self.restart.position <= position:
            self.restart = None
        while self._unfiled and self._unfiled[0][0] <= position:
            self._unfiled_bytes -= len(self._unfiled.popleft()[1])
        self._skipped = self._killed = self._base_level = 0
        self._strike, self._was_moved = None, False

    def reload(self) -> None:
        """Build it again from the newest snapshot, since what it has drawn is to be forgotten.

        One that is being loaded finds the new snapshot by its position (`saved`).
        """
        self.facts = self._facts = m.Facts()
        if self.state in (PictureState.ABSENT, PictureState.LOADING):
            return
        self._leave()
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
            self._quiet_timer = None
        self.restart, self.is_failed, self.state = None, False, PictureState.ABSENT
        self.wake()

    async def _ask(self, message: m.Paint | m.Frame | m.Count | m.Save | m.Render) -> Any:
        # A save waits until the picture goes on: the program may just have ended, and be quiet from now on.
        if self.state is PictureState.DAMAGED and not isinstance(message, m.Save):
            raise _damaged()
        request = _Request(message, asyncio.get_running_loop().create_future())
        self._requests[message.request] = request
        self._screens.asked[message.request] = self
        try:
            self.wake()
            if self.state is PictureState.OPEN and self.process is not None:
                self._send_grown()
                self.process.send(message)
            return await request.answer
        finally:
            self._requests.pop(message.request, None)
            self._screens.asked.pop(message.request, None)

    # Building

    async def _load(self) -> None:
        try:
            loaded = await self._source.load_picture()
            if loaded.position < self._saved:
                # A save was being committed meanwhile, and the journal has been cut off behind it: once more. Not
                # again and again: where the newest snapshot is damaged, this one is all there is.
                loaded = await self._source.load_picture()
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody waits for ever
            event(
                log, logging.ERROR, "screen not loaded", session=self._source.id, error=type(error).__name__, exc=error
            )
            if self.state is PictureState.LOADING:
                self.state = PictureState.ABSENT
                self._fail_requests(error if isinstance(error, OrbitError) else Busy("The screen cannot be read now"))
            return
        if self.state is not PictureState.LOADING:
            return  # closed meanwhile
        self._open(loaded)

    def _open(self, loaded: Loaded) -> None:
        restart = self.restart
        base, position, divider = loaded.base, loaded.position, ""
        if self._base_level == 1:
            base = replace(base, native=b"")
        elif self._base_level > 1:
            base, divider = m.Base(cols=base.cols, rows=base.rows), "the saved screen could not be drawn"
        if restart is not None and restart.position >= position:
            base, position, divider = m.Base(cols=restart.cols, rows=restart.rows), restart.position, restart.divider
        note, missing = "", self._missing(position)
        if missing:
            note, position = f"{missing:,} bytes of output are missing", position + missing
        try:
            process = self._screens.process_for(own=self._is_own)
        except OSError as error:  # no descriptor is left, say
            self._give_up("no screens process", error)
            return
        self.state, self.process = PictureState.OPENING, process
        self._opening = self._screens.next_request()
        self._screens.asked[self._opening] = self
        self.fed = self._grown_sent = position
        self._trim_sent = 0
        self._facts = m.Facts()
        process.pictures[self._source.id] = self
        recorded = self._source.recorded
        opening = m.Open(
            request=self._opening,
            session=self._source.id,
            base=base,
            position=position,
            answer_from=max(position, self._answered),
            heard=self._heard,
            limits=self._screens.limits,
            divider=divider,
            note=note,
            history_line=max(self.history_line or 0, self._line_of_blank(base, position)),
            appearance=self.appearance,
            takes_text=recorded.takes_text,
            text_from=recorded.position,
            text_line=recorded.line,
        )
        if not process.send(opening):  # a snapshot of hundreds of megabytes: with less of it, or with nothing
            self._leave()
            self.state = PictureState.LOADING
            self._base_level += 1
            self._open(loaded)
            return
        self._send_searches(process)
        self._send_follow(process, newest=False)
        if self.process is None:
            return
        # Before `Grown`, which is beyond them where a file was begun after a full disk: they are not lost there.
        for end, record in self._unfiled:
            if end > position:
                self._send_data(process, end, record)
        self._send_grown()

    def _line_of_blank(self, base: m.Base, position: int) -> int:
        """Return the number of the next line where all that came before is recorded, and the base does not say it."""
        recorded = self._source.recorded
        is_blank = not (base.native or base.portable)
        return recorded.line if is_blank and position >= recorded.position else 0

    def _send_searches(self, process: Process) -> None:
        for search in self._searches.values():
            process.send(search.message)

    def _missing(self, position: int) -> int:
        """Return how much output behind a position is neither in a file nor in memory."""
        begins = [end - len(record) - position for end, record in self._unfiled if end > position]
        return max(0, min([self._source.gap(position), *begins[:1]]))

    def _send_follow(self, process: Process, *, newest: bool) -> None:
        try:
            readers = self._source.journal_readers(newest=newest)
        except OSError as error:  # no descriptor is left, say: without the file, all in it would be taken for broken
            self._give_up("journal not read", error)
            return
        for descriptor, base in readers:
            process.send(m.Follow(session=self._source.id, base=base), (descriptor,))

    def _give_up(self, what: str, error: OSError) -> None:
        """Build it at the next occasion; its program is not held back until then."""
        event(log, logging.ERROR, what, session=self._source.id, error=error.strerror)
        self._leave()
        self.state = PictureState.ABSENT
        self._fail_requests(Busy("The session's screen cannot be drawn now", hint="Ask again."))
        self._source.handle_fed(b"")

    def _send_grown(self) -> None:
        position = self._source.filed_position
        if self.process is not None and position > self._grown_sent:
            if self.fed >= self._grown_sent:
                self._fed_at = asyncio.get_running_loop().time()
            self._grown_sent = position
            self.process.send(m.Grown(session=self._source.id, position=position))

    def feed(self) -> None:
        """Tell the process what the journal has now; called by it."""
        if self.state is PictureState.OPEN:
            self._send_grown()

    @property
    def is_behind(self) -> bool:
        """Whether the process owes it something."""
        return self.state is PictureState.OPENING or bool(self._requests) or self._grown_sent > self.fed

    # What the process answers

    def handle(
        self, message: m.Opened | m.Fed | m.Painted | m.Framed | m.Counted | m.Saved | m.Rendered | m.Found | m.Failed
    ) -> None:
        """Handle an answer of its process."""
        if isinstance(message, m.Found):
            for number in message.numbers:
                if (search := self._searches.get(number)) is not None and not search.line.done():
                    search.line.set_result(message.line)
            return
        is_answer = isinstance(message, m.Opened) or (
            isinstance(message, m.Failed) and message.request == self._opening
        )
        if self.state is PictureState.OPENING and not is_answer:
            return  # of the picture that was closed before this one was opened in the same process
        if isinstance(message, m.Fed):
            self._handle_fed(message)
        elif isinstance(message, m.Opened):
            self._handle_opened(message)
        elif isinstance(message, m.Failed):
            self._handle_failed(message)
        elif (request := self._requests.get(message.request)) is not None and not request.answer.done():
            request.answer.set_result(message)

    def _handle_opened(self, message: m.Opened) -> None:
        self._screens.asked.pop(message.request, None)
        if message.request != self._opening or self.state is not PictureState.OPENING or self.process is None:
            return  # closed and opened again meanwhile
        if message.loss:
            event(log, logging.WARNING, message.loss, session=self._source.id)
        self.state = PictureState.OPEN
        self._send_grown()
        for request in list(self._requests.values()):
            self.process.send(request.message)
        if self.fed >= self._source.position:
            self._recovered()

    def _handle_fed(self, message: m.Fed) -> None:
        now = asyncio.get_running_loop().time()
        if message.position - self.fed >= MEASURED_BYTES:
            rate = (message.position - self.fed) / max(now - self._fed_at, 0.001)
            self._bytes_a_sec = min(rate, (self._bytes_a_sec + rate) / 2)  # slower at once, faster by and by
        self._fed_at = now
        self.fed, self.held, self._trimmed = message.position, message.held, message.trimmed
        self._facts = message.facts or self._facts
        if message.position >= self._answered:
            self._answered, self.facts, self.has_facts = message.position, self._facts, True
        self._heard = max(self._heard, message.position)
        if message.said or message.unsaid or message.bells:
            self._source.handle_said(message)
        if self.is_failed and self.fed >= self._grown_sent:
            self._recovered()
        self._source.handle_fed(message.replies)

    def _recovered(self) -> None:
        if self.is_failed:
            self.is_failed = False
            event(log, logging.INFO, "screen rebuilt", session=self._source.id)
            self._source.handle_fed(b"")

    def _handle_failed(self, message: m.Failed) -> None:
        if message.broken:
            event(log, logging.ERROR, "screen broke", session=self._source.id, reason=message.reason)
            kind = Kind.FEED if message.end > message.start else Kind.DRAW
            if self._opening == message.request:
                kind = Kind.OPEN
            self._leave()
            self.strike(kind, message.start, message.end)
            return
        request = self._requests.get(message.request or 0)
        if request is None or request.answer.done():
            return
        if not self._was_moved:
            # The process may be short of memory, and never recover: once, another one of its own is asked instead.
            event(log, logging.WARNING, "screen not drawn", session=self._source.id, reason=message.reason)
            self._was_moved = self._is_own = True
            self.move()
        else:
            request.answer.set_exception(Busy(f"The screen cannot be drawn now: {message.reason}"))

    # Failures

    def late(self) -> None:
        """Its process is late: its program is not held back until it is there."""
        if not self.is_failed:
            self.is_failed = True
            self._source.handle_fed(b"")

    def move(self) -> None:
        """Leave a process that is gone or busy with another picture; be built again elsewhere if somebody needs it."""
        self._leave()
        if self.state in (PictureState.OPENING, PictureState.OPEN):
            self.state = PictureState.ABSENT
            self._rebuild()

    def strike(self, kind: Kind, start: int, end: int, *, by_others: bool = False) -> None:
        """Its process ended, or refused, while it worked on this picture: at records from `start` to `end`.

        Args:
            kind: What was done.
            start: Position of the first byte.
            end: Position behind the last; `start` where it was drawn.
            by_others: Somebody else killed the process: the records are innocent, unless that happens again and again.
        """
        self._leave()
        self._is_own = self._is_own or not by_others
        place = (kind, start)  # behind damage in the file the end moves with each output
        self._killed = self._killed + 1 if place == self._strike else 1
        # A screen that cannot be drawn is the same one after some more output: a program that goes on printing must
        # not make each failure the first at its place.
        is_undrawable = kind is Kind.DRAW and self._strike is not None and self._strike[0] is kind
        is_repeated = self._killed >= MAX_KILLED if by_others else place == self._strike or is_undrawable
        self._strike = place
        self.state = PictureState.ABSENT
        if is_repeated:
            self._strike, self._killed = None, 0
            if kind is Kind.OPEN and self.restart is None and self._base_level < 2:
                self._base_level += 1
            else:
                self._skip(start, end)
        if self.state is PictureState.ABSENT:
            self._rebuild()

    def _skip(self, start: int, end: int) -> None:
        """Go on with a blank screen behind records that cannot be drawn."""
        self._skipped += 1
        lost = f"{end - start:,} bytes of output" if end > start else "the screen"
        self._begin_again(end, f"{lost} could not be drawn")
        self._source.handle_skipped(start, end)
        event(log, logging.ERROR, "output not drawn", session=self._source.id, start=start, bytes=end - start)
        if self._skipped >= MAX_SKIPPED:
            self.state, self.is_failed = PictureState.DAMAGED, True
            self._fail_requests(_damaged(), but=m.Save)
            self._wait_for_quiet()

    def _wait_for_quiet(self) -> None:
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        self._quiet_timer = asyncio.get_running_loop().call_later(QUIET_SECS, self._handle_quiet)

    def _handle_quiet(self) -> None:
        self._quiet_timer = None
        if self.state is not PictureState.DAMAGED or self.restart is None:
            return
        self.skip_unfed()
        self._skipped = MAX_SKIPPED - 1  # the next failure damages it again
        self.state = PictureState.ABSENT
        self._rebuild()

    def skip_unfed(self) -> None:
        """Skip what a program has printed while its picture is damaged."""
        if self.restart is None:
            return
        start, end = self.restart.position, self._source.position
        if end > start:
            self._begin_again(end, f"{end - start:,} bytes of output were not drawn")
            self._source.handle_skipped(start, end)

    def _begin_again(self, position: int, divider: str) -> None:
        cols, rows = self._source.size
        self.restart = Restart(position=position, cols=cols, rows=rows, divider=divider)

    def _rebuild(self) -> None:
        if self.is_wanted or self.restart is not None:
            self.is_failed = True
            self._source.handle_fed(b"")  # its program is not held back now, however far behind it is
            self.wake()

    def _leave(self) -> None:
        """Have its process free it."""
        self._screens.asked.pop(self._opening, None)
        process, self.process = self.process, None
        if process is not None and process.pictures.pop(self._source.id, None) is not None:
            process.send(m.Close(session=self._source.id))
            self._screens.retire_if_unused(process)

    def _fail_requests(self, error: OrbitError, *, but: type[Struct] | None = None) -> None:
        # What is waited for may come yet, where the picture only goes on later.
        for search in self._searches.values() if but is None else ():
            if not search.line.done():
                search.line.set_exception(error)
        for request in self._requests.values():
            if not request.answer.done() and type(request.message) is not but:
                request.answer.set_exception(error)


def _damaged() -> Busy:
    return Busy("The session's screen is damaged", hint="It goes on when its program is quiet.")


class Channel:
    """Frames, and descriptors with them, over a non-blocking socket; the queue holds what the peer does not take yet.

    Args:
        sock: Connected; owned by the channel from here on.
        on_frame: Called with each payload.
        on_lost: Called once when the connection is lost; not after `close`.
    """

    def __init__(self, sock: socket.socket, on_frame: Callable[[bytes], None], on_lost: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._framer = Framer(m.MAX_FRAME)
        self._unsent: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        self._loop.add_reader(sock, self._read)

    def send(self, frame: bytes, descriptors: tuple[int, ...] = ()) -> None:
        """Send a frame, with descriptors that are closed here afterwards."""
        if not self._is_open:
            _close_all(descriptors)
            return
        self._unsent.append((memoryview(frame), descriptors))
        if len(self._unsent) == 1:
            self._write()
            if self._unsent and self._is_open:
                self._loop.add_writer(self._sock, self._write)

    def close(self) -> None:
        """Close the socket and the descriptors that were not sent."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            while self._unsent:
                _close_all(self._unsent.popleft()[1])

    def _write(self) -> None:
        while self._unsent:
            data, descriptors = self._unsent[0]
            try:
                sent = socket.send_fds(self._sock, [data], list(descriptors)) if descriptors else self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The peer is gone, or the kernel takes no more descriptors (ETOOMANYREFS, unix(7)): a connection that
                # has lost a message is of no use. What the peer sent before may still wait in the socket, and the
                # reader finds its end.
                while self._unsent:
                    _close_all(self._unsent.popleft()[1])
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
                break
            # They went out with the first byte; the kernel holds references of its own (unix(7)).
            _close_all(descriptors)
            self._unsent[0] = (data[sent:], ())
            if sent == len(data):
                self._unsent.popleft()
        self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        try:
            if data:
                for payload in self._framer.receive(data):
                    if not self._is_open:
                        return
                    self._on_frame(payload)
                return
        except (Malformed, msgspec.DecodeError) as error:
            event(log, logging.ERROR, "screens process not understood", error=str(error))
        if self._is_open:
            self.close()
            self._on_lost()


class Process:
    """One screens process.

    Args:
        number: Of the fork.
        sock: Its socket, our end.
        note: What it works on.
        screens: Its owner.

    Attributes:
        pid: 0 until the template has reported it.
        pictures: Session id -> picture.
        was_killed: We ended it ourselves: it took too long.
        has_answered: It has done anything at all.
    """

    def __init__(self, number: int, sock: socket.socket, note: Note, screens: Screens) -> None:
        self.number = number
        self.note = note
        self.pid = 0
        self.status: int | None = None
        self.pictures: dict[str, Picture] = {}
        self.was_killed = self.has_answered = False
        self.is_retired = False
        self._screens = screens
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(sock, self._handle_frame, lambda: screens.process_lost(self))
        self._grown: set[Picture] = set()
        self._feed_timer: asyncio.TimerHandle | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._heard_at = self._loop.time()

    def send(self, message: Struct, descriptors: tuple[int, ...] = ()) -> bool:
        """Send a message, and watch until it is answered; return False where it is too large to be sent."""
        if self._watch_timer is None:
            self._heard_at = self._loop.time()
            self._watch_timer = self._loop.call_later(SLOW_SECS, self._watch)
        try:
            frame = m.encode(message)
        except ValueError as error:  # a snapshot that is too large to be sent: the picture cannot be built from it
            event(log, logging.ERROR, "message to a screens process not sent", error=str(error))
            _close_all(descriptors)
            return False
        self._channel.send(frame, descriptors)
        return True

    def feed_soon(self, picture: Picture) -> None:
        """Have a picture fed within `GROWN_DELAY_SECS`."""
        self._grown.add(picture)
        if self._feed_timer is None:
            self._feed_timer = self._loop.call_later(GROWN_DELAY_SECS, self._feed)

    def close(self) -> None:
        """Close the connection: the process ends."""
        for timer in (self._feed_timer, self._watch_timer):
            if timer is not None:
                timer.cancel()
        self._feed_timer = self._watch_timer = None
        self._channel.close()
        self.note.close()

    def kill(self) -> None:
        """End it; its end is then reported as any other."""
        self.was_killed = True
        if not self.pid:
            self._screens.restart_template()
        elif self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _feed(self) -> None:
        self._feed_timer = None
        grown, self._grown = self._grown, set()
        for picture in grown:
            if picture.process is self:
                picture.feed()

    def _handle_frame(self, payload: bytes) -> None:
        message = _from_screens.decode(payload)
        self._heard_at = self._loop.time()
        if isinstance(message, m.Hello):
            return
        self.has_answered = True
        if isinstance(message, (m.Fed, m.Found, m.Failed)):
            picture = self.pictures.get(message.session)
        else:
            picture = self._screens.asked.get(message.request)
        if picture is not None and picture.process is self:
            try:
                picture.handle(message)
            except Exception as error:  # noqa: BLE001  # one of many: those in the frames behind wait for theirs
                session = picture.session_id
                event(log, logging.ERROR, "screen failed", session=session, error=type(error).__name__, exc=error)

    def _watch(self) -> None:
        """Look whether it makes progress, as long as anything is unanswered."""
        self._watch_timer = None
        if not any(picture.is_behind for picture in self.pictures.values()):
            return
        self._watch_timer = self._loop.call_later(SLOW_SECS, self._watch)
        now, work = self._loop.time(), self.note.read()
        if work is not None:
            age = time.monotonic() - work.started_ns / 1e9
            if age > MAX_PIECE_SECS:
                self.kill()
            elif age > SLOW_SECS:
                self._screens.make_way(self, work)
        elif now - self._heard_at > MAX_PIECE_SECS:
            self.kill()
        elif now - self._heard_at > SILENT_SECS:
            self._screens.make_way(self, None)


class Child:
    """A fork of the template that has no picture.

    Args:
        sock: Its socket, our end, which the caller closes.

    Attributes:
        pid: 0 until the template has reported it, and once the process has ended.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pid = 0
        self._is_killed = False

    def started(self, pid: int) -> None:
        """Take the process's id; end it where that was asked for meanwhile."""
        self.pid = pid
        if self._is_killed:
            self.kill()

    def kill(self) -> None:
        """End it, unless it has ended: then its number may be another's."""
        self._is_killed = True
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Screens:
    """The template, and the screens processes of a daemon.

    Args:
        limits: How much history a picture keeps.
        start_template: Starts a template at the other end of a socket, and may return its process; raises OSError.

    Attributes:
        asked: Number of an unanswered request -> whose it is.
    """

    def __init__(
        self,
        limits: m.Limits,
        start_template: Callable[[socket.socket], subprocess.Popen[bytes] | None] | None = None,
    ) -> None:
        self.limits = limits
        self._start_template = start_template or partial(start_on_socket, "orbitd.screens.template")
        self.tasks = BackgroundTasks(log, "screens task failed")
        self.asked: dict[int, Picture] = {}
        self._processes: dict[int, Process] = {}
        self._children: dict[int, Child] = {}
        self._shared: Process | None = None
        self._template: Channel | None = None
        self._template_process: subprocess.Popen[bytes] | None = None
        self._unavailable = "" if importlib.util.find_spec("pyghostty") else "pyghostty is not installed"
        self._failed_starts = 0
        self._retry_timer: asyncio.TimerHandle | None = None
        self._last_request = self._last_number = 0
        self._is_closed = False

    @property
    def unavailable_reason(self) -> str | None:
        """Why no picture can be drawn on this machine; None where it can, or where that is not known yet."""
        # The first may be a crash, or an upgrade in the middle of a start; more tries help as little as the second.
        if self._failed_starts > 1 and (change := this_installation.change()) is not None:
            return change
        if self._failed_starts >= MAX_FAILED_STARTS:
            return "the terminal emulation cannot be started"
        return self._unavailable or None

    def next_request(self) -> int:
        """Return a number for a request."""
        self._last_request += 1
        return self._last_request

    def start(self) -> None:
        """Start the template. It is not waited for: what is sent to a process is read once there is one."""
        if self._template is not None or self._retry_timer is not None or self._is_closed or self._unavailable:
            return
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:  # there are no descriptors left
            self._start_later(error.strerror or str(error))
            return
        try:
            self._template_process = self._start_template(theirs)
        except OSError as error:
            ours.close()
            self._start_later(error.strerror or str(error))
            return
        finally:
            theirs.close()
        self._template = Channel(ours, self._handle_template, self._template_lost)

    def process_for(self, *, own: bool) -> Process:
        """Return the process for a picture: the shared one, or one of its own."""
        if own:
            return self._fork()
        if self._shared is None:
            self._shared = self._fork()
        return self._shared

    def make_way(self, process: Process, work: Work | None) -> None:
        """Have the pictures that somebody waits for built elsewhere, while a process is busy or silent.

        The one that it is busy with stays, and keeps the process; without `work` none stays.
        """
        if not process.pid:
            # The template has not forked it yet: another one would wait as long, and so on.
            for picture in process.pictures.values():
                picture.late()
            return
        if process is self._shared:
            self._shared = None
        for picture in list(process.pictures.values()):
            if (work is None or picture.session_id != work.session) and picture.is_behind:
                picture.move()

    def retire_if_unused(self, process: Process) -> None:
        """End a process that has no picture any more, unless it is the shared one."""
        if not process.pictures and process is not self._shared and not process.is_retired:
            process.is_retired = True
            if process.pid:
                process.kill()  # one that is stopped, or busy for long, would stay
            process.close()
            self._processes.pop(process.number, None)

    def process_lost(self, process: Process) -> None:
        """A process has ended. How is known once the template has reaped it, in a moment."""
        loop = asyncio.get_running_loop()
        if process.status is not None:
            self._settle(process)
        else:  # without a template it was never forked, and the next one needs a template first
            loop.call_later(STATUS_SECS if self._template is not None else TEMPLATE_RETRY_SECS, self._settle, process)

    def restart_template(self) -> None:
        """End a template that does not fork: it hangs, or was stopped. What waits in its socket ends with it."""
        if self._template is not None:
            if self._template_process is not None:
                self._template_process.kill()
            self._template.close()
            self._template_lost()

    def fork_search(self) -> Child | None:
        """Fork a process that searches; return None where there is no template. Raises: OSError."""
        self.start()
        if self._template is None:
            return None
        ours, theirs = socket.socketpair()
        self._last_number += 1
        child = self._children[self._last_number] = Child(ours)
        self._template.send(m.encode(m.Fork(number=self._last_number, kind="search")), (theirs.detach(),))
        return child

    async def close(self) -> None:
        """End all processes."""
        self._is_closed = True
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        for process in list(self._processes.values()):
            process.close()
        self._processes.clear()
        if self._template is not None:
            self._template.close()
            self._template = None
        await self.tasks.cancel()
        # Nobody waits for it: at the end of its socket it ends its forks and itself, and it holds nothing of ours.
        if self._template_process is not None:
            self._template_process.returncode = 0  # else subprocess warns that it is not waited for

    def _fork(self) -> Process:
        self.start()
        self._last_number += 1
        note_fd = notes.create()
        try:
            note = Note(note_fd)
            ours, theirs = socket.socketpair()
        except OSError:
            os.close(note_fd)
            raise
        process = Process(self._last_number, ours, note, self)
        self._processes[process.number] = process
        if self._template is not None:
            self._template.send(m.encode(m.Fork(number=process.number)), (theirs.detach(), note_fd))
        else:
            theirs.close()
            os.close(note_fd)
        return process

    def _handle_template(self, payload: bytes) -> None:
        message = _from_template.decode(payload)
        if isinstance(message, m.Hello):
            self._unavailable, self._failed_starts = message.unavailable, 0
            if message.version != m.VERSION:  # the files on disk are of a newer release than this daemon
                self._unavailable = "another version is installed; restart the daemon"
            return
        if (child := self._children.get(message.number)) is not None:
            child.started(message.pid if isinstance(message, m.Forked) else 0)
            if not child.pid:
                del self._children[message.number]
            return
        process = self._processes.get(message.number)
        if process is None:
            return
        if isinstance(message, m.Forked):
            process.pid = message.pid
            if not message.pid:
                event(log, logging.ERROR, "screens process not forked", reason=message.reason)
        else:
            process.status = message.status
            self._settle(process)

    def _settle(self, process: Process) -> None:
        """Build the pictures of a process that has ended elsewhere, and find out whose fault it was."""
        if self._processes.pop(process.number, None) is None:
            return
        if process is self._shared:
            self._shared = None
        work, status = process.note.read(), process.status
        process.close()
        pictures, process.pictures = process.pictures, {}
        offender = pictures.pop(work.session, None) if work is not None else None
        event(
            log,
            logging.WARNING,
            "screens process ended",
            status=status,
            session=work.session if work is not None else None,
            pictures=len(pictures) + (offender is not None),
        )
        if offender is None and not process.has_answered and self.unavailable_reason is None:
            # It ended before it did anything, or was never there: so may the next one, and the one after that.
            asyncio.get_running_loop().call_later(TEMPLATE_RETRY_SECS, self._rebuild, process, pictures)
            return
        by_others = status in (None, -signal.SIGKILL, -signal.SIGTERM) and not process.was_killed
        for picture in [*pictures.values(), *([] if offender is None else [offender])]:
            try:
                if picture is offender and work is not None:
                    picture.strike(work.kind, work.start, work.end, by_others=by_others)
                else:
                    picture.move()
            except Exception as error:  # noqa: BLE001  # one of many
                event(log, logging.ERROR, "screen not rebuilt", error=type(error).__name__, exc=error)

    def _rebuild(self, process: Process, pictures: dict[str, Picture]) -> None:
        for picture in pictures.values():
            if picture.process is process and not self._is_closed:
                picture.move()

    def _template_lost(self) -> None:
        self._template = None
        self._children.clear()  # they end with it
        template, self._template_process = self._template_process, None
        if template is not None:
            self.tasks.start(asyncio.to_thread(_wait_for, template))
        if not self._is_closed:
            self._start_later("it ended")

    def _start_later(self, reason: str) -> None:
        """Start the template again, with exponential back-off where it never came up."""
        delay = min(TEMPLATE_RETRY_SECS * 2**self._failed_starts, MAX_TEMPLATE_RETRY_SECS)
        self._failed_starts += 1
        level = logging.ERROR if self._failed_starts <= MAX_FAILED_STARTS else logging.DEBUG
        changed = this_installation.change()
        event(log, level, "screens template ended", reason=changed or reason, retry_secs=delay)
        self._retry_timer = asyncio.get_running_loop().call_later(delay, self._start_again)

    def _start_again(self) -> None:
        self._retry_timer = None
        self.start()


_from_screens = msgspec.msgpack.Decoder(m.FromScreens)
_from_template = msgspec.msgpack.Decoder(m.FromTemplate)


def start_on_socket(module: str, sock: socket.socket) -> subprocess.Popen[bytes]:
    """Start a module of ours as a program that is given a socket's descriptor, and nothing else of this process."""
    return subprocess.Popen(
        python_command(module, str(sock.fileno())),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(sock.fileno(),),
        cwd="/",
        start_new_session=True,
    )


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the template, which its socket's end brings about; end it if it does not."""
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
