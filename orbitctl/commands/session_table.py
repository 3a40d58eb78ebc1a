"""Sessions as a table, and one session in detail; shared by the commands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from orbit_protocol.methods import DAEMON_INFO
from orbit_protocol.params import Params
from orbit_protocol.types import Session, Workspace
from orbitctl.app import App
from orbitctl.client.client import Answer
from orbitctl.errors import CommandError
from orbitctl.ui.output import STATUS_STYLES, Column
from orbitctl.ui.text import duration

NO_SESSIONS = "no sessions; `orbitctl session run` starts one, `orbitctl session create` records one"


def label(found: Session | Workspace) -> str:
    """Return a name and a short id, for messages."""
    return f"{found.name} ({found.id[:8]})" if found.name else found.id


def to_delete(find: Callable[[str], Session | Workspace], ref: str) -> tuple[str, str]:
    """Return the id of a session or workspace, and its label; one whose row cannot be read can be deleted too.

    Args:
        find: `App.session` or `App.workspace`.
        ref: What the user typed.

    Raises:
        CommandError: Nothing fits.
    """
    try:
        found = find(ref)
    except CommandError as error:
        if error.damaged_id is None:
            raise
        return error.damaged_id, f"{error.damaged_id} (its row is damaged)"
    return found.id, label(found)


def show_session(app: App, answer: Answer[Session]) -> None:
    """Show one session, as a row."""
    app.show(answer, lambda one: draw_sessions(app, [one]), lambda one: [one.id])


def draw_sessions(app: App, sessions: list[Session], nothing: str = NO_SESSIONS) -> None:
    """Draw a table of sessions; on a terminal, print `nothing` if there are none."""
    if not sessions and app.out.terminal:
        app.out.note(nothing)
        return
    app.out.table(session_columns(names_of_workspaces(app, sessions)), sessions)


def names_of_workspaces(app: App, sessions: list[Session]) -> dict[str, str]:
    """Return the names of workspaces by id; an empty dict, without a call, if no session is in one."""
    return app.workspace_names() if any(one.workspace_id for one in sessions) else {}


def session_columns(names: dict[str, str]) -> list[Column[Session]]:
    """Return the columns of a table of sessions; `names` are the workspaces' by id."""
    return [
        Column("ID", lambda one, to: to.id(one.id)),
        Column("NAME", lambda one, _: one.name, lambda _: "bold", elastic=True),
        Column("STATUS", lambda one, _: one.status, lambda one: STATUS_STYLES.get(one.status, "")),
        Column("TYPE", lambda one, _: one.session_type),
        Column("HOST", lambda one, _: _host(one), elastic=True, optional=True),
        Column("WORKSPACE", lambda one, _: _workspace(one, names), elastic=True, optional=True),
        Column("LIVE", lambda one, _: "live" if one.live else None, lambda _: "green", optional=True),
        Column("SIZE", lambda one, _: _size(one) if one.live else None, optional=True),
        Column("CLIENTS", lambda one, _: str(one.clients) if one.live else None, right=True, optional=True),
        Column("IDLE", lambda one, _: duration((datetime.now(UTC) - one.last_active).total_seconds()), right=True),
        Column("SAVED", lambda one, to: to.moment(one.last_saved_at), optional=True),
        Column("COMMAND", lambda one, _: one.config.command or one.title or _shell(one), elastic=True),
    ]


def _host(one: Session) -> str | None:
    """Return `user@host:port`, without the parts that are not set."""
    if one.config.host is None:
        return None
    user = f"{one.config.username}@" if one.config.username else ""
    return user + one.config.host + (f":{one.config.port}" if one.config.port else "")


def _workspace(one: Session, names: dict[str, str]) -> str | None:
    return names.get(one.workspace_id or "", one.workspace_id)


def _shell(one: Session) -> str | None:
    """Return what stands in COMMAND for a session without one, if it has ever run here."""
    return "(login shell)" if one.cols is not None and one.session_type == "local" else None


def _size(one: Session) -> str | None:
    return f"{one.cols}x{one.rows}" if one.cols and one.rows else None


def _ended(one: Session) -> str | None:
    if one.exit_signal is not None:
        return f"signal {one.exit_signal}"
    return None if one.exit_code is None else f"exit {one.exit_code}"


def details(app: App, one: Session) -> None:
    """Show everything about one session; what only a live session has, if it is or was one."""
    to = app.out.format
    names = names_of_workspaces(app, [one])
    pairs = [
        ("id", one.id),
        ("name", one.name),
        ("status", one.status),
        ("type", one.session_type),
        ("host", _host(one)),
        ("command", one.config.command),
        ("workspace", _workspace(one, names)),
        ("created", to.full_moment(one.created_at)),
        ("last active", to.full_moment(one.last_active)),
    ]
    if one.cols is not None:
        pairs += [
            ("program", f"runs, pid {one.pid}" if one.live else "does not run"),
            ("ended", _ended(one)),
            ("size", _size(one)),
            ("clients", str(one.clients)),
            ("title", one.title),
            ("folder", one.cwd),
            ("screen", None if one.screen == "ok" else one.screen),
            *(("warning", warning) for warning in app.call(DAEMON_INFO, Params()).warnings if one.id in warning),
            ("last saved", to.full_moment(one.last_saved_at)),
        ]
    app.out.details(pairs)
