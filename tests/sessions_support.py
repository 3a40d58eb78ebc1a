"""A daemon's sessions with everything around them scripted: screens processes, keeper, store, clients.

Only the pieces at the border are fakes. The screens processes are at the other end of real sockets, read real journals,
and their picture is simply all output so far: whatever a client is shown must be that, each byte once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import re
import signal
import socket
import termios
import tty
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pytest
from msgspec import Struct

from orbit_protocol.errors import SessionNotFound
from orbit_protocol.params import (
    ClientTerminal,
    FrameUse,
    SessionAttach,
    SessionInput,
    SessionResize,
    SessionSend,
)
from orbit_protocol.results import Empty
from orbit_protocol.types import (
    Record,
    Session,
    SessionConfig,
    Snapshot,
    SnapshotInfo,
    SnapshotPage,
    Workspace,
    WorkspaceLayout,
)
from orbitd.history.history import History, Recording
from orbitd.keeper.client import KeeperClient, KeptProgram, Spawned, SpawnRequest
from orbitd.keeper.frames import Framer, receive
from orbitd.manager import SessionManager
from orbitd.rpc.connection import Attached, Call, Connection, InputTurns, PeerProcess
from orbitd.screens import messages as m
from orbitd.screens.client import Screens
from orbitd.screens.follower import Damaged, Follower
from orbitd.screens.messages import Saved
from orbitd.screens.note import Kind, Note
from orbitd.screens.said import Scanner
from orbitd.screens.text_search import TextSearch
from orbitd.sessions import attachment
from orbitd.sessions.files import SessionFiles
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import RECORD_HEADER_BYTES, Divider, Output, Resize
from orbitd.sessions.methods import SessionMethods
from orbitd.sessions.programs import LiveSettings, Programs
from orbitd.sessions.saved_state import SavedState
from orbitd.sessions.session import LiveSession
from orbitd.sessions.terminal import Landing
from orbitd.store.events import NewEvent
from orbitd.store.rows import Marks
from orbitd.store.sessions import ClientChange
from orbitd.store.snapshots import SavedScreen
from support import WAIT_SECS

T = TypeVar("T", bound=Struct)

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)

FRAME_ROW = b"\x01%b\x02"
"""The only row of a scripted frame: the whole picture. Between { and } it is being updated."""

_to_screens = msgspec.msgpack.Decoder(m.ToScreens)
_to_template = msgspec.msgpack.Decoder(m.ToTemplate)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(WAIT_SECS):
        while not condition():  # noqa: ASYNC110  # it is of the code under test, which sets no event for tests
            await asyncio.sleep(0)


class _Peer:
    """The other end of one of orbitd's sockets, on the same loop."""

    def __init__(self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        sock.setblocking(False)
        self._sock, self._decoder = sock, decoder
        self._framer = Framer(m.MAX_FRAME)
        self._loop = asyncio.get_running_loop()
        self.descriptors: deque[int] = deque()
        self.is_open = True
        self.go_on()

    def send(self, message: Struct) -> None:
        """Send a message."""
        if self.is_open:
            self._sock.setblocking(True)
            with contextlib.suppress(OSError):
                self._sock.sendall(m.encode(message))
            self._sock.setblocking(False)

    def stop(self) -> None:
        """Read nothing more, as after a SIGSTOP."""
        self._loop.remove_reader(self._sock)

    def go_on(self) -> None:
        """Undo `stop`."""
        self._loop.add_reader(self._sock, self._read)

    def close(self) -> None:
        """Close the socket."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._sock)
            self._sock.close()
            while self.descriptors:
                os.close(self.descriptors.popleft())

    def _read(self) -> None:
        try:
            data, descriptors = receive(self._sock)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self.descriptors += descriptors
        if not data:
            self.lost()
            return
        for payload in self._framer.receive(data):
            if self.is_open:
                self.handle(self._decoder.decode(payload))

    def handle(self, message: Any) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        """Orbitd has closed its end."""
        self.close()


class ScriptedPicture:
    """The picture of one session: all output, and where it is."""

    def __init__(self) -> None:
        self.content = b""
        self.size = (0, 0)
        self.follower = Follower()
        self.search = TextSearch()
        self.is_open = self.is_broken = False
        self.scanner = Scanner()
        self.answer_from = 0


class ScriptedProcess(_Peer):
    """A screens process. It does what a good one does, but for what a test says.

    Attributes:
        messages: All that came, in order.
        held: Kinds of messages that are not handled until `release`.
        poison: What it dies of when it is fed; see also `ScriptedTemplate`.
    """

    def __init__(self, template: ScriptedTemplate, number: int, sock: socket.socket, note_fd: int) -> None:
        self.template, self.number, self.pid = template, number, template.first_pid + number
        self.note = Note(note_fd)
        os.close(note_fd)
        self.messages: list[Struct] = []
        self.held: set[type[Struct]] = set()
        self.pictures: dict[str, ScriptedPicture] = {}
        self._waiting: list[Any] = []
        super().__init__(sock, _to_screens)

    def sent(self, kind: type[T], session: str | None = None) -> list[T]:
        """Return what came of one kind."""
        found = [each for each in self.messages if isinstance(each, kind)]
        return [each for each in found if session in (None, each.session)]  # type: ignore[attr-defined]

    async def receive(self, kind: type[T], count: int = 1, session: str | None = None) -> T:
        """Wait for a message; return the count-th of its kind."""
        await until(lambda: len(self.sent(kind, session)) >= count)
        return self.sent(kind, session)[count - 1]

    def hold(self, *kinds: type[Struct]) -> None:
        """Do nothing about messages of these kinds; `Grown`: feed nothing."""
        self.held.update(kinds)

    def release(self, *kinds: type[Struct]) -> None:
        """Handle what was held."""
        self.held.difference_update(kinds)
        self._work()

    def work_on(self, session: str, kind: Kind = Kind.FEED, start: int = 0, end: int = 0) -> None:
        """Be busy with a picture from now on, and answer nothing."""
        self.note.write(session, kind, start, end)
        self.stop()

    def recover(self) -> None:
        """Do again what a good process does."""
        self.held.clear()
        if self.is_open:
            self.note.clear()
            self.go_on()
            self._work()

    def die(self, status: int = -signal.SIGSEGV) -> None:
        """End, as a crash or a signal does; the template reports it."""
        self.close()
        self.template.send(m.Exited(number=self.number, status=status))

    def close(self) -> None:
        for picture in self.pictures.values():
            picture.follower.close()
        super().close()

    def lost(self) -> None:
        self.close()
        self.template.send(m.Exited(number=self.number, status=0))

    def handle(self, message: Any) -> None:
        self.messages.append(message)
        if isinstance(message, m.Follow):
            self._picture(message.session).follower.follow(self.descriptors.popleft(), message.base)
        elif isinstance(message, m.Close):
            picture = self.pictures.pop(message.session, None)
            if picture is not None:
                picture.follower.close()
            for each in self._waiting:
                if each.session == message.session and hasattr(each, "request"):
                    self.send(m.Failed(request=each.request, session=each.session, reason="closed"))
            self._waiting = [each for each in self._waiting if each.session != message.session]
        else:
            self._waiting.append(message)
        self._work()

    def _picture(self, session: str) -> ScriptedPicture:
        return self.pictures.setdefault(session, ScriptedPicture())

    def _work(self) -> None:
        done = True
        while done:  # what was fed may be what an earlier request waits for
            waiting, self._waiting, done = self._waiting, [], False
            for message in waiting:
                if self.is_open and (type(message) in self.held or not self._do(message)):
                    self._waiting.append(message)
                else:
                    done = True

    def _do(self, message: Any) -> bool:
        """Handle a message; return False where it waits for its turn."""
        picture = self._picture(message.session)
        if isinstance(message, m.Watch | m.Unwatch):
            picture.search.update(message)
            self._look(message.session, picture)
            return True
        if isinstance(message, m.Open):
            return self._open(picture, message)
        if not picture.is_open:
            return picture.is_broken  # else it waits for a held `Open`
        if isinstance(message, m.Grown | m.Data):
            if isinstance(message, m.Data):
                picture.follower.add(message.position, message.record)
            picture.follower.end = max(picture.follower.end, message.position)
            return self._feed(message.session, picture)
        if isinstance(message, m.Trim | m.SetAppearance):
            return True
        if message.at_least > picture.follower.position:
            return False
        return self._draw(picture, message)

    def _open(self, picture: ScriptedPicture, message: m.Open) -> bool:
        position = message.position
        if self.template.breaks_open(message):
            self._fail(message.session, Kind.OPEN, position, position, message.request)
            return True
        picture.content = message.base.portable
        if message.divider:
            picture.content += b"<%s>" % message.divider.encode()
        picture.size = message.base.cols, message.base.rows
        picture.scanner, picture.answer_from = Scanner(from_position=message.heard), message.answer_from
        picture.follower.position, picture.is_open = position, True
        self.send(m.Opened(request=message.request, session=message.session))
        self.send(m.Fed(session=message.session, position=position, held=len(picture.content)))
        self._look(message.session, picture)
        return True

    def _look(self, session: str, picture: ScriptedPicture) -> None:
        """Begin the searches that begin here; others find what they search for when it is fed."""
        if picture.is_open and picture.search.begins_at(picture.follower.position):
            line = picture.content.rpartition(b"\n")[2]
            self._send_found(session, picture.search.look(picture.follower.position, picture.content, line))

    def _send_found(self, session: str, found: list[tuple[list[int], str]]) -> None:
        for numbers, line in found:
            self.send(m.Found(session=session, numbers=numbers, line=line))

    def _feed(self, session: str, picture: ScriptedPicture) -> bool:
        bells = 0
        while True:
            try:
                record = picture.follower.next()
            except Damaged as error:
                start, end = picture.follower.position, picture.follower.end
                picture.is_open, picture.is_broken = False, True
                self.send(m.Failed(request=None, session=session, reason=str(error), broken=True, start=start, end=end))
                return True
            if record is None:
                break
            event = record.event
            if isinstance(event, Output):
                if any(word in event.data for word in self.template.poison):
                    self._fail(session, Kind.FEED, record.start, record.end)
                    return True
                picture.content += event.data
                is_text = not picture.scanner.state.unfinished and b"\x1b" not in event.data
                picture.scanner.feed(event.data, record.start + RECORD_HEADER_BYTES, lambda: 0)
                if record.start >= picture.answer_from and is_text:
                    bells += event.data.count(b"\a")
                self._send_found(session, picture.search.feed(event.data, is_all=record.end >= picture.follower.end))
            elif isinstance(event, Divider):
                picture.content += b"<%s>" % event.text.encode()
            elif isinstance(event, Resize):
                picture.size = event.cols, event.rows
            picture.follower.position = record.end
            self._look(session, picture)
        said, unsaid = picture.scanner.take()
        self.send(
            m.Fed(
                session=session,
                position=picture.follower.position,
                held=len(picture.content),
                said=tuple(said),
                unsaid=unsaid,
                bells=bells,
            )
        )
        return True

    def _draw(self, picture: ScriptedPicture, message: m.Paint | m.Frame | m.Count | m.Save | m.Render) -> bool:
        (cols, rows), position, lines = picture.size, picture.follower.position, picture.content.count(b"\n")
        if self.template.breaks_draw(message):
            self._fail(message.session, Kind.DRAW, position, position, message.request)
        elif isinstance(message, m.Paint):
            data = picture.content
            self.send(
                m.Painted(
                    request=message.request,
                    position=position,
                    data=data,
                    cols=cols,
                    rows=rows,
                    cursor_row=0,
                    history_line=lines,
                )
            )
        elif isinstance(message, m.Frame):
            self.send(
                m.Framed(
                    request=message.request,
                    position=position,
                    left=0,
                    top=0,
                    rows=[FRAME_ROW % picture.content] + [b""] * (message.rows - 1),
                    modes=b"",
                    column=0,
                    row=0,
                    visible=True,
                    is_updating=picture.content.count(b"{") > picture.content.count(b"}"),
                    title="",
                    bells=0,
                )
            )
        elif isinstance(message, m.Count):
            self.send(m.Counted(request=message.request, position=position, history_line=lines))
        elif isinstance(message, m.Save):
            self.send(
                m.Saved(
                    request=message.request,
                    position=position,
                    native=b"native",
                    portable=picture.content,
                    cols=cols,
                    rows=rows,
                    title="",
                    history_line=lines,
                )
            )
        else:
            self.send(
                m.Rendered(
                    request=message.request,
                    position=position,
                    data=picture.content,
                    cols=cols,
                    rows=rows,
                    column=0,
                    row=0,
                    visible=True,
                    title="",
                )
            )
        return True

    def _fail(self, session: str, kind: Kind, start: int, end: int, request: int | None = None) -> None:
        """Break over a picture: die of it, or report it where the library only raises."""
        if self.template.dies:
            self.note.write(session, kind, start, end)
            self.die()
            return
        picture = self.pictures[session]
        picture.is_open, picture.is_broken = False, True
        self.send(m.Failed(request=request, session=session, reason="no", broken=True, start=start, end=end))


class ScriptedTemplate(_Peer):
    """The template, started by `Screens` through `start`, and what it has forked.

    Attributes:
        processes: All screens processes, the oldest first.
        poison: Output that the library does not survive.
        breaks_open: Whether building a picture breaks.
        breaks_draw: Whether drawing one breaks.
        dies: It breaks by a crash; else it is refused.
        unavailable: Why nothing can be drawn.
        can_fork: Whether forks work.
    """

    first_pid = 1 << 23  # larger than any process's

    def __init__(self) -> None:
        self.processes: list[ScriptedProcess] = []
        self.poison: list[bytes] = []
        self.breaks_open: Callable[[m.Open], bool] = lambda _: False
        self.breaks_draw: Callable[[Struct], bool] = lambda _: False
        self.dies = True
        self.unavailable = ""
        self.can_fork = True
        self.starts = 0
        self.is_open = False
        self.on_fork: Callable[[ScriptedProcess], None] = lambda _: None

    def start(self, sock: socket.socket) -> None:
        """Be the template at the other end of a socket."""
        self.starts += 1
        _Peer.__init__(self, sock.dup(), _to_template)
        self.send(m.Hello(pid=1, unavailable=self.unavailable))

    def handle(self, message: m.Fork) -> None:
        sock, note_fd = socket.socket(fileno=self.descriptors.popleft()), self.descriptors.popleft()
        if self.unavailable or not self.can_fork:
            sock.close()
            os.close(note_fd)
            self.send(m.Forked(number=message.number, pid=0, reason="no memory"))
            return
        process = ScriptedProcess(self, message.number, sock, note_fd)
        self.processes.append(process)
        self.on_fork(process)
        self.send(m.Forked(number=message.number, pid=process.pid))
        process.send(m.Hello(pid=process.pid))

    async def forked(self, count: int = 1) -> ScriptedProcess:
        """Wait for the count-th process."""
        await until(lambda: len(self.processes) >= count)
        return self.processes[count - 1]

    def kill(self, pid: int, number: int) -> None:
        """Stand in for os.kill."""
        for process in self.processes:
            if process.pid == pid:
                process.die(-number)

    def end(self) -> None:
        """End it with all of its processes."""
        for process in self.processes:
            process.close()
        if self.is_open:
            self.close()


class FakeStore:
    """What sessions need of a store.

    Attributes:
        sessions: The rows.
        opened: The events of workspaces.
        external: Whose newest snapshot an application has saved.
        snapshots: What was saved, as (session, position, screen).
        errors: Method -> what it raises, once each.
        gates: Method -> what it waits for.
        entered: Methods that were called.
        clients: Who has come and left, as (session, the status with which that is recorded or None, who).
        ends: How programs have ended, as (session, status, reason).
        said: Events of what programs said, in order.
        story: Which of them, and which snapshots, were committed, in order: their positions.
    """

    descriptors = 0

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.clients: list[tuple[str, str | None, ClientChange]] = []
        self.ends: list[tuple[str, str, str | None]] = []
        self.external: set[str] = set()
        self.opened: list[tuple[str, str]] = []
        self.snapshots: list[tuple[str, int, bytes]] = []
        self.sizes: list[tuple[int, int]] = []
        self.errors: dict[str, list[Exception]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.entered: list[str] = []
        self.said: list[NewEvent] = []
        self.story: list[tuple[str, int | None]] = []

    def add(self, session_id: str, **changes: Any) -> None:
        """Add a session."""
        config = SessionConfig(session_type="local", command="cat")
        known = {"name": None, "session_type": "local", "status": "detached", "workspace_id": None, "config": config}
        self.sessions[session_id] = Session(
            id=session_id, created_at=MOMENT, last_active=MOMENT, **cast(Any, {**known, **changes})
        )

    def saved(self, session_id: str) -> bytes:
        """Return the newest saved screen of a session."""
        return next(screen for each, _, screen in reversed(self.snapshots) if each == session_id)

    def has_damaged_sessions(self) -> bool:
        return False

    def cached_session(self, session_id: str) -> Session | None:
        return self.sessions.get(session_id)

    async def get_session(self, session_id: str) -> Session:
        await self._enter("get_session")
        return self._find(session_id)

    async def start_program(self, session_id: str, cols: int, rows: int, *, reconnects: bool = False) -> Session:
        await self._enter("start_program")
        return self._change(session_id, status="detached", live=True, cols=cols, rows=rows, exit_code=None)

    async def undo_start(self, before: Session, *, reconnects: bool = False) -> Session:
        await self._enter("undo_start")
        return self._change(before.id, status=before.status, live=False, cols=before.cols, rows=before.rows)

    async def end_program(
        self,
        session_id: str,
        status: str,
        exit_code: int | None = None,
        exit_signal: int | None = None,
        *,
        cwd: bytes | None = None,
        reason: str | None = None,
    ) -> Session:
        await self._enter("end_program")
        self.ends.append((session_id, status, reason))
        return self._change(session_id, status=status, live=False, exit_code=exit_code, exit_signal=exit_signal)

    async def update_session_status(
        self, session_id: str, status: str, *, clients: Sequence[ClientChange] = ()
    ) -> Session:
        await self._enter("update_session_status")
        self.clients += ((session_id, status, each) for each in clients)
        return self._change(session_id, status=status)

    async def record_clients(self, session_id: str, clients: Sequence[ClientChange]) -> None:
        await self._enter("record_clients")
        self.clients += ((session_id, None, each) for each in clients)

    async def detach_session(self, session_id: str, *, reason: str | None = None) -> Session:
        return await self.update_session_status(session_id, "detached")

    async def terminate_session(self, session_id: str) -> Session:
        return await self.update_session_status(session_id, "terminated")

    async def delete_session(self, session_id: str) -> None:
        await self._enter("delete_session")
        self._find(session_id)
        del self.sessions[session_id]

    async def trash_session(self, session_id: str) -> bool:
        await self.delete_session(session_id)
        return True

    async def get_workspace(self, workspace_id: str) -> Workspace:
        await self._enter("get_workspace")
        layout = WorkspaceLayout(layout_type="tabs", config=msgspec.Raw(b"{}"))
        return Workspace(id=workspace_id, name=workspace_id, created_at=MOMENT, layout=layout, active_session_id=None)

    async def list_members(self, workspace_id: str) -> list[Session]:
        await self._enter("list_members")
        return [each for each in self.sessions.values() if each.workspace_id == workspace_id]

    async def record_opened(self, workspace_id: str, kind: str) -> None:
        await self._enter("record_opened")
        self.opened.append((workspace_id, kind))

    async def keep_ended(self, session_id: str) -> Session:
        await self._enter("keep_ended")
        config = msgspec.structs.replace(self._find(session_id).config, auto_remove=False)
        return self._change(session_id, config=config)

    async def list_snapshots(self, session_id: str, *, limit: int | None = None) -> SnapshotPage:
        await self._enter("list_snapshots")
        saved = any(each == session_id for each, _, _ in self.snapshots)
        if not (saved or session_id in self.external):
            return SnapshotPage(snapshots=[], next_cursor=None)
        newest = SnapshotInfo(
            id="snapshot",
            session_id=session_id,
            snapshot_at=MOMENT,
            format="opaque" if session_id in self.external else "vt",
            cols=None,
            rows=None,
            buffer_bytes=0,
            scrollback_bytes=0,
            stored_bytes=0,
        )
        return SnapshotPage(snapshots=[newest], next_cursor=None)

    async def list_purged(self) -> list[str]:
        return []

    def record_said(self, events: Sequence[NewEvent], marks: Mapping[str, Marks]) -> None:
        self.said += events
        self.story += [(each.kind, each.position) for each in events]
        for session_id, each in marks.items():
            if session_id in self.sessions:
                self._change(session_id, **msgspec.structs.asdict(each))

    async def said_settled(self) -> None:
        await self._enter("said_settled")

    async def newest_position(self, session_id: str) -> int | None:
        found = [each.position or 0 for each in self.said if each.session_id == session_id]
        return max(found, default=None)

    async def save_snapshot(
        self, session_id: str, terminal_buffer: bytes, *, cols: int, rows: int, native_state: bytes, **_: Any
    ) -> None:
        await self._enter("save_snapshot")
        self._find(session_id)
        self.story.append(("snapshot", SavedState.from_bytes(native_state).position))
        self.snapshots.append((session_id, SavedState.from_bytes(native_state).position, terminal_buffer))
        self.sizes.append((cols, rows))
        self._change(session_id, last_saved_at=MOMENT)

    async def load_latest_screen(self, session_id: str) -> SavedScreen | None:
        await self._enter("load_latest_screen")
        found = [
            (position, screen, size)
            for (each, position, screen), size in zip(self.snapshots, self.sizes, strict=True)
            if each == session_id
        ]
        if not found:
            return None
        position, screen, (cols, rows) = found[-1]
        snapshot = Snapshot(
            id="snapshot",
            session_id=session_id,
            snapshot_at=MOMENT,
            format="vt",
            cols=cols,
            rows=rows,
            buffer_bytes=len(screen),
            scrollback_bytes=0,
            stored_bytes=0,
            terminal_buffer=screen,
            scrollback=None,
        )
        native = SavedState(native=b"native", position=position).to_bytes()
        return SavedScreen(snapshot=snapshot, native_state=native, cwd=None)

    async def _enter(self, method: str) -> None:
        self.entered.append(method)
        if method in self.gates:
            await self.gates[method].wait()
        if self.errors.get(method):
            raise self.errors[method].pop(0)

    def _find(self, session_id: str) -> Session:
        if session_id not in self.sessions:
            raise SessionNotFound(f"There is no session {session_id}")
        return self.sessions[session_id]

    def _change(self, session_id: str, **changes: Any) -> Session:
        changed = self.sessions[session_id] = msgspec.structs.replace(self._find(session_id), **changes)
        return changed


class FakeKeeper:
    """The client of a keeper whose programs a test plays.

    Attributes:
        terminals: Session id -> the program's end of its terminal.
        masters: Session id -> the keeper's own descriptor of the other end.
        taken: Whose terminals were fetched.
        released: Whose exits were acknowledged.
        signals: What was sent.
        targets: To whom, likewise.
        is_gone: As of `KeeperClient`.
    """

    def __init__(self, folder: Path) -> None:
        self.is_gone = False
        self.terminals: dict[str, int] = {}
        self.masters: dict[str, int] = {}
        self.taken: list[str] = []
        self.released: list[str] = []
        self.signals: list[tuple[str, int]] = []
        self.targets: list[str] = []
        self.on_signal: Callable[[str, int], None] = lambda *_: None
        self._landing_file = str(folder / "landing")

    async def spawn(self, request: SpawnRequest) -> Spawned:
        master, slave = os.openpty()
        tty.setraw(slave)
        if request.id in self.masters:
            os.close(self.masters[request.id])
        self.terminals[request.id], self.masters[request.id] = slave, os.dup(master)
        return Spawned(pid=1 << 24, master_fd=master, cwd=b"/")

    async def bind(self) -> None:
        pass

    async def landing(self) -> int:
        return Landing.create_file(self._landing_file)

    async def signal(self, program_id: str, number: int, target: str = "group") -> None:
        self.signals.append((program_id, number))
        self.targets.append(target)
        self.on_signal(program_id, number)

    async def take(self, program_id: str) -> int:
        self.taken.append(program_id)
        return os.dup(self.masters[program_id])

    async def programs(self) -> list[KeptProgram]:
        return []

    async def acknowledge_exit(self, program_id: str) -> None:
        self.released.append(program_id)

    async def forget(self, program_id: str) -> None:
        pass

    def close(self) -> None:
        for descriptor in [*self.terminals.values(), *self.masters.values()]:
            os.close(descriptor)
        self.terminals.clear()
        self.masters.clear()


class FakeConnection:
    """A client's connection: records what is sent; a test says when it is congested."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.is_congested = False
        self.is_open = True
        self.in_reserve = False
        self.peer: PeerProcess | None = None
        self.attachments: dict[str, Attached] = {}
        self.turns = InputTurns()

    def begin_wait(self, call: Call) -> None:
        """Nothing limits how many wait."""

    def end_wait(self, call: Call) -> None:
        """Nothing follows."""

    def send(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    def has_sent_all(self) -> bool:
        return not self.is_congested

    def drain(self) -> None:
        """Have it read everything."""
        self.is_congested = False
        for each in list(self.attachments.values()):
            each.handle_drained()

    def close(self) -> None:
        """Close it from the client's side."""
        self.is_open = False
        for each in list(self.attachments.values()):
            each.end()

    @property
    def story(self) -> list[str]:
        """Which notifications it was sent, in order."""
        return [message["method"].removeprefix("session.") for message in self.sent]


class Client:
    """A client that attaches to a session.

    Attributes:
        shown: What its terminal shows: the last repaint or frame, and the output behind it.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        read_only: bool = False,
        size: tuple[int, int] = (80, 24),
        frames: FrameUse = "auto",
        terminal: ClientTerminal | None = None,
    ) -> None:
        self.connection = FakeConnection()
        self._sessions, self.read_only, self._size, self._frames = sessions, read_only, size, frames
        self._terminal = terminal
        self._call = Call(cast(Connection, self.connection))
        self.id = ""
        self._first = b""

    async def ask(self, session_id: str = "one") -> None:
        """Attach; what follows is sent once `settle` has said that the answer is written."""
        attached = await self._sessions.methods.attach(self._call, self.params(session_id))
        self.id, self._first = attached.attachment_id, attached.repaint

    def params(self, session_id: str) -> SessionAttach:
        """Return the params of its attach."""
        cols, rows = self._size
        return SessionAttach(
            id=session_id,
            cols=cols,
            rows=rows,
            read_only=self.read_only,
            frames=self._frames,
            terminal=self._terminal,
        )

    def settle(self) -> None:
        """Write the answer."""
        self._call.settle(succeeded=True)
        self._call.run_callbacks()

    async def attach(self, session_id: str = "one") -> Client:
        """Attach, and take the answer."""
        await self.ask(session_id)
        self.settle()
        return self

    def resize(self, cols: int, rows: int) -> None:
        """Resize its window."""
        attachment.resize(self._call, SessionResize(attachment_id=self.id, cols=cols, rows=rows))

    def type(self, data: bytes) -> Coroutine[Any, Any, Empty] | Empty:
        """Type; what is returned is the answer, or waits for it."""
        return attachment.write_input(self._call, SessionInput(attachment_id=self.id, data=data))

    @property
    def story(self) -> list[str]:
        """Which notifications it was sent, in order."""
        return self.connection.story

    @property
    def shown(self) -> bytes:
        shown = _drawn(self._first)
        for message in self.connection.sent:
            if message["method"] == "session.repaint":
                shown = _drawn(base64.b64decode(message["params"]["data"]))
            elif message["method"] == "session.output":
                shown += base64.b64decode(message["params"]["data"])
        return shown


def _drawn(data: bytes) -> bytes:
    """Return the screen that a repaint draws; of a frame, what is in its first row."""
    frame = re.search(rb"\x1b\[1;1H(?:\x1b\[2K)?\x01(.*)\x02", data, re.DOTALL)
    return data if frame is None else frame[1]


class FullDisk:
    """A disk without room for journals, until there is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        write, new_file = os.pwrite, Journal._new_file

        def pwrite(fd: int, data: bytes, offset: int) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return write(fd, data, offset)

        def open_new(journal: Journal, base: int, start: int) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return new_file(journal, base, start)

        monkeypatch.setattr("orbitd.sessions.journal.os.pwrite", pwrite)
        monkeypatch.setattr(Journal, "_new_file", open_new)


class FakeHistory:
    """A history that is in memory: what it was given to record, and in which order with the store's saves."""

    descriptors = 0

    def __init__(self) -> None:
        self.films: dict[str, Recording] = {}
        self.recorded: list[tuple[str, int]] = []
        self.is_rewritten = False

    def record_of(self, record: Record) -> Record:
        """Return it."""
        return record

    def expect(self, session_id: str) -> None:
        """Expect to record it."""

    async def recording(self, session_id: str) -> Recording:
        """Return where a film ends."""
        return self.films.setdefault(session_id, Recording())

    async def record(self, session_id: str, record: Record, readers: object, saved: Saved) -> bool:
        """Record a save, unless the database is written again just now."""
        if self.is_rewritten:
            return False
        self.films.setdefault(session_id, Recording()).recorded_to = saved.position
        self.recorded.append((session_id, saved.position))
        return True

    async def records(self, session_id: str, start: int, end: int) -> bytes | None:
        """Return nothing."""
        return None

    def release(self, session_id: str) -> None:
        """Forget nothing: a film outlives its session's journal."""

    async def remove(self, session_id: str) -> None:
        """Remove a film."""
        self.films.pop(session_id, None)


class Sessions:
    """The sessions of a daemon.

    Args:
        home: Where journals are.
        template: Draws their pictures.
    """

    def __init__(self, home: Path, template: ScriptedTemplate, total_scrollback_bytes: int = 1 << 20) -> None:
        self.home = home
        self.template = template
        self.store = FakeStore()
        manager = cast(SessionManager, self.store)
        settings = LiveSettings(
            keeper_socket=str(home / "keeper"),
            journal_folder=str(home / "state" / "journal"),
            landing_file=str(home / "landing"),
            agent_folder=str(home / "state" / "agent"),
            daemon_socket="/nowhere",
            program_umask=0o022,
            scrollback_max_bytes=1 << 20,
            total_scrollback_bytes=total_scrollback_bytes,
        )
        self.history = FakeHistory()
        history = cast(History, self.history)
        self.programs = Programs(manager, history, settings, auto_save_interval_secs=3600)
        self.registry, self.endings, self.saver = self.programs.registry, self.programs.endings, self.programs.saver
        self.methods = SessionMethods(manager, self.programs)
        self.keeper = FakeKeeper(home)

    def files(self, folder: str) -> SessionFiles:
        """Return the files in another folder."""
        return SessionFiles(cast(SessionManager, self.store), cast(History, self.history), folder)

    async def run(self, session_id: str = "one", **fields: Any) -> LiveSession:
        """Start a session's program; return the session."""
        if session_id not in self.store.sessions:
            self.store.add(session_id, **fields)
        await self.programs.start(session_id, 80, 24, {})
        live = self.registry.get(session_id)
        assert live is not None
        return live

    def client(self, **options: Any) -> Client:
        """Return a new client."""
        return Client(self, **options)

    async def attach(self, session_id: str = "one", **options: Any) -> Client:
        """Return a client that is attached."""
        return await self.client(**options).attach(session_id)

    async def send(self, data: bytes, session_id: str = "one") -> None:
        """Type without attaching; return when the terminal has taken it."""
        call = Call(cast(Connection, FakeConnection()))
        answer = self.methods.send_input(call, SessionSend(id=session_id, data=data))
        if not isinstance(answer, Empty):
            await answer

    def write(self, data: bytes, session_id: str = "one") -> None:
        """Have a program print."""
        os.write(self.keeper.terminals[session_id], data)

    async def print(self, data: bytes, session_id: str = "one") -> int:
        """Have a program print, and wait until that is recorded; return the position behind it."""
        live = self.registry.get(session_id)
        assert live is not None
        before = live.position
        self.write(data, session_id)
        await until(lambda: live.position >= before + len(data))
        return live.position

    def hold_input(self, session_id: str = "one") -> None:
        """Have the kernel take no byte of what is typed, as for a program that does not read.

        How much a terminal takes before that depends on when the kernel moves it on.
        """
        termios.tcflow(self.keeper.masters[session_id], termios.TCOOFF)

    def take_input(self, session_id: str = "one") -> None:
        """Have the kernel take what is typed again."""
        termios.tcflow(self.keeper.masters[session_id], termios.TCOON)

    def typed(self, session_id: str = "one") -> bytes:
        """Return what a program can read."""
        slave = self.keeper.terminals[session_id]
        os.set_blocking(slave, False)
        try:
            return os.read(slave, 1 << 20)
        except BlockingIOError:
            return b""
        finally:
            os.set_blocking(slave, True)

    def exit(self, session_id: str = "one", exit_code: int = 0) -> asyncio.Task[None]:
        """End a program; return the task that handles its exit."""
        os.close(self.keeper.terminals.pop(session_id))
        ended = KeptProgram(id=session_id, pid=1 << 24, started_at=MOMENT, ended_at=MOMENT, exit_code=exit_code)
        return asyncio.get_running_loop().create_task(self.endings.handle_exit(ended))

    def journal(self, session_id: str = "one") -> Path:
        """Return a session's journal."""
        return self.home / "state" / "journal" / session_id

    async def close(self) -> None:
        """Close everything."""
        for process in self.template.processes:
            process.recover()
        await self.programs.close()
        self.keeper.close()
        self.template.end()


@contextlib.contextmanager
def scripted(monkeypatch: pytest.MonkeyPatch, home: Path, **options: Any) -> Iterator[Sessions]:
    """Return sessions whose screens processes and keeper are scripted."""
    template = ScriptedTemplate()
    (home / "state").mkdir(0o700, exist_ok=True)

    async def connect(*_: object, **__: object) -> FakeKeeper:
        return sessions.keeper

    monkeypatch.setattr("orbitd.sessions.programs.Screens", functools.partial(Screens, start_template=template.start))
    monkeypatch.setattr(KeeperClient, "connect_or_start", connect)
    monkeypatch.setattr("orbitd.screens.client.os.kill", template.kill)
    monkeypatch.setattr("orbitd.screens.client.GROWN_DELAY_SECS", 0.0)
    sessions = Sessions(home, template, **options)
    yield sessions
