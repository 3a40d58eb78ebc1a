"""`orbitctl session export`: a session's film or lines as a file, which is written here, wherever the daemon is."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

import click
import msgspec

from orbit_os.files import set_mode
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import SnapshotNotFound
from orbit_protocol.types import ExportFormat, Session
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.commands.arguments import SESSION, WHEN, OptionalSession
from orbitctl.commands.session_live import no_film_error
from orbitctl.commands.session_table import label
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui import text


@click.command(
    epilog="""\b
Examples:
  orbitctl session export web -o web.cast
  asciinema play web.cast
  orbitctl session export web --format html --since '2 hours ago' -o web.html
  orbitctl session export web --format text | grep error
""",
)
@click.argument("session", cls=OptionalSession, type=SESSION, required=False)
@click.option(
    "--format",
    "how",
    type=click.Choice(["asciicast", "html", "text", "vt"]),
    default="asciicast",
    help="What to write [asciicast].",
)
@click.option("-o", "--output", metavar="FILE", help="Where to write it; - is stdout [stdout].")
@click.option("--since", type=WHEN, help="Begin at this moment.")
@click.option("--until", type=WHEN, help="End at this moment.")
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it is there.")
@click.pass_obj
def export(
    app: App,
    session: str | None,
    how: ExportFormat,
    output: str | None,
    since: datetime | None,
    until: datetime | None,
    force: bool,
) -> None:
    """Write what a session has shown into a file.

    `asciicast` is a recording that asciinema plays, with its times; `html`, `text` and `vt` (with
    escape sequences) are its lines, from the first that is kept to those on the screen. What was
    shown while a session was not recorded is missing. In a session, without a SESSION: of this one.
    """
    file = None if output in (None, "-") else output
    if file is None and app.json:
        raise click.UsageError("--json needs --output FILE: what is exported is no JSON")
    if file is None and how == "asciicast" and app.out.terminal:
        raise click.UsageError("an asciicast is no text for a terminal; name a file with --output FILE")
    if output == "":
        raise click.UsageError("--output is empty")
    if since is not None and until is not None and until <= since:
        raise click.UsageError("--until is not after --since")
    found = app.session(app.named_or_this(session), or_begins=True)
    pages = _pages(app, found, p.HistoryExport(session_id=found.id, format=how, since=since, until=until))
    if file is None:
        for page in pages:
            if app.out.terminal and how != "vt":
                sys.stdout.write("".join(visible(line) + "\n" for line in page.decode().splitlines()))
            else:
                app.out.bytes(page)
        return
    length = _write(file, pages, replaces=force)
    if app.json:
        app.out.json(msgspec.json.encode({"format": how, "path": visible(file), "bytes": length}))
    elif not app.quiet:
        app.out.note(f"{label(found)} was exported to {file} ({text.size(length)})")


def _pages(app: App, found: Session, params: p.HistoryExport) -> Iterator[bytes]:
    """Yield what is exported; the daemon keeps nothing between two pages. Raises: CommandError."""
    while True:
        try:
            page = app.call(m.HISTORY_EXPORT, params)
        except CommandError as error:
            if not isinstance(error.__cause__, SnapshotNotFound):
                raise
            raise no_film_error(found, params.until or params.since, error.__cause__) from error
        data = page.data or ""
        yield base64.b64decode(data) if params.format == "vt" else data.encode()
        if page.next_cursor is None:
            return
        params = msgspec.structs.replace(params, cursor=page.next_cursor)


def _write(file: str, pages: Iterator[bytes], *, replaces: bool) -> int:
    """Write a file, which appears once it is complete; return its length. Raises: CommandError."""
    try:
        target = os.path.realpath(file)
        if os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target):
            with open(target, "wb") as opened:  # a FIFO, or a device
                return _copy(pages, opened)
        if os.path.isdir(target):
            raise CommandError(f"{file} is a folder", ExitCode.USAGE)
        if os.path.exists(target) and not replaces:
            raise _is_there(file)
        beside = os.path.join(os.path.dirname(target), f".{os.path.basename(target)[:200]}.{os.getpid()}.new")
        try:
            with open(beside, "xb") as opened:
                if os.path.exists(target):  # what only the user could read is not for others now
                    set_mode(beside, stat.S_IMODE(os.stat(target).st_mode))
                length = _copy(pages, opened)
            (os.replace if replaces else _put_where_nothing_is)(beside, target)
        except FileExistsError as error:
            raise _is_there(file) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}", ExitCode.USAGE) from error
    return length


def _copy(pages: Iterator[bytes], opened: BinaryIO) -> int:
    length = 0
    for page in pages:
        length += opened.write(page)
    opened.flush()
    return length


def _put_where_nothing_is(beside: str, target: str) -> None:
    """Give a file its name, unless the name is taken meanwhile. Raises: OSError."""
    try:
        os.link(beside, target)  # unlike rename(2), it replaces nothing
    except FileExistsError:
        raise
    except OSError:
        os.rename(beside, target)  # a file system without hard links


def _is_there(file: str) -> CommandError:
    return CommandError(
        f"{file} is there already", ExitCode.CONFLICT, hint="Name another file, or replace it with --force."
    )
