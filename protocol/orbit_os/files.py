"""Folders and files that only the user can reach, and fsync(2).

Time passes between the check of a folder and its use. So a folder passes only if no other user could
change it in between: it must be ours, not a symbolic link, and closed to others. A file is checked
after it was opened, by its descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


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
    if stat.S_IMODE(os.stat(path).st_mode) != PRIVATE_FOLDER:  # mkdir(2) clears the bits of the umask
        os.chmod(path, PRIVATE_FOLDER)
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
        raise UnsafeFolder(f"{path} is open to others (mode {mode:04o}); close it: chmod 700 '{path}'")


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
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & 0o700)
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


def sync(path: str) -> None:
    """Flush a file, or a folder's entries, to disk (fsync(2)). Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # fsync needs no write access, and a folder allows none
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular(path: str, limit: int) -> bytes:
    """Read a file that people name and may link to, or /dev/null; one that would block or never end is refused.

    Args:
        path: The file.
        limit: The most bytes that it may have.

    Raises:
        OSError: It cannot be read, is neither (EINVAL), or is longer (EFBIG).
    """
    # O_NONBLOCK: opening a FIFO would wait for its other end (fifo(7)); for a regular file it means nothing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        # /dev/null ends at once; people name it for "none".
        if not stat.S_ISREG(found.st_mode) and found.st_rdev != os.stat(os.devnull).st_rdev:
            raise OSError(errno.EINVAL, "it is no regular file", path)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", path)
    return data
