"""`orbitctl config`: the configuration file's path, the settings in effect, and a check of the file."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from orbit_os.sockets import SocketPathTooLong, check_socket_path
from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.text import path_from_text
from orbitctl.app import App
from orbitctl.attach.detach_key import DEFAULT_DETACH_KEY, DetachKey
from orbitctl.client.light import CONFIG_VARIABLE
from orbitctl.commands.arguments import quoted
from orbitctl.commands.group import LazyGroup
from orbitctl.errors import CommandError, ExitCode


@click.group(cls=LazyGroup)
def config() -> None:
    """Show and check the configuration; no daemon is needed."""


@config.command()
@click.pass_obj
def path(app: App) -> None:
    """Print the path of the configuration file, which may be missing."""
    found = app.paths.config_path
    if app.json:
        app.out.json(encode_message({"path": found, "exists": os.path.exists(found)}))
    else:
        app.out.line(found)


@config.command()
@click.pass_obj
def show(app: App) -> None:
    """Print the settings in effect, as TOML.

    Flags, variables, file and defaults together.
    """
    resolved = app.paths.resolved
    found = msgspec.to_builtins(resolved.settings)
    found["session"]["database_path"] = resolved.database_path
    found["daemon"]["socket_path"] = resolved.socket_path
    found["client"]["detach_key"] = resolved.settings.client.detach_key or DEFAULT_DETACH_KEY
    if app.json:
        app.out.json(encode_message(found))
        return
    for table, settings in found.items():
        app.out.line(f"[{table}]")
        for key, value in settings.items():
            name = quoted(key) if table == "hooks" else key  # a kind of events has a dot
            app.out.line(f"{name} = {_toml(value)}")


def _toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return quoted(value) if isinstance(value, str) else str(value).lower()


@config.command(epilog="Exits with 2 if the file cannot be used.")
@click.argument("file", required=False, type=click.Path())
@click.pass_obj
def check(app: App, file: str | None) -> None:
    """Check whether a configuration file can be used.

    Without FILE, the one in effect.
    """
    target = app.paths.config_path if file is None else app.paths.absolute(file, "FILE")
    exists = os.path.exists(target)
    is_named = file is not None or bool(app.environ.get(CONFIG_VARIABLE))
    settings = app.paths.settings_of(target, may_be_missing=not is_named)
    if (socket := settings.daemon.socket_path) is not None:
        try:
            check_socket_path(app.paths.absolute(path_from_text(socket, None), "daemon.socket_path"))
        except SocketPathTooLong as error:
            raise CommandError(f"{target}: `daemon.socket_path`: {error}", ExitCode.USAGE) from error
    if (key := settings.client.detach_key) is not None:
        try:
            DetachKey(key)
        except ValueError as error:
            raise CommandError(f"{target}: `client.detach_key`: {error}", ExitCode.USAGE) from error
    if app.json:
        app.out.json(encode_message({"path": target, "exists": exists, "ok": True}))
    elif not app.quiet:
        app.out.line(f"{target}: ok" if exists else f"{target}: not there; the defaults hold")
