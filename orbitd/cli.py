"""`orbitd`: read flags, environment and configuration file, then run the daemon in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn, cast

import click

from orbit_os.files import UnsafeFolder, read_regular
from orbit_os.places import HomeUnusable, Places
from orbit_protocol import VERSION
from orbit_protocol.errors import OrbitError
from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.settings import (
    CONFIG_VARIABLE,
    MAX_CONFIG_BYTES,
    LogLevel,
    Resolved,
    Settings,
    SettingsError,
    config_path,
    parse_settings,
    resolve,
)
from orbit_protocol.visible import visible
from orbitd.daemon import Daemon
from orbitd.descriptors import raise_limit
from orbitd.lock import AlreadyLocked
from orbitd.log_writer import stderr
from orbitd.logs import configure
from orbitd.rpc.sockets import SocketUnusable
from orbitd.store.backup import restore
from orbitd.supervision import SocketActivationError, Supervision

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_READER_LEFT = 141
GARBAGE_THRESHOLD = 10_000
MAX_DATABASE_PATH_BYTES = 440
"""SQLite takes 504 (MAX_PATHNAME in its os_unix.c, less `-journal`); backups and copies beside it have longer names."""
_LEVELS = click.Choice(["debug", "info", "warning", "error"])


class _Command(click.Command):
    """The command. Help and version, which it prints while it reads the command line, end with their reader."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except OSError as error:
            with open(os.devnull, "wb") as nothing:  # else the interpreter's exit fails on what is left once more
                os.dup2(nothing.fileno(), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                sys.exit(EXIT_READER_LEFT)
            _fail(f"cannot write to stdout: {error.strerror}", None, EXIT_FAILED, None)


@click.command(
    cls=_Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Configuration: a flag wins over ORBITD_CONFIG, ORBITD_SOCKET and ORBITD_DATABASE, and those over the file.",
)
@click.option("--config", "config", type=click.Path(), help="Configuration file (TOML) [~/.config/orbit/config.toml].")
@click.option("--socket", "socket", type=click.Path(), help="Socket to serve [$XDG_RUNTIME_DIR/orbit/orbitd.sock].")
@click.option("--database", type=click.Path(), help="Database file [~/.local/share/orbit/sessions.db].")
@click.option("--log-level", type=_LEVELS, help="Least severe events to log [info].")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--ready-fd",
    type=int,
    hidden=True,
    help="Write a line to this descriptor: `ready` once clients are served, `locked` where another orbitd serves, or "
    "`failed`; behind the last two, what goes to stderr.",
)
@click.option("--restore", metavar="BACKUP", help="Put a backup in the database's place and exit; orbitctl runs this.")
@click.option("--dry-run", is_flag=True, hidden=True, help="With --restore: only look into the backup.")
@click.version_option(VERSION, prog_name="orbitd")
def cli(
    config: str | None,
    socket: str | None,
    database: str | None,
    log_level: str | None,
    log_format: str,
    ready_fd: int | None,
    restore: str | None,
    dry_run: bool,
) -> None:
    """Keep terminal sessions: serve the session store on a Unix socket.

    Runs in the foreground and logs to stderr, one line an event. SIGTERM or
    `orbitctl daemon stop` ends it after answering what is in flight. One daemon
    serves one database; a second one says who holds it and exits with 1.
    `orbitctl` starts it by itself where none answers; `orbitctl service install`
    hands it to systemd or launchd.

    Exit status: 0 stopped, 1 could not serve, 2 configuration or usage.
    """
    try:
        supervision = Supervision.from_environment()
        os.umask(0o077)
        # A core dump would hold screens and environments. The soft limit alone, which programs get back as it was.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        # The mask is inherited through fork and execve (signal(7)), and some launchers block all there is before they
        # start a program. SIGTERM would end nothing then, and screens processes that have ended would not be reaped.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        resolved = load_settings(config, socket, database)
    except SocketActivationError as error:
        _fail(str(error), None, EXIT_FAILED, ready_fd)
    except HomeUnusable as error:
        _fail(str(error), error.hint, EXIT_CONFIGURATION, ready_fd)
    except SettingsError as error:
        hint = "`orbitctl config check` reads the file without starting anything."
        _fail(str(error), hint, EXIT_CONFIGURATION, ready_fd)
    level = cast(LogLevel, log_level or resolved.settings.daemon.log_level)
    log_file = os.path.join(resolved.state_folder, "orbitd.log")
    configure(level, "json" if log_format == "json" else "text", log_file)
    if restore is not None:
        _exit_on_error(lambda: _restore(os.path.abspath(restore), resolved.database_path, dry_run=dry_run))
        return
    raise_limit()
    run(Daemon(resolved, supervision, lambda: _serving(ready_fd)), ready_fd)


