"""A stable path for the ssh agent of a session: a symbolic link that each attach points to the client's agent.

A program keeps the environment that it was started with, but the agent's socket changes
with every login. So its SSH_AUTH_SOCK names the link, and the link the agent of the client
that attached last.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping

from orbit_os.files import UnsafeFolder, private_folder
from orbit_os.sockets import fitting_socket_path
from orbitd.logs import event

log = logging.getLogger("orbitd.sessions")


class AgentLinks:
    """The links of all sessions.

    Args:
        folder: Where they belong; created, and made private, when the first is needed.
        runtime_folder: $XDG_RUNTIME_DIR, or empty: where they are if their paths would be too long in `folder`.
    """

    def __init__(self, folder: str, runtime_folder: str = "") -> None:
        self._natural_folder = folder
        self._runtime_folder = runtime_folder

    def path(self, session_id: str) -> str:
        """Return the path of a session's link; it may not exist, or point to nothing."""
        # connect(2) takes a link's own path for sun_path, whatever the link leads to.
        return fitting_socket_path(os.path.join(self._natural_folder, session_id), self._runtime_folder)

    def path_for_program(self, session_id: str) -> str | None:
        """Return the path of a session's link for its program; None where others could put an agent there."""
        path = self.path(session_id)
        try:
            private_folder(os.path.dirname(path))
        except (OSError, UnsafeFolder) as error:
            _log_failure(session_id, error)
            return None
        return path

    def update(self, session_id: str, environment: Mapping[bytes, bytes] | None) -> None:
        """Point a session's link to the agent of a client's environment; without one it stays. A failure is logged."""
        path = self.path(session_id)
        folder = os.path.dirname(path)
        target = os.fsdecode((environment or {}).get(b"SSH_AUTH_SOCK", b""))
        # A client inside a session has the path of that session's link in its own environment. The link must
        # not point to a link that changes with others' attaches, and never to itself.
        try:
            if target and os.path.dirname(target) == folder:
                target = os.path.realpath(target)
            if not target or not target.startswith("/") or os.path.dirname(target) == folder:
                return
            private_folder(folder)
            temporary = f"{path}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            # symlink(2) does not replace; rename(2) does, and a program never finds no link at all.
            os.symlink(target, temporary)
            os.replace(temporary, path)
        except (OSError, UnsafeFolder, ValueError) as error:  # ValueError: a NUL in it
            _log_failure(session_id, error)

    def exists(self, session_id: str) -> bool:
        """Return whether a session has a link, to whatever it leads."""
        return os.path.lexists(self.path(session_id))

    def remove(self, session_id: str) -> None:
        """Remove a session's link."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(session_id))


def _log_failure(session_id: str, error: OSError | UnsafeFolder | ValueError) -> None:
    # Without OSError's file names: one is of the client's environment.
    reason = error.strerror if isinstance(error, OSError) else str(error)
    event(log, logging.WARNING, "agent link not updated", session=session_id, error=reason)
