"""`orbitctl session`: list, show and change sessions; its other commands are in the modules of `LAZY`."""

from __future__ import annotations

from typing import Literal, cast

import click

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.methods import Method
from orbit_protocol.types import Session, SessionStatus, SessionType
from orbitctl.app import App, checked
from orbitctl.client.client import ask_all
from orbitctl.commands.arguments import LIMIT, SESSION, WORKSPACE
from orbitctl.commands.group import LazyGroup
from orbitctl.commands.session_table import details, draw_sessions, show_session, to_delete
from orbitctl.errors import ExitCode

STATUSES: tuple[SessionStatus, ...] = ("active", "detached", "terminated", "archived")
LAZY = {
    "create": "orbitctl.commands.session_create:create",
    "run": "orbitctl.commands.session_create:run",
    **{
        name: f"orbitctl.commands.session_live:{name}"
        for name in ("start", "attach", "send", "screen", "wait", "signal")
    },
    "snapshot": "orbitctl.commands.snapshot:save",
}
"""Commands of this group that are in other modules, imported when they are called."""


@click.group(cls=LazyGroup, lazy=LAZY)
def session() -> None:
    """Create, list and change sessions.

    A session is a terminal that is kept: `active` while a client is attached, `detached`
    while none is, `terminated` once it has ended, `archived` after `maintenance archive`.
    """


@session.command(
    "list",
    epilog="""\b
Examples:
  orbitctl session list
  orbitctl session list --status terminated --status archived
  orbitctl session list --workspace shop -q
  orbitctl session list --host local --host ssh://build.example
""",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([*STATUSES, "all"]),
    help="Sessions of this status; may be repeated [active, detached].",
)
@click.option("--type", "session_type", type=click.Choice(["local", "ssh"]), help="Sessions of this type.")
@click.option("--workspace", type=WORKSPACE, metavar="WORKSPACE", help="Sessions of this workspace.")
@click.option("--limit", type=LIMIT, metavar="N", help="At most this many.")
@click.option("--watch", is_flag=True, help="Draw the table again every second, until q.")
@click.pass_obj
def list_(
    app: App,
    statuses: tuple[str, ...],
    session_type: SessionType | None,
    workspace: str | None,
    limit: int | None,
    watch: bool,
) -> int:
    """List sessions, oldest first.

    With several --host, the sessions of each machine, with its name.
    """
    wanted = list(STATUSES) if "all" in statuses else cast("list[SessionStatus]", list(dict.fromkeys(statuses)))

    def params_at(one: App) -> p.SessionList:
        workspace_id = one.workspace(workspace).id if workspace else None
        return p.SessionList(status=wanted or None, session_type=session_type, workspace_id=workspace_id)

    if watch:
        from orbitctl.commands.session_list_views import watch_sessions

        return watch_sessions(app, params_at(app), limit)
    if len(app.hosts) > 1:
        from orbitctl.commands.session_list_views import list_of_hosts

        return list_of_hosts(app, params_at, limit)
    answer = ask_all(app.client, m.SESSION_LIST, params_at(app), "sessions", limit)
    app.show(
        answer,
        lambda page: draw_sessions(app, page.sessions),
        lambda page: [one.id for one in page.sessions],
    )
    return ExitCode.OK


@session.command()
@click.argument("session", type=SESSION)
@click.pass_obj
def show(app: App, session: str) -> None:
    """Show everything about one session."""
    answer = app.ask(m.SESSION_FIND, p.ByRef(ref=session))
    app.show(answer, lambda one: details(app, one), lambda one: [one.id])


@session.command(epilog="Example: orbitctl session rename web api")
@click.argument("session", type=SESSION)
@click.argument("name", required=False)
@click.option("--none", "unname", is_flag=True, help="Remove its name.")
@click.pass_obj
def rename(app: App, session: str, name: str | None, unname: bool) -> None:
    """Give a session another name, or none."""
    if (name is None) != unname:
        raise click.UsageError("give a NAME or --none")
    found = app.session(session)
    with checked():
        params = p.SessionRename(id=found.id, name=name)
    show_session(app, app.ask(m.SESSION_RENAME, params))


@session.command(epilog="Example: orbitctl session move api shop")
@click.argument("session", type=SESSION)
@click.argument("workspace", type=WORKSPACE, required=False)
@click.option("--none", "out", is_flag=True, help="Take it out of its workspace.")
@click.pass_obj
def move(app: App, session: str, workspace: str | None, out: bool) -> None:
    """Move a session to a workspace, or out of one."""
    if (workspace is None) != out:
        raise click.UsageError("give a WORKSPACE or --none")
    found = app.session(session)
    target = app.workspace(workspace).id if workspace is not None else None
    show_session(app, app.ask(m.SESSION_MOVE, p.SessionMove(id=found.id, workspace_id=target)))


@session.command("set-status")
@click.argument("session", type=SESSION)
@click.argument("status", type=click.Choice(["active", "detached", "terminated"]))
@click.pass_obj
def set_status(app: App, session: str, status: str) -> None:
    """Set the status of a session that another program hosts."""
    params = p.SessionUpdateStatus(
        id=app.session(session).id, status=cast("Literal['active', 'detached', 'terminated']", status)
    )
    show_session(app, app.ask(m.SESSION_UPDATE_STATUS, params))


@session.command()
@click.argument("session", type=SESSION)
@click.pass_obj
def detach(app: App, session: str) -> None:
    """Detach every client from a session, which goes on."""
    _change(app, m.SESSION_DETACH, session)


@session.command()
@click.argument("session", type=SESSION)
@click.pass_obj
def terminate(app: App, session: str) -> None:
    """End a session; its record and its snapshots stay."""
    _change(app, m.SESSION_TERMINATE, session)


@session.command()
@click.argument("session", type=SESSION)
@click.pass_obj
def restore(app: App, session: str) -> None:
    """Bring an archived session back, terminated."""
    _change(app, m.SESSION_RESTORE_ARCHIVED, session)


@session.command()
@click.argument("session", type=SESSION)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(app: App, session: str, yes: bool) -> None:
    """Delete a session and its snapshots for good."""
    session_id, shown = to_delete(app.session, session)
    app.confirm(f"Delete session {shown} and its snapshots?", yes)
    app.done(app.ask(m.SESSION_DELETE, p.SessionDelete(id=session_id)), f"deleted session {shown}", session_id)


def _change(app: App, method: Method[p.ById, Session], session: str) -> None:
    """Call a method whose only param is the session, and show the session that it returns."""
    show_session(app, app.ask(method, p.ById(id=app.session(session).id)))
