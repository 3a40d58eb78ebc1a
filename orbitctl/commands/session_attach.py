"""`orbitctl attach`, or `a`: which session is meant, whether its program has to be started first, and the attach."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from orbit_os.shell import typed
from orbit_os.shells import is_interactive_shell
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import AlreadyRunning, NameTaken, NotRunning
from orbit_protocol.text import from_text
from orbit_protocol.types import Session, SessionConfig
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.client.client import ask_all
from orbitctl.commands.arguments import SESSION
from orbitctl.errors import CommandError, ExitCode, from_daemon

if TYPE_CHECKING:
    from orbitctl.attach.attachment import AttachOptions

JUST_CREATED_SECS = 10.0
"""A session that was recorded so short a time ago and has never run is about to be started by whoever recorded it."""
DETACH_KEY_VARIABLE = "ORBITCTL_DETACH_KEY"


class _OptionalSession(click.Argument):
    """A session that may be left out; errors name it as those of other commands do."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return what an error calls it."""
        return "'SESSION'"


@click.command(
    epilog="""\b
Examples:
  orbitctl a
  orbitctl a web
  orbitctl a -c web -- npm run dev
  orbitctl a web --read-only
  orbitctl a web --detach-key 'C-a d'

Keys are written C-a or ^a, M-a (Alt), or by name; several make a sequence; `none` turns it
off. ORBITCTL_DETACH_KEY changes the default. If orbitd restarts, orbitctl connects again.
The exit code is the program's where it ended, 128+N if signal N ended it, and 0 after a detach.
""",
)
@click.argument("session", type=SESSION, required=False, cls=_OptionalSession)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-c", "--create", is_flag=True, help="Make the session if there is none of this name; it runs COMMAND.")
@click.option("--no-start", is_flag=True, help="Refuse a session whose program does not run.")
@click.option("-r", "--read-only", is_flag=True, help="Show the session only: no input, no change of size.")
@click.option("--detach-key", metavar="KEY", envvar=DETACH_KEY_VARIABLE, help="The keys that detach [C-\\].")
@click.option(
    "--scrollback",
    type=click.IntRange(0, 1_000_000),
    metavar="N",
    help="Lines of history for this terminal [all that it does not have yet].",
)
@click.pass_context
def attach(
    ctx: click.Context,
    session: str | None,
    command: tuple[str, ...],
    create: bool,
    no_start: bool,
    read_only: bool,
    detach_key: str | None,
    scrollback: int | None,
) -> None:
    r"""Attach to a session: show it here, and type into it.

    C-\ detaches, unless --detach-key names another key; the program goes on. Without SESSION
    it is the one that this terminal has shown last, or else the newest that runs.

    A program that does not run is started again under its saved screen: shells, and what has
    --restart or a command to resume, at once; others when you say so.

    Inside a session the window that you sit at is switched: to SESSION, or to the one that it
    showed before. With --read-only, --detach-key or --scrollback the session is shown inside.
    """
    from orbitctl.attach import run_attach
    from orbitctl.attach.terminal import require_terminal

    app: App = ctx.obj
    _check_usage(session, command, create=create, no_start=no_start)
    has_own_key = detach_key is not None and detach_key != app.environ.get(DETACH_KEY_VARIABLE)
    switches = app.this_session() is not None and not (read_only or has_own_key or scrollback is not None)
    key = run_attach.parse_detach_key(app, detach_key)
    if not switches:
        require_terminal()
    elif session is None and _switch(app, None):
        return
    is_started = False
    if session is None:
        require_terminal()
        found = _last(app, no_start=no_start)
        is_started = not found.live and _start_again(app, found, no_start=no_start)
    elif create:
        found, is_started = _find_or_create(app, session, command)
    else:
        found = app.session(session, or_begins=True)
        is_started = not found.live and _start_again(app, found, no_start=no_start)
    if switches and _switch(app, found.id):
        return
    require_terminal()
    options = run_attach.attach_options(app, found, key, read_only=read_only, scrollback=scrollback)
    ctx.exit(_attach(app, found, options, is_started=is_started))


