"""`history.search`: orbitd's side. A child searches, and is ended if it takes too long or nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from orbit_protocol.errors import Busy, InvalidParams, OrbitError
from orbit_protocol.params import HistorySearch
from orbit_protocol.results import Hit, SearchPage
from orbitd.background_tasks import BackgroundTasks
from orbitd.history.database import DamagedHistory, milliseconds
from orbitd.history.history import unreadable
from orbitd.history.search_messages import (
    MAX_FRAME,
    Done,
    Failed,
    Found,
    FromChild,
    Part,
    Position,
    Search,
    Started,
    cursor_from_position,
    encode,
    position_from_cursor,
)
from orbitd.history.text_blocks import NO_NUMBER
from orbitd.keeper.frames import Framer, Malformed
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.screens.client import Screens, start_on_socket

log = logging.getLogger("orbitd.history")

SEARCH_SECS = 2.0
"""How long a child searches, until it ends by itself."""

KILL_SECS = 2.2
"""After this long it is ended: it does so by itself between two pieces of text only."""

START_SECS = 2.0
"""How long a fork of the template may take to answer; then an interpreter is started instead."""

INTERPRETER_SECS = 10.0

MAX_CHILDREN = 2
"""How many search at once; others wait."""

_READ = 1 << 18
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TOO_SLOW = "`query` is too slow to search for: in {seconds:.0f} seconds no part of the text was done"
_TOO_SLOW_HINT = "Simplify the expression, or search less: with session_id, since and until."

_decoder = msgspec.msgpack.Decoder(FromChild)


class _NotStarted(Exception):
    """The child has not begun to search; the text says why."""


class HistorySearcher:
    """Answers `history.search`.

    Args:
        manager: The store.
        history: The database of histories.
        screens: Whose template is forked.
        flush: Saves what some sessions have printed; returns whether that was done in time.
        live_ids: Returns the ids of the sessions whose programs run here.
        note_damage: Called for each damaged row.
    """

    def __init__(
        self,
        manager: SessionManager,
        history: str,
        screens: Screens,
        *,
        flush: Callable[[Iterable[str]], Awaitable[bool]],
        live_ids: Callable[[], Iterable[str]],
        note_damage: Callable[[DamagedHistory], None],
    ) -> None:
        self._manager, self._history, self._screens = manager, history, screens
        self._flush, self._live_ids, self._note_damage = flush, live_ids, note_damage
        self._free = asyncio.Semaphore(MAX_CHILDREN)
        self._tasks = BackgroundTasks(log, "search task failed")

    async def search(self, q: HistorySearch) -> SearchPage:
        """Return a page of what is found.

        Raises:
            SessionNotFound, WorkspaceNotFound: There is no such session or workspace.
            InvalidParams: The query or the cursor is none, or the query takes too long to search for.
            StorageCorrupt: The databases cannot be read.
            Busy: No process can be started now.
        """
        before = _position(q.cursor)
        if q.session_id is not None:
            await self._manager.get_session(q.session_id)
        if q.workspace_id is not None:
            await self._manager.get_workspace(q.workspace_id)
        # What was printed meanwhile is before all that a cursor is behind.
        is_flushed = before is not None or await self._flush(self._searched_live(q))
        search = Search(
            history=self._history,
            sessions=self._manager.path,
            query=q.query,
            regex=q.regex,
            case=q.case,
            limit=q.limit,
            seconds=SEARCH_SECS,
            session_id=q.session_id,
            workspace_id=q.workspace_id,
            labels=q.labels,
            since=None if q.since is None else milliseconds(q.since),
            until=None if q.until is None else milliseconds(q.until),
            context=q.context,
            before=before,
        )
        async with self._free:
            run = await self._run(search)
        return self._page(search, run, is_flushed=is_flushed)

    def _searched_live(self, q: HistorySearch) -> list[str]:
        """Return the sessions that are searched whose programs run here."""
        found = []
        for session_id in self._live_ids():
            session = self._manager.cached_session(session_id)
            if (
                session is not None
                and q.session_id in (None, session_id)
                and q.workspace_id in (None, session.workspace_id)
                and (q.labels or {}).items() <= session.labels.items()
            ):
                found.append(session_id)
        return found

    async def _run(self, search: Search) -> _Run:
        try:
            child = self._screens.fork_search()
        except OSError as error:
            raise Busy(f"No process can be started: {error.strerror}") from error
        if child is not None:
            try:
                return await self._ask(child.sock, search, child.kill, START_SECS)
            except _NotStarted as error:
                event(log, logging.WARNING, "search not forked", reason=str(error))
        return await self._ask_interpreter(search)

    async def _ask_interpreter(self, search: Search) -> _Run:
        """Search in a new interpreter, where there is no template to fork."""
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                process = start_on_socket("orbitd.history.search_child", theirs)
        except OSError as error:
            raise Busy(f"No process can be started: {error.strerror}") from error
        try:
            return await self._ask(ours, search, process.kill, INTERPRETER_SECS)
        except _NotStarted as error:
            raise Busy(f"No process that searches can be started: {error}") from error
        finally:
            process.kill()
            self._tasks.start(asyncio.to_thread(process.wait))

    async def _ask(self, sock: socket.socket, search: Search, kill: Callable[[], None], start_secs: float) -> _Run:
        """Have a child search, and end it if it takes too long; whatever it has found by then counts.

        Raises:
            _NotStarted: It has not begun to search.
        """
        run = _Run()
        try:
            with sock:
                sock.setblocking(False)
                frames = _Frames(sock)
                await frames.start(search, start_secs)
                async with asyncio.timeout(KILL_SECS):
                    while run.end is None:
                        run.take(await frames.next())
                        self._note(run)
        except TimeoutError:
            pass
        except (EOFError, OSError, Malformed, msgspec.DecodeError) as error:
            # The kernel has ended it, for its memory, say: as if it had taken too long.
            event(log, logging.WARNING, "search ended", error=str(error) or type(error).__name__)
        finally:
            if run.end is None:
                kill()
        return run

    def _note(self, run: _Run) -> None:
        damaged, run.damaged = run.damaged, []
        for each in damaged:
            self._note_damage(DamagedHistory(each))

    def _page(self, search: Search, run: _Run, *, is_flushed: bool) -> SearchPage:
        end = run.end
        if isinstance(end, Failed):
            raise _error(end)
        position = run.position if end is None else end.position
        is_complete = end is not None and end.complete
        # Ended before it got on; by itself it ends only behind that, so that the cursors of all pages differ.
        if end is None and not run.hits and (position == search.before or not run.searched_bytes):
            if search.regex:
                raise InvalidParams(_TOO_SLOW.format(seconds=SEARCH_SECS), hint=_TOO_SLOW_HINT)
            raise Busy("The history could not be read in time")
        return SearchPage(
            hits=[_hit(found) for found in run.hits],
            next_cursor=None if position is None else cursor_from_position(position),
            searched_bytes=run.searched_bytes,
            complete=is_complete and is_flushed,
        )


class _Run:
    """What a child has sent so far.

    Attributes:
        end: Its last message; None where it was ended before.
        position: All that is before this place in the order is in `hits`.
    """

    def __init__(self) -> None:
        self.hits: list[Found] = []
        self.damaged: list[str] = []
        self.position: Position | None = None
        self.searched_bytes = 0
        self.end: Done | Failed | None = None

    def take(self, message: FromChild) -> None:
        """Take a message."""
        if isinstance(message, Part):
            self.hits += message.hits
            self.damaged += message.damaged
            self.position, self.searched_bytes = message.position, message.searched_bytes
        elif not isinstance(message, Started):
            self.end = message


class _Frames:
    """The messages of a child.

    Args:
        sock: Its socket, our end, not blocking.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._framer = Framer(MAX_FRAME)
        self._waiting: deque[bytes] = deque()

    async def start(self, search: Search, seconds: float) -> None:
        """Send what to search for, and wait for the first message. Raises: _NotStarted."""
        try:
            async with asyncio.timeout(seconds):
                await self._loop.sock_sendall(self._sock, encode(search))
                await self.next()
        except TimeoutError as error:
            raise _NotStarted(f"it does not answer within {seconds:.0f} seconds") from error
        except (EOFError, OSError, Malformed, msgspec.DecodeError) as error:
            raise _NotStarted(str(error) or "it ended") from error

    async def next(self) -> FromChild:
        """Return the next message.

        Raises:
            EOFError: The child has ended.
            OSError, Malformed, msgspec.DecodeError: The socket fails, or what comes is no message.
        """
        while not self._waiting:
            data = await self._loop.sock_recv(self._sock, _READ)
            if not data:
                raise EOFError("it ended")
            self._waiting.extend(self._framer.receive(data))
        message: FromChild = _decoder.decode(self._waiting.popleft())
        return message


def _position(cursor: str | None) -> Position | None:
    if cursor is None:
        return None
    try:
        return position_from_cursor(cursor)
    except ValueError as error:
        raise InvalidParams("`cursor` is not one that a page gave") from error


def _error(failed: Failed) -> OrbitError:
    if failed.reason == "query":
        return InvalidParams(failed.message)
    if failed.reason == "damage":
        return unreadable(failed.message)
    return Busy(f"The history cannot be searched now: {failed.message}")


def _hit(found: Found) -> Hit:
    return Hit(
        session_id=found.session_id,
        name=found.name,
        at=_EPOCH + found.at * _MILLISECOND,
        line=found.line,
        text=found.text,
        before=found.before,
        after=found.after,
        source="screen" if found.line == NO_NUMBER else "line",
    )
