"""Start a session's program and attach to it, as the commands do.

`run_attach` is the whole of an attach: connect, make the terminal raw, run the loop of
`Attachment`, restore the terminal, print how it ended. The rest is what stands before it (which
environment and size go with a start, why an attach is refused) and after it (the exit code).
"""

from __future__ import annotations

import binascii
import contextlib
import os
import signal
import sys

from orbit_os.processes import own_umask, soft_limits
from orbit_os.shell import typed
from orbit_protocol.environment import belongs_to_window
from orbit_protocol.errors import AlreadyRunning, NotRunning, OrbitError, WouldLoop
from orbit_protocol.terminal_reset import RESET
from orbit_protocol.visible import visible
from orbitctl.attach.attachment import Attachment, AttachOptions, AttachResult, Named
from orbitctl.attach.connection import DaemonConnection
from orbitctl.attach.detach_key import DEFAULT_DETACH_KEY, DetachKey
from orbitctl.attach.mark import Mark, Shown, marks_folder, window_name
from orbitctl.attach.painter import ask_cursor
from orbitctl.attach.reconnect import Reconnect
from orbitctl.attach.terminal import SignalReceived, Terminal, require_terminal
from orbitctl.attach.window import Window, rows_below
from orbitctl.errors import CommandError, ExitCode, from_daemon
from orbitctl.ui.text import ago

# What a start needs is imported by the functions that start: an attach alone has no click and no msgspec, which take
# longer to import than it takes until the session is shown.
TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it
    from collections.abc import Callable, Mapping

    from orbit_protocol.settings import ShellIntegration
    from orbit_protocol.text import BytePairs
    from orbit_protocol.types import Session
    from orbitctl.app import App
    from orbitctl.client.client import Answer
    from orbitctl.client.local import LocalDaemon

HANGUP_EXIT_CODE = 128 + signal.SIGHUP


# Start


def start_session(app: App, session_id: str, shell_integration: ShellIntegration | None = None) -> Answer[Session]:
    """Run a session's program in the background, in the size of this window. Raises: CommandError."""
    from orbit_protocol.methods import SESSION_START
    from orbit_protocol.params import SessionStart

    cols, rows = window_size()
    if app.hosts:  # it gets what a login there has
        params = SessionStart(id=session_id, cols=cols, rows=rows, shell_integration=shell_integration)
    else:
        params = SessionStart(
            id=session_id,
            cols=cols,
            rows=rows,
            env_bytes=start_environment(app.environ),
            umask=own_umask(),
            limits=soft_limits(),
            shell_integration=shell_integration,
        )
    return app.ask(SESSION_START, params)


