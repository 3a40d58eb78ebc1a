"""Puts a backup back: asks, stops the daemon, has orbitd itself do it, starts the daemon again.

What a database is, and who may touch it, only orbitd knows: it is run with `--restore`,
takes the lock that a serving daemon holds, and keeps what was there before.
"""

from __future__ import annotations

import os
import subprocess

import msgspec

from orbitctl import autostart
from orbitctl.app import App
from orbitctl.failures import Failure
from orbitctl.progress import spinner
from orbitctl.text import ago, plural, size
from orbitctl.transport import Unreachable
from protocol.methods import DAEMON_INFO
from protocol.params import Params
from protocol.reports import Contents, Restored


def restore(app: App, backup: str, yes: bool) -> None:
    """Put a backup in the database's place; a daemon that ran before runs again afterwards.

    Raises:
        Failure: The backup is not sound, the answer was no, or the daemon cannot be stopped.
        click.UsageError: Nobody can be asked, and `--yes` was not given.
    """
    path = os.path.abspath(os.path.expanduser(backup))
    with spinner("looking into the backup"):
        contents = msgspec.json.decode(_orbitd(app, path, "--dry-run"), type=Contents)
    _confirm(app, contents, yes)
    was_running = _stop(app)
    try:
        with spinner("putting the backup back"):
            told = _orbitd(app, path)
    finally:
        if was_running:
            app.autostart = True
            app.client  # noqa: B018  # it is started where it is first used
    _show(app, told)


def _confirm(app: App, contents: Contents, yes: bool) -> None:
    held = ", ".join(
        (
            plural(contents.sessions, "session"),
            plural(contents.snapshots, "snapshot"),
            plural(contents.workspaces, "workspace"),
        )
    )
    app.out.note(f"{contents.path}: {held}, {size(contents.bytes)}, written {ago(contents.written_at)}")
    database = app.place.resolved.database_path
    app.confirm(f"Put it in the place of {database}, which is kept under another name?", yes)


def _stop(app: App) -> bool:
    """Stop the daemon, if one runs; return whether one did."""
    from orbitctl.commands.daemon import stop_daemon

    try:
        served = app.running_client().call(DAEMON_INFO, Params()).database_path
    except Unreachable as failure:
        if failure.nobody:
            return False
        raise
    ours = app.place.resolved.database_path
    if os.path.realpath(served) != os.path.realpath(ours):
        raise Failure(
            f"the daemon that runs serves {served}, not {ours}",
            hint="Name its database with ORBITD_DATABASE, or its configuration with ORBITD_CONFIG.",
        )
    return stop_daemon(app) is not None


def _orbitd(app: App, backup: str, *more: str) -> bytes:
    """Run orbitd to put a backup back, and return what it prints. Raises: Failure."""
    run = subprocess.run(
        [*autostart.command(), *autostart.arguments(app.place), "--restore", backup, *more],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if run.returncode == 0:
        return run.stdout
    error, hint = autostart.complaint(run.stderr.decode(errors="replace").splitlines())
    raise Failure(error or f"orbitd ended with exit code {run.returncode}", hint=hint)


def _show(app: App, told: bytes) -> None:
    done = msgspec.json.decode(told, type=Restored)
    if app.json:
        app.out.json(told.strip())
    elif app.quiet:
        app.out.line(done.database_path)
    else:
        app.out.line(f"{done.database_path} is {done.contents.path} now")
        if done.safety_copy is not None:
            app.out.note(f"what was there before is kept in {done.safety_copy}")
