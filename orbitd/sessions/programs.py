"""The programs of sessions: start, take over from an earlier daemon, start again, close at the daemon's stop.

One `Programs` a daemon, on the event loop. The keeper knows which programs run, the store
which sessions they belong to; `endings` handles how they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct
from msgspec.structs import replace

from orbit_os.files import UnsafeFile, UnsafeFolder, private_folder
from orbit_protocol import MAX_COLUMNS_OR_ROWS
from orbit_protocol.errors import (
    AlreadyRunning,
    InternalError,
    LiveUnavailable,
    NotRunning,
    OrbitError,
    RequestTimeout,
    SessionNotFound,
    SpawnFailed,
    StorageError,
    TooManySessions,
)
from orbit_protocol.settings import ShellIntegration
from orbit_protocol.text import text_and_bytes, to_text
from orbit_protocol.types import Session, SessionConfig, SessionStatus
from orbit_protocol.visible import visible
from orbitd.background_tasks import BackgroundTasks
from orbitd.descriptors import RAISE_IT, SessionRoom, too_many
from orbitd.history.history import History
from orbitd.installation import RESTART, this_installation
from orbitd.keeper.client import KeeperClient, KeeperGone, KeptProgram, ProgramNotFound, Spawned, SpawnRequest
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.screens.client import Screens
from orbitd.screens.messages import Limits
from orbitd.screens.model import MAX_SCROLLBACK_LINES
from orbitd.sessions.command_line import build_launch, last_folder, last_size
from orbitd.sessions.endings import Endings
from orbitd.sessions.files import SessionFiles, is_private, no_memory
from orbitd.sessions.keeper_connection import KeeperConnection
from orbitd.sessions.news import SILENCE_SECS, Outlet
from orbitd.sessions.reconnecting import Reconnector
from orbitd.sessions.registry import Registry
from orbitd.sessions.saver import Saver
from orbitd.sessions.session import LiveSession, Shared, StartedBy, State, Typing, client_change
from orbitd.sessions.shell_integration import integrate
from orbitd.sessions.ssh_agent import AgentLinks
from orbitd.sessions.terminal import Landing
from orbitd.store.sessions import ClientChange

log = logging.getLogger("orbitd.sessions")

CLOSE_GRACE_SECS = 5.0
FIRST_FETCH_SECS, MAX_FETCH_SECS = 1.0, 30.0
"""When terminals that could not be fetched are tried again, with exponential back-off."""
STARTED_TOGETHER = 4
"""How many sessions are started at the same time after a reboot: clients, and the shells' own files, need the rest."""
COUNTED_TOGETHER = 64
"""How many terminals are fetched between two counts of what is open: each count goes through all sessions."""


class LiveSettings(Struct, frozen=True, kw_only=True):
    """Paths of live sessions, what programs are started with, and how much history pictures keep, in bytes.

    Attributes:
        program_umask: Of programs whose client sends none.
        program_limits: Soft limits of programs, where the client does not send others.
        is_managed: Whether a service manager has started this daemon.
        keeps_deleted: Whether there is a trash; without one a session that is deleted is gone at once.
        silence_secs: How long a session prints nothing until it is silent.
        shell_integration: Whether shells mark their commands, where who starts them does not say.
    """

    keeper_socket: str
    journal_folder: str
    landing_file: str
    agent_folder: str
    runtime_folder: str = ""
    daemon_socket: str
    program_umask: int
    program_limits: Mapping[str, int] = {}
    is_managed: bool = False
    scrollback_max_bytes: int
    total_scrollback_bytes: int
    keeps_deleted: bool = True
    silence_secs: float = SILENCE_SECS
    shell_integration: ShellIntegration = "off"


