"""A screens process: it follows sessions' journals, and feeds them to libghostty, which nothing else does.

It is a fork of the template. Nothing in it is worth keeping: whatever the library does with it, orbitd forks another
one, and has the pictures built there out of snapshots and journals. So it opens nothing, writes nothing but answers,
lets the kernel end it (CPU time, memory), and notes in shared memory what it works on.

**A turn** is one request, or up to 256 KiB or 20 ms of one session's records; then the socket is looked at again.
Sessions take turns, those first that somebody waits for. What orbitd does not read is queued, up to a limit; then
nothing more is read or fed.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import msgspec
from msgspec import Struct, field

from orbit_protocol import MAX_COLUMNS_OR_ROWS, MAX_SCREEN_CELLS
from orbit_protocol.terminal_reset import RESET
from orbitd.keeper.frames import Framer, Malformed, receive
from orbitd.screens.divider import print_divider, print_note
from orbitd.screens.emulator import Emulator, StateHeader, key_frame
from orbitd.screens.follower import Damaged, Follower, Record
from orbitd.screens.messages import (
    MAX_FRAME,
    Close,
    Count,
    Counted,
    Data,
    Facts,
    Failed,
    Fed,
    Follow,
    Found,
    Frame,
    Framed,
    Grown,
    Hello,
    Limits,
    Open,
    Opened,
    Paint,
    Painted,
    Render,
    Rendered,
    Save,
    Saved,
    SetAppearance,
    ToScreens,
    Trim,
    Unwatch,
    Watch,
    encode,
)
from orbitd.screens.model import TerminalError, TooLarge
from orbitd.screens.note import Kind, Note
from orbitd.screens.said import Clock
from orbitd.screens.text_search import TextSearch
from orbitd.screens.text_taker import MIN_HISTORY_BYTES, PIECE_BYTES, TextTaker
from orbitd.sessions.journal_file import RECORD_HEADER_BYTES, Divider, Output, Resize, Time

CPU_SECONDS = 5.0
"""CPU time of this process that one piece may take."""

TURN_BYTES = 256 << 10
TURN_SECONDS = 0.02

HELD_EXTRA = 64 << 20
"""What a picture may hold beyond the history's limit: its screens, styles, links, an unfinished string."""

MEMORY_BASE = 1 << 30
"""What one turn may add to the process's memory, at least.

A turn adds some megabytes: two screens of 1,000,000 cells, 16 MiB of an unfinished string, a history that is
decompressed. Only encoding and painting a history takes more, a few times its size (`MEMORY_FACTOR`). So what exceeds
this is a fault of the library, and one gibibyte beyond what was there is what a machine of today survives.

The limit moves with what the process has, since the total is no fault: orbitd's budget bounds that, by `Trim`.
"""

MEMORY_FACTOR = 4

MAX_UNSENT = 4 << 20
"""Bytes of answers that wait for orbitd before nothing more is worked on; one answer may be longer."""

MAX_UNFILED = 32 << 20
"""Bytes of one session's records from `Data` that wait here; orbitd stops reading a program that is 8 MiB ahead."""

MAX_REQUESTS = 256
"""Of one session that wait here."""

MAX_REPLIES = 64 << 10
"""Bytes of replies after which a turn ends."""

MAX_FACT = 4096
"""Characters of a title and of a folder."""

LOOK_SHARE = 20
"""What is waited for on a screen takes a twentieth of the time at most: a large screen is looked at less often."""

_READS_A_TURN = 16
_URGENT_TURNS = 4
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)

_decoder = msgspec.msgpack.Decoder(ToScreens)

Request = Open | Paint | Frame | Count | Save | Render
Queued = Request | Trim | SetAppearance


class Refused(Exception):
    """The picture breaks; the message says why."""


class Starved(Exception):
    """The process has to end: its pictures are built in another one."""


