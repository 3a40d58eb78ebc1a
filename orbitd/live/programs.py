"""The programs of live sessions: starting and ending them.

One `Programs` a daemon, on the event loop. What is done to one session is done under its
lock, so that a start, an exit and a termination never overlap. The keeper knows which
programs run; the store knows which sessions they belong to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import weakref
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from orbitd.folders import private_folder
from orbitd.keeper.structs import KeeperGone, KeptProgram, SpawnRequest
from orbitd.live.agent import AgentLinks
from orbitd.live.keeping import Keeping
from orbitd.live.launch import launch_of
from orbitd.live.reconnecting import Reconnector
from orbitd.live.saver import Saver
from orbitd.live.screen import LiveScreen, open_screen
from orbitd.live.session import LiveSession
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.store.snapshot_api import SavedScreen
from orbitd.terminal import journal
from orbitd.terminal.emulator import unavailable_reason
from protocol.errors import AlreadyRunning, NotRunning, OrbitError, SessionNotFound, SnapshotCorrupt, SpawnFailed
from protocol.types import Session, SessionStatus

log = logging.getLogger("orbitd.live")

TERMINATE_GRACE_SECS = 5.0
CLOSE_GRACE_SECS = 5.0
CONNECTION_LOST = 255  # ssh(1), EXIT STATUS


class Places(Struct, frozen=True, kw_only=True):
    """Where live sessions keep what is theirs, and what their programs are told."""

    keeper_socket: str
    journal_folder: str
    agent_folder: str
    daemon_socket: str
    program_umask: int


class Programs:
    """Runs the programs of sessions.

    Args:
        manager: The store.
        saver: Saves screens.
        places: Files and sockets.
    """

    def __init__(self, manager: SessionManager, saver: Saver, places: Places) -> None:
        self._manager = manager
        self._saver = saver
        self._places = places
        self.agents = AgentLinks(places.agent_folder)
        self.keeping = Keeping(places.keeper_socket, self._exited, self._keeper_gone)
        self.running: dict[str, LiveSession] = {}
        self._reconnector = Reconnector(self._start_again, self.hold)
        self._terminating: set[str] = set()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    async def require(self, session_id: str) -> LiveSession:
        """Return a session whose program runs. Raises: SessionNotFound, NotRunning."""
        found = self.running.get(session_id)
        if found is None:
            await self._manager.get_session(session_id)
            raise NotRunning(f"Session {session_id} has no program that runs here")
        return found

    def lock(self, session_id: str) -> asyncio.Lock:
        """Return the lock that keeps what is done to a session's program in order."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = asyncio.Lock()
        return lock

    def hold(self, work: Coroutine[Any, Any, object]) -> None:
        """Run `work` as a task that is held until it ends; what it raises is logged."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    # Starting

    async def start(self, session_id: str, cols: int, rows: int, env: Mapping[str, str] | None) -> Session:
        """Run a session's program.

        Raises:
            SessionNotFound, NameTaken: As `SessionManager.start_program` does.
            AlreadyRunning: It runs.
            SpawnFailed: It cannot be executed, or there is no terminal emulation here.
        """
        async with self.lock(session_id):
            if session_id in self.running:
                raise AlreadyRunning(f"The program of session {session_id} runs already")
            reason = unavailable_reason()
            if reason is not None:
                raise SpawnFailed(f"Live sessions are not available here: {reason}", hint="External sessions are.")
            before = await self._manager.get_session(session_id)
            self.agents.renew(session_id, (env or {}).get("SSH_AUTH_SOCK"))
            started = await self._manager.start_program(session_id, cols, rows)
            try:
                await self._spawn(started, cols, rows, env)
            except BaseException:
                await self._manager.end_program(session_id, before.status, before.exit_code, before.exit_signal)
                raise
            return started

    async def _start_again(self, session_id: str) -> None:
        """Start a session that has lost its connection, unless somebody has done something else with it."""
        session = await self._manager.get_session(session_id)
        if session.status != "detached":
            raise NotRunning(f"Session {session_id} is {session.status}")
        await self.start(session_id, session.cols or 80, session.rows or 24, None)

    async def _spawn(self, session: Session, cols: int, rows: int, env: Mapping[str, str] | None) -> None:
        """Have the keeper run the program, under the screen that is there already."""
        launch = launch_of(
            session,
            client_env=env,
            socket_path=self._places.daemon_socket,
            agent_link=self.agents.path(session.id) if "SSH_AUTH_SOCK" in (env or os.environ) else None,
            cwd=session.cwd,
        )
        screen = await self.open_screen(session)
        try:
            if screen.has_content:
                screen.divide(f"started again {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}")
            screen.resize(cols, rows)
            client = await self.keeping.client()
            request = SpawnRequest(
                id=session.id,
                file=launch.file,
                argv=launch.argv,
                env=launch.env,
                cwd=launch.cwd,
                cols=cols,
                rows=rows,
                umask=self._places.program_umask,
            )
            spawned = await client.spawn(request)
        except BaseException:
            screen.close()
            raise
        self.run(session.id, screen, spawned.pid, spawned.master_fd, folder=spawned.cwd)

    async def open_screen(self, session: Session) -> LiveScreen:
        """Return the session's last screen, or an empty one."""
        private_folder(self._places.journal_folder)
        saved = await self.saved_screen(session.id)
        screen, whole = await asyncio.to_thread(
            open_screen, self.journal_path(session.id), saved, session.cols or 80, session.rows or 24
        )
        if not whole:
            event(log, logging.WARNING, "history lost, portable screen used", session=session.id)
        return screen

    async def saved_screen(self, session_id: str) -> SavedScreen | None:
        """Return the newest good snapshot, and log where that is not the newest. Raises: SessionNotFound."""
        try:
            return await self._manager.load_latest_screen(session_id)
        except SnapshotCorrupt as error:
            good = error.extra.get("good_snapshot_id")
            event(log, logging.ERROR, "newest snapshot is damaged", session=session_id, used=good)
            return await self._manager.get_screen(good) if good else None

    def run(self, session_id: str, screen: LiveScreen, pid: int, master_fd: int, *, folder: str | None) -> LiveSession:
        """Go on with a program that runs."""
        live = LiveSession(
            session_id,
            screen,
            pid=pid,
            master_fd=master_fd,
            folder=folder,
            on_clients=lambda live: self.hold(self.settle_status(live)),
            on_output=self._saver.changed,
        )
        self.running[session_id] = live
        live.begin()
        return live

    def journal_path(self, session_id: str) -> str:
        """Return where a session's journal lies."""
        return os.path.join(self._places.journal_folder, session_id)

    # Ending

    async def finish(self, program: KeptProgram) -> None:
        """Store how a program ended, then let the keeper forget it."""
        async with self.lock(program.id):
            live = self.running.get(program.id)
            if live is not None:
                status = await self._status_after(program)
                if not await self._close(live, status, program.exit_code, program.exit_signal):
                    return  # the keeper remembers it for the next daemon
            await self.keeping.release(program.id)

    async def terminate(self, session_id: str) -> None:
        """Hang a program up, and kill it if it does not heed that within `TERMINATE_GRACE_SECS`."""
        live = await self.require(session_id)
        self._terminating.add(session_id)
        for number in (signal.SIGHUP, signal.SIGKILL):
            with contextlib.suppress(NotRunning):  # it has just ended by itself
                await self.signal(session_id, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINATE_GRACE_SECS):
                    await asyncio.shield(live.ended)
                    return

    async def signal(self, session_id: str, number: int) -> None:
        """Send a signal to a program's process group. Raises: SessionNotFound, NotRunning."""
        await self.require(session_id)
        client = await self.keeping.client()
        await client.signal(session_id, number)

    def remove_files(self, session_id: str) -> None:
        """Remove what lies outside the store of a session that has been deleted."""
        self._reconnector.forget(session_id)
        self.agents.remove(session_id)
        journal.delete(self.journal_path(session_id))

    async def settle_status(self, live: LiveSession) -> None:
        """Let a session's status follow its clients: active with one, detached without."""
        async with self.lock(live.id):
            if self.running.get(live.id) is not live:
                return
            wanted: SessionStatus = "active" if live.attachments else "detached"
            session = await self._manager.get_session(live.id)
            if session.status != wanted:
                await self._manager.update_session_status(live.id, wanted)
        if wanted == "detached":
            await self._saver.save_all_changed([live])

    async def close(self) -> None:
        """Save every screen and let go of the programs, which go on."""
        self._reconnector.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_GRACE_SECS)
        await self._saver.save_all_changed(list(self.running.values()))
        await self._saver.close()
        for live in self.running.values():
            live.let_go()
        self.running.clear()
        self.keeping.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _exited(self, program: KeptProgram) -> None:
        self.hold(self.finish(program))

    def _keeper_gone(self, error: KeeperGone) -> None:
        """The keeper was killed, and the kernel has hung up on every program: the sessions stay, detached."""
        event(log, logging.ERROR, "keeper gone", sessions=len(self.running), superseded=error.superseded)
        if error.superseded:
            return  # the programs go on under another daemon, which has taken the database too
        for live in list(self.running.values()):
            self.hold(self._lose(live))

    async def _lose(self, live: LiveSession) -> None:
        async with self.lock(live.id):
            if self.running.get(live.id) is live:
                await self._close(live, "detached", None, None)

    async def _status_after(self, program: KeptProgram) -> SessionStatus:
        if program.id not in self._terminating and program.exit_code == CONNECTION_LOST:
            session = await self._manager.get_session(program.id)
            if session.session_type == "ssh":
                return "detached"
        return "terminated"

    async def _close(
        self, live: LiveSession, status: SessionStatus, exit_code: int | None, exit_signal: int | None
    ) -> bool:
        """Take the last output, save, record the end, tell the clients, let go; return whether the end is stored."""
        live.take_the_rest()
        stored = True
        try:
            await self._saver.save(live)
            session = await self._manager.end_program(live.id, status, exit_code, exit_signal)
            if status == "detached" and exit_code == CONNECTION_LOST:
                self._reconnector.lost(session)
        except SessionNotFound:
            self.remove_files(live.id)  # deleted meanwhile
        except OrbitError as error:
            event(log, logging.ERROR, "end not stored", session=live.id, error=error.message)
            stored = False
        self._saver.forget(live)
        self._terminating.discard(live.id)
        del self.running[live.id]
        live.end(exit_code, exit_signal)
        return stored

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            event(log, logging.ERROR, "live session failed", error=type(error).__name__, exc=error)
