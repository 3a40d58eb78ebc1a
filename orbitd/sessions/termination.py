"""How programs end: by themselves, by a request, or with their keeper.

An exit is stored before the clients are notified of it, and before the keeper forgets it.
Where the store fails, the clients are notified all the same; the exit stays pending, the
journal and the keeper still have it, and storing it is retried.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from msgspec import Struct

from orbit_protocol.errors import NotRunning, RequestTimeout, SessionNotFound, StorageError
from orbit_protocol.results import Exit
from orbit_protocol.types import Session, SessionStatus
from orbitd.background_tasks import BackgroundTasks
from orbitd.keeper.client import KeeperGone, KeptProgram
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.sessions.command_line import last_folder
from orbitd.sessions.keeper_connection import KeeperConnection
from orbitd.sessions.registry import Registry
from orbitd.sessions.saver import Saver
from orbitd.sessions.screen_restore import SavedScreens
from orbitd.sessions.session import LiveSession
from orbitd.sessions.ssh_agent import AgentLinks
from orbitd.sessions.ssh_reconnect import CONNECTION_LOST, Reconnector

log = logging.getLogger("orbitd.sessions")

TERMINATE_GRACE_SECS = 5.0


class ProgramExit(Struct, frozen=True, kw_only=True):
    """What is to be stored about a program that has ended.

    Attributes:
        status: The session's status from now on.
        in_keeper: The keeper has the exit too, and waits for its acknowledgement.
    """

    session_id: str
    status: SessionStatus
    exit_code: int | None = None
    exit_signal: int | None = None
    in_keeper: bool = True


class Exits:
    """Ends programs, and stores how they have ended.

    Args:
        manager: The store.
        saver: Saves screens.
        screens: Has the journals.
        registry: The live sessions.
        keeper: Signals and forgets programs.
        agents: The links to ssh agents.
        reconnector: Starts ssh again that has lost its connection.
        tasks: Runs retries in the background.
    """

    def __init__(
        self,
        manager: SessionManager,
        saver: Saver,
        screens: SavedScreens,
        registry: Registry,
        keeper: KeeperConnection,
        agents: AgentLinks,
        reconnector: Reconnector,
        tasks: BackgroundTasks,
    ) -> None:
        self._manager = manager
        self._saver = saver
        self._screens = screens
        self._registry = registry
        self._keeper = keeper
        self._agents = agents
        self._reconnector = reconnector
        self._tasks = tasks
        self._terminating: set[str] = set()
        self._pending: dict[str, ProgramExit] = {}

    async def handle_exit(self, program: KeptProgram) -> None:
        """Store how a program ended, then have the keeper forget it."""
        # A start of the session holds its lock until the session is registered. So the exit of a program
        # that ends at once is handled after its start, not before it.
        async with self._registry.lock(program.id):
            live = self._registry.running.get(program.id)
            program_exit = ProgramExit(
                session_id=program.id,
                status=await self._status_after(program),
                exit_code=program.exit_code,
                exit_signal=program.exit_signal,
            )
            if live is not None:
                await self._end_program(live, program_exit)
            elif await self._is_recorded_as_running(program.id):
                # It could not be taken over: its output is in the journal, and what came later is lost.
                self._pending[program.id] = program_exit
                await self._try_to_store(program.id)
            else:
                await self._keeper.release(program.id)

    async def terminate(self, session_id: str) -> None:
        """Send SIGHUP to a program's process group, and SIGKILL if it has not ended after `TERMINATE_GRACE_SECS`.

        Raises:
            SessionNotFound, NotRunning: It does not run.
            RequestTimeout: It has not ended after SIGKILL either.
            StorageError: It has ended, but that could not be stored yet.
        """
        live = await self._registry.require_running(session_id)
        self._terminating.add(session_id)
        # SIGCONT: a stopped process handles no other signal but SIGKILL (signal(7)).
        for numbers in ((signal.SIGHUP, signal.SIGCONT), (signal.SIGKILL,)):
            for number in numbers:
                with contextlib.suppress(NotRunning):  # it has just ended by itself
                    await self.signal(session_id, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINATE_GRACE_SECS):
                    # shield: the timeout must not cancel the future, which others wait for too.
                    await asyncio.shield(live.exited)
                # `handle_exit` sets the future before it releases the lock. With the lock it is known
                # whether the exit was stored.
                async with self._registry.lock(session_id):
                    await self.store_pending_exit(session_id)
                return
        raise RequestTimeout(f"The program of session {session_id} does not end", hint="Try again later.")

    async def signal(self, session_id: str, number: int) -> None:
        """Send a signal to a program's process group. Raises: SessionNotFound, NotRunning."""
        await self._registry.require_running(session_id)
        client = await self._keeper.client()
        await client.signal(session_id, number)

    def handle_keeper_gone(self, error: KeeperGone) -> None:
        """Mark all sessions as detached: with the keeper every master was closed, and every program hung up."""
        event(log, logging.ERROR, "keeper gone", sessions=len(self._registry.running), superseded=error.superseded)
        if error.superseded:
            return  # the programs go on under another daemon, which has taken the database too
        for live in list(self._registry.running.values()):
            self._tasks.start(self._handle_lost_program(live))

    def stop_reconnecting(self, session_id: str) -> None:
        """Cancel the next start of a session; its clients are sent the exit of its last program."""
        self._reconnector.forget(session_id)
        live = self._registry.reconnecting.get(session_id)
        if live is not None:
            self._registry.remove(live)
            live.end(CONNECTION_LOST, None)

    def pending_exit(self, session_id: str) -> Exit | None:
        """Return an exit that is not stored yet."""
        pending = self._pending.get(session_id)
        return None if pending is None else Exit(exit_code=pending.exit_code, exit_signal=pending.exit_signal)

    async def store_pending_exit(self, session_id: str) -> None:
        """Store a session's exit that is still pending, under the session's lock. Raises: StorageError."""
        pending = self._pending.get(session_id)
        if pending is None:
            return
        try:
            session = await self._manager.get_session(session_id)
            is_saved = await self._save_from_journal(session)
            await self._store(pending)
            if is_saved:
                self._screens.remove_journal(session_id)
        except SessionNotFound:
            self._screens.remove_journal(session_id, kept_aside=True)
        self._pending.pop(session_id, None)
        await self._release(pending)

    async def _save_from_journal(self, session: Session) -> bool:
        """Save the last screen of a session whose live screen is closed; return whether the snapshot has it now.

        A screen that cannot be drawn stays in its journal, and does not keep the exit from being stored.

        Raises:
            SessionNotFound: It was deleted meanwhile.
            StorageError: It cannot be stored now.
        """
        try:
            screen = await self._screens.restore(session)
            try:
                await self._saver.save_stopped(session.id, screen, last_folder(session))
            finally:
                screen.close()
        except (SessionNotFound, StorageError):
            raise
        except Exception as error:  # noqa: BLE001  # see above
            kind = type(error).__name__
            event(log, logging.ERROR, "last screen not saved", session=session.id, error=kind, exc=error)
            return False
        return True

    async def _is_recorded_as_running(self, session_id: str) -> bool:
        with contextlib.suppress(SessionNotFound):
            session = await self._manager.get_session(session_id)
            return session.live and session.status != "terminated"
        return False

    async def _handle_lost_program(self, live: LiveSession) -> None:
        async with self._registry.lock(live.id):
            if self._registry.running.get(live.id) is live:
                await self._end_program(live, ProgramExit(session_id=live.id, status="detached", in_keeper=False))

    async def _status_after(self, program: KeptProgram) -> SessionStatus:
        # A remote command that exits with 255 looks like a lost connection (ssh(1), EXIT STATUS). A
        # session that is being terminated is not detached, whatever its ssh exits with when it is hung up.
        if program.id not in self._terminating and program.exit_code == CONNECTION_LOST:
            with contextlib.suppress(SessionNotFound):
                session = await self._manager.get_session(program.id)
                if session.session_type == "ssh":
                    return "detached"
        return "terminated"

    async def _end_program(self, live: LiveSession, program_exit: ProgramExit) -> None:
        """Drain the terminal, save, store the exit, notify the clients, release the program; under the lock.

        Attaching does not take the lock. A client that attaches while this waits for the store is ended with the
        others: it is sent the exit, or its request fails if that is not answered yet.
        """
        # The process has ended, but its last output may still be in the terminal's buffer.
        live.drain()
        retry_secs, is_saved = None, True
        try:
            try:
                await self._saver.save(live)
            except (SessionNotFound, StorageError):
                raise
            except Exception:  # noqa: BLE001  # logged by the saver: the journal keeps the screen, the exit is stored
                is_saved = False
            session = await self._store(program_exit)
            if program_exit.status == "detached":
                retry_secs = self._reconnector.schedule(session)
        except SessionNotFound:
            pass  # deleted while its program ran
        except Exception as error:  # noqa: BLE001  # whatever it is, the clients are sent the exit
            event(log, logging.ERROR, "exit not stored", session=live.id, error=type(error).__name__, exc=error)
            self._pending[live.id] = program_exit
            self._retry_later(live.id)
        self._terminating.discard(live.id)
        # No await between the registry and the session: another task finds the session either with its
        # program, or ended and unregistered.
        if retry_secs is not None:
            self._registry.set_reconnecting(live)
            live.set_reconnecting(program_exit.exit_code, program_exit.exit_signal)
            live.print_divider(f"connection lost, trying again in {retry_secs:.0f} s")
        else:
            self._registry.remove(live)
            live.end(program_exit.exit_code, program_exit.exit_signal)
        if live.id in self._pending:
            return  # journal and keeper still have it
        if retry_secs is None and is_saved:
            self._screens.remove_journal(live.id)
        await self._release(program_exit)

    async def _store(self, program_exit: ProgramExit) -> Session:
        return await self._manager.end_program(
            program_exit.session_id, program_exit.status, program_exit.exit_code, program_exit.exit_signal
        )

    async def _release(self, program_exit: ProgramExit) -> None:
        if program_exit.status == "terminated":
            self._agents.remove(program_exit.session_id)
        if program_exit.in_keeper:
            await self._keeper.release(program_exit.session_id)

    def _retry_later(self, session_id: str) -> None:
        asyncio.get_running_loop().call_later(
            self._saver.retry_secs, lambda: self._tasks.start(self._retry_store(session_id))
        )

    async def _retry_store(self, session_id: str) -> None:
        async with self._registry.lock(session_id):
            await self._try_to_store(session_id)

    async def _try_to_store(self, session_id: str) -> None:
        """Store a pending exit, or try again later; under the session's lock."""
        try:
            await self.store_pending_exit(session_id)
        except Exception as error:  # noqa: BLE001  # the keeper has the exit too, for the next daemon
            level = logging.DEBUG if isinstance(error, StorageError) else logging.ERROR
            event(log, level, "exit not stored yet", session=session_id, error=type(error).__name__, exc=error)
            self._retry_later(session_id)
