"""`orbitctl session start|send|screen|wait|signal`: live sessions, whose programs orbitd runs."""

from __future__ import annotations

import base64
import contextlib
import math
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import replace

from orbit_os.shell import typed
from orbit_protocol import MAX_COLUMNS_OR_ROWS
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol import results as r
from orbit_protocol.errors import Busy, OrbitError, ShuttingDown, SnapshotNotFound
from orbit_protocol.settings import ShellIntegration
from orbit_protocol.types import Session
from orbit_protocol.visible import visible
from orbitctl.app import App, checked
from orbitctl.client.client import Answer, Client, check_params
from orbitctl.client.transport import Unreachable
from orbitctl.commands.arguments import SESSION, SHELL_INTEGRATION, WHEN, OptionalSession, SessionRef, read_bytes
from orbitctl.commands.session_table import label, show_session
from orbitctl.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from datetime import datetime

MAX_WAIT = 2_000_000.0
"""Seconds. poll(2) takes milliseconds as an int: 2**31 of them are 24.8 days."""
PART_BYTES = 64 * 1024
"""How much is typed in one call: each has the whole timeout, and several clients have room."""
RETRY_SECS = 0.05
THEMES = {
    "dark": p.Theme(
        foreground="#d0d0d0",
        background="#000000",
        palette=[
            *("#1d1f21", "#cc6666", "#b5bd68", "#f0c674", "#81a2be", "#b294bb", "#8abeb7", "#c5c8c6"),
            *("#666666", "#d54e53", "#b9ca4a", "#e7c547", "#7aa6da", "#c397d8", "#70c0b1", "#eaeaea"),
        ],
    ),
    "light": p.Theme(
        foreground="#1f2328",
        background="#ffffff",
        palette=[
            *("#24292f", "#c41e2a", "#1a6b34", "#7a5200", "#0b5cc4", "#7a44c9", "#17717a", "#6e7781"),
            *("#57606a", "#a40e26", "#1f8a42", "#8f6300", "#2380ee", "#9763e6", "#2b8fa3", "#8c959f"),
        ],
    ),
}
_GRACE_SECONDS = 10.0
"""Seconds that the client waits longer than the daemon, so that the daemon's `timeout` error arrives first."""


class _SessionOrText(SessionRef):
    """A session, or inside one a text of any length."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the reference in NFC, and what cannot be one as it is. Raises: click.BadParameter."""
        app = ctx.find_object(App) if ctx is not None else None
        if app is not None and app.this_session():
            return str(value)
        return super().convert(value, param, ctx)


@click.command(epilog="Example: orbitctl session start web")
@click.argument("session", type=SESSION)
@SHELL_INTEGRATION
@click.pass_obj
def start(app: App, session: str, shell_integration: ShellIntegration | None) -> None:
    """Start a session's program in the background.

    It gets this environment and the size of this window. If a screen was saved, it is shown
    above what the program prints. `attach` shows the session.
    """
    from orbitctl.attach.run_attach import start_session

    show_session(app, start_session(app, app.session(session, or_begins=True).id, shell_integration))


@click.command(
    epilog="""\b
Examples:
  orbitctl session send web 'make test' --enter
  orbitctl session send web --key C-c
  orbitctl session send web --key Up --key C-Right --key S-F5 --enter
  orbitctl session send web - < answers.txt

Keys: C-, M- and S- before a character or a name, in any case: Enter Tab BackTab Esc Space
Backspace Up Down Left Right Home End Insert Delete PageUp PageDown F1 to F20; tmux's names too.
--timeout counts from the last byte that the program has read.
""",
)
@click.argument("session", cls=OptionalSession, type=_SessionOrText(), required=False)
@click.argument("text", nargs=-1)
@click.option(
    "--key", "keys", multiple=True, metavar="KEY", help="A key after the text: C-c, Up, S-F5; may be repeated."
)
@click.option("--enter", is_flag=True, help="Press Enter at the end.")
@click.pass_obj
def send(app: App, session: str | None, text: tuple[str, ...], keys: tuple[str, ...], enter: bool) -> None:
    """Send input to a session without attaching.

    TEXT is sent as it is, several words with a blank between them; `-` reads it from stdin. In a
    session, one word that names no session, or none, is sent to this one.
    """
    found = None
    if not text and app.this_session():
        found, text = _found_inside(app, session)
    data = read_bytes("-") if text == ("-",) else " ".join(text).encode(errors="surrogateescape")
    if not (data or keys or enter):
        raise click.UsageError("give a TEXT, --key or --enter")
    _check_keys(keys)
    if found is None:
        found = app.session(app.named_or_this(session))
    data += _key_bytes(app, found.id, keys) + (b"\r" if enter else b"")
    answer = _type(app, found.id, data)
    if app.json or app.quiet:
        app.done(answer, "", found.id)


