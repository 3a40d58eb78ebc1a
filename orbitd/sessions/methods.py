"""The methods of sessions that may have a running program: the stored Session, with the live fields added.

The methods have the manager's names where they do the same; those that concern a program
act on the program first. An attachment belongs to the connection that made it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from msgspec.structs import replace

from orbit_protocol.errors import (
    AlreadyRunning,
    Busy,
    InvalidTransition,
    NotRunning,
    OrbitError,
    RequestTimeout,
    SessionNotFound,
    ShuttingDown,
    SnapshotNotFound,
    SpawnFailed,
    StorageCorrupt,
)
from orbit_protocol.params import (
    ScreenFormat,
    SessionAttach,
    SessionScreen,
    SessionSend,
    SessionStart,
    SessionSwitch,
    SessionWait,
    Theme,
)
from orbit_protocol.results import Attached, CursorPosition, Empty, Exit, Left, Screen, SessionStats, Waited
from orbit_protocol.types import Session, SessionPage, SessionStatus
from orbit_protocol.visible import seconds
from orbitd.manager import SessionManager
from orbitd.rpc.connection import Call, Connection
from orbitd.screens.messages import Rendered
from orbitd.screens.model import Appearance, Colors, Cut
from orbitd.sessions.attachment import Attachment, require, rgb
from orbitd.sessions.circles import Circles
from orbitd.sessions.files import is_private
from orbitd.sessions.program_input import type_in_turn, type_input
from orbitd.sessions.programs import Programs
from orbitd.sessions.session import LiveSession, State
from orbitd.sessions.workspaces import Workspaces

MAX_ATTACHMENTS = 256
"""Of one session."""

SCREEN_SECS = 20.0
"""How long `session.screen` waits for a picture: one that broke is rebuilt within it."""

LAST_SEARCH_SECS = 5.0
"""How long a wait for a text goes on behind the program's end, until the last of its output was searched."""

_WAITED_FOR = {
    "output": "any output",
    "silence": "the silence",
    "text": "the text",
    "command": "a command that finished",
}


