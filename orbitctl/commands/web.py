"""`orbitctl web`: serve a page with terminals to this machine's browser."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import sys
from collections.abc import Callable
from socket import socket

import click
import msgspec

from orbitctl.app import App
from orbitctl.errors import CommandError, ExitCode


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=0, metavar="PORT", help="The port; 0 is any free one.")
@click.option("--read-only", is_flag=True, help="Print a second URL, through which somebody can watch, and only watch.")
@click.pass_obj
def web(app: App, port: int, read_only: bool) -> int:
    """Serve a page with the sessions, and terminals to type into.

    It is served to this machine alone (127.0.0.1), until Ctrl-C. Whoever has the URL can do what
    you can do in a session; each run has a new one. `--read-only` prints another one for showing
    somebody: through it sessions are seen, and neither keys nor clipboard do anything.

    With `--host` the sessions are those of another machine. The page's terminal is xterm.js,
    which is fetched from npm's registry at the first time.
    """
    try:
        from orbitctl.web import page, server
    except ImportError as error:
        if not (error.name or "").startswith("websockets"):
            raise
        raise CommandError(
            f"`orbitctl web` needs the library websockets: {error}", hint="pip install 'orbit-sessions[web]'"
        ) from error
    from orbitctl.attach.reconnect import Reconnect

    with contextlib.closing(_listener(server.bind, port)) as listener:
        # A daemon is started here, where the user sees what is wrong. Later ones are as an attached client has them.
        app.open_stream().close()
        reconnect = Reconnect(app)
        reconnect.prepare()
        cache = app.paths.folder("XDG_CACHE_HOME", ".cache", "orbit")
        files = page.load_page(page.page_folder(), cache, app.environ, app.out.note, page.fetch_url)
        tokens = server.Tokens(guests=read_only)
        _announce(app, *(server.url_of(listener, token) for token in (tokens.owner, tokens.guest) if token))
        number = asyncio.run(server.run(listener, files, tokens, server.Daemon(reconnect)))
    app.out.note("ended; sessions go on")
    return ExitCode.OK if number == signal.SIGINT else 128 + number


def _listener(bind: Callable[[int], socket], port: int) -> socket:
    """Return a listening socket. Raises: CommandError."""
    try:
        return bind(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(
                f"port {port} is taken by another program", ExitCode.CONFLICT, hint="Leave --port out for a free one."
            ) from error
        raise CommandError(
            f"cannot listen on port {port} of 127.0.0.1: {error.strerror}",
            hint="Choose a port of 1024 or more, or leave --port out for a free one.",
        ) from error


def _announce(app: App, url: str, guests_url: str | None = None) -> None:
    """Print the URLs on stdout, and on stderr what they are for."""
    if app.json:
        app.out.json(msgspec.json.encode({"url": url, "read_only_url": guests_url}))
        sys.stdout.flush()
        return
    notes = not app.quiet
    where = f" on {app.hosts[0].label}" if app.hosts else ""
    if notes:
        app.out.note(f"Whoever has this URL can do what you can do in your sessions{where}, and start programs:")
    app.out.line(url)
    if guests_url is not None:
        if notes:
            app.out.note(
                "Whoever has this one sees all sessions, their history and commands, and can neither type nor change:"
            )
        app.out.line(guests_url)
    sys.stdout.flush()
    if notes:
        app.out.note("They work on this machine alone (127.0.0.1), until Ctrl-C.")
