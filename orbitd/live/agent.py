"""The ssh agent's stable address: a link of the session's own that each attach renews.

A program keeps the environment that it was started with, but the agent's socket changes
with every login. So its SSH_AUTH_SOCK names a link, and the link names the agent of
whoever attached last.
"""

from __future__ import annotations

import contextlib
import os

from orbit_os.files import private_folder


class AgentLinks:
    """The links of all sessions.

    Args:
        folder: Where they lie; made private when the first is needed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def path(self, session_id: str) -> str:
        """Return a session's link, which need not lead anywhere."""
        return os.path.join(self._folder, session_id)

    def renew(self, session_id: str, target: str | None) -> None:
        """Let a session's link lead to an agent; without one it stays as it is. A failure costs the agent only."""
        path = self.path(session_id)
        if target and os.path.dirname(target) == self._folder:  # asked from within a session: where its link leads
            target = os.path.realpath(target)
        if not target or not target.startswith("/") or os.path.dirname(target) == self._folder:
            return
        with contextlib.suppress(OSError):
            private_folder(self._folder)
            temporary = f"{path}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            os.symlink(target, temporary)
            os.replace(temporary, path)

    def remove(self, session_id: str) -> None:
        """Take a session's link away."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(session_id))
