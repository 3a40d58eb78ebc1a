"""`orbitctl session replay`: a session's film, played on the terminal."""

from __future__ import annotations

import math
import os
import sys
from datetime import datetime

import click

from orbit_os.shell import typed
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.commands.arguments import SESSION, WHEN
from orbitctl.errors import CommandError, ExitCode


class _Number(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A positive number within bounds; click's own range takes `nan`."""

    name = "number"

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it. Raises: click.BadParameter."""
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not self._least <= number <= self._most:
            self.fail(f"{value!r} is no number from {self._least:g} to {self._most:g}", param, ctx)
        return number


@click.command(
    epilog="""\b
Examples:
  orbitctl session replay web
  orbitctl session replay web --from '1 hour ago' --speed 4

Keys: space pauses; left and right go 5 s back and forward, Home and End to the beginning and
the end; + and - change the speed; a dot goes one step further while paused; q leaves.
Pauses longer than --idle-limit are cut to it, and the 5 s don't count the rest.
""",
)
@click.argument("session", type=SESSION)
@click.option("--from", "start", type=WHEN, metavar="WHEN", help="Begin there: '1 hour ago', 15:10, a date and a time.")
@click.option("--until", type=WHEN, metavar="WHEN", help="End there.")
@click.option("--speed", type=_Number(0.1, 1000), default=1.0, metavar="N", help="Play it N times as fast [1].")
@click.option(
    "--idle-limit", type=_Number(0.01, 1_000_000), default=2.0, metavar="SECONDS", help="The longest pause [2]."
)
@click.pass_context
def replay(
    ctx: click.Context,
    session: str,
    start: datetime | None,
    until: datetime | None,
    speed: float,
    idle_limit: float,
) -> None:
    """Play what a session has shown, on this terminal.

    Running and ended sessions have a film, unless they are private. Only its letters and colours
    are drawn: nothing that a program once printed does anything to this terminal.
    """
    app: App = ctx.obj
    if app.json or app.quiet:
        raise click.UsageError("a replay is drawn on the terminal: neither JSON nor ids")
    if start is not None and until is not None and until <= start:
        raise click.UsageError("--until is not after --from")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        raise CommandError(
            "a replay needs a terminal on stdin and stdout",
            ExitCode.USAGE,
            hint=visible(f"`{typed('orbitctl session export', session)}` writes the film into a file."),
        )
    from orbitctl.replay.run_replay import ReplayOptions
    from orbitctl.replay.run_replay import replay as play

    found = app.session(session, or_begins=True)
    ctx.exit(play(app, found, ReplayOptions(start=start, until=until, speed=speed, idle_limit=idle_limit)))
