"""One session: everything that is known of it while it is more than a row of the store.

Output goes from the terminal through the landing buffer into the journal, and then to the clients;
the picture follows the journal in another process (`orbitd.screens`). Everything here runs on
the event loop; nothing in here parses output, paints, or waits for a picture.

**States.** `MOVES` has every state and what may follow it; `move` is the only place that changes one.

    RECORDED      a row of the store; nothing of it is here but what a reader needs for a moment
    STARTING      its program is being started
    RUNNING       its program runs, here or not yet taken over
    ENDING        its program has ended; its last output is being saved, and how it ended stored
    RECONNECTING  its ssh has lost the connection and will be started again; screen and clients stay
    UNSTORED      its program has ended, and that could not be stored yet
    ENDED         it is a row of the store again
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from orbit_protocol.errors import Busy, InternalError, InvalidParams, NotRunning, OrbitError
from orbit_protocol.notifications import RepaintReason
from orbit_protocol.params import ClientTerminal, FrameUse
from orbit_protocol.results import Exit
from orbit_protocol.settings import ShellIntegration
from orbit_protocol.terminal_input import has_position
from orbit_protocol.terminal_reset import RESET
from orbit_protocol.text import text_and_bytes
from orbit_protocol.types import MAX_PATH_LENGTH, CommandFinished, Record, Session, SessionStatus
from orbitd.history.history import History
from orbitd.logs import event
from orbitd.rpc.connection import Connection
from orbitd.screens.client import Loaded, Picture, PictureState, Recorded, Screens
from orbitd.screens.messages import Fed, Saved
from orbitd.sessions.attachment import Attachment, Repaint, appearance_of
from orbitd.sessions.files import OpenFiles, SessionFiles
from orbitd.sessions.folders import folder_of, reported_folder
from orbitd.sessions.frames import Frames, draw
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import Cwd, Divider, Event, Resize
from orbitd.sessions.journal_repair import Damage
from orbitd.sessions.news import SILENCE_SECS, News, Outlet
from orbitd.sessions.private_memory import PrivateJournal
from orbitd.sessions.program_input import InputQueue
from orbitd.sessions.terminal import Landing, Pending, PtyMaster
from orbitd.store.sessions import ClientChange, EndReason

log = logging.getLogger("orbitd.sessions")

READ_BUDGET = 16 * 1024
"""How much is read of one terminal in a turn of the loop: a key beside a flood waits for some of these."""

SAVE_SOON_BYTES = 4 << 20
"""A burst of output is saved before its time."""

MAX_UNREADABLE_BYTES = 16 << 20
"""How much output of a program whose picture is damaged is kept aside at a time; the newest files of a session stay."""

LAST_LOOK_SECS = 10.0
"""How long the picture of a private session stays behind its program, where no client was there to be sent its end."""

FLOOD_BYTES, FLOOD_SECS = 64 * 1024, 0.05
GIVE_WAY_SECS = 0.002
TYPING_SECS = 1.0
"""A session that printed `FLOOD_BYTES` within about `FLOOD_SECS` pauses for `GIVE_WAY_SECS` after each read, while
somebody types into another session and for `TYPING_SECS` after."""

MAX_CLIENT_CHANGES = 1_024
"""Clients that come and leave while the store cannot write; of more the newest are recorded."""

REPAINT_SECS, FAILED_REPAINT_SECS = 10.0, 2.0
"""How long an attach waits for the picture before it is answered with a blank one, and the picture sent later: any
picture, and one that is being rebuilt after a failure."""

MAX_DRAINED_BYTES = 256 * 1024
"""How much is read of a terminal whose program has ended. The kernel holds less than that, oldest first; what comes
behind it is of another process, which may go on printing for ever (with SIGHUP ignored, say)."""

LAST_REPAINT_SECS = 5.0
COUNT_SECS = 0.5
CWD_SECS, FLOODED_CWD_SECS = 1.0, 0.1
"""A folder is recorded at most once in so many seconds, and looked for while output floods."""
RETRY_SECS = 1.0
IDLE_SECS = 10.0
"""A picture that is saved, has no client and is fed nothing for so long is freed, and its journal closed."""


class State(enum.Enum):
    """Where a session is in its life; see the module's docstring."""

    RECORDED = "recorded"
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    RECONNECTING = "reconnecting"
    UNSTORED = "ended, not stored"
    ENDED = "ended"


MOVES: dict[State, frozenset[State]] = {
    # RUNNING where it is taken over from an earlier daemon; UNSTORED where that failed and its program has ended.
    State.RECORDED: frozenset({State.STARTING, State.RUNNING, State.UNSTORED}),
    State.STARTING: frozenset({State.RUNNING, State.RECORDED, State.RECONNECTING}),
    State.RUNNING: frozenset({State.ENDING}),
    State.ENDING: frozenset({State.ENDED, State.RECONNECTING, State.UNSTORED}),
    State.RECONNECTING: frozenset({State.STARTING, State.ENDED}),
    State.UNSTORED: frozenset({State.ENDED}),
    State.ENDED: frozenset({State.STARTING, State.RUNNING}),
}


class ProgramExit(Struct, frozen=True, kw_only=True):
    """What is to be stored about a program that has ended.

    Attributes:
        status: The session's status from now on.
        in_keeper: The keeper has the exit too, and waits for its acknowledgement.
        reason: Why it has ended; None where it did so by itself.
    """

    status: SessionStatus
    exit_code: int | None = None
    exit_signal: int | None = None
    in_keeper: bool = True
    reason: EndReason | None = None


class Retry(Struct):
    """The next start of a session that has lost its connection: its delay, the last start, and the timer."""

    delay_secs: float
    started_at: float | None = None
    timer: asyncio.TimerHandle | None = None


class StartedBy(Struct, frozen=True, kw_only=True):
    """What the client that started a program has sent for it. It is never stored, since it may hold secrets."""

    env: Mapping[bytes, bytes] | None = None
    umask: int | None = None
    limits: Mapping[str, int] = {}
    shell_integration: ShellIntegration | None = None


