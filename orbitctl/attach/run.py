"""Starting programs: with this environment, in the size of this window."""

from __future__ import annotations

import base64
import contextlib
import os
import sys
from collections.abc import Callable

from orbit_protocol.errors import NotRunning
from orbit_protocol.methods import SESSION_DELETE, SESSION_GET, SESSION_SCREEN, SESSION_START
from orbit_protocol.params import ById, SessionScreen, SessionStart
from orbit_protocol.types import Session
from orbitctl.app import App, checked
from orbitctl.attach.detach_key import DEFAULT_DETACH_KEY, DetachKey
from orbitctl.attach.environment import attach_environment, start_environment
from orbitctl.attach.options import AttachOptions, AttachResult
from orbitctl.attach.run_attach import exit_code_of, farewell, name_of, run_attach, say
from orbitctl.attach.terminal import SignalReceived, Terminal, require_terminal
from orbitctl.client.client import Answer
from orbitctl.errors import CommandError

SCROLLBACK_LINES = 1_000
"""How much history a terminal is given at an attach, for its own scrollbar."""


def start(app: App, session_id: str) -> Answer[Session]:
    """Run a session's program. Raises: CommandError."""
    cols, rows = window_size()
    env = None if app.hosts else start_environment(app.environ)
    return app.ask(SESSION_START, SessionStart(id=session_id, cols=cols, rows=rows, env=env))


def window_size() -> tuple[int, int]:
    """Return columns and rows of the terminal that we are on, if any."""
    for stream in (sys.stdout, sys.stdin, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            cols, rows = os.get_terminal_size(stream.fileno())
            if cols and rows:
                return cols, rows
    return 80, 24


def run_detached(app: App, create: Callable[[], Answer[Session]]) -> Answer[Session]:
    """Run a program in a new session; if it cannot be started, nothing is left behind. Raises: CommandError."""
    session = create().value
    try:
        return start(app, session.id)
    except CommandError:
        with contextlib.suppress(CommandError):
            app.call(SESSION_DELETE, ById(id=session.id))
        raise


def run_attached(app: App, create: Callable[[], Answer[Session]], detach_key: str | None) -> int:
    """Run a program in a new session and attach to it; return its exit code. Raises: CommandError."""
    require_terminal()
    key = detach_key_of(detach_key)
    session = run_detached(app, create).value
    try:
        return exit_code_of(run_attach(app, attach_options(app, session, key)))
    except NotRunning:  # it was quicker than we
        return exit_code_of(_show_ended(app, session))
    except SignalReceived as ended:
        return ended.exit_code


def detach_key_of(text: str | None) -> DetachKey:
    """Return the keys that detach. Raises: click.UsageError."""
    with checked():
        return DetachKey(DEFAULT_DETACH_KEY if text is None else text)


def attach_options(
    app: App, session: Session, key: DetachKey, *, read_only: bool = False, scrollback: int = 0
) -> AttachOptions:
    """Return what an attach asks for."""
    return AttachOptions(
        session=session,
        read_only=read_only,
        detach_key=key,
        scrollback_lines=scrollback,
        env={} if app.hosts else attach_environment(app.environ),
    )


def _show_ended(app: App, session: Session) -> AttachResult:
    """Show the last screen of a program that has ended already."""
    app.close()
    found = app.call(SESSION_GET, ById(id=session.id))
    screen = app.call(SESSION_SCREEN, SessionScreen(id=session.id, format="vt"))
    with Terminal() as terminal:
        terminal.paint(base64.b64decode(screen.data))
    result = AttachResult(how="ended", exit_code=found.exit_code, exit_signal=found.exit_signal)
    say(f"[{farewell(name_of(session), result)}]")
    return result
