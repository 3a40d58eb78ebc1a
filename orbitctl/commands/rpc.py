"""`orbitctl rpc`: call any method of the daemon by its name."""

from __future__ import annotations

import click
from msgspec import UNSET, Raw

from orbit_protocol.methods import RPC_DISCOVER
from orbitctl.app import App
from orbitctl.commands.arguments import PARAMS
from orbitctl.commands.group import LazyGroup


@click.group(cls=LazyGroup)
def rpc() -> None:
    """Call the daemon's methods directly; results are JSON."""


@rpc.command(
    epilog="""\b
Examples:
  orbitctl rpc call daemon.ping
  orbitctl rpc call session.list '{"status": ["terminated"]}'
  orbitctl rpc call workspace.create - < workspace.json
""",
)
@click.argument("method")
@click.argument("params", type=PARAMS, required=False, metavar="[JSON|-]")
@click.pass_obj
def call(app: App, method: str, params: Raw | None) -> None:
    """Call METHOD and print its result.

    The params are a JSON object: as the argument, in a file (@FILE), or on stdin (-).
    """
    app.out.json(app.client.ask_raw(method, UNSET if params is None else params))


@rpc.command()
@click.pass_obj
def discover(app: App) -> None:
    """Print the OpenRPC document.

    It describes every method, its params and its result.
    """
    app.out.json(app.client.ask_raw(RPC_DISCOVER.name))