class Programs:
    """Runs the programs of sessions.

    Args:
        manager: The store.
        history: What sessions have shown.
        settings: Paths, umask, limits.
        auto_save_interval_secs: The longest that output is in the journal only.

    Attributes:
        silence_secs: How long a session prints nothing until it is silent.
        closing: Set when the daemon begins to stop; calls that wait for a program end with it.
        registry: The sessions.
        outlet: Where events of what programs say go.
    """

    def __init__(
        self, manager: SessionManager, history: History, settings: LiveSettings, auto_save_interval_secs: float
    ) -> None:
        self._manager = manager
        self._history = history
        self._settings = settings
        self._tasks = BackgroundTasks(log, "live session task failed")
        self._held_exits: list[KeptProgram] | None = None
        self._unsaved_at_start: set[str] = set()
        self._landing_keeper: KeeperClient | None = None
        self._unsaved: set[str] | None = None  # by an earlier daemon, of those whose terminals are not fetched yet
        self._is_fetching = self._fetches_again = False
        self._fetch_delay = FIRST_FETCH_SECS
        self._fetch_timer: asyncio.TimerHandle | None = None
        self._coming_back: dict[str, asyncio.Future[None]] = {}
        self._turns = asyncio.Semaphore(STARTED_TOGETHER)
        self.silence_secs = settings.silence_secs
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        login = os.environb if settings.is_managed else None
        self.agents = AgentLinks(settings.agent_folder, settings.runtime_folder, login)
        self.screens = Screens(Limits(lines=MAX_SCROLLBACK_LINES, size=settings.scrollback_max_bytes))
        self.outlet = Outlet(manager)
        self.saver = Saver(manager, history, auto_save_interval_secs, self.outlet)
        self.room = SessionRoom(self._count_descriptors, lambda: manager.descriptors + history.descriptors)
        self.keeper = KeeperConnection(
            settings.keeper_socket, self.room, self.handle_exit, self._handle_lost_connection
        )
        self.files = SessionFiles(
            manager, history, settings.journal_folder, self.keeper.memory, settings.scrollback_max_bytes
        )
        self.registry = Registry(
            manager,
            self._new_session,
            self.require_restored,
            total_scrollback_bytes=settings.total_scrollback_bytes,
        )
        self._shared = Shared(
            files=self.files,
            history=history,
            screens=self.screens,
            outlet=self.outlet,
            landing=None,
            typing=Typing(),
            start_task=self._tasks.start,
            on_output=self.saver.mark_changed,
            on_clients=self._on_clients,
            on_held=self.registry.handle_held,
            on_idle=self.registry.forget_if_idle,
            silence_secs=settings.silence_secs,
        )
        self.reconnector = Reconnector(self._reconnect, self._stop_reconnecting, self._tasks.start)
        self.endings = Endings(
            manager,
            self.saver,
            self.files,
            self.registry,
            self.keeper,
            self.agents,
            self.reconnector,
            self._tasks,
            self.remove_ended,
        )
        manager.on_purged = lambda: self._tasks.start(self.remove_purged())
        manager.live_fields = self.live_fields

    def _new_session(self, session_id: str) -> LiveSession:
        return LiveSession(session_id, self._shared)

    def _count_descriptors(self) -> tuple[int, int]:
        present = [live.descriptors for live in self.registry if live.has_terminal]
        return len(present), sum(present)

    async def start(
        self,
        session_id: str,
        cols: int,
        rows: int,
        env: Mapping[bytes, bytes] | None,
        *,
        umask: int | None = None,
        limits: Mapping[str, int] | None = None,
        shell_integration: ShellIntegration | None = None,
        only_lost: bool = False,
        only_in: str | None = None,
        reconnects: bool = False,
        may_move: bool = False,
    ) -> Session:
        """Run a session's program.

        One whose last program was lost, as by a reboot, comes back with its `resume` command where it has one; one that
        has ended by itself or by a request begins with its own command.

        Args:
            session_id: The session.
            cols: Columns of its terminal.
            rows: Rows of its terminal.
            env: The environment of the client that starts it; None for that of a fresh login.
            umask: The client's; None for the one that the daemon was started with.
            limits: The client's soft limits; the others are those that the daemon was started with.
            shell_integration: Whether bash and zsh mark their commands; None for the setting.
            only_lost: Start it only while it is recorded as running.
            only_in: Start it only while it is in this workspace.
            reconnects: It is started by itself, since its connection was lost.
            may_move: Start it in HOME where the folder that was asked for is gone.

        Raises:
            SessionNotFound, NameTaken: As `SessionManager.start_program` does; or it is not in `only_in`.
            AlreadyRunning: It runs.
            SpawnFailed: It cannot be executed.
            LiveUnavailable: There is no terminal emulation here, or the keeper does not answer.
            TooManySessions: There are no descriptors, processes or memory for it.
            StorageError: This, or how its last program ended, cannot be stored.
            NotRunning: `only_lost`, and it is not recorded as running any more.
        """
        cols, rows = min(cols, MAX_COLUMNS_OR_ROWS), min(rows, MAX_COLUMNS_OR_ROWS)  # older releases took more
        await self.keeper.require_known()
        async with self.registry.locked(session_id) as live:
            if live.has_program:
                raise AlreadyRunning(f"The program of session {session_id} runs already")
            self.require_emulation()
            with self.room.take():
                await self.endings.store_pending_exit(live)
                before = await self._manager.get_session(session_id)
                private = self._private_config(before)
                if only_in is not None and before.workspace_id != only_in:
                    raise SessionNotFound(f"Session {session_id} is not in workspace {only_in}")
                if only_lost and (before.status == "terminated" or not before.live):
                    raise NotRunning(f"Session {session_id} is not to be started again")
                had_link = self.agents.exists(session_id)
                live.retry_started()
                # Stored before the program is started: if the daemon is killed in between, the next one finds a
                # live session without a program, and restores it. The other way round it would find a program
                # that the store says is not there.
                started = await self._manager.start_program(session_id, cols, rows, reconnects=reconnects)
                was = live.state
                if private is not None:
                    live.record = "none"
                live.move(State.STARTING)
                try:
                    by = StartedBy(env=env, umask=umask, limits=limits or {}, shell_integration=shell_integration)
                    await self._spawn(live, _to_run(before, started, private), by, may_move=may_move)
                    live.started_by = by if started.config.reconnect else StartedBy()
                except BaseException:  # a cancelled request too: the session gets the status back that it had
                    if live.state is not State.STARTING:
                        raise  # its program was taken over, and runs; its terminal is fetched when it is needed
                    live.move(State.RECONNECTING if was is State.RECONNECTING else State.RECORDED)
                    if not had_link:
                        self.agents.remove(session_id)
                    # One that was recorded as running could not be taken over: its program may run, and its exit is
                    # stored only for a session that is still recorded so.
                    if not before.live:
                        await self._manager.undo_start(before, reconnects=reconnects)
                    raise
                return started

    def _private_config(self, session: Session) -> SessionConfig | None:
        """Return what a private session runs, None for any other.

        Raises:
            NotRunning: It was started before, or a daemon before this one was told: nobody knows any more.
        """
        if not is_private(session):
            return None
        config = self._manager.private_config(session.id)
        if config is None:
            raise NotRunning(
                f"Session {session.id} is private and cannot be started again: what it runs was in memory only",
                hint="Run a new one: `orbitctl new --private`.",
                data={"reason": "private"},
            )
        return config

    def require_emulation(self) -> None:
        """Raise LiveUnavailable where there is no terminal emulation."""
        reason = self.screens.unavailable_reason
        if reason is not None:
            words = f"Live sessions are not available here: {reason}"
            hint = "External sessions are." if this_installation.change() is None else RESTART
            unavailable = LiveUnavailable(words, hint=hint, data={"reason": reason})
            unavailable.retryable = False
            raise unavailable

    def take_over(self, live: LiveSession, session: Session, program: KeptProgram) -> None:
        """Continue with a program that an earlier daemon has started; its terminal is fetched later."""
        live.size = last_size(session)
        if is_private(session) or program.has_memory:
            live.record = "none"
        live.move(State.RUNNING)
        live.run(program.pid, last_folder(session), last_folder(session))

    async def fetch_terminals(self) -> None:
        """Read every terminal that was taken over, and save what an earlier daemon has not.

        Those that cannot be fetched now are tried again: after a while, when a program has ended, and when the
        connection to the keeper was made again. Nothing is done here while another call does it.
        """
        self._fetches_again = True
        if self._is_fetching:
            return
        self._is_fetching = True
        try:
            while self._fetches_again:
                self._fetches_again = False
                await self._fetch_terminals()
        except (LiveUnavailable, KeeperGone) as error:  # the programs run on, unless the keeper is gone
            reason = str(error.extra.get("reason", error.message))
            event(log, logging.WARNING, "terminals not fetched", error=reason)
            for live in self.registry:
                if live.state is State.RUNNING and _lacks_terminal(live):
                    live.not_fetched = reason
        finally:
            self._is_fetching = False
            self._plan_fetch()

    async def _fetch_terminals(self) -> None:
        if self._unsaved is None:
            self._unsaved = self.files.unsaved()
        spare = until_count = 0
        for live in self.registry:
            if live.state is not State.RUNNING:
                continue
            if _lacks_terminal(live):
                if not until_count:
                    present, room = self.room.used()
                    spare, until_count = room - present, COUNTED_TOGETHER
                spare, until_count = spare - 1, until_count - 1
                if not await self._fetch_terminal(live, has_room=spare >= 0):
                    continue
            if live.id in self._unsaved:
                self._unsaved.discard(live.id)
                self.saver.mark_changed(live)

    async def _fetch_terminal(self, live: LiveSession, *, has_room: bool) -> bool:
        """Read one terminal; return whether it need not be tried again. Raises: LiveUnavailable, KeeperGone."""
        was_left, live.is_left_to_keeper = live.is_left_to_keeper, not has_room
        reason = "there is no room"
        try:
            if has_room:
                await self.keeper.fetch_terminal(live, has_room=True)
                return True
        except TooManySessions as error:
            reason = error.message
        except NotRunning as error:  # its exit follows
            event(log, logging.WARNING, "terminal not fetched", session=live.id, error=error.message)
            return True
        except (LiveUnavailable, KeeperGone):
            raise
        except (OrbitError, UnsafeFolder, OSError) as error:
            live.not_fetched = _reason(error)
            event(log, logging.ERROR, "terminal not fetched", session=live.id, error=live.not_fetched)
            return False
        if not was_left:  # else it is logged already
            event(log, logging.ERROR, "terminal left to the keeper", session=live.id, error=reason)
        return False

    def _plan_fetch(self) -> None:
        """Try again later to fetch the terminals that are left."""
        if self._fetch_timer is not None:
            self._fetch_timer.cancel()
            self._fetch_timer = None
        if not any(_is_left(live) for live in self.registry):
            self._fetch_delay = FIRST_FETCH_SECS
        elif not self.keeper.is_closing:
            self._fetch_timer = asyncio.get_running_loop().call_later(
                self._fetch_delay, lambda: self._tasks.start(self.fetch_terminals())
            )
            self._fetch_delay = min(2 * self._fetch_delay, MAX_FETCH_SECS)

    @contextlib.asynccontextmanager
    async def without_program(self, session_id: str, *, unwanted: bool = False) -> AsyncIterator[LiveSession]:
        """Hold a session's lock while it has no program and no start is scheduled; end one that runs.

        Args:
            session_id: The session.
            unwanted: Its last screen need not be saved.

        Raises:
            RequestTimeout: It does not end.
            StorageError: Its exit could not be stored yet.
            LiveUnavailable: It is recorded as running, and the keeper does not answer.
        """
        session = self._manager.cached_session(session_id)
        if session is not None and session.live:
            await self.keeper.require_restored()
        marked: LiveSession | None = None
        try:
            while True:
                async with self.registry.locked(session_id) as live:
                    if not live.has_program:
                        self.endings.stop_reconnecting(live)
                        if self._may_run_unseen(live):
                            await self.keeper.kill(session_id)
                        yield live
                        return
                    if unwanted:
                        live.is_unwanted, marked = True, live
                # Without the lock, which `handle_exit` needs. Another task may start the session again before
                # this one gets the lock back: hence the loop.
                await self.endings.terminate(session_id)
        except BaseException:
            if marked is not None:  # the session stays, and so does what its program printed last
                marked.is_unwanted = False
                self._tasks.start(self.endings.save_stopped(session_id))
            raise

    async def delete(self, session_id: str, *, purge: bool) -> None:
        """Put a session into the trash, or delete it for good; its program is ended first.

        Raises:
            OrbitError: As `without_program`, `SessionManager.trash_session` and `delete_session` do.
        """
        purge = purge or not self._settings.keeps_deleted
        had_program = self.registry.running(session_id) is not None
        async with self.without_program(session_id, unwanted=purge) as live:
            await self._delete(live, purge=purge, was_ended=had_program)

    async def delete_workspace(self, workspace_id: str, *, delete_sessions: bool) -> None:
        """Delete a workspace, perhaps with its sessions, none of which has a program. Raises: WorkspaceNotFound."""
        purge = not self._settings.keeps_deleted
        await self._manager.delete_workspace(workspace_id, delete_sessions, purge=purge)
        if delete_sessions and purge:
            self._tasks.start(self.remove_purged())

    async def undelete(self, session_id: str) -> Session:
        """Take a session out of the trash. Raises: SessionNotFound, NameTaken."""
        async with self.registry.locked(session_id):
            session = await self._manager.undelete_session(session_id)
            self.files.in_trash.discard(session_id)
        if self.files.has_journal(session_id):  # its last screen could not be saved before
            self._tasks.start(self.endings.save_stopped(session_id))
        return session

    async def remove_ended(self, session_id: str) -> None:
        """Put a session into the trash whose program has ended, if its configuration says so."""
        async with self.registry.locked(session_id) as live:
            if live.is_attachable or live.not_restored or live.state is State.UNSTORED:
                return  # started again, or not done with
            with contextlib.suppress(SessionNotFound):
                session = await self._manager.get_session(session_id)
                if session.config.auto_remove and not session.live:
                    await self._delete(live, purge=not self._settings.keeps_deleted)
                    event(log, logging.INFO, "ended session deleted, as its configuration says", session=session_id)

    async def remove_purged(self) -> None:
        """Remove the files of sessions that are gone for good."""
        removed = []
        for session_id in await self._manager.list_purged():
            with self._one_of_many(session_id):
                async with self.registry.locked(session_id) as live:
                    try:
                        await self._manager.get_session(session_id)
                    except SessionNotFound:
                        if not live.has_program:
                            self.remove_files(live)
                            await self._history.remove(session_id)
                    except StorageError:  # a row that is damaged has its id
                        pass
                removed.append(session_id)
        if removed:
            await self._manager.forget_purged(removed)
            event(log, logging.INFO, "files of deleted sessions removed", sessions=len(removed))

    async def clean_up(self) -> None:
        """Do what an earlier daemon has not: delete sessions whose programs had ended, and files of deleted ones."""
        try:
            self.files.in_trash.update(await self._manager.list_deleted_ids())
            for session_id in await self._manager.list_ended_to_remove():
                with self._one_of_many(session_id):
                    await self.remove_ended(session_id)
            await self.remove_purged()
        except Exception as error:  # noqa: BLE001  # the next start tries again; other sessions are restored meanwhile
            event(log, logging.ERROR, "deleted sessions not cleaned up", error=_reason(error), exc=error)

    @contextlib.contextmanager
    def _one_of_many(self, session_id: str) -> Iterator[None]:
        """Log what is raised for one session, as by a row that is damaged; the others are cleaned up all the same."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # the next start tries again
            kind = type(error).__name__
            event(log, logging.ERROR, "deleted session not cleaned up", session=session_id, error=kind, exc=error)

    async def _delete(self, live: LiveSession, *, purge: bool, was_ended: bool = False) -> None:
        """Delete a session that has no program, under its lock: a start that waits for it finds none."""
        if purge:
            await self._manager.delete_session(live.id)
        else:
            await self.endings.save_for_trash(live, has_tried=was_ended)
            if await self._manager.trash_session(live.id):
                self.files.in_trash.add(live.id)
                live.not_restored = ""
                live.close()
                self.agents.remove(live.id)
                return
        self.remove_files(live)
        self._tasks.start(self.remove_purged())

    def remove_files(self, live: LiveSession) -> None:
        """Remove what a deleted session has outside of the store."""
        live.not_restored = ""
        if live.state is State.UNSTORED:
            live.exit = None
            live.move(State.ENDED)
        live.close()
        if not live.id.replace("-", "").isalnum():
            return  # what a damaged row shows as its id: no file was ever named so
        self.agents.remove(live.id)
        self.files.remove_journal(live.id, kept_aside=True)

    # Restoring

    async def connect_keeper(self) -> list[KeptProgram]:
        """Connect to the keeper of an earlier daemon, if there is one; return its programs. Raises: OrbitError."""
        programs = await self.keeper.connect_existing() or []
        self.files.private.update(program.id for program in programs if program.has_memory)
        if programs:
            await self._use_landing()
        self._unsaved_at_start = self.files.unsaved()
        return programs

    async def complete_landing(self) -> None:
        """Put output into its journal that an earlier daemon had read from a terminal, and not yet recorded."""
        landing = self._shared.landing
        if landing is None:
            return
        await self._complete(landing)
        # A daemon before may have used the file, beside a keeper that held no buffer.
        path = self._settings.landing_file
        if not landing.is_file and os.path.lexists(path):  # noqa: ASYNC240  # at the start, in a local folder
            try:
                file = Landing(Landing.create_file(path))
                await self._complete(file)
                file.close()
                os.unlink(path)
            except (OSError, UnsafeFile, ValueError) as error:
                event(log, logging.ERROR, "landing buffer not read", path=path, error=type(error).__name__, exc=error)

    async def _complete(self, landing: Landing) -> None:
        pending = landing.pending()
        if pending is not None:
            try:
                with self.registry.using(pending.session) as live:  # no lock: a start may hold it
                    # The screen of a private session is gone with its program.
                    if live.has_program or not await self.files.is_private(pending.session):
                        await live.open_files()
                        live.complete_landing(pending)
            except Exception as error:  # noqa: BLE001  # one session's; the others are restored all the same
                event(log, logging.ERROR, "output not recorded", session=pending.session, exc=error)
                await self.files.keep_landing(pending)
        landing.clear()

    def come_back(self, session_id: str, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a lost session again in the background, a few at a time; `require_restored` waits for it.

        Args:
            session_id: The session.
            start: Starts it, and raises nothing. It is not called once the daemon stops: the next one does so.
        """
        done = self._coming_back[session_id] = asyncio.get_running_loop().create_future()

        async def start_in_turn() -> None:
            try:
                async with self._turns:
                    if not self.closing.done():
                        await start()
            finally:
                del self._coming_back[session_id]
                done.set_result(None)

        self._tasks.start(start_in_turn())

    async def wait_for_comebacks(self, timeout_secs: float | None = None) -> None:
        """Return once every session that was to come back has been started, or could not be; or after the timeout."""
        if self._coming_back:
            await asyncio.wait(list(self._coming_back.values()), timeout=timeout_secs)

    async def require_restored(self, session_id: str) -> None:
        """Return once a session that ran under an earlier daemon is taken over or started again.

        Raises:
            LiveUnavailable: What the keeper has is not known, and will not be soon.
        """
        await self.keeper.require_restored()
        if (coming_back := self._coming_back.get(session_id)) is not None:
            await asyncio.wait([coming_back])

    async def recorded_cwd(self, session_id: str) -> bytes | None:
        """Return the newest folder in the journal of a session whose program is gone."""
        if session_id not in self._unsaved_at_start:
            return None
        async with self.registry.locked(session_id) as live:
            await live.open_files()
            return live.recorded_cwd

    def handle_exit(self, program: KeptProgram) -> None:
        """Handle the exit of a program in the background; while exits are held, afterwards."""
        if self._held_exits is not None:
            self._held_exits.append(program)
            return
        self._tasks.start(self._handle_exit(program))

    async def _handle_exit(self, program: KeptProgram) -> None:
        await self.endings.handle_exit(program)
        if any(_is_left(live) for live in self.registry):
            await self.fetch_terminals()

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
                self.handle_exit(program)

    def restore_failed(self, live: LiveSession, error: Exception) -> None:
        """Record why a session could not be restored."""
        live.not_restored = _reason(error)

    def _may_run_unseen(self, live: LiveSession) -> bool:
        """Return whether the keeper may have a program of a session that was not taken over."""
        session = self._manager.cached_session(live.id)
        all_unknown = self.keeper.is_unrestored and session is not None and session.live
        return all_unknown or bool(live.not_restored)

    async def save_all(self) -> int:
        """Save every screen that has changed; return how many. Failures are logged, and tried again."""
        return await self.saver.save_all_changed(list(self.registry))

    def warnings(self) -> list[str]:
        """Return the problems that last, as sentences for `status` and `doctor`."""
        warnings = []
        degraded = [live.degraded for live in self.registry if live.degraded is not None]
        if degraded:
            warnings.append(
                f"The output of {_sessions(len(degraded))} is not recorded: {degraded[0].strerror or degraded[0]} "
                f"({self._settings.journal_folder}). They go on; what they show is lost if the daemon is killed."
            )
        failing = [live.save.failure for live in self.registry if live.save.failure]
        if failing:
            warnings.append(f"The screens of {_sessions(len(failing))} could not be saved: {failing[0]}.")
        left = sum(live.is_left_to_keeper and live.has_program for live in self.registry)
        if left:
            warnings.append(
                f"The output of {_sessions(left)} is not read, since orbitd may not open more files: their "
                "programs run, and wait once their terminals are full. "
                f"End other sessions, or {RAISE_IT} and restart the daemon."
            )
        not_fetched = [live.not_fetched for live in self.registry if live.not_fetched and live.has_program]
        if not_fetched:
            warnings.append(
                f"The output of {_sessions(len(not_fetched))} is not read: {not_fetched[0]}. Their programs run, and "
                "wait once their terminals are full; they are read by themselves once the keeper answers."
            )
        warnings += self.room.warning()
        warnings += self.keeper.warnings()
        for live in self.registry:
            warnings += self._warnings_of(live)
        return warnings + self.files.warnings()

    @property
    def recorded_again(self) -> int:
        """How many programs run whose rows were gone when this daemon started."""
        return sum(live.was_recorded_again and live.has_program for live in self.registry)

    def _warnings_of(self, live: LiveSession) -> list[str]:
        session = self._manager.cached_session(live.id)
        if session is None:
            return []
        warnings = []
        if live.not_restored:
            warnings.append(
                f"Session {session.name or live.id} could not be restored: {live.not_restored}. Its journal is kept; "
                f"`orbitctl session start {live.id}` tries again."
            )
        elif live.not_opened and live.has_program:
            warnings.append(
                f"The output of session {session.name or live.id} is not read: {live.not_opened}. Its program waits; "
                "it goes on once that is put right."
            )
        if live.was_recorded_again and session.name is None:
            warnings.append(
                f"The record of session {live.id} is gone from the database and its program runs: it is listed "
                f"again, without name and configuration; `orbitctl session rename {live.id} NAME` names it."
            )
        if live.picture.status == "damaged":
            warnings.append(
                f"The screen of session {session.name or live.id} is damaged: its program goes on, and its screen "
                "begins anew once it has been quiet for a second."
            )
        return warnings

    def start_closing(self) -> None:
        """End every call that waits for a program."""
        if not self.closing.done():
            self.closing.set_result(None)
        for live in self.registry:
            live.stop_waiting()

    async def close(self) -> None:
        """Save every screen, close the terminals and disconnect from the keeper; the programs go on."""
        await self.keeper.stop_reaching()
        self._plan_fetch()  # no more
        for live in self.registry:
            self.reconnector.cancel(live)
            if live.state is State.RUNNING:
                live.record_cwd()
        # Exits that are being handled are stored first; what is not done in time is handled by the next
        # daemon, from the keeper.
        await self._tasks.finish(CLOSE_GRACE_SECS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_GRACE_SECS):
                await self.save_all()
        await self.saver.close()
        for live in self.registry:
            try:
                live.close()
            except Exception as error:  # noqa: BLE001  # one of many; its journal is read by the next daemon
                event(log, logging.ERROR, "session not closed", session=live.id, error=type(error).__name__, exc=error)
        self.keeper.close()
        await self.screens.close()
        self._close_landing()
        await self._tasks.cancel()

    def live_fields(self, session_id: str) -> Mapping[str, object]:
        """Return the fields of a session's running program, for events."""
        live, session = self.registry.running(session_id), self._manager.cached_session(session_id)
        if live is None or session is None:
            return {"live": False}
        found = live.live_fields(session)
        return {name: found[name] for name in _FIELDS_OF_PRIVATE} if is_private(session) else found

    async def update_status_from_clients(self, live: LiveSession) -> None:
        """Store a session's status: active with a client, else detached; a detached one is saved too.

        Each client that has come or left is recorded as an event.
        """
        async with self.registry.locked(live.id):
            # While this waited for the lock the program may have ended, and clients come or gone: the
            # status is decided here, so that the last of several updates stores the right one.
            clients = list(live.client_changes)
            live.client_changes.clear()
            if live.state is not State.RUNNING:
                if live.is_attachable:  # it waits for its next try to connect
                    await self._record_clients(live, None, clients)
                return
            wanted: SessionStatus = "active" if live.attachments else "detached"
            session = await self._manager.get_session(live.id)
            if session.status != wanted and not clients and live.attachments:  # they were there before the program
                clients = [client_change(live.attachments[-1], attached=True)]
            await self._record_clients(live, None if session.status == wanted else wanted, clients)
        if wanted == "detached":
            await self.saver.save_all_changed([live])

    async def _record_clients(
        self, live: LiveSession, status: SessionStatus | None, clients: Sequence[ClientChange]
    ) -> None:
        """Store clients that have come or left, with the status where that is another one by them."""
        try:
            if status is None:
                await self._manager.record_clients(live.id, clients)
            else:
                await self._manager.update_session_status(live.id, status, clients=clients)
        except StorageError as error:  # the clients can work all the same
            waiting = [*clients, *live.client_changes]  # with the next try; extendleft would give up the newest
            live.client_changes.clear()
            live.client_changes.extend(waiting)
            words = "clients not stored" if status is None else "status not stored"
            event(log, logging.ERROR, words, session=live.id, status=status, error=error.message)

    def _on_clients(self, live: LiveSession) -> None:
        self._tasks.start(self.update_status_from_clients(live))

    # Starting

    async def _reconnect(self, session_id: str) -> None:
        """Start a session that has lost its connection, unless its status has been changed meanwhile."""
        session = await self._manager.get_session(session_id)
        if session.status != "detached":
            raise NotRunning(f"Session {session_id} is {session.status}")
        live = self.registry.get(session_id)
        by = StartedBy() if live is None else live.started_by
        # Its own link for an agent: it leads to that of the client that attached last, which may be another by now.
        link = {b"SSH_AUTH_SOCK": os.fsencode(self.agents.path(session_id))}
        env = None if by.env is None else {**by.env, **link}
        size = last_size(session)
        await self.start(session_id, *size, env, umask=by.umask, limits=by.limits, reconnects=True)

    async def _stop_reconnecting(self, live: LiveSession) -> None:
        async with self.registry.locked(live.id):
            self.endings.stop_reconnecting(live)

    async def _spawn(self, live: LiveSession, session: Session, by: StartedBy, *, may_move: bool) -> None:
        """Have the keeper start the program, on the screen that the session has."""
        try:
            if live.is_private:
                await self._require_landing_in_memory()
            else:
                await live.open_files()
            recorded_cwd = live.recorded_cwd  # newer than the row's where it could not be saved
            if recorded_cwd is not None:
                text, companion = text_and_bytes(recorded_cwd)
                session = replace(session, cwd=text, cwd_bytes=companion)
            launch = await asyncio.to_thread(
                build_launch,
                session,
                client_env=by.env,
                socket_path=self._settings.daemon_socket,
                agent=self.agents.prepare(session.id, by.env),
                is_managed=self._settings.is_managed,
                may_move=may_move,
            )
            if (by.shell_integration or self._settings.shell_integration) == "auto":
                launch = await asyncio.to_thread(integrate, launch)
            # Of a private session as late as here: the keeper gives its memory back with its program only.
            await live.open_files()
            cols, rows = live.owner_size or last_size(session)
            request = SpawnRequest(
                id=session.id,
                file=launch.file,
                argv=launch.argv,
                env=launch.env,
                folders=launch.folders,
                cols=cols,
                rows=rows,
                umask=self._settings.program_umask if by.umask is None else by.umask,
                limits={**self._settings.program_limits, **by.limits},
            )
            spawned = await self._request_spawn(request, launch.hint)
            if spawned is None:
                await self._take_over_unknown(live, session)
                return
        except BaseException:
            self._undo_start(live)
            raise
        # No await until the session runs: output is read only after the divider, and no other task looks for
        # the session in between.
        try:
            when = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"
            live.print_divider(f"started again {when}{_moved(request, spawned)}")
            live.resize_screen(cols, rows)
        except BaseException:  # no memory, say
            os.close(spawned.master_fd)
            self._undo_start(live)
            await self.keeper.kill(session.id)
            raise
        live.move(State.RUNNING)
        if live.is_private:
            self._manager.forget_private_config(live.id)
        live.run(spawned.pid, spawned.cwd, last_folder(session) or spawned.cwd)
        live.use_terminal(spawned.master_fd)
        if live.attachments:
            self._tasks.start(self.update_status_from_clients(live))

    async def _request_spawn(self, request: SpawnRequest, hint: str) -> Spawned | None:
        """Have the keeper start a program; None if it has one of this session that was never taken over.

        Raises:
            SpawnFailed: It cannot be executed; if there is no such program, with `hint` unless that is empty.
        """
        # A spawn may take long: one that waits for a keeper that is stopped would look like it.
        await self.keeper.require_answer()
        client = await self.keeper.client()
        await self._use_landing()
        # Where nothing could be restored, an earlier daemon's output is still in it, and nothing else can be read.
        await self.complete_landing()
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

    async def _use_landing(self) -> None:
        """Read output into the buffer that the keeper holds, else into a file."""
        client = await self.keeper.client()
        if self._landing_keeper is client:
            return
        descriptor = await client.landing()
        if self._landing_keeper is client:  # by another start meanwhile
            if descriptor is not None:
                os.close(descriptor)
            return
        try:
            if descriptor is None:
                private_folder(os.path.dirname(self._settings.landing_file))
                descriptor = Landing.create_file(self._settings.landing_file)
            landing = Landing(descriptor)
        except (OSError, UnsafeFile, UnsafeFolder, ValueError) as error:
            if isinstance(error, OSError) and (full := too_many(error, "There is no buffer for its output")):
                raise full from error
            reason = error.strerror if isinstance(error, OSError) else error
            raise SpawnFailed(f"There is no buffer for its output: {reason}") from error
        # Nothing is in the one before, of a keeper that is gone: it is cleared in the turn in which it is read into.
        self._close_landing()
        self._shared.landing, self._landing_keeper = landing, client

    async def _require_landing_in_memory(self) -> None:
        """Refuse a private session whose output would be in a file before it is in its journal."""
        await self.keeper.require_answer()
        await self._use_landing()
        assert self._shared.landing is not None
        if self._shared.landing.is_file:
            raise no_memory("output is read into a file here, as the keeper has no memory for it (memfd_create)")

    def _close_landing(self) -> None:
        if self._shared.landing is not None:
            self._shared.landing.close()
            self._shared.landing = None

    async def _take_over_unknown(self, live: LiveSession, session: Session) -> None:
        """Take over a program that the keeper has and this daemon has not, as after a take-over that failed."""
        client = await self.keeper.client()
        program = next(each for each in await client.programs() if each.id == session.id)
        self.take_over(live, session, program)
        await self.keeper.fetch_terminal(live, has_room=True)
        if program.ended_at is not None:
            self.handle_exit(program)

    def _undo_start(self, live: LiveSession) -> None:
        """Close the files of a program that was not started, unless clients wait for another try."""
        if not live.reconnects:
            is_empty = live.is_journal_empty
            live.close_files()
            if is_empty:  # made for this start; one with output of an earlier program stays
                self.files.remove_journal(live.id)

    async def _handle_lost_connection(self, kept: list[KeptProgram] | None) -> None:
        """Go on with the programs that the keeper still has; they are gone where it is."""
        if kept is None:
            event(log, logging.ERROR, "programs gone with the keeper", sessions=self.registry.running_count)
            self.endings.handle_keeper_gone()
            return
        event(log, logging.WARNING, "keeper connected again", programs=len(kept))
        self.endings.handle_keeper_gone(keep={program.id for program in kept})
        for program in kept:
            if program.ended_at is not None:
                self.handle_exit(program)
            elif self.registry.running(program.id) is None:
                await self._end_unseen(program.id)
        if any(live.state is State.RUNNING and _lacks_terminal(live) for live in self.registry):
            self._fetch_delay = FIRST_FETCH_SECS
            self._tasks.start(self.fetch_terminals())

    async def _end_unseen(self, session_id: str) -> None:
        """End the program of a start that failed as the connection was lost: nobody has its terminal."""
        async with self.registry.locked(session_id) as live:  # the start has failed once this has the lock
            try:
                # One that is recorded as running, or could not be taken over, is left for another try.
                is_wanted = (await self._manager.get_session(session_id)).live or bool(live.not_restored)
            except SessionNotFound:  # deleted; one that could not be recorded, or is damaged, has no row either
                is_wanted = bool(live.not_restored) or self._manager.has_damaged_sessions()
            if not is_wanted and not live.has_program:
                event(log, logging.WARNING, "program of a failed start ended", session=session_id)
                await self.keeper.kill(session_id)


