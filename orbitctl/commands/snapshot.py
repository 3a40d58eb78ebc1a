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
from orbitctl.commands.list_options import Kind, ListOptions, fields_of, list_options, show_list
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.listing import Column, moment_cell, size_of

COLUMNS = {
    "id": Column("ID", lambda row, _: row["id"]),  # whole, since it has to be given whole
    "taken": Column("TAKEN", moment_cell("snapshot_at"), rank=1),
    "format": Column("FORMAT", lambda row, _: row["format"], rank=6),
    "cells": Column("CELLS", lambda row, _: size_of(row), rank=3),
    "screen": Column("SCREEN", lambda row, to: to.size(row["buffer_bytes"]), right=True, rank=2),
    "scrollback": Column("SCROLLBACK", lambda row, to: to.size(row["scrollback_bytes"]), right=True, rank=4),
    "stored": Column("STORED", lambda row, to: to.size(row["stored_bytes"]), right=True, rank=5),
}
_KIND = Kind(
    columns=COLUMNS,
    usual=list(COLUMNS),
    fields=fields_of(SnapshotInfo),
    sort_values={
        "taken": "snapshot_at",
        "screen": "buffer_bytes",
        "scrollback": "scrollback_bytes",
        "stored": "stored_bytes",
    },
)


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
    show_list(app, answer, [answer.value], ListOptions(_KIND, None, None, None), "")


@snapshot.command("list")
@click.argument("session", type=SESSION)
@click.option("--limit", type=LIMIT, metavar="N", help="At most this many.")
@list_options
@click.pass_obj
def list_(
    app: App, session: str, limit: int | None, columns: str | None, template: str | None, sort: str | None
) -> None:
    """List a session's snapshots, newest first.

    `orbitctl ls --help` says what --format takes.
    """
    options = ListOptions(_KIND, columns, template, sort)
    options.check(app)
    params = p.SnapshotList(session_id=app.session(session).id)
    answer = ask_all(app.client, m.SNAPSHOT_LIST, params, "snapshots", limit)
    show_list(app, answer, answer.value.snapshots, options, "no snapshots; `orbitctl snapshot save` makes one")


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
