"""How programs end: by themselves, by a request, or with their keeper.

An exit is stored before the clients are notified of it, and before the keeper forgets it.
Where the store fails, the clients are notified all the same; the session is UNSTORED then, the
journal and the keeper still have its exit, and storing it is retried. A picture that cannot be
had in time stays in the journal, and keeps no exit from being stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine, Set
from typing import Any

from orbit_protocol.errors import InternalError, NotRunning, RequestTimeout, SessionNotFound, StorageError
from orbit_protocol.types import Session, SessionStatus
from orbitd.background_tasks import BackgroundTasks
from orbitd.keeper.client import KeptProgram
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.sessions.files import SessionFiles, is_private
from orbitd.sessions.keeper_connection import KeeperConnection
from orbitd.sessions.reconnecting import CONNECTION_LOST, Reconnector
from orbitd.sessions.registry import Registry
from orbitd.sessions.saver import Saver
from orbitd.sessions.session import LAST_LOOK_SECS, LiveSession, ProgramExit, State
from orbitd.sessions.ssh_agent import AgentLinks
from orbitd.store.sessions import EndReason

log = logging.getLogger("orbitd.sessions")

TERMINATE_GRACE_SECS = 5.0
MAX_SAVE_RETRY_SECS = 600.0
LAST_SAVE_SECS = 5.0
"""How long the exit of a program waits for its last screen to be saved; later it is saved in the background."""
DRAINED_AT_ONCE = 4
"""How many programs that have ended take one of the last descriptors at the same time, to be read to their end."""


class Endings:
    """Ends programs, and stores how they have ended.

    Args:
        manager: The store.
        saver: Saves screens.
        files: Has the journals.
        registry: The sessions.
        keeper: Signals and forgets programs.
        agents: The links to ssh agents.
        reconnector: Starts ssh again that has lost its connection.
        tasks: Runs retries in the background.
        remove_ended: Deletes a session whose program has ended, if it is to be.
    """

    def __init__(
        self,
        manager: SessionManager,
        saver: Saver,
        files: SessionFiles,
        registry: Registry,
        keeper: KeeperConnection,
        agents: AgentLinks,
        reconnector: Reconnector,
        tasks: BackgroundTasks,
        remove_ended: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        self._manager = manager
        self._saver = saver
        self._files = files
        self._registry = registry
        self._keeper = keeper
        self._agents = agents
        self._reconnector = reconnector
        self._tasks = tasks
        self._remove_ended = remove_ended
        self._draining = asyncio.Semaphore(DRAINED_AT_ONCE)

    async def handle_exit(self, program: KeptProgram) -> None:
        """Store how a program ended, then have the keeper forget it."""
        # A start of the session holds its lock until its program runs. So the exit of a program
        # that ends at once is handled after its start, not before it.
        async with self._registry.locked(program.id) as live:
            status = await self._status_after(live, program)
            reason: EndReason | None = "terminated" if live.is_terminating else None
            program_exit = ProgramExit(
                status=status,
                exit_code=program.exit_code,
                exit_signal=program.exit_signal,
                reason="connection_lost" if status == "detached" else reason,
            )
            if live.state is State.RUNNING:
                await self._end_program(live, program_exit)
            elif live.state is State.RECORDED and await self._is_recorded_as_running(program.id):
                # It could not be taken over: its output is in the journal, and what came later is lost.
                live.exit = program_exit
                live.move(State.UNSTORED)
                await self._try_to_store(live)
            elif live.state is not State.UNSTORED:
                await self._keeper.release(program.id)

    async def terminate(self, session_id: str) -> None:
        """Hang a program up, with what is in its terminal's foreground; kill both after `TERMINATE_GRACE_SECS`.

        Raises:
            SessionNotFound, NotRunning: It does not run.
            RequestTimeout: It has not ended after SIGKILL either.
            StorageError: It has ended, but that could not be stored yet.
            LiveUnavailable: The keeper does not answer, and nothing was sent.
        """
        live = await self._registry.require_running(session_id)
        live.is_terminating, exited = True, live.exited
        try:
            await self._keeper.require_answer()
        except BaseException:  # nothing was sent
            live.is_terminating = False
            raise
        # SIGCONT: a stopped process handles no other signal but SIGKILL (signal(7)).
        for numbers in ((signal.SIGHUP, signal.SIGCONT), (signal.SIGKILL,)):
            for number in () if exited.done() else numbers:
                with contextlib.suppress(NotRunning):  # it has just ended by itself
                    await self._signal_all(live, number)
            # shield: the timeout must not cancel the future, which others wait for too. An exit that is
            # being handled is waited for below, and not answered by a second signal.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINATE_GRACE_SECS):
                    await asyncio.shield(exited)
            if exited.done() or live.state is State.ENDING:
                # `handle_exit` holds the lock. With the lock it is known whether the exit was stored.
                async with self._registry.locked(session_id) as ended:
                    await self.store_pending_exit(ended)
                return
        raise RequestTimeout(f"The program of session {session_id} does not end", hint="Try again later.")

    async def signal(self, session_id: str, number: int) -> None:
        """Send a signal to the process group in the foreground of a session's terminal, as Ctrl-C does.

        Where there is none, or it has just ended, the signal is for the program's own group.

        Raises:
            SessionNotFound, NotRunning, LiveUnavailable: There is no program, or it cannot be reached.
            InternalError: What is in the foreground belongs to another user, as under sudo.
        """
        await self._registry.require_running(session_id)
        # A request that has been sent cannot be taken back: a keeper that is stopped would carry it out when it goes
        # on, long after the error that was answered here.
        await self._keeper.require_answer()
        client = await self._keeper.client()
        try:
            await client.signal(session_id, number, "foreground")
        except NotRunning:
            await client.signal(session_id, number)

    async def _signal_all(self, live: LiveSession, number: int) -> None:
        """Send a signal to a program's process group, and to that in the foreground. Raises: NotRunning."""
        await self._keeper.require_answer()
        client = await self._keeper.client()
        if live.foreground_group not in (None, live.pid):  # else the program would get it twice
            # Another user's under sudo, or gone: it is hung up by the kernel when the program ends.
            with contextlib.suppress(NotRunning, InternalError):
                await client.signal(live.id, number, "foreground")
        await client.signal(live.id, number)

    def handle_keeper_gone(self, keep: Set[str] = frozenset()) -> None:
        """Mark sessions as detached: with the keeper every master was closed, and every program hung up.

        Args:
            keep: Sessions whose programs there still are.
        """
        for live in self._registry:
            if live.state is State.RUNNING and live.id not in keep:
                self._tasks.start(self._handle_lost_program(live))

    def stop_reconnecting(self, live: LiveSession) -> None:
        """Cancel the next start of a session; its clients are sent the exit of its last program."""
        self._reconnector.cancel(live)
        if live.state is State.RECONNECTING:
            live.move(State.ENDED)
            live.end(CONNECTION_LOST, None, None)

    async def store_pending_exit(self, live: LiveSession) -> None:
        """Store a session's exit that is still pending, under the session's lock. Raises: StorageError."""
        pending = live.exit
        if live.state is not State.UNSTORED or pending is None:
            return
        is_saved = True
        try:
            is_saved = await self._save_last_screen(live)
            await self._store(live, pending)
        except SessionNotFound:
            self._files.remove_journal(live.id, kept_aside=True)
        live.exit = None
        live.move(State.ENDED)
        self._finish_journal(live, is_saved=is_saved)
        await self._release(live, pending)

    async def save_for_trash(self, live: LiveSession, *, has_tried: bool) -> None:
        """Save all that is left of a session's program before it is deleted, under its lock.

        A screen that cannot be saved now stays in the journal, which waits with the session.

        Args:
            live: The session.
            has_tried: Its program has just been ended: if its journal is still there, its screen could not be saved.

        Raises:
            StorageError: How its program has ended cannot be stored.
        """
        await self.store_pending_exit(live)
        if has_tried or live.not_restored or not self._files.has_journal(live.id):
            return
        with contextlib.suppress(SessionNotFound, StorageError):  # logged by the saver
            if self._files.is_journal_empty(live.id) or await self._save_last_screen(live):
                live.close_journal()
                self._files.remove_journal(live.id)

    async def save_stopped(self, session_id: str, retry_secs: float | None = None) -> None:
        """Save the last screen of a session whose program is gone, and remove its journal.

        What cannot be saved stays in the journal, and is tried again with exponential back-off.

        Args:
            session_id: The session.
            retry_secs: When it is tried again; as the saver does if None.
        """
        async with self._registry.locked(session_id) as live:
            if live.is_attachable or live.not_restored or live.state is State.UNSTORED:
                return  # started again: it is saved as any other; or its journal is for a start or an exit to come
            if not self._files.has_journal(session_id) or session_id in self._files.in_trash:
                return
            is_saved = False
            with contextlib.suppress(StorageError):  # logged by the saver
                try:
                    is_saved = await self._save_last_screen(live)
                except SessionNotFound:
                    event(log, logging.WARNING, "journal without a session", session=session_id)
                    return
            self._finish_journal(live, is_saved=is_saved, retry_secs=retry_secs)
            if is_saved:
                event(log, logging.INFO, "last screen saved", session=session_id)

    async def _save_last_screen(self, live: LiveSession, program_exit: ProgramExit | None = None) -> bool:
        """Save the screen of a session whose program has ended; return whether its journal is of no use any more.

        A screen that cannot be drawn stays in its journal, and does not keep the exit from being stored.

        Args:
            live: The session.
            program_exit: How the program has ended if its terminal is still there: what is in it is read first.

        Raises:
            SessionNotFound: It was deleted meanwhile.
            StorageError: It cannot be stored now.
        """
        keeps_screen = not is_private(await self._manager.get_session(live.id))
        if not keeps_screen and program_exit is None:
            return True  # there is nothing to save, and no memory of it in the keeper
        # Of those that had no room for their terminal many may end at once: then a few at a time take some of the
        # last descriptors.
        turns = self._draining if live.is_left_to_keeper else contextlib.nullcontext()
        try:
            async with turns:
                await live.open_files()
                if program_exit is not None:
                    # The process has ended, but its last output may still be in the terminal's buffer.
                    if program_exit.in_keeper:
                        await self._keeper.fetch_terminal(live, has_room=True)
                    live.drain()
                    if live.is_unwanted:
                        return False
                if keeps_screen:
                    return await self._saver.save(live, limit_secs=LAST_SAVE_SECS)
                async with asyncio.timeout(LAST_SAVE_SECS):  # drawn while its memory is there
                    await live.picture.count(live.position)
        except (SessionNotFound, StorageError):
            raise
        except Exception as error:  # noqa: BLE001  # see above
            kind = type(error).__name__
            event(log, logging.ERROR, "last screen not saved", session=live.id, error=kind, exc=error)
            return not keeps_screen
        return True

    def _finish_journal(self, live: LiveSession, *, is_saved: bool, retry_secs: float | None = None) -> None:
        """Close the journal of a session that has ended, and remove it if its screen is saved; else save that later."""
        live.close_journal()
        if is_saved:
            self._files.remove_journal(live.id)
            return
        delay = self._saver.retry_secs if retry_secs is None else retry_secs
        again = min(2 * delay, MAX_SAVE_RETRY_SECS)
        asyncio.get_running_loop().call_later(delay, lambda: self._tasks.start(self.save_stopped(live.id, again)))

    async def _is_recorded_as_running(self, session_id: str) -> bool:
        with contextlib.suppress(SessionNotFound):
            session = await self._manager.get_session(session_id)
            return session.live and session.status != "terminated"
        return False

    async def _handle_lost_program(self, live: LiveSession) -> None:
        async with self._registry.locked(live.id) as now:
            if now is live and live.state is State.RUNNING:
                await self._end_program(live, ProgramExit(status="detached", in_keeper=False, reason="program_lost"))

    async def _status_after(self, live: LiveSession, program: KeptProgram) -> SessionStatus:
        # A remote command that exits with 255 looks like a lost connection (ssh(1), EXIT STATUS). A
        # session that is being terminated is not detached, whatever its ssh exits with when it is hung up.
        if not live.is_terminating and program.exit_code == CONNECTION_LOST:
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
        live.move(State.ENDING)
        retry_secs, is_saved, is_stored = None, True, True
        try:
            is_saved = await self._save_last_screen(live, program_exit)
            session = await self._store(live, program_exit)
            if program_exit.status == "detached":
                retry_secs = self._reconnector.schedule(live, session)
        except SessionNotFound:
            pass  # deleted while its program ran
        except Exception as error:  # noqa: BLE001  # whatever it is, the clients are sent the exit
            event(log, logging.ERROR, "exit not stored", session=live.id, error=type(error).__name__, exc=error)
            is_stored = False
        last = await live.last_repaint() if retry_secs is None else None
        # No await between the move and the clients: another task finds the session either with its program, or ended.
        live.is_terminating = False
        if retry_secs is not None:
            live.move(State.RECONNECTING)
            live.set_reconnecting(program_exit.exit_code, program_exit.exit_signal)
            live.print_divider(f"connection lost, trying again in {retry_secs:.0f} s")
        elif is_stored:
            live.move(State.ENDED)
            live.end(program_exit.exit_code, program_exit.exit_signal, last)
        else:
            live.exit = program_exit
            live.move(State.UNSTORED)
            live.end(program_exit.exit_code, program_exit.exit_signal, last)
            self._retry_later(live)
            return  # journal and keeper still have it
        if retry_secs is None and not live.is_unwanted:
            self._finish_journal(live, is_saved=is_saved)
        await self._release(live, program_exit)

    async def _store(self, live: LiveSession, program_exit: ProgramExit) -> Session:
        # The folder is newer than the last snapshot's where the screen has not changed since.
        exit_code, exit_signal = program_exit.exit_code, program_exit.exit_signal
        session = await self._manager.end_program(
            live.id,
            program_exit.status,
            exit_code,
            exit_signal,
            cwd=live.cwd_to_save,
            reason=program_exit.reason,
        )
        if session.config.auto_remove:
            # It waits for the lock, which the caller holds until the clients have their exit.
            if live.is_unseen_end:
                loop = asyncio.get_running_loop()
                loop.call_later(LAST_LOOK_SECS, lambda: self._tasks.start(self._remove_ended(live.id)))
            else:
                self._tasks.start(self._remove_ended(live.id))
        return session

    async def _release(self, live: LiveSession, program_exit: ProgramExit) -> None:
        if program_exit.status == "terminated":
            self._agents.remove(live.id)
        if program_exit.in_keeper:
            await self._keeper.release(live.id)

    def _retry_later(self, live: LiveSession) -> None:
        asyncio.get_running_loop().call_later(
            self._saver.retry_secs, lambda: self._tasks.start(self._retry_store(live.id))
        )

    async def _retry_store(self, session_id: str) -> None:
        async with self._registry.locked(session_id) as live:
            await self._try_to_store(live)

    async def _try_to_store(self, live: LiveSession) -> None:
        """Store a pending exit, or try again later; under the session's lock."""
        try:
            await self.store_pending_exit(live)
        except Exception as error:  # noqa: BLE001  # the keeper has the exit too, for the next daemon
            level = logging.DEBUG if isinstance(error, StorageError) else logging.ERROR
            event(log, level, "exit not stored yet", session=live.id, error=type(error).__name__, exc=error)
            self._retry_later(live)
