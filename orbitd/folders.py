"""Folders that only the user can reach.

The check and the use of a folder are not one step, so a folder passes only if nobody else
could change it in between: it must be ours, no symbolic link, and closed to others.
"""

from __future__ import annotations

import os
import stat

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


class UnsafeFolder(Exception):
    """A folder cannot be trusted; the text names it and the next step."""


def private_folder(path: str) -> str:
    """Make a folder if there is none, and check it.

    Args:
        path: An absolute path; parents that are missing are made with mode 0700.

    Returns:
        The same path.

    Raises:
        UnsafeFolder: It is a symbolic link, no folder, not ours, or open to others.
        OSError: It cannot be made.
    """
    try:
        _make(path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make_parents(os.path.dirname(path))
        _make(path)
    check_private(path)
    return path


def _make_parents(path: str) -> None:
    if not os.path.isdir(path):
        _make_parents(os.path.dirname(path))
        _make(path)


def _make(path: str) -> None:
    """Make a folder and bring its name to disk: what is synced in it later would be lost with it (fsync(2))."""
    os.mkdir(path, PRIVATE_FOLDER)
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_link(path: str) -> None:
    """Refuse a database that is a symbolic link: one lock would lie beside the link and another beside the file.

    Raises:
        UnsafeFolder: It is one.
    """
    if os.path.islink(path):
        raise UnsafeFolder(f"{path} is a symbolic link; name the file itself")


def check_private(path: str) -> None:
    """Refuse a folder that somebody else could reach into.

    Raises:
        UnsafeFolder: As `private_folder` does.
    """
    found = os.lstat(path)
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
