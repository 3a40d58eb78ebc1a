"""`orbitctl status`, `stats` and `version`."""

from __future__ import annotations

import click
from msgspec import Raw

from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.methods import DAEMON_INFO, STATS_GET
from orbit_protocol.params import Params
from orbit_protocol.results import DaemonInfo, MaintenanceStatus, SessionStats
from orbitctl.app import App
from orbitctl.client.client import Answer, Client
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.text import ago, size

ANSWER_SECONDS = 5.0
"""How long a daemon has to say how it is, unless --timeout says otherwise: more than one that works needs."""


@click.command(epilog="Exits with 3 if no daemon runs, and starts none.")
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show whether the daemon runs, and its state."""
    app: App = ctx.obj
    limit_wait(app)
    client = app.find_client()
    if client is None:
        _show_not_running(app)
        ctx.exit(ExitCode.UNREACHABLE)
    try:
        info, stats = client.ask(DAEMON_INFO, Params()), _ask_stats(client)
    except CommandError as error:
        raise explained(app, client, error) from error
    if app.json:
        counted = None if stats is None else Raw(stats.raw)
        shown = {"running": True, "info": Raw(info.raw), "stats": counted, "warnings": warnings_of(info.value)}
        app.out.json(encode_message(shown))
    elif app.quiet:
        app.out.line(str(info.value.pid))
    else:
        _draw(app, info.value, None if stats is None else stats.value)


def _ask_stats(client: Client) -> Answer[SessionStats] | None:
    """Return what is stored; None where all connections are used, and ours serves little. A warning says so then."""
    try:
        return client.ask(STATS_GET, Params())
    except CommandError as error:
        if not error.is_busy:
            raise
        return None


def limit_wait(app: App) -> None:
    """Give a daemon of this machine `ANSWER_SECONDS`, where --timeout was not given."""
    if app.timeout is None and not app.hosts:
        app.timeout = ANSWER_SECONDS


def explained(app: App, client: Client, error: CommandError) -> CommandError:
    """Return the error to show for a call that failed: of a daemon of this machine that hangs, what to do."""
    if error.exit_code != ExitCode.TIMEOUT or not (pid := client.peer_pid()):
        return error
    from orbitctl.client.finding import hung

    return hung(app.paths, pid, app.timeout_seconds)


def _show_not_running(app: App) -> None:
    path = app.paths.socket_path
    if app.json:
        app.out.json(encode_message({"running": False, "socket_path": path}))
    elif not app.quiet:
        app.out.details([("orbitd", "not running"), ("socket", path), ("database", app.paths.resolved.database_path)])
        app.out.problem("hint", "`orbitctl daemon start` starts it; so does any command that needs it.", "36")


def _draw(app: App, info: DaemonInfo, stats: SessionStats | None) -> None:
    to = app.out.format
    pairs = [
        ("orbitd", f"running, version {info.version}, pid {info.pid}"),
        ("since", to.full_moment(info.started_at)),
        ("supervisor", info.supervisor if info.supervisor != "none" else "none (no service)"),
        ("socket", info.socket_path),
        ("database", f"{info.database_path} ({size(stats.database_bytes)})" if stats else info.database_path),
    ]
    if stats is not None:
        pairs += [
            ("sessions", _sessions(stats)),
            ("workspaces", str(stats.total_workspaces)),
            ("snapshots", str(stats.total_snapshots)),
            ("last auto-save", to.full_moment(stats.last_auto_save_at) if stats.last_auto_save_at else "never"),
        ]
    last_backup = to.full_moment(info.last_backup_at) if info.last_backup_at else "no automatic one yet"
    app.out.details([*pairs, ("last backup", last_backup)])
    for warning in warnings_of(info):
        app.out.problem("warning", warning, "33")


def _sessions(stats: SessionStats) -> str:
    return (
        f"{stats.active_sessions} active, {stats.detached_sessions} detached, "
        f"{stats.terminated_sessions} terminated, {stats.archived_sessions} archived"
    )


def warnings_of(info: DaemonInfo) -> list[str]:
    """Return the warnings of a daemon: its own, failed and overdue maintenance, another version."""
    failed = [task for task in info.maintenance if task.last_error or task.overdue]
    found = [*info.warnings, *map(_maintenance_warning, failed)]
    if info.version != VERSION:
        found.append(f"the daemon is version {info.version}, this is {VERSION}: `orbitctl daemon restart`")
    return found


def _maintenance_warning(task: MaintenanceStatus) -> str:
    succeeded = f"it last succeeded {ago(task.last_success_at)}" if task.last_success_at else "it has never succeeded"
    what = f"failed: {task.last_error}" if task.last_error else "is overdue"
    return f"{task.name} {what}; {succeeded}"


@click.command()
@click.pass_obj
def stats(app: App) -> None:
    """Show what is stored, and the size of the database."""
    app.show(app.ask(STATS_GET, Params()), lambda found: _draw_stats(app, found), lambda _: ())


def _draw_stats(app: App, found: SessionStats) -> None:
    to = app.out.format
    pairs: list[tuple[str, str | None]] = []
    for name in found.__struct_fields__:
        value = getattr(found, name)
        if name.endswith("_bytes"):
            pairs.append((name.removesuffix("_bytes").replace("_", " "), to.size(value)))
        elif name == "last_auto_save_at":
            pairs.append(("last auto-save", to.moment(value)))
        else:
            pairs.append((name.replace("_", " "), str(value)))
    app.out.details(pairs)


@click.command()
@click.pass_obj
def version(app: App) -> None:
    """Show the version of orbitctl, and of the daemon if one runs."""
    info: DaemonInfo | None = None
    has_failed = False
    limit_wait(app)
    try:
        client = app.find_client()
        info = None if client is None else client.call(DAEMON_INFO, Params())
    except CommandError as error:
        if error.exit_code not in (ExitCode.UNREACHABLE, ExitCode.TIMEOUT):
            raise
        has_failed = True
        app.out.problem("warning", error.message, "33")
    if app.json:
        daemon = {"version": info.version, "protocol_version": info.protocol_version} if info else None
        ours = {"version": VERSION, "protocol_version": PROTOCOL_VERSION}
        app.out.json(encode_message({"orbitctl": ours, "orbitd": daemon}))
        return
    app.out.line(f"orbitctl {VERSION} (protocol {PROTOCOL_VERSION})")
    if not app.quiet:
        unknown = "orbitd does not answer" if has_failed else "orbitd is not running"
        app.out.line(f"orbitd {info.version} (protocol {info.protocol_version})" if info else unknown)