class SavePlan(Struct):
    """When a session is saved next, what was saved last, and why that failed.

    Attributes:
        position: The journal's position that the newest snapshot covers; -1 where that is not known.
        is_soon: The timer was shortened for a burst of output.
    """

    position: int = -1
    timer: asyncio.TimerHandle | None = None
    is_soon: bool = False
    failure: str = ""


class Waits:
    """The calls that wait for what a session's program does; each is answered once, or gives up."""

    def __init__(self) -> None:
        self._output: set[asyncio.Future[None]] = set()
        self._commands: dict[asyncio.Future[CommandFinished], int] = {}  # and the position of the call

    def output(self) -> asyncio.Future[None]:
        """Return what is set at the next output."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._output.add(future)
        future.add_done_callback(self._output.discard)
        return future

    def command(self, since: int) -> asyncio.Future[CommandFinished]:
        """Return what is set with the next command that finishes behind a position."""
        future: asyncio.Future[CommandFinished] = asyncio.get_running_loop().create_future()
        self._commands[future] = since
        future.add_done_callback(lambda _: self._commands.pop(future, None))
        return future

    def handle_output(self) -> None:
        """Answer those that wait for output."""
        for future in self._output:
            if not future.done():
                future.set_result(None)

    def handle_command(self, finished: CommandFinished, position: int) -> None:
        """Answer those that wait for a command, which has finished at this position."""
        for future, since in self._commands.items():
            if position > since and not future.done():
                future.set_result(finished)


class Typing:
    """Which session somebody typed into last, and when; one for all sessions."""

    def __init__(self) -> None:
        self._session: LiveSession | None = None
        self._at = float("-inf")

    def note(self, session: LiveSession, now: float) -> None:
        """Record a key."""
        self._session, self._at = session, now

    def is_elsewhere(self, session: LiveSession, now: float) -> bool:
        """Return whether somebody types into another session just now."""
        return self._session is not session and now - self._at < TYPING_SECS


class Shared(Struct, kw_only=True):
    """What all sessions of a daemon share.

    Attributes:
        files: Snapshots and journals.
        history: What all sessions have shown.
        screens: Where pictures are drawn.
        outlet: Where events go.
        landing: Where output is read into; None before the first program.
        typing: Where somebody types.
        start_task: Runs a coroutine as a task, and holds it.
        on_output: Called when there is something to save.
        on_clients: Called when a client has been attached or detached.
        on_held: Called when a picture takes another amount of memory.
        on_idle: Called when a session may be forgotten that could not be before.
        silence_secs: How long a session prints nothing until it is silent.
    """

    files: SessionFiles
    history: History
    screens: Screens
    outlet: Outlet
    landing: Landing | None
    typing: Typing
    start_task: Callable[[Coroutine[Any, Any, object]], None]
    on_output: Callable[[LiveSession], None]
    on_clients: Callable[[LiveSession], None]
    on_held: Callable[[LiveSession], None]
    on_idle: Callable[[LiveSession], None]
    silence_secs: float = SILENCE_SECS


class LiveSession:
    """One session.

    Args:
        session_id: Its id.
        shared: What it shares with the others.

    Attributes:
        state: Where it is in its life.
        lock: Held by whatever starts, ends or deletes it: these never overlap.
        users: How many hold it, so that it stays registered.
        pid: Of its program.
        size: Columns and rows of its terminal.
        exited: Set when the program ends; a new future for each program.
        exit: How its program has ended, while that is not stored.
        is_terminating: Its program is being ended by a request.
        is_unwanted: It is being deleted: its last screen need not be saved.
        is_drained: Its program has ended, and all of its output was read: its terminal is not opened again.
        not_restored: Why it could not be taken over, or "".
        not_opened: Why its journal could not be opened, or "": its output is not read.
        is_left_to_keeper: There was no room for its terminal here: its output is not read, and waits.
        not_fetched: Why the keeper has not handed out its terminal, or "": its output is not read, and waits.
        was_recorded_again: Its row was gone, and was written again for its program.
        reconnects: It has lost its connection, and keeps screen and clients for its next start.
        retry: When that is.
        started_by: What its ssh gets again then; of other sessions it is not kept.
        save: When it is saved.
        save_lock: Held by a save: one at a time.
        record: What is recorded of it, once its files were opened.
        recorded: What of its text is in its history already.
        detached_since: The loop's time at which the last client left, or its program began to run after that.
        attachments: Its clients; the writable ones in the order in which they owned the size last.
        client_changes: The clients that have come and left, until that is recorded.
        position_asked_at: The loop's time at which its program last asked where the cursor is (CPR), or was answered.
        last_output_at: When its program last printed, in seconds since the epoch; 0 if not since this daemon's start.
        last_input_at: When somebody last typed into it, likewise.
        has_last_look: It is private, and its program has just ended without a client: its picture stays for a moment.
        news: What its program has said, rung and printed.
        silent_since: The loop's time of its last output, or of its program's start here.
        waits: Who waits for output, or for a command.
    """

    def __init__(self, session_id: str, shared: Shared) -> None:
        self.id = session_id
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self.state = State.RECORDED
        self.lock = asyncio.Lock()
        self.users = 0
        self.pid = 0
        self.size = (80, 24)
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        self.exit: ProgramExit | None = None
        self.is_terminating = self.is_unwanted = self.is_drained = False
        self.has_last_look = False
        self.not_restored = ""
        self.not_opened = ""
        self.is_left_to_keeper = False
        self.not_fetched = ""
        self.was_recorded_again = False
        self.reconnects = False
        self.retry: Retry | None = None
        self.started_by = StartedBy()
        self.save = SavePlan()
        self.save_lock = asyncio.Lock()
        self.record: Record = "full"
        self.recorded = Recorded()
        self.detached_since = self._loop.time()
        self.position_asked_at = float("-inf")
        self.last_output_at = self.last_input_at = 0.0
        self.silent_since = self._loop.time()
        self.waits = Waits()
        self._ends_in_6 = False  # of the last output, which may be half of such a question
        self.attachments: list[Attachment] = []
        self.client_changes: deque[ClientChange] = deque(maxlen=MAX_CLIENT_CHANGES)
        self.picture = Picture(self, shared.screens)
        self.news = News(session_id, shared.outlet, self.current_cwd, shared.silence_secs, self.waits.handle_command)
        self._numbers = itertools.count(1)
        self._size_owner: Attachment | None = None
        self._master: PtyMaster | None = None
        self._journal: Journal | None = None
        self._damage: Damage | None = None
        self._loaded: Loaded | None = None
        self._opening: asyncio.Task[None] | None = None
        self._position = self._asked_from = 0
        self._cwd: bytes | None = None
        self._recorded_cwd: bytes | None = None
        self._cwd_recorded_at = float("-inf")
        self._cwd_timer: asyncio.TimerHandle | None = None
        self._flood = self._flood_at = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._repainting = False
        self._repaint_timer: asyncio.TimerHandle | None = None
        self._frames = Frames(self.picture, lambda: self.attachments, shared.start_task)

    def move(self, state: State) -> None:
        """Change the state. Raises: InternalError, if `MOVES` has no such move."""
        if state not in MOVES[self.state]:
            raise InternalError(f"session {self.id} cannot go from {self.state.value} to {state.value}")
        self.state = state
        if state is State.RUNNING:
            self.detached_since = self._loop.time()

    @property
    def has_program(self) -> bool:
        """Whether its program runs, or has ended and is still being handled."""
        return self.state in (State.RUNNING, State.ENDING)

    @property
    def is_attachable(self) -> bool:
        """Whether clients can be attached to it."""
        return self.has_program or self.reconnects

    @property
    def is_idle(self) -> bool:
        """Whether it is nothing but a row of the store."""
        # Forgotten while its journal is opened, it would be opened by another object at the same time, and stay open.
        is_ended = self.state in (State.RECORDED, State.ENDED) and self._opening is None
        return is_ended and not self.not_restored and self.retry is None and not self.has_last_look

    # Snapshot and journal

    @property
    def position(self) -> int:
        """The journal's position: how much was recorded of it so far, in bytes of records."""
        return self._position if self._journal is None else self._journal.position

    @property
    def filed_position(self) -> int:
        """Where the records end that are in the journal's file; less than `position` on a full disk."""
        return self._position if self._journal is None else self._journal.base + self._journal.size

    @property
    def journal_bytes(self) -> int:
        """Bytes of records that no snapshot covers; 0 while the journal is closed."""
        return 0 if self._journal is None else self._journal.size

    @property
    def is_private(self) -> bool:
        """Whether nothing of what it shows may be written to the disk; known before its program runs."""
        return self.record == "none"

    @property
    def save_soon_bytes(self) -> int:
        """How many bytes of records are saved ahead of their time."""
        return self._journal.save_soon_bytes if isinstance(self._journal, PrivateJournal) else SAVE_SOON_BYTES

    @property
    def is_full(self) -> bool:
        """Whether its program waits for a save, since its journal may take no more memory."""
        return isinstance(self._journal, PrivateJournal) and self._journal.is_full

    @property
    def is_journal_empty(self) -> bool:
        """Whether the journal is open, and has no records."""
        return self._journal is not None and self._journal.size == 0

    @property
    def is_saved(self) -> bool:
        """Whether nothing was recorded since the last save."""
        return self.save.position == self.position

    @property
    def degraded(self) -> OSError | None:
        """Why output is not recorded, or None."""
        return None if self._journal is None else self._journal.degraded

    async def open_files(self, *, create: bool = True) -> None:
        """Read the newest snapshot and open the journal, unless it is open.

        Args:
            create: Create a journal where there is none; else the session is only read.

        Raises:
            SessionNotFound: It was deleted.
            SpawnFailed: The journal cannot be opened.
        """
        while self._journal is None:
            # It may have ended while this waited: its journal was closed and removed, and no new one is made for it.
            create = create and self.state is not State.ENDED
            if self._opening is None:
                # A task of its own: one caller's cancellation must not leave the others without a journal.
                self._opening = self._loop.create_task(self._open_files(create))
                self._opening.add_done_callback(self._opened)
            opening = self._opening
            await asyncio.shield(opening)
            if not create:
                return

    async def _open_files(self, create: bool) -> None:
        files = await self._shared.files.open(self.id, create=create)
        self._use_files(files)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        # Each caller gets the exception from its own wait.
        error = None if task.cancelled() else task.exception()
        self.not_opened = "" if error is None else error.message if isinstance(error, OrbitError) else repr(error)
        self._shared.on_idle(self)  # whoever asked may have been cancelled meanwhile

    def _use_files(self, files: OpenFiles) -> None:
        journal = self._journal = files.journal
        self._damage = None if journal is None else journal.damage  # logged by who has opened it
        self._recorded_cwd = self.recorded_cwd or self._recorded_cwd
        self._loaded = files.loaded
        self.record, self.recorded = files.record, files.recorded
        self.news.restore(files.session)
        self.save.position = files.loaded.position
        if journal is not None and files.recorded.takes_text and files.recorded.position < files.loaded.position:
            # The journal is still to be recorded (`Saver.save`), or a history has begun that has nothing of it yet: it
            # begins with the screen.
            self.save.position = files.recorded.position
            self._shared.on_output(self)
        if journal is None:
            self._position = files.loaded.position
        else:
            # Questions in it were answered when they came, or their programs have waited for a daemon that is gone.
            self.picture.starts_at(files.loaded.position, journal.position, files.heard)
            self.picture.follow()
        if self.state in (State.RECORDED, State.ENDED) or not self.size[0]:
            self.size = files.size
        self._start_idle_timer()  # opened for a look, say: no save and no client's end follows

    def close_files(self) -> None:
        """Free the picture and close the journal; the file stays. Both are opened again when they are needed."""
        self.picture.close()
        self._shared.on_held(self)
        self._loaded = None
        self.close_journal()

    def close_journal(self) -> None:
        """Close the journal; the picture stays for those who look at it."""
        if self._journal is not None:
            self._position = self._journal.position
            self._journal.close()
            self._journal = None
        self._shared.history.release(self.id)

    async def load_picture(self) -> Loaded:
        """Return the snapshot that the picture is built on."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            loaded = await self._shared.files.load(self.id)
        return loaded

    def journal_readers(self, *, newest: bool) -> list[tuple[int, int]]:
        """Return new read-only descriptors of the journal's files, each with the position at which it begins."""
        journal = self._journal
        if journal is None:
            return []
        return journal.readers(newest=newest)

    def gap(self, since: int) -> int:
        """Return how much of the journal is missing behind a position."""
        return 0 if self._journal is None else self._journal.gap(since)

    def mark(self) -> int:
        """Return the position that a save must cover; a journal that a full disk has stopped begins again here."""
        assert self._journal is not None
        file_number = self._journal.file_number
        position = self._journal.mark()
        if self._journal.file_number != file_number:
            self.picture.follow()
        return position

    async def save_in_memory(self, saved: Saved) -> None:
        """Keep what a snapshot would have of a private session. Raises: OSError, OrbitError; the one before stays."""
        await self._shared.files.save_private(self.id, saved)

    def mark_if_open(self) -> int:
        """Return what `mark` does; of a session without a journal, the end of its newest snapshot."""
        return self.position if self._journal is None else self.mark()

    def handle_saved(self, position: int) -> None:
        """A snapshot up to a position is committed: discard what it covers."""
        self.save.position = position
        self.picture.saved(position)
        if self._master is not None:
            self._master.resume("memory")
        if self._journal is not None:
            file_number = self._journal.file_number
            self._journal.discard_before(position)
            if self._journal.file_number != file_number:
                self.picture.follow()
        self._start_idle_timer()

    def handle_recorded(self, position: int, line: int) -> None:
        """Its text is recorded up to a position, and before a line: a picture that is built from now on takes neither.

        Else each picture that is built again, as after a crash, would take the whole scrollback once more.
        """
        self.recorded = replace(self.recorded, position=position, line=line)

    def forget_screen(self, position: int) -> None:
        """A blank snapshot up to a position is committed: go on from it, and forget what was there before."""
        self._loaded = None
        self.handle_saved(position)
        self.picture.reload()
        self._repaint_all()

    def complete_landing(self, pending: Pending) -> None:
        """Record output that an earlier daemon had read, and not yet recorded; the journal is open."""
        assert self._journal is not None
        self._journal.complete_landing(pending)
        self.news.mark_unseen()
        self._shared.on_output(self)

    def _record(self, record: Event) -> None:
        assert self._journal is not None
        missing = self._journal.append(record, timed=isinstance(record, Resize | Divider))
        if missing:
            self.picture.data(missing)
        self._log_new_damage()
        self.picture.grown()

    def _log_new_damage(self) -> None:
        """Log what was found by the last append: the file was cut short by somebody."""
        assert self._journal is not None
        damage = self._journal.damage
        if damage is not self._damage:
            self._damage = damage
            if damage is not None:
                lost = damage.lost_bytes
                event(log, logging.ERROR, "journal damaged", session=self.id, reason=damage.reason, lost_bytes=lost)

    # The program

    def run(self, pid: int, cwd: bytes | None, recorded_cwd: bytes | None) -> None:
        """Its program runs.

        Args:
            pid: The program's.
            cwd: Its last known working directory.
            recorded_cwd: What a restore would start it in as things stand.
        """
        # Tasks that waited for the program before have its future, and its result.
        if self.exited.done():
            self.exited = self._loop.create_future()
        self.pid, self._cwd, self._recorded_cwd = pid, cwd, recorded_cwd
        self.not_restored, self.silent_since = "", self._loop.time()
        self.reconnects = self.is_drained = self.is_unwanted = False
        self.retry_started()

    def use_terminal(self, master_fd: int) -> None:
        """Read and write a terminal from now on; it is closed with the session."""
        self.is_left_to_keeper, self.not_fetched = False, ""
        self._master = PtyMaster(master_fd, on_readable=self._read_terminal)
        self._master.resume("start")

    @property
    def has_terminal(self) -> bool:
        """Whether its program's terminal is here: one that was taken over may be fetched later."""
        return self._master is not None

    @property
    def descriptors(self) -> int:
        """How many descriptors it has open: its terminal, its journal."""
        return (self._master is not None) + (self._journal is not None)

    @property
    def terminal_number(self) -> int | None:
        """The N of its program's /dev/pts/N, where that is known."""
        return None if self._master is None else self._master.number

    def write_input(self, data: bytes) -> bytes | None:
        """Write to the program's input what its terminal takes now; return the rest, None where there is none.

        Raises:
            NotRunning: The program has ended. What is typed while a session reconnects is refused too: it was meant for
                a program that is gone, and the next one may ask for a password first.
        """
        if self._master is None or self.exited.done():
            what = "is reconnecting" if self.reconnects else "has no program any more"
            raise NotRunning(f"Session {self.id} {what}", data={"written": 0})
        self._shared.typing.note(self, self._loop.time())
        return self._master.write_now(data)

    def note_input(self) -> None:
        """Record that somebody types: keys and pastes, not what a terminal reports by itself."""
        self.last_input_at = time.time()

    @property
    def unwritten(self) -> InputQueue:
        """What the program's terminal has not taken yet of its input."""
        assert self._master is not None  # asked for after `write_input`
        return self._master.unwritten

    def stop_waiting(self) -> None:
        """Let no call wait for the program to read its input, since the daemon stops."""
        if self._master is not None:
            self._master.stop_waiting()

    def _read_terminal(self, descriptor: int) -> bool:
        """Read output once, record it, and send it on; return whether the terminal is hung up."""
        journal = self._journal
        if journal is None:
            self._open_for_output()
            return False
        # Between `read` and `clear` the bytes are in the landing buffer, which outlives this process: the next
        # daemon finds them there, and knows by the position whether the journal has them already.
        landing = self._shared.landing
        assert landing is not None  # there is one before there is a program
        data, hung_up = landing.read(descriptor, self.id, journal.position, READ_BUDGET)
        if data:
            try:
                missing = journal.append_output(data)
            finally:
                landing.clear()
            if missing:
                self.picture.data(missing)
            self._log_new_damage()
            position, now = journal.position, self._loop.time()
            self._flood = self._flood * 0.5 ** ((now - self._flood_at) / FLOOD_SECS) + len(data)
            self._flood_at = now
            # A shell that has changed its folder prints its prompt. What a client has seen is recorded with the folder
            # that it was printed in, whatever becomes of this process.
            if self._cwd_timer is None:
                if self._flood > FLOOD_BYTES:
                    self._cwd_timer = self._loop.call_later(FLOODED_CWD_SECS, self._record_cwd_later)
                else:
                    self._record_cwd(self.current_cwd(), now)
            self._handle_output(data, position, now)
        return hung_up

    def _handle_output(self, data: bytes, position: int, now: float) -> None:
        self._note_questions(data)
        # A copy: sending may find out that a client has gone, and remove its attachment.
        for attachment in list(self.attachments):
            attachment.send_output(data, position)
        self.picture.grown()
        self.last_output_at, self.silent_since = time.time(), now
        self.news.handle_output(self.last_output_at)
        self.waits.handle_output()
        if self.is_full and self._master is not None:
            self._master.pause("memory")
            self._shared.on_output(self)
        elif self.save.timer is None or (self.journal_bytes > self.save_soon_bytes and not self.save.is_soon):
            self._shared.on_output(self)
        self._give_way(now)
        if self.picture.state is PictureState.DAMAGED:
            self._limit_unreadable()
        if self.picture.is_too_far_behind and self._master is not None:
            self._master.pause("lag")

    def _note_questions(self, data: bytes) -> None:
        """Note the question where the cursor is before a client's terminal answers it: that may look like a key."""
        if b"6n" in data or (self._ends_in_6 and data[:1] == b"n"):
            self.position_asked_at = self._loop.time()
        self._ends_in_6 = data[-1:] == b"6"

    def _give_way(self, now: float) -> None:
        """Let a flood pause while somebody types into another session: keys wait for whatever is done for it."""
        if self._flood > FLOOD_BYTES and self._master is not None and self._shared.typing.is_elsewhere(self, now):
            self._master.pause("give way")
            self._loop.call_later(GIVE_WAY_SECS, self._master.resume, "give way")

    def _open_for_output(self) -> None:
        """Open the journal for output that waits in the terminal; read it then."""
        master = self._master
        assert master is not None
        master.pause("journal")

        async def open_then_read() -> None:
            try:
                await self.open_files()
            except OrbitError as error:
                event(log, logging.ERROR, "output not read", session=self.id, error=error.message)
                self._loop.call_later(RETRY_SECS, master.resume, "journal")
            else:
                master.resume("journal")

        self._shared.start_task(open_then_read())

    def _record_cwd(self, cwd: bytes | None, now: float) -> None:
        """Record the folder if it is another one, unless one was recorded just before: then it is done in time."""
        if cwd is None or cwd == self._recorded_cwd or self._journal is None or len(cwd) > MAX_PATH_LENGTH:
            return
        if (wait := self._cwd_recorded_at + CWD_SECS - now) > 0:
            self._cwd_timer = self._loop.call_later(wait, self._record_cwd_later)
            return
        self._recorded_cwd, self._cwd_recorded_at = cwd, now
        self._record(Cwd(path=cwd))
        self.news.handle_folder(cwd)
        self._shared.on_output(self)

    def _record_cwd_later(self) -> None:
        self._cwd_timer = None
        self._record_cwd(self.current_cwd(), self._loop.time())

    def record_cwd(self) -> None:
        """Record the folder at once, however short ago the last one was: the daemon stops."""
        self._cwd_recorded_at = float("-inf")
        self._record_cwd(self.current_cwd(), self._loop.time())

    def current_cwd(self) -> bytes | None:
        """Return the folder where the user is, on this machine; the last known one if the program has ended.

        That is the folder of the process group in the terminal's foreground, such as a shell in a shell; else of the
        program itself. What a program reports (OSC 7) counts where the kernel does not tell: of a shell of another user
        (sudo -s), and on a system without /proc.
        """
        if self.state is State.RUNNING:  # else its pid may be another program's by now
            self._cwd = self._foreground_cwd() or self._program_cwd() or self._cwd
        return self._cwd

    def _foreground_cwd(self) -> bytes | None:
        group = self.foreground_group
        if group is None or group == self.pid:
            return None
        try:
            # The leader of a group that goes on may have ended; its pid is given to no other process meanwhile.
            return folder_of(group)
        except PermissionError:
            return reported_folder(self.picture.facts.cwd)
        except OSError:
            return None

    def _program_cwd(self) -> bytes | None:
        try:
            return folder_of(self.pid)
        except OSError:
            return reported_folder(self.picture.facts.cwd)

    @property
    def foreground_group(self) -> int | None:
        """The process group in the terminal's foreground, which Ctrl-C reaches; None where there is none."""
        group = None if self._master is None else self._master.foreground_group
        if group is None or group == self.pid:
            return group
        # The terminal keeps the number of a group that has ended, and another process may have that by now.
        try:
            return group if os.getsid(group) == self.pid else None
        except OSError:  # its leader has ended
            return group

    @property
    def cwd_to_save(self) -> bytes | None:
        """The folder to be stored with a snapshot: as new as the journal has it, so that neither is behind the other.

        Of a program that has ended it is the last known one, which may not be recorded yet.
        """
        if self.state is State.RUNNING:
            return self._recorded_cwd
        return self._cwd if self.has_program else self.recorded_cwd

    @property
    def recorded_cwd(self) -> bytes | None:
        """The newest folder in the journal: as new as the screen, where the snapshot's is older."""
        return None if self._journal is None else self._journal.last_cwd()

    def print_divider(self, text: str) -> None:
        """Print a line between the output so far and the next program's, if there is any and the journal is open."""
        if self.position > 0 and self._journal is not None:
            self._record(Divider(text=text))
            self._shared.on_output(self)  # the program may print nothing
            self._asked_from = self.position  # the answers to what was asked before are for a program that has ended
            self._repaint_all()

    def resize_screen(self, cols: int, rows: int) -> None:
        """Give the screen the size of the terminal that a program is started on."""
        if (cols, rows) != self.size or self.position == 0:
            self._set_size((cols, rows), "refreshed")

    def drain(self) -> None:
        """Read the last output of a program that has ended, and close its terminal; the journal is open."""
        master, self.is_drained = self._master, True
        if master is None:
            return
        try:
            before, limit = -1, self.position + MAX_DRAINED_BYTES
            while before < self.position < limit:
                before = self.position
                self._read_terminal(master.descriptor)
        finally:
            self._close_terminal()

    def set_reconnecting(self, exit_code: int | None, exit_signal: int | None) -> None:
        """Keep screen and clients for the next program."""
        self._close_terminal()
        self.reconnects = True
        self._set_exited(exit_code, exit_signal)

    def end(self, exit_code: int | None, exit_signal: int | None, last: Repaint | None) -> None:
        """Notify the clients that the program has ended, end their attachments, and close the files."""
        line = self.picture.history_line
        if self.is_unseen_end:
            # Who has started it and is not attached yet, as the program was quicker, finds what it has shown.
            self.has_last_look = True
            self._loop.call_later(LAST_LOOK_SECS, self._end_last_look)
        for attachment in self._clear_attachments():
            last_frame = self._frames.newest(attachment.size)
            attachment.send_exited(exit_code, exit_signal, last, line, last_frame)
        self._close_terminal()
        self.reconnects = False
        self.news.end(has_ended=True)
        self.close_journal()
        self.cancel_timers()
        self._set_exited(exit_code, exit_signal)

    @property
    def is_unseen_end(self) -> bool:
        """Whether it is private, and no client is there that sees how its program ends."""
        return self.is_private and all(each.is_answering for each in self.attachments)

    def _end_last_look(self) -> None:
        self.has_last_look = False
        self._shared.on_idle(self)

    def close(self) -> None:
        """Close terminal and files; the program goes on."""
        self.has_last_look = False
        self._close_terminal()
        self.news.end(has_ended=False)
        self.cancel_timers()
        self.close_files()

    def _close_terminal(self) -> None:
        # Also one that was not drained, since the journal cannot be opened: else the loop would go on reading it.
        master, self._master = self._master, None
        if master is not None:
            master.close()

    def cancel_timers(self) -> None:
        """Cancel what is scheduled."""
        self._frames.cancel()
        for timer in (
            self._idle_timer,
            self._cwd_timer,
            self._repaint_timer,
            self.save.timer,
            None if self.retry is None else self.retry.timer,
        ):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._cwd_timer = self._repaint_timer = self.save.timer = self.retry = None

    def retry_started(self) -> None:
        """It runs: no next start is scheduled, and the back-off counts from now."""
        if self.retry is not None:
            if self.retry.timer is not None:
                self.retry.timer.cancel()
                self.retry.timer = None
            self.retry.started_at = self._loop.time()

    # Clients

    def attach(
        self,
        connection: Connection,
        attachment_id: str | None,
        *,
        cols: int,
        rows: int,
        read_only: bool,
        counts_lines: bool = False,
        frames: FrameUse = "auto",
        after_line: int = 0,
        terminal: ClientTerminal | None = None,
        before: Sequence[str] | None = None,
    ) -> Attachment:
        """Attach a client; a writable one becomes the size owner. The files are open.

        Args:
            connection: The client's.
            attachment_id: Its own choice, or None.
            cols: Columns of its window.
            rows: Rows of its window.
            read_only: It may neither type nor own the size.
            counts_lines: It is sent the `history_line` with the end, too.
            frames: Whether it is sent frames, where the sizes of window and session differ.
            after_line: How many lines of the session its window had been given before.
            terminal: The colours of its terminal, and what it can show; None where it has not said.
            before: The sessions that its window has shown; None for a client that cannot be switched.

        Raises:
            InvalidParams: The client has chosen an id that an attachment of its connection has.
        """
        if attachment_id is not None and attachment_id in connection.attachments:
            raise InvalidParams("`attachment_id` is of another attachment of this connection", hint="Choose another.")
        # The client may have chosen an id that looks like one of ours.
        ours = (f"{self.id}/{number}" for number in self._numbers)
        attachment = Attachment(
            attachment_id or next(each for each in ours if each not in connection.attachments),
            connection,
            read_only=read_only,
            size=(cols, rows),
            session=self,
            counts_lines=counts_lines,
            frames=frames,
            after_line=after_line,
            appearance=None if terminal is None else appearance_of(terminal),
            before=before,
        )
        self.attachments.append(attachment)
        if not read_only:
            self._set_size_owner(attachment)
        else:
            attachment.follow_size(self.size, self.position)
        self.client_changes.append(client_change(attachment, attached=True))
        self._clients_changed()
        return attachment

    @property
    def owner_size(self) -> tuple[int, int] | None:
        """The window size of the client that owns the size, if there is one."""
        return None if self._size_owner is None else self._size_owner.size

    async def first_repaint(self, attachment: Attachment, scrollback_lines: int, after_line: int | None) -> Repaint:
        """Return what a client is shown first: the picture, or a blank one where that is not there in time."""
        is_complete = True
        try:
            async with asyncio.timeout(FAILED_REPAINT_SECS if self.picture.is_failed else REPAINT_SECS):
                repaint = await self._paint_for(attachment, scrollback_lines, after_line)
        except (TimeoutError, OrbitError):
            cols, rows = attachment.size if attachment.is_framed else self.size
            line = after_line or 0
            repaint = Repaint(data=RESET, cols=cols, rows=rows, position=0, history_line=line)
            is_complete = False
        attachment.require_open()
        attachment.begin(repaint, is_complete=is_complete)
        return repaint

    async def last_repaint(self) -> Repaint | None:
        """Return the screen at the program's end, if a client needs it and it can be drawn in time.

        The last frames, for the clients that are sent frames, are drawn and kept. Clients may come meanwhile, or be
        resized: it returns once there is what each of those needs that are there then.
        """
        last, asked = None, set[tuple[int, int] | None]()
        until = self._loop.time() + LAST_REPAINT_SECS
        while missing := self._last_pictures() - asked:
            asked.add(size := missing.pop())
            with contextlib.suppress(TimeoutError, OrbitError):
                async with asyncio.timeout_at(until):
                    if size is None:
                        last = await self._paint(0)
                    else:
                        await self._frames.frame(size, self.position)
            if self._loop.time() >= until:
                break
        return last

    def _last_pictures(self) -> set[tuple[int, int] | None]:
        """Return what clients need at the program's end: frames by their sizes; None is the picture itself."""
        needed: set[tuple[int, int] | None] = {each.size for each in self.attachments if each.is_framed}
        if any(each.wants_repaint or each.is_behind for each in self.attachments):
            needed.add(None)
        return needed

    def resize(self, attachment: Attachment, cols: int, rows: int) -> None:
        """Set the window size of a client; a writable one becomes the size owner (tmux: window-size latest)."""
        attachment.resize_window((cols, rows))
        if attachment.read_only:
            self._follow_size()
        else:
            self._set_size_owner(attachment)

    def note_typing(self, attachment: Attachment) -> None:
        """Make the client that types the size owner."""
        self.note_input()
        if self._size_owner is not attachment:
            self._set_size_owner(attachment)

    async def refresh(self, attachment: Attachment, scrollback_lines: int) -> Repaint:
        """Return the picture as it is now. Raises: OrbitError."""
        try:
            async with asyncio.timeout(REPAINT_SECS):
                return await self._paint_for(attachment, scrollback_lines)
        except TimeoutError as error:
            raise Busy("The screen cannot be drawn now: it is being rebuilt", hint="Ask again.") from error

    def count_lines(self, attachment: Attachment, position: int) -> None:
        """Call `set_seen_line` of a client whose output ends at this position, once that is known."""

        async def count() -> None:
            with contextlib.suppress(OrbitError):  # damaged, say: how many lines it has lost is not known then
                attachment.set_seen_line(await self.picture.count(position))

        self._shared.start_task(count())

    async def history_line(self) -> int | None:
        """Return how many lines have left the screen; None where that is not known in time."""
        with contextlib.suppress(TimeoutError, OrbitError):
            async with asyncio.timeout(COUNT_SECS):
                return await self.picture.count(self.position)
        return None

    def switch(self, attachment: Attachment, to: str) -> None:
        """End an attachment, and notify its client which session it is to show now."""
        attachment.detach(self.picture.history_line, switched_to=to)

    def detach_all(self) -> None:
        """End every attachment, and notify the clients."""
        for attachment in self._clear_attachments():
            attachment.detach(self.picture.history_line)
            self.client_changes.append(client_change(attachment, attached=False))
        self._clients_changed()

    def live_fields(self, session: Session) -> dict[str, object]:
        """Return the fields of a Session that only a running program has."""
        cols, rows = self.size
        folder = self.current_cwd()
        if self._cwd_timer is None:
            # What was answered is not lost, even if the program prints nothing.
            self._record_cwd(folder, self._loop.time())
        cwd, cwd_bytes = (session.cwd, session.cwd_bytes) if folder is None else text_and_bytes(folder)
        output_at, input_at = _moment(self.last_output_at), _moment(self.last_input_at)
        return {
            "last_active": max(each for each in (session.last_active, output_at, input_at) if each is not None),
            "last_output_at": output_at,
            "last_input_at": input_at,
            "live": True,
            "pid": self.pid,
            "cols": cols,
            "rows": rows,
            "title": self.picture.facts.title or session.title,
            "cwd": cwd,
            "cwd_bytes": cwd_bytes,
            "clients": len(self.attachments),
            "screen": self.picture.status,
            **self.news.fields(),
        }

    # The picture

    def handle_fed(self, replies: bytes) -> None:
        """The picture has moved on: read on where it was too far behind, and type its answers to questions."""
        master = self._master
        self._shared.on_held(self)
        self._frames.soon()
        if self.has_program and self.picture.has_facts:  # else its screen shows the progress of what has ended
            self.news.handle_facts(self.picture.facts)
        if master is None:
            return
        if self.picture.has_caught_up:
            master.resume("lag")
        if self.picture.is_failed:
            master.resume("repaint")
        # Every question is answered here, and by nobody else: what a client's own terminal answers is dropped
        # (`Attachment.write_input`). Clients come, go, and are several; the emulator reads each question once.
        if replies and self.picture.fed > self._asked_from:
            master.write_answer(replies)
            if has_position(replies):
                self.position_asked_at = self._loop.time()

    def handle_said(self, fed: Fed) -> None:
        """The program has said something, or has rung."""
        self.news.handle_said(fed)

    def handle_skipped(self, start: int, end: int) -> None:
        """Keep aside what could not be drawn, and save the picture that goes on behind it."""
        if self._journal is not None and end > start:
            self._shared.files.keep_unreadable(self.id, self._journal, start, end)
        self._shared.on_output(self)
        self._repaint_all()

    def _limit_unreadable(self) -> None:
        """Put output aside of a program that goes on printing while its picture is damaged: the disk has an end."""
        if self._journal is not None and self._journal.size > MAX_UNREADABLE_BYTES:
            self.picture.skip_unfed()
            self._journal.discard_all()

    @contextlib.contextmanager
    def _reading_paused(self) -> Iterator[None]:
        # Nothing is read meanwhile, so that a flood does not run away from the picture that is to show it; but a
        # picture that has failed holds no program back.
        master = self._master
        if master is not None and not self.picture.is_failed:
            master.pause("repaint")
        try:
            yield
        finally:
            if master is not None:
                master.resume("repaint")

    async def _paint_for(self, attachment: Attachment, scrollback_lines: int, after_line: int | None = None) -> Repaint:
        """Return the picture as a client is to see it when it is drawn: a frame has no history before it."""
        while True:
            if not attachment.is_framed:
                repaint = await self._paint(scrollback_lines, after_line)
                if not attachment.is_framed:
                    return repaint
                continue
            size = attachment.size
            with self._reading_paused():
                frame = await self._frames.frame(size, self.position)
            if attachment.is_framed and attachment.size == size:
                return Repaint(
                    data=draw(frame, None),
                    cols=size[0],
                    rows=size[1],
                    position=frame.position,
                    cursor_row=frame.row,
                    history_line=attachment.history_line,
                    frame=frame,
                )

    async def _paint(self, scrollback_lines: int, after_line: int | None = None) -> Repaint:
        with self._reading_paused():
            painted = await self.picture.paint(self.position, scrollback_lines, after_line)
        return Repaint(
            data=painted.data,
            cols=painted.cols,
            rows=painted.rows,
            position=painted.position,
            cursor_row=painted.cursor_row,
            history_line=painted.history_line,
        )

    def _repaint_all(self, reason: RepaintReason = "refreshed") -> None:
        for attachment in self.attachments:
            attachment.expect_repaint(self.position, reason)
        self.repaint_soon()
        self._frames.picture_replaced()

    def frame_soon(self) -> None:
        """Draw frames for the clients that take them."""
        self._frames.soon()

    def repaint_soon(self) -> None:
        """Draw the picture once for all clients that need it."""
        if not self._repainting and any(each.takes_repaint for each in self.attachments):
            self._repainting = True
            # From here on, not only from the task's first step: so nothing leaves the screen between the output that
            # the clients have and the picture.
            if self._master is not None and not self.picture.is_failed:
                self._master.pause("repaint")
            self._shared.start_task(self._repaint_until_done())

    async def _repaint_until_done(self) -> None:
        # While one picture is drawn, sizes may change and clients fall behind and catch up: one more is drawn for
        # all of them then. So resizes that come together cost two pictures, not one each.
        try:
            while waiting := [each for each in self.attachments if each.takes_repaint]:
                for attachment in waiting:
                    attachment.hold_output()
                # A picture that is being rebuilt, or damaged, does not keep the output from those who look at it.
                late = self._loop.call_later(REPAINT_SECS, self._release_output)
                try:
                    repaint = await self._paint(0)
                except OrbitError as error:
                    self._release_output()
                    if not isinstance(error, NotRunning) and self._repaint_timer is None:  # damaged, or refused
                        self._repaint_timer = self._loop.call_later(REPAINT_SECS, self._try_repaint)
                    return
                finally:
                    late.cancel()
                for attachment in list(self.attachments):
                    attachment.send_repaint(repaint)
        finally:
            self._repainting = False
            if self._master is not None:
                self._master.resume("repaint")

    def _try_repaint(self) -> None:
        self._repaint_timer = None
        self.repaint_soon()

    def _release_output(self) -> None:
        if self._master is not None:
            self._master.resume("repaint")
        for attachment in list(self.attachments):
            if attachment.takes_repaint:
                attachment.release_output()

    # Inside

    def _start_idle_timer(self) -> None:
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(IDLE_SECS, self._free_if_idle)

    def _free_if_idle(self) -> None:
        self._idle_timer = None
        if self.attachments or not self.is_saved or self.degraded is not None:
            return  # the next save, or the last client's end, starts it again
        if self.users or self.picture.is_wanted or self.save_lock.locked():
            self._start_idle_timer()
        else:
            self.close_files()

    def _set_exited(self, exit_code: int | None, exit_signal: int | None) -> None:
        if not self.exited.done():
            self.exited.set_result(Exit(exit_code=exit_code, exit_signal=exit_signal))

    def _set_size_owner(self, attachment: Attachment) -> None:
        self._size_owner = attachment
        self.attachments.remove(attachment)
        self.attachments.append(attachment)
        if attachment.appearance is not None:  # else the last owner's stays
            self.picture.set_appearance(attachment.appearance)
        if attachment.size == self.size or self._journal is None:  # without a journal the daemon is ending
            self._follow_size()
            return
        # The owner is sent a repaint too: its own terminal may have rewrapped lines in another way.
        self._set_size(attachment.size, "resized")
        self._shared.on_output(self)

    def _set_size(self, size: tuple[int, int], reason: RepaintReason) -> None:
        self.size = size
        # Recorded before the terminal is resized: what the program prints on SIGWINCH is for the new size.
        self._record(Resize(cols=size[0], rows=size[1]))
        if self._master is not None:
            self._master.resize(*size)
        for attachment in self.attachments:
            attachment.follow_size(size, self.position)
        self._repaint_all(reason)

    def _follow_size(self) -> None:
        """Send each client frames or output, as its window's size has it now."""
        for attachment in self.attachments:
            attachment.follow_size(self.size, self.position)
        self.repaint_soon()
        self._frames.soon()

    def remove_attachment(self, attachment: Attachment) -> None:
        """Forget a client that has left; called by its attachment when it ends.

        Where it owned the size, the client that owned it before does so again.
        """
        if attachment not in self.attachments:
            return  # `_clear_attachments` has removed it
        self.attachments.remove(attachment)
        if self._size_owner is attachment:
            writable = [each for each in self.attachments if not each.read_only]
            self._forget_size_owner()
            if writable:
                self._set_size_owner(writable[-1])
        self.client_changes.append(client_change(attachment, attached=False))
        self._clients_changed()

    def _clear_attachments(self) -> list[Attachment]:
        """Remove all attachments and return them. There is no size owner then, so that their ends change no size."""
        removed, self.attachments = self.attachments, []
        self._forget_size_owner()
        self.news.set_watched(is_watched=False)
        return removed

    def _forget_size_owner(self) -> None:
        """Nobody owns the size. The colours of the last owner stay; but now nothing shows images."""
        self._size_owner = None
        if self.picture.appearance is not None:
            self.picture.set_appearance(replace(self.picture.appearance, kitty_graphics=False))

    def _clients_changed(self) -> None:
        self.news.set_watched(is_watched=not all(each.read_only for each in self.attachments))
        if not self.attachments:
            self.detached_since = self._loop.time()
            self._start_idle_timer()
        self._shared.on_clients(self)


def client_change(attachment: Attachment, *, attached: bool) -> ClientChange:
    """Return what is to be recorded of a client that comes or leaves."""
    peer = attachment.connection.peer
    pid = peer.pid if peer is not None and peer.pid else None
    return ClientChange(attached=attached, pid=pid, read_only=attachment.read_only)


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
