"""`orbitctl session start|attach|send|screen|wait|signal`: live sessions, whose programs orbitd runs."""

from __future__ import annotations

import base64
import sys
import time

import click

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol import results as r
from orbit_protocol.errors import Busy, NotRunning, OrbitError, ShuttingDown
from orbit_protocol.visible import visible
from orbitctl.app import App, checked
from orbitctl.client.client import Answer, Client
from orbitctl.client.transport import Unreachable
from orbitctl.commands.arguments import SESSION, read_bytes
from orbitctl.commands.session_table import label, show_session
from orbitctl.errors import CommandError, ExitCode, from_daemon

MAX_WAIT = 2_000_000.0
"""Seconds. poll(2) takes milliseconds as an int: 2**31 of them are 24.8 days."""
PART_BYTES = 64 * 1024
"""How much is typed in one call: each has the whole timeout, and several clients have room."""
RETRY_SECS = 0.05
_GRACE_SECONDS = 10.0
"""Seconds that the client waits longer than the daemon, so that the daemon's `timeout` error arrives first."""


@click.command(epilog="Example: orbitctl session start web")
@click.argument("session", type=SESSION)
@click.pass_obj
def start(app: App, session: str) -> None:
    """Start a session's program in the background.

    It gets this environment and the size of this window. If a screen was saved, it is shown
    above what the program prints. `attach` shows the session.
    """
    from orbitctl.attach.run_attach import start_session

    show_session(app, start_session(app, app.session(session).id))


@click.command(
    epilog="""\b
Examples:
  orbitctl session attach web
  orbitctl session attach web --read-only
  orbitctl session attach web --detach-key 'C-a d'

Keys are written C-a or ^a, M-a (Alt), or by name; several make a sequence; `none` turns it
off. ORBITCTL_DETACH_KEY changes the default. If orbitd restarts, orbitctl connects again.
""",
)
@click.argument("session", type=SESSION)
@click.option("-r", "--read-only", is_flag=True, help="Show the session only: no input, no change of size.")
@click.option("--detach-key", metavar="KEY", envvar="ORBITCTL_DETACH_KEY", help="The keys that detach [C-\\].")
@click.option(
    "--scrollback",
    type=click.IntRange(0, 1_000_000),
    metavar="N",
    help="Lines of history for this terminal [all that it does not have yet].",
)
@click.pass_context
def attach(ctx: click.Context, session: str, read_only: bool, detach_key: str | None, scrollback: int | None) -> None:
    r"""Attach to a session: show it here, and type into it.

    C-\ detaches, unless --detach-key names another key; the program goes on.
    """
    from orbitctl.attach import run_attach
    from orbitctl.attach.terminal import SignalReceived, require_terminal

    app: App = ctx.obj
    require_terminal()
    key = run_attach.parse_detach_key(detach_key)
    found = app.session(session)
    if not found.live:
        try:
            app.call(m.SESSION_WAIT, p.SessionWait(id=found.id, timeout_secs=0))
        except CommandError as error:
            if error.exit_code != ExitCode.CONFLICT:
                raise  # whether it runs is not known now, say
        raise run_attach.not_running_error(found)
    options = run_attach.attach_options(app, found, key, read_only=read_only, scrollback=scrollback)
    try:
        result = run_attach.run_attach(app, options)
    except NotRunning as error:
        raise from_daemon(error) from error
    except SignalReceived as received:
        ctx.exit(received.exit_code)
    # The program's exit code is that of `run`, which started it; an attach succeeds however it ended.
    ctx.exit(run_attach.HANGUP_EXIT_CODE if result.reason == "hangup" else 0)


@click.command(
    epilog="""\b
Examples:
  orbitctl session send web 'make test' --enter
  orbitctl session send web --key C-c
  orbitctl session send web --key Up --enter
  orbitctl session send web - < answers.txt
""",
)
@click.argument("session", type=SESSION)
@click.argument("text", nargs=-1)
@click.option("--key", "keys", multiple=True, metavar="KEY", help="A key after the text: C-c, Up, F1; may be repeated.")
@click.option("--enter", is_flag=True, help="Press Enter at the end.")
@click.pass_obj
def send(app: App, session: str, text: tuple[str, ...], keys: tuple[str, ...], enter: bool) -> None:
    """Send input to a session without attaching.

    TEXT is sent as it is, several words with a blank between them; `-` reads it from stdin.
    """
    data = read_bytes("-") if text == ("-",) else " ".join(text).encode(errors="surrogateescape")
    if not (data or keys or enter):
        raise click.UsageError("give a TEXT, --key or --enter")
    _check_keys(keys)
    found = app.session(session)
    data += _key_bytes(app, found.id, keys) + (b"\r" if enter else b"")
    answer = _type(app, found.id, data)
    if app.json or app.quiet:
        app.done(answer, "", found.id)


def _type(app: App, session_id: str, data: bytes) -> Answer[r.Empty]:
    """Type all of some input, at the pace of the program. Raises: CommandError, which says how much was typed."""
    typed, client = 0, app.client
    deadline = time.monotonic() + client.timeout
    while True:
        part = data[typed : typed + PART_BYTES]
        try:
            answer = app.ask(m.SESSION_SEND, p.SessionSend(id=session_id, data=part))
            taken: int | None = len(part)
            if typed + len(part) == len(data):
                return answer
        except CommandError as error:
            taken = _taken(client, error, len(part))
            if isinstance(error.__cause__, Busy) and (taken or time.monotonic() < deadline):
                time.sleep(RETRY_SECS)  # others have filled the session's queue; no event reports that there is room
            elif taken != len(part):
                raise _with_count(error, typed, taken, len(data)) from error
        if taken:
            typed += taken
            deadline = time.monotonic() + client.timeout


