"""`orbitctl maintenance`: the daemon's maintenance, run now; backup and restore."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime

import click
import msgspec

from orbit_os.files import make_private_folders
from orbit_os.python import python_command
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.paths import backups_folder
from orbit_protocol.results import BackupResult, CheckReport, Contents, Restored
from orbitctl.app import App
from orbitctl.client.transport import Unreachable
from orbitctl.commands.arguments import WHEN
from orbitctl.commands.group import LazyGroup
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.spinner import spinner
from orbitctl.ui.text import ago, plural, size


@click.group(cls=LazyGroup)
def maintenance() -> None:
    """Save, clean, check and back up the database now."""


@maintenance.command("auto-save")
@click.pass_obj
def auto_save(app: App) -> None:
    """Write changes that are only in memory."""
    answer = app.ask(m.MAINTENANCE_AUTO_SAVE, p.Params())
    app.show(answer, lambda done: app.out.line(f"saved {plural(done.saved, 'session')}"), lambda _: ())


@maintenance.command()
@click.option("--keep", type=click.IntRange(1, 1_000_000), metavar="N", required=True, help="How many a session keeps.")
@click.pass_obj
def cleanup(app: App, keep: int) -> None:
    """Delete all but the newest snapshots of every session."""
    answer = app.ask_long(m.MAINTENANCE_CLEANUP_SNAPSHOTS, p.CleanupSnapshots(keep_last_n=keep), "deleting snapshots")
    app.show(answer, lambda done: app.out.line(f"deleted {plural(done.deleted, 'snapshot')}"), lambda _: ())


@maintenance.command(
    epilog="""\b
Examples:
  orbitctl maintenance archive --before 30d
  orbitctl maintenance archive --before 2026-01-31
""",
)
@click.option("--before", type=WHEN, required=True, help="A date, a time (RFC 3339), or how long ago: 30d, 12h, 2w.")
@click.pass_obj
def archive(app: App, before: datetime) -> None:
    """Archive old terminated sessions.

    Those that were last active before the given time.
    `orbitctl session list --status archived` still shows them.
    """
    answer = app.ask_long(m.MAINTENANCE_ARCHIVE, p.Archive(terminated_before=before), "archiving")
    app.show(answer, lambda done: app.out.line(f"archived {plural(done.archived, 'session')}"), lambda _: ())


@maintenance.command()
@click.pass_obj
def vacuum(app: App) -> None:
    """Return the database's free pages to the file system."""
    answer = app.ask_long(m.MAINTENANCE_VACUUM, p.Params(), "vacuuming")
    app.show(answer, lambda done: app.out.line(f"freed {size(done.bytes_freed)}"), lambda _: ())


@maintenance.command(epilog="Exits with 1 if something is damaged.")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Check the whole database and every snapshot in it."""
    app: App = ctx.obj
    answer = app.ask_long(m.MAINTENANCE_CHECK, p.Check(), "checking the database")
    app.show(answer, lambda report: _draw_check(app, report), lambda report: report.snapshots)
    if not answer.value.ok:
        ctx.exit(ExitCode.ERROR)


def _draw_check(app: App, report: CheckReport) -> None:
    app.out.line("ok" if report.ok else "damaged")
    for what in ("integrity", "foreign_keys", "rows", "snapshots"):
        for finding in getattr(report, what):
            app.out.line(f"{what.replace('_', ' ')}: {finding}")
    if report.more_snapshots:
        app.out.line(f"and {plural(report.more_snapshots, 'more snapshot')}")


@maintenance.command(
    epilog="""\b
Examples:
  orbitctl maintenance backup
  orbitctl maintenance backup ~/orbit.db
""",
)
@click.argument("path", required=False)
@click.option(
    "--with-history", is_flag=True, help="With what sessions have shown: in a file beside it, PATH.history.db."
)
@click.pass_obj
def backup(app: App, path: str | None, with_history: bool) -> None:
    """Copy the database while it is in use.

    Without PATH the copy goes into the folder `backups` beside the database, named by the
    time. An earlier backup at PATH is replaced, any other file is refused.
    """
    target = app.paths.absolute(path, "PATH") if path else _default_backup(app)
    params = p.Backup(path="", path_bytes=os.fsencode(target), with_history=with_history)
    answer = app.ask_long(m.MAINTENANCE_BACKUP, params, "backing up")
    app.show(answer, lambda done: _draw_backup(app, done), lambda done: [done.path])


@maintenance.command(
    epilog="""\b
Examples:
  orbitctl maintenance restore ~/.local/share/orbit/backups/auto-20260131T030000Z.db
  orbitctl maintenance restore --yes ~/orbit.db
