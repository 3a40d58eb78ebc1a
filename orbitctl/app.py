"""What every command is given: the common options, the output, and a client that connects on first use.

There is one `App` in a process, made by `orbitctl.cli.run` and passed to commands as click's context object.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orbit_protocol.errors import SessionNotFound
from orbit_protocol.methods import SESSION_FIND, SESSION_LIST, WORKSPACE_FIND, WORKSPACE_LIST, Method
from orbit_protocol.params import ByRef, SessionList, WorkspaceList
from orbit_protocol.text import path_text
from orbit_protocol.types import Session, Workspace, normal_name
from orbit_protocol.visible import visible
from orbitctl.client.client import DEFAULT_TIMEOUT, LONG_TIMEOUT, Answer, Client, ask_all, check_params
from orbitctl.client.local import AUTOSTART_VARIABLE, FALSE, TRUE, may_autostart
from orbitctl.client.paths import ClientPaths
from orbitctl.client.transport import UnixStream, Unreachable
from orbitctl.errors import CommandError, ExitCode, candidate_lines, candidate_of, usage_message
from orbitctl.ui.output import Output

if TYPE_CHECKING:
    from orbitctl.client.ssh import Host
    from orbitctl.client.transport import Stream

SESSION_VARIABLE = "ORBIT_SESSION"
"""What orbitd sets to the session's id for the programs in it."""

P = TypeVar("P")
R = TypeVar("R")


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Turn a ValueError of params that are built in the block into click.UsageError: the user mistyped them."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(usage_message(error)) from error


