"""`orbitctl ls`, the list of sessions that a person reads, and `orbitctl session list`, which has all columns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import cast

import click

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.types import SessionPage, SessionStatus, SessionType
from orbitctl.app import App
from orbitctl.client.client import Answer, ask_all
from orbitctl.commands.arguments import LABEL, LIMIT, WORKSPACE
from orbitctl.commands.list_options import SessionOptions, drawn_sessions, list_options
from orbitctl.commands.session_table import NO_SESSIONS, row_of
from orbitctl.errors import ExitCode
from orbitctl.ui.listing import (
    LIST_COLUMNS,
    LS_ALL_COLUMNS,
    LS_COLUMNS,
    LS_DELETED_COLUMNS,
    View,
)
from orbitctl.ui.stdout import view_of_stdout

STATUSES: tuple[SessionStatus, ...] = ("active", "detached", "terminated", "archived")


def show_sessions(app: App, answer: Answer[SessionPage], options: SessionOptions, nothing: str = NO_SESSIONS) -> None:
    """Print the sessions of a page; on a terminal, `nothing` if there are none."""
    if app.json:
        app.out.json(answer.raw)
        return
    sessions = answer.value.sessions
    if app.quiet:
        for row in options.sorted([row_of(one) for one in sessions], view_of_stdout(View)):
            app.out.line(row["id"])
    elif not sessions and app.out.terminal and options.parts is None:
        app.out.note(nothing)
    else:
        sys.stdout.write(drawn_sessions(app, sessions, options))


def list_sessions(
    app: App, params_at: Callable[[App], p.SessionList], limit: int | None, watch: bool, options: SessionOptions
) -> int:
    """Print sessions, of several machines where several are named; return the exit code.

    Args:
        app: The app.
        params_at: Returns the params for one machine, whose workspaces have ids of their own.
        limit: The most sessions of each machine.
        watch: Whether to draw the table again and again.
        options: What is shown.
    """
    options.check(app)
    if watch:
        from orbitctl.commands.session_list_views import watch_sessions

        return watch_sessions(app, params_at(app), limit, options)
    if len(app.hosts) > 1:
        from orbitctl.commands.session_list_views import list_of_hosts

        return list_of_hosts(app, params_at, limit, options)
    params = params_at(app)
    nothing = "no such session; `orbitctl ls -a` lists all" if params.labels or params.workspace_id else NO_SESSIONS
    show_sessions(app, ask_all(app.client, m.SESSION_LIST, params, "sessions", limit), options, nothing)
    return ExitCode.OK


def list_deleted(app: App, limit: int | None, options: SessionOptions) -> int:
    """Print the sessions in the trash; return the exit code."""
    options.check(app)
    answer = ask_all(app.client, m.SESSION_LIST_DELETED, p.SessionListDeleted(), "sessions", limit)
    show_sessions(app, answer, options, "the trash is empty")
    return ExitCode.OK


def statuses_of(words: Sequence[str]) -> list[SessionStatus] | None:
    """Return the statuses that `--status` asks for; None for those that are listed anyway."""
    if "all" in words:
        return list(STATUSES)
    return cast("list[SessionStatus]", list(dict.fromkeys(words))) or None


STATUS_OPTION = click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([*STATUSES, "all"]),
    help="Sessions of this status; may be repeated [active, detached].",
)


@click.command(
    epilog="""\b
Examples:
  orbitctl ls
  orbitctl ls -a --sort -idle
  orbitctl ls --label team=web --columns name,status,folder
  orbitctl ls --format '{id}\\t{NAME}\\t{config.command}'