class SessionMethods:
    """Every method of `session.*`.

    Args:
        manager: The store.
        programs: What runs.

    Attributes:
        workspaces: What is done to all sessions of a workspace.
    """

    def __init__(self, manager: SessionManager, programs: Programs) -> None:
        self._manager = manager
        self._programs = programs
        self._registry = programs.registry
        self._circles = Circles(programs.registry)
        self.workspaces = Workspaces(manager, programs, self.terminate, self.with_live_fields)

    def with_live_fields(self, session: Session) -> Session:
        """Return a session with the fields of its running program."""
        live = self._registry.running(session.id)
        if live is None:
            return replace(session, live=False) if session.live else session
        return replace(session, **live.live_fields(session))

    def page_with_live_fields(self, page: SessionPage) -> SessionPage:
        """Return a page of sessions with the fields of their running programs."""
        running = self._registry.running
        sessions = [self.with_live_fields(each) if each.live or running(each.id) else each for each in page.sessions]
        return SessionPage(sessions=sessions, next_cursor=page.next_cursor)

    # Methods of the store, for sessions that may have a program

    async def update_status(self, session_id: str, status: SessionStatus) -> Session:
        """Change a status; of a live session, by what that means for its program and clients."""
        if status == "terminated":
            return await self.terminate(session_id)
        if self._registry.attachable(session_id) is None:
            return await self._manager.update_session_status(session_id, status)
        if status == "detached":
            return await self.detach(session_id)
        if (session := await self._manager.get_session(session_id)).status == status:
            return session
        raise InvalidTransition(f"Session {session_id} becomes active by attaching", hint="Attach to it.")

    async def detach(self, session_id: str) -> Session:
        """Detach every client of a session; the program goes on."""
        live = self._registry.attachable(session_id)
        if live is None or not live.attachments:
            return await self._manager.detach_session(session_id)
        if any(each.counts_lines for each in live.attachments):
            await live.history_line()  # for the notification
        live.detach_all()
        # Waited for, so that the answer has the new status; `detach_all` has started it in the background too.
        await self._programs.update_status_from_clients(live)
        return await self._manager.get_session(session_id)

    async def terminate(self, session_id: str) -> Session:
        """End a session, and its program first."""
        # The exit of a program that is ended here is stored with the status "terminated": nothing is left to do.
        had_program = self._registry.running(session_id) is not None
        async with self._programs.without_program(session_id):
            session = await self._manager.get_session(session_id)
            if had_program and session.status == "terminated":
                return session
            if session.live:  # its program was lost, and it was to be started again
                return await self._manager.end_program(session_id, "terminated", reason="terminated")
            return await self._manager.terminate_session(session_id)

    async def delete(self, session_id: str, *, purge: bool = False) -> None:
        """Put a session into the trash, or delete it for good; its program is ended first."""
        await self._programs.delete(session_id, purge=purge)

    async def undelete(self, session_id: str) -> Session:
        """Take a session out of the trash."""
        return await self._programs.undelete(session_id)

    async def delete_workspace(self, workspace_id: str, *, delete_sessions: bool) -> None:
        """Delete a workspace; of its sessions, those that have more than their rows are deleted by `delete` first."""
        async with self.workspaces.locked(workspace_id):
            await self._delete_workspace(workspace_id, delete_sessions=delete_sessions)

    async def _delete_workspace(self, workspace_id: str, *, delete_sessions: bool) -> None:
        interrupted = await self._manager.list_interrupted() if delete_sessions else []
        if any(one.live and one.workspace_id == workspace_id for one in interrupted):
            await self._programs.keeper.require_restored()
        for live in self._registry if delete_sessions else ():
            with contextlib.suppress(SessionNotFound):  # deleted by another request meanwhile
                if (await self._manager.get_session(live.id)).workspace_id == workspace_id:
                    await self.delete(live.id)
        for session_id in self._programs.files.sessions_on_disk() if delete_sessions else ():
            with contextlib.suppress(SessionNotFound, StorageCorrupt):  # what cannot be read is kept
                session = await self._manager.get_session(session_id)
                if session.workspace_id == workspace_id and session.status != "archived":
                    await self.delete(session_id)
        await self._programs.delete_workspace(workspace_id, delete_sessions=delete_sessions)

    async def auto_save(self) -> int:
        """Write what is only in memory; return how many sessions had something to write."""
        return await self._programs.save_all() + await self._manager.auto_save_sessions()

    async def stats(self) -> SessionStats:
        """Return the store's counts, with those of live sessions."""
        return replace(
            await self._manager.get_stats(),
            live_sessions=self._registry.running_count,
            scrollback_bytes=self._registry.held_bytes,
        )

    # Methods of live sessions

    async def start(self, q: SessionStart) -> Session:
        """Run a session's program."""
        return await self._programs.start(
            q.id,
            q.cols,
            q.rows,
            q.environment,
            umask=q.umask,
            limits=q.limits,
            shell_integration=q.shell_integration,
        )

    async def attach(self, call: Call, q: SessionAttach) -> Attached:
        """Attach the calling client to a session; output is sent after the answer."""
        sits_in = await self._circles.find_sessions_of(call.connection)
        if q.start and self._registry.attachable(q.id) is None:
            with contextlib.suppress(AlreadyRunning):  # started by somebody else at the same time
                await self._programs.start(q.id, q.cols, q.rows, q.environment, umask=q.umask, limits=q.limits)
        live = self._registry.attachable(q.id) or await self._registry.require_running(q.id)
        _refuse_if_full(live)
        with self._registry.using(q.id):
            await self._open(live)
            if not call.connection.is_open:  # it would never end an attachment that it gets now
                raise NotRunning("The client has gone")
            self._circles.refuse(q.id, sits_in)
            if not q.read_only:
                self._programs.agents.update(q.id, q.environment)
            attachment = live.attach(
                call.connection,
                q.attachment_id,
                cols=q.cols,
                rows=q.rows,
                read_only=q.read_only,
                counts_lines=q.after_line is not None,
                after_line=q.after_line or 0,
                frames=q.frames,
                terminal=q.terminal,
                before=q.before,
            )
            attachment.sits_in = sits_in
            try:
                # During each await the client may go, another one detach it, or the program end: all of them
                # end the attachment, and `first_repaint` raises.
                await self._programs.update_status_from_clients(live)
                session = self.with_live_fields(await self._manager.get_session(q.id))
                # Output that comes meanwhile is held, and dropped where the repaint shows it.
                repaint = await live.first_repaint(attachment, q.scrollback_lines or 0, q.after_line)
            except BaseException:
                attachment.end()
                raise
        call.after_answer(attachment.start_streaming, attachment.end)
        cols, rows = live.size if attachment.is_framed else (repaint.cols, repaint.rows)
        return Attached(
            attachment_id=attachment.id,
            session=replace(session, cols=cols, rows=rows),
            repaint=repaint.data,
            history_line=repaint.history_line,
        )

    async def _open(self, live: LiveSession) -> None:
        """Open a session's files and get its terminal, for a client to come. Raises: NotRunning, SpawnFailed."""
        if live.state is State.RUNNING:
            await self._programs.keeper.fetch_terminal(live)
        await live.open_files()
        if not live.is_attachable:
            raise NotRunning(f"The program of session {live.id} has just ended", hint="Look at the session.")

    async def end_attachment(self, connection: Connection, attachment_id: str) -> Left:
        """End one of the caller's attachments."""
        attachment = require(connection, attachment_id)
        attachment.end()
        live = self._registry.get(attachment.session.id)
        if live is None:
            return Left()
        with self._registry.using(live.id):
            line = None
            if attachment.counts_lines:
                line = attachment.history_line if attachment.is_framed else await live.history_line()
            await self._programs.update_status_from_clients(live)
        return Left(history_line=line)

    async def switch(self, call: Call, q: SessionSwitch) -> Session:
        """Move the window that typed into a session last over to another one."""
        source, window = await self._window_to_switch(call, q.id)
        if window.before is None:
            raise NotRunning(
                f"The client that shows session {source.id} cannot be switched to another session",
                hint="Attach from another terminal.",
                data={"reason": "client"},
            )
        target = await self._registry.require_running(q.to or self._one_before(source, window.before))
        if target is not source:
            sits_in = await self._circles.find_sessions_of(window.connection)
            if window.counts_lines:
                await source.history_line()  # for the notification
            # From here to the notification nothing is awaited.
            self._circles.refuse(target.id, sits_in)
            if window not in source.attachments or not target.is_attachable:
                raise NotRunning("The window or the program has gone meanwhile", hint="Look at the sessions.")
            _refuse_if_full(target)  # the window would have lost the one, and not be taken by the other
            if window.is_answering:  # its client would find the attach refused, and not learn where to go
                raise Busy(f"The window that shows session {source.id} is being drawn", hint="Switch it again.")
            source.switch(window, target.id)
            await self._programs.update_status_from_clients(source)
        return self.with_live_fields(await self._manager.get_session(target.id))

    async def _window_to_switch(self, call: Call, session_id: str | None) -> tuple[LiveSession, Attachment]:
        """Return the writable attachment that typed last, and its session.

        Args:
            call: Its client runs in the terminal of the session, where `session_id` is None.
            session_id: The session.

        Raises:
            NotRunning: There is none; `data.reason` is `outside` where the client runs in no session's terminal.
        """
        if session_id is not None:
            places = [await self._registry.require_running(session_id)]
        else:
            # Two, where a multiplexer that the client is in is shown in two sessions.
            sits_in = await self._circles.find_sessions_of(call.connection)
            places = [live for each in sits_in if (live := self._registry.running(each)) is not None]
            if not places:
                raise NotRunning(
                    "The client runs in no session's terminal", hint="Name the session.", data={"reason": "outside"}
                )
        # The last of each is the size owner: it counts where nobody has typed.
        windows = [(live, each) for live in places for each in reversed(live.attachments) if not each.read_only]
        if not windows:
            raise NotRunning(
                f"No window shows session {places[0].id} and types into it",
                hint="Attach from another terminal.",
                data={"reason": "no_window"},  # not yet, where the clients reconnect to a daemon that has restarted
            )
        return max(windows, key=lambda each: each[1].typed_at)

    def _one_before(self, source: LiveSession, before: Sequence[str]) -> str:
        """Return the running session that a window has shown before, else the newest one. Raises: NotRunning."""
        for session_id in before:
            if session_id != source.id and self._registry.attachable(session_id) is not None:
                return session_id
        # From memory: another session's row that is damaged is no reason not to switch.
        others = [
            session
            for live in self._registry
            if live is not source and live.is_attachable and (session := self._manager.cached_session(live.id))
        ]
        if not others:
            raise NotRunning(
                "No other session runs",
                hint="session.create records one, session.start runs it.",
                data={"reason": "alone"},
            )
        return max(others, key=lambda each: each.created_at).id

    def send_input(self, call: Call, q: SessionSend) -> Empty | Coroutine[Any, Any, Empty]:
        """Write to a session's input without attaching."""
        live = self._registry.running(q.id)
        for attachment in list(call.connection.attachments.values()):
            if isinstance(attachment, Attachment) and attachment.session is live:
                attachment.flush_input()  # what the client has sent before this
        if live is not None and live.has_terminal:
            live.note_input()
            return type_input(call, live, q.data)

        async def find() -> LiveSession:
            found = await self._registry.require_running(q.id)
            await self._programs.keeper.fetch_terminal(found)
            found.note_input()
            return found

        return type_in_turn(call, find, q.data)

    async def screen(self, q: SessionScreen) -> Screen:
        """Return a session's screen, or a part of it and its history, as it is now or as it was last."""
        session_id, part = q.id, None
        if q.first_line is not None or q.lines is not None:
            part = Cut(first=q.first_line, lines=q.lines)
        session = await self._manager.get_session(session_id)
        with self._registry.using(session_id) as live:
            if live.lock.locked() and not live.is_attachable:
                async with live.lock:  # it is being started: its screen is the one to be shown
                    pass
            is_running = live.is_attachable
            try:
                await _open_for_screen(live, session, is_running=is_running)
                # A program has run where there is a size: one that printed nothing has left a blank screen.
                is_blank = live.position == 0 and session.last_saved_at is None
                if not is_running and is_blank and session.cols is None:
                    raise SnapshotNotFound(f"Nothing of the screen of session {session_id} was ever saved")
                async with asyncio.timeout(SCREEN_SECS):
                    drawn = await live.picture.render(
                        live.position,
                        q.format,
                        scrollback=q.scrollback,
                        cut=part,
                        cursor=q.cursor,
                        colors=drawn_colors(q.theme, live.picture.appearance),
                    )
            except SpawnFailed as error:
                raise SnapshotNotFound(f"The screen of session {session_id} cannot be restored: {error}") from error
            except TimeoutError as error:
                raise Busy("The screen cannot be drawn now: it is being rebuilt", hint="Ask again.") from error
        return screen_result(drawn, q.format)

    async def wait(self, q: SessionWait) -> Waited:
        """Wait until a session's program has ended, or has done something else.

        Raises:
            NotRunning: It has ended, and something else was waited for; the exit is in the error's data.
            RequestTimeout: It has not happened.
            ShuttingDown: The daemon stops.
        """
        live = self._registry.running(q.id)
        if live is None and (await self._manager.get_session(q.id)).live:
            await self._programs.require_restored(q.id)
            live = self._registry.running(q.id)
        if q.wait_for == "exit":
            found = await self._last_exit(q.id) if live is None else await self._exit(live, q)
            return Waited(exit_code=found.exit_code, exit_signal=found.exit_signal)
        with self._registry.using(q.id) as live:
            if live.is_attachable:
                with contextlib.suppress(NotRunning):  # it has just ended
                    await self._open(live)  # its output is not read else
            if not live.is_attachable:
                return await self._find_on_last_screen(live, q)
            return await self._first(live, q, self._find(live, q))

    def _find(self, live: LiveSession, q: SessionWait) -> asyncio.Future[Any]:
        """Return what is set when that happens which a call waits for, from this moment on."""
        if q.wait_for == "output":
            return live.waits.output()
        if q.wait_for == "command":
            return live.waits.command(live.position)
        if q.wait_for == "silence":
            secs = self._programs.silence_secs if q.silence_secs is None else q.silence_secs
            return asyncio.ensure_future(_silence(live, secs))
        assert q.pattern is not None  # checked by the params
        return live.picture.search(live.position, q.pattern)

    async def _exit(self, live: LiveSession, q: SessionWait) -> Exit:
        # Kept here: the session gets a new future when it is started again.
        exited, closing = live.exited, self._programs.closing
        await asyncio.wait((exited, closing), timeout=q.timeout_secs, return_when=asyncio.FIRST_COMPLETED)
        if exited.done():
            return exited.result()
        raise _shutting_down() if closing.done() else _timeout(q)

    async def _first(self, live: LiveSession, q: SessionWait, finding: asyncio.Future[Any]) -> Waited:
        """Return what a wait finds, unless the program or the daemon ends before that."""
        exited, closing = live.exited, self._programs.closing
        try:
            await asyncio.wait((finding, exited, closing), timeout=q.timeout_secs, return_when=asyncio.FIRST_COMPLETED)
            # Without any time there was none to look at the screen; and behind its end the last output is searched.
            if q.wait_for == "text" and not finding.done() and (exited.done() or q.timeout_secs == 0):
                await self._search_the_rest(live)
            if closing.done():  # the pictures are closed then, and their searches fail
                raise _shutting_down()
            if finding.done() and finding.exception() is None:
                return _waited(q, finding.result())
            if exited.done():
                raise _not_running(q, exited.result())
            if finding.done():
                finding.result()
            raise _timeout(q)
        finally:
            finding.cancel()

    async def _search_the_rest(self, live: LiveSession) -> None:
        """Return when all that a program has printed was searched, or cannot be."""
        with contextlib.suppress(TimeoutError, OrbitError):
            async with asyncio.timeout(LAST_SEARCH_SECS):
                await live.picture.count(live.position)

    async def _find_on_last_screen(self, live: LiveSession, q: SessionWait) -> Waited:
        """Return the text that is on the screen of a program that has ended. Raises: NotRunning."""
        if q.wait_for == "text" and not is_private(await self._manager.get_session(live.id)):
            with contextlib.suppress(SpawnFailed, SnapshotNotFound):
                await live.open_files(create=False)
                finding = self._find(live, q)
                await self._search_the_rest(live)
                finding.cancel()
                if not finding.cancelled() and finding.exception() is None:
                    return _waited(q, finding.result())
        raise _not_running(q, await self._last_exit(q.id))

    async def _last_exit(self, session_id: str) -> Exit:
        """Return how the last program of a session has ended. Raises: SessionNotFound, NotRunning."""
        live = self._registry.get(session_id)
        if live is not None and live.exit is not None:
            return Exit(exit_code=live.exit.exit_code, exit_signal=live.exit.exit_signal)
        session = await self._manager.get_session(session_id)
        if session.exit_code is None and session.exit_signal is None:
            raise NotRunning(f"Session {session_id} has no program that runs here")
        return Exit(exit_code=session.exit_code, exit_signal=session.exit_signal)

    async def signal(self, session_id: str, number: int) -> None:
        """Send a signal to the process group in the foreground of a session's terminal."""
        await self._programs.endings.signal(session_id, number)


