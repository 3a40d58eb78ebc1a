"""Two ways of `orbitctl session list` beside the plain one: several `--host` in one table, and `--watch`.

Machines are asked one after the other, since each ssh may have to ask for a password on the one terminal. A
machine that fails does not hide the others: it is reported on stderr and by the exit code.
"""

from __future__ import annotations

import select
import shutil
import sys
import termios
import tty
from collections.abc import Callable
from datetime import datetime

import click
import msgspec
from msgspec import Raw, Struct

from orbit_protocol.methods import SESSION_LIST
from orbit_protocol.params import SessionList
from orbit_protocol.types import Session
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.client.client import ask_all
from orbitctl.client.ssh import Host
from orbitctl.commands.session_table import NO_SESSIONS, names_of_workspaces, session_columns
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.output import Column, is_smart_terminal

WATCH_SECONDS = 1.0
_ENTER = "\x1b[?1049h\x1b[?25l"  # alternate screen, cursor hidden
_LEAVE = "\x1b[H\x1b[J\x1b[?25h\x1b[?1049l"


class HostedSession(Struct, frozen=True, kw_only=True):
    """A session and its machine; `raw` is the session's JSON as it came."""

    host: Host
    session: Session
    raw: Raw


class _Page(Struct, frozen=True):
    sessions: list[Raw]


def list_of_hosts(app: App, params_at: Callable[[App], SessionList], limit: int | None) -> int:
    """List the sessions of every host in one table.

    Args:
        app: The app, with several hosts.
        params_at: Returns the params for one of them, whose workspaces have other ids.
        limit: The most sessions of each host.

    Returns:
        The exit code: 0, or that of the first host that failed.
    """
    sessions: list[HostedSession] = []
    names: dict[str, str] = {}
    errors: dict[Host, CommandError] = {}
    for host in app.hosts:
        at = app.at(host)
        try:
            found = _sessions_of(at, host, params_at(at), limit)
            if not (app.json or app.quiet):
                names |= names_of_workspaces(at, [one.session for one in found])
            sessions += found
        except CommandError as error:
            errors[host] = error
        finally:
            at.close()
    _show_hosted(app, sessions, names, errors)
    codes = [app.print_error(error, f"{host.label}: ") for host, error in errors.items()]
    return codes[0] if codes else ExitCode.OK


def _sessions_of(at: App, host: Host, params: SessionList, limit: int | None) -> list[HostedSession]:
    answer = ask_all(at.client, SESSION_LIST, params, "sessions", limit)
    raw_sessions: list[Raw] = answer.read(_Page).sessions
    pairs = zip(answer.value.sessions, raw_sessions, strict=True)
    return [HostedSession(host=host, session=session, raw=raw) for session, raw in pairs]


def _show_hosted(
    app: App, sessions: list[HostedSession], names: dict[str, str], errors: dict[Host, CommandError]
) -> None:
    if app.json:
        found = [{"host": one.host.name, **msgspec.json.decode(one.raw, type=dict[str, Raw])} for one in sessions]
        failed = [{"host": host.name, "message": error.message} for host, error in errors.items()]
        app.out.json(msgspec.json.encode({"sessions": found, "failed": failed}))
    elif app.quiet:
        for one in sessions:
            app.out.line(one.session.id)
    elif sessions or not app.out.terminal:
        app.out.table(_hosted_columns(names), sessions)
    else:
        app.out.note("no sessions")


def _hosted_columns(names: dict[str, str]) -> list[Column[HostedSession]]:
    def of_session(column: Column[Session]) -> Column[HostedSession]:
        style = column.style
        return Column(
            "SSH HOST" if column.title == "HOST" else column.title,
            lambda one, to: column.cell(one.session, to),
            None if style is None else lambda one: style(one.session),
            column.right,
            column.elastic,
            column.optional,
        )

    host: Column[HostedSession] = Column("HOST", lambda one, _: one.host.label, lambda _: "cyan", elastic=True)
    return [host, *map(of_session, session_columns(names))]


def watch_sessions(app: App, params: SessionList, limit: int | None) -> None:
    """Draw the table in place, once a second, until q, Ctrl-D or Ctrl-C.

    Raises:
        click.UsageError: stdin or stdout is not a terminal, or there are several hosts.
        CommandError: The daemon cannot be reached at first; later the message is shown instead of the table.
    """
    if not (app.out.terminal and sys.stdin.isatty() and is_smart_terminal()) or app.json or app.quiet:
        raise click.UsageError("--watch needs a terminal, and neither --json nor --quiet")
    if len(app.hosts) > 1:
        raise click.UsageError("--watch takes one machine")
    page = _page(app, params, limit)
    app.autostart = False  # a daemon that is stopped while this runs stays stopped
    saved = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)  # keys come at once and are not echoed; Ctrl-C stays a signal, unlike in raw mode
        sys.stdout.write(_ENTER)
        while True:
            _draw_page(page)
            if select.select([sys.stdin], [], [], WATCH_SECONDS)[0] and sys.stdin.read(1) in ("q", "Q", "\x04", ""):
                return
            page = _page_or_error(app, params, limit)
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


def _page_or_error(app: App, params: SessionList, limit: int | None) -> str:
    try:
        return _page(app, params, limit)
    except CommandError as error:
        app.close()  # the next attempt is made on a new connection
        return visible(error.message)


def _draw_page(page: str) -> None:
    height = shutil.get_terminal_size().lines
    lines = page.rstrip("\n").split("\n")
    if len(lines) > height - 1:
        lines = [*lines[: height - 2], f"... and {len(lines) - height + 2} more"]
    lines.append(f"\x1b[2m{datetime.now().astimezone():%H:%M:%S}  q ends\x1b[m")
    sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J")
    sys.stdout.flush()