def _found_inside(app: App, word: str | None) -> tuple[Session, tuple[str, ...]]:
    """Return what a single word means inside a session: another session, or a text for this one."""
    this = app.session(app.named_or_this(None))
    if word is None:
        return this, ()
    try:
        return app.session(SESSION.convert(word, None, None)), ()
    except click.BadParameter:  # too long for a name, or no text
        return this, (word,)
    except CommandError as error:
        if error.exit_code is not ExitCode.NOT_FOUND:
            raise
        return this, (word,)


def _type(app: App, session_id: str, data: bytes) -> Answer[r.Empty]:
    """Type all of some input, at the pace of the program: the timeout counts from the last byte that it took.

    Raises:
        CommandError: It says how much was typed, also where Ctrl-C has ended it.
    """
    typed, asked, client = 0, 0, app.client
    deadline = time.monotonic() + client.timeout
    try:
        with client.interrupts_while_waiting():
            while True:
                part = data[typed : typed + PART_BYTES]
                try:
                    asked = len(part)
                    answer = app.ask(m.SESSION_SEND, p.SessionSend(id=session_id, data=part))
                    taken: int | None = len(part)
                    if typed + len(part) == len(data):
                        return answer
                except CommandError as error:
                    is_busy = isinstance(error.__cause__, Busy)
                    taken = _taken(client, error, len(part))
                    if not (
                        (is_busy or error.exit_code is ExitCode.TIMEOUT) and (taken or time.monotonic() < deadline)
                    ):
                        raise _with_count(error, typed, taken, len(data)) from error
                    if is_busy:
                        asked = 0
                        # Others have filled the session's queue; no event reports that there is room.
                        time.sleep(RETRY_SECS)
                if taken:
                    typed, asked = typed + taken, 0
                    deadline = time.monotonic() + client.timeout
    except KeyboardInterrupt:
        interrupted = CommandError("interrupted", ExitCode.INTERRUPTED)
        raise _with_count(interrupted, typed, _cancelled(client, asked), len(data)) from None


def _taken(client: Client, error: CommandError, size: int) -> int | None:
    """Return how many bytes were typed of a part that failed; None where that is not known."""
    if error.exit_code is ExitCode.TIMEOUT:
        return _cancelled(client, size)
    return _written(error.__cause__)


def _cancelled(client: Client, size: int) -> int | None:
    """Cancel the call that types a part of so many bytes; return how many were typed, None where that is not known."""
    if not size:
        return 0  # no call waits
    try:
        cause = client.cancel()
    except CommandError:
        return None
    return size if cause is None else _written(cause)


def _written(cause: BaseException | None) -> int | None:
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
    from orbitctl.attach.keys import depends_on_mode, key_bytes

    application = False
    if any(map(depends_on_mode, keys)):
        screen = app.call(m.SESSION_SCREEN, p.SessionScreen(id=session_id, format="vt"))
        application = b"\x1b[?1h" in base64.b64decode(screen.data)
    return b"".join(key_bytes(key, application=application) for key in keys)


@click.command(
    epilog="""\b
Examples:
  orbitctl session screen web
  orbitctl session screen web --lines 100
  orbitctl session screen web --at '10 minutes ago'
  orbitctl session screen web --scrollback | less
  orbitctl session screen web --format svg --theme light > web.svg
""",
)
@click.argument("session", type=SESSION)
@click.option(
    "--at", type=WHEN, metavar="WHEN", help="The screen as it was: '10 minutes ago', 15:10, a date and a time."
)
@click.option("--scrollback", is_flag=True, help="Print the scrollback before it.")
@click.option("--lines", type=click.IntRange(0, 1_000_000), help="Print so many lines; without --first-line, the last.")
@click.option(
    "--first-line", type=int, help="Begin at this line, 0 being the scrollback's first; -5 is the fifth last."
)
@click.option(
    "--format", "how", type=click.Choice(["text", "vt", "html", "svg"]), default="text", help="Output format [text]."
)
@click.option("--theme", type=click.Choice(list(THEMES)), help="Colours of html and svg [the last client's].")
@click.option("--no-cursor", is_flag=True, help="Draw html and svg without the cursor.")
@click.pass_obj
def screen(app: App, /, session: str, how: p.ScreenFormat, no_cursor: bool, theme: str | None, **options: Any) -> None:
    """Print a session's screen, live or as it was saved.

    With --at, as it was at that moment, out of its history. `vt` is escape sequences that draw it
    on a terminal, with colours and styles; `svg` is a picture, and `html` a piece of a page.
    --lines and --first-line count the scrollback too.
    """
    found = app.session(session, or_begins=True)
    params = p.SessionScreen(
        id=found.id, format=how, cursor=not no_cursor, theme=None if theme is None else THEMES[theme], **options
    )
    try:
        answer = app.ask(m.SESSION_SCREEN, params)
    except CommandError as error:
        if options["at"] is None or not isinstance(error.__cause__, SnapshotNotFound):
            raise
        raise no_film_error(found, options["at"], error.__cause__) from error
    app.show(answer, lambda shown: _print_screen(app, shown, how), lambda _: [found.id])


