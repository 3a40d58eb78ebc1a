"""`orbitctl completion`: scripts for shells, and the names of sessions and workspaces that they complete.

A shell runs orbitctl at each press of Tab: names are fetched within a second or not at all, and an error
prints nothing, since it would be printed into the line that the user is editing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem, get_completion_class

from orbit_protocol.methods import SESSION_LIST, WORKSPACE_LIST
from orbit_protocol.params import SessionList, WorkspaceList
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.errors import CommandError

VARIABLE = "_ORBITCTL_COMPLETE"
TIMEOUT = 1.0
"""Seconds for fetching names."""
# What no shell needs to have quoted.
_PLAIN_WORD = re.compile(r"[\w@%+=,./][\w@%+=,./-]*")
_MAX_NAMES = 1_000


@click.command(
    epilog="""\b
Examples:
  echo 'eval "$(orbitctl completion bash)"' >> ~/.bashrc
  echo 'eval "$(orbitctl completion zsh)"' >> ~/.zshrc
  mkdir -p ~/.config/fish/completions
  orbitctl completion fish > ~/.config/fish/completions/orbitctl.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and names.

    Names of sessions and workspaces come from the daemon, if it runs.
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click has no completion for {shell}")
    app: App = ctx.obj
    app.out.bytes(found(ctx.find_root().command, {}, "orbitctl", VARIABLE).source().encode() + b"\n")


def session_names(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return sessions for completion: by name, or by id if there is no name that needs no quotes."""
    app = _app_for_completion(ctx)
    try:
        page = app.call(SESSION_LIST, SessionList(status=["active", "detached", "terminated"], limit=_MAX_NAMES))
    except CommandError:
        return []
    finally:
        app.close()
    return list(_items(incomplete, ((one.name, one.id, f"{one.status} {one.session_type}") for one in page.sessions)))


def workspace_names(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return workspaces for completion: by name, or by id if the name needs quotes."""
    app = _app_for_completion(ctx)
    try:
        page = app.call(WORKSPACE_LIST, WorkspaceList(limit=_MAX_NAMES))
    except CommandError:
        return []
    finally:
        app.close()
    return list(_items(incomplete, ((one.name, one.id, one.layout.layout_type) for one in page.workspaces)))


def _app_for_completion(ctx: click.Context) -> App:
    app = ctx.find_object(App) or App(os.environ)
    app.autostart = False
    app.completing = True
    app.timeout = TIMEOUT
    return app


def _items(incomplete: str, found: Iterator[tuple[str | None, str, str]]) -> Iterator[CompletionItem]:
    for name, identity, about in found:
        if name is not None and _PLAIN_WORD.fullmatch(name):
            value, description = name, about
        else:
            value, description = identity, f"{name} {about}" if name else about
        if value.startswith(incomplete):
            yield CompletionItem(value, help=visible(description))
