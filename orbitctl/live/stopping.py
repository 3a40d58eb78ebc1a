"""Ending every program that orbitd runs, before orbitd itself."""

from __future__ import annotations

import os

from orbitctl.app import App
from orbitctl.failures import Exit, Failure
from orbitctl.paging import ask_all
from orbitctl.progress import spinner
from orbitctl.text import plural
from orbitctl.transport import Unreachable
from protocol.live import SessionSignal
from protocol.live_methods import SESSION_SIGNAL
from protocol.methods import SESSION_LIST, SESSION_TERMINATE
from protocol.params import ById, SessionList
from protocol.types import Session


def end_programs(app: App) -> int:
    """Hang up on every program, kill those that do not heed it, and return how many there were.

    A daemon is started where none runs but programs may: their keeper's socket is there.

    Raises:
        Failure: The daemon cannot be reached, or could not end one.
    """
    try:
        app.running_client()
    except Unreachable as failure:
        if not failure.nobody:
            raise
        if not os.path.exists(app.place.resolved.database_path + ".keeper"):
            return 0
        app.autostart = True
    sessions = ask_all(app, SESSION_LIST, SessionList(), "sessions").value.sessions
    live = [session for session in sessions if session.live]
    with spinner(f"ending {plural(len(live), 'program')}"):
        for session in live:  # all at once: each has its time to end while others are waited for
            _try(app, session, hang_up=True)
        for session in live:
            _try(app, session, hang_up=False)
    return len(live)


def _try(app: App, session: Session, *, hang_up: bool) -> None:
    """Do something to a program, which may end by itself any moment. Raises: Failure."""
    try:
        if hang_up:
            app.call(SESSION_SIGNAL, SessionSignal(id=session.id, signal="HUP"))
        else:
            app.call(SESSION_TERMINATE, ById(id=session.id))
    except Failure as failure:
        if failure.exit_code not in (Exit.CONFLICT, Exit.NOT_FOUND):
            raise
