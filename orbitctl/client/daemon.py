"""Start orbitd where none answers, and stop it.

It is started once, however many clients ask at the same moment. Clients take turns by a lock in
the state folder: the one that gets it looks again, and starts the daemon only if there still is
none. The daemon writes to a pipe when it serves; the end of the pipe without that means that it
failed, and its log has the reason.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType

from orbit_os.files import UnsafeFolder, private_folder
from orbit_os.python import python_command
from orbit_protocol.methods import DAEMON_INFO, DAEMON_SHUTDOWN
from orbit_protocol.params import Params
from orbitctl.client.client import Client
from orbitctl.client.paths import CONFIG_VARIABLE, SOCKET_VARIABLE, ClientPaths
from orbitctl.client.process_watch import ProcessWatch
from orbitctl.client.transport import UnixStream, Unreachable
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.output import Output

DATABASE_VARIABLE = "ORBITD_DATABASE"
_RETRY_SECONDS = 0.05
_HANDOVER_SECONDS = 10.0
_LONGEST_REASON = 4096


def start(paths: ClientPaths, timeout: float, out: Output) -> UnixStream:
    """Start a daemon and return a connection to it.

    Args:
        paths: Where it is to serve.
        timeout: How long that may take, in seconds.
        out: Gets a note when a service was asked to start and does not answer.

    Raises:
        CommandError: It did not start; the message has its own reason.
    """
    state = paths.resolved.state_folder
    try:
        private_folder(state)  # log and lock lie there
        return _started(paths, state, timeout, out)
    except UnsafeFolder as error:
        raise CommandError(f"cannot start orbitd: {error}", ExitCode.UNREACHABLE) from error
    except OSError as error:
        raise CommandError(
            f"cannot start orbitd: {error.strerror}: {error.filename}",
            ExitCode.UNREACHABLE,
            hint="`orbitctl doctor` looks at the folders.",
        ) from error


def stop(client: Client, timeout: float) -> int:
    """Stop the daemon that a client is connected to, wait until its process has ended, and return its pid.

    Args:
        client: It is closed.
        timeout: How long the daemon may take to end, in seconds.

    Raises:
        CommandError: It has not ended in time.
    """
    pid = client.call(DAEMON_INFO, Params()).pid
    # Opened while the daemon is known to run: afterwards another process could have its pid.
    with contextlib.closing(ProcessWatch(pid)) as process:
        client.call(DAEMON_SHUTDOWN, Params())
        client.close()
        if not process.wait(timeout):
            raise CommandError(f"orbitd (pid {pid}) has not ended after {timeout:g} s", ExitCode.TIMEOUT)
    return pid


def _started(paths: ClientPaths, state: str, timeout: float, out: Output) -> UnixStream:
    deadline = time.monotonic() + timeout
    with _turn(os.path.join(state, "start.lock"), timeout):
        if (stream := _connected(paths, timeout)) is not None:
            return stream  # another client was first
        if _is_default(paths) and _started_by_service(paths, out):
            if (stream := _connected(paths, timeout)) is not None:
                return stream
            out.note("the service was started, but does not serve this socket; starting orbitd without it")
        return _spawned(paths, deadline, timeout)


def _spawned(paths: ClientPaths, deadline: float, timeout: float) -> UnixStream:
    """Spawn orbitd until it serves, or somebody else's does that had the database already."""
    handover = min(deadline, time.monotonic() + _HANDOVER_SECONDS)
    while True:
        failure = _spawn(paths, deadline)
        if (stream := _connected(paths, timeout)) is not None:
            return stream
        if failure is None:
            raise CommandError(f"orbitd started, but does not serve {paths.socket_path}", ExitCode.UNREACHABLE)
        if not _is_locked(paths) or time.monotonic() > handover:
            raise failure
        # An orbitd that we did not start holds the database: it is about to serve or about to
        # be gone. No event is common to both, so this one wait looks again.
        time.sleep(_RETRY_SECONDS)


def _connected(paths: ClientPaths, timeout: float) -> UnixStream | None:
    try:
        return UnixStream(paths.socket_path, timeout)
    except Unreachable as error:
        if error.no_daemon:
            return None
        raise


