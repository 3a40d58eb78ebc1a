"""Folders and files that only the user can reach, their modes, locks, and fsync(2).

Time passes between the check of a folder and its use. So a folder passes only if no other user could
change it in between: it must be ours, not a symbolic link, and closed to others. A file is checked
after it was opened, by its descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

from orbit_os.shell import typed

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600

NO_MODES = "its file system keeps no modes, so that others could reach it; configure a path on a local file system"
"""Why a file or folder stays open to others: FAT, and CIFS and FUSE by their options of mount(8)."""

_NOT_SUPPORTED = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))
_NO_FOLDER_SYNC = _NOT_SUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM}
_NO_FULL_SYNC = _NOT_SUPPORTED | {errno.ENOTTY}
_NO_LOCKS = _NOT_SUPPORTED | {errno.ENOLCK}
_NO_CHMOD = _NOT_SUPPORTED | {errno.EPERM}


class UnsafeFolder(Exception):
    """A folder could be changed by somebody else; the message names it and the next step."""


class UnsafeFile(UnsafeFolder):
    """What is in the place of a file of ours is a link, no regular file, or not ours; the message names it."""


def private_folder(path: str) -> str:
    """Create a folder if it is missing, and check it.

    Args:
        path: An absolute path; missing parents are created with mode 0700.

    Returns:
        The same path.

    Raises:
        UnsafeFolder: It is a symbolic link, not a folder, not ours, or open to others.
        OSError: It cannot be created.
    """
    make_private_folders(path)
    check_private(path)
    return path


def make_private_folders(path: str) -> None:
    """Create the folders that are missing, each with mode 0700 whatever the umask.

    os.makedirs would leave the parents to the umask; the XDG Base Directory Specification asks for 0700.

    Raises:
        OSError: One cannot be created.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if not os.path.lexists(parent):
        make_private_folders(parent)
    try:
        os.mkdir(path, PRIVATE_FOLDER)
    except FileExistsError:
        return  # another process was first, or it is not a folder: `check_private` says so
    set_mode(path, PRIVATE_FOLDER)  # mkdir(2) clears the bits of the umask
    # A folder's entry is data of its parent: without this, what is synced inside it
    # later could be lost together with its name (fsync(2)).
    sync(parent)


