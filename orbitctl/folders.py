"""Folders that orbitctl makes: private ones, like everything of Orbit's."""

from __future__ import annotations

import contextlib
import os


def make_private(folder: str) -> None:
    """Make the folders that are missing, each 0700, as the XDG Base Directory Specification asks.

    os.makedirs would leave those in between to the umask.

    Raises:
        OSError: They cannot be made.
    """
    if not os.path.isdir(folder):
        make_private(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):  # somebody else was first
            os.mkdir(folder, 0o700)
