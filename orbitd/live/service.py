"""Sessions as the socket sees them: what the store knows, with what runs laid over it.

The methods have the manager's names where they do the same; those that touch a program
see to the program first. Attachments belong to the connection that made them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib

from msgspec.structs import replace

from orbit_protocol.errors import (
    Busy,
    InvalidParams,
    InvalidTransition,
    NotRunning,
    RequestTimeout,
    SessionNotFound,
    ShuttingDown,
)
from orbit_protocol.params import ScreenFormat, SessionAttach, SessionStart
from orbit_protocol.results import Attached, CursorPosition, Exit, Screen, SessionStats
from orbit_protocol.types import Session, SessionPage, SessionStatus
from orbitd.live.attachment import Attachment
from orbitd.live.programs import Programs
from orbitd.live.session import LiveSession
from orbitd.manager import SessionManager
from orbitd.rpc.connection import Call, Connection
from orbitd.terminal.emulator import Emulator

MAX_ATTACHMENTS = 256
"""Of one session."""


class Sessions:
    """Every method of `session.*`.

    Args:
        manager: The store.
        programs: What runs.
    """

    def __init__(self, manager: SessionManager, programs: Programs) -> None:
        self._manager = manager
        self._programs = programs
        self._registry = programs.registry

    def view(self, session: Session) -> Session:
        """Return a session with what is known of its program now."""
        live = self._registry.running.get(session.id)
        if live is None:
            return replace(session, live=False) if session.live else session
        return replace(session, **live.view(session))

    def view_page(self, page: SessionPage) -> SessionPage:
        """Return a page of sessions with what is known of their programs now."""
        running = self._registry.running
        sessions = [self.view(each) if each.live or each.id in running else each for each in page.sessions]
        return SessionPage(sessions=sessions, next_cursor=page.next_cursor)

    # What the store does, with regard to the program

    async def update_status(self, session_id: str, status: SessionStatus) -> Session:
        """Change a status; of a session with a program, by what is done to the program."""
        if status == "terminated":
            return await self.terminate(session_id)
        if self._registry.shown(session_id) is None:
            return await self._manager.update_session_status(session_id, status)
        if status == "detached":
            return await self.detach(session_id)
        raise InvalidTransition(f"Session {session_id} becomes active by attaching", hint="Attach to it.")

    async def detach(self, session_id: str) -> Session:
        """Keep a session with nobody at it: every client is put off."""
        live = self._registry.shown(session_id)
        if live is None or not live.attachments:
            return await self._manager.detach_session(session_id)
        live.put_everybody_off()
        await self._registry.settle_status(live)
        return await self._manager.get_session(session_id)

    async def terminate(self, session_id: str) -> Session:
        """End a session, and its program first."""
        had_program = session_id in self._registry.running
        async with self._programs.without_program(session_id):
            session = await self._manager.get_session(session_id)
            if had_program and session.status == "terminated":
                return session
            return await self._manager.terminate_session(session_id)

    async def delete(self, session_id: str) -> None:
        """Delete a session; its program is ended first."""
        async with self._programs.without_program(session_id):
            await self._manager.delete_session(session_id)
            self._programs.remove_files(session_id)

    async def delete_workspace(self, workspace_id: str, *, delete_sessions: bool) -> None:
        """Delete a workspace; if its sessions go too, those with a program go as `delete` does it."""
        for live in self._registry if delete_sessions else ():
            with contextlib.suppress(SessionNotFound):  # deleted meanwhile
                if (await self._manager.get_session(live.id)).workspace_id == workspace_id:
                    await self.delete(live.id)
        await self._manager.delete_workspace(workspace_id, delete_sessions)

    async def auto_save(self) -> int:
        """Write what is in memory only; return how many sessions had something."""
        return await self._programs.save_all() + await self._manager.auto_save_sessions()

    async def stats(self) -> SessionStats:
        """Count and measure, what runs included."""
        return replace(
            await self._manager.get_stats(),
            live_sessions=len(self._registry.running),
            scrollback_bytes=self._registry.scrollback_bytes(),
        )

    # What only programs have

    async def start(self, q: SessionStart) -> Session:
        """Run a session's program."""
        return await self._programs.start(q.id, q.cols, q.rows, q.env)

    async def attach(self, call: Call, q: SessionAttach) -> Attached:
        """Let the caller follow a session; its output comes after the answer."""
        live = self._registry.shown(q.id) or await self._registry.require(q.id)
        if not call.connection.is_open:
            raise NotRunning("The client has gone")
        if len(live.attachments) >= MAX_ATTACHMENTS:
            raise Busy(f"Session {q.id} has {MAX_ATTACHMENTS} clients already", hint="Let one of them leave.")
        if not q.read_only:
            self._programs.agents.renew(q.id, (q.env or {}).get("SSH_AUTH_SOCK"))
        attachment = live.attach(call.connection, cols=q.cols, rows=q.rows, read_only=q.read_only)
        try:
            await self._registry.settle_status(live)
            session = self.view(await self._manager.get_session(q.id))
            attachment.open()
            painting = await live.painted(q.scrollback_lines or 0)
        except BaseException:
            attachment.end()
            raise
        call.after_answer(attachment.begin)
        return Attached(
            attachment_id=attachment.id,
            session=replace(session, cols=painting.cols, rows=painting.rows),
            repaint=painting.data,
        )

    async def leave(self, connection: Connection, attachment_id: str) -> None:
        """End one of the caller's attachments."""
        live, attachment = self._require(connection, attachment_id)
        attachment.end()
        await self._registry.settle_status(live)

    def type(self, connection: Connection, attachment_id: str, data: bytes) -> None:
        """Type into an attached session."""
        live, attachment = self._require(connection, attachment_id)
        if attachment.read_only:
            raise InvalidParams("`attachment_id` is of a read-only attachment", hint="Attach without read_only.")
        live.type(data)

    def resize(self, connection: Connection, attachment_id: str, cols: int, rows: int) -> None:
        """Take note of the size of a client's window."""
        live, attachment = self._require(connection, attachment_id)
        live.resize(attachment, cols, rows)

    async def send(self, session_id: str, data: bytes) -> None:
        """Type into a session without attaching."""
        (await self._registry.require(session_id)).type(data)

    async def screen(self, session_id: str, screen_format: ScreenFormat, *, scrollback: bool) -> Screen:
        """Return a session's screen, as it is or as it was last."""
        live = self._registry.shown(session_id)
        if live is not None:
            return await live.looked_at(lambda emulator: _screen(emulator, screen_format, scrollback=scrollback))
        async with self._registry.lock(session_id):
            emulator = await self._programs.screens.look(await self._manager.get_session(session_id))
        with emulator:
            return await asyncio.to_thread(_screen, emulator, screen_format, scrollback=scrollback)

    async def wait(self, session_id: str, timeout_secs: float | None) -> Exit:
        """Wait until a session's program ends."""
        live = self._registry.running.get(session_id)
        if live is None:
            return await self._last_exit(session_id)
        either = (live.ended, self._programs.closing)
        await asyncio.wait(either, timeout=timeout_secs, return_when=asyncio.FIRST_COMPLETED)
        if live.ended.done():
            return live.ended.result()
        if self._programs.closing.done():
            raise ShuttingDown("The daemon is shutting down; the program goes on", hint="Ask the next daemon.")
        raise RequestTimeout(f"The program of session {session_id} still runs after {timeout_secs} s")

    async def _last_exit(self, session_id: str) -> Exit:
        """Return how the last program of a session has ended. Raises: SessionNotFound, NotRunning."""
        unstored = self._programs.endings.end_of(session_id)
        if unstored is not None:
            return unstored
        session = await self._manager.get_session(session_id)
        if session.exit_code is None and session.exit_signal is None:
            raise NotRunning(f"Session {session_id} has no program that runs here")
        return Exit(exit_code=session.exit_code, exit_signal=session.exit_signal)

    async def signal(self, session_id: str, number: int) -> None:
        """Send a signal to a session's process group."""
        await self._programs.endings.signal(session_id, number)

    def _require(self, connection: Connection, attachment_id: str) -> tuple[LiveSession, Attachment]:
        live = self._registry.shown(attachment_id.partition("/")[0])
        attachment = None if live is None else live.attachments.get(attachment_id)
        if live is None or attachment is None or attachment.connection is not connection:
            raise NotRunning("No attachment of this connection has this id, or it has ended", hint="Attach again.")
        return live, attachment


def _screen(emulator: Emulator, screen_format: ScreenFormat, *, scrollback: bool) -> Screen:
    data = emulator.screen(screen_format, scrollback=scrollback)
    cols, rows = emulator.size
    cursor = emulator.cursor
    return Screen(
        data=base64.b64encode(data).decode() if screen_format == "vt" else data.decode(errors="replace"),
        cols=cols,
        rows=rows,
        cursor=CursorPosition(col=cursor.column, row=cursor.row, visible=cursor.visible),
        title=emulator.title,
    )
