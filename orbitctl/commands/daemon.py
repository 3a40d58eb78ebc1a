"""`orbitctl daemon`: run, start, stop and watch orbitd."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque

import click
import msgspec

from orbit_os.files import UnsafeFile, check_file, open_private
from orbit_os.lock_note import Holder
from orbit_os.python import python_command
from orbit_protocol.methods import DAEMON_CONNECTIONS, DAEMON_INFO, SESSION_LIST, SESSION_SIGNAL, SESSION_TERMINATE
from orbit_protocol.params import ById, Params, SessionList, SessionSignal
from orbit_protocol.results import ConnectionInfo, DaemonInfo
from orbit_protocol.text import path_text
from orbit_protocol.types import Session
from orbitctl.app import App
from orbitctl.client.client import Client, ask_all
from orbitctl.client.finding import read_lock_note
from orbitctl.client.transport import Unreachable
from orbitctl.commands.group import LazyGroup
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.output import Column
from orbitctl.ui.spinner import spinner
from orbitctl.ui.text import plural


@click.group(cls=LazyGroup)
def daemon() -> None:
    """Run, start, stop and watch orbitd.

    Commands that need the daemon start it by themselves; `orbitctl service install` has
    systemd or launchd run it.
    """


@daemon.command(epilog="Example: orbitctl daemon run --log-level debug")
@click.option("--config", type=click.Path(), metavar="FILE", help="Configuration file (TOML).")
@click.option("--database", type=click.Path(), metavar="FILE", help="Database file.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least severe events.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How events are written.")
@click.pass_obj
def run(app: App, config: str | None, database: str | None, log_level: str | None, log_format: str | None) -> None:
    """Run orbitd in the foreground, in place of this process."""
    given = {
        "--config": config,
        "--socket": app.socket,
        "--database": database,
        "--log-level": log_level,
        "--log-format": log_format,
    }
    options = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    command = python_command("orbitd", *options)
    # exec, not a child: a supervisor that runs this has orbitd's own pid, and signals reach it directly.
    try:
        os.execv(command[0], command)  # noqa: S606  # our own program, no shell
    except OSError as error:
        raise CommandError(f"cannot run {command[0]}: {error.strerror}") from error


@daemon.command()
@click.option("--lock-fd", type=int, hidden=True, help="The start lock, held by the client that starts this.")
@click.pass_obj
def start(app: App, lock_fd: int | None) -> None:
    """Start orbitd in the background, unless it runs already.

    If its service is installed, the service is started.
    """
    if lock_fd is not None:
        from orbitctl.client.daemon import start as start_daemon

        start_daemon(app.paths, app.timeout_seconds, app.out, lock_fd).close()
        return
    client = app.find_client(may_start=True)
    if client is not None:
        _show(app, client, "orbitd runs already")
    else:
        app.autostart = True
        _show(app, app.client, "orbitd started")


_FORCE = click.option("--force", is_flag=True, help="End one that hangs: by SIGTERM, after 5 s by SIGKILL.")


@daemon.command(epilog="Exits with 0 if none runs.")
@click.option("--all", "programs_too", is_flag=True, help="End the programs of live sessions first.")
@_FORCE
@click.pass_obj
def stop(app: App, programs_too: bool, force: bool) -> None:
    """Stop orbitd and wait until it has exited.

    It answers requests in flight and saves first. Programs of live sessions go on, unless
    --all is given: then each gets SIGHUP, and is killed after 5 s.
    A daemon that hangs is ended by --force. What it has answered is on disk, and is not lost.
    """
    from orbitctl.client.daemon import STOP_BY_FORCE

    app.way_out = "" if force else STOP_BY_FORCE
    ended = None
    if programs_too:
        try:
            ended = _end_programs(app)
        except CommandError as error:
            if not force or error.exit_code != ExitCode.TIMEOUT:
                raise
            app.out.problem("warning", f"{error.message}; programs of live sessions go on", "33")
    gone = _gone_database(app)
    pid = app.stop_daemon(force=force)
    if gone is not None and pid is not None:
        app.out.problem(
            "warning",
            f"the database {gone} was not there, so the last screens were not saved in it; what was printed since is "
            "in the journals. If it was moved, put it back before orbitd starts again",
            "33",
        )
    if app.json:
        app.out.json(msgspec.json.encode({"stopped": pid} if ended is None else {"stopped": pid, "ended": ended}))
    elif not app.quiet:
        if ended:
            app.out.note(f"{plural(ended, 'program')} ended")
        app.out.note("orbitd is not running" if pid is None else f"orbitd stopped (pid {pid})")


def _gone_database(app: App) -> str | None:
    """Return the path of the running daemon's database if there is none any more."""
    try:
        # The daemon is asked only where ours is missing: it may have another one.
        if not app.hosts and not os.path.lexists(app.paths.database_path) and app.find_client() is not None:
            path = app.call(DAEMON_INFO, Params()).database_file
            return None if os.path.lexists(path) else path_text(path)
    except CommandError:
        app.close()  # the daemon may have closed the connection, as one does that has no room
    return None


@daemon.command()
@_FORCE
@click.pass_obj
def restart(app: App, force: bool) -> None:
    """Stop orbitd, if it runs, and start it again."""
    app.way_out = "" if force else None
    try:
        app.stop_daemon(force=force)
    except Unreachable as error:
        if not error.may_start:
            raise
    app.way_out = None  # of another that hangs
    app.autostart = True  # `stop_daemon` has turned it off; the next connection starts a daemon
    _show(app, app.client, "orbitd restarted")


