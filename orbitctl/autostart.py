"""Starts the daemon where none answers, once, however many clients ask at the same moment.

Clients take turns by a lock in the state folder: whoever gets it looks again, and starts the
daemon only if there still is none. The daemon tells that it serves by writing to a pipe; the
end of the pipe without that means that it failed, and its log has the reason.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from orbitctl.failures import Exit, Failure
from orbitctl.folders import make_private
from orbitctl.locate import CONFIG_VARIABLE, SOCKET_VARIABLE, Place
from orbitctl.output import Output
from orbitctl.transport import UnixStream, Unreachable

DATABASE_VARIABLE = "ORBITD_DATABASE"
_RETRY_SECONDS = 0.05
_HANDOVER_SECONDS = 10.0
_LONGEST_REASON = 4096


def start(place: Place, timeout: float, out: Output) -> UnixStream:
    """Start a daemon and return a connection to it.

    Args:
        place: Where it is to serve.
        timeout: How long that may take, in seconds.
        out: Told when a service was asked to start and does not answer.

    Raises:
        Failure: It did not start; the message has its own reason.
    """
    state = place.resolved.state_folder
    try:
        make_private(state)
        _require_private(state)
        return _started(place, state, timeout, out)
    except OSError as error:
        raise Failure(
            f"cannot start orbitd: {error.strerror}: {error.filename}",
            Exit.UNREACHABLE,
            hint="`orbitctl doctor` looks at the folders.",
        ) from error


def _require_private(state: str) -> None:
    """Refuse to put log and lock where others could reach. Raises: Failure."""
    from orbitctl import health

    found = health.folder("state folder", state)
    if found.state == "fail":
        raise Failure(f"cannot start orbitd: {found.message}", Exit.UNREACHABLE, hint=found.remedy)


def _started(place: Place, state: str, timeout: float, out: Output) -> UnixStream:
    deadline = time.monotonic() + timeout
    with _turn(os.path.join(state, "start.lock"), timeout):
        if (stream := _connected(place, timeout)) is not None:
            return stream  # another client was first
        if _is_default(place) and _started_by_service(place, out):
            if (stream := _connected(place, timeout)) is not None:
                return stream
            out.note("the service was started, but does not serve this socket; starting orbitd without it")
        return _spawned(place, deadline, timeout)


def _spawned(place: Place, deadline: float, timeout: float) -> UnixStream:
    """Spawn orbitd until it serves, or somebody else's does that had the database already."""
    handover = min(deadline, time.monotonic() + _HANDOVER_SECONDS)
    while True:
        failure = _spawn(place, deadline)
        if (stream := _connected(place, timeout)) is not None:
            return stream
        if failure is None:
            raise Failure(f"orbitd started, but does not serve {place.socket_path}", Exit.UNREACHABLE)
        if not _is_locked(place) or time.monotonic() > handover:
            raise failure
        # An orbitd that we did not start holds the database: it is about to serve or about to
        # be gone. No event is common to both, so this one wait looks again.
        time.sleep(_RETRY_SECONDS)


def _connected(place: Place, timeout: float) -> UnixStream | None:
    try:
        return UnixStream(place.socket_path, timeout)
    except Unreachable as error:
        if error.nobody:
            return None
        raise


def _is_default(place: Place) -> bool:
    """Tell whether the service would serve this place: it knows nothing of our flags and variables."""
    named = (place.environ.get(name) for name in (SOCKET_VARIABLE, CONFIG_VARIABLE, DATABASE_VARIABLE))
    return place.socket_flag is None and not any(named)


def _started_by_service(place: Place, out: Output) -> bool:
    from orbitctl.service import start_if_installed

    try:
        return start_if_installed(place.environ)
    except Failure as failure:
        out.note(f"the installed service did not start: {failure.message}")
        return False