class Memory:
    """What this process holds, and how much more it may take.

    On Linux only: macOS has no cheap figure of a process's own memory, and does not enforce RLIMIT_DATA.

    Args:
        is_known: Measure and limit; else nothing is known, and nothing limited.
    """

    def __init__(self, *, is_known: bool = sys.platform == "linux") -> None:
        self._statm = -1
        self._hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if is_known:
            with suppress(OSError):  # a chroot without /proc
                self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def _pages(self) -> list[int]:
        return [int(pages) for pages in os.pread(self._statm, 256, 0).split()]

    def held(self) -> int | None:
        """Return the bytes of private memory that are resident, or None where the system does not tell."""
        if self._statm < 0:
            return None
        # Without the pages of files: the library's own are loaded as they are used, by whichever session is first.
        _, resident, shared, *_ = self._pages()
        return (resident - shared) * resource.getpagesize()

    def check(self) -> None:
        """Raise Starved where somebody has lowered this process's limit: the library goes on, and draws wrongly."""
        if resource.getrlimit(resource.RLIMIT_DATA)[1] != self._hard:
            raise Starved

    def allow(self, extra: int) -> None:
        """Let the process take this much more than it has now, and no more than that. Raises: Starved."""
        self.check()
        if self._statm < 0:
            return
        data = self._pages()[5] * resource.getpagesize()  # with the stack, which RLIMIT_DATA does not count
        hard = self._hard
        limit = data + extra
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


