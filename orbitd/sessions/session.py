"""One live session: its program's terminal, its screen, and the clients attached to it.

Everything here runs on the event loop, except what reads a whole screen: that runs in a
thread while reading is paused. Output goes to the journal, the emulator and the clients, in
this order, so that whatever a client has seen is there after a restart.

A session is reconnecting while its program has ended and another one is about to be started
in its place, as after ssh has lost its connection: screen and clients stay, and input is
dropped.
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
from orbit_protocol.text import text_and_bytes
from orbit_protocol.types import Session
from orbitd.rpc.connection import Connection
from orbitd.screens.emulator import Emulator
from orbitd.sessions.attachment import Attachment, Repaint
from orbitd.sessions.pty_master import PtyMaster
from orbitd.sessions.screen import Capture, LiveScreen

R = TypeVar("R")


class LiveSession:
    """A session whose program runs, or is about to be started again.

    Args:
        session_id: The session's id.
        screen: Its screen so far.
        on_clients: Called when a client has been attached or detached.
        on_output: Called when there is something to save.

    Attributes:
        exited: Set when the program ends; a new future for each program.
        save_lock: Held by a save: one at a time.
        detached_since: The loop's time at which the last client left.
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
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.save_lock = asyncio.Lock()
        self.detached_since = 0.0
        self._on_clients = on_clients
        self._on_output = on_output
        self._numbers = itertools.count(1)
        self._cwd: bytes | None = None
        self._size_owner: Attachment | None = None
        self._master: PtyMaster | None = None

    def run(self, pid: int, master_fd: int, cwd: bytes | None) -> None:
        """Read and write the terminal of a program from now on.

        Args:
            pid: The program's.
            master_fd: The terminal's; closed with the session.
            cwd: The program's last known working directory.
        """
        # Tasks that waited for the program before have its future, and its result.
        if self.exited.done():
            self.exited = asyncio.get_running_loop().create_future()
        self.pid, self._cwd = pid, cwd
        self._master = PtyMaster(master_fd, read=self.screen.read, on_output=self._handle_output)
        self._master.resume()

    # Clients

    def attach(self, connection: Connection, *, cols: int, rows: int, read_only: bool) -> Attachment:
        """Attach a client; a writable one becomes the size owner. It is sent nothing before `start_queueing`."""
        attachment = Attachment(
            f"{self.id}/{next(self._numbers)}",
            connection,
            read_only=read_only,
            size=(cols, rows),
            repaint=lambda: self.screen.repaint(),
            on_end=self._remove_attachment,
        )
        self.attachments[attachment.id] = attachment
        if not read_only:
            self._set_size_owner(attachment)
        self._clients_changed()
        return attachment

    @property
    def owner_size(self) -> tuple[int, int] | None:
        """The window size of the client that owns the size, if there is one."""
        return None if self._size_owner is None else self._size_owner.size

    def detach_all(self) -> None:
        """End every attachment, and notify the clients."""
        for attachment in self._clear_attachments():
            attachment.detach()
        self._clients_changed()

    def resize(self, attachment: Attachment, cols: int, rows: int) -> None:
        """Set the window size of a client; a writable one becomes the size owner (tmux: window-size latest)."""
        attachment.size = (cols, rows)
        if not attachment.read_only:
            self._set_size_owner(attachment)

    # The program

    def write_input(self, data: bytes) -> None:
        """Write to the program's input; dropped while the session is reconnecting.

        Raises:
            NotRunning: The program has ended.
            Busy: It does not read.
        """
        if self._master is not None:
            if self.exited.done():
                raise NotRunning(f"The program of session {self.id} has ended")
            self._master.write(data)

    def current_cwd(self) -> bytes | None:
        """Return the program's working directory: from proc(5), else as it reported it (OSC 7), else the last known."""
        try:
            self._cwd = os.readlink(b"/proc/%d/cwd" % self.pid)
        except OSError:  # it has ended, runs as another user, or this is not Linux
            self._cwd = self.screen.osc7_cwd or self._cwd
        return self._cwd

    def print_divider(self, text: str) -> None:
        """Print a line between the output so far and the next program's, if there is any."""
        if self.screen.has_content:
            self.screen.print_divider(text)
            self._repaint_all()

    def resize_screen(self, cols: int, rows: int) -> None:
        """Give the screen the size of the terminal that a program is started on."""
        if (cols, rows) != self.screen.size:
            self.screen.resize(cols, rows)
            self._repaint_all()

    def drain(self) -> None:
        """Read the last output of a program that has ended, and close its terminal."""
        if self._master is not None:
            self._master.drain()
            self._master.close()

    def set_reconnecting(self, exit_code: int | None, exit_signal: int | None) -> None:
        """Keep screen and clients for the next program."""
        self._master = None
        self._set_exited(exit_code, exit_signal)

    def end(self, exit_code: int | None, exit_signal: int | None) -> None:
        """Notify the clients that the program has ended, end their attachments, and close the screen."""
        # Before the screen is closed: a client that is behind is sent a last repaint.
        for attachment in self._clear_attachments():
            attachment.send_exited(exit_code, exit_signal)
        self.screen.close()
        self._set_exited(exit_code, exit_signal)

    def close(self) -> None:
        """Close terminal and screen; the program goes on."""
        if self._master is not None:
            self._master.close()
        self.screen.close()

    async def capture(self) -> Capture:
        """Return the screen to save."""
        return await self._in_thread(self.screen.capture)

    async def repaint(self, scrollback_lines: int) -> Repaint:
        """Return bytes that draw the screen, after `scrollback_lines` lines of history. Raises: NotRunning."""
        return await self._in_thread(lambda: self.screen.repaint(scrollback_lines))

    async def inspect(self, read: Callable[[Emulator], R]) -> R:
        """Call `read` with the emulator in a thread; return its result. Raises: NotRunning."""
        return await self._in_thread(lambda: self.screen.inspect(read))

    async def _in_thread(self, work: Callable[[], R]) -> R:
        """Read the screen in a thread, without output meanwhile."""
        # Other tasks run while this waits: clients may attach, resize and type, and the session may end and
        # close its screen. The screen's own lock is for those; the pause keeps `_handle_output`, which is
        # called all the time, from waiting for that lock on the event loop.
        master = self._master
        if master is not None:
            master.pause()
        try:
            return await asyncio.to_thread(work)
        finally:
            # A cancelled wait gets here while the thread still works; output then waits for the lock.
            if master is not None:
                master.resume()

    def live_fields(self, session: Session) -> dict[str, object]:
        """Return the fields of a Session that only a running program has."""
        cols, rows = self.screen.size
        folder = self.current_cwd()
        cwd, cwd_bytes = (session.cwd, session.cwd_bytes) if folder is None else text_and_bytes(folder)
        return {
            "live": True,
            "pid": self.pid,
            "cols": cols,
            "rows": rows,
            "title": self.screen.title or session.title,
            "cwd": cwd,
            "cwd_bytes": cwd_bytes,
            "clients": len(self.attachments),
        }

    def _handle_output(self, data: bytes) -> None:
        replies = self.screen.feed(data)
        # A copy: sending may find out that a client has gone, and remove its attachment.
        for attachment in list(self.attachments.values()):
            attachment.send_output(data)
        self._on_output(self)
        if replies and self._master is not None:
            with contextlib.suppress(Busy):  # a program that asks and never reads gets no more answers
                self._master.write(replies)

    def _repaint_all(self) -> None:
        for attachment in list(self.attachments.values()):
            attachment.send_repaint()
        self._on_output(self)

    def _set_exited(self, exit_code: int | None, exit_signal: int | None) -> None:
        if not self.exited.done():
            self.exited.set_result(Exit(exit_code=exit_code, exit_signal=exit_signal))

    def _set_size_owner(self, attachment: Attachment) -> None:
        self._size_owner = attachment
        if attachment.size == self.screen.size:
            return
        # Screen before terminal: what the program prints on SIGWINCH is for the new size.
        self.screen.resize(*attachment.size)
        if self._master is not None:
            self._master.resize(*attachment.size)
        self._repaint_all()  # the owner too: its own terminal may have rewrapped lines in another way

    def _remove_attachment(self, attachment: Attachment) -> None:
        if self.attachments.pop(attachment.id, None) is None:
            return  # `_clear_attachments` has removed it
        if self._size_owner is attachment:
            writable = [each for each in self.attachments.values() if not each.read_only]
            self._size_owner = None
            if writable:
                self._set_size_owner(writable[-1])
        self._clients_changed()

    def _clear_attachments(self) -> list[Attachment]:
        """Remove all attachments and return them. There is no size owner then, so that their ends change no size."""
        removed = list(self.attachments.values())
        self.attachments.clear()
        self._size_owner = None
        return removed

    def _clients_changed(self) -> None:
        # A program's query must be answered once: by the terminal of a writable client, else by the emulator.
        self.screen.answering = not any(not each.read_only for each in self.attachments.values())
        if not self.attachments:
            self.detached_since = asyncio.get_running_loop().time()
        self._on_clients(self)
