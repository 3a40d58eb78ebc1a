"""Start orbitd where none runs, and stop it.

It is started once, however many clients find none at the same moment: they take turns by a lock file
in the state folder, and each connects again before it starts one. A client that cannot wait has another
process start it, which takes over its turn (`start_apart`). orbitd writes to a pipe when it
serves (`--ready-fd`); the end of the pipe without that means that it has failed, and its log has the
reason. One that holds the database already is never raced: it is waited for while it starts or ends, and used or
named otherwise (`finding`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import time

from orbit_os.files import UnsafeFolder, lock, open_private, private_folder
from orbit_os.lock_note import Holder, LockNote
from orbit_os.python import python_command
from orbit_protocol.paths import path_text
from orbit_protocol.visible import seconds
from orbitctl.client.finding import connect, hung, read_lock_note
from orbitctl.client.light import CONFIG_VARIABLE, DATABASE_VARIABLE
from orbitctl.client.paths import ClientPaths
from orbitctl.client.process_watch import ProcessWatch
from orbitctl.client.transport import UnixStream, Unreachable
from orbitctl.errors import CommandError, ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it: attached clients, which have a daemon started, load none of these
    from collections.abc import Iterator
    from types import FrameType

    from orbitctl.client.client import Client
    from orbitctl.ui.output import Output

STOP_BY_FORCE = "`orbitctl daemon stop --force` ends it: what was answered is on disk, and programs go on."
FORCE_SECONDS = 5.0
"""How long a daemon that is ended by force has to answer, and then to end on SIGTERM."""
_MIN_SECONDS = 0.05
_START_ATTEMPTS = 3
_MAX_REASON_BYTES = 4096

_FOLDER_HINT = "It must be a folder of yours that only you can open, on a disk with room."
_HINTS_BY_ERRNO = {
    errno.EROFS: "Its disk is mounted read-only: remount it, or configure paths on another one.",
    errno.EIO: "Its disk fails: see the system's log (dmesg), or configure paths on another one.",
}


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
    paths.check()
    try:
        private_folder(state)  # for the log and the lock
        return _start_in_turn(paths, timeout, out, lock_fd)
    except UnsafeFolder as error:
        raise CommandError(f"cannot start orbitd: {error}", ExitCode.UNREACHABLE) from error
    except OSError as error:
        # What concerns no file has no name: fork(2) without a free process, say.
        what = error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
        other = "" if error.filename is None else _FOLDER_HINT
        raise CommandError(
            f"cannot start orbitd: {what}", ExitCode.UNREACHABLE, hint=_HINTS_BY_ERRNO.get(error.errno or 0, other)
        ) from error


def start_apart(paths: ClientPaths) -> bool:
    """Have another process start a daemon, and do not wait for it; return False where a client starts one already.

    Raises:
        CommandError: Its configuration cannot be read.
        OSError, UnsafeFolder: The state folder, the lock file or the process cannot be had.
    """
    import subprocess

    state = paths.resolved.state_folder
    paths.check()
    private_folder(state)
    descriptor = _open_start_lock(paths)
    try:
        try:
            lock(paths.start_lock_file, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # The process inherits the lock, so that of a hundred clients whose daemon was killed one starts it: to run a
        # process for each takes longer than that.
        process = subprocess.Popen(
            python_command("orbitctl", *arguments(paths), "daemon", "start", "--lock-fd", str(descriptor)),
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


def stop(client: Client, paths: ClientPaths, timeout: float, *, force: bool = False) -> int:
    """Stop the daemon that a client is connected to, wait until its process has exited, and return its pid.

    Args:
        client: The connected client, which is closed.
        paths: Where the database's lock is, by whose note a daemon that hangs is ended.
        timeout: How long each step may take, in seconds.
        force: Whether to end one that does not answer, or does not exit, by signals.

    Raises:
        CommandError: It does not answer, or has not exited in time.
    """
    from orbit_protocol.methods import DAEMON_INFO, DAEMON_SHUTDOWN
    from orbit_protocol.params import Params

    client.timeout = min(timeout, FORCE_SECONDS) if force else timeout
    listener = client.peer_pid()
    try:
        pid = client.call(DAEMON_INFO, Params()).pid
        if pid != listener:
            # On another machine, or in another namespace of pids: that number is another process's here.
            note = _note_of(paths, pid) if client.is_local else None
            client.call(DAEMON_SHUTDOWN, Params())
            deadline = time.monotonic() + timeout
            if client.wait_for_end(timeout) and _wait_for_release(paths, note, deadline):
                return pid
        else:
            # Made while the daemon is known to run, since it has just answered: later another could have its pid.
            with contextlib.closing(ProcessWatch(pid)) as process:
                client.call(DAEMON_SHUTDOWN, Params())
                client.close()
                if process.wait(timeout):
                    return pid
        error = CommandError(
            f"orbitd (pid {pid}) has not ended after {seconds(timeout)}",
            ExitCode.TIMEOUT,
            hint="`orbitctl daemon stop --force` ends it: what was answered is on disk.",
        )
    except CommandError as failed:
        if failed.is_busy:  # others have taken all connections; SIGTERM has it stop in good order, too
            client.close()
            return _end_listener(paths, listener, failed, timeout, kill=force)
        if failed.exit_code != ExitCode.TIMEOUT:
            raise
        error = hung(paths, listener, client.timeout)
        error.hint = STOP_BY_FORCE
    client.close()
    if not force:
        raise error
    return _end_listener(paths, listener, error, timeout, kill=True)


def _end_listener(paths: ClientPaths, listener: int, error: CommandError, timeout: float, *, kill: bool) -> int:
    """End the process that listens at the socket, if it is the one that holds the database's lock, as `_end` does."""
    note = read_lock_note(paths)
    # Of a socket that was handed over, the supervisor may be the one that listens.
    is_its_socket = note is not None and note.socket == paths.socket_path and note.holder() is Holder.HERE
    if note is None or not (listener == note.pid or is_its_socket):
        # The socket's daemon has another database than our flags and variables name.
        raise CommandError(
            f"{error.message}; it does not hold the lock of {path_text(paths.database_path)}, so nothing was done",
            error.exit_code,
            hint="Name the daemon's own database with ORBITD_DATABASE.",
        )
    return _end(note, error, timeout, kill=kill)