def _check_usage(session: str | None, command: tuple[str, ...], *, create: bool, no_start: bool) -> None:
    if create and session is None:
        raise click.UsageError("--create takes the NAME of the session to make")
    if create and no_start:
        raise click.UsageError("--create starts what does not run, and --no-start refuses it")
    if command and not create:
        raise click.UsageError("a COMMAND is for a session that --create makes")


def _attach(app: App, found: Session, options: AttachOptions, *, is_started: bool) -> int:
    from orbitctl.attach import run_attach
    from orbitctl.attach.terminal import SignalReceived

    if is_started:
        return run_attach.attach_started(app, found, options)
    try:
        return run_attach.exit_code_of(run_attach.run_attach(app, found, options))
    except NotRunning as error:
        raise from_daemon(error) from error
    except SignalReceived as received:
        return received.exit_code


# Which session


def _last(app: App, *, no_start: bool) -> Session:
    """Return the session that this window has shown last, of those that run or come back; else the newest that runs.

    Raises:
        CommandError: None runs.
    """
    from orbitctl.attach.run_attach import shown_here

    for session_id in shown_here(app).load():
        try:
            found = app.call(m.SESSION_GET, p.ById(id=session_id))
        except CommandError as error:
            if error.exit_code != ExitCode.NOT_FOUND:
                raise
            continue
        # One that was ended is passed over, also a shell: its user has left it for good.
        is_lost = found.status == "detached" and found.cols is not None
        if found.live or (is_lost and not no_start and comes_back(found.config)):
            return found
    sessions = ask_all(app.client, m.SESSION_LIST, p.SessionList(), "sessions").value.sessions
    running = [one for one in sessions if one.live]
    if not running:
        raise CommandError(
            "no session runs",
            ExitCode.NOT_FOUND,
            hint="`orbitctl new` starts one; `orbitctl ls -a` shows those that have ended.",
        )
    return max(running, key=lambda one: one.created_at)


def _find_or_create(app: App, name: str, command: tuple[str, ...]) -> tuple[Session, bool]:
    """Return the running session of a name; make and start one where there is none. Nobody is asked anything.

    Returns:
        The session, and whether it was started just now.

    Raises:
        CommandError: Another application hosts the one of this name, or the program cannot be started.
    """
    from orbitctl.attach import run_attach
    from orbitctl.commands.session_create import NewSession, create_session

    found = _of_name(app, name)
    if found is None or _is_replaced(found, command):
        new = NewSession(name=name, command=command)
        try:
            return run_attach.run_detached(app, lambda: create_session(app, new, here=True)).value, True
        except CommandError as error:
            if not isinstance(error.__cause__, NameTaken):
                raise
        found = app.session(name)  # somebody else has made it at the same moment
    if found.live:
        return found, False
    _require_known(app, found)
    is_new = (datetime.now(UTC) - found.created_at).total_seconds() < JUST_CREATED_SECS
    if _is_external(found) and not is_new:
        raise run_attach.not_running_error(found)
    return found, _start(app, found)


def _of_name(app: App, name: str) -> Session | None:
    """Return the session of a name or whole id; None where there is none. Raises: CommandError."""
    try:
        found = app.session(name)
    except CommandError as error:
        if error.exit_code != ExitCode.NOT_FOUND:
            raise
        return None
    return found if name in (found.name, found.id) else None


def _is_replaced(found: Session, command: tuple[str, ...]) -> bool:
    """Return whether a new session is made in the place of one that was ended: it does not come back by itself."""
    return found.status in ("terminated", "archived") and (bool(command) or not comes_back(found.config))


# What does not run