def load_settings(config: str | None, socket: str | None, database: str | None) -> Resolved:
    """Read the configuration file; environment and flags override it.

    Raises:
        SettingsError: The file cannot be read or used, or a path cannot; a named file that is missing is an error.
        HomeUnusable: HOME is needed for a path, and cannot be used.
    """
    places = Places(os.environ)
    try:
        path = config_path(config, os.environ, places)
        settings = read_settings(path, may_be_missing=config is None and not os.environ.get(CONFIG_VARIABLE))
        found = resolve(settings, os.environ, places, config_file=path, socket=socket, database=database)
        places.check()
    except FileNotFoundError as error:
        raise SettingsError("a relative path is given, and the current folder has been deleted") from error
    length = len(os.fsencode(found.database_path))
    if length > MAX_DATABASE_PATH_BYTES:
        raise SettingsError(
            f"the path of the database is too long ({length} bytes, at most {MAX_DATABASE_PATH_BYTES}): "
            f"{found.database_path}; name a shorter one with --database, ORBITD_DATABASE or database_path"
        )
    return found


def read_settings(path: str, *, may_be_missing: bool) -> Settings:
    """Read a configuration file; the defaults where it may be missing, and is. Raises: SettingsError."""
    try:
        return parse_settings(read_regular(path, MAX_CONFIG_BYTES), path)
    except FileNotFoundError as error:
        if may_be_missing:
            return Settings()
        raise SettingsError(f"{path}: no such file") from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error


def run(daemon: Daemon, ready_fd: int | None) -> None:
    """Run the daemon to its end, and exit with what that means."""
    gc.disable()  # what a start allocates lives as long as the daemon; `_enable_gc` goes on from there
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        _exit_on_error(lambda: runner.run(daemon.run()), ready_fd)


def _restore(backup: str, database_path: str, *, dry_run: bool) -> None:
    """Restore a backup, or only check it, and print the result as JSON."""
    result = restore.inspect_backup(backup) if dry_run else restore.restore(backup, database_path)
    click.echo(encode_message(result))


def _exit_on_error(work: Callable[[], None], ready_fd: int | None = None) -> None:
    """Call `work`; print an error that it raises on purpose, and exit with 1."""
    try:
        work()
    except AlreadyLocked as error:
        _fail(str(error), None, EXIT_FAILED, ready_fd, "locked")
    except (SocketUnusable, UnsafeFolder) as error:
        _fail(str(error), None, EXIT_FAILED, ready_fd)
    except OrbitError as error:
        _fail(error.message, error.hint, EXIT_FAILED, ready_fd)
    except OSError as error:
        place = "" if error.filename is None else f": {error.filename}"
        _fail(f"{error.strerror or error}{place}", None, EXIT_FAILED, ready_fd)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Use uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _serving(ready_fd: int | None) -> None:
    """Write a line to the pipe of `--ready-fd`, and close it; a starter that has left needs none (EPIPE)."""
    _enable_gc()
    if ready_fd is not None:
        with contextlib.suppress(OSError):
            os.write(ready_fd, b"ready\n")
        with contextlib.suppress(OSError):
            os.close(ready_fd)


def _enable_gc() -> None:
    """Collect cyclic garbage again, but not among what a start has allocated, and less often.

    Requests that succeed make none. Collecting after every 700 objects, as is the default, took
    15 % of the time while sessions were created.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 10, 10)
    gc.enable()


def _fail(message: str, hint: str | None, code: int, ready_fd: int | None, outcome: str = "failed") -> NoReturn:
    text = f"orbitd: error: {visible(message)}\n" + (f"hint: {visible(hint)}\n" if hint else "")
    lines = text.encode("utf-8", "backslashreplace")
    # The starter first: it hears it although stderr is a terminal after Ctrl-S, or a log on a full disk.
    if ready_fd is not None:
        with contextlib.suppress(OSError):
            os.write(ready_fd, outcome.encode() + b"\n" + lines)
    stderr.put(lines)  # the interpreter's exit waits for it, but not for ever (`guard_stderr`)
    sys.exit(code)  # with the pipe's end: the starter waits for that