def _note_of(paths: ClientPaths, pid: int) -> LockNote | None:
    """Return the note in the lock, if a process with this pid, in whatever namespace, wrote it."""
    with contextlib.suppress(CommandError):  # a mistake in the configuration
        note = read_lock_note(paths)
        return note if note is not None and note.pid == pid else None
    return None


def _wait_for_release(paths: ClientPaths, note: LockNote | None, deadline: float) -> bool:
    """Return whether a daemon whose end cannot be watched has blanked its note, the last that it does, in time."""
    pause = _MIN_SECONDS
    while note is not None:
        now = _note_of(paths, note.pid)
        if now is None or now.started != note.started:
            break
        if (left := deadline - time.monotonic()) <= 0:
            return False
        time.sleep(min(pause, left))
        pause *= 2
    return True


def stop_unreachable(paths: ClientPaths, error: CommandError, timeout: float, *, force: bool) -> int:
    """Stop a daemon that cannot be connected to, and return its pid: by SIGTERM, where the lock's note fits.

    Args:
        paths: Where the lock is.
        error: Why it cannot be connected to.
        timeout: How long it may take to exit, in seconds.
        force: Whether it is killed if it has not.

    Raises:
        CommandError: `error`, if nothing may be signalled; it has not exited in time.
    """
    note = read_lock_note(paths)
    # It was found by its note, or does not take connections at the socket that its note has: of one at another socket
    # the lock knows nothing.
    is_by_note = isinstance(error, Unreachable) and error.is_passing
    is_its_socket = note is not None and note.socket == paths.socket_path and error.exit_code == ExitCode.TIMEOUT
    # A note without a socket is that of a restore, which is no daemon: it replaces the database's file.
    if note is None or not note.socket or not (is_by_note or is_its_socket):
        raise error
    return _end(note, error, timeout, kill=force)


def _end(note: LockNote, error: CommandError, timeout: float, *, kill: bool) -> int:
    """Send SIGTERM, and SIGKILL to what has not ended, to the process that wrote a note; return its pid.

    Nothing that was answered is lost: it is on disk before the answer is sent.

    Raises:
        CommandError: `error` where the note does not fit, or the process has not ended.
    """
    with contextlib.closing(ProcessWatch(note.pid)) as process:
        # The watch comes first: from here on its descriptor stands for one process, and the check shows for which.
        if note.holder() is not Holder.HERE:
            raise error
        if not process.can_signal:
            raise CommandError(
                f"{error.message}; it was not signalled, since pidfd_open(2) does not work here",
                error.exit_code,
                hint=f"End it yourself: `kill {note.pid}`.",
            )
        process.send_signal(signal.SIGTERM)
        if process.wait(min(timeout, FORCE_SECONDS) if kill else timeout):
            return note.pid
        if kill:
            process.send_signal(signal.SIGKILL)
            if process.wait(timeout):
                return note.pid
    raise CommandError(
        f"orbitd (pid {note.pid}) has not ended after {seconds(timeout)}",
        ExitCode.TIMEOUT,
        hint="The kernel has not ended it: it waits for a disk or a file system that does not answer."
        if kill
        else "`orbitctl daemon stop --force` ends it: what was answered is on disk.",
    )


