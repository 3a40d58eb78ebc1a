"""One live session: its program's terminal, its screen, and the clients at it.

Everything here runs on the event loop, but for `capture`, which a save runs in a thread
while reading is paused. Output takes one way: journal, emulator, clients, in this order,
so that what a client has seen is what a restart brings back.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable

from orbitd.connection import Connection
from orbitd.live.attachment import Attachment, Painting
from orbitd.live.master import Master
from orbitd.live.screen import Capture, LiveScreen
from protocol.errors import NotRunning
from protocol.live import Exit
from protocol.types import Session


class LiveSession:
    """A session whose program runs.

    Args:
        session_id: Of the session that it belongs to.
        screen: Its screen so far.
        pid: The program's.
        master_fd: The terminal's; becomes ours.
        folder: Where the program was when last heard of.
        on_clients: Called when the first client has come or the last has gone.
        on_output: Called when there is something to save.
    """

    def __init__(
        self,
        session_id: str,
        screen: LiveScreen,
        *,
        pid: int,
        master_fd: int,
        folder: str | None,
        on_clients: Callable[[LiveSession], None],
        on_output: Callable[[LiveSession], None],
    ) -> None:
        self.id = session_id
        self.screen = screen
        self.pid = pid
        self.attachments: dict[str, Attachment] = {}
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.saving = asyncio.Lock()
        self._on_clients = on_clients
        self._on_output = on_output
        self._folder = folder
        self._leader: Attachment | None = None
        self._master = Master(master_fd, read=screen.read, on_output=self._output)

    def begin(self) -> None:
        """Read the program's output from now on."""
        self._master.resume()

    # Clients

    def attach(
        self, connection: Connection, *, cols: int, rows: int, read_only: bool, scrollback_lines: int
    ) -> tuple[Attachment, Painting]:
        """Let a client follow; a writable one leads the size. Returns its place and the screen as it is now."""
        attachment = Attachment(
            str(uuid.uuid4()),
            connection,
            read_only=read_only,
            size=(cols, rows),
            paint=self.screen.paint,
            on_end=self._left,
        )
        self.attachments[attachment.id] = attachment
        if not read_only:
            self._lead(attachment)
        self._clients_changed()
        return attachment, self.screen.paint(scrollback_lines)

    def leave(self, attachment: Attachment) -> None:
        """End a client's attachment."""
        attachment.end()
        self._left(attachment)

    def put_everybody_off(self) -> None:
        """End every attachment, and tell the clients."""
        for attachment in list(self.attachments.values()):
            attachment.put_off()
            self._left(attachment)

    def resize(self, attachment: Attachment, cols: int, rows: int) -> None:
        """Take note of a client's window; a writable one leads from now on."""
        attachment.size = (cols, rows)
        if not attachment.read_only:
            self._lead(attachment)

    # The program

    def type(self, data: bytes) -> None:
        """Write to the program's input.

        Raises:
            NotRunning: It has ended.
            Busy: It does not read.
        """
        if self.ended.done():
            raise NotRunning(f"The program of session {self.id} has ended")
        self._master.write(data)

    def current_folder(self) -> str | None:
        """Return the program's folder: as the kernel knows it, as the program tells (OSC 7), or the last known."""
        try:
            self._folder = os.readlink(f"/proc/{self.pid}/cwd")
        except OSError:  # it has ended, or this is no Linux
            self._folder = self.screen.told_folder or self._folder
        return self._folder

    def take_the_rest(self) -> None:
        """Take the last output of a program that has ended."""
        self._master.drain()
        self._master.close()

    def end(self, exit_code: int | None, exit_signal: int | None) -> None:
        """Tell everybody that the program has ended, and let go of the screen."""
        for attachment in list(self.attachments.values()):
            attachment.exited(exit_code, exit_signal)
        self.attachments.clear()
        self.screen.close()
        if not self.ended.done():
            self.ended.set_result(Exit(exit_code=exit_code, exit_signal=exit_signal))

    def let_go(self) -> None:
        """Stop reading and close our end; the program goes on."""
        self._master.close()
        self.screen.close()

    async def capture(self) -> Capture:
        """Return the screen to be saved. Reading rests meanwhile: the screen is one thread's at a time."""
        self._master.pause()
        try:
            return await asyncio.to_thread(self.screen.capture)
        finally:
            self._master.resume()

    def view(self, session: Session) -> dict[str, object]:
        """Return the fields of a Session that only a running program has."""
        cols, rows = self.screen.size
        return {
            "live": True,
            "pid": self.pid,
            "cols": cols,
            "rows": rows,
            "title": self.screen.title or session.title,
            "cwd": self.current_folder() or session.cwd,
            "clients": len(self.attachments),
        }

    def _output(self, data: bytes) -> None:
        replies = self.screen.take(data)
        for attachment in list(self.attachments.values()):
            attachment.output(data)
        if replies:
            self._master.write(replies)
        self._on_output(self)

    def _lead(self, attachment: Attachment) -> None:
        self._leader = attachment
        if attachment.size != self.screen.size:
            self.screen.resize(*attachment.size)
            self._master.resize(*attachment.size)
            for other in self.attachments.values():
                if other is not attachment:
                    other.repaint()
            self._on_output(self)

    def _left(self, attachment: Attachment) -> None:
        if self.attachments.pop(attachment.id, None) is None:
            return
        if self._leader is attachment:
            writable = [one for one in self.attachments.values() if not one.read_only]
            self._leader = None
            if writable:
                self._lead(writable[-1])
        self._clients_changed()

    def _clients_changed(self) -> None:
        self.screen.answering = not any(not one.read_only for one in self.attachments.values())
        self._on_clients(self)
