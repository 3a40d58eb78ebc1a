"""One program on a terminal of its own: how it is started, and the record of its exit.

Runs inside the keeper, which has one thread, so that the child may run Python after fork(2).
Every descriptor that Python opens is close-on-exec (PEP 446), so the program inherits its
terminal and nothing else. The child reports over a close-on-exec pipe, the status pipe: it
ends without `errno` once execve(2) has succeeded. The parent never waits for that: a program
on a dead network drive must not hold up the others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import sys
import termios
import time

from orbitd.keeper.messages import Message, encode_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from orbitd.keeper.messages import Fields, Value

OPEN_FILES_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)
"""What the keeper was started with and programs get; a raised soft limit breaks those that use select(2)."""

_TIOCSIG = 0x40045436
"""Linux's; sends a signal to what is in the foreground of a terminal, by its master. `termios` does not name it."""

MAX_CPUS = 8192
"""The highest that Linux can be built for."""

_IUTF8 = 0x4000
"""The same on Linux and macOS; `termios` names it from Python 3.13 on only."""


class Program:
    """A program that was started; only the keeper's server changes it.

    Args:
        name: The id that orbitd gave it.
        started: What `start_program` returned. The server closes the master, `close_status_pipe` the pipe.

    Attributes:
        exit_fields: When and how it ended; empty while it runs.
        acknowledged: orbitd has stored how it ended.
    """

    def __init__(self, name: str, started: tuple[int, int, int]) -> None:
        self.id = name
        self.pid, self.master, self.status_pipe = started
        self.started_at = time.time()
        self.exit_fields: Fields = ()
        self.acknowledged = False
        self._status = b""

    def fields(self) -> Fields:
        """Return the fields of its `program` and `exited` messages."""
        running: Fields = (("id", self.id), ("pid", self.pid), ("started_at", self.started_at))
        if not self.exit_fields:
            return running
        return (*running, *self.exit_fields, ("acknowledged", int(self.acknowledged)))

    def read_status_pipe(self) -> bool:
        """Read what the child reports before execve.

        Returns:
            Whether the pipe is at its end: execve has succeeded, or the child has failed.
        """
        while True:
            try:
                data = os.read(self.status_pipe, 4096)
            except BlockingIOError:
                return False
            if not data:
                return True
            self._status += data

    def close_status_pipe(self) -> dict[bytes, bytes]:
        """Close the pipe and return what was reported: `cwd`, else `no_cwd`; and if it failed, `errno` and `path`.

        A part that is not `name=value` is skipped, so that no child can make this raise.
        """
        os.close(self.status_pipe)
        return dict(part.split(b"=", 1) for part in self._status.split(b"\0")[:-1] if b"=" in part)

    def set_exited(self, wait_status: int) -> None:
        """Record how it ended, from waitpid(2)'s status."""
        code = os.waitstatus_to_exitcode(wait_status)
        how: tuple[str, Value] = ("exit_code", code) if code >= 0 else ("exit_signal", -code)
        self.exit_fields = (("ended_at", time.time()), how)

    def send_signal(self, target: str, number: int) -> None:
        """Send a signal to the program, its process group or the terminal's foreground process group.

        The server calls this only before it has reaped the program: until then the kernel
        keeps the pid for the zombie, so it cannot be another process's.

        Raises:
            OSError: There is no such process, or it runs as another user.
            KeyError: No such target.
        """
        _SIGNAL_TARGETS[target](self, number)

    def _signal_foreground(self, number: int) -> None:
        group = os.tcgetpgrp(self.master)
        if group <= 1:  # none; killpg(0) would be the keeper's own group, killpg(1) every process
            raise ProcessLookupError
        try:
            is_ours = os.getsid(group) == self.pid
        except ProcessLookupError:  # its leader has ended; others of it may go on
            is_ours = True
        if not is_ours:  # the terminal keeps the number of a group that has ended: another process has it by now
            raise ProcessLookupError
        try:
            os.killpg(group, number)
        except PermissionError:
            # Of another user, as under sudo. These three the terminal sends by itself, as for Ctrl-C.
            if number not in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP) or sys.platform != "linux":
                raise PermissionError(
                    errno.EPERM, "what is in the foreground is another user's, as under sudo"
                ) from None
            fcntl.ioctl(self.master, _TIOCSIG, number)


# The child called setsid, so it leads the process group that has the number of its pid.
_SIGNAL_TARGETS: dict[str, Callable[[Program, int], None]] = {
    "program": lambda program, number: os.kill(program.pid, number),
    "group": lambda program, number: os.killpg(program.pid, number),
    "foreground": Program._signal_foreground,
}


def raise_open_files_limit() -> int:
    """Raise the soft limit of open files to the hard one; return how many that are."""
    soft, hard = OPEN_FILES_LIMIT
    for wanted in (hard, 10240):  # macOS has an unlimited hard limit and refuses to go beyond OPEN_MAX
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            continue
        return 1 << 30 if wanted == resource.RLIM_INFINITY else wanted
    return soft