def _taken(client: Client, error: CommandError, size: int) -> int | None:
    """Return how many bytes were typed of a part that failed; None where that is not known."""
    cause: BaseException | None = error.__cause__
    if error.exit_code is ExitCode.TIMEOUT:
        try:
            cause = client.cancel()
        except CommandError:
            return None
        if cause is None:
            return size
    return int(cause.extra.get("written", 0)) if isinstance(cause, OrbitError) else None


def _with_count(error: CommandError, typed: int, taken: int | None, size: int) -> CommandError:
    """Return an error that says how much was typed before it."""
    count = typed + (taken or 0)
    if not count and error.exit_code in (ExitCode.NOT_FOUND, ExitCode.CONFLICT):
        return error
    details = (*error.details, f"{'' if taken is not None else 'at least '}{count} of {size} bytes were typed")
    return CommandError(error.message, error.exit_code, hint=error.hint, details=details, damaged_id=error.damaged_id)


def _check_keys(keys: tuple[str, ...]) -> None:
    """Check the names of keys before anything is sent. Raises: click.UsageError."""
    from orbitctl.attach.keys import key_bytes

    with checked():
        for key in keys:
            key_bytes(key, application=False)


def _key_bytes(app: App, session_id: str, keys: tuple[str, ...]) -> bytes:
    """Return the bytes that the keys send; those of cursor keys depend on a mode of the program's (DECCKM)."""
    from orbitctl.attach.keys import CURSOR_KEYS, key_bytes

    application = False
    if any(key.lower() in CURSOR_KEYS for key in keys):
        screen = app.call(m.SESSION_SCREEN, p.SessionScreen(id=session_id, format="vt"))
        application = b"\x1b[?1h" in base64.b64decode(screen.data)
    return b"".join(key_bytes(key, application=application) for key in keys)


@click.command(
    epilog="""\b
Examples:
  orbitctl session screen web
  orbitctl session screen web --scrollback | less
  orbitctl session screen web --format html > web.html
""",
)
@click.argument("session", type=SESSION)
@click.option("--scrollback", is_flag=True, help="Print the scrollback before it.")
@click.option(
    "--format", "how", type=click.Choice(["text", "vt", "html"]), default="text", help="Output format [text]."
)
@click.pass_obj
def screen(app: App, session: str, scrollback: bool, how: p.ScreenFormat) -> None:
    """Print a session's screen, live or as it was saved.

    `vt` is escape sequences that draw it on a terminal, with colours and styles.
    """
    found = app.session(session)
    answer = app.ask(m.SESSION_SCREEN, p.SessionScreen(id=found.id, format=how, scrollback=scrollback))
    app.show(answer, lambda shown: _print_screen(app, shown, how), lambda _: [found.id])


def _print_screen(app: App, shown: r.Screen, how: p.ScreenFormat) -> None:
    if how == "vt":
        app.out.bytes(base64.b64decode(shown.data))
        return
    lines = shown.data.split("\n")
    for line in lines[: len(lines) - (not lines[-1])]:
        sys.stdout.write((visible(line) if app.out.terminal else line) + "\n")


@click.command(epilog="Exits with 0 when it has exited, whatever its status, and with 6 after the timeout.")
@click.argument("session", type=SESSION)
@click.pass_obj
def wait(app: App, session: str) -> None:
    """Wait until a session's program exits, and print how.

    --timeout limits the wait; without it there is no limit. A restart of orbitd does not end it.
    """
    from orbitctl.attach.run_attach import signal_name

    limit, app.timeout = app.timeout, None
    found = app.session(session)
    answer = _wait(app, found.id, None if limit is None else time.monotonic() + limit)

    def draw(ended: r.Exit) -> None:
        if ended.exit_signal is not None:
            app.out.line(f"signal {signal_name(ended.exit_signal)}")
        else:
            app.out.line("unknown" if ended.exit_code is None else f"exit {ended.exit_code}")

    app.show(answer, draw, lambda _: [found.id])


def _wait(app: App, session_id: str, deadline: float | None) -> Answer[r.Exit]:
    """Wait for the program's exit, across restarts of the daemon. Raises: CommandError."""
    from orbitctl.attach.reconnect import wait_for_daemon

    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        params = p.SessionWait(id=session_id, timeout_secs=left)
        try:
            timeout = MAX_WAIT if left is None else min(left + _GRACE_SECONDS, MAX_WAIT)
            return app.client.ask(m.SESSION_WAIT, params, timeout)
        except CommandError as error:
            # Only a connection that was lost in the middle is made again; `Unreachable` is one that was never made.
            is_lost = error.exit_code == ExitCode.UNREACHABLE or isinstance(error.__cause__, ShuttingDown)
            if not is_lost or isinstance(error, Unreachable):
                raise
        wait_for_daemon(app)


@click.command(epilog="Example: orbitctl session signal web INT")
@click.argument("session", type=SESSION)
@click.argument("signal")
@click.pass_obj
def signal(app: App, session: str, signal: str) -> None:
    """Send a signal to a session's programs.

    By name: TERM, INT, HUP, KILL, USR1 and so on.
    """
    name = signal.upper()
    if name not in p.SIGNALS and f"SIG{name}" not in p.SIGNALS:
        raise click.UsageError(f"{signal!r} is no signal; TERM, INT and HUP are, for example")
    found = app.session(session)
    answer = app.ask(m.SESSION_SIGNAL, p.SessionSignal(id=found.id, signal=name))
    app.done(answer, f"sent {name} to session {label(found)}", found.id)
