"""What every command is given: the common options, the output, and a client made on first use.

One `App` a process, made by `orbitctl.cli.run` and handed down as click's context object.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orbit_protocol.methods import SESSION_FIND, WORKSPACE_FIND, WORKSPACE_LIST, Method
from orbit_protocol.params import ByRef, WorkspaceList
from orbit_protocol.types import Session, Workspace
from orbitctl.client.client import DEFAULT_TIMEOUT, LONG_TIMEOUT, Answer, Client
from orbitctl.client.paths import ClientPaths
from orbitctl.client.transport import Stream, UnixStream, Unreachable
from orbitctl.errors import CommandError
from orbitctl.ui.output import Output

if TYPE_CHECKING:
    from orbitctl.client.ssh import Host

P = TypeVar("P")
R = TypeVar("R")


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Build params in the block: what they refuse by themselves was typed wrong. Raises: click.UsageError."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error).replace("`", "'")) from error


class App:
    """The state of one run.

    Args:
        environ: The environment, which decides paths where no option does.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.json = False
        self.quiet = False
        self.socket: str | None = None
        self.named_hosts: tuple[Host, ...] = ()
        self.remote_command: str | None = None
        self.completing = False
        self.timeout: float | None = None
        self.autostart = environ.get("ORBITCTL_NO_AUTOSTART", "") in ("", "0")
        self.out = Output()
        self._client: Client | None = None

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The machines to talk to; none where it is this one alone."""
        return self.named_hosts if any(host.address for host in self.named_hosts) else ()

    @cached_property
    def paths(self) -> ClientPaths:
        """Where this user's daemon and its files are."""
        return ClientPaths(self.environ, self.socket)

    @property
    def client(self) -> Client:
        """The connected client; a daemon is started where none answers. Raises: CommandError, click.UsageError."""
        if self._client is None:
            self._client = Client(self.open_stream(), self.seconds)
        return self._client

    @property
    def seconds(self) -> float:
        """How long a call may take."""
        return DEFAULT_TIMEOUT if self.timeout is None else self.timeout

    def running_client(self) -> Client:
        """Return a client of a daemon that runs already. Raises: CommandError."""
        self.autostart = False
        return self.client

    def stop_daemon(self) -> int | None:
        """Stop the daemon and wait for its end; return its pid, or None if none ran. Raises: CommandError."""
        from orbitctl.client import daemon

        try:
            client = self.running_client()
        except Unreachable as failure:
            if failure.no_daemon:
                return None
            raise
        self._client = None  # `stop` closes it
        return daemon.stop(client, self.seconds)

    def at(self, host: Host) -> App:
        """Return an app like this one for one of its hosts, with a connection of its own."""
        other = copy.copy(self)
        other.named_hosts, other._client = (host,), None
        return other

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def call(self, method: Method[P, R], params: P) -> R:
        """Call a method. Raises: CommandError."""
        return self.client.call(method, params)

    def ask(self, method: Method[P, R], params: P) -> Answer[R]:
        """Call a method whose result may be shown as it came. Raises: CommandError."""
        return self.client.ask(method, params)

    def ask_long(self, method: Method[P, R], params: P, what: str) -> Answer[R]:
        """Call a method that takes its time, and show that it is at work."""
        from orbitctl.ui.spinner import spinner

        client = self.client
        with spinner(what):
            return client.ask(method, params, LONG_TIMEOUT if self.timeout is None else self.timeout)

    def session(self, ref: str) -> Session:
        """Find a session by id, unique prefix or name."""
        return self.call(SESSION_FIND, ByRef(ref=ref))

    def workspace(self, ref: str) -> Workspace:
        """Find a workspace by id, unique prefix or name."""
        return self.call(WORKSPACE_FIND, ByRef(ref=ref))

    def workspace_names(self) -> dict[str, str]:
        """Return every workspace's name by its id."""
        from orbitctl.client.paging import ask_all

        page = ask_all(self.client, WORKSPACE_LIST, WorkspaceList(), "workspaces").value
        return {one.id: one.name for one in page.workspaces}

    def show(self, answer: Answer[R], draw: Callable[[R], None], ids: Callable[[R], Iterable[str]]) -> None:
        """Show a result as the common options ask: as it came, as ids, or drawn."""
        if self.json:
            self.out.json(answer.raw)
        elif self.quiet:
            for found in ids(answer.value):
                self.out.line(found)
        else:
            draw(answer.value)

    def done(self, answer: Answer[Any], message: str, about: str) -> None:
        """Show that something without a result of its own was done; `about` is the id that it was done to."""
        if self.json:
            self.out.json(answer.raw)
        elif self.quiet:
            self.out.line(about)
        else:
            self.out.note(message)

    def confirm(self, question: str, yes: bool) -> None:
        """Ask before something is deleted or replaced.

        Raises:
            click.UsageError: Nobody can be asked, and `--yes` was not given.
            CommandError: The answer was no.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here: this needs --yes")
        if not click.confirm(question, err=True):
            raise CommandError("nothing was changed")

    def open_stream(self) -> Stream:
        """Return a new connection to the daemon, which is started where none answers.

        Raises:
            CommandError: It cannot be reached.
            click.UsageError: Several hosts were named, and this command talks to one.
        """
        if len(self.hosts) > 1:
            raise click.UsageError("only `orbitctl session list` takes more than one --host")
        if self.hosts:
            from orbitctl.client.ssh import Dial, SshStream

            dial = Dial(
                remote_command=self.remote_command,
                socket=self.socket,
                autostart=self.autostart,
                quiet=self.completing,
            )
            return SshStream(self.hosts[0], dial, self.environ)
        path = self.paths.socket_path
        try:
            return UnixStream(path, self.seconds)
        except Unreachable as error:
            if not (error.no_daemon and self.autostart):
                raise
        from orbitctl.client.daemon import start

        return start(self.paths, self.seconds, self.out)
