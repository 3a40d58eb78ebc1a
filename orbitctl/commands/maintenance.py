"""`orbitctl maintenance`: what the daemon does by itself from time to time, done now."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime

import click

from orbitctl.app import App
from orbitctl.arguments import WHEN
from orbitctl.failures import Exit
from orbitctl.folders import make_private
from orbitctl.lazy import LazyGroup
from orbitctl.text import plural, size
from protocol import methods as m
from protocol import params as p
from protocol.reports import BackupResult, CheckReport


@click.group(cls=LazyGroup)
def maintenance() -> None:
    """Save, clean, check and back up the database now."""


@maintenance.command("auto-save")
@click.pass_obj
def auto_save(app: App) -> None:
    """Write what has changed in memory only."""
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
    """Put old terminated sessions away.

    Those that were last active before the time given.
    `orbitctl session list --status archived` still shows them.
    """
    answer = app.ask_long(m.MAINTENANCE_ARCHIVE, p.Archive(terminated_before=before), "archiving")
    app.show(answer, lambda done: app.out.line(f"archived {plural(done.archived, 'session')}"), lambda _: ())


@maintenance.command()
@click.pass_obj
def vacuum(app: App) -> None:
    """Give the database's free room back to the file system."""
    answer = app.ask_long(m.MAINTENANCE_VACUUM, p.Params(), "vacuuming")
    app.show(answer, lambda done: app.out.line(f"freed {size(done.bytes_freed)}"), lambda _: ())


@maintenance.command(epilog="Exits with 1 where something is wrong.")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Check the whole database and every snapshot in it."""
    app: App = ctx.obj
    answer = app.ask_long(m.MAINTENANCE_CHECK, p.Params(), "checking the database")
    app.show(answer, lambda report: _draw_check(app, report), lambda report: report.snapshots)
    if not answer.value.ok:
        ctx.exit(Exit.ERROR)


def _draw_check(app: App, report: CheckReport) -> None:
    app.out.line("ok" if report.ok else "damaged")
    for what in ("integrity", "foreign_keys", "snapshots"):
        for finding in getattr(report, what):
            app.out.line(f"{what.replace('_', ' ')}: {finding}")


@maintenance.command(
    epilog="""\b
Examples:
  orbitctl maintenance backup
  orbitctl maintenance backup ~/orbit.db
""",
)
@click.argument("path", required=False)
@click.pass_obj
def backup(app: App, path: str | None) -> None:
    """Copy the database while it is in use.

    Without PATH it goes, under the time's name, into the folder `backups` beside the
    database. A file that is at PATH already is replaced.
    """
    target = os.path.abspath(os.path.expanduser(path)) if path else _default_backup(app)
    answer = app.ask_long(m.MAINTENANCE_BACKUP, p.Backup(path=target), "backing up")
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
    """Put a backup in the database's place.

    The backup is checked first. The present database is kept beside it under another name,
    also where it is damaged. A daemon that runs is stopped before and started afterwards.
    """
    from orbitctl import restoring

    restoring.restore(app, backup, yes)


def _default_backup(app: App) -> str:
    database = app.call(m.DAEMON_INFO, p.Params()).database_path
    folder = os.path.join(os.path.dirname(database), "backups")
    with contextlib.suppress(OSError):  # where it cannot be made, the daemon says what is wrong
        make_private(folder)
    name = f"manual-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
    return os.path.join(folder, name)


def _draw_backup(app: App, done: BackupResult) -> None:
    app.out.line(f"{done.path}  {app.out.format.size(done.bytes)}")
