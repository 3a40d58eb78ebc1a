"""Attaching as the commands do it: what is checked before, what is said after, and the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping

from orbit_protocol.errors import NotRunning, OrbitError
from orbit_protocol.methods import SESSION_GET
from orbit_protocol.params import ById
from orbit_protocol.types import Session
from orbitctl.app import App
from orbitctl.attach.attachment import Attachment
from orbitctl.attach.connection import DaemonConnection
from orbitctl.attach.options import AttachOptions, AttachResult
from orbitctl.attach.reconnect import Away
from orbitctl.attach.terminal import SignalReceived, Terminal
from orbitctl.errors import CommandError, ExitCode, from_daemon
from orbitctl.ui.text import ago, visible

HUNG_UP = 128 + signal.SIGHUP


def name_of(session: Session) -> str:
    """Return how a session is spoken of in a few letters."""
    return visible(session.name) if session.name else session.id[:8]


def refuse_itself(app: App, session: Session, environ: Mapping[str, str]) -> None:
    """Refuse to show a session inside itself, where its output would feed its output. Raises: CommandError."""
    if environ.get("ORBIT_SESSION") != session.id or app.hosts:
        return
    if os.path.realpath(environ.get("ORBITD_SOCKET", "")) == os.path.realpath(app.paths.socket_path):
        raise CommandError(
            f"this terminal is session {name_of(session)}: it cannot be attached to itself",
            ExitCode.CONFLICT,
            hint="Attach from another terminal, or to another session.",
        )


def run_attach(app: App, options: AttachOptions) -> AttachResult:
    """Attach until the user leaves or the program ends, and say which.

    Raises:
        NotRunning: There is no program, at the first attach.
        CommandError: The daemon refuses, or has not come back.
        SignalReceived: A signal asks this process to end; it has been said.
    """
    name = name_of(options.session)
    app.close()  # one connection is enough
    connection = DaemonConnection(app.open_stream())
    away = Away(app)
    try:
        with Terminal() as terminal:
            attachment = Attachment(options, terminal, connection, away)
            result = attachment.run()
    except SignalReceived:
        say(f"[detached from {name}]")
        raise
    except NotRunning as error:
        if not attachment.was_shown:
            raise
        result = _ended_while_away(app, options.session, error)
    except OrbitError as error:
        raise from_daemon(error) from error
    say(f"[{farewell(name, result)}]")
    return result


def farewell(name: str, result: AttachResult) -> str:
    """Return what is said at the end."""
    if result.how == "ended":
        return f"{name} {ended_how(result.exit_code, result.exit_signal)}"
    return f"{name} was detached from elsewhere" if result.how == "put off" else f"detached from {name}"


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


def exit_code_of(result: AttachResult) -> int:
    """Return the exit code of a program as a shell tells it; leaving it is success."""
    if result.how == "hung up":
        return HUNG_UP
    if result.how != "ended":
        return ExitCode.OK
    if result.exit_signal is not None:
        return 128 + result.exit_signal
    return ExitCode.ERROR if result.exit_code is None else result.exit_code


def why_not_running(session: Session) -> CommandError:
    """Return why nobody can attach to a session whose program does not run, and what would help."""
    name = name_of(session)
    if session.exit_code is not None or session.exit_signal is not None:
        how = ended_how(session.exit_code, session.exit_signal)
        return CommandError(
            f"the program of {name} has {how} ({ago(session.last_active)})",
            ExitCode.CONFLICT,
            hint=f"`orbitctl session screen {name}` shows its last screen, `session start {name}` runs it again.",
        )
    if session.cols is not None:
        return CommandError(
            f"the program of {name} does not run: it went with a reboot, or with what kept it",
            ExitCode.CONFLICT,
            hint=f"`orbitctl session start {name}` runs it again under its saved screen; `screen {name}` shows that.",
        )
    return CommandError(
        f"orbitd does not run {name}: it is only recorded here, or another application hosts it",
        ExitCode.CONFLICT,
        hint=f"`orbitctl session start {name}` runs its program here; else attach in the application that hosts it.",
    )


def _ended_while_away(app: App, session: Session, error: NotRunning) -> AttachResult:
    """Find out what became of a program that a daemon did not find again."""
    try:
        found = app.call(SESSION_GET, ById(id=session.id))
    except CommandError:
        raise from_daemon(error) from error
    return AttachResult(how="ended", exit_code=found.exit_code, exit_signal=found.exit_signal)


def say(words: str) -> None:
    """Say something beside the session's own screen."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):  # nothing is kept in a buffer that a terminal which has gone would not take
        os.write(sys.stderr.fileno(), words.encode(errors="replace") + b"\n")