""",
)
@click.argument("backup", metavar="BACKUP", type=click.Path())
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def restore(app: App, backup: str, yes: bool) -> None:
    """Replace the database by a backup.

    The backup is checked first. Where a history lies beside it (`--with-history`), that one is brought
    back too. The present database is kept beside it under another name,
    even if it is damaged. A running daemon is stopped before and started afterwards.
    """
    # orbitd does it, run with `--restore`: it takes the lock that a serving daemon holds, so that nothing writes
    # meanwhile, and it keeps what was there before.
    path = app.paths.absolute(backup, "BACKUP")
    with spinner("checking the backup"):
        contents = msgspec.json.decode(_orbitd_restore(app, path, "--dry-run"), type=Contents)
    _confirm_restore(app, contents, yes)
    was_running = _stop_daemon(app)
    try:
        with spinner("restoring the backup"):
            result = _orbitd_restore(app, path)
    finally:
        if was_running:
            app.autostart = True
            app.client  # noqa: B018  # reading it starts the daemon
    _show_restored(app, result)


def _default_backup(app: App) -> str:
    database = app.call(m.DAEMON_INFO, p.Params()).database_file
    folder = backups_folder(database)
    if not app.hosts:  # an earlier orbitd does not make it
        with contextlib.suppress(OSError):  # the daemon's message has the reason
            make_private_folders(folder)
    name = f"manual-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
    return os.path.join(folder, name)


def _draw_backup(app: App, done: BackupResult) -> None:
    app.out.line(f"{done.path}  {app.out.format.size(done.bytes)}")
    if done.history_path is not None:
        app.out.line(f"{done.history_path}  {app.out.format.size(done.history_bytes)}")


def _confirm_restore(app: App, contents: Contents, yes: bool) -> None:
    counts = ", ".join(
        (
            plural(contents.sessions, "session"),
            plural(contents.snapshots, "snapshot"),
            plural(contents.workspaces, "workspace"),
        )
    )
    app.out.note(f"{contents.path}: {counts}, {size(contents.bytes)}, written {ago(contents.written_at)}")
    database = app.paths.resolved.database_path
    app.confirm(f"Replace {database} by it? The present one is kept under another name.", yes)


def _stop_daemon(app: App) -> bool:
    """Stop the daemon if it runs; return whether it did. Raises: CommandError if it has another database."""
    try:
        client = app.find_client()
    except Unreachable as error:
        # The lock's note is of another machine, which may be gone, or this one under an older name: whether it is held
        # is found out by orbitd, which takes it for the restore.
        if error.may_start:
            return False
        raise
    if client is None:
        return False
    served = client.call(m.DAEMON_INFO, p.Params()).database_file
    ours = app.paths.resolved.database_path
    # Flags and variables may name another database than the daemon at this socket has. Stopping that one would not
    # free the lock, and would end a service that is not meant.
    if os.path.realpath(served) != os.path.realpath(ours):
        raise CommandError(
            f"the running daemon serves {served}, not {ours}",
            hint="Name its database with ORBITD_DATABASE, or its configuration with ORBITD_CONFIG.",
        )
    return app.stop_daemon() is not None


def _orbitd_restore(app: App, backup: str, *more: str) -> bytes:
    """Run `orbitd --restore` and return the JSON that it prints. Raises: CommandError."""
    import subprocess  # here: no other command of this group needs the two

    from orbitctl.client import daemon

    run = subprocess.run(
        python_command("orbitd", *daemon.arguments(app.paths), "--restore", backup, *more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if run.returncode == 0:
        return run.stdout
    error, hint = daemon.error_and_hint(run.stderr.decode(errors="replace").splitlines())
    raise CommandError(error or f"orbitd ended with exit code {run.returncode}", hint=hint)


def _show_restored(app: App, result: bytes) -> None:
    done = msgspec.json.decode(result, type=Restored)
    if done.not_carried_over is not None:
        app.out.problem(
            "warning",
            f"screens of programs that still run, if any do, were not taken over from {done.safety_copy}: "
            f"{done.not_carried_over}",
            "33",
        )
    if app.json:
        app.out.json(result.strip())
    elif app.quiet:
        app.out.line(done.database_path)
    else:
        app.out.line(f"{done.database_path} is {done.contents.path} now")
        if done.safety_copy is not None:
            app.out.note(f"what was there before is kept in {done.safety_copy}")
        if done.history_path is not None:
            app.out.note(f"what sessions have shown was brought back too: {done.history_path}")
        if done.carried_over:
            app.out.note(f"screens of programs that may still run were taken over from it: {done.carried_over}")
