"""This user's own daemon, as an attach asks for it where nothing on the command line says otherwise.

`App` is the same for every command line, and comes with click, which takes longer to import than it takes until a
session is shown.
"""

from __future__ import annotations

from orbitctl.client.paths import ClientPaths
from orbitctl.client.transport import UnixStream, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Mapping
    from typing import TypeVar

    from orbit_protocol.methods import Method
    from orbitctl.client.ssh import Host

    P = TypeVar("P")
    R = TypeVar("R")

AUTOSTART_VARIABLE = "ORBITCTL_NO_AUTOSTART"
TRUE, FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
"""What the variable may say."""
TIMEOUT = 30.0
"""Seconds for a connection, as `DEFAULT_TIMEOUT` of the client that decodes by msgspec."""


def may_autostart(environ: Mapping[str, str]) -> bool:
    """Return whether a daemon may be started where none runs."""
    return environ.get(AUTOSTART_VARIABLE, "").strip().lower() not in TRUE


class LocalDaemon:
    """What an attach needs of `App`, of this machine's daemon and without an option or a database that is named.

    Args:
        environ: The environment.

    Attributes:
        hosts: The machines to connect to: none but this one.
        timeout: What `--timeout` says: nothing.
        autostart: Whether another process may start a daemon where one was killed; none is started in this one.
        paths: The paths of the daemon and its files.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.hosts: tuple[Host, ...] = ()
        self.timeout: float | None = None
        self.autostart = may_autostart(environ)
        self.paths = ClientPaths(environ, None)

    def open_stream(self, *, wait: bool = True) -> UnixStream:
        """Return a new connection to the daemon; `wait` for one that is about to serve. Raises: CommandError."""
        try:
            return UnixStream(self.paths.socket_path, TIMEOUT)
        except Unreachable as error:
            missing = error
        from orbitctl.client.finding import connect_to_holder  # here, since most attaches find a daemon at its socket

        return connect_to_holder(self.paths, missing, TIMEOUT, wait=wait)

    def call(self, method: Method[P, R], params: P) -> R:
        """Call a method, once. Raises: CommandError, ImportError where the installation has been replaced."""
        from orbitctl.client.client import Client  # here, since few attaches end in a call

        client = Client(self.open_stream(), TIMEOUT)
        try:
            return client.call(method, params)
        finally:
            client.close()

    def close(self) -> None:
        """Close nothing: each call has a connection of its own."""
