"""Names for the shell to offer: quickly, and silently where there is no daemon."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from orbit_protocol.methods import SESSION_LIST, WORKSPACE_LIST
from orbit_protocol.params import SessionList, WorkspaceList
from orbitctl.app import App
from orbitctl.errors import CommandError

PATIENCE = 1.0
"""How long a person at a prompt is kept waiting, in seconds."""
_PLAIN_WORD = re.compile(r"[\w@%+=,./][\w@%+=,./-]*")
_AT_MOST = 1_000


def session_names(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Offer sessions by name, or by id where there is none that a shell takes unquoted."""
    app = _quick(ctx)
    try:
        page = app.call(SESSION_LIST, SessionList(status=["active", "detached", "terminated"], limit=_AT_MOST))
    except CommandError:
        return []
    finally:
        app.close()
    return list(_items(incomplete, ((one.name, one.id, f"{one.status} {one.session_type}") for one in page.sessions)))


def workspace_names(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Offer workspaces by name, or by id where a shell would not take the name unquoted."""
    app = _quick(ctx)
    try:
        page = app.call(WORKSPACE_LIST, WorkspaceList(limit=_AT_MOST))
    except CommandError:
        return []
    finally:
        app.close()
    return list(_items(incomplete, ((one.name, one.id, one.layout.layout_type) for one in page.workspaces)))


def _quick(ctx: click.Context) -> App:
    app = ctx.find_object(App) or App(os.environ)
    app.autostart = False
    app.completing = True
    app.timeout = PATIENCE
    return app


def _items(incomplete: str, found: Iterator[tuple[str | None, str, str]]) -> Iterator[CompletionItem]:
    for name, identity, about in found:
        if name is not None and _PLAIN_WORD.fullmatch(name):
            value, words = name, about
        else:
            value, words = identity, f"{name} {about}" if name else about
        if value.startswith(incomplete):
            yield CompletionItem(value, help=words)
