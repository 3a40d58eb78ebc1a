"""How programs end: by themselves, when asked to, or with their keeper.

An end is stored before the clients hear of it, and before the keeper forgets it. Where the
store does not take it, the clients hear of it all the same; the journal and the keeper
remember, and it is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from msgspec import Struct

from orbit_protocol.errors import NotRunning, OrbitError, RequestTimeout, SessionNotFound
from orbit_protocol.results import Exit
from orbit_protocol.types import Session, SessionStatus
from orbitd.keeper.client import KeeperGone, KeptProgram
from orbitd.live.agent import AgentLinks
from orbitd.live.background_tasks import BackgroundTasks
from orbitd.live.keeper_connection import KeeperConnection
from orbitd.live.reconnecting import CONNECTION_LOST, Reconnector
from orbitd.live.registry import Registry
from orbitd.live.saver import Saver
from orbitd.live.screens import Screens
from orbitd.live.session import LiveSession
from orbitd.logs import event
from orbitd.manager import SessionManager

log = logging.getLogger("orbitd.live")

TERMINATE_GRACE_SECS = 5.0


class End(Struct, frozen=True, kw_only=True):
    """What there is to store about a program that has ended; `kept` says whether the keeper waits for that."""

    session_id: str
    status: SessionStatus
    exit_code: int | None = None
    exit_signal: int | None = None
    kept: bool = True


class Endings:
    """Ends programs, and stores how they have ended.

    Args:
        manager: The store.
        saver: Saves screens.
        screens: Has the journals.
        registry: Which programs run.
        keeping: The keeper.
        agents: The links to ssh agents.
        reconnector: Starts ssh again that has lost its connection.
        held: Runs what nobody awaits.
    """

    def __init__(
        self,
        manager: SessionManager,
        saver: Saver,
        screens: Screens,
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
        self._unstored: dict[str, End] = {}

    async def finish(self, program: KeptProgram) -> None:
        """Store how a program ended, then let the keeper forget it."""
        async with self._registry.lock(program.id):
            live = self._registry.running.get(program.id)
            if live is None:
                await self._keeper.release(program.id)
                return
            status = await self._status_after(program)
            await self._close(
                live,
                End(
                    session_id=live.id,
                    status=status,
                    exit_code=program.exit_code,
                    exit_signal=program.exit_signal,
                ),
            )

    async def terminate(self, session_id: str) -> None:
        """Hang a program up, and kill it if it does not heed that within `TERMINATE_GRACE_SECS`.

        Raises:
            SessionNotFound, NotRunning: It does not run.
            RequestTimeout: Not even the kill has ended it yet.
            StorageError: It has ended, but that could not be stored yet.
        """
        live = await self._registry.require(session_id)
        self._terminating.add(session_id)
        for numbers in ((signal.SIGHUP, signal.SIGCONT), (signal.SIGKILL,)):  # who is stopped hears nothing else
            for number in numbers:
                with contextlib.suppress(NotRunning):  # it has just ended by itself
                    await self.signal(session_id, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINATE_GRACE_SECS):
                    await asyncio.shield(live.ended)
                async with self._registry.lock(session_id):
                    await self.settle(session_id)
                return
        raise RequestTimeout(f"The program of session {session_id} does not end", hint="Try again later.")

    async def signal(self, session_id: str, number: int) -> None:
        """Send a signal to a program's process group. Raises: SessionNotFound, NotRunning."""
        await self._registry.require(session_id)
        client = await self._keeper.client()
        await client.signal(session_id, number)

    def lose_all(self, error: KeeperGone) -> None:
        """The keeper was killed, and the kernel has hung up on every program: the sessions stay, detached."""
        event(log, logging.ERROR, "keeper gone", sessions=len(self._registry.running), superseded=error.superseded)
        if error.superseded:
            return  # the programs go on under another daemon, which has taken the database too
        for live in list(self._registry.running.values()):
            self._tasks.start(self._lose(live))

    def stop_resting(self, session_id: str) -> None:
        """Start a session no more by itself; whoever waits at it hears the end of its last program."""
        self._reconnector.forget(session_id)
        live = self._registry.resting.get(session_id)
        if live is not None:
            self._registry.remove(live)
            live.end(CONNECTION_LOST, None)

    def end_of(self, session_id: str) -> Exit | None:
        """Return an end that is not stored yet."""
        end = self._unstored.get(session_id)
        return None if end is None else Exit(exit_code=end.exit_code, exit_signal=end.exit_signal)

    async def settle(self, session_id: str) -> None:
        """Store what is not stored yet of a session's last end; under its lock. Raises: StorageError."""
        end = self._unstored.get(session_id)
        if end is None:
            return
        try:
            session = await self._manager.get_session(session_id)
            screen = await self._screens.open(session)
            try:
                await self._saver.save_at_rest(session_id, screen, session.cwd)
            finally:
                screen.close()
            await self._store(end)
            self._screens.remove(session_id)
        except SessionNotFound:
            self._screens.remove(session_id)
        self._unstored.pop(session_id, None)
        await self._release(end)

    async def _lose(self, live: LiveSession) -> None:
        async with self._registry.lock(live.id):
            if self._registry.running.get(live.id) is live:
                await self._close(live, End(session_id=live.id, status="detached", kept=False))

    async def _status_after(self, program: KeptProgram) -> SessionStatus:
        if program.id not in self._terminating and program.exit_code == CONNECTION_LOST:
            with contextlib.suppress(SessionNotFound):
                session = await self._manager.get_session(program.id)
                if session.session_type == "ssh":
                    return "detached"
        return "terminated"

    async def _close(self, live: LiveSession, end: End) -> None:
        """Take the last output, save, store the end, tell the clients, let go."""
        live.take_the_rest()
        try:
            await self._saver.save(live)
            session = await self._store(end)
            pause = self._reconnector.lost(session) if end.status == "detached" else None
        except SessionNotFound:
            session, pause = None, None
        except (OrbitError, OSError) as error:
            event(log, logging.ERROR, "end not stored", session=live.id, error=type(error).__name__, exc=error)
            self._unstored[live.id] = end
            session, pause = None, None
            self._try_later(live.id)
        self._terminating.discard(live.id)
        if pause is not None:
            self._rest(live, end, pause)
        else:
            self._registry.remove(live)
            live.end(end.exit_code, end.exit_signal)
        if live.id in self._unstored:
            return
        if session is None or pause is None:
            self._screens.remove(live.id)
        await self._release(end)

    def _rest(self, live: LiveSession, end: End, pause: float) -> None:
        self._registry.rest(live)
        live.rest(end.exit_code, end.exit_signal)
        live.divide(f"connection lost, trying again in {pause:.0f} s")

    async def _store(self, end: End) -> Session:
        return await self._manager.end_program(end.session_id, end.status, end.exit_code, end.exit_signal)

    async def _release(self, end: End) -> None:
        if end.status == "terminated":
            self._agents.remove(end.session_id)
        if end.kept:
            await self._keeper.release(end.session_id)

    def _try_later(self, session_id: str) -> None:
        asyncio.get_running_loop().call_later(
            self._saver.retry_secs, lambda: self._tasks.start(self._settle_late(session_id))
        )

    async def _settle_late(self, session_id: str) -> None:
        async with self._registry.lock(session_id):
            try:
                await self.settle(session_id)
            except (OrbitError, OSError):
                self._try_later(session_id)