def _start_in_turn(paths: ClientPaths, timeout: float, out: Output, lock_fd: int | None) -> UnixStream:
    deadline = time.monotonic() + timeout
    descriptor = _open_start_lock(paths) if lock_fd is None else lock_fd
    with _start_lock(paths.start_lock_file, descriptor, timeout):
        # Of several clients that found no daemon at the same moment the first starts it while the others wait for
        # the lock; each of them finds it running when its turn comes.
        if (stream := _connect(paths, deadline)) is not None:
            return stream
        if _is_default(paths) and _start_service(paths, out):
            if (stream := _connect(paths, deadline)) is not None:
                return stream
            out.note("the service was started, but does not serve this socket; starting orbitd without it")
        # A supervisor, say, may start one in the same moment, and have the database's lock before ours. It is waited
        # for in `_connect`; if it ends instead, ours has another chance, but never more than a few.
        attempts_left = _START_ATTEMPTS
        while True:
            error = _spawn(paths, deadline)
            if (stream := _connect(paths, deadline)) is not None:
                return stream
            if error is None:
                raise CommandError(f"orbitd started, but does not serve {paths.socket_path}", ExitCode.UNREACHABLE)
            attempts_left -= 1
            if not isinstance(error, _Locked):
                raise error
            note = read_lock_note(paths)
            # Whether one on another machine, or of an older release, still runs cannot be seen from here.
            is_known = note is not None and note.holder() not in (Holder.ELSEWHERE, Holder.UNKNOWN)
            if not attempts_left or not is_known:
                error.hint = "Use it there, or from here by `orbitctl --host`; `orbitctl daemon stop` there ends it."
                raise error


def _connect(paths: ClientPaths, deadline: float) -> UnixStream | None:
    """Return a connection, or None if none runs. Raises: CommandError."""
    try:
        return connect(paths, max(_MIN_SECONDS, deadline - time.monotonic()))
    except Unreachable as error:
        if error.may_start:
            return None
        raise


def _is_default(paths: ClientPaths) -> bool:
    """Return whether the service would serve these paths: our flags and variables do not reach it."""
    named = (paths.environ.get(name) for name in (CONFIG_VARIABLE, DATABASE_VARIABLE))
    return not paths.is_socket_chosen and not any(named)


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
        # an end of file, and poll returns then as for the byte that it writes when it serves.
        os.close(writer)
        os.close(descriptor)
    with open(reader, "rb", buffering=0) as ready:
        poller = select.poll()  # select(2) takes no descriptor of 1024 or more
        poller.register(ready, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            process.returncode = 0  # else Popen's destructor warns of a child that still runs
            raise CommandError(
                "orbitd was started but does not serve yet", ExitCode.TIMEOUT, hint=f"Look into {log}, or try again."
            )
        line = ready.read(len(b"ready\n"))
        if line.startswith(b"ready"):
            process.returncode = 0  # as above: it outlives this process
            return None
        report = line + ready.readall()
    error = _start_error(report, log, size_before, process.wait())
    return _Locked(error.message, error.exit_code, hint=error.hint) if line.startswith(b"locked") else error


class _Locked(CommandError):
    """orbitd has ended because another one holds the database's lock."""


def _start_error(report: bytes, log: str, start: int, code: int) -> CommandError:
    """Return why orbitd has ended: as it wrote to the pipe, else as it has written to its log after `start` bytes."""
    lines = report.decode(errors="replace").splitlines()[1:]
    if not lines:
        with open(open_private(log, os.O_RDONLY), "rb") as file:
            end = file.seek(0, os.SEEK_END)
            # Where the file is shorter now, orbitd has put a new one in its place.
            file.seek(max(start if start <= end else 0, end - _MAX_REASON_BYTES))
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
    """Return the flags for orbitd, or the orbitctl that starts it, in another folder than a relative path is for.

    It inherits the variables, which are absolute.
    """
    return [] if paths.socket_flag is None else ["--socket", paths.socket_path]


def was_killed(paths: ClientPaths) -> bool:
    """Return whether the last daemon has ended without stopping: it left its note in the lock. Raises: CommandError."""
    note = read_lock_note(paths)
    return note is not None and note.holder() is Holder.GONE


def was_supervised(paths: ClientPaths) -> bool:
    """Return whether the last daemon was run by a supervisor, which brings back one that was killed.

    Raises:
        CommandError: The configuration, which says where its lock file is, cannot be read.
    """
    note = read_lock_note(paths)
    return note is not None and bool(note.supervisor)


def _open_start_lock(paths: ClientPaths) -> int:
    return open_private(paths.start_lock_file, os.O_RDWR | os.O_CREAT)


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
                f"another orbitctl is still starting orbitd after {seconds(timeout)}", ExitCode.TIMEOUT
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
