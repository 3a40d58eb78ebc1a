"""Restore sessions when the daemon starts: take over running programs, start sessions again after a reboot.

If the keeper runs, its programs are taken over, with the output that they wrote meanwhile,
and exits are stored. If it is gone, as after a reboot, no program runs: the sessions become
detached, and those that come back by themselves are started again in their folder and below their
saved screen: shells, and what has `restart` or `resume` in its config. A program that has ended is not started again.

No screen is rebuilt here, and no journal of a program that runs is opened: that happens when somebody looks
at the session, or its program prints. Clients are served before hundreds of sessions are started, and what only the
journals of gone programs have is saved after that.

A session that is to come back stays recorded as running until it does. So the next daemon starts it, where this one is
killed before its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from orbit_os.shells import is_interactive_shell
from orbit_protocol.errors import AlreadyRunning, NotRunning, OrbitError, SessionNotFound, StorageError
from orbit_protocol.text import from_text
from orbit_protocol.types import Session, SessionConfig
from orbitd.keeper.client import KeptProgram
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.sessions.command_line import is_login_shell, last_size
from orbitd.sessions.programs import Programs

log = logging.getLogger("orbitd.sessions")

STARTED_FIRST_SECS = 0.5
"""How long clients wait for sessions that come back. The few of most users are there then; of hundreds the rest follows
while clients are served."""

STORED_TOGETHER = 16
"""How many sessions that do not come back are recorded at the same time: the store commits them together."""


async def restore_sessions(manager: SessionManager, programs: Programs, *, start_again: bool) -> None:
    """Take over what runs, store exits, and restore the sessions whose programs are gone.

    Where the keeper cannot be asked now, all of it is done in the background once it can: what runs is not known until
    then, and taken for gone, programs would be started a second time.

    Args:
        manager: The store.
        programs: Takes over and starts programs.
        start_again: Whether programs are started without a request of a client.
    """
    await programs.keeper.reach(functools.partial(_restore, manager, programs, start_again=start_again))


async def _restore(manager: SessionManager, programs: Programs, *, start_again: bool) -> None:
    with programs.exits_held():
        # From the hello on, the keeper reports exits to this daemon; the list has those before it.
        kept, interrupted = await programs.connect_keeper(), await manager.list_interrupted()
        for program in kept:
            await _restore_one(manager, programs, program.id, _take_over(manager, programs, program))
        await programs.complete_landing()
        ids = {program.id for program in kept}
        lost = [session for session in interrupted if session.live and session.id not in ids]
        together = asyncio.Semaphore(STORED_TOGETHER)

        async def record(session: Session, *, comes_back: bool) -> None:
            async with together:
                work = _record_lost(manager, programs, session, comes_back=comes_back)
                await _restore_one(manager, programs, session.id, work)

        shells = await asyncio.to_thread(_coming_back, lost) if start_again else {}
        coming_back = [session for session in lost if session.id in shells]
        await asyncio.gather(*(record(session, comes_back=session.id in shells) for session in lost))
        for session in interrupted:
            if start_again and not session.live and session.status == "detached":
                with programs.registry.using(session.id) as live:
                    programs.reconnector.schedule(live, session)
    # Those that were used last come first.
    for session in sorted(coming_back, key=lambda each: each.last_active, reverse=True):
        start = functools.partial(_come_back, manager, programs, session, is_shell=shells[session.id])
        programs.come_back(session.id, start)
    await programs.wait_for_comebacks(STARTED_FIRST_SECS)


async def finish_restoring(programs: Programs) -> None:
    """Read the terminals that were taken over, and save what only journals have; clients are served meanwhile."""
    await programs.keeper.reached()
    await programs.fetch_terminals()
    await programs.wait_for_comebacks()
    await programs.clean_up()
    for session_id in sorted(programs.files.unsaved()):
        try:
            await programs.endings.save_stopped(session_id)
        except Exception as error:  # noqa: BLE001  # one of many; the journal stays
            kind = type(error).__name__
            event(log, logging.ERROR, "last screen not saved", session=session_id, error=kind, exc=error)


async def _take_over(manager: SessionManager, programs: Programs, program: KeptProgram) -> None:
    was_lost = False
    try:
        session = await manager.get_session(program.id)
    except SessionNotFound:
        if program.ended_at is not None:
            await programs.keeper.release(program.id)
            return
        if manager.has_damaged_sessions():  # this may be the one that lost its id: its program is kept for a repair
            event(log, logging.WARNING, "program without a session kept, a row is damaged", session=program.id)
            return
        # A session is deleted after its program has ended. So the row was lost with a part of the database, or an
        # older backup was restored.
        event(log, logging.WARNING, "program without a session, recorded again", session=program.id, pid=program.pid)
        session = await manager.record_lost_session(
            program.id, program.started_at, record="none" if program.has_memory else "full"
        )
        was_lost = True
    if session.status in ("terminated", "archived") and (
        program.ended_at is not None or session.last_active > program.started_at
    ):
        # The daemon before died after it had stored the exit, or did not reach the keeper when a client ended it.
        # A program that was started since is one of a newer database than this, which was restored from a backup.
        await _end_unwanted(programs, program)
        return
    async with programs.registry.locked(session.id) as live:
        if live.has_program:
            return  # taken over by a start meanwhile: clients may be served already
        live.was_recorded_again = was_lost
        programs.take_over(live, session, program)
        if session.status == "active":  # its clients were connected to the daemon before
            try:
                await manager.detach_session(session.id, reason="restarted")
            except StorageError as error:  # the session goes on all the same
                event(log, logging.ERROR, "status not stored", session=session.id, error=error.message)
    if program.ended_at is not None:
        programs.handle_exit(program)


async def _end_unwanted(programs: Programs, program: KeptProgram) -> None:
    """End a program whose session has ended; the keeper forgets it when it reports it."""
    if program.ended_at is None:
        client = await programs.keeper.client()
        await client.signal(program.id, signal.SIGKILL)
    else:
        await programs.keeper.release(program.id)


async def _record_lost(manager: SessionManager, programs: Programs, session: Session, *, comes_back: bool) -> None:
    """Record that a session's program is gone, unless it is to be started again; its journal is kept."""
    event(log, logging.INFO, "program is gone", session=session.id)
    if comes_back:
        if session.status != "detached":
            await manager.detach_session(session.id, reason="restarted")
        return
    cwd = await programs.recorded_cwd(session.id)
    async with programs.registry.locked(session.id) as live:
        if not live.has_program:  # else started meanwhile
            await manager.end_program(session.id, "detached", cwd=cwd, reason="program_lost")


