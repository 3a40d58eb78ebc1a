"""The attach that people type most: `orbitctl a` and `orbitctl a NAME`, to a session that runs, without click.

Where anything is to be asked, started, switched or explained, `prepare` leaves it to the click command by `Unusual`,
before anything is printed.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from orbit_os.places import HomeUnusable
from orbit_protocol.errors import NotRunning
from orbitctl.attach.attachment import Named
from orbitctl.attach.detach_key import DEFAULT_DETACH_KEY, DetachKey
from orbitctl.attach.run_attach import attach_options, exit_code_of, print_message, run_attach, shown_here
from orbitctl.attach.terminal import SignalReceived
from orbitctl.client.light import LightConnection, Unusual
from orbitctl.client.local import LocalDaemon
from orbitctl.errors import CommandError, from_daemon
from orbitctl.ui.listing import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Callable
    from typing import Any

    from orbitctl.attach.attachment import AttachOptions

PAGE_SIZE = 1_000


def prepare(ref: str | None) -> Callable[[], int]:
    """Return a function that attaches to a session that runs, and returns the exit code.

    Args:
        ref: An id, a unique prefix of one, or a name; None for the session that this window has shown last.

    Raises:
        Unusual: This is for the click command.
        ValueError, LookupError, TypeError, AttributeError: Likewise.
    """
    environ = os.environ
    if "ORBIT_SESSION" in environ or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Unusual
    daemon = LocalDaemon(environ)
    chosen = environ.get("ORBITCTL_DETACH_KEY")
    try:
        if not chosen and daemon.paths.has_settings:  # the file may name the key
            raise Unusual
    except HomeUnusable as error:
        raise Unusual from error
    key = DetachKey(chosen or DEFAULT_DETACH_KEY)
    with LightConnection(environ) as connection:
        session = _last(connection, daemon) if ref is None else connection.call("session.find", {"ref": ref}).value
    if session["live"] is not True:
        raise Unusual
    found = Named(session["id"], session["name"])
    return partial(_attach, daemon, found, attach_options(daemon, found, key))


def _attach(daemon: LocalDaemon, session: Named, options: AttachOptions) -> int:
    try:
        try:
            return exit_code_of(run_attach(daemon, session, options))
        except NotRunning as error:  # it has ended since
            raise from_daemon(error) from error
    except SignalReceived as received:
        return received.exit_code
    except (CommandError, OSError) as error:
        return _report(error)


def _last(connection: LightConnection, daemon: LocalDaemon) -> dict[str, Any]:
    """Return the session that this window has shown last, else the newest that runs. Raises: Unusual, ValueError."""
    shown = shown_here(daemon).load()
    if shown:
        last: dict[str, Any] = connection.call("session.get", {"id": shown[0]}).value
        return last
    page = connection.call("session.list", {"limit": PAGE_SIZE}).value
    if page["next_cursor"] is not None:
        raise Unusual
    running = [one for one in page["sessions"] if one["live"]]
    newest: dict[str, Any] = max(running, key=lambda one: timestamp(one["created_at"]))
    return newest


def _report(error: CommandError | OSError) -> int:
    """Print an error, as the click command does; return its exit code."""
    try:
        from orbitctl.cli import report
    except ImportError:  # the installation has been replaced since the attach began
        print_message(f"error: {error}")
        return 1
    return report(error)