def start_program(request: Message) -> tuple[int, int, int]:
    """Fork the program that a `spawn` message describes, on a new terminal.

    Returns:
        Its pid, its terminal's master, and the reading end of the status pipe, non-blocking.

    Raises:
        OSError: There is no terminal, no descriptor or no process left.
        KeyError, ValueError: The message lacks a field or has a wrong one.
    """
    rows, cols = request.number("rows"), request.number("cols")
    opened: list[int] = []
    try:
        opened += os.openpty()
        opened += os.pipe()
        master, slave, status_read, status_write = opened
        # Set before the fork, so that the program never sees a terminal of 0 by 0. IUTF8 makes the
        # kernel's line editing erase whole UTF-8 characters.
        termios.tcsetwinsize(slave, (rows, cols))
        attributes = termios.tcgetattr(slave)
        attributes[0] |= _IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        pid = os.fork()
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    if pid == 0:
        _exec_in_child(request, slave, status_write)
    # The parent must not keep the slave: the master reports EIO only when every slave is
    # closed. Nor the writing end: the pipe would never be at its end.
    os.close(slave)
    os.close(status_write)
    os.set_blocking(status_read, False)
    return pid, master, status_read


def _exec_in_child(request: Message, slave: int, status_pipe: int) -> NoReturn:
    """Turn this child into the program; only execve or the end of the process leaves this function.

    The child shares the keeper's sockets and wake-up pipe until execve closes them, and must not
    touch them.
    """
    try:
        if status_pipe <= 2:  # login_tty is about to put the terminal there
            status_pipe = fcntl.fcntl(status_pipe, fcntl.F_DUPFD_CLOEXEC, 3)
        _reset_signals()
        _reset_scheduling()
        os.login_tty(slave)  # setsid, TIOCSCTTY, dup2 to 0, 1 and 2
        resource.setrlimit(resource.RLIMIT_NOFILE, OPEN_FILES_LIMIT)
        environment = dict(entry.split(b"=", 1) for entry in request.all("env"))
        _change_directory(request.all("cwd"), status_pipe)
        os.umask(request.number("umask", 0o077))
        _set_limits(request.all("limit"))
        _exec_on_path(request.value("file"), request.all("argv"), environment)
    except OSError as exc:
        _report_failure(status_pipe, exc.errno or errno.EIO, os.fsencode(exc.filename or b""))
    except BaseException as exc:  # noqa: BLE001 - nothing may leave the child, or two keepers would serve
        _report_failure(status_pipe, errno.EINVAL, repr(exc).encode())
    finally:
        os._exit(127)  # not sys.exit: the keeper's buffers and atexit handlers are not the child's to run


def _report_failure(status_pipe: int, number: int, path: bytes) -> None:
    # A pipe holds 64 KiB (pipe(7)), and this and the directory are far less: write(2) takes it at once.
    os.write(status_pipe, encode_fields((("errno", number), ("path", path[:1024]))))


def _reset_signals() -> None:
    """Undo what the keeper ignores, and what was ignored or blocked when the keeper was started.

    execve(2) resets handlers, but ignored signals and the mask are inherited through it
    (signal(7)): a program would survive SIGPIPE, or its terminal's hang-up.
    """
    for number in range(1, signal.NSIG):
        # None: not changed here and not to be changed, as 32 and 33, which glibc keeps for itself.
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reset_scheduling() -> None:
    """Undo `nice`, `taskset` and `chrt` of whoever started orbitd, as far as the system lets this user."""
    # Each fails alone. A nice value can be lowered with CAP_SYS_NICE or RLIMIT_NICE only (setpriority(2)).
    if sys.platform != "darwin":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        with contextlib.suppress(OSError):
            # What cpuset(7) does not allow, and what this machine does not have, the kernel leaves out.
            os.sched_setaffinity(0, range(MAX_CPUS))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def _set_limits(limits: list[bytes]) -> None:
    """Set soft limits, each as far as its hard limit allows; those that this system has not are skipped."""
    for entry in limits:
        name, _, number = entry.decode().partition("=")
        limit = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if limit is None:
            continue
        wanted, hard = int(number), resource.getrlimit(limit)[1]
        if hard != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or wanted > hard):
            wanted = hard
        with contextlib.suppress(OSError, ValueError):  # macOS refuses what is over OPEN_MAX
            resource.setrlimit(limit, (wanted, hard))


def _change_directory(folders: list[bytes], status_pipe: int) -> None:
    """Enter the first folder that can be entered, and report which. Raises: OSError, of the first; it is reported."""
    first_error: OSError | None = None
    for folder in folders:
        try:
            os.chdir(folder)
        except OSError as exc:
            first_error = first_error or exc
            continue
        os.write(status_pipe, encode_fields((("cwd", folder),)))
        return
    if first_error is not None:
        os.write(status_pipe, encode_fields((("no_cwd", folders[0]),)))
        raise first_error


def _exec_on_path(file: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> NoReturn:
    """Execute a path, or a name that the program's own PATH finds (execvp(3) without its shell fallback)."""
    if b"/" in file:
        os.execve(file, argv, environment)  # noqa: S606 - without a shell, as the contract asks
    first_error: OSError | None = None
    for directory in environment.get(b"PATH", os.defpath.encode()).split(b":"):
        candidate = os.path.join(directory, file)  # an empty entry is the current directory (environ(7))
        try:
            os.execve(candidate, argv, environment)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            # As execvp(3): after EACCES the search goes on, and it is reported if nothing else is found.
            first_error = first_error or exc
            if exc.errno != errno.EACCES:
                break
    raise first_error or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
