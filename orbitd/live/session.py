"""One live session: its program's terminal, its screen, and the clients at it.

Everything here runs on the event loop, but for what looks at a whole screen: that has a
thread while reading is paused. Output takes one way: journal, emulator, clients, in this order,
so that what a client has seen is what a restart brings back.

A session rests while its program has ended and another one is about to take its place, as
ssh does that has lost its connection: screen and clients stay, what is typed goes nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable
from typing import TypeVar

from orbit_protocol.errors import Busy, NotRunning
from orbit_protocol.results import Exit
from orbit_protocol.types import Session
from orbitd.live.attachment import Attachment, Painting
from orbitd.live.master import Master
from orbitd.live.screen import Capture, LiveScreen
from orbitd.rpc.connection import Connection
from orbitd.terminal.emulator import Emulator

R = TypeVar("R")


class LiveSession:
    """A session whose program runs, or is about to run again.

    Args:
        session_id: Of the session that it belongs to.
        screen: Its screen so far.
        on_clients: Called when the first client has come or the last has gone.
        on_output: Called when there is something to save.
    """

    def __init__(
        self,
        session_id: str,
        screen: LiveScreen,
        *,
        on_clients: Callable[[LiveSession], None],
        on_output: Callable[[LiveSession], None],
    ) -> None:
        self.id = session_id
        self.screen = screen
        self.pid = 0
        self.attachments: dict[str, Attachment] = {}
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.saving = asyncio.Lock()
        self.detached_since = 0.0
        self._on_clients = on_clients
        self._on_output = on_output
        self._numbers = itertools.count(1)
        self._folder: str | None = None
        self._leader: Attachment | None = None
        self._master: Master | None = None

    def run(self, pid: int, master_fd: int, folder: str | None) -> None:
        """Go on with a program: follow its output from now on.

        Args:
            pid: The program's.
            master_fd: The terminal's; becomes ours.
            folder: Where the program was when last heard of.
        """
        if self.ended.done():
            self.ended = asyncio.get_running_loop().create_future()
        self.pid, self._folder = pid, folder
        self._master = Master(master_fd, read=self.screen.read, on_output=self._output)
        self._master.resume()

    # Clients

    def attach(self, connection: Connection, *, cols: int, rows: int, read_only: bool) -> Attachment:
        """Give a client a place; a writable one leads the size. It is sent nothing before it is opened."""
        attachment = Attachment(
            f"{self.id}/{next(self._numbers)}",
            connection,
            read_only=read_only,
            size=(cols, rows),
            paint=lambda: self.screen.paint(),
            on_end=self._left,
        )
        self.attachments[attachment.id] = attachment
        if not read_only:
            self._lead(attachment)
        self._clients_changed()
        return attachment

    @property
    def leader_size(self) -> tuple[int, int] | None:
        """The size of the client's window that leads, if there is one."""
        return None if self._leader is None else self._leader.size

    def put_everybody_off(self) -> None:
        """End every attachment, and tell the clients."""
        for attachment in self._all_gone():
            attachment.put_off()
        self._clients_changed()

    def resize(self, attachment: Attachment, cols: int, rows: int) -> None:
        """Take note of a client's window; a writable one leads from now on."""
        attachment.size = (cols, rows)
        if not attachment.read_only:
            self._lead(attachment)

    # The program

    def type(self, data: bytes) -> None:
        """Write to the program's input; while the session rests that goes nowhere.

        Raises:
            NotRunning: It has ended.
            Busy: It does not read.
        """
        if self._master is not None:
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

    def divide(self, text: str) -> None:
        """Put a line between what was shown before and what comes now, if anything was."""
        if self.screen.has_content:
            self.screen.divide(text)
            self._show_anew()

    def fit(self, cols: int, rows: int) -> None:
        """Give the screen the size of a terminal that a program starts on."""
        if (cols, rows) != self.screen.size:
            self.screen.resize(cols, rows)
            self._show_anew()

    def take_the_rest(self) -> None:
        """Take the last output of a program that has ended."""
        if self._master is not None:
            self._master.drain()
            self._master.close()

    def rest(self, exit_code: int | None, exit_signal: int | None) -> None:
        """Keep screen and clients for the next program."""
        self._master = None
        self._set_ended(exit_code, exit_signal)

    def end(self, exit_code: int | None, exit_signal: int | None) -> None:
        """Tell everybody that the program has ended, and let go of the screen."""
        for attachment in self._all_gone():
            attachment.exited(exit_code, exit_signal)
        self.screen.close()
        self._set_ended(exit_code, exit_signal)

    def let_go(self) -> None:
        """Stop reading and close our end; the program goes on."""
        if self._master is not None:
            self._master.close()
        self.screen.close()

    async def capture(self) -> Capture:
        """Return the screen to be saved."""
        return await self._aside(self.screen.capture)

    async def painted(self, scrollback_lines: int) -> Painting:
        """Return bytes that draw the screen, with so many lines of history before it. Raises: NotRunning."""
        return await self._aside(lambda: self.screen.paint(scrollback_lines))

    async def looked_at(self, work: Callable[[Emulator], R]) -> R:
        """Return what `work` makes of the emulator, in a thread. Raises: NotRunning."""
        return await self._aside(lambda: self.screen.look(work))

    async def _aside(self, work: Callable[[], R]) -> R:
        """Look at the screen in a thread. Reading rests meanwhile: the screen is one thread's at a time."""
        master = self._master
        if master is not None:
            master.pause()
        try:
            return await asyncio.to_thread(work)
        finally:
            if master is not None:
                master.resume()

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
        self._on_output(self)
        if replies and self._master is not None:
            with contextlib.suppress(Busy):  # a program that asks and never reads gets no more answers
                self._master.write(replies)

    def _show_anew(self) -> None:
        for attachment in list(self.attachments.values()):
            attachment.repaint()
        self._on_output(self)

    def _set_ended(self, exit_code: int | None, exit_signal: int | None) -> None:
        if not self.ended.done():
            self.ended.set_result(Exit(exit_code=exit_code, exit_signal=exit_signal))

    def _lead(self, attachment: Attachment) -> None:
        self._leader = attachment
        if attachment.size == self.screen.size:
            return
        self.screen.resize(*attachment.size)
        if self._master is not None:
            self._master.resize(*attachment.size)
        self._show_anew()  # to the leader too: its terminal may have wrapped the lines in another way

    def _left(self, attachment: Attachment) -> None:
        if self.attachments.pop(attachment.id, None) is None:
            return
        if self._leader is attachment:
            writable = [one for one in self.attachments.values() if not one.read_only]
            self._leader = None
            if writable:
                self._lead(writable[-1])
        self._clients_changed()

    def _all_gone(self) -> list[Attachment]:
        """Return every attachment and have none: nobody leads any more, so that their ends change no size."""
        gone = list(self.attachments.values())
        self.attachments.clear()
        self._leader = None
        return gone

    def _clients_changed(self) -> None:
        self.screen.answering = not any(not one.read_only for one in self.attachments.values())
        if not self.attachments:
            self.detached_since = asyncio.get_running_loop().time()
        self._on_clients(self)
