"""Start orbitd where none runs, and stop it.

It is started once, however many clients find none at the same moment: they take turns by a lock file
in the state folder, and each connects again before it starts one. A client that cannot wait has another
process start it, which takes over its turn (`start_apart`). orbitd writes to a pipe when it
serves (`--ready-fd`); the end of the pipe without that means that it has failed, and its log has the
reason.
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

from orbit_os.files import UnsafeFile, UnsafeFolder, lock, open_private, private_folder
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
_MAX_REASON_BYTES = 4096


def start(paths: ClientPaths, timeout: float, out: Output, lock_fd: int | None = None) -> UnixStream:
    """Start a daemon and return a connection to it.

    Args:
        paths: Where it is to serve.
        timeout: How long that may take, in seconds.
        out: Where a service that does not start is mentioned.
        lock_fd: The locked lock file of the client that has this process start one.

    Raises:
        CommandError: It did not start; the message has orbitd's own reason.
    """
    state = paths.resolved.state_folder
    paths.check_home()
    try:
        private_folder(state)  # for the log and the lock
        return _start_in_turn(paths, timeout, out, lock_fd)
    except UnsafeFolder as error:
        raise CommandError(f"cannot start orbitd: {error}", ExitCode.UNREACHABLE) from error
    except OSError as error:
        raise CommandError(
            f"cannot start orbitd: {error.strerror}: {error.filename}",
            ExitCode.UNREACHABLE,
            hint="`orbitctl doctor` checks the folders.",
        ) from error


def start_apart(paths: ClientPaths) -> bool:
    """Have another process start a daemon, and do not wait for it; return False where a client starts one already.

    Raises:
        CommandError: Its configuration cannot be read.
        OSError, UnsafeFolder: The state folder, the lock file or the process cannot be had.
    """
    import subprocess

    state = paths.resolved.state_folder
    paths.check_home()
    private_folder(state)
    descriptor = _open_start_lock(paths)
    try:
        try:
            lock(_start_lock_path(paths), descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # The process inherits the lock, so that of a hundred clients whose daemon was killed one starts it: to run a
        # process for each takes longer than that.
        socket = [] if paths.socket_flag is None else ["--socket", paths.socket_path]
        process = subprocess.Popen(
            python_command("orbitctl", *socket, "daemon", "start", "--lock-fd", str(descriptor)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    # It is not waited for: whether it succeeded is seen at the socket. With a return code set, Popen's destructor
    # does not warn about a child that still runs; the process is reaped by init when we have ended.
    process.returncode = 0
    return True


def stop(client: Client, timeout: float) -> int:
    """Stop the daemon that a client is connected to, wait until its process has exited, and return its pid.

    Args:
        client: The connected client, which is closed.
        timeout: How long the daemon may take to exit, in seconds.

    Raises:
        CommandError: It has not exited in time.
    """
    pid = client.call(DAEMON_INFO, Params()).pid
    # Made while the daemon is known to run, since it has just answered: later another process could have its pid.
    with contextlib.closing(ProcessWatch(pid)) as process:
        client.call(DAEMON_SHUTDOWN, Params())
        client.close()
        if not process.wait(timeout):
            raise CommandError(f"orbitd (pid {pid}) has not ended after {timeout:g} s", ExitCode.TIMEOUT)
    return pid


def _start_in_turn(paths: ClientPaths, timeout: float, out: Output, lock_fd: int | None) -> UnixStream:
    deadline = time.monotonic() + timeout
    descriptor = _open_start_lock(paths) if lock_fd is None else lock_fd
    with _start_lock(_start_lock_path(paths), descriptor, timeout):
        # Of several clients that found no daemon at the same moment the first starts it while the others wait for
        # the lock; each of them finds it running when its turn comes.
        if (stream := _connect(paths, timeout)) is not None:
            return stream
        if _is_default(paths) and _start_service(paths, out):
            if (stream := _connect(paths, timeout)) is not None:
                return stream
            out.note("the service was started, but does not serve this socket; starting orbitd without it")
        handover = min(deadline, time.monotonic() + _HANDOVER_SECONDS)
        while True:
            error = _spawn(paths, deadline)
            if (stream := _connect(paths, timeout)) is not None:
                return stream
            if error is None:
                raise CommandError(f"orbitd started, but does not serve {paths.socket_path}", ExitCode.UNREACHABLE)
            if not _is_locked(paths) or time.monotonic() > handover:
                raise error
            # Ours has ended since an orbitd that is not of our making (a supervisor's, say) holds the database's
            # lock. It is about to serve, and then we connect; or about to exit, and then ours can start. The first
            # shows at the socket, the second at the lock, and no system call waits for both: hence a retry.
            time.sleep(_RETRY_SECONDS)


def _connect(paths: ClientPaths, timeout: float) -> UnixStream | None:
    """Return a connection, or None if no daemon runs. Raises: CommandError."""
    try:
        return UnixStream(paths.socket_path, timeout)
    except Unreachable as error:
        if error.no_daemon:
            return None
        raise


def _is_default(paths: ClientPaths) -> bool:
    """Return whether the service would serve these paths: our flags and variables do not reach it."""
    named = (paths.environ.get(name) for name in (SOCKET_VARIABLE, CONFIG_VARIABLE, DATABASE_VARIABLE))
    return paths.socket_flag is None and not any(named)


def _start_service(paths: ClientPaths, out: Output) -> bool:
    from orbitctl.service.manager import start_if_installed

    try:
        return start_if_installed(paths.environ)
    except CommandError as error:
        out.note(f"the installed service did not start: {error.message}")
        return False


def _spawn(paths: ClientPaths, deadline: float) -> CommandError | None:
    """Run orbitd without a supervisor; return None once it serves, or why it has ended.

    Raises:
        CommandError: It is not ready at the deadline; it goes on in the background.
    """
    import subprocess

    log = paths.log_file
    descriptor = open_private(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    size_before = os.fstat(descriptor).st_size
    reader, writer = os.pipe()  # both close-on-exec; `pass_fds` makes the writer inheritable in the child alone
    try:
        process = subprocess.Popen(
            python_command("orbitd", *arguments(paths), "--ready-fd", str(writer)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            pass_fds=(writer,),
            start_new_session=True,  # Ctrl-C and the hangup of this terminal are not for it
            cwd="/",  # ours may have to be unmounted, or deleted, while the daemon runs
        )
    finally:
        # With our copy closed, only orbitd holds the writing end: if it ends before it is ready, the pipe reports
        # an end of file, and select returns then as for the byte that it writes when it serves.
        os.close(writer)
        os.close(descriptor)
    with open(reader, "rb", buffering=0) as ready:
        if not select.select([ready], [], [], max(0.0, deadline - time.monotonic()))[0]:
            process.returncode = 0  # else Popen's destructor warns of a child that still runs
            raise CommandError(
                "orbitd was started but does not serve yet", ExitCode.TIMEOUT, hint=f"Look into {log}, or try again."
            )
        if ready.read(1):
            process.returncode = 0  # as above: it outlives this process
            return None
    return _start_error(log, size_before, process.wait())


def _start_error(log: str, start: int, code: int) -> CommandError:
    """Return why orbitd has ended, from what it has written to its log after `start` bytes."""
    with open(open_private(log, os.O_RDONLY), "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _MAX_REASON_BYTES))
        lines = file.read(_MAX_REASON_BYTES).decode(errors="replace").splitlines()
    error, hint = error_and_hint(lines)
    reason = error or (lines[-1] if lines else f"it ended with exit code {code}")
    hint = hint or f"Its log is {log}; `orbitctl daemon run` shows what it does."
    return CommandError(f"orbitd did not start: {reason}", ExitCode.UNREACHABLE, hint=hint)


def error_and_hint(lines: list[str]) -> tuple[str, str]:
    """Return the error and the hint that orbitd has written to stderr; each may be empty."""
    found = dict(line.removeprefix("orbitd: ").partition(": ")[::2] for line in lines)
    return found.get("error", ""), found.get("hint", "")


def arguments(paths: ClientPaths) -> list[str]:
    """Return the flags for orbitd, which is started in another folder than the one that a relative path is for.

    It inherits the variables, which are absolute.
    """
    return [] if paths.socket_flag is None else ["--socket", paths.socket_path]


def was_supervised(paths: ClientPaths) -> bool:
    """Return whether the last daemon was run by a supervisor, which brings back one that was killed.

    Raises:
        CommandError: The configuration, which says where its lock file is, cannot be read.
    """
    try:
        with open(_open_database_lock(paths), "rb") as file:
            return b"\nsupervisor " in file.read(_MAX_REASON_BYTES)
    except (UnsafeFile, OSError):
        return False


def _open_database_lock(paths: ClientPaths) -> int:
    return open_private(paths.resolved.database_path + ".lock", os.O_RDONLY)


def lock_holder(paths: ClientPaths) -> str | None:
    """Return what the holder of the database's lock file has written into it; None if it is not locked."""
    try:
        descriptor = _open_database_lock(paths)
    except (UnsafeFile, OSError):
        return None
    try:
        # A shared lock is refused while orbitd has its exclusive one. If it is granted, close releases it; an
        # orbitd that asks for its own in just that moment is refused.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.fsdecode(os.pread(descriptor, _MAX_REASON_BYTES, 0))
    finally:
        os.close(descriptor)
    return None