def _is_default(paths: ClientPaths) -> bool:
    """Tell whether the service would serve this place: it knows nothing of our flags and variables."""
    named = (paths.environ.get(name) for name in (SOCKET_VARIABLE, CONFIG_VARIABLE, DATABASE_VARIABLE))
    return paths.socket_flag is None and not any(named)


def _started_by_service(paths: ClientPaths, out: Output) -> bool:
    from orbitctl.service.manager import start_if_installed

    try:
        return start_if_installed(paths.environ)
    except CommandError as failure:
        out.note(f"the installed service did not start: {failure.message}")
        return False


def _spawn(paths: ClientPaths, deadline: float) -> CommandError | None:
    """Run orbitd by itself; return None once it serves, else why it does not.

    Raises:
        CommandError: It said nothing until the deadline; it goes on in the background.
    """
    import subprocess

    log = paths.log_file
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    before = os.fstat(descriptor).st_size
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            python_command("orbitd", *arguments(paths), "--ready-fd", str(writer)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            pass_fds=(writer,),
            start_new_session=True,
            cwd="/",  # ours may have to be unmounted, or deleted, while the daemon runs
        )
    finally:
        os.close(writer)
        os.close(descriptor)
    with open(reader, "rb", buffering=0) as ready:
        if not select.select([ready], [], [], max(0.0, deadline - time.monotonic()))[0]:
            process.returncode = 0  # it is left alone: no warning about a process that runs on
            raise CommandError(
                "orbitd was started but does not serve yet", ExitCode.TIMEOUT, hint=f"Look into {log}, or try again."
            )
        if ready.read(1):
            process.returncode = 0  # it runs on by itself
            return None
    return _reason(log, before, process.wait())


def _reason(log: str, start: int, code: int) -> CommandError:
    """Return why orbitd ended, from what it added to its log."""
    with open(log, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _LONGEST_REASON))
        lines = file.read(_LONGEST_REASON).decode(errors="replace").splitlines()
    error, hint = complaint(lines)
    reason = error or (lines[-1] if lines else f"it ended with exit code {code}")
    hint = hint or f"Its log is {log}; `orbitctl daemon run` shows what it does."
    return CommandError(f"orbitd did not start: {reason}", ExitCode.UNREACHABLE, hint=hint)


def complaint(lines: list[str]) -> tuple[str, str]:
    """Return the error and the hint that orbitd wrote to stderr before it ended; each may be empty."""
    found = dict(line.removeprefix("orbitd: ").partition(": ")[::2] for line in lines)
    return found.get("error", ""), found.get("hint", "")


def arguments(paths: ClientPaths) -> list[str]:
    """Return the flags that keep our choices: orbitd inherits the variables, but not our folder."""
    chosen = {"--socket": paths.socket_flag or paths.environ.get(SOCKET_VARIABLE)}
    chosen["--config"] = paths.environ.get(CONFIG_VARIABLE)
    chosen["--database"] = paths.environ.get(DATABASE_VARIABLE)
    given = {flag: value for flag, value in chosen.items() if value}
    return [word for flag, value in given.items() for word in (flag, _absolute(value))]


def _absolute(path: str) -> str:
    return path if path.startswith("~") else os.path.abspath(path)


def lock_holder(paths: ClientPaths) -> str | None:
    """Return what the holder of the database's lock wrote into it; None if nobody holds it."""
    try:
        descriptor = os.open(paths.resolved.database_path + ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, _LONGEST_REASON, 0).decode(errors="replace")
    finally:
        os.close(descriptor)
    return None


def _is_locked(paths: ClientPaths) -> bool:
    """Tell whether an orbitd that is to serve this very socket has the database."""
    holder = lock_holder(paths)
    return holder is not None and (not holder or f"socket {paths.socket_path}\n" in holder)


@contextlib.contextmanager
def _turn(path: str, timeout: float) -> Iterator[None]:
    """Hold a lock among clients. Raises: CommandError if it is not free in time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            with _alarm(timeout):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except TimeoutError as error:
            raise CommandError(
                f"another orbitctl is still starting orbitd after {timeout:g} s", ExitCode.TIMEOUT
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alarm(timeout: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `timeout` seconds: flock(2) has no limit of its own."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
