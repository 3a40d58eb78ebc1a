"""`orbitctl logs`: what a session's program has printed, as lines."""

from __future__ import annotations

import sys

import click

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.commands.arguments import SESSION, OptionalSession


@click.command(
    epilog="""\b
Examples:
  orbitctl logs work
  orbitctl logs work -n 20
""",
)
@click.argument("session", cls=OptionalSession, type=SESSION, required=False)
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="The last N lines only.")
@click.pass_obj
def logs(app: App, session: str | None, lines: int | None) -> None:
    """Print what a session's program has printed.

    That is its history and its screen, as text. In a session, without a SESSION: of this one.
    """
    found = app.session(app.named_or_this(session), or_begins=True)
    answer = app.ask(m.SESSION_SCREEN, p.SessionScreen(id=found.id, scrollback=True))

    def draw(data: str) -> None:
        kept = data.rstrip("\n").split("\n") if data.strip("\n") else []
        for line in kept if lines is None else kept[len(kept) - min(lines, len(kept)) :]:
            sys.stdout.write((visible(line) if app.out.terminal else line) + "\n")

    app.show(answer, lambda shown: draw(shown.data), lambda _: [found.id])
