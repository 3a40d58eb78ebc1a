"""What is remembered of a window: which lines of a session are in its history, and which sessions it has shown.

There is one small file for each window and session, so that no line is printed there twice, and one for each window.
Only the client in that window writes them. A lost or damaged one does no harm: then all is printed once more, and the
newest session is taken for the last.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import re
from collections.abc import Mapping, Sequence

from orbit_os.files import UnsafeFolder, open_private, private_folder
from orbitctl.client.paths import ClientPaths
from orbitctl.errors import CommandError

MAX_MARKS = 1000
MAX_SHOWN = 8
"""How many sessions are remembered of a window."""
_MAX_DIGITS = 19
_MAX_ID = 64
_MAX_CONTENT = MAX_SHOWN * (_MAX_ID + 1)
_MAX_NAME = 2048
_ID = re.compile(rb"[0-9A-Za-z-]{1,%d}" % _MAX_ID)
_NAMES_OF_WINDOWS = (
    "TMUX", "TMUX_PANE", "STY", "WINDOW", "TERM_SESSION_ID", "ITERM_SESSION_ID", "WT_SESSION", "WINDOWID",
    "KITTY_WINDOW_ID", "WEZTERM_PANE",
)  # fmt: skip


class _File:
    """One small file about a window.

    Args:
        folder: Of the files of all windows; it is made when it is needed.
        window: What tells the window from others, from `window_name`.
        about: What tells the file from others of the window.
    """

    def __init__(self, folder: str, window: str, about: str) -> None:
        self._folder = folder
        # The file's name is a checksum, and the whole name stands in it: hashlib would load a library of megabytes.
        self._name = os.fsencode(f"{about}\0{window}")[:_MAX_NAME]
        self._path = os.path.join(folder, f"{binascii.crc32(self._name):08x}")

    def _read(self) -> bytes:
        """Return what was written; b"" where there is nothing, or it is another window's."""
        try:
            descriptor = open_private(self._path, os.O_RDONLY)
        except (OSError, UnsafeFolder):
            return b""
        try:
            text, _, name = os.read(descriptor, _MAX_CONTENT + 1 + _MAX_NAME).partition(b" ")
        except OSError:
            return b""
        finally:
            os.close(descriptor)
        return text if name == self._name and len(text) <= _MAX_CONTENT else b""

    def _write(self, text: bytes) -> None:
        """Replace the file, if that can be done; there is no blank in `text`."""
        temporary = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError, UnsafeFolder):
            private_folder(self._folder)
            descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.write(descriptor, b"%s %s" % (text, self._name))
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


class Mark(_File):
    """How far a window has one session's history; `about` is the session."""

    def load(self) -> int | None:
        """Return the line that was saved; None where there is none."""
        text = self._read()
        return int(text) if text.isdigit() and len(text) <= _MAX_DIGITS else None

    def save(self, line: int) -> None:
        """Save a line; where that fails, more is printed the next time."""
        self._write(b"%d" % line)


class Shown(_File):
    """The sessions that a window has shown; `about` is the machine that they are on."""

    def load(self) -> list[str]:
        """Return their ids, that of the last one first."""
        ids = self._read().split(b",")
        return [each.decode() for each in ids if _ID.fullmatch(each)][:MAX_SHOWN]

    def add(self, session_id: str) -> None:
        """Record which one is shown now; where that fails, the newest session is taken for the last."""
        ids = [session_id, *(each for each in self.load() if each != session_id)]
        self._write(",".join(ids[:MAX_SHOWN]).encode())


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
