"""`session list --watch`: the table in place, anew every second, until q or Ctrl-C."""

from __future__ import annotations

import select
import sys
import termios
import tty
from datetime import datetime

import click

from orbit_protocol.methods import SESSION_LIST
from orbit_protocol.params import SessionList
from orbitctl.app import App
from orbitctl.client.client import ask_all
from orbitctl.commands.session_table import NO_SESSIONS, names_of_workspaces, session_columns
from orbitctl.errors import CommandError
from orbitctl.ui.output import is_smart_terminal
from orbitctl.ui.text import visible

SECONDS = 1.0
_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[H\x1b[J\x1b[?25h\x1b[?1049l"


def watch_sessions(app: App, params: SessionList, limit: int | None) -> None:
    """Show sessions until the user has seen enough.

    Raises:
        click.UsageError: There is no terminal for it.
        CommandError: The daemon cannot be reached at first; later, that is shown in the table's place.
    """
    if not (app.out.terminal and sys.stdin.isatty() and is_smart_terminal()) or app.json or app.quiet:
        raise click.UsageError("--watch needs a terminal; elsewhere ask again, or with --json")
    if len(app.hosts) > 1:
        raise click.UsageError("--watch looks at one machine")
    page = _page(app, params, limit)
    app.autostart = False
    saved = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write(_ENTER)
        while True:
            _draw(page)
            if select.select([sys.stdin], [], [], SECONDS)[0] and sys.stdin.read(1) in ("q", "Q", "\x04", ""):
                return
            page = _page_or_why_not(app, params, limit)
    except KeyboardInterrupt:
        return
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSANOW, saved)


def _page(app: App, params: SessionList, limit: int | None) -> str:
    sessions = ask_all(app.client, SESSION_LIST, params, "sessions", limit).value.sessions
    if not sessions:
        return NO_SESSIONS
    return app.out.drawn(session_columns(names_of_workspaces(app, sessions)), sessions)


def _page_or_why_not(app: App, params: SessionList, limit: int | None) -> str:
    try:
        return _page(app, params, limit)
    except CommandError as failure:
        app.close()  # the next look connects anew
        return visible(failure.message)


def _draw(page: str) -> None:
    import shutil

    height = shutil.get_terminal_size().lines
    lines = page.rstrip("\n").split("\n")
    if len(lines) > height - 1:
        lines = [*lines[: height - 2], f"... and {len(lines) - height + 2} more"]
    lines.append(f"\x1b[2m{datetime.now().astimezone():%H:%M:%S}  q ends\x1b[m")
    sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J")
    sys.stdout.flush()