_FIELDS_OF_PRIVATE = ("live", "pid", "cols", "rows", "clients", "screen", "last_active")
"""What events of a private session have of its program: nothing that it has said or shown."""


def _is_lost(session: Session) -> bool:
    """Return whether a session's last program has not ended by itself nor by a request.

    One that is active and not live is as it was recorded, or imported with a size: it has never run.
    """
    has_run = session.cols is not None and (session.live or session.status == "detached")
    return has_run and session.exit_code is None and session.exit_signal is None


def _to_run(before: Session, started: Session, private: SessionConfig | None) -> Session:
    """Return a session with what is to be run of it.

    Args:
        before: As it was.
        started: As it is stored now.
        private: Of a private session its configuration, which is not stored.
    """
    if private is not None:
        return replace(started, config=private)
    resume = started.config.resume
    if resume is None or not _is_lost(before):
        return started
    # The command for coming back in the place of its own.
    return replace(started, config=replace(started.config, command=resume, command_bytes=UNSET))


def _lacks_terminal(live: LiveSession) -> bool:
    return not live.has_terminal and not live.is_drained


def _is_left(live: LiveSession) -> bool:
    """Return whether the terminal of a program that runs could not be fetched."""
    return live.state is State.RUNNING and (live.is_left_to_keeper or bool(live.not_fetched))


def _moved(request: SpawnRequest, spawned: Spawned) -> str:
    """Return the words for a program that could not be started where it was."""
    if not request.folders or spawned.cwd == request.folders[0]:
        return ""
    event(log, logging.WARNING, "program started in another folder, its own cannot be entered", session=request.id)
    return (
        f" in {visible(to_text(spawned.cwd))}, not in {visible(to_text(request.folders[0]))}, which cannot be entered"
    )


def _sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count} sessions"


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, OrbitError) else type(error).__name__