""",
)
@click.option("-a", "--all", "ended", is_flag=True, help="Those that have ended, too.")
@STATUS_OPTION
@click.option("-l", "--label", "labels", multiple=True, type=LABEL, metavar="KEY=VALUE", help="Those with this label.")
@click.option("--workspace", type=WORKSPACE, metavar="WORKSPACE", help="Sessions of this workspace.")
@click.option("--deleted", is_flag=True, help="Those in the trash instead; `orbitctl undelete` brings one back.")
@click.option("--limit", type=LIMIT, metavar="N", help="At most this many.")
@click.option("--watch", is_flag=True, help="Draw the table again every second, until q.")
@list_options
@click.pass_obj
def ls(
    app: App,
    ended: bool,
    statuses: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    workspace: str | None,
    deleted: bool,
    limit: int | None,
    watch: bool,
    columns: str | None,
    template: str | None,
    sort: str | None,
) -> int:
    """List sessions, oldest first.

    \b
    STATUS is
      attached, detached   its program runs, with or without a window on it
      exit 1, signal KILL  its program has ended
      lost                 it ran, until the machine went down or ssh lost its connection
      recorded             it has never run here

    IDLE is the time since the last output or key. COMMAND is the title that a running program
    has set, else its command. A session without a name shows the first digits of its id.

    \b
    NEWS is what has happened since you left, and the progress that a program shows:
      notification         it has said something; `orbitctl session show` has the words
      bell                 its bell has rung
      output               it has printed
      45%, busy            how far it is; `error` and `paused` where it says so

    `*` marks the session that this runs in, `!` one that wants to be looked at: it has said
    something, its bell has rung, or its picture is damaged.

    --format prints a line for each session: {name}, {config.command} and {labels.KEY} are
    fields of the session's JSON, {idle} is a column, and {STATUS}, in capitals, always is.
    On a narrow terminal columns are left out and COMMAND is cut before a name is.
    """  # noqa: D301  # \b is click's
    if deleted:
        if ended or statuses or labels or workspace or watch:
            raise click.UsageError("--deleted stands alone, or with --limit")
        return list_deleted(app, limit, SessionOptions(LS_DELETED_COLUMNS, True, columns, template, sort))
    wanted = statuses_of(statuses)
    if ended and not statuses:
        wanted = ["active", "detached", "terminated"]

    def params_at(one: App) -> p.SessionList:
        workspace_id = one.workspace(workspace).id if workspace else None
        return p.SessionList(status=wanted, workspace_id=workspace_id, labels=dict(labels) or None)

    usual = LS_ALL_COLUMNS if ended else LS_COLUMNS
    return list_sessions(app, params_at, limit, watch, SessionOptions(usual, True, columns, template, sort))


@click.command(
    "list",
    epilog="""\b
Examples:
  orbitctl session list
  orbitctl session list --status terminated --status archived
  orbitctl session list --workspace shop -q
  orbitctl session list --sort -idle --columns id,name,idle
  orbitctl session list --host local --host ssh://build.example
""",
)
@STATUS_OPTION
@click.option("--type", "session_type", type=click.Choice(["local", "ssh"]), help="Sessions of this type.")
@click.option("--workspace", type=WORKSPACE, metavar="WORKSPACE", help="Sessions of this workspace.")
@click.option("--label", "labels", multiple=True, type=LABEL, metavar="KEY=VALUE", help="Sessions with this label.")
@click.option("--deleted", is_flag=True, help="Those in the trash, the one that was deleted last first.")
@click.option("--limit", type=LIMIT, metavar="N", help="At most this many.")
@click.option("--watch", is_flag=True, help="Draw the table again every second, until q.")
@list_options
@click.pass_obj
def list_(
    app: App,
    statuses: tuple[str, ...],
    session_type: SessionType | None,
    workspace: str | None,
    labels: tuple[tuple[str, str], ...],
    deleted: bool,
    limit: int | None,
    watch: bool,
    columns: str | None,
    template: str | None,
    sort: str | None,
) -> int:
    """List sessions, oldest first.

    With several --host, the sessions of each machine, with its name. NEWS is what has happened
    since you left (`notification`, `bell`, `output`), and a program's progress. `orbitctl ls` is
    a shorter list; its help says more of NEWS, and what --format takes.
    """
    if deleted:
        if statuses or session_type or workspace or labels or watch:
            raise click.UsageError("--deleted stands alone, or with --limit")
        return list_deleted(app, limit, SessionOptions(LS_DELETED_COLUMNS, False, columns, template, sort))

    def params_at(one: App) -> p.SessionList:
        return p.SessionList(
            status=statuses_of(statuses),
            session_type=session_type,
            workspace_id=one.workspace(workspace).id if workspace else None,
            labels=dict(labels) or None,
        )

    return list_sessions(app, params_at, limit, watch, SessionOptions(LIST_COLUMNS, False, columns, template, sort))