_NO_FILM = {
    "none": "Nothing is kept of a session that is private",
    "screen": "It is recorded without one (`screen`), and its text is in `orbitctl logs`",
    "full": "A session whose history was erased, or that has printed nothing yet has none",
}


def no_film_error(found: Session, at: datetime | None, cause: SnapshotNotFound) -> CommandError:
    """Return why there is no picture of a moment, or with None of any."""
    from datetime import UTC, datetime

    name = found.name or found.id
    since = cause.extra.get("since_ms")
    if at is None or not isinstance(since, int):
        return CommandError(
            f"no film of {name} is kept",
            ExitCode.NOT_FOUND,
            hint=f"{_NO_FILM[found.config.record]}; "
            f"`{typed('orbitctl session screen', name)}` shows its screen as it is now.",
        )
    begins = datetime.fromtimestamp(since / 1000, UTC).astimezone()
    return CommandError(
        f"no film of {name} is kept of {at.astimezone():%Y-%m-%d %H:%M:%S}: it begins at {begins:%Y-%m-%d %H:%M:%S}",
        ExitCode.NOT_FOUND,
        hint="Name a later moment; how long films are kept, [history] in config.toml says.",
    )


def _print_screen(app: App, shown: r.Screen, how: p.ScreenFormat) -> None:
    if how == "vt":
        app.out.bytes(base64.b64decode(shown.data))
        return
    lines = shown.data.split("\n")
    for line in lines[: len(lines) - (not lines[-1])]:
        sys.stdout.write((visible(line) if app.out.terminal else line) + "\n")


@click.command(
    epilog="""\b
Examples:
  orbitctl session wait web
  orbitctl session wait web --for text ready --timeout 30
  orbitctl session wait web --for silence --silence 2

Exits with 0 when it has happened, whatever the exit status, with 6 after the timeout, and with 5
if the program has ended before it.
""",
)
@click.argument("session", type=SESSION)
@click.argument("pattern", required=False)
@click.option(
    "--for",
    "wait_for",
    type=click.Choice(["exit", "output", "silence", "text", "command"]),
    default="exit",
    help="What to wait for [exit].",
)
@click.option("--silence", "silence_secs", type=float, metavar="SECONDS", help="How long a silence is [30].")
@click.pass_obj
def wait(app: App, session: str, pattern: str | None, wait_for: p.WaitFor, silence_secs: float | None) -> None:
    """Wait for a program's exit, or for something else of it.

    `output` is the next one; `silence`, that it has printed nothing for a while; `text PATTERN`, a line
    on the screen or one printed later that holds the PATTERN as it is, and the line is printed;
    `command`, that a command of its shell has finished, as far as the shell prints OSC 133.

    --timeout limits the wait; without it there is no limit. A restart of orbitd does not end it.
    """
    if (pattern is not None) != (wait_for == "text"):
        raise click.UsageError("--for text needs a PATTERN, and nothing else takes one")
    if silence_secs is not None and wait_for != "silence":
        raise click.UsageError("--silence is for --for silence")
    if silence_secs is not None and not math.isfinite(silence_secs):  # JSON has null for it, which is the default
        raise click.BadParameter(f"{silence_secs} is no number of seconds", param_hint="'--silence'")
    with checked():
        params = p.SessionWait(id=session, wait_for=wait_for, pattern=pattern, silence_secs=silence_secs)
        check_params(m.SESSION_WAIT, params)
    limit, app.timeout = app.timeout, None
    found = app.session(session, or_begins=True)
    waiting = _Wait(app, found, replace(params, id=found.id))
    answer = waiting.run(None if limit is None else time.monotonic() + limit)
    app.show(answer, lambda waited: _print_waited(app, waited, wait_for), lambda _: [found.id])


def _print_waited(app: App, waited: r.Waited, wait_for: p.WaitFor) -> None:
    from orbitctl.attach.run_attach import signal_name

    if wait_for in ("output", "silence"):
        app.out.line(wait_for)
    elif wait_for == "text":
        app.out.line(waited.line or "")
    elif waited.exit_signal is not None:
        app.out.line(f"signal {signal_name(waited.exit_signal)}")
    else:
        command = waited.command.command if waited.command is not None else None
        status = "unknown" if waited.exit_code is None else f"exit {waited.exit_code}"
        app.out.line(status if command is None else f"{status}: {command}")


