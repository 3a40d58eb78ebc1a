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
        login: The environment of the service manager, which may know an agent.
    """

    def __init__(self, folder: str, runtime_folder: str = "", login: Mapping[bytes, bytes] | None = None) -> None:
        self._natural_folder = folder
        self._login = login or {}
        self._runtime_folder = runtime_folder

    def path(self, session_id: str) -> str:
        """Return the path of a session's link; it may not exist, or point to nothing."""
        # connect(2) takes a link's own path for sun_path, whatever the link leads to.
        return fitting_socket_path(os.path.join(self._natural_folder, session_id), self._runtime_folder)

    def prepare(self, session_id: str, environment: Mapping[bytes, bytes] | None) -> bytes | None:
        """Return what a program that is about to start has for SSH_AUTH_SOCK; None where there is no agent.

        That is the session's link, where it leads to an agent; the client's own agent, where there can be no link or
        others could change it. A program that no client starts gets the agent of the client that was attached last,
        else the login's.

        Args:
            session_id: The session.
            environment: Of the client that starts it; None where there is none.
        """
        path = self.path(session_id)
        if environment is None and not os.path.exists(path):
            environment = self._login
        agent = _agent_of(environment)
        if environment is not None and not os.path.exists(agent):  # none, or it has ended and left the variable
            self.remove(session_id)
            return None
        self.update(session_id, environment)
        try:
            private_folder(os.path.dirname(path))
        except (OSError, UnsafeFolder) as error:
            _log_failure(session_id, error)
            path = ""
        found = path if os.path.exists(path) else agent
        return os.fsencode(found) if found else None

    def update(self, session_id: str, environment: Mapping[bytes, bytes] | None) -> None:
        """Point a session's link to the agent of a client's environment. A failure is logged.

        A client without an agent leaves the link as it is, and one whose agent has ended leaves one that leads to
        another.
        """
        path = self.path(session_id)
        folder = os.path.dirname(path)
        target = _agent_of(environment)
        # A client inside a session has the path of that session's link in its own environment. The link must
        # not point to a link that changes with others' attaches, and never to itself.
        try:
            if target and os.path.dirname(target) == folder:
                target = os.path.realpath(target)
            if not target or os.path.dirname(target) == folder:
                return
            if not os.path.exists(target) and os.path.exists(path):
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


def _agent_of(environment: Mapping[bytes, bytes] | None) -> str:
    """Return the path of a client's ssh agent; "" where it names none."""
    target = os.fsdecode((environment or {}).get(b"SSH_AUTH_SOCK", b""))
    return target if target.startswith("/") else ""


def _log_failure(session_id: str, error: OSError | UnsafeFolder | ValueError) -> None:
    # Without OSError's file names: one is of the client's environment.
    reason = error.strerror if isinstance(error, OSError) else str(error)
    event(log, logging.WARNING, "agent link not updated", session=session_id, error=reason)
