"""The programs of live sessions: starting them, taking them over, and what is told about them.

One `Programs` a daemon, on the event loop. The keeper knows which programs run; the store
knows which sessions they belong to; `endings` knows how they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping
from datetime import datetime

from msgspec import Struct

from orbit_protocol.errors import AlreadyRunning, InternalError, NotRunning, OrbitError, RequestTimeout, SpawnFailed
from orbit_protocol.types import Session
from orbitd.keeper.structs import KeptProgram, Spawned, SpawnRequest
from orbitd.live.agent import AgentLinks
from orbitd.live.background_tasks import BackgroundTasks
from orbitd.live.endings import Endings
from orbitd.live.keeper_connection import KeeperConnection
from orbitd.live.launch import launch_of
from orbitd.live.reconnecting import Reconnector
from orbitd.live.registry import Registry
from orbitd.live.saver import Saver
from orbitd.live.screens import Screens
from orbitd.live.session import LiveSession
from orbitd.manager import SessionManager
from orbitd.terminal.emulator import unavailable_reason

CLOSE_GRACE_SECS = 5.0


class Places(Struct, frozen=True, kw_only=True):
    """Where live sessions keep what is theirs, and what their programs are told."""

    keeper_socket: str
    journal_folder: str
    agent_folder: str
    daemon_socket: str
    program_umask: int


class Memory(Struct, frozen=True, kw_only=True):
    """How much history is kept in memory: of one session, and of all; in bytes."""

    scrollback_max_bytes: int
    total_scrollback_bytes: int


class Programs:
    """Runs the programs of sessions.

    Args:
        manager: The store.
        saver: Saves screens.
        places: Files and sockets.
        memory: Limits of the history.
    """

    def __init__(self, manager: SessionManager, saver: Saver, places: Places, memory: Memory) -> None:
        self._manager = manager
        self._saver = saver
        self._places = places
        self._tasks = BackgroundTasks()
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.agents = AgentLinks(places.agent_folder)
        self.screens = Screens(manager, places.journal_folder, memory.scrollback_max_bytes)
        self.registry = Registry(manager, saver, self._tasks, memory.total_scrollback_bytes)
        self.keeper = KeeperConnection(places.keeper_socket, self._exited, lambda error: self.endings.lose_all(error))
        self.reconnector = Reconnector(self._start_again, self._give_up, self._tasks.start)
        self.endings = Endings(
            manager, saver, self.screens, self.registry, self.keeper, self.agents, self.reconnector, self._tasks
        )

    async def start(self, session_id: str, cols: int, rows: int, env: Mapping[str, str] | None) -> Session:
        """Run a session's program.

        Raises:
            SessionNotFound, NameTaken: As `SessionManager.start_program` does.
            AlreadyRunning: It runs.
            SpawnFailed: It cannot be executed, or there is no terminal emulation here.
            StorageError: This, or how its last program ended, cannot be stored.
        """
        async with self.registry.lock(session_id):
            if session_id in self.registry.running:
                raise AlreadyRunning(f"The program of session {session_id} runs already")
            reason = unavailable_reason()
            if reason is not None:
                raise SpawnFailed(f"Live sessions are not available here: {reason}", hint="External sessions are.")
            await self.endings.settle(session_id)
            before = await self._manager.get_session(session_id)
            self.agents.renew(session_id, (env or {}).get("SSH_AUTH_SOCK"))
            self.reconnector.started(session_id)
            started = await self._manager.start_program(session_id, cols, rows)
            try:
                await self._spawn(started, cols, rows, env)
            except BaseException:
                await self._manager.end_program(session_id, before.status, before.exit_code, before.exit_signal)
                raise
            return started

    async def adopt(self, session: Session, program: KeptProgram) -> None:
        """Go on with a program that an earlier daemon has started; under the session's lock."""
        client = await self.keeper.client()
        live = self.registry.new(session.id, await self.screens.open(session))
        live.run(program.pid, await client.take(program.id), session.cwd)
        self.registry.put(live)

    @contextlib.asynccontextmanager
    async def without_program(self, session_id: str) -> AsyncIterator[None]:
        """Hold a session's lock while it has no program, and none is planned; one that runs is ended first.

        Raises:
            RequestTimeout: It does not end.
            StorageError: Its end could not be stored yet.
        """
        while True:
            async with self.registry.lock(session_id):
                if session_id not in self.registry.running:
                    self.endings.stop_resting(session_id)
                    yield
                    return
            await self.endings.terminate(session_id)

    def remove_files(self, session_id: str) -> None:
        """Remove what lies outside the store of a session that has been deleted."""
        self.agents.remove(session_id)
        self.screens.remove(session_id)

    async def save_all(self) -> int:
        """Save every screen that has changed; return how many. What fails is logged, and tried again."""
        return await self._saver.save_all_changed(list(self.registry))

    def warnings(self) -> list[str]:
        """Return what is wrong now and lasts, in sentences for a person."""
        told = []
        degraded = [live.screen.degraded for live in self.registry if live.screen.degraded is not None]
        if degraded:
            told.append(
                f"The output of {len(degraded)} sessions is not recorded: {degraded[0].strerror or degraded[0]} "
                f"({self._places.journal_folder}). They go on; what they show is lost if the daemon is killed."
            )
        if self._saver.failing:
            reason = next(iter(self._saver.failing.values()))
            told.append(f"The screens of {len(self._saver.failing)} sessions could not be saved: {reason}.")
        return told

    def begin_to_close(self) -> None:
        """Let nobody wait for the end of a program any more."""
        if not self.closing.done():
            self.closing.set_result(None)

    async def close(self) -> None:
        """Save every screen and let go of the programs, which go on."""
        self.reconnector.close()
        await self._tasks.finish(CLOSE_GRACE_SECS)
        await self.save_all()
        await self._saver.close()
        for live in self.registry:
            live.let_go()
        self.keeper.close()
        await self._tasks.cancel()

    async def _start_again(self, session_id: str) -> None:
        """Start a session that has lost its connection, unless somebody has done something else with it."""
        session = await self._manager.get_session(session_id)
        if session.status != "detached":
            raise NotRunning(f"Session {session_id} is {session.status}")
        await self.start(session_id, session.cols or 80, session.rows or 24, None)

    async def _give_up(self, session_id: str) -> None:
        """End what rests for a program that cannot be started."""
        async with self.registry.lock(session_id):
            self.endings.stop_resting(session_id)

    async def _spawn(self, session: Session, cols: int, rows: int, env: Mapping[str, str] | None) -> None:
        """Have the keeper run the program, under the screen that is there already."""
        launch = launch_of(
            session,
            client_env=env,
            socket_path=self._places.daemon_socket,
            agent_link=self.agents.path(session.id),
            cwd=session.cwd,
        )
        live = self.registry.resting.get(session.id)
        if live is None:
            live = self.registry.new(session.id, await self.screens.open(session))
        cols, rows = live.leader_size or (cols, rows)
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
        try:
            spawned = await self._spawned(request, launch.hint)
        except BaseException:
            self._abandon(live)
            raise
        if spawned is None:
            self._abandon(live)
            await self._adopt_kept(session)
            return
        live.divide(f"started again {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}")
        live.fit(cols, rows)
        live.run(spawned.pid, spawned.master_fd, spawned.cwd)
        self.registry.put(live)
        if live.attachments:
            self._tasks.start(self.registry.settle_status(live))

    async def _spawned(self, request: SpawnRequest, hint: str) -> Spawned | None:
        """Have the keeper start a program; None if it has one of this session that was never taken over.

        Raises:
            SpawnFailed: It cannot be executed; with `hint` as the next step, unless that is empty.
        """
        client = await self.keeper.client()
        try:
            return await client.spawn(request)
        except AlreadyRunning:
            return None
        except SpawnFailed as exc:
            if not hint:
                raise
            raise SpawnFailed(exc.message, hint=hint, data=exc.extra) from exc
        except (RequestTimeout, InternalError):  # it may have been started, with nobody to read what it writes
            with contextlib.suppress(OrbitError):
                await client.signal(request.id, signal.SIGKILL)
            raise

    async def _adopt_kept(self, session: Session) -> None:
        client = await self.keeper.client()
        program = next(each for each in await client.programs() if each.id == session.id)
        await self.adopt(session, program)
        if program.ended_at is not None:
            self._exited(program)

    def _abandon(self, live: LiveSession) -> None:
        """Let go of the screen of a program that did not start, unless clients wait for another try."""
        if self.registry.resting.get(live.id) is not live:
            live.let_go()

    def _exited(self, program: KeptProgram) -> None:
        self._tasks.start(self.endings.finish(program))
