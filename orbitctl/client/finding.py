"""Find the daemon that holds the database where none answers at the socket: by the note in the database's lock.

cron, su, and ssh without PAM leave XDG_RUNTIME_DIR out or have that of another user, and a runtime folder goes with
the last login. The lock is beside the database, and is held by the one daemon that serves it, wherever it listens.
The lock itself is never asked for: an orbitd that asks for it in that moment would be refused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from orbit_os.files import UnsafeFile, open_private
from orbit_os.lock_note import STARTING, STOPPING, Holder, LockNote, read_note
from orbit_protocol.paths import path_mistake, path_text
from orbit_protocol.visible import seconds
from orbitctl.client.light import DATABASE_VARIABLE
from orbitctl.client.paths import ClientPaths
from orbitctl.client.process_watch import ProcessWatch
from orbitctl.client.transport import SILENCE_SECS, UnixStream, Unreachable
from orbitctl.errors import CommandError, ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Callable
RETRY_SECONDS = 0.05
_LISTENS_AGAIN_SECONDS = 2.0
"""How long a daemon that was asked to listen again is waited for; it takes milliseconds unless it hangs."""
_SIGN_OF_LIFE_SECONDS = 1.0
NOTICE_SECONDS = 2.0
"""How long a connection is waited for without a word."""
RESTART_BY_FORCE = (
    "`orbitctl daemon restart --force` ends it and starts another: what was answered is on disk, and programs in "
    "sessions go on."
)


def read_lock_note(paths: ClientPaths) -> LockNote | None:
    """Return what the holder of the database's lock says of itself; None where nothing can be read.

    Raises:
        CommandError: The configuration, which says where the database is, cannot be read.
    """
    try:
        descriptor = open_private(paths.lock_file, os.O_RDONLY)
    except (UnsafeFile, OSError):
        return None
    try:
        return read_note(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def connect(paths: ClientPaths, timeout: float) -> UnixStream:
    """Return a connection to the daemon of a socket, or to the one that the database's lock names.

    Raises: As `connect_to_holder` does.
    """
    try:
        stream = UnixStream(paths.socket_path, timeout)
    except Unreachable as error:
        return connect_to_holder(paths, error, timeout)
    return of_chosen_database(paths, stream, timeout) if paths.is_database_chosen else stream


def of_chosen_database(paths: ClientPaths, stream: UnixStream, timeout: float) -> UnixStream:
    """Return the connection if its daemon serves the database that a variable names, else one to the daemon that does.

    Several databases have one default socket: whose daemon came first listens there.

    Raises:
        CommandError: The variable holds no path, or no daemon serves that database. None is started: it would have no
            socket of its own.
    """
    pid = stream.peer_pid()
    try:
        note = read_lock_note(paths)
    except CommandError:
        variable = paths.environ.get(DATABASE_VARIABLE)
        if variable and path_mistake(variable):  # another database is meant, and it cannot be told which
            stream.close()
            raise
        return stream  # a mistake in the configuration file; this daemon can be reached all the same
    holder = Holder.GONE if note is None else note.holder()
    if note is not None and (note.pid == pid or (note.socket == paths.socket_path and holder is not Holder.GONE)):
        return stream
    # The lock does not show it: the peer may be a supervisor that has just started the daemon, a process in another
    # namespace of pids, or one whose database has been moved. The daemon itself knows.
    from orbit_protocol.methods import DAEMON_INFO
    from orbit_protocol.params import Params
    from orbitctl.client.client import Client  # here, since attached clients connect again without it

    try:
        served = Client(stream, timeout).call(DAEMON_INFO, Params()).database_file
    except BaseException:
        stream.close()  # the answer may still come, and would be taken for that of the next call
        raise
    if os.path.realpath(served) == os.path.realpath(paths.database_path):
        return stream
    stream.close()
    if note is not None and holder is Holder.HERE:
        return _checked(note, timeout)
    raise CommandError(
        f"{path_text(paths.socket_path)} is served by orbitd{f' (pid {pid})' if pid else ''} for "
        f"{path_text(served)}, not for {path_text(paths.database_path)}",
        ExitCode.UNREACHABLE,
        hint="Give each database a socket of its own: set ORBITD_SOCKET beside ORBITD_DATABASE. Nothing was done.",
    )


def connect_to_holder(
    paths: ClientPaths,
    missing: Unreachable,
    timeout: float,
    *,
    wait: bool = True,
    on_wait: Callable[[CommandError], None] | None = None,
) -> UnixStream:
    """Return a connection to the daemon that the database's lock names.

    Args:
        paths: The socket that has been tried, and the database.
        missing: Why no daemon could be reached there.
        timeout: How long connecting may take, in seconds, while the daemon is about to serve or to end.
        wait: Whether to wait for that at all.
        on_wait: Called once with what is waited for, if that takes longer than `NOTICE_SECONDS`.

    Raises:
        Unreachable: `missing`, if no daemon holds the lock either; another one if it cannot be reached.
        CommandError: It does not take the connection in time.
    """
    notice_at = time.monotonic() + NOTICE_SECONDS
    deadline = time.monotonic() + timeout
    is_asked = False
    while True:
        note = _holder(paths, missing, wait)
        try:
            return _checked(note, max(RETRY_SECONDS, deadline - time.monotonic()))
        except Unreachable as error:
            failed = error
        if failed.exit_code == ExitCode.TIMEOUT:
            raise failed
        if note.holder() is Holder.UNKNOWN:
            raise missing
        now = time.monotonic()
        if not is_asked and note.socket and note.state not in (STARTING, STOPPING):
            # Its socket is gone, and it may not have noticed yet: its regular check may be seconds away.
            is_asked, deadline = True, min(deadline, now + _LISTENS_AGAIN_SECONDS)
            # It checks its sockets on SIGCONT. One that was stopped, as by Ctrl-Z, goes on by that, too.
            send_signal(note, signal.SIGCONT)
        if not wait or now >= deadline:
            raise _not_reached(note, failed, timeout)
        if on_wait is not None and now >= notice_at:
            on_wait(_not_reached(note, failed, NOTICE_SECONDS))
            on_wait = None
        # It shows at the socket that a daemon serves, at the process that it has ended, and in the note that it
        # listens elsewhere. No system call waits for all three: hence a retry, which the end of the process cuts short.
        watch = ProcessWatch(note.pid)
        try:
            if note.holder() is Holder.HERE:  # as the watch was made
                watch.wait(min(RETRY_SECONDS, deadline - now))
        finally:
            watch.close()


def _holder(paths: ClientPaths, missing: Unreachable, wait: bool) -> LockNote:
    """Return the note of the daemon to connect to.

    Raises:
        Unreachable: There is none, or another one is meant; for a client that comes back by itself, and does not wait
            here, both are `missing`: its own may be back soon.
    """
    try:
        note = read_lock_note(paths)
    except CommandError:  # a mistake in the configuration: reported when it is read for a start
        raise missing from None
    holder = Holder.GONE if note is None else note.holder()
    if note is None or holder in (Holder.GONE, Holder.ELSEWHERE):
        folder = os.path.dirname(paths.socket_path)
        if not paths.is_socket_chosen and not os.access(folder, os.W_OK | os.X_OK):
            missing.may_start = True  # it listens elsewhere where the runtime folder is not there, or is not ours
    if note is None or holder is Holder.GONE:
        raise missing
    if holder is Holder.ELSEWHERE:
        raise _elsewhere(note, missing) if wait else missing
    if paths.is_socket_chosen and paths.socket_path not in (note.socket, note.configured):
        # Flag or variable mean one socket. That another one is served would be a surprise to who has named it.
        raise _another_socket(missing, note) if wait and holder is Holder.HERE else missing
    return note


def _checked(note: LockNote, timeout: float) -> UnixStream:
    """Return a connection to the process that wrote the note. Raises: Unreachable, CommandError."""
    if not note.socket:
        raise Unreachable("it serves no socket", hint="")
    try:
        stream = UnixStream(note.socket, timeout)
    except Unreachable:
        raise
    except CommandError as error:  # it does not take the connection in time
        raise Unreachable(error.message, hint=error.hint, is_passing=True, exit_code=error.exit_code) from error
    pid = stream.peer_pid()
    if pid == note.pid:
        return stream
    stream.close()
    named = f"another process (pid {pid})" if pid else "a process that cannot be seen from here, or has ended"
    raise Unreachable(f"{path_text(note.socket)} is served by {named}", hint="")


def send_signal(note: LockNote, number: int) -> bool:
    """Send a signal to the process that wrote a note; return whether it was sent: only where all of the note fits."""
    watch = ProcessWatch(note.pid)
    try:
        # The watch comes first: from here on the descriptor stands for one process, and the check shows for which.
        return note.holder() is Holder.HERE and watch.send_signal(number)
    finally:
        watch.close()


def hung(paths: ClientPaths, pid: int, secs: float) -> CommandError:
    """Return the error of a daemon that takes connections and does not answer.

    Args:
        paths: Where the lock is.
        pid: The process that listens; 0 where it is not known.
        secs: How long it was waited for.
    """
    note = None
    with contextlib.suppress(CommandError):  # a mistake in the configuration: the daemon hangs all the same
        note = read_lock_note(paths)
    if note is not None and note.pid == pid and note.state == STARTING:
        return _still(note, "starting", secs)
    named = f"orbitd (pid {pid})" if pid else "orbitd"
    message = f"{named} does not answer: no answer within {seconds(secs)}"
    return CommandError(message, ExitCode.TIMEOUT, hint=RESTART_BY_FORCE)


def check_answers(paths: ClientPaths, stream: UnixStream) -> None:
    """Ask the daemon of a stream for a sign of life on another connection: one that works for long gives it.

    Raises:
        CommandError: It does not answer; what it works for, if anything, cannot be seen.
    """
    from orbit_protocol.methods import DAEMON_PING
    from orbit_protocol.params import Params
    from orbitctl.client.client import Client

    try:
        other = UnixStream(stream.path, _SIGN_OF_LIFE_SECONDS)
        with contextlib.closing(other):
            Client(other, _SIGN_OF_LIFE_SECONDS).call(DAEMON_PING, Params())
    except CommandError as error:
        if error.exit_code == ExitCode.TIMEOUT:
            raise hung(paths, stream.peer_pid(), SILENCE_SECS + _SIGN_OF_LIFE_SECONDS) from error
        # Anything else is an answer, or shows on the connection that waits, too.


def _elsewhere(note: LockNote, missing: Unreachable) -> Unreachable:
    return Unreachable(
        f"the lock of the database was last taken by orbitd{note.where()}; whether it still runs cannot be seen from "
        f"here; {missing.message}",
        hint="If it runs, use it there: `orbitctl --host` connects to other machines. If it does not, "
        "`orbitctl daemon start` starts orbitd here; it is refused while the lock is held.",
        may_start=missing.may_start,
    )


def _another_socket(missing: Unreachable, note: LockNote) -> Unreachable:
    place = f"at {path_text(note.socket)}" if note.socket else "without a socket"
    return Unreachable(
        f"{missing.message.removeprefix('no daemon is running: ')}; "
        f"another orbitd serves this database (pid {note.pid}) {place}",
        hint="Leave --socket and ORBITD_SOCKET out, or name that socket; ORBITD_DATABASE names another database.",
    )


def _not_reached(note: LockNote, failed: Unreachable, timeout: float) -> CommandError:
    if not note.socket:  # whatever its state: a daemon has one from the first note on
        return Unreachable(
            f"orbitd (pid {note.pid}) puts a backup in the database's place",
            hint="Try again when it has ended.",
            is_passing=True,
        )
    if note.state in (STARTING, STOPPING):
        return _still(note, note.state, timeout)
    return Unreachable(
        f"orbitd runs (pid {note.pid}), but cannot be reached: {failed.message}",
        hint="`orbitctl daemon restart` starts it again; programs in sessions go on.",
        is_passing=True,
    )


def _still(note: LockNote, doing: str, timeout: float) -> Unreachable:
    return Unreachable(
        f"orbitd (pid {note.pid}) is still {doing} after {seconds(timeout)}",
        hint="`orbitctl daemon logs` shows what it does; allow more time with --timeout SECS. If it hangs, "
        "`orbitctl daemon restart --force` ends it and starts another.",
        is_passing=True,
        exit_code=ExitCode.TIMEOUT,
    )