class App:
    """The state of one run of orbitctl.

    Args:
        environ: The environment; variables of it count where no option is given.

    Attributes:
        named_hosts: Every `--host`, `local` among them.
        completing: Whether a shell completes a word: then nothing may be asked or printed.
        autostart: Whether a daemon is started where none runs.
        way_out: What a user may do whose daemon does not answer; "" where the command does it, None for the usual.
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
        self.autostart = may_autostart(environ)
        self.way_out: str | None = None
        self.out = Output()
        self._client: Client | None = None

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The machines to connect to; empty for this one alone."""
        return self.named_hosts if any(host.address for host in self.named_hosts) else ()

    @cached_property
    def paths(self) -> ClientPaths:
        """The paths of this user's daemon and its files."""
        return ClientPaths(self.environ, self.socket)

    @property
    def client(self) -> Client:
        """The connected client; a daemon is started if none runs. Raises: CommandError, click.UsageError."""
        if self._client is None:
            stream = self.open_stream()
            self._client = Client(stream, self.timeout_seconds)
            if isinstance(stream, UnixStream) and not self.completing:
                self._client.on_silence = partial(self._warn_if_hung, stream)
        return self._client

    @property
    def timeout_seconds(self) -> float:
        """The timeout of a call, in seconds."""
        return DEFAULT_TIMEOUT if self.timeout is None else self.timeout

    def _warn_if_hung(self, stream: UnixStream) -> None:
        """Say that the daemon does not answer, and what to do, long before the timeout of the call."""
        from orbitctl.client.finding import check_answers

        try:
            check_answers(self.paths, stream)
        except CommandError as error:
            self._warn_that_waits(error)

    def _warn_that_waits(self, error: CommandError) -> None:
        """Say what the command waits for, and what the user may do meanwhile."""
        self.out.clear_line()  # of a spinner, which draws itself again below
        self.out.problem("warning", f"{error.message}; still waiting", "33")
        if hint := error.hint if self.way_out is None else self.way_out:
            self.out.problem("hint", hint, "36")

    def running_client(self) -> Client:
        """Return the connected client, without starting a daemon. Raises: CommandError."""
        self.autostart = False
        return self.client

    def find_client(self, *, may_start: bool = False) -> Client | None:
        """Return the connected client, or None if no daemon runs; none is started.

        Args:
            may_start: Whether to return None, too, where one may run on another machine: the caller starts one then,
                and the lock decides.

        Raises:
            CommandError: It cannot be reached.
        """
        try:
            return self.running_client()
        except Unreachable as error:
            if error.no_daemon or (may_start and error.may_start):
                return None
            raise

    def stop_daemon(self, *, force: bool = False) -> int | None:
        """Stop the daemon and wait until it has exited; return its pid, or None if none ran.

        Args:
            force: Whether to end one that hangs by signals.

        Raises:
            CommandError: It runs, and could not be stopped.
        """
        from orbitctl.client import daemon
        from orbitctl.ui.spinner import spinner

        timeout, chosen = self.timeout_seconds, self.timeout
        if force:
            self.timeout = min(timeout, daemon.FORCE_SECONDS)
        try:
            client = self.find_client()
        except CommandError as error:
            with spinner("stopping orbitd"):
                return daemon.stop_unreachable(self.paths, error, timeout, force=force)
        finally:
            self.timeout = chosen
        if client is None:
            return None
        self._client = None  # `stop` closes it
        with spinner("stopping orbitd"):
            return daemon.stop(client, self.paths, timeout, force=force)

    def at(self, host: Host) -> App:
        """Return a copy of this app for one of its hosts, with a connection of its own."""
        # A shallow copy: options, output and paths are shared, the connection is not.
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
        params = check_params(method, params)  # before a daemon is looked for, or started
        return self.client.call(method, params)

    def ask(self, method: Method[P, R], params: P) -> Answer[R]:
        """Call a method and return its result undecoded, for `--json`. Raises: CommandError."""
        params = check_params(method, params)
        return self.client.ask(method, params)

    def ask_long(self, method: Method[P, R], params: P, what: str) -> Answer[R]:
        """Call a method that takes long, with a long timeout, and show how far it is. Raises: CommandError."""
        from orbitctl.ui.spinner import spinner

        params, client = check_params(method, params), self.client
        timeout = LONG_TIMEOUT if self.timeout is None else self.timeout
        with spinner(what) as shown:
            return client.ask(method, params, timeout, shown.show_progress if shown.is_on_terminal else None)

    def this_session(self) -> str | None:
        """Return the id of the session that this process runs in, None outside of one."""
        return (self.environ.get(SESSION_VARIABLE) or None) if not self.hosts else None

    def named_or_this(self, ref: str | None) -> str:
        """Return a reference, or without one the session that this process runs in. Raises: click.UsageError."""
        if (found := ref if ref is not None else self.this_session()) is None:
            raise click.UsageError("Missing argument 'SESSION'.")
        return found

    def session(self, ref: str, *, or_begins: bool = False) -> Session:
        """Return the session of an id, a unique prefix of one, or a name; as `ask_session`. Raises: CommandError."""
        try:
            return self.ask_session(ref, or_begins=or_begins).value
        except CommandError as error:
            if not error.is_busy:
                raise
            # All connections are used, and the one that we have got lists sessions, but finds none.
            found = ask_all(self.client, SESSION_LIST, SessionList(), "sessions").value.sessions
            fitting = [one for one in found if ref in (one.id, one.name)]
            if len(fitting) != 1:
                raise
            return fitting[0]

    def ask_session(self, ref: str, *, or_begins: bool = False) -> Answer[Session]:
        """Ask for the session of an id, a unique prefix of one, or a name.

        Args:
            ref: What the user typed.
            or_begins: Whether it may also be what one name alone begins with, on a terminal: for what destroys
                nothing.

        Raises:
            CommandError: There is no such session, or more than one.
        """
        try:
            return self.ask(SESSION_FIND, ByRef(ref=ref))
        except CommandError as error:
            if not (or_begins and sys.stdin.isatty() and isinstance(error.__cause__, SessionNotFound)):
                raise
            if (found := self._session_that_begins(ref)) is None:
                raise
        return self.ask(SESSION_FIND, ByRef(ref=found.id))

    def _session_that_begins(self, ref: str) -> Session | None:
        """Return the session whose name alone begins with `ref`, None for none. Raises: CommandError for several."""
        params = SessionList(status=["active", "detached", "terminated"])
        found = ask_all(self.client, SESSION_LIST, params, "sessions").value.sessions
        fitting = [one for one in found if one.name and one.name.startswith(normal_name(ref, "it"))]
        fitting = [one for one in fitting if one.status != "terminated"] or fitting
        # Of ended sessions, a name means the newest one.
        newest = {one.name: one for one in sorted(fitting, key=lambda one: one.last_active)}
        if len(newest) > 1:
            raise CommandError(
                f"{len(newest)} names begin with {ref!r}",
                ExitCode.CONFLICT,
                hint="Type more of the name.",
                details=candidate_lines([candidate_of(one) for one in newest.values()]),
            )
        return next(iter(newest.values()), None)

    def workspace(self, ref: str) -> Workspace:
        """Return the workspace of an id, a unique prefix or a name. Raises: CommandError."""
        return self.call(WORKSPACE_FIND, ByRef(ref=ref))

    def workspace_names(self) -> dict[str, str]:
        """Return every workspace's name by its id."""
        try:
            page = ask_all(self.client, WORKSPACE_LIST, WorkspaceList(), "workspaces").value
        except CommandError as error:
            if error.is_busy:  # all connections are used; a list without the names is better than none
                return {}
            raise
        return {one.id: one.name for one in page.workspaces}

    def show(self, answer: Answer[R], draw: Callable[[R], None], ids: Callable[[R], Iterable[str]]) -> None:
        """Print a result: as JSON with `--json`, as ids with `--quiet`, else by `draw`."""
        if self.json:
            self.out.json(answer.raw)
        elif self.quiet:
            for found in ids(answer.value):
                self.out.line(found)
        else:
            draw(answer.value)

    def done(self, answer: Answer[Any], message: str, about: str) -> None:
        """Print that a call without a result succeeded; `about` is the id that it was for."""
        if self.json:
            self.out.json(answer.raw)
        elif self.quiet:
            self.out.line(about)
        else:
            self.out.note(message)

    def print_error(self, error: CommandError, about: str = "") -> ExitCode:
        """Print an error with its details and its hint, `about` before the message; return the exit code."""
        self.out.problem("error", about + error.message)
        for detail in error.details:
            self.out.note(f"  {detail}")
        if error.hint:
            self.out.problem("hint", error.hint, "36")
        return error.exit_code

    def confirm(self, question: str, yes: bool) -> None:
        """Ask the user before something is deleted or replaced.

        Raises:
            click.UsageError: stdin is not a terminal, and `--yes` was not given.
            CommandError: The answer was no.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError("stdin is not a terminal, so there is no one to ask: this needs --yes")
        if not click.confirm(visible(question), err=True):
            raise CommandError("nothing was changed")

    def open_stream(self, *, wait: bool = True) -> Stream:
        """Return a new connection to the daemon, which is started if none runs.

        Args:
            wait: Whether to wait for one that is about to serve, or to end.

        Raises:
            CommandError: It cannot be reached.
            click.UsageError: Several hosts were named, and this command talks to one.
        """
        if len(self.hosts) > 1:
            raise click.UsageError("only `orbitctl ls` and `session list` take more than one --host")
        if self.hosts:
            from orbitctl.client.ssh import Dial, SshStream

            dial = Dial(
                remote_command=self.remote_command,
                socket=self.socket,
                autostart=self.autostart,
                quiet=self.completing,
            )
            return SshStream(self.hosts[0], dial, self.environ)
        try:
            stream = UnixStream(self.paths.socket_path, self.timeout_seconds)
        except Unreachable as error:
            missing = error
        else:
            if self.paths.is_database_chosen:
                from orbitctl.client.finding import of_chosen_database

                return of_chosen_database(self.paths, stream, self.timeout_seconds)
            return stream
        # Here, since most runs find a daemon at its socket.
        from orbitctl.client.finding import connect_to_holder

        try:
            notice = None if self.completing else self._warn_that_waits
            return connect_to_holder(self.paths, missing, self.timeout_seconds, wait=wait, on_wait=notice)
        except Unreachable as error:
            if not (error.may_start and self.autostart):
                raise
        value = self.environ.get(AUTOSTART_VARIABLE, "").strip().lower()
        if value not in (*TRUE, *FALSE):
            raise CommandError(
                f"{AUTOSTART_VARIABLE} is {value!r}, which says neither yes nor no",
                ExitCode.USAGE,
                hint="Set it to 1, true or yes so that no daemon is started; 0, false, no or nothing has it started.",
            )
        from orbitctl.client.daemon import start
        from orbitctl.ui.spinner import spinner

        was_lost = _is_database_lost(self.paths)
        with spinner("starting orbitd"):
            stream = start(self.paths, self.timeout_seconds, self.out)
        if was_lost:
            self.out.problem(
                "warning",
                f"there was no database at {path_text(self.paths.database_path)}, and a new one is begun, though "
                "sessions have journals; `orbitctl status` says what to do",
                "33",
            )
        return stream


def _is_database_lost(paths: ClientPaths) -> bool:
    """Return whether the database is not there, though sessions that it recorded have journals."""
    if os.path.lexists(paths.database_path):
        return False
    try:
        return bool(os.listdir(os.path.join(os.path.dirname(paths.log_file), "journal")))
    except OSError:
        return False
