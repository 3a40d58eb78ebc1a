"""Restore sessions when the daemon starts: take over running programs, restart shells after a reboot.

If the keeper runs, its programs are taken over, with the output that they wrote meanwhile,
and exits are stored. If it is gone, as after a reboot, no program runs: the sessions become
detached, and login shells, and sessions that want it, are started again in their working
directory and below their saved screen.

No screen is rebuilt here, and no journal of a program that runs is opened: that happens when somebody looks
at the session, or its program prints. What only the journals of gone programs have is saved once clients are served.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from orbit_protocol.errors import OrbitError, SessionNotFound, StorageError
from orbit_protocol.types import Session
from orbitd.keeper.client import KeptProgram
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.sessions.command_line import is_login_shell, last_size
from orbitd.sessions.programs import Programs

log = logging.getLogger("orbitd.sessions")


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
        for session in interrupted:
            if session.live and session.id not in ids:
                restored = _restore_without_program(manager, programs, session, start_again=start_again)
                await _restore_one(manager, programs, session.id, restored)
            elif start_again and session.status == "detached":
                with programs.registry.using(session.id) as live:
                    programs.reconnector.schedule(live, session)


async def finish_restoring(programs: Programs) -> None:
    """Read the terminals that were taken over, and save what only journals have; clients are served meanwhile."""
    await programs.keeper.reached()
    await programs.fetch_terminals()
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
        session = await manager.record_lost_session(program.id, program.started_at)
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
                await manager.detach_session(session.id)
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


async def _restore_without_program(
    manager: SessionManager, programs: Programs, session: Session, *, start_again: bool
) -> None:
    """Record that a session's program is gone, and start it again if that is wanted; its journal is kept."""
    event(log, logging.INFO, "program is gone", session=session.id)
    cwd = await programs.recorded_cwd(session.id)
    async with programs.registry.locked(session.id) as live:
        if live.has_program:
            return  # started meanwhile
        await manager.end_program(session.id, "detached", cwd=cwd)
    if start_again and (is_login_shell(session.config) or session.config.restart):
        await programs.start(session.id, *last_size(session), None)


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
            await manager.detach_session(session_id)
