"""Attaching as the commands do it: what is checked before, what is said after, and the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping

from orbitctl.app import App
from orbitctl.failures import Exit, Failure, from_daemon
from orbitctl.live.attach import Attachment
from orbitctl.live.comeback import Away
from orbitctl.live.link import Link
from orbitctl.live.model import Ending, Wish
from orbitctl.live.terminal import Ended, Terminal
from orbitctl.text import ago, visible
from protocol.errors import NotRunning, OrbitError
from protocol.methods import SESSION_GET
from protocol.params import ById
from protocol.types import Session

HUNG_UP = 128 + signal.SIGHUP


def name_of(session: Session) -> str:
    """Return how a session is spoken of in a few letters."""
    return visible(session.name) if session.name else session.id[:8]


def refuse_itself(app: App, session: Session, environ: Mapping[str, str]) -> None:
    """Refuse to show a session inside itself, where its output would feed its output. Raises: Failure."""
    if environ.get("ORBIT_SESSION") != session.id or app.hosts:
        return
    if os.path.realpath(environ.get("ORBITD_SOCKET", "")) == os.path.realpath(app.place.socket_path):
        raise Failure(
            f"this terminal is session {name_of(session)}: it cannot be attached to itself",
            Exit.CONFLICT,
            hint="Attach from another terminal, or to another session.",
        )


def visit(app: App, wish: Wish) -> Ending:
    """Attach until the user leaves or the program ends, and say which.

    Raises:
        NotRunning: There is no program, at the first attach.
        Failure: The daemon refuses, or has not come back.
        Ended: A signal asks this process to end; it has been said.
    """
    name = name_of(wish.session)
    app.close()  # one connection is enough
    link = Link(app.open_stream())
    away = Away(app)
    try:
        with Terminal() as terminal:
            attachment = Attachment(wish, terminal, link, away)
            ending = attachment.run()
    except Ended:
        say(f"[detached from {name}]")
        raise
    except NotRunning as error:
        if not attachment.was_shown:
            raise
        ending = _ended_while_away(app, wish.session, error)
    except OrbitError as error:
        raise from_daemon(error) from error
    say(f"[{farewell(name, ending)}]")
    return ending


def farewell(name: str, ending: Ending) -> str:
    """Return what is said at the end."""
    if ending.how == "ended":
        return f"{name} {ended_how(ending.exit_code, ending.exit_signal)}"
    return f"{name} was detached from elsewhere" if ending.how == "put off" else f"detached from {name}"


def ended_how(exit_code: int | None, exit_signal: int | None) -> str:
    """Return how a program came to its end."""
    if exit_signal is not None:
        return f"ended: {signal_name(exit_signal)}"
    if exit_code is not None:
        return f"ended: exit {exit_code}"
    return "does not run any more: what kept it has gone; `orbitctl session start` starts it again"


def signal_name(number: int) -> str:
    """Return a signal's name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_code_of(ending: Ending) -> int:
    """Return the exit code of a program as a shell tells it; leaving it is success."""
    if ending.how == "hung up":
        return HUNG_UP
    if ending.how != "ended":
        return Exit.OK
    if ending.exit_signal is not None:
        return 128 + ending.exit_signal
    return Exit.ERROR if ending.exit_code is None else ending.exit_code


def why_not_running(session: Session) -> Failure:
    """Return why nobody can attach to a session whose program does not run, and what would help."""
    name = name_of(session)
    if session.exit_code is not None or session.exit_signal is not None:
        how = ended_how(session.exit_code, session.exit_signal)
        return Failure(
            f"the program of {name} has {how} ({ago(session.last_active)})",
            Exit.CONFLICT,
            hint=f"`orbitctl session screen {name}` shows its last screen, `session start {name}` runs it again.",
        )
    if session.cols is not None:
        return Failure(
            f"the program of {name} does not run: it went with a reboot, or with what kept it",
            Exit.CONFLICT,
            hint=f"`orbitctl session start {name}` runs it again under its saved screen; `screen {name}` shows that.",
        )
    return Failure(
        f"orbitd does not run {name}: it is only recorded here, or another application hosts it",
        Exit.CONFLICT,
        hint=f"`orbitctl session start {name}` runs its program here; else attach in the application that hosts it.",
    )


def _ended_while_away(app: App, session: Session, error: NotRunning) -> Ending:
    """Find out what became of a program that a daemon did not find again."""
    try:
        found = app.call(SESSION_GET, ById(id=session.id))
    except Failure:
        raise from_daemon(error) from error
    return Ending(how="ended", exit_code=found.exit_code, exit_signal=found.exit_signal)


def say(words: str) -> None:
    """Say something beside the session's own screen."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):  # nothing is kept in a buffer that a terminal which has gone would not take
        os.write(sys.stderr.fileno(), words.encode(errors="replace") + b"\n")
