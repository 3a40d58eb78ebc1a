"""`orbitctl snapshot`: save screens and print them again, as raw bytes."""

from __future__ import annotations

import sys

import click

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.types import Snapshot, SnapshotInfo
from orbitctl.app import App
from orbitctl.client.client import Answer, ask_all
from orbitctl.commands.arguments import CELLS, LIMIT, SESSION, read_bytes
from orbitctl.commands.group import LazyGroup
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.output import Column


@click.group(cls=LazyGroup)
def snapshot() -> None:
    """Save screens and print them again.

    A snapshot is what a terminal showed, byte for byte, and optionally its scrollback.
    """


@snapshot.command(
    epilog="""\b
Examples:
  tmux capture-pane -pe | orbitctl snapshot save web
  orbitctl snapshot save web screen.bin --scrollback history.bin --cols 80 --rows 24
""",
)
@click.argument("session", type=SESSION)
@click.argument("file", required=False, type=click.Path(allow_dash=True))
@click.option("--scrollback", type=click.Path(allow_dash=True), metavar="FILE|-", help="The scrollback, in a file.")
@click.option("--cols", type=CELLS, metavar="N", help="The screen's columns.")
@click.option("--rows", type=CELLS, metavar="N", help="The screen's rows.")
@click.pass_obj
def save(app: App, session: str, file: str | None, scrollback: str | None, cols: int | None, rows: int | None) -> None:
    """Save a screen of SESSION from FILE, or from stdin (`-`)."""
    if file is None and sys.stdin.isatty():
        raise click.UsageError("give a FILE, or pipe the screen in")
    if (file or "-") == "-" and scrollback == "-":
        raise click.UsageError("screen and scrollback cannot both come from stdin")
    screen = read_bytes(file or "-")
    above = read_bytes(scrollback) if scrollback else None
    params = p.SnapshotSave(
        session_id=app.session(session).id, terminal_buffer=screen, scrollback=above, cols=cols, rows=rows
    )
    answer = app.ask(m.SNAPSHOT_SAVE, params)
    app.show(answer, lambda info: _draw(app, [info]), lambda info: [info.id])


@snapshot.command("list")
@click.argument("session", type=SESSION)
@click.option("--limit", type=LIMIT, metavar="N", help="At most this many.")
@click.pass_obj
def list_(app: App, session: str, limit: int | None) -> None:
    """List a session's snapshots, newest first."""
    params = p.SnapshotList(session_id=app.session(session).id)
    answer = ask_all(app.client, m.SNAPSHOT_LIST, params, "snapshots", limit)
    app.show(answer, lambda page: _draw(app, page.snapshots), lambda page: [info.id for info in page.snapshots])


@snapshot.command(
    epilog="""\b
Examples:
  orbitctl snapshot show --latest web
  orbitctl snapshot show 5e0c6f6e-0b57-4d35-a3a2-6ea5f5d0d6a1 > screen.bin
""",
)
@click.argument("snapshot", required=False)
@click.option("--latest", type=SESSION, metavar="SESSION", help="The newest one of this session.")
@click.option("--scrollback", is_flag=True, help="Write the scrollback instead of the screen.")
@click.pass_obj
def show(app: App, snapshot: str | None, latest: str | None, scrollback: bool) -> None:
    """Write a snapshot's bytes to stdout, as they were saved."""
    if (snapshot is None) == (latest is None):
        raise click.UsageError("give a SNAPSHOT or --latest SESSION")
    answer: Answer[Snapshot] | Answer[Snapshot | None]
    if latest is not None:
        answer = app.ask(m.SNAPSHOT_LATEST, p.BySession(session_id=app.session(latest).id))
    else:
        answer = app.ask(m.SNAPSHOT_GET, p.ById(id=snapshot or ""))
    if app.json:
        app.out.json(answer.raw)
        return
    found = answer.value
    if found is None:
        raise CommandError(
            f"session {latest} has no snapshot", ExitCode.NOT_FOUND, hint="`orbitctl snapshot save` makes one."
        )
    if app.quiet:
        app.out.line(found.id)
    else:
        app.out.bytes((found.scrollback or b"") if scrollback else found.terminal_buffer)


@snapshot.command()
@click.argument("snapshot")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(app: App, snapshot: str, yes: bool) -> None:
    """Delete one snapshot for good."""
    app.confirm(f"Delete snapshot {snapshot}?", yes)
    app.done(app.ask(m.SNAPSHOT_DELETE, p.ById(id=snapshot)), f"deleted snapshot {snapshot}", snapshot)


def _draw(app: App, snapshots: list[SnapshotInfo]) -> None:
    if not snapshots and app.out.terminal:
        app.out.note("no snapshots; `orbitctl snapshot save` makes one")
        return
    columns: list[Column[SnapshotInfo]] = [
        Column("ID", lambda info, _: info.id),
        Column("TAKEN", lambda info, to: to.moment(info.snapshot_at), rank=1),
        Column("FORMAT", lambda info, _: info.format, rank=6),
        Column("CELLS", lambda info, _: f"{info.cols}x{info.rows}" if info.cols and info.rows else None, rank=3),
        Column("SCREEN", lambda info, to: to.size(info.buffer_bytes), right=True, rank=2),
        Column("SCROLLBACK", lambda info, to: to.size(info.scrollback_bytes), right=True, rank=4),
        Column("STORED", lambda info, to: to.size(info.stored_bytes), right=True, rank=5),
    ]
    app.out.table(columns, snapshots)