async def _come_back(manager: SessionManager, programs: Programs, session: Session, *, is_shell: bool) -> None:
    """Start a session again whose program is gone, unless a client has started, ended or deleted it meanwhile."""

    async def start() -> None:
        try:
            await programs.start(session.id, *last_size(session), None, only_lost=True, may_move=is_shell)
        except (AlreadyRunning, NotRunning, SessionNotFound):
            pass
        except Exception:
            # A client may ask for it again. A daemon does not, at each of its starts: `resume` may name what is gone.
            # But what the stop of this one has cut off is for the next.
            if not programs.closing.done():
                with contextlib.suppress(OrbitError):
                    await manager.end_program(session.id, "detached", reason="not_started")
            raise

    await _restore_one(manager, programs, session.id, start())


def comes_back(config: SessionConfig) -> bool:
    """Return whether a session is started again after a reboot without being asked for; this may ask passwd."""
    if config.record == "none":  # what it ran was in memory only
        return False
    return config.restart or config.resume is not None or is_shell(config)


def _coming_back(sessions: list[Session]) -> dict[str, bool]:
    """Return which sessions come back, and whether each runs a shell.

    In a thread: this asks passwd for each, which may be a server that is slow.
    """
    return {session.id: is_shell(session.config) for session in sessions if comes_back(session.config)}


def is_shell(config: SessionConfig) -> bool:
    """Return whether a session runs a shell for somebody to type into: a shell of this system, without a script."""
    if is_login_shell(config):
        return True
    if config.session_type != "local" or config.command is None:
        return False
    line = from_text(config.command, config.command_bytes).decode("utf-8", "surrogateescape")
    return is_interactive_shell(line, chosen=(config.env or {}).get("SHELL"))


async def _restore_one(
    manager: SessionManager, programs: Programs, session_id: str, work: Coroutine[Any, Any, None]
) -> None:
    """Await the work for one session. Whatever it raises is recorded, and the others are restored all the same.

    The session is detached then and keeps its journal; starting it, and the next start of the daemon, try again.
    """
    try:
        await work
    except Exception as error:  # noqa: BLE001  # one of many: a library's error, no memory, a folder that is open
        event(log, logging.ERROR, "session not restored", session=session_id, error=type(error).__name__, exc=error)
        with programs.registry.using(session_id) as live:
            if live.has_program:
                return
            programs.restore_failed(live, error)
        with contextlib.suppress(OrbitError):  # deleted, terminated, or the store fails
            await manager.detach_session(session_id, reason="restarted")
