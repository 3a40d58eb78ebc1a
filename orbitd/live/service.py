"""Sessions as the socket sees them: what the store knows, with what runs laid over it.

The methods have the manager's names where they do the same; those that touch a program
see to the program first. Attachments belong to the connection that made them.
"""

from __future__ import annotations

import asyncio
import base64

from msgspec.structs import replace

from orbitd.connection import Call, Connection
from orbitd.live.attachment import Attachment
from orbitd.live.programs import Programs
from orbitd.live.screen import rendered
from orbitd.live.session import LiveSession
from orbitd.manager import SessionManager
from orbitd.terminal.emulator import Emulator
from protocol.errors import InvalidParams, InvalidTransition, NotRunning, RequestTimeout, SnapshotNotFound
from protocol.live import (
    Attached,
    CursorPosition,
    Exit,
    Screen,
    ScreenFormat,
    SessionAttach,
    SessionStart,
)
from protocol.types import Session, SessionPage, SessionStatus


class Sessions:
    """Every method of `session.*`.

    Args:
        manager: The store.
        programs: What runs.
    """

    def __init__(self, manager: SessionManager, programs: Programs) -> None:
        self._manager = manager
        self._programs = programs
        self._attached: dict[str, tuple[LiveSession, Attachment]] = {}

    def view(self, session: Session) -> Session:
        """Return a session with what is known of its program now."""
        live = self._programs.running.get(session.id)
        if live is None:
            return replace(session, live=False) if session.live else session
        return replace(session, **live.view(session))

    def view_page(self, page: SessionPage) -> SessionPage:
        """Return a page of sessions with what is known of their programs now."""
        running = self._programs.running
        sessions = [self.view(each) if each.live or each.id in running else each for each in page.sessions]
        return SessionPage(sessions=sessions, next_cursor=page.next_cursor)

    # What the store does, with regard to the program

    async def update_status(self, session_id: str, status: SessionStatus) -> Session:
        """Change a status; of a session with a program, by what is done to the program."""
        live = self._programs.running.get(session_id)
        if live is None:
            return await self._manager.update_session_status(session_id, status)
        if status == "terminated":
            return await self.terminate(session_id)
        if status == "detached":
            return await self.detach(session_id)
        raise InvalidTransition(f"Session {session_id} becomes active by attaching", hint="Attach to it.")

    async def detach(self, session_id: str) -> Session:
        """Keep a session with nobody at it: every client is put off."""
        live = self._programs.running.get(session_id)
        if live is None or not live.attachments:
            return await self._manager.detach_session(session_id)
        live.put_everybody_off()
        await self._programs.settle_status(live)
        return await self._manager.get_session(session_id)

    async def terminate(self, session_id: str) -> Session:
        """End a session, and its program first."""
        if session_id in self._programs.running:
            await self._programs.terminate(session_id)
            return await self._manager.get_session(session_id)
        return await self._manager.terminate_session(session_id)

    async def delete(self, session_id: str) -> None:
        """Delete a session; its program is ended first."""
        if session_id in self._programs.running:
            await self._programs.terminate(session_id)
        await self._manager.delete_session(session_id)
        self._programs.remove_files(session_id)

    # What only programs have

    async def start(self, q: SessionStart) -> Session:
        """Run a session's program."""
        return await self._programs.start(q.id, q.cols, q.rows, q.env)

    async def attach(self, call: Call, q: SessionAttach) -> Attached:
        """Let the caller follow a session; its output comes after the answer."""
        live = await self._programs.require(q.id)
        self._programs.agents.renew(q.id, (q.env or {}).get("SSH_AUTH_SOCK"))
        attachment, painting = live.attach(
            call.connection,
            cols=q.cols,
            rows=q.rows,
            read_only=q.read_only,
            scrollback_lines=q.scrollback_lines or 0,
        )
        self._attached[attachment.id] = (live, attachment)
        call.connection.on_close.append(lambda: self._forget(attachment.id))
        call.afterwards(attachment.begin)
        await self._programs.settle_status(live)
        session = self.view(await self._manager.get_session(q.id))
        return Attached(attachment_id=attachment.id, session=session, repaint=painting.data)

    async def leave(self, connection: Connection, attachment_id: str) -> None:
        """End one of the caller's attachments."""
        live, attachment = self._require(connection, attachment_id)
        self._forget(attachment_id)
        live.leave(attachment)
        await self._programs.settle_status(live)

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
        (await self._programs.require(session_id)).type(data)

    async def screen(self, session_id: str, screen_format: ScreenFormat, *, scrollback: bool) -> Screen:
        """Return a session's screen, as it is or as it was saved."""
        live = self._programs.running.get(session_id)
        if live is not None:
            emulator = live.screen.emulator
            return _screen(live.screen.render(screen_format, scrollback=scrollback), emulator, screen_format)
        saved = await self._programs.saved_screen(session_id)
        if saved is None:
            raise SnapshotNotFound(f"Nothing of the screen of session {session_id} was ever saved")
        data, emulator = await asyncio.to_thread(rendered, saved, screen_format, scrollback=scrollback)
        with emulator:
            return _screen(data, emulator, screen_format)

    async def wait(self, session_id: str, timeout_secs: float | None) -> Exit:
        """Wait until a session's program ends."""
        live = self._programs.running.get(session_id)
        if live is None:
            session = await self._manager.get_session(session_id)
            if session.exit_code is None and session.exit_signal is None:
                raise NotRunning(f"Session {session_id} has no program that runs here")
            return Exit(exit_code=session.exit_code, exit_signal=session.exit_signal)
        try:
            async with asyncio.timeout(timeout_secs):
                return await asyncio.shield(live.ended)
        except TimeoutError as error:
            raise RequestTimeout(f"The program of session {session_id} still runs after {timeout_secs} s") from error

    async def signal(self, session_id: str, number: int) -> None:
        """Send a signal to a session's process group."""
        await self._programs.signal(session_id, number)

    def _require(self, connection: Connection, attachment_id: str) -> tuple[LiveSession, Attachment]:
        live, attachment = self._attached.get(attachment_id, (None, None))
        if live is None or attachment is None or attachment.connection is not connection:
            raise NotRunning("No attachment of this connection has this id", hint="Attach again.")
        if attachment_id not in live.attachments:
            self._forget(attachment_id)
            raise NotRunning("The attachment has ended", hint="Attach again.")
        return live, attachment

    def _forget(self, attachment_id: str) -> None:
        self._attached.pop(attachment_id, None)


def _screen(data: bytes, emulator: Emulator, screen_format: ScreenFormat) -> Screen:
    cols, rows = emulator.size
    cursor = emulator.cursor
    return Screen(
        data=base64.b64encode(data).decode() if screen_format == "vt" else data.decode(errors="replace"),
        cols=cols,
        rows=rows,
        cursor=CursorPosition(col=cursor.column, row=cursor.row, visible=cursor.visible),
        title=emulator.title,
    )
