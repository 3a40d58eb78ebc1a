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
from orbitd.logs import event

log = logging.getLogger("orbitd.sessions")


class AgentLinks:
    """The links of all sessions.

    Args:
        folder: Where they are; created, and made private, when the first is needed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def path(self, session_id: str) -> str:
        """Return the path of a session's link; it may not exist, or point to nothing."""
        return os.path.join(self._folder, session_id)

    def update(self, session_id: str, environment: Mapping[bytes, bytes] | None) -> None:
        """Point a session's link to the agent of a client's environment; without one it stays. A failure is logged."""
        path = self.path(session_id)
        target = os.fsdecode((environment or {}).get(b"SSH_AUTH_SOCK", b""))
        # A client inside a session has the path of that session's link in its own environment. The link must
        # not point to a link that changes with others' attaches, and never to itself.
        if target and os.path.dirname(target) == self._folder:
            target = os.path.realpath(target)
        if not target or not target.startswith("/") or os.path.dirname(target) == self._folder:
            return
        try:
            private_folder(self._folder)
            temporary = f"{path}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            # symlink(2) does not replace; rename(2) does, and a program never finds no link at all.
            os.symlink(target, temporary)
            os.replace(temporary, path)
        except (OSError, UnsafeFolder) as error:
            # Without OSError's file names: one is of the client's environment.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            event(log, logging.WARNING, "agent link not updated", session=session_id, error=reason)

    def exists(self, session_id: str) -> bool:
        """Return whether a session has a link, to whatever it leads."""
        return os.path.lexists(self.path(session_id))

    def remove(self, session_id: str) -> None:
        """Remove a session's link."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(session_id))