def _is_locked(paths: ClientPaths) -> bool:
    """Return whether an orbitd that is to serve this socket has locked the database."""
    holder = lock_holder(paths)
    return holder is not None and (not holder or f"socket {paths.socket_path}\n" in holder)


def _open_start_lock(paths: ClientPaths) -> int:
    return open_private(_start_lock_path(paths), os.O_RDWR | os.O_CREAT)


def _start_lock_path(paths: ClientPaths) -> str:
    return os.path.join(paths.resolved.state_folder, "start.lock")


@contextlib.contextmanager
def _start_lock(path: str, descriptor: int, timeout: float) -> Iterator[None]:
    """Hold the lock under which clients start orbitd, by a descriptor that is closed at the end.

    The kernel releases it when the descriptor is closed, also by the end of a process that was killed. Of one that
    has the lock already nothing is waited for. orbitd does not inherit it: what is not passed on is closed.

    Raises:
        CommandError: It is not free in time.
    """
    try:
        try:
            with _alarm(timeout):
                lock(path, descriptor, fcntl.LOCK_EX)
        except TimeoutError as error:
            raise CommandError(
                f"another orbitctl is still starting orbitd after {timeout:g} s", ExitCode.TIMEOUT
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alarm(timeout: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `timeout` seconds: flock(2) has no timeout of its own.

    The signal interrupts flock with EINTR. Python then runs the handler, in the main thread, before it would call
    flock again (PEP 475), and what the handler raises comes out of it.
    """

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
