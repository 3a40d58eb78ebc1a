"""`orbitctl workspace`: named layouts that sessions belong to."""

from __future__ import annotations

import click
from msgspec import Raw

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.types import Workspace, WorkspaceLayout, WorkspaceLayoutInput
from orbitctl.app import App, checked
from orbitctl.client.client import Answer, ask_all
from orbitctl.commands.arguments import LAYOUT, LIMIT, SESSION, WORKSPACE
from orbitctl.commands.group import LazyGroup
from orbitctl.commands.list_options import Kind, ListOptions, fields_of, list_options, show_list
from orbitctl.commands.session_table import to_delete
from orbitctl.ui.listing import NAME_CELLS, Column, moment_cell

DEFAULT_LAYOUT_TYPE = "tabs"
COLUMNS = {
    "id": Column("ID", lambda row, view: view.short_id(row["id"]), rank=2),
    "name": Column("NAME", lambda row, _: row["name"], lambda _: "bold", floor=NAME_CELLS),
    "layout": Column("LAYOUT", lambda row, _: row["layout"]["layout_type"], rank=4, floor=12),
    "active": Column("ACTIVE SESSION", lambda row, view: view.short_id(row["active_session_id"] or ""), rank=3),
    "created": Column("CREATED", moment_cell("created_at"), rank=5),
}
_KIND = Kind(
    columns=COLUMNS,
    usual=list(COLUMNS),
    fields=fields_of(Workspace, layout=WorkspaceLayout),
    open_fields=("layout.config",),
    sort_values={"created": "created_at"},
)


LAZY = {
    "open": "orbitctl.commands.workspace_open:open_",
    "park": "orbitctl.commands.workspace_open:park",
    "export": "orbitctl.commands.workspace_file:export",
    "import": "orbitctl.commands.workspace_file:import_",
}
"""Commands of this group that are in other modules, imported when they are called."""


@click.group(cls=LazyGroup, lazy=LAZY)
def workspace() -> None:
    """Group sessions under a name and a layout.

    A layout is a type, such as `tabs`, and any JSON; orbitd returns it byte for byte to the
    program that draws it.
    """


@workspace.command(
    epilog="""\b
Examples:
  orbitctl workspace create shop
  orbitctl workspace create shop --layout-type splits --config '{"ratio": 0.5}'
  orbitctl workspace create shop --config @layout.json
""",
)
@click.argument("name")
@click.option("--layout-type", metavar="TYPE", default=DEFAULT_LAYOUT_TYPE, help="The type of the layout [tabs].")
@click.option("--config", type=LAYOUT, metavar="JSON|@FILE|-", help="The layout's own JSON [{}].")
@click.pass_obj
def create(app: App, name: str, layout_type: str, config: Raw | None) -> None:
    """Create a workspace and print it."""
    layout = WorkspaceLayoutInput(layout_type=layout_type, config=Raw(b"{}") if config is None else config)
    with checked():
        params = p.WorkspaceCreate(name=name, layout=layout)
    show_workspace(app, app.ask(m.WORKSPACE_CREATE, params))


@workspace.command("list")
@click.option("--limit", type=LIMIT, metavar="N", help="At most this many.")
@list_options
@click.pass_obj
def list_(app: App, limit: int | None, columns: str | None, template: str | None, sort: str | None) -> None:
    """List workspaces, oldest first.

    `orbitctl ls --help` says what --format takes.
    """
    options = ListOptions(_KIND, columns, template, sort)
    options.check(app)
    answer = ask_all(app.client, m.WORKSPACE_LIST, p.WorkspaceList(), "workspaces", limit)
    nothing = "no workspaces; `orbitctl workspace create NAME` makes one"
    show_list(app, answer, answer.value.workspaces, options, nothing)


@workspace.command()
@click.argument("workspace", type=WORKSPACE)
@click.pass_obj
def show(app: App, workspace: str) -> None:
    """Show everything about one workspace."""
    answer = app.ask(m.WORKSPACE_FIND, p.ByRef(ref=workspace))
    app.show(answer, lambda one: _details(app, one), lambda one: [one.id])


@workspace.command()
@click.argument("workspace", type=WORKSPACE)
@click.argument("name")
@click.pass_obj
def rename(app: App, workspace: str, name: str) -> None:
    """Give a workspace another name."""
    found = app.workspace(workspace)
    with checked():
        params = p.WorkspaceRename(id=found.id, name=name)
    show_workspace(app, app.ask(m.WORKSPACE_RENAME, params))


@workspace.command("set-layout", epilog="Example: orbitctl workspace set-layout shop --config - < layout.json")
@click.argument("workspace", type=WORKSPACE)
@click.option("--layout-type", metavar="TYPE", help="The type of the layout [as before].")
@click.option("--config", type=LAYOUT, metavar="JSON|@FILE|-", help="The layout's own JSON [as before].")
@click.pass_obj
def set_layout(app: App, workspace: str, layout_type: str | None, config: Raw | None) -> None:
    """Replace the layout of a workspace, or a part of it."""
    if layout_type is None and config is None:
        raise click.UsageError("give --layout-type, --config or both")
    found = app.workspace(workspace)
    layout = WorkspaceLayoutInput(
        layout_type=found.layout.layout_type if layout_type is None else layout_type,
        config=found.layout.config if config is None else config,
    )
    show_workspace(app, app.ask(m.WORKSPACE_UPDATE_LAYOUT, p.WorkspaceUpdateLayout(id=found.id, layout=layout)))


@workspace.command("set-active")
@click.argument("workspace", type=WORKSPACE)
@click.argument("session", type=SESSION, required=False)
@click.option("--none", "none", is_flag=True, help="Have no active session.")
@click.pass_obj
def set_active(app: App, workspace: str, session: str | None, none: bool) -> None:
    """Set the active session of a workspace."""
    if (session is None) != none:
        raise click.UsageError("give a SESSION or --none")
    found = app.workspace(workspace)
    active = app.session(session).id if session is not None else None
    params = p.WorkspaceSetActiveSession(id=found.id, session_id=active)
    show_workspace(app, app.ask(m.WORKSPACE_SET_ACTIVE_SESSION, params))


@workspace.command()
@click.argument("workspace", type=WORKSPACE)
@click.option("--delete-sessions", is_flag=True, help="Delete its sessions and their snapshots too.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(app: App, workspace: str, delete_sessions: bool, yes: bool) -> None:
    """Delete a workspace; its sessions stay, without a workspace."""
    workspace_id, label = to_delete(app.workspace, workspace)
    app.confirm(f"Delete workspace {label}{' and all its sessions' if delete_sessions else ''}?", yes)
    params = p.WorkspaceDelete(id=workspace_id, delete_sessions=delete_sessions)
    app.done(app.ask(m.WORKSPACE_DELETE, params), f"deleted workspace {label}", workspace_id)


def show_workspace(app: App, answer: Answer[Workspace]) -> None:
    """Show one workspace, as a row."""
    show_list(app, answer, [answer.value], ListOptions(_KIND, None, None, None), "")


def _details(app: App, one: Workspace) -> None:
    app.out.details(
        [
            ("id", one.id),
            ("name", one.name),
            ("layout type", one.layout.layout_type),
            ("layout", bytes(one.layout.config).decode(errors="replace")),
            ("active session", one.active_session_id),
            ("created", app.out.format.full_moment(one.created_at)),
        ]
    )
