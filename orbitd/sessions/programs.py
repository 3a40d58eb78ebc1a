"""The programs of live sessions: start, take over from an earlier daemon, close at the daemon's stop.

One `Programs` a daemon, on the event loop. The keeper knows which programs run, the store
which sessions they belong to; `termination` handles how they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime

from msgspec import Struct

from orbit_protocol.errors import AlreadyRunning, InternalError, NotRunning, OrbitError, RequestTimeout, SpawnFailed
from orbit_protocol.types import Session
from orbitd.background_tasks import BackgroundTasks
from orbitd.keeper.client import KeptProgram, ProgramNotFound, Spawned, SpawnRequest
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.screens.emulator import unavailable_reason
from orbitd.sessions.command_line import build_launch, last_folder
from orbitd.sessions.keeper_connection import KeeperConnection
from orbitd.sessions.registry import Registry
from orbitd.sessions.saver import Saver
from orbitd.sessions.screen_restore import SavedScreens
from orbitd.sessions.session import LiveSession
from orbitd.sessions.ssh_agent import AgentLinks
from orbitd.sessions.ssh_reconnect import Reconnector
from orbitd.sessions.termination import Exits

log = logging.getLogger("orbitd.sessions")

CLOSE_GRACE_SECS = 5.0


class LiveSettings(Struct, frozen=True, kw_only=True):
    """Paths of live sessions, and what every program is started with."""

    keeper_socket: str
    journal_folder: str
    agent_folder: str
    daemon_socket: str
    program_umask: int


class ScrollbackLimits(Struct, frozen=True, kw_only=True):
    """How much history is kept in memory, of one session and of all together, in bytes."""

    scrollback_max_bytes: int
    total_scrollback_bytes: int


class Programs:
    """Runs the programs of sessions.

    Args:
        manager: The store.
        saver: Saves screens.
        settings: Paths and umask.
        limits: Of the history.

    Attributes:
        closing: Set when the daemon begins to stop; calls that wait for a program end with it.
    """

    def __init__(self, manager: SessionManager, saver: Saver, settings: LiveSettings, limits: ScrollbackLimits) -> None:
        self._manager = manager
        self._saver = saver
        self._settings = settings
        self._tasks = BackgroundTasks(log, "live session task failed")
        self._not_restored: dict[str | None, str] = {}
        self._recorded_again: set[str] = set()
        self._held_exits: list[KeptProgram] | None = None
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.agents = AgentLinks(settings.agent_folder)
        self.screens = SavedScreens(manager, settings.journal_folder, limits.scrollback_max_bytes)
        self.registry = Registry(manager, saver, self._tasks, limits.total_scrollback_bytes)
        self.keeper = KeeperConnection(
            settings.keeper_socket, self._handle_exit, lambda error: self.exits.handle_keeper_gone(error)
        )
        self.reconnector = Reconnector(self._reconnect, self._stop_reconnecting, self._tasks.start)
        self.exits = Exits(
            manager, saver, self.screens, self.registry, self.keeper, self.agents, self.reconnector, self._tasks
        )

    async def start(self, session_id: str, cols: int, rows: int, env: Mapping[bytes, bytes] | None) -> Session:
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
            await self.exits.store_pending_exit(session_id)
            before = await self._manager.get_session(session_id)
            had_link = self.agents.exists(session_id)
            self.agents.update(session_id, env)
            self.reconnector.started(session_id)
            # Stored before the program is started: if the daemon is killed in between, the next one finds a
            # live session without a program, and restores it. The other way round it would find a program
            # that the store says is not there.
            started = await self._manager.start_program(session_id, cols, rows)
            try:
                await self._spawn(started, cols, rows, env)
            except BaseException:  # a cancelled request too: the session gets the status back that it had
                if not had_link:
                    self.agents.remove(session_id)
                # One that was recorded as running could not be taken over: its program may run, and its exit is
                # stored only for a session that is still recorded so.
                if not before.live:
                    await self._manager.end_program(session_id, before.status, before.exit_code, before.exit_signal)
                raise
            return started

    async def take_over(self, session: Session, program: KeptProgram) -> None:
        """Continue with a program that an earlier daemon has started; under the session's lock."""
        client = await self.keeper.client()
        live = self.registry.create(session.id, await self.screens.restore(session))
        try:
            live.run(program.pid, await client.take(program.id), last_folder(session))
        except BaseException:
            live.close()
            raise
        self._add_running(live)

    @contextlib.asynccontextmanager
    async def without_program(self, session_id: str) -> AsyncIterator[None]:
        """Hold a session's lock while it has no program and no start is scheduled; end one that runs.

        Raises:
            RequestTimeout: It does not end.
            StorageError: Its exit could not be stored yet.
        """
        while True:
            async with self.registry.lock(session_id):
                if session_id not in self.registry.running:
                    self.exits.stop_reconnecting(session_id)
                    if self._may_run_unseen(session_id):
                        await self.keeper.kill(session_id)
                    yield
                    return
            # Without the lock, which `handle_exit` needs. Another task may start the session again before
            # this one gets the lock back: hence the loop.
            await self.exits.terminate(session_id)

    def remove_files(self, session_id: str) -> None:
        """Remove what a deleted session has outside of the store."""
        self._not_restored.pop(session_id, None)
        if not session_id.replace("-", "").isalnum():
            return  # what a damaged row shows as its id: no file was ever named so
        self.agents.remove(session_id)
        self.screens.remove_journal(session_id, kept_aside=True)

    # Restoring

    @contextlib.contextmanager
    def exits_held(self) -> Iterator[None]:
        """Handle exits that the keeper reports meanwhile afterwards: their sessions may not be registered yet."""
        held: list[KeptProgram] = []
        self._held_exits = held
        try:
            yield
        finally:
            self._held_exits = None
            for program in held:
                self._handle_exit(program)

    def restore_failed(self, session_id: str | None, error: Exception) -> None:
        """Record why a session could not be restored; without an id, why none could."""
        self._not_restored[session_id] = error.message if isinstance(error, OrbitError) else type(error).__name__

    def _may_run_unseen(self, session_id: str) -> bool:
        """Return whether the keeper may have a program of a session that was not taken over."""
        session = self._manager.cached_session(session_id)
        all_unknown = None in self._not_restored and session is not None and session.live
        return all_unknown or session_id in self._not_restored

    def record_was_lost(self, session_id: str) -> None:
        """Remember that a session's row was gone, and that it was recorded again for its program."""
        self._recorded_again.add(session_id)

    def _add_running(self, live: LiveSession) -> None:
        self._not_restored.pop(live.id, None)
        self.registry.add_running(live)

    async def save_all(self) -> int:
        """Save every screen that has changed; return how many. Failures are logged, and tried again."""
        return await self._saver.save_all_changed(list(self.registry))

    def warnings(self) -> list[str]:
        """Return the problems that last, as sentences for `status` and `doctor`."""
        warnings = []
        degraded = [live.screen.degraded for live in self.registry if live.screen.degraded is not None]
        if degraded:
            warnings.append(
                f"The output of {len(degraded)} sessions is not recorded: {degraded[0].strerror or degraded[0]} "
                f"({self._settings.journal_folder}). They go on; what they show is lost if the daemon is killed."
            )
        if self._saver.failing:
            reason = next(iter(self._saver.failing.values()))
            warnings.append(f"The screens of {len(self._saver.failing)} sessions could not be saved: {reason}.")
        for session_id, reason in self._not_restored.items():
            if session_id is None:
                warnings.append(f"No live session was restored: {reason}. `orbitctl daemon restart` tries again.")
            elif (session := self._manager.cached_session(session_id)) is not None:
                warnings.append(
                    f"Session {session.name or session_id} could not be restored: {reason}. Its journal is kept; "
                    f"`orbitctl session start {session_id}` tries again."
                )
        for session_id in sorted(self._recorded_again):
            session = self._manager.cached_session(session_id)
            if session is not None and session.name is None:
                warnings.append(
                    f"The record of session {session_id} is gone from the database and its program runs: it is listed "
                    f"again, without name and configuration; `orbitctl session rename {session_id} NAME` names it."
                )
        return warnings + self.screens.warnings()

    def start_closing(self) -> None:
        """End every call that waits for a program."""
        if not self.closing.done():
            self.closing.set_result(None)

    async def close(self) -> None:
        """Save every screen, close the terminals and disconnect from the keeper; the programs go on."""
        self.reconnector.close()
        # Exits that are being handled are stored first; what is not done in time is handled by the next
        # daemon, from the keeper.
        await self._tasks.finish(CLOSE_GRACE_SECS)
        await self.save_all()
        await self._saver.close()
        for live in self.registry:
            try:
                live.close()
            except Exception as error:  # noqa: BLE001  # one of many; its journal is read by the next daemon
                event(log, logging.ERROR, "session not closed", session=live.id, error=type(error).__name__, exc=error)
        self.keeper.close()
        await self._tasks.cancel()

    async def _reconnect(self, session_id: str) -> None:
        """Start a session that has lost its connection, unless its status has been changed meanwhile."""
        session = await self._manager.get_session(session_id)
        if session.status != "detached":
            raise NotRunning(f"Session {session_id} is {session.status}")
        await self.start(session_id, session.cols or 80, session.rows or 24, None)

    async def _stop_reconnecting(self, session_id: str) -> None:
        async with self.registry.lock(session_id):
            self.exits.stop_reconnecting(session_id)

    async def _spawn(self, session: Session, cols: int, rows: int, env: Mapping[bytes, bytes] | None) -> None:
        """Have the keeper start the program, on the screen that the session has."""
        launch = build_launch(
            session,
            client_env=env,
            socket_path=self._settings.daemon_socket,
            agent_link=self.agents.path(session.id),
        )
        live = self.registry.reconnecting.get(session.id)
        if live is None:
            live = self.registry.create(session.id, await self.screens.restore(session))
        cols, rows = live.owner_size or (cols, rows)
        request = SpawnRequest(
            id=session.id,
            file=launch.file,
            argv=launch.argv,
            env=launch.env,
            cwd=launch.cwd,
            cols=cols,
            rows=rows,
            umask=self._settings.program_umask,
        )
        try:
            spawned = await self._request_spawn(request, launch.hint)
        except BaseException:
            self._close_unless_reconnecting(live)
            raise
        if spawned is None:
            self._close_unless_reconnecting(live)
            await self._take_over_unknown(session)
            return
        # No await until the session is registered: output is read only after the divider, and no other task looks for
        # the session in between.
        try:
            live.print_divider(f"started again {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}")
            live.resize_screen(cols, rows)
        except BaseException:  # no memory, or whatever the library refuses
            os.close(spawned.master_fd)
            self._close_unless_reconnecting(live)
            await self.keeper.kill(session.id)
            raise
        live.run(spawned.pid, spawned.master_fd, spawned.cwd)
        self._add_running(live)
        if live.attachments:
            self._tasks.start(self.registry.update_status_from_clients(live))

    async def _request_spawn(self, request: SpawnRequest, hint: str) -> Spawned | None:
        """Have the keeper start a program; None if it has one of this session that was never taken over.

        Raises:
            SpawnFailed: It cannot be executed; if there is no such program, with `hint` unless that is empty.
        """
        client = await self.keeper.client()
        try:
            return await client.spawn(request)
        except AlreadyRunning:
            return None
        except ProgramNotFound as exc:
            raise SpawnFailed(exc.message, hint=hint or None, data=exc.extra) from exc
        except (RequestTimeout, InternalError):
            # It may have been started all the same, and then nothing reads its output: it must not stay.
            with contextlib.suppress(OrbitError):
                await client.signal(request.id, signal.SIGKILL)
            raise

    async def _take_over_unknown(self, session: Session) -> None:
        """Take over a program that the keeper has and this daemon has not, as after a take-over that failed."""
        client = await self.keeper.client()
        program = next(each for each in await client.programs() if each.id == session.id)
        await self.take_over(session, program)
        if program.ended_at is not None:
            self._handle_exit(program)

    def _close_unless_reconnecting(self, live: LiveSession) -> None:
        """Close the screen of a program that was not started, unless clients wait for another try."""
        if self.registry.reconnecting.get(live.id) is not live:
            is_empty = live.screen.journal_bytes == 0
            live.close()
            if is_empty:  # made for this start; one with output of an earlier program stays
                self.screens.remove_journal(live.id)

    def _handle_exit(self, program: KeptProgram) -> None:
        if self._held_exits is not None:
            self._held_exits.append(program)
            return
        self._tasks.start(self.exits.handle_exit(program))