def window_size() -> tuple[int, int]:
    """Return columns and rows of the terminal that this process is on; 80 and 24 if it is on none."""
    for stream in (sys.stdout, sys.stdin, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            cols, rows = os.get_terminal_size(stream.fileno())
            if cols and rows:
                return cols, rows
    return 80, 24


def start_environment(environ: Mapping[str, str]) -> BytePairs:
    """Return the environment that a program starts with, in bytes: a variable may hold any."""
    pairs = [(os.fsencode(name), os.fsencode(value)) for name, value in environ.items()]
    return [each for each in pairs if not belongs_to_window(each[0])]


def attach_environment(environ: Mapping[str, str]) -> BytePairs:
    """Return the variables that are sent with each attach: the ssh agent of this login."""
    agent = environ.get("SSH_AUTH_SOCK", "")
    return [(b"SSH_AUTH_SOCK", os.fsencode(agent))] if agent else []


def run_detached(
    app: App, create: Callable[[], Answer[Session]], shell_integration: ShellIntegration | None = None
) -> Answer[Session]:
    """Create a session and run its program; delete it again if that cannot be started. Raises: CommandError."""
    from orbit_protocol.methods import SESSION_DELETE, SESSION_GET
    from orbit_protocol.params import ById, SessionDelete

    session = create().value
    try:
        return start_session(app, session.id, shell_integration)
    except CommandError as error:
        if isinstance(error.__cause__, AlreadyRunning):  # another client has found it, and was quicker
            return app.ask(SESSION_GET, ById(id=session.id))
        with contextlib.suppress(CommandError):
            app.call(SESSION_DELETE, SessionDelete(id=session.id, purge=True))
        raise


def run_attached(
    app: App,
    create: Callable[[], Answer[Session]],
    detach_key: str | None,
    shell_integration: ShellIntegration | None = None,
) -> int:
    """Create a session, run its program and attach to it; return the exit code. Raises: CommandError."""
    require_terminal()
    key = parse_detach_key(app, detach_key)
    session = run_detached(app, create, shell_integration).value
    return attach_started(app, session, attach_options(app, session, key))


def attach_started(app: App, session: Session | Named, options: AttachOptions) -> int:
    """Attach to a session whose program was started just now; return the exit code. Raises: CommandError."""
    try:
        return exit_code_of(run_attach(app, session, options))
    except NotRunning:  # the program had exited before the attach reached the daemon
        return exit_code_of(_show_last_screen(app, session.id))
    except SignalReceived as received:
        return received.exit_code


def _show_last_screen(app: App | LocalDaemon, session_id: str) -> AttachResult:
    from orbit_protocol.methods import SESSION_GET, SESSION_SCREEN
    from orbit_protocol.params import ById, SessionScreen

    app.close()
    session = app.call(SESSION_GET, ById(id=session_id))
    if session.live:  # the attachment was ended before it was answered
        result = AttachResult(reason="detached_elsewhere")
        print_message(f"[{describe_result(short_name(session), result)}]")
        return result
    result = AttachResult(reason="exited", exit_code=session.exit_code, exit_signal=session.exit_signal)
    screen = app.call(SESSION_SCREEN, SessionScreen(id=session_id, format="vt"))
    text = app.call(SESSION_SCREEN, SessionScreen(id=session_id))
    with Terminal() as terminal:
        picture = RESET + binascii.a2b_base64(screen.data)
        picture = Window("").draw_first(picture, 0, terminal.size, ask_cursor(terminal))
        terminal.enter()
        terminal.show(picture)
        terminal.rows_below = rows_below(text.data, text.cols, text.cursor.row)
    print_message(f"[{describe_result(short_name(session), result)}]")
    return result


# Attach


def parse_detach_key(app: App, text: str | None) -> DetachKey:
    """Return the keys that detach: those of the configuration for None, or else the default ones.

    Raises:
        click.UsageError: The text is no key.
        CommandError: What the configuration has is none.
    """
    from orbitctl.app import checked

    if text is not None:
        with checked():
            return DetachKey(text)
    configured = app.paths.detach_key
    try:
        return DetachKey(DEFAULT_DETACH_KEY if configured is None else configured)
    except ValueError as error:
        raise CommandError(f"{app.paths.config_path}: `client.detach_key`: {error}", ExitCode.USAGE) from error


def attach_options(
    app: App | LocalDaemon,
    session: Session | Named,
    key: DetachKey,
    *,
    read_only: bool = False,
    scrollback: int | None = None,
) -> AttachOptions:
    """Return the options of an attach; the ssh agent is sent only to a daemon of this machine."""
    return AttachOptions(
        session_id=session.id,
        read_only=read_only,
        detach_key=key,
        scrollback_lines=scrollback,
        env=[] if app.hosts else attach_environment(app.environ),
        mark=_mark(app, session.id),
        shown=shown_here(app),
        how=_how_to_see(short_name(session)),
    )


def _mark(app: App | LocalDaemon, session_id: str) -> Mark:
    return Mark(marks_folder(app.paths), _window(app), f"{_hosts(app)}\0{session_id}")


def shown_here(app: App | LocalDaemon) -> Shown:
    """Return which sessions this window has shown, of the machine that is asked."""
    return Shown(marks_folder(app.paths), _window(app), f"{_hosts(app)}\0")


def _window(app: App | LocalDaemon) -> str:
    return window_name(sys.stdout.fileno(), app.environ)


def _hosts(app: App | LocalDaemon) -> str:
    return " ".join(str(host.address) for host in app.hosts)


def _how_to_see(name: str) -> str:
    return visible(f"`{typed('orbitctl session screen', name, options='--scrollback')}` shows what is kept")


def not_running_error(session: Session) -> CommandError:
    """Return why a session without a running program cannot be attached, with the next step."""
    name = short_name(session)
    if session.exit_code is not None or session.exit_signal is not None:
        how = describe_exit(session.exit_code, session.exit_signal)
        return CommandError(
            f"the program of {name} has {how} ({ago(session.last_active)})",
            ExitCode.CONFLICT,
            hint=f"`{typed('orbitctl session screen', name)}` shows its last screen, "
            f"`{typed('orbitctl session start', name)}` runs it again.",
        )
    if session.cols is not None:
        return CommandError(
            f"the program of {name} does not run: it was lost with a reboot, or with the process that held its PTY",
            ExitCode.CONFLICT,
            hint=f"`{typed('orbitctl session start', name)}` runs it again under its saved screen; "
            f"`{typed('orbitctl session screen', name)}` shows that.",
        )
    return CommandError(
        f"orbitd does not run {name}: it is only recorded here, or another application hosts it",
        ExitCode.CONFLICT,
        hint=f"`{typed('orbitctl session start', name)}` runs its program here; "
        "else attach in the application that hosts it.",
    )


def run_attach(app: App | LocalDaemon, session: Session | Named, options: AttachOptions) -> AttachResult:
    """Attach until the user detaches or the program exits, and print which.

    The window may be switched to other sessions meanwhile: the one that it shows last counts.

    Raises:
        NotRunning: The program does not run, at the first attach.
        CommandError: The daemon refuses, or has not come back.
        SignalReceived: A signal is to end this process; that it detached has been printed.
    """
    name = short_name(session)
    app.close()  # the attachment has a connection of its own
    connection = DaemonConnection(app.open_stream())  # may start a daemon; after `Reconnect` nothing here does
    reconnect = Reconnect(app)
    attachment: Attachment | None = None
    was_switched = False
    try:
        with Terminal(read_only=options.read_only) as terminal:
            attachment = Attachment(options, terminal, connection, reconnect)
            while (result := attachment.run()).reason == "switched":
                # What the old one shows stays in the window, as when it is left; the terminal stays in raw mode.
                terminal.leave_session()
                was_switched = True
                name = result.session_id[:8]
                options = options._replace(
                    session_id=result.session_id,
                    scrollback_lines=None,
                    mark=_mark(app, result.session_id),
                    how=_how_to_see(name),
                )
                attachment = Attachment(options, terminal, attachment.connection, reconnect)
    except SignalReceived:
        print_message(f"[detached from {_name_of(attachment, name)}]")
        raise
    except NotRunning as error:
        if not (was_switched or (attachment is not None and attachment.was_attached)):
            raise
        # It has ended while no daemon was there, or while its picture was to be drawn once more.
        try:
            return _show_last_screen(app, options.session_id)
        except (CommandError, ImportError):  # the daemon does not serve, or the installation has been replaced since
            raise from_daemon(error) from error
    except WouldLoop as error:
        message = f"{name} cannot be attached here: it would show itself"
        raise CommandError(message, ExitCode.CONFLICT, hint=error.hint) from error
    except OrbitError as error:
        raise from_daemon(error) from error
    print_message(f"[{describe_result(_name_of(attachment, name), result)}]")
    return result


def _name_of(attachment: Attachment | None, name: str) -> str:
    """Return a session's name as the daemon has it; `name` where it was not attached to."""
    return name if attachment is None or attachment.session is None else short_name(attachment.session)


# Report


def exit_code_of(result: AttachResult) -> int:
    """Return the exit code that a shell would give: the program's, 128+N after signal N; 0 after a detach."""
    if result.reason == "hangup":
        return HANGUP_EXIT_CODE
    if result.reason != "exited":
        return ExitCode.OK
    if result.exit_signal is not None:
        return 128 + result.exit_signal
    return ExitCode.ERROR if result.exit_code is None else result.exit_code


def describe_result(name: str, result: AttachResult) -> str:
    """Return one line about how an attachment ended."""
    if result.reason == "exited":
        return f"{name} {describe_exit(result.exit_code, result.exit_signal)}"
    if result.reason == "detached_elsewhere":
        return f"{name} was detached from elsewhere"
    if result.not_taken:
        count = "1 byte typed was" if result.not_taken == 1 else f"{result.not_taken} bytes typed were"
        return f"detached from {name}; {count} not taken by the program"
    return f"detached from {name}"


def describe_exit(exit_code: int | None, exit_signal: int | None) -> str:
    """Return how a program ended, in a few words."""
    if exit_signal is not None:
        return f"ended: {signal_name(exit_signal)}"
    if exit_code is not None:
        return f"ended: exit {exit_code}"
    return "does not run any more, and its exit status is lost; `orbitctl session start` starts it again"


def signal_name(number: int) -> str:
    """Return a signal's name, or its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        first = getattr(signal, "SIGRTMIN", 65)  # macOS has no real-time signals
        return f"SIGRTMIN+{number - first}" if number > first else f"signal {number}"


def short_name(session: Session | Named) -> str:
    """Return a session's name, or the beginning of its id."""
    return session.name or session.id[:8]


def print_message(line: str) -> None:
    """Write a line to stderr, past Python's buffers.

    After a hangup the terminal is gone and the write fails; in sys.stderr's buffer the line would
    fail once more when the interpreter flushes it at exit.
    """
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), visible(line).encode() + b"\n")