@daemon.command(epilog="Works when all connections are used, too.")
@click.pass_obj
def connections(app: App) -> None:
    """List who is connected to the daemon, this command included.

    A program with many connections that it does not use keeps others out (max_connections).
    """
    answer = app.ask(DAEMON_CONNECTIONS, Params())
    columns: list[Column[ConnectionInfo]] = [
        Column("PID", lambda one, _: None if one.pid is None else str(one.pid)),
        Column("PROGRAM", lambda one, _: one.program, rank=2, floor=16),
        Column("SINCE", lambda one, to: to.moment(one.since), rank=3),
        # Not cut: an id is what one types next.
        Column("ATTACHED TO", lambda one, to: " ".join(to.short_id(each.session_id) for each in one.attachments)),
        Column("KEPT BACK", lambda one, _: "yes" if one.reserved else None, rank=4, optional=True),
    ]
    app.show(
        answer,
        lambda found: app.out.table(columns, found.connections),
        lambda found: [str(one.pid) for one in found.connections if one.pid is not None],
    )


@daemon.command(
    epilog="""\b
Examples:
  orbitctl daemon logs
  orbitctl daemon logs -n 500
  orbitctl daemon logs --follow
""",
)
@click.option("-n", "--lines", type=click.IntRange(0, 1_000_000), metavar="N", default=50, help="The last lines [50].")
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they are written.")
@click.pass_obj
def logs(app: App, lines: int, follow: bool) -> None:
    """Print the end of the daemon's log.

    Under systemd that is the journal of orbitd.service, else a file in the state folder. At 8 MiB it
    becomes orbitd.log.1, in the place of an older one.
    """
    path = app.paths.log_file
    command = _journal(app, lines, follow)
    if not command and not os.path.exists(path):
        raise CommandError(
            f"there is no log yet at {path}", ExitCode.NOT_FOUND, hint="A daemon that orbitctl starts writes it."
        )
    if not command:
        try:
            check_file(path)
            _print_predecessor(path, lines)
        except UnsafeFile as error:
            raise CommandError(str(error)) from error
    command = command or ["tail", "-n", str(lines), *(["-F"] if follow else []), path]
    # Python ignores SIGPIPE, and exec(3) would have the program ignore it too: it is to end when its reader does.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606  # it follows by inotify, which we have not
    except OSError as error:
        hint = "Install it (Debian: systemd), or read the journal of the unit orbitd.service with another program."
        if command[0] == "tail":
            hint = f"Install it (Debian: coreutils), or read the file with another program: {command[-1]}"
        raise CommandError(f"cannot run {command[0]}: {error.strerror}", hint=hint) from error


def _print_predecessor(path: str, lines: int) -> None:
    """Print the last lines of the log file before this one, as many as this one is short of. Raises: UnsafeFile."""
    with contextlib.suppress(OSError):
        with open(open_private(path, os.O_RDONLY), "rb") as file:
            missing = lines - sum(1 for _ in zip(file, range(lines), strict=False))
        if missing > 0:
            with open(open_private(path + ".1", os.O_RDONLY), "rb") as file:
                before = deque(file, maxlen=missing)
            with open(1, "wb", closefd=False) as out:
                out.writelines(before)


def _show(app: App, client: Client, done: str) -> None:
    answer = client.ask(DAEMON_INFO, Params())

    def draw(info: DaemonInfo) -> None:
        app.out.note(f"{done} (version {info.version}, pid {info.pid})")

    app.show(answer, draw, lambda info: [str(info.pid)])


def _journal(app: App, lines: int, follow: bool) -> list[str]:
    """Return the command that prints the service's log; an empty list if the daemon does not run under it."""
    from orbitctl.service.manager import log_source

    command = log_source(app.environ, lines=lines, follow=follow)
    if command:
        # By the lock's note, and not by a call: one reads the log of a daemon that hangs.
        with contextlib.suppress(CommandError):
            note = read_lock_note(app.paths)
            if note is not None and note.holder() is Holder.HERE and not note.supervisor:
                return []
    return command


def _end_programs(app: App) -> int:
    """Send SIGHUP to every program, terminate those that go on, and return how many there were.

    If no daemon runs but a keeper's socket or note is there, programs may run: then a daemon is started to end them.

    Raises:
        CommandError: The daemon cannot be reached, does not know what runs, or could not end one of them.
    """
    if app.find_client() is None:
        keeper = app.paths.resolved.database_path + ".keeper"
        if not os.path.exists(keeper) and not os.path.exists(keeper + ".pid"):
            return 0
        app.autostart = True
    sessions = ask_all(app.client, SESSION_LIST, SessionList(), "sessions").value.sessions
    live = [session for session in sessions if session.live]
    for session in sessions:
        # Its program is lost; or the keeper does not answer the daemon, which then refuses this, or has just answered.
        if not session.live and session.cols is not None and session.exit_code is session.exit_signal is None:
            live += [session] if _end(app, session, hang_up=True) else []
    with spinner(f"ending {plural(len(live), 'program')}"):
        for session in live:  # all of them first: each has time to exit while others are waited for
            _end(app, session, hang_up=True)
        for session in live:
            _end(app, session, hang_up=False)
    return len(live)


def _end(app: App, session: Session, *, hang_up: bool) -> bool:
    """Signal or terminate a program; return False if there is none any more. Raises: CommandError."""
    try:
        if hang_up:
            app.call(SESSION_SIGNAL, SessionSignal(id=session.id, signal="HUP"))
        else:
            app.call(SESSION_TERMINATE, ById(id=session.id))
    except CommandError as error:
        if error.exit_code not in (ExitCode.CONFLICT, ExitCode.NOT_FOUND):
            raise
        return False
    return True
