"""What a user is told once: that the history of sessions is kept, and where the switch is."""

from __future__ import annotations

import contextlib
import os

from orbit_os.files import UnsafeFolder, open_private, private_folder
from orbit_protocol.types import Session
from orbitctl.app import App
from orbitctl.errors import CommandError

MARKER = "history-noted"
"""An empty file of the state folder: it has been said."""
_DAY_SECS = 86_400


def note_history(app: App, session: Session) -> None:
    """Say once, to a user who starts a session here, that its history is kept.

    Where it cannot be remembered that it was said, it is not said: else it would be each time.

    Args:
        app: The app.
        session: The session that was made just now.
    """
    if app.json or app.quiet or app.hosts or session.config.record == "none":
        return
    try:
        folder = app.paths.state_folder
        marker = os.path.join(folder, MARKER)
        if os.path.lexists(marker):
            return
        private_folder(folder)
        # O_EXCL: of several that are started at once, one says it.
        os.close(open_private(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except (OSError, UnsafeFolder, CommandError):
        return
    app.out.note(
        f"orbit keeps the history of sessions{_how_long(app)} (`orbitctl search`, `orbitctl session replay`); "
        "`--private` keeps none of a session, and [history] in config.toml sets limits"
    )


def _how_long(app: App) -> str:
    with contextlib.suppress(CommandError):
        days = app.paths.resolved.settings.history.recording_retention_secs / _DAY_SECS
        return f" for {days:.0f} days" if days >= 2 else ""
    return ""