def _spawn(place: Place, deadline: float) -> Failure | None:
    """Run orbitd by itself; return None once it serves, else why it does not.

    Raises:
        Failure: It said nothing until the deadline; it goes on in the background.
    """
    import subprocess

    log = log_path(place)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    before = os.fstat(descriptor).st_size
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [*command(), *arguments(place), "--ready-fd", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            pass_fds=(writer,),
            start_new_session=True,
            cwd=_neutral_folder(),
        )
    finally:
        os.close(writer)
        os.close(descriptor)
    with open(reader, "rb", buffering=0) as ready:
        if not select.select([ready], [], [], max(0.0, deadline - time.monotonic()))[0]:
            process.returncode = 0  # it is left alone: no warning about a process that runs on
            raise Failure(
                "orbitd was started but does not serve yet", Exit.TIMEOUT, hint=f"Look into {log}, or try again."
            )
        if ready.read(1):
            process.returncode = 0  # it runs on by itself
            return None
    return _reason(log, before, process.wait())


def _reason(log: str, start: int, code: int) -> Failure:
    """Return why orbitd ended, from what it added to its log."""
    with open(log, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _LONGEST_REASON))
        lines = file.read(_LONGEST_REASON).decode(errors="replace").splitlines()
    error, hint = complaint(lines)
    reason = error or (lines[-1] if lines else f"it ended with exit code {code}")
    hint = hint or f"Its log is {log}; `orbitctl daemon run` shows what it does."
    return Failure(f"orbitd did not start: {reason}", Exit.UNREACHABLE, hint=hint)


def complaint(lines: list[str]) -> tuple[str, str]:
    """Return the error and the hint that orbitd wrote to stderr before it ended; each may be empty."""
    found = dict(line.removeprefix("orbitd: ").partition(": ")[::2] for line in lines)
    return found.get("error", ""), found.get("hint", "")


def command() -> list[str]:
    """Return the command line that runs this installation's orbitd."""
    for folder in (os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.argv[0]))):
        program = os.path.join(folder, "orbitd")
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return [program]
    return [sys.executable, "-m", "orbitd"]


def arguments(place: Place) -> list[str]:
    """Return the flags that keep our choices: orbitd inherits the variables, but not our folder."""
    chosen = {"--socket": place.socket_flag or place.environ.get(SOCKET_VARIABLE)}
    chosen["--config"] = place.environ.get(CONFIG_VARIABLE)
    chosen["--database"] = place.environ.get(DATABASE_VARIABLE)
    given = {flag: value for flag, value in chosen.items() if value}
    return [word for flag, value in given.items() for word in (flag, _absolute(value))]


def _absolute(path: str) -> str:
    return path if path.startswith("~") else os.path.abspath(path)


def _neutral_folder() -> str:
    """Return a folder that the daemon may stay in: it must not keep ours from being unmounted.

    Run as `-m orbitd`, it finds its package by the folder that it starts in.
    """
    if len(command()) == 1:
        return "/"
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def log_path(place: Place) -> str:
    """Return where a daemon that orbitctl starts writes its log."""
    return os.path.join(place.resolved.state_folder, "orbitd.log")


def lock_holder(place: Place) -> str | None:
    """Return what the holder of the database's lock wrote into it; None if nobody holds it."""
    try:
        descriptor = os.open(place.resolved.database_path + ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, _LONGEST_REASON, 0).decode(errors="replace")
    finally:
        os.close(descriptor)
    return None


def _is_locked(place: Place) -> bool:
    """Tell whether an orbitd that is to serve this very socket has the database."""
    holder = lock_holder(place)
    return holder is not None and (not holder or f"socket {place.socket_path}\n" in holder)


@contextlib.contextmanager
def _turn(path: str, timeout: float) -> Iterator[None]:
    """Hold a lock among clients. Raises: Failure if it is not free in time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            with _alarm(timeout):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except TimeoutError as error:
            raise Failure(f"another orbitctl is still starting orbitd after {timeout:g} s", Exit.TIMEOUT) from error
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