async def _open_for_screen(live: LiveSession, session: Session, *, is_running: bool) -> None:
    """Open what a session's screen is drawn from.

    Raises:
        SnapshotNotFound: It is private, and its program has ended.
        SpawnFailed: Its journal cannot be opened.
    """
    if is_running or not is_private(session):
        await live.open_files(create=is_running)
    elif not live.has_last_look:
        raise SnapshotNotFound(
            f"Session {session.id} is private: its screen is gone with its program",
            hint="What a private session has shown is kept nowhere.",
        )


def _waited(q: SessionWait, found: Any) -> Waited:
    """Return what a wait has found as its result."""
    if q.wait_for == "text":
        return Waited(exit_code=None, exit_signal=None, line=found)
    if q.wait_for == "command":
        return Waited(exit_code=found.exit_code, exit_signal=None, command=found)
    return Waited(exit_code=None, exit_signal=None)


async def _silence(live: LiveSession, secs: float) -> None:
    """Return when a session has printed nothing for so long."""
    loop = asyncio.get_running_loop()
    while (left := live.silent_since + secs - loop.time()) > 0:  # noqa: ASYNC110  # no event sets off a silence
        await asyncio.sleep(left)  # there may have been output meanwhile


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("The daemon is shutting down; the program goes on", hint="Ask the next daemon.")