class Picture(Struct, kw_only=True, eq=False):
    """One session here.

    Attributes:
        emulator: None before `Open` has been worked on, and when the picture is broken.
        is_open: `Open` has come, and the picture has not broken since.
        requests: What waits, in order; the first one waits for the records before its position.
        facts: What was last sent.
        held: Bytes by which this process grew while it worked on this picture.
        trimmed: The number of the last `Trim`.
        bells: How often it rang since the last `Fed`.
        clock: When output was printed.
        search: What is searched for.
        taker: Takes the text that is shown; None where none is taken.
    """

    session: str
    follower: Follower
    requests: deque[Queued]
    limits: Limits = Limits(lines=0, size=0)
    answer_from: int = 0
    heard: int = 0
    emulator: Emulator | None = None
    is_open: bool = False
    is_broken: bool = False
    facts: Facts = Facts()
    held: int = 0
    trimmed: int = 0
    bells: int = 0
    clock: Clock = field(default_factory=lambda: Clock(lambda: time.time_ns() // 1_000_000))
    search: TextSearch = field(default_factory=TextSearch)
    taker: TextTaker | None = None

    @property
    def position(self) -> int:
        """Where the picture is."""
        return self.follower.position

    def wanted(self) -> int:
        """Return the position that the first request waits for."""
        first = self.requests[0]
        return self.position if isinstance(first, Open | Trim | SetAppearance) else first.at_least

    def has_due_request(self) -> bool:
        """Return whether the first request can be answered now."""
        return bool(self.requests) and (not self.is_open or self.wanted() <= self.position)

    def has_due_look(self) -> bool:
        """Return whether the screen is to be looked at now, for what is searched for."""
        search = self.search
        if self.emulator is None or not search:
            return False
        return search.begins_at(self.position) or (search.is_due and time.monotonic() >= search.next_look)

    def has_records(self) -> bool:
        """Return whether there is something to feed."""
        return self.emulator is not None and self.position < self.follower.end


class ScreensProcess:
    """The loop of a screens process.

    Args:
        sock: To orbitd.
        note: Where it is noted what is worked on.
        memory: Measures and limits this process.
        cpu_seconds: CPU time after which the kernel ends this process in the middle of a piece.
    """

    def __init__(self, sock: socket.socket, note: Note, memory: Memory, cpu_seconds: float = CPU_SECONDS) -> None:
        sock.setblocking(False)
        self._sock, self._note, self._memory, self._cpu_seconds = sock, note, memory, cpu_seconds
        self._framer = Framer(MAX_FRAME)
        self._descriptors: deque[int] = deque()
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._pictures: dict[str, Picture] = {}
        # Pictures with work, the first in turn first: those that a request waits for, and the others.
        self._urgent: dict[str, Picture] = {}
        self._busy: dict[str, Picture] = {}
        self._urgent_turns = 0
        # Those whose screen has changed since it was looked at for what is searched for.
        self._to_look: dict[str, Picture] = {}

    def run(self) -> None:
        """Serve until orbitd has closed the socket. Raises: Malformed, Starved."""
        self._send(Hello(pid=os.getpid()))
        poll = select.poll()
        poll.register(self._sock)
        while True:
            is_congested = self._unsent_bytes > MAX_UNSENT
            poll.modify(self._sock, (0 if is_congested else select.POLLIN) | (select.POLLOUT if self._unsent else 0))
            has_work = (self._urgent or self._busy) and not is_congested
            ready = poll.poll(0 if has_work else self._until_next_look() if not is_congested else None)
            self._schedule_looks()
            found = ready[0][1] if ready else 0
            if found & select.POLLOUT and not self._flush():
                return
            # POLLHUP comes unasked. What the peer sent before is not worth anything then: nobody reads the answers.
            if found & (select.POLLHUP | select.POLLERR) or (found & select.POLLIN and not self._receive()):
                return
            if (self._urgent or self._busy) and self._unsent_bytes <= MAX_UNSENT:
                self._turn()

    def _until_next_look(self) -> float | None:
        """Return in how many milliseconds a screen is to be looked at; None where none is."""
        if not self._to_look:
            return None
        due = min(picture.search.next_look for picture in self._to_look.values())
        return max(0.0, due - time.monotonic()) * 1000 + 1

    def _schedule_looks(self) -> None:
        for picture in [each for each in self._to_look.values() if each.has_due_look()]:
            del self._to_look[picture.session]
            self._schedule(picture)

    # The socket

    def _send(self, message: Struct) -> None:
        try:
            frame = encode(message)
        except ValueError as exc:
            request = getattr(message, "request", None)
            frame = encode(Failed(request=request, session=getattr(message, "session", ""), reason=str(exc)))
        self._unsent.append(memoryview(frame))
        self._unsent_bytes += len(frame)
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> bool:
        """Send what the socket takes. Return False when orbitd is gone."""
        try:
            while self._unsent:
                first = self._unsent[0]
                count = self._sock.send(first)
                self._unsent_bytes -= count
                if count == len(first):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = first[count:]
        except BlockingIOError:
            return True
        except OSError:  # EPIPE: `run` finds the end of the socket too
            return False
        return True

    def _receive(self) -> bool:
        """Handle what has come. Return False at the end of the socket. Raises: Malformed."""
        for _ in range(_READS_A_TURN):
            try:
                data, descriptors = receive(self._sock)
            except BlockingIOError:
                return True
            except OSError:
                return False
            self._descriptors += descriptors
            if not data:
                return False
            for payload in self._framer.receive(data):
                try:
                    message = _decoder.decode(payload)
                except msgspec.DecodeError as exc:
                    raise Malformed(str(exc)) from exc
                self._handle(message)
        return True

    def _handle(self, message: ToScreens) -> None:
        """Note what orbitd says; the work is done in turns."""
        picture = self._pictures.get(message.session)
        if isinstance(message, Close):
            if picture is not None:
                self._remove(picture, "the session was closed")
            return
        if isinstance(message, Follow):
            picture = self._follow(picture, message)
        elif isinstance(message, Open):
            picture = self._expect(picture, message)
        elif picture is None or picture.is_broken:
            self._refuse(message, "the session is not open")
            return
        elif isinstance(message, Grown | Data):
            self._add_records(picture, message)
        elif isinstance(message, Watch | Unwatch):
            picture.search.update(message)
        elif len(picture.requests) < MAX_REQUESTS:
            picture.requests.append(message)
        else:
            self._refuse(message, "too many requests wait")
        self._schedule(picture)

    def _add_records(self, picture: Picture, message: Grown | Data) -> None:
        if isinstance(message, Grown):
            picture.follower.end = max(picture.follower.end, message.position)
            return
        picture.follower.add(message.position, message.record)
        if picture.follower.queued > MAX_UNFILED:
            self._break(picture, "too much output waits", picture.position, picture.follower.end)

    def _follow(self, picture: Picture | None, message: Follow) -> Picture:
        # The descriptor came with the first byte of this frame, and so before it (unix(7)).
        if not self._descriptors:
            raise Malformed("a journal without its descriptor")
        fd = self._descriptors.popleft()
        picture = picture or self._new_picture(message.session)
        if picture.is_broken:
            os.close(fd)
        else:
            picture.follower.follow(fd, message.base)
        return picture

    def _expect(self, picture: Picture | None, message: Open) -> Picture:
        """Return the picture that a message asks for, to be built in its turn."""
        if picture is not None and (picture.is_open or picture.is_broken):
            self._remove(picture, "the session was opened again")
            picture = None
        picture = picture or self._new_picture(message.session)
        picture.is_open = True
        picture.limits, picture.answer_from, picture.heard = message.limits, message.answer_from, message.heard
        picture.follower.position = message.position
        picture.requests.append(message)
        return picture

    def _refuse(self, message: Grown | Data | Watch | Unwatch | Queued, reason: str) -> None:
        if isinstance(message, Request):
            self._send(Failed(request=message.request, session=message.session, reason=reason))
        elif isinstance(message, Trim) and (picture := self._pictures.get(message.session)) is not None:
            picture.trimmed = message.number
            self._send_fed(picture, picture.position)

    def _new_picture(self, session: str) -> Picture:
        picture = self._pictures[session] = Picture(session=session, follower=Follower(), requests=deque())
        return picture

    def _remove(self, picture: Picture, reason: str) -> None:
        """Forget all of a session; answer what it was asked."""
        del self._pictures[picture.session]
        self._empty(picture, reason)

    def _empty(self, picture: Picture, reason: str) -> None:
        picture.is_open = False
        picture.search = TextSearch()
        if picture.emulator is not None:
            self._note.write(picture.session, Kind.DRAW, picture.position, picture.position)
            if picture.taker is not None:
                picture.taker.close()
                picture.taker = None
            picture.emulator.close()
            picture.emulator = None
            self._note.clear()
        picture.follower.close()
        for message in picture.requests:
            self._refuse(message, reason)
        picture.requests.clear()
        self._urgent.pop(picture.session, None)
        self._busy.pop(picture.session, None)
        self._to_look.pop(picture.session, None)

    # Turns

    def _schedule(self, picture: Picture, *, had_turn: bool = False) -> None:
        """Put a picture into the queue that it belongs to, at its end."""
        has_work = picture.has_due_request() or picture.has_records() or picture.has_due_look()
        for queue, belongs in (
            (self._urgent, has_work and bool(picture.requests)),
            (self._busy, has_work and not picture.requests),
        ):
            if had_turn or not belongs:
                queue.pop(picture.session, None)
            if belongs:
                queue.setdefault(picture.session, picture)

    def _turn(self) -> None:
        """Work on one picture."""
        # Pictures that are painted all the time do not keep the others waiting.
        self._urgent_turns = self._urgent_turns + 1 if self._urgent else 0
        is_urgent = bool(self._urgent) and not (self._busy and self._urgent_turns > _URGENT_TURNS)
        if not is_urgent:
            self._urgent_turns = 0
        picture = next(iter((self._urgent if is_urgent else self._busy).values()))
        self._memory.allow(MEMORY_BASE + MEMORY_FACTOR * picture.limits.size)
        if picture.has_due_look():
            self._look(picture)
        elif picture.has_due_request():
            self._answer(picture, picture.requests.popleft())
        else:
            self._feed(picture)
        signal.setitimer(signal.ITIMER_PROF, 0)
        self._memory.check()
        if picture.session in self._pictures:
            self._schedule(picture, had_turn=True)

    def _begin(self, picture: Picture, kind: Kind, start: int, end: int) -> None:
        """Note what begins, and give it CPU time.

        ITIMER_PROF counts the CPU time of this process, in user mode and in the kernel. Its signal's default action
        ends the process: a handler in Python would not run before the library returns.
        """
        self._note.write(picture.session, kind, start, end)
        signal.setitimer(signal.ITIMER_PROF, self._cpu_seconds)

    def _feed(self, picture: Picture) -> None:
        """Feed a picture some of its records."""
        emulator, follower = picture.emulator, picture.follower
        assert emulator is not None
        replies, fed = bytearray(), 0
        until = min(picture.wanted(), follower.end) if picture.requests else follower.end
        deadline = time.monotonic() + TURN_SECONDS
        start = end = follower.position
        reason = ""
        try:
            while follower.position < until and fed < TURN_BYTES and len(replies) < MAX_REPLIES:
                record = follower.next()
                if record is None:
                    break
                start, end = record.start, record.end
                bells = emulator.bells
                self._feed_record(picture, emulator, record)
                answers = emulator.replies()
                if isinstance(record.event, Divider):
                    replies.clear()  # the program that asked has ended, and the next one has not
                elif start >= picture.answer_from:
                    replies += answers
                    picture.bells += emulator.bells - bells
                _scan(picture, emulator, record)
                fed += end - start
                follower.position = end
                if time.monotonic() > deadline or picture.search.begins_at(end):
                    break
            self._report(picture, emulator, bytes(replies))
        except Damaged as exc:
            start, end, reason = follower.position, follower.behind_damage(), str(exc)
        except Exception as exc:  # noqa: BLE001 - whatever one picture does, the others go on
            reason = _reason(exc)
        self._note.clear()
        follower.release()
        if reason:
            self._send_fed(picture, start, bytes(replies))
            self._break(picture, reason, start, end)

    def _feed_record(self, picture: Picture, emulator: Emulator, record: Record) -> None:
        """Feed one record. Raises: Refused, TerminalError, MemoryError."""
        event, before, taker = record.event, self._memory.held(), picture.taker
        if not isinstance(event, Output | Resize | Divider) and (taker is None or not isinstance(event, Time)):
            return
        self._begin(picture, Kind.FEED, record.start, record.end)
        if isinstance(event, Output):
            self._feed_output(picture, emulator, record, event.data)
        elif isinstance(event, Resize):
            _resize(emulator, taker, event, record.end)
        elif isinstance(event, Divider):
            if taker is not None:
                taker.prepare(record.end)
            print_divider(emulator, event.text)
        elif taker is not None:
            taker.pass_time(event.milliseconds, record.end)
        if taker is not None:
            taker.settle(record.end)
        self._measure(picture, emulator, before)
        self._keep_limits(picture, emulator, record.end)
        self._note.clear()

    def _keep_limits(self, picture: Picture, emulator: Emulator, position: int) -> None:
        """Trim a picture that holds too much. Raises: Refused, where that does not help."""
        size, taker = picture.limits.size, picture.taker
        # The history is longer than it should be while lines are taken from it.
        if taker is not None and size < min(MIN_HISTORY_BYTES, emulator.scrollback_bytes):
            taker.prepare(position)
            emulator.trim_scrollback(max_bytes=size)
        most = size + HELD_EXTRA
        for keep in (size // 2, 0):
            if picture.held <= most:
                break
            before = self._memory.held()
            if taker is not None:
                taker.prepare(position)
            emulator.trim_scrollback(max_bytes=keep)
            self._measure(picture, emulator, before)
        if picture.held > most:
            raise Refused("memory")

    def _feed_output(self, picture: Picture, emulator: Emulator, record: Record, data: bytes) -> None:
        taker, fed, begins = picture.taker, 0, PIECE_BYTES
        for piece in _pieces_of(data) if taker is None else taker.pieces(data, record.end):
            if fed >= begins:  # the taker's pieces are short: they have the time of a long one together
                self._begin(picture, Kind.FEED, record.start, record.end)
                begins = fed + PIECE_BYTES
            emulator.feed(piece)
            fed += len(piece)
            if picture.search:
                is_all = fed == len(data) and record.end >= picture.follower.end
                self._send_found(picture, picture.search.feed(piece, is_all=is_all))

    def _look(self, picture: Picture) -> None:
        """Search the screen for what is waited for."""
        emulator, search, start = picture.emulator, picture.search, time.monotonic()
        assert emulator is not None
        try:
            self._begin(picture, Kind.DRAW, picture.position, picture.position)
            screen, line = emulator.searchable()
        except Exception:  # noqa: BLE001 - what is printed is searched all the same
            screen = line = b""
        self._send_found(picture, search.look(picture.position, screen, line))
        self._note.clear()
        now = time.monotonic()
        search.next_look = now + LOOK_SHARE * (now - start)

    def _send_found(self, picture: Picture, found: list[tuple[list[int], str]]) -> None:
        for numbers, line in found:
            self._send(Found(session=picture.session, numbers=numbers, line=line))

    def _measure(self, picture: Picture, emulator: Emulator, before: int | None) -> None:
        """Count what the process has grown by as the picture's; without such a figure, about what its history takes."""
        after = self._memory.held()
        if before is None or after is None:
            picture.held = emulator.scrollback_bytes
        else:
            picture.held = max(0, picture.held + after - before)

    def _report(self, picture: Picture, emulator: Emulator, replies: bytes = b"") -> None:
        facts = Facts(
            title=emulator.title[:MAX_FACT],
            cwd=emulator.cwd[:MAX_FACT],
            alternate=emulator.alternate,
            progress=emulator.progress,
        )
        changed, picture.facts = (facts if facts != picture.facts else None), facts
        self._send_fed(picture, picture.position, replies, changed)
        if picture.search.is_due:
            self._to_look[picture.session] = picture

    def _send_fed(self, picture: Picture, position: int, replies: bytes = b"", facts: Facts | None = None) -> None:
        said, unsaid = ([], 0) if picture.emulator is None else picture.emulator.scanner.take()
        bells, picture.bells = picture.bells, 0
        self._send(
            Fed(
                session=picture.session,
                position=position,
                replies=replies,
                facts=facts,
                said=tuple(said),
                unsaid=unsaid,
                bells=bells,
                held=picture.held,
                trimmed=picture.trimmed,
            )
        )

    def _break(self, picture: Picture, reason: str, start: int, end: int, request: int | None = None) -> None:
        """Say that a picture is gone, and free it; the session stays broken until orbitd closes or opens it."""
        failed = Failed(request=request, session=picture.session, reason=reason, broken=True, start=start, end=end)
        self._send(failed)
        picture.is_broken = True
        self._empty(picture, "the picture is broken")

    # Requests

    def _answer(self, picture: Picture, request: Queued) -> None:
        """Answer a request; whatever is raised on the way is the answer."""
        reason = ""
        try:
            self._begin(
                picture, Kind.OPEN if isinstance(request, Open) else Kind.DRAW, picture.position, picture.position
            )
            if isinstance(request, Open):
                self._open(picture, request)
            elif picture.emulator is None:
                reason = "the session is not open"
            elif isinstance(request, Trim):
                self._trim(picture, picture.emulator, request)
            elif isinstance(request, SetAppearance):
                picture.emulator.set_appearance(request.appearance)
                self._report(picture, picture.emulator, picture.emulator.replies())
            else:
                if picture.search.is_due:  # whoever asks for a position may ask what was found before it
                    self._look(picture)
                    self._begin(picture, Kind.DRAW, picture.position, picture.position)
                before = self._memory.held()  # reading decompresses a history, a save compresses it
                self._draw(picture, picture.emulator, request)
                self._measure(picture, picture.emulator, before)
        except Exception as exc:  # noqa: BLE001 - whatever one picture does, the others go on
            reason = _reason(exc)
        self._note.clear()
        if reason and isinstance(request, Open):
            self._break(picture, reason, picture.position, picture.position, request.request)
        elif reason:
            self._refuse(request, reason)

    def _trim(self, picture: Picture, emulator: Emulator, request: Trim) -> None:
        picture.trimmed = request.number
        before = self._memory.held()
        if request.before_line is not None:
            emulator.forget_before(request.before_line)
        # What it holds beside its history stays: the rest of `size` is the history's.
        beside = max(0, picture.held - emulator.scrollback_bytes)
        emulator.trim_scrollback(max_bytes=max(0, request.size - beside))
        self._measure(picture, emulator, before)
        self._report(picture, emulator)

    def _open(self, picture: Picture, request: Open) -> None:
        before = self._memory.held()
        emulator, loss = _base_emulator(request)
        picture.emulator = emulator
        emulator.scanner.from_position = picture.heard
        emulator.count_from(request.history_line)
        if request.appearance is not None:
            emulator.set_appearance(request.appearance)
        if request.divider:
            print_divider(emulator, request.divider)
            emulator.scanner.reset()
        if request.note:
            print_note(emulator, request.note)
        emulator.replies()  # dropped: the program has not asked these questions now
        if request.takes_text:
            picture.taker = TextTaker(
                emulator,
                picture.clock,
                position=request.position,
                text_from=request.text_from,
                text_line=request.text_line,
                history=(request.limits.lines, max(request.limits.size, MIN_HISTORY_BYTES)),
            )
        self._measure(picture, emulator, before)
        self._send(Opened(request=request.request, session=picture.session, loss=loss))
        self._report(picture, emulator)

    def _draw(self, picture: Picture, emulator: Emulator, request: Paint | Frame | Count | Save | Render) -> None:
        (cols, rows), position = emulator.size, picture.position
        if isinstance(request, Paint):
            data = RESET + emulator.repaint(request.scrollback_lines, after_line=request.after_line)
            self._send(
                Painted(
                    request=request.request,
                    position=position,
                    data=data,
                    cols=cols,
                    rows=rows,
                    cursor_row=emulator.cursor.row,
                    history_line=emulator.history_line,
                )
            )
        elif isinstance(request, Frame):
            frame = emulator.frame(request.cols, request.rows, request.left, request.top)
            self._send(
                Framed(
                    request=request.request,
                    position=position,
                    left=frame.left,
                    top=frame.top,
                    rows=frame.rows,
                    modes=frame.modes,
                    column=frame.column,
                    row=frame.row,
                    visible=frame.visible,
                    is_updating=frame.is_updating,
                    title=emulator.title[:MAX_FACT],
                    bells=emulator.bells,
                )
            )
        elif isinstance(request, Count):
            self._send(Counted(request=request.request, position=position, history_line=emulator.history_line))
        elif isinstance(request, Render):
            data, too_large, cursor = b"", "", emulator.cursor
            try:
                data = emulator.screen(
                    request.format,
                    scrollback=request.scrollback,
                    cut=request.cut,
                    cursor=request.cursor,
                    colors=request.colors,
                )
            except TooLarge as exc:
                too_large = str(exc)
            first, _, total = (None, None, None) if request.cut is None else emulator.cut_lines(request.cut)
            self._send(
                Rendered(
                    request=request.request,
                    position=position,
                    data=data,
                    cols=cols,
                    rows=rows,
                    column=cursor.column,
                    row=cursor.row,
                    visible=cursor.visible,
                    title=emulator.title[:MAX_FACT],
                    first_line=first,
                    total_lines=total,
                    too_large=too_large,
                )
            )
        else:
            taker = picture.taker
            if taker is not None:
                taker.save(position)
            native, portable = emulator.save()
            has_tail, tail = (False, None) if taker is None else taker.tail()
            self._send(
                Saved(
                    request=request.request,
                    position=position,
                    native=native,
                    portable=portable,
                    cols=cols,
                    rows=rows,
                    title=emulator.title[:MAX_FACT],
                    history_line=emulator.history_line,
                    key_frame=key_frame(native) if request.key_frame else b"",
                    text=() if taker is None else taker.taken(request.text_from),
                    tail=tail,
                    has_tail=has_tail,
                    at=picture.clock.recorded,
                )
            )
            if not picture.has_records():  # else most of it is soon dropped: to compress it takes as long as to feed it
                emulator.compress()  # history that has been saved is seldom read again


def _scan(picture: Picture, emulator: Emulator, record: Record) -> None:
    """Find what a record that has been fed says."""
    event = record.event
    if isinstance(event, Output):
        emulator.scanner.feed(event.data, record.start + RECORD_HEADER_BYTES, picture.clock.now)
    elif isinstance(event, Divider):
        emulator.scanner.reset()
    elif isinstance(event, Time):
        picture.clock.recorded = event.milliseconds


def _resize(emulator: Emulator, taker: TextTaker | None, event: Resize, position: int) -> None:
    size = possible_size(event.cols, event.rows)
    if taker is None:
        emulator.resize(*size)
    else:
        taker.resize(*size, position)


def _pieces_of(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    return str(error) if isinstance(error, Refused | TerminalError) else repr(error)


def _base_emulator(request: Open) -> tuple[Emulator, str]:
    """Return the emulator of what `Open` builds on, and what of it is lost. Raises: TerminalError."""
    base, limits, loss = request.base, request.limits, ""
    if request.takes_text:  # lines are taken from the history; it is trimmed behind each record
        limits = Limits(lines=limits.lines, size=max(limits.size, MIN_HISTORY_BYTES))
    if base.native:
        try:
            emulator = Emulator.decode(base.native, max_scrollback_lines=limits.lines, scrollback_max_bytes=limits.size)
        except TerminalError:
            # Written by another version of the library, or damaged.
            loss = "history lost, portable screen used"
        else:
            return emulator, ""
    size = possible_size(base.cols, base.rows)
    emulator = Emulator(*size, max_scrollback_lines=limits.lines, scrollback_max_bytes=limits.size)
    for start in range(0, len(base.portable), PIECE_BYTES):
        emulator.feed(base.portable[start : start + PIECE_BYTES])
    if base.native:
        header = StateHeader.of(base.native)
        emulator.count_from(header.history_line)
        emulator.scanner.state = header.said or emulator.scanner.state
    return emulator, loss


def possible_size(cols: int, rows: int) -> tuple[int, int]:
    """Return the size that is nearest to what a journal or a snapshot has: older releases took any."""
    cols = min(max(cols, 1), MAX_COLUMNS_OR_ROWS)
    return cols, min(max(rows, 1), MAX_COLUMNS_OR_ROWS, MAX_SCREEN_CELLS // cols)


def serve(sock_fd: int, note_fd: int, cpu_seconds: float = CPU_SECONDS) -> None:
    """Be a screens process until orbitd closes the socket; for a process that has nothing else to do.

    Args:
        sock_fd: To orbitd.
        note_fd: The shared memory of its note.
        cpu_seconds: As in `ScreensProcess`.

    Raises:
        Malformed: What came is not the protocol.
        Starved: Its memory limit was lowered.
    """
    for number in _IGNORED:  # orbitd ends this process; a ^C in the terminal that it was started in does not
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    note = Note(note_fd)
    os.close(note_fd)  # mmap has a descriptor of its own
    ScreensProcess(socket.socket(fileno=sock_fd), note, Memory(), cpu_seconds).run()
