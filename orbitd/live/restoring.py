"""Coming back: what a daemon that starts does with the programs of the one before it.

The keeper lives: its programs are adopted, with the output that they wrote meanwhile, and
what has ended is stored. The keeper is gone, as after a reboot: nothing runs, and the
sessions say so; login shells, and what was asked for, are started again in their folder
under their saved screen.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from orbit_protocol.errors import OrbitError, SessionNotFound
from orbit_protocol.types import Session
from orbitd.keeper.client import KeptProgram
from orbitd.live.launch import is_login_shell
from orbitd.live.programs import Programs
from orbitd.live.saver import Saver
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.terminal.emulator import unavailable_reason

log = logging.getLogger("orbitd.live")


async def restore(manager: SessionManager, programs: Programs, saver: Saver, *, start_again: bool) -> None:
    """Adopt what runs, store what has ended, and bring back what a reboot has taken.

    Args:
        manager: The store.
        programs: Where adopted programs go.
        saver: Saves what only the journals have.
        start_again: Whether programs are started that nobody asked for now.
    """
    kept, interrupted = await programs.keeper.take_over(), await manager.list_interrupted()
    if not kept and not interrupted:
        return  # without loading what a daemon that runs no terminals never needs
    if await asyncio.to_thread(unavailable_reason) is not None:
        return
    for program in kept:
        await _try(program.id, _adopt(manager, programs, program))
    ids = {program.id for program in kept}
    for session in interrupted:
        if session.live and session.id not in ids:
            await _try(session.id, _bring_back(manager, programs, saver, session, start_again=start_again))
        elif start_again and session.status == "detached":
            programs.reconnector.lost(session)


async def _adopt(manager: SessionManager, programs: Programs, program: KeptProgram) -> None:
    try:
        session = await manager.get_session(program.id)
    except SessionNotFound:
        await _abandon(programs, program)
        return
    if session.status in ("terminated", "archived") and program.ended_at is not None:
        await programs.keeper.release(program.id)  # its end is stored, only the keeper was not told
        return
    async with programs.registry.lock(session.id):
        await programs.adopt(session, program)
        if session.status == "active":  # its clients went with the daemon before
            await manager.detach_session(session.id)
    if program.ended_at is not None:
        await programs.endings.finish(program)


async def _abandon(programs: Programs, program: KeptProgram) -> None:
    """End a program whose session was deleted; its exit is released when it comes."""
    if program.ended_at is None:
        client = await programs.keeper.client()
        await client.signal(program.id, signal.SIGKILL)
    else:
        await programs.keeper.release(program.id)


async def _bring_back(
    manager: SessionManager, programs: Programs, saver: Saver, session: Session, *, start_again: bool
) -> None:
    """Save what only the journal has of a session whose program is gone, and start it if that is wanted."""
    event(log, logging.INFO, "program is gone", session=session.id)
    async with programs.registry.lock(session.id):
        screen = await programs.screens.open(session)
        try:
            await saver.save_at_rest(session.id, screen, session.cwd)
        finally:
            screen.close()
        programs.screens.remove(session.id)
        await manager.end_program(session.id, "detached")
    if start_again and (is_login_shell(session.config) or session.config.restart):
        await programs.start(session.id, session.cols or 80, session.rows or 24, None)


async def _try(session_id: str, work: Coroutine[Any, Any, None]) -> None:
    """Do what can be done for one session; another one must not suffer from its fault."""
    try:
        await work
    except (OrbitError, OSError) as error:
        event(log, logging.ERROR, "not restored", session=session_id, error=type(error).__name__, exc=error)