def _timeout(q: SessionWait) -> RequestTimeout:
    after = seconds(q.timeout_secs or 0)
    if q.wait_for == "exit":
        return RequestTimeout(f"The program of session {q.id} still runs after {after}")
    return RequestTimeout(f"Session {q.id} has not had {_WAITED_FOR[q.wait_for]} after {after}")


def _not_running(q: SessionWait, exit_: Exit) -> NotRunning:
    how = f"signal {exit_.exit_signal}" if exit_.exit_signal is not None else f"exit {exit_.exit_code}"
    return NotRunning(
        f"The program of session {q.id} has ended before {_WAITED_FOR[q.wait_for]}: {how}",
        data={"exit_code": exit_.exit_code, "exit_signal": exit_.exit_signal},
    )


def screen_result(drawn: Rendered, format: ScreenFormat) -> Screen:  # noqa: A002  # the method's own word
    """Return the answer of `session.screen`: bytes of VT as base64, all else as text."""
    return Screen(
        data=base64.b64encode(drawn.data).decode() if format == "vt" else drawn.data.decode(errors="replace"),
        cols=drawn.cols,
        rows=drawn.rows,
        cursor=CursorPosition(col=drawn.column, row=drawn.row, visible=drawn.visible),
        title=drawn.title,
        first_line=drawn.first_line,
        total_lines=drawn.total_lines,
    )


def drawn_colors(theme: Theme | None, appearance: Appearance | None) -> Colors:
    """Return the colours of a drawn screen: those that are asked for, else the last size owner's."""
    theme, appearance = theme or Theme(), appearance or Appearance()
    palette = tuple(rgb(color) for color in theme.palette or ())
    return Colors(
        foreground=rgb(theme.foreground) if theme.foreground else appearance.foreground,
        background=rgb(theme.background) if theme.background else appearance.background,
        cursor=rgb(theme.cursor) if theme.cursor else None,
        palette=palette + appearance.palette[len(palette) :],
    )


def _refuse_if_full(live: LiveSession) -> None:
    if len(live.attachments) >= MAX_ATTACHMENTS:
        raise Busy(f"Session {live.id} has {MAX_ATTACHMENTS} clients already", hint="Detach one of them.")
