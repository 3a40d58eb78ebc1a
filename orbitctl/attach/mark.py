"""Remember which lines of a session a window has in its history, so that no line is printed there twice.

There is one small file for each window and session, which only the client in that window writes. A lost or damaged one
does no harm: then all is printed once more.
"""

from __future__ import annotations

import binascii
import contextlib
import os
from collections.abc import Mapping, Sequence

from orbit_os.files import UnsafeFolder, open_private, private_folder
from orbitctl.client.paths import ClientPaths
from orbitctl.errors import CommandError

MAX_MARKS = 1000
_MAX_DIGITS = 19
_MAX_NAME = 2048
_NAMES_OF_WINDOWS = (
    "TMUX", "TMUX_PANE", "STY", "WINDOW", "TERM_SESSION_ID", "ITERM_SESSION_ID", "WT_SESSION", "WINDOWID",
    "KITTY_WINDOW_ID", "WEZTERM_PANE",
)  # fmt: skip


class Mark:
    """How far a window has one session's history.

    Args:
        folder: Of the marks of all windows; it is made when it is needed.
        window: What tells the window from others, from `window_name`.
        session: What tells the session from others.
    """

    def __init__(self, folder: str, window: str, session: str) -> None:
        self._folder = folder
        # The file's name is a checksum, and the whole name stands in it: hashlib would load a library of megabytes.
        self._name = os.fsencode(f"{session}\0{window}")[:_MAX_NAME]
        self._path = os.path.join(folder, f"{binascii.crc32(self._name):08x}")

    def load(self) -> int | None:
        """Return the line that was saved; None where there is none."""
        try:
            descriptor = open_private(self._path, os.O_RDONLY)
        except (OSError, UnsafeFolder):
            return None
        try:
            text, _, name = os.read(descriptor, _MAX_DIGITS + 1 + _MAX_NAME).partition(b" ")
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return int(text) if name == self._name and text.isdigit() and len(text) <= _MAX_DIGITS else None

    def save(self, line: int) -> None:
        """Save a line; where that fails, more is printed the next time."""
        temporary = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError, UnsafeFolder):
            private_folder(self._folder)
            descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.write(descriptor, b"%d %s" % (line, self._name))
            finally:
                os.close(descriptor)
            os.replace(temporary, self._path)
            self._drop_old()

    def _drop_old(self) -> None:
        with os.scandir(self._folder) as found:
            entries = list(found)
        if len(entries) <= MAX_MARKS:
            return
        ages: list[tuple[float, str]] = []
        for entry in entries:
            with contextlib.suppress(OSError):  # another client is faster
                ages.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
        for _, path in sorted(ages)[: len(ages) - MAX_MARKS]:
            with contextlib.suppress(OSError):
                os.unlink(path)


def marks_folder(paths: ClientPaths) -> str:
    """Return where the marks are: in the runtime folder, where a reboot ends them as it ends the windows."""
    try:
        return os.path.join(paths.run_folder, "windows")
    except CommandError:  # the socket was named, and HOME cannot be used
        return os.devnull  # nothing is found in there, and nothing can be made


def window_name(descriptor: int, environ: Mapping[str, str]) -> str:
    """Return what tells this window from all others, also from a later one with the same terminal device.

    A device of /dev/pts is made when its window is opened, and its node's time of change is that moment; the leader of
    the window's session is another one in a later window wherever devices are kept.

    Args:
        descriptor: The terminal.
        environ: The environment: a pane of tmux, or a tab, has a name there.
    """
    device = os.fstat(descriptor)
    names: Sequence[object] = (
        device.st_dev, device.st_ino, device.st_rdev, device.st_ctime_ns, os.getsid(0),
        *(environ.get(name, "") for name in _NAMES_OF_WINDOWS),
    )  # fmt: skip
    return "\0".join(map(str, names))