def check_private(path: str) -> None:
    """Refuse a folder that another user could change or read.

    Raises:
        UnsafeFolder: As `private_folder` does.
        OSError: It cannot be examined.
    """
    found = os.lstat(path)  # of the link itself: its owner may point it elsewhere at any time
    if stat.S_ISLNK(found.st_mode):
        raise UnsafeFolder(f"{path} is a symbolic link; name the folder itself")
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder(f"{path} is not a folder; move it away, or configure another path")
    if found.st_uid != os.getuid():
        raise UnsafeFolder(
            f"{path} belongs to uid {found.st_uid}, not to {os.getuid()}; configure a folder of your own"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_ISVTX:  # /tmp, where we are root: nobody may be told to close it
            raise UnsafeFolder(f"{path} is a folder for everybody (mode {mode:04o}); configure a folder of your own")
        if not _keeps_modes(path):
            raise UnsafeFolder(f"{path} is open to others (mode {mode:04o}): {NO_MODES}")
        remedy = f"close it: {typed('chmod 700', path)}" if may_be_closed(path) else "configure a folder of your own"
        raise UnsafeFolder(f"{path} is open to others (mode {mode:04o}); {remedy}")


def may_be_closed(folder: str) -> bool:
    """Return whether to close a folder to others can be advised: it lies below HOME, or has our name.

    /etc or /dev of a configured path must stay open, and so must HOME itself where other programs serve files of it.
    """
    return os.path.basename(folder) == "orbit" or is_below_home(folder)


def is_below_home(path: str) -> bool:
    """Return whether a path lies below HOME; HOME itself does not, and nothing does where HOME is / or unset."""
    home = os.path.realpath(os.environ.get("HOME") or "/")
    return home != "/" and os.path.realpath(path).startswith(home + "/")


def _keeps_modes(folder: str) -> bool:
    """Return whether a folder that is made in this one gets the mode that it is made with; True if none can be made."""
    probe = os.path.join(folder, f".orbit-mode-{os.urandom(8).hex()}")
    try:
        os.mkdir(probe, PRIVATE_FOLDER)
    except OSError:
        return True
    try:
        return not os.lstat(probe).st_mode & 0o077
    finally:
        os.rmdir(probe)


def set_mode(path: str, mode: int, descriptor: int | None = None) -> None:
    """Give a file, a folder or a socket a mode, unless it has it.

    A file system without modes shows the same for each file, and has chmod(2) fail or do nothing. That passes as long
    as the owner can do what `mode` says, and others nothing where it gives them nothing.

    Args:
        path: The file.
        mode: The permission bits.
        descriptor: The open file; without it, what the path leads to.

    Raises:
        OSError: It cannot be looked at or changed; EPERM, with `NO_MODES`, where others could reach it.
    """
    target = path if descriptor is None else descriptor
    found = stat.S_IMODE(os.stat(target).st_mode)
    if found == mode:
        return
    try:
        os.chmod(target, mode)
    except OSError as error:
        if error.errno not in _NO_CHMOD:
            raise
    found = stat.S_IMODE(os.stat(target).st_mode)
    if found & 0o077 and not mode & 0o077:
        raise PermissionError(errno.EPERM, NO_MODES, path)
    if mode & 0o700 & ~found:
        raise PermissionError(errno.EPERM, f"it stays at mode {found:04o}", path)


def open_private(path: str, flags: int) -> int:
    """Open a regular file of ours, never through a link, and close it to others. Nothing waits and nothing is written.

    Every file of ours that is opened by its name is opened here. The configuration is none: people keep it elsewhere
    and link to it.

    Args:
        path: In a private folder.
        flags: Of open(2); with O_CREAT a missing file is made with mode 0600.

    Returns:
        A descriptor that is closed on exec, and blocks.

    Raises:
        UnsafeFile: A link, a folder, a FIFO, a socket or a device is in its place, or the file of somebody else.
        OSError: It cannot be opened.
    """
    # O_NONBLOCK: opening a FIFO would wait for its other end (fifo(7)).
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags, PRIVATE_FILE)
    except OSError as error:
        # ELOOP is a link, EISDIR a folder, ENXIO a socket or a FIFO that nobody reads (open(2)). FreeBSD has EMLINK
        # for a link, and macOS EOPNOTSUPP for a socket.
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO, errno.EOPNOTSUPP):
            check_file(path)
        raise
    try:
        found = os.fstat(descriptor)
        _check_regular(path, found)
        if found.st_mode & 0o077:
            set_mode(path, stat.S_IMODE(found.st_mode) & 0o700, descriptor)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_file(path: str) -> None:
    """Refuse what is not a regular file of ours; a missing file passes. For what others open, as SQLite does.

    Raises:
        UnsafeFile: As `open_private` does.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    _check_regular(path, found)


def _check_regular(path: str, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise UnsafeFile(f"{path} is a symbolic link; name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeFile(f"{path} is no regular file; move it away")
    if found.st_uid != os.geteuid():
        raise UnsafeFile(f"{path} belongs to uid {found.st_uid}, not to {os.geteuid()}; move it away")


def lock(path: str, descriptor: int, operation: int) -> None:
    """Take a lock with flock(2).

    Args:
        path: The file, for the message.
        descriptor: The open file.
        operation: Of flock(2).

    Raises:
        BlockingIOError: Another process has it, and LOCK_NB is in `operation`.
        OSError: The file system has no locks, as NFS without its lock daemon (ENOLCK); the message says so.
    """
    import fcntl

    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        words = f"its file system has no locks (flock: {error.strerror}); configure a path on a local file system"
        raise OSError(error.errno, words, path) from error


def sync(path: str) -> None:
    """Flush a file, or a folder's entries, to the disk itself.

    A folder that its file system cannot flush passes, and one that we may write but not read (mode 0300): what the
    file itself holds is safe, and its name is as safe as it can be made there.

    Raises:
        OSError: Of a file it could not be flushed; of a folder the disk failed. It has the path, which fsync(2) lacks.
    """
    try:
        # fsync(2) needs no write access, and a folder allows none; but some servers of CIFS flush nothing without it.
        access = os.O_RDONLY if os.path.isdir(path) else os.O_RDWR
        descriptor = os.open(path, access | os.O_CLOEXEC)
    except PermissionError:
        if os.path.isdir(path):
            return
        raise
    try:
        sync_descriptor(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """Flush an open file or folder as `sync` does. Raises: OSError."""
    try:
        _flush(descriptor)
    except OSError as error:
        # CIFS, sshfs and vboxsf cannot flush a folder; EINVAL is fsync(2)'s word for it. A server that flushes only
        # what is open for writing has EACCES or EPERM, and no folder is ever open so. Of a file it is a failure.
        if error.errno not in _NO_FOLDER_SYNC or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise


def _flush(descriptor: int) -> None:
    import fcntl  # not at the top: commands that only ask the daemon flush nothing

    # On macOS fsync(2) leaves data in the disk's own memory, and F_FULLFSYNC flushes that too (fcntl(2)). Network file
    # systems there have none, and SQLite falls back to fsync then as well (os_unix.c, full_fsync).
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        try:
            fcntl.fcntl(descriptor, full_sync)
            return
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
    os.fsync(descriptor)


def read_regular(path: str, limit: int) -> bytes:
    """Read a file that people name and may link to, or /dev/null; one that would block or never end is refused.

    Args:
        path: The file.
        limit: The most bytes that it may have.

    Raises:
        OSError: It cannot be read, is neither (EINVAL), is longer (EFBIG), or belongs to another user (EPERM), who
            could have us obey it where a HOME is shared.
    """
    # O_NONBLOCK: opening a FIFO would wait for its other end (fifo(7)); for a regular file it means nothing.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # a socket; the latter on macOS
            raise OSError(errno.EINVAL, "it is no regular file", path) from error
        raise
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        # /dev/null ends at once; people name it for "none".
        if not stat.S_ISREG(found.st_mode) and found.st_rdev != os.stat(os.devnull).st_rdev:
            raise OSError(errno.EINVAL, "it is no regular file", path)
        if found.st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, f"it belongs to uid {found.st_uid}, not to you or root", path)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", path)
    return data
