"""Starts one program on a new terminal; the half after fork runs in the child and ends in execve(2).

Runs inside the keeper, which has one thread, so that fork(2) is safe. Every descriptor
that Python opens is close-on-exec (PEP 446), so the program inherits its terminal and
nothing else. The child tells how it went over a close-on-exec pipe: it ends without
`errno` once execve has succeeded. The parent never waits for that: a program on a dead
network drive must not hold up the others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import termios

from orbitd.keeper.messages import Message, encode_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

FILES_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)
"""What the keeper was started with and programs get; a raised soft limit breaks those that use select(2)."""

_IUTF8 = 0x4000
"""The same on Linux and macOS; `termios` names it from Python 3.13 on only."""


def raise_files_limit() -> int:
    """Let this process open as many files as it may; return how many that are."""
    soft, hard = FILES_LIMIT
    for wanted in (hard, 10240):  # macOS has an unlimited hard limit and refuses to go beyond OPEN_MAX
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            continue
        return 1 << 30 if wanted == resource.RLIM_INFINITY else wanted
    return soft


def start(order: Message) -> tuple[int, int, int]:
    """Start the program that a `spawn` message describes.

    Returns:
        Its pid, its terminal's master, and the pipe that tells how execve went.

    Raises:
        OSError: There is no terminal, no descriptor or no process left.
        KeyError, ValueError: The message lacks a field or has a wrong one.
    """
    rows, cols = order.number("rows"), order.number("cols")
    master, slave = os.openpty()
    report, tell = os.pipe()
    try:
        _prepare_terminal(slave, rows, cols)
        pid = os.fork()
    except BaseException:
        os.close(master)
        os.close(report)
        raise
    else:
        if pid == 0:
            _become(order, slave, tell)
    finally:
        os.close(slave)
        os.close(tell)
    os.set_blocking(report, False)
    return pid, master, report


def _prepare_terminal(slave: int, rows: int, cols: int) -> None:
    """Give the terminal its size, and let the kernel's line editing erase whole UTF-8 characters."""
    termios.tcsetwinsize(slave, (rows, cols))
    attributes = termios.tcgetattr(slave)
    attributes[0] |= _IUTF8
    termios.tcsetattr(slave, termios.TCSANOW, attributes)


def _become(order: Message, slave: int, tell: int) -> NoReturn:
    """Turn this child into the program; only execve or the end of the process leaves this function."""
    try:
        if tell <= 2:  # login_tty puts the terminal there
            tell = fcntl.fcntl(tell, fcntl.F_DUPFD_CLOEXEC, 3)
        _reset_signals()
        os.login_tty(slave)  # setsid, TIOCSCTTY, dup2 to 0, 1 and 2
        resource.setrlimit(resource.RLIMIT_NOFILE, FILES_LIMIT)
        environment = dict(entry.split(b"=", 1) for entry in order.all("env"))
        _enter_folder((order.value("cwd", b""), environment.get(b"HOME", b""), b"/"), tell)
        os.umask(order.number("umask", 0o077))
        _execute(order.value("file"), order.all("argv"), environment)
    except OSError as exc:
        _tell_failed(tell, exc.errno or errno.EIO, os.fsencode(exc.filename or b""))
    except BaseException as exc:  # noqa: BLE001 - nothing may leave the child, or two keepers would serve
        _tell_failed(tell, errno.EINVAL, repr(exc).encode())
    finally:
        os._exit(127)


def _tell_failed(tell: int, number: int, path: bytes) -> None:
    os.write(tell, encode_fields((("errno", number), ("path", path[:1024]))))


def parse_report(told: bytes) -> dict[bytes, bytes]:
    """Return what a child has told: `cwd`, and `errno` and `path` if it failed; whatever it is, never an error."""
    return dict(part.split(b"=", 1) for part in told.split(b"\0")[:-1] if b"=" in part)


def _reset_signals() -> None:
    """Undo what the keeper ignores, and what was ignored or blocked when it was started."""
    for number in range(1, signal.NSIG):
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _enter_folder(folders: tuple[bytes, ...], tell: int) -> None:
    """Enter the first folder that can be entered, and say which."""
    for folder in folders:
        try:
            os.chdir(folder)
        except OSError:
            continue
        os.write(tell, encode_fields((("cwd", folder),)))
        return


def _execute(file: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> NoReturn:
    """Execute a path, or a name that the program's own PATH finds (execvp(3) without its shell fallback)."""
    if b"/" in file:
        os.execve(file, argv, environment)  # noqa: S606 - without a shell, as the contract asks
    found: OSError | None = None
    for folder in environment.get(b"PATH", os.defpath.encode()).split(b":"):
        candidate = os.path.join(folder, file)  # an empty one is the current folder (environ(7))
        try:
            os.execve(candidate, argv, environment)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            found = found or exc
            if exc.errno != errno.EACCES:
                break
    raise found or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