class _Wait:
    """A wait that goes on across restarts of the daemon.

    Args:
        app: The app.
        session: The session, as it was before.
        params: What to wait for.
    """

    def __init__(self, app: App, session: Session, params: p.SessionWait) -> None:
        self._app, self._session, self._params = app, session, params
        self._lines = 0
        if params.wait_for == "text":
            with contextlib.suppress(CommandError):  # the wait itself may work all the same
                self._lines = self._screen(lines=0).total_lines or 0

    def run(self, deadline: float | None) -> Answer[r.Waited]:
        """Return what has happened. Raises: CommandError."""
        from orbitctl.attach.reconnect import wait_for_daemon

        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                timeout = MAX_WAIT if left is None else min(left + _GRACE_SECONDS, MAX_WAIT)
                return self._app.client.ask(m.SESSION_WAIT, replace(self._params, timeout_secs=left), timeout)
            except CommandError as error:
                # Only a connection that was lost in the middle is made again; `Unreachable` is one that was never made.
                is_lost = error.exit_code == ExitCode.UNREACHABLE or isinstance(error.__cause__, ShuttingDown)
                if not is_lost or isinstance(error, Unreachable):
                    raise
            wait_for_daemon(self._app)
            with contextlib.suppress(CommandError):  # of the session, say: the wait raises it
                if (waited := self._happened_meanwhile()) is not None:
                    return Answer(self._app.client, m.SESSION_WAIT, msgspec.json.encode(waited))

    def _happened_meanwhile(self) -> r.Waited | None:
        """Return what has happened while there was no daemon, as far as that can be seen now. Raises: CommandError."""
        nothing = r.Waited(exit_code=None, exit_signal=None)
        if self._params.wait_for == "text":
            # The lines that were on the screen, and all behind them: the ones before had been there already.
            shown = self._screen(first_line=max(0, self._lines - MAX_COLUMNS_OR_ROWS))
            first = max(0, self._lines - shown.rows - (shown.first_line or 0))
            lines = shown.data.split("\n")[first:]
            line = next((each for each in lines if (self._params.pattern or "") in each), None)
            return None if line is None else replace(nothing, line=line)
        if self._params.wait_for not in ("output", "command"):
            return None  # it is still so, or comes again
        now = self._app.call(m.SESSION_GET, p.ById(id=self._session.id))
        if self._params.wait_for == "output" and now.last_output_at is not None:
            return nothing  # of this daemon's time
        finished = now.last_command
        if self._params.wait_for == "command" and finished is not None and finished != self._session.last_command:
            return replace(nothing, exit_code=finished.exit_code, command=finished)
        return None

    def _screen(self, first_line: int = 0, lines: int | None = None) -> r.Screen:
        params = p.SessionScreen(id=self._session.id, first_line=first_line, lines=lines)
        return self._app.call(m.SESSION_SCREEN, params)


@click.command(
    epilog="""\b
Examples:
  orbitctl session signal web INT
  orbitctl session signal web 15
  orbitctl session signal web RTMIN+1
""",
)
@click.argument("session", type=SESSION)
@click.argument("signal")
@click.pass_obj
def signal(app: App, session: str, signal: str) -> None:
    """Send a signal to a session's programs.

    What runs in the foreground gets it, as with Ctrl-C. By name, in any case, with or
    without SIG (TERM, INT, HUP, KILL, USR1 and so on), or by number.
    """
    wanted, name = parse_signal(signal)
    found = app.session(session)
    answer = app.ask(m.SESSION_SIGNAL, p.SessionSignal(id=found.id, signal=wanted))
    app.done(answer, f"sent {name} to session {label(found)}", found.id)


def parse_signal(text: str) -> tuple[str | int, str]:
    """Return a signal as `session.signal` takes it, and as it is shown. Raises: click.UsageError."""
    name = text.upper().removeprefix("SIG")
    known = {number: long.removeprefix("SIG") for long, number in p.SIGNALS.items()}
    number: int | None = None
    if re.fullmatch(r"[0-9]{1,3}", name):
        number = int(name)
    elif realtime := re.fullmatch(r"RT(MIN|MAX)([+-][0-9]{1,2})", name):
        base = p.SIGNALS.get(f"SIGRT{realtime[1]}")
        number = None if base is None else base + int(realtime[2])
    elif f"SIG{name}" in p.SIGNALS:
        return name, name
    # `number` is what the daemon's own check calls it: None for what is no signal on this machine.
    if number is None or not 1 <= number <= 64 or p.SessionSignal(id="", signal=number).number is None:
        from difflib import get_close_matches

        near = get_close_matches(name, known.values())
        help_text = f"did you mean {' or '.join(near)}?" if near else "TERM, INT, HUP, 15 and RTMIN+1 are, for example"
        raise click.UsageError(f"{text!r} is no signal; {help_text}")
    return number, f"{known[number]} ({number})" if number in known else str(number)
