"""Folders that only the user can reach, and fsync(2).

Time passes between the check of a folder and its use. So a folder passes only if no other user could
change it in between: it must be ours, not a symbolic link, and closed to others.
"""

from __future__ import annotations

import os
import stat

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


class UnsafeFolder(Exception):
    """A folder could be changed by somebody else; the message names it and the next step."""


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


def refuse_link(path: str) -> None:
    """Refuse a file that is a symbolic link.

    The lock lies beside the file: by two names of one file, two processes would each hold a lock.

    Raises:
        UnsafeFolder: It is one.
    """
    if os.path.islink(path):
        raise UnsafeFolder(f"{path} is a symbolic link; name the file itself")


def sync(path: str) -> None:
    """Flush a file, or a folder's entries, to disk (fsync(2)). Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # fsync needs no write access, and a folder allows none
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
