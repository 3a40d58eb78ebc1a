"""`orbitctl open` and `orbitctl workspace open|park`: all sessions of a workspace at once."""

from __future__ import annotations

import os

import click

from orbit_os.processes import own_umask, soft_limits
from orbit_os.shell import typed
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import from_object
from orbit_protocol.results import WorkspaceSessions
from orbit_protocol.types import Session, Workspace
from orbitctl.app import App
from orbitctl.client.client import Answer
from orbitctl.commands.arguments import WORKSPACE
from orbitctl.commands.session_table import label
from orbitctl.errors import CommandError, ExitCode, from_daemon
from orbitctl.ui.text import plural


@click.command(
    "open",
    epilog="""\b
Examples:
  orbitctl open shop
  orbitctl open shop --attach

It exits with 1 when a session could not be started.
""",
)
@click.argument("workspace", type=WORKSPACE)
@click.option("-a", "--attach", is_flag=True, help="Attach to its active session, or the first that runs.")
@click.pass_context
def open_(ctx: click.Context, workspace: str, attach: bool) -> int:
    """Start every session of a workspace that does not run.

    Each starts in its folder, at its last size, below its saved screen, with this environment. One that
    cannot be started is named, and stops no other. Sessions that an app hosts itself are left to it.
    """
    from orbitctl.attach.terminal import require_terminal

    app: App = ctx.obj
    if attach:
        require_terminal()
    found = find_to_open(app, workspace)
    answer = app.ask_long(m.WORKSPACE_OPEN, _params(app, found.id), f"opening {found.name}")
    opened = answer.value
    _show(app, answer, "has been started")
    target = _to_attach(opened)
    if attach and target is not None:
        return _attach(ctx, target.id) or _code(opened)
    if not (app.json or app.quiet):
        _say_what_next(app, opened, target)
    return _code(opened)


@click.command(
    epilog="""\b
Example: orbitctl workspace park shop

It exits with 1 when a program could not be ended.
""",
)
@click.argument("workspace", type=WORKSPACE)
@click.pass_obj
def park(app: App, workspace: str) -> int:
    """End the programs of a workspace; all else is kept.

    They get SIGHUP, and SIGKILL 5 s later. `orbitctl open` starts all of them again, each below its screen.
    """
    found = app.workspace(workspace)
    answer = app.ask_long(m.WORKSPACE_PARK, p.ById(id=found.id), f"parking {found.name}")
    parked = answer.value
    _show(app, answer, "has ended")
    if not (app.json or app.quiet):
        if not (parked.changed or parked.failed):
            app.out.note(f"nothing runs in workspace {found.name}")
        else:
            app.out.note(f"`{typed('orbitctl open', found.name)}` starts its sessions again")
    return _code(parked)


def find_to_open(app: App, ref: str) -> Workspace:
    """Return a workspace; where there is none and a file has the name, the error says how that is imported."""
    try:
        return app.workspace(ref)
    except CommandError as error:
        if error.exit_code is not ExitCode.NOT_FOUND or app.hosts or not os.path.isfile(ref):
            raise
        hint = f"`{typed('orbitctl workspace import', ref)}` makes a workspace of the file; then open that by its name."
        raise CommandError(error.message, error.exit_code, hint=hint) from error


def _params(app: App, workspace_id: str) -> p.WorkspaceOpen:
    """Return the params of an open, with what `session start` sends of this process."""
    from orbitctl.attach.run_attach import start_environment

    if app.hosts:  # programs get what a login there has
        return p.WorkspaceOpen(id=workspace_id)
    env, umask, limits = start_environment(app.environ), own_umask(), soft_limits()
    return p.WorkspaceOpen(id=workspace_id, env_bytes=env, umask=umask, limits=limits)


def _show(app: App, answer: Answer[WorkspaceSessions], done: str) -> None:
    """Print which sessions have changed; what failed with its reason, in any form of output."""
    found = answer.value
    sessions = {one.id: one for one in found.sessions}

    def draw(_: WorkspaceSessions) -> None:
        for session_id in found.changed:
            app.out.note(f"{label(sessions[session_id])} {done}")

    app.show(answer, draw, lambda _: found.changed)
    for each in found.failed:
        app.print_error(from_daemon(from_object(each.error)), f"{label(sessions[each.session_id])}: ")


def _say_what_next(app: App, opened: WorkspaceSessions, target: Session | None) -> None:
    """Print what was left as it is, and how to attach."""
    name, failed = opened.workspace.name, {each.session_id for each in opened.failed}
    if not opened.sessions:
        app.out.note(f"workspace {name} has no sessions; `{typed('orbitctl new --workspace', name)}` starts one")
        return
    untouched = [one for one in opened.sessions if one.id not in failed and one.id not in opened.changed]
    running = [one for one in untouched if one.live]
    if running:
        app.out.note(f"{plural(len(running), 'session')} ran already")
    for one in untouched:
        if not one.live:
            app.out.note(f"{label(one)} is left to the app that hosts it")
    if target is not None:
        app.out.note(f"`{typed('orbitctl a', target.name or target.id[:8])}` attaches")


def _to_attach(opened: WorkspaceSessions) -> Session | None:
    """Return the workspace's active session if it runs, else the first one that does."""
    running = [one for one in opened.sessions if one.live]
    active = [one for one in running if one.id == opened.workspace.active_session_id]
    return next(iter([*active, *running]), None)


def _attach(ctx: click.Context, session_id: str) -> int:
    from orbitctl.commands.session_create import attach_to

    try:
        attach_to(ctx, session_id)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    return ExitCode.OK


def _code(found: WorkspaceSessions) -> int:
    return ExitCode.ERROR if found.failed else ExitCode.OK
