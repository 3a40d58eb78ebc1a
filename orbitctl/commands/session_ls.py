"""`orbitctl ls`: sessions as people look at them."""

from __future__ import annotations

import click

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbitctl.app import App
from orbitctl.client.client import ask_all
from orbitctl.commands.session_table import draw_sessions


@click.command(epilog="Example: orbitctl ls -a")
@click.option("-a", "--all", "ended_too", is_flag=True, help="Sessions that have ended, too.")
@click.pass_obj
def ls(app: App, ended_too: bool) -> None:
    """List sessions."""
    params = p.SessionList(status=["active", "detached", "terminated"] if ended_too else None)
    answer = ask_all(app.client, m.SESSION_LIST, params, "sessions")
    app.show(answer, lambda page: draw_sessions(app, page.sessions), lambda page: [one.id for one in page.sessions])
