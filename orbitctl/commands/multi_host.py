"""`session list` of several machines, in one table.

Machines are asked one after the other: each ssh may have to ask for a password on the one
terminal. A machine that fails does not hide the others; it is told on stderr and by the exit code.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw, Struct

from orbit_protocol.methods import SESSION_LIST
from orbit_protocol.params import SessionList
from orbit_protocol.types import Session
from orbitctl.app import App
from orbitctl.client.client import ask_all
from orbitctl.client.ssh import Host
from orbitctl.commands.session_table import session_columns
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.output import Column


class Kept(Struct, frozen=True, kw_only=True):
    """A session and the machine that keeps it; `raw` is the session as it came."""

    host: Host
    session: Session
    raw: Raw


class _Page(Struct, frozen=True):
    sessions: list[Raw]


def list_everywhere(app: App, params_at: Callable[[App], SessionList], limit: int | None) -> int:
    """Show the sessions of every host.

    Args:
        app: The app, with several hosts.
        params_at: Returns what is asked for on one of them.
        limit: The most that are wanted from each.

    Returns:
        The exit code: 0, or that of the first host that failed.
    """
    kept: list[Kept] = []
    names: dict[str, str] = {}
    failures: dict[Host, CommandError] = {}
    for host in app.hosts:
        at = app.at(host)
        try:
            found = _kept_at(at, host, params_at(at), limit)
            if not (app.json or app.quiet) and any(one.session.workspace_id for one in found):
                names |= at.workspace_names()
            kept += found
        except CommandError as failure:
            failures[host] = failure
        finally:
            at.close()
    _show(app, kept, names, failures)
    for host, why in failures.items():
        _tell(app, host, why)
    return next((why.exit_code for why in failures.values()), ExitCode.OK)


def _kept_at(at: App, host: Host, params: SessionList, limit: int | None) -> list[Kept]:
    answer = ask_all(at.client, SESSION_LIST, params, "sessions", limit)
    page = msgspec.json.decode(answer.raw, type=_Page)
    pairs = zip(answer.value.sessions, page.sessions, strict=True)
    return [Kept(host=host, session=session, raw=raw) for session, raw in pairs]


def _show(app: App, kept: list[Kept], names: dict[str, str], failures: dict[Host, CommandError]) -> None:
    if app.json:
        sessions = [{"host": one.host.name, **msgspec.json.decode(one.raw, type=dict[str, Raw])} for one in kept]
        failed = [{"host": host.name, "message": why.message} for host, why in failures.items()]
        app.out.json(msgspec.json.encode({"sessions": sessions, "failed": failed}))
    elif app.quiet:
        for one in kept:
            app.out.line(one.session.id)
    elif kept or not app.out.terminal:
        app.out.table(_columns(names), kept)
    else:
        app.out.note("no sessions")


def _columns(names: dict[str, str]) -> list[Column[Kept]]:
    def of_session(column: Column[Session]) -> Column[Kept]:
        style = column.style
        return Column(
            "SSH HOST" if column.title == "HOST" else column.title,
            lambda one, to: column.cell(one.session, to),
            None if style is None else lambda one: style(one.session),
            column.right,
            column.elastic,
            column.optional,
        )

    host: Column[Kept] = Column("HOST", lambda one, _: one.host.label, lambda _: "cyan", elastic=True)
    return [host, *map(of_session, session_columns(names))]


def _tell(app: App, host: Host, failure: CommandError) -> None:
    app.out.problem("error", f"{host.label}: {failure.message}")
    for detail in failure.details:
        app.out.note(f"  {detail}")
    if failure.hint:
        app.out.problem("hint", failure.hint, "36")
