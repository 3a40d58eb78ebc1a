"""Sessions as a table, and one session in detail; shared by the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from orbit_protocol.methods import DAEMON_INFO
from orbit_protocol.params import Params
from orbit_protocol.types import Session, Workspace
from orbit_protocol.visible import seconds
from orbitctl.app import App
from orbitctl.client.client import Answer
from orbitctl.errors import CommandError
from orbitctl.ui import listing
from orbitctl.ui.listing import LIST_COLUMNS, View, host_of, sessions_table
from orbitctl.ui.stdout import view_of_stdout

NO_SESSIONS = "no sessions; `orbitctl new` starts one, `orbitctl session create` records one"


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


def draw_sessions(app: App, sessions: list[Session]) -> None:
    """Draw a table of sessions, as `session list` does."""
    view = view_of_stdout(View, workspaces=names_of_workspaces(app, sessions))
    sys.stdout.write(sessions_table([row_of(one) for one in sessions], LIST_COLUMNS, view))


def row_of(one: Session) -> dict[str, Any]:
    """Return a session's JSON as plain objects."""
    row: dict[str, Any] = msgspec.to_builtins(one)
    return row


def names_of_workspaces(app: App, sessions: Sequence[Session]) -> dict[str, str]:
    """Return the names of workspaces by id; an empty dict, without a call, if no session is in one."""
    return app.workspace_names() if any(one.workspace_id for one in sessions) else {}


def _ended(one: Session) -> str | None:
    if one.exit_signal is not None:
        return f"signal {one.exit_signal}"
    return None if one.exit_code is None else f"exit {one.exit_code}"


def _news(one: Session) -> list[tuple[str, str | None]]:
    """Return what a program has said and done, where there is any."""
    found: list[tuple[str, str | None]] = []
    if (note := one.notification) is not None:
        text = ": ".join(each for each in (note.title, note.body) if each)
        found.append(("notification", f"{text} (critical)" if note.urgency == "critical" else text))
    if since := [word for word, is_set in (("bell", one.bell), ("output", one.unseen_output)) if is_set]:
        found.append(("since you left", ", ".join(since)))
    if one.progress is not None:
        percent = "" if one.progress.percent is None else f"{one.progress.percent}%"
        words = [percent, "" if one.progress.state == "normal" else one.progress.state]
        found.append(("progress", ", ".join(filter(None, words)) or "busy"))
    if (last := one.last_command) is not None:
        how: list[str] = [] if last.exit_code is None else [f"exit {last.exit_code}"]
        how += [] if last.duration_secs is None else [f"after {seconds(last.duration_secs)}"]
        how += [] if last.cwd is None else [f"in {last.cwd}"]
        found.append(("last command", f"{last.command or 'not known'} ({', '.join(how)})" if how else last.command))
    return found


_RECORDED = {"screen": "screens and text", "none": "nothing, it is private"}


def details(app: App, one: Session) -> None:
    """Show everything about one session; what only a live session has, if it is or was one."""
    to = app.out.format
    row, view = row_of(one), view_of_stdout(View, workspaces=names_of_workspaces(app, [one]))
    pairs = [
        ("id", one.id),
        ("name", one.name),
        ("status", one.status),
        ("type", one.session_type),
        ("host", host_of(row)),
        ("command", one.config.command),
        ("workspace", listing.workspace_of(row, view)),
        *(("label", f"{key}={value}") for key, value in sorted(one.labels.items())),
        *([("recorded", _RECORDED[one.config.record])] if one.config.record != "full" else []),
        *([("resume", one.config.resume)] if one.config.resume else []),
        ("created", to.full_moment(one.created_at)),
        ("last active", to.full_moment(one.last_active)),
    ]
    if one.cols is not None:
        pairs += [
            ("program", f"runs, pid {one.pid}" if one.live else "does not run"),
            ("ended", _ended(one)),
            ("size", listing.size_of(row)),
            ("clients", str(one.clients)),
            ("title", one.title),
            ("folder", one.cwd),
            *_news(one),
            ("screen", None if one.screen == "ok" else one.screen),
            *(("warning", warning) for warning in app.call(DAEMON_INFO, Params()).warnings if one.id in warning),
            ("last saved", to.full_moment(one.last_saved_at)),
        ]
    app.out.details(pairs)