def _start_again(app: App, found: Session, *, no_start: bool) -> bool:
    """Start the program of a session that does not run, if it comes back by itself or the user says so.

    Returns:
        Whether it was started, and not by somebody else meanwhile.

    Raises:
        CommandError: It is not to be started, or cannot be.
    """
    from orbitctl.attach.run_attach import describe_exit, not_running_error, short_name
    from orbitctl.attach.terminal import require_terminal
    from orbitctl.ui.text import ago

    _require_known(app, found)
    if found.config.record == "none" and not _is_external(found):
        return _start(app, found)  # refused, with the reason
    if no_start or _is_external(found):
        raise not_running_error(found)
    if not comes_back(found.config):
        require_terminal()
        has_ended = found.exit_code is not None or found.exit_signal is not None
        how = describe_exit(found.exit_code, found.exit_signal) if has_ended else "was lost, as with a reboot"
        question = f"{short_name(found)} {how}, {ago(found.last_active)}. Start `{_command(found.config)}` again?"
        if found.status == "active" and not has_ended:  # imported
            question = f"{short_name(found)} has never run here. Start `{_command(found.config)}`?"
        if not click.confirm(visible(question), err=True):
            raise CommandError("nothing was started")
    return _start(app, found)


def _start(app: App, found: Session) -> bool:
    from orbitctl.attach.run_attach import start_session

    try:
        start_session(app, found.id)
    except CommandError as error:
        if not isinstance(error.__cause__, AlreadyRunning):
            raise
        return False
    return True


def _require_known(app: App, found: Session) -> None:
    """Raise CommandError where it is not known whether a session's program runs: the keeper does not answer, say."""
    try:
        app.call(m.SESSION_WAIT, p.SessionWait(id=found.id, timeout_secs=0))
    except CommandError as error:
        if error.exit_code not in (ExitCode.CONFLICT, ExitCode.TIMEOUT):
            raise


def _is_external(found: Session) -> bool:
    """Return whether a session has never run here."""
    return found.cols is None and found.exit_code is None and found.exit_signal is None


def comes_back(config: SessionConfig) -> bool:
    """Return whether a session's program is started again without a question: a shell, or what is meant to be."""
    if config.restart or config.resume is not None:
        return True
    if config.record == "none":  # what it ran was in memory only
        return False
    if config.session_type != "local":
        return False
    line = from_text(config.command or "", config.command_bytes).decode("utf-8", "surrogateescape")
    return not line or is_interactive_shell(line, chosen=(config.env or {}).get("SHELL"))


def _command(config: SessionConfig) -> str:
    if config.session_type == "local":
        return config.command or ""
    return typed("ssh", f"{config.username}@{config.host}" if config.username else config.host or "")


# Inside a session


def _switch(app: App, session_id: str | None) -> bool:
    """Switch the window that shows the session which this process runs in.

    Args:
        app: The app.
        session_id: What it is to show; None for the one before.

    Returns:
        Whether that was done: not where this process runs in no session of this daemon.

    Raises:
        CommandError: The window cannot be switched.
    """
    from orbitctl.attach.run_attach import short_name

    try:
        answer = app.ask(m.SESSION_SWITCH, p.SessionSwitch(to=session_id))
    except CommandError as error:
        cause = error.__cause__
        reason = cause.extra.get("reason") if isinstance(cause, NotRunning) else ""
        if reason == "outside":
            return False
        if reason == "alone":
            raise CommandError(
                "no other session runs", ExitCode.NOT_FOUND, hint="`orbitctl new` starts one, and shows it here."
            ) from error
        if reason == "no_window":
            raise CommandError(
                "no window that types into it shows this session now",
                ExitCode.CONFLICT,
                hint="Where orbitd has just restarted, type it again; else attach from another terminal.",
            ) from error
        if reason == "client":
            raise CommandError(
                "the window that shows this session cannot be switched",
                ExitCode.CONFLICT,
                hint="Attach from another terminal, or with --detach-key KEY, which shows the session inside this one.",
            ) from error
        raise
    if app.json or app.quiet:
        app.show(answer, lambda _: None, lambda one: [one.id])
    elif answer.value.id == app.this_session():
        app.out.note(f"this window shows {short_name(answer.value)} already")
    return True
