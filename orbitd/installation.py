"""Whether the installation that this process was started from is still there: it may be upgraded, moved or removed.

What orbitd runs itself is loaded before it serves. The keeper and the template of screens processes are started later,
from the files that are there then. So the files are remembered as they were at the start, to be compared when such a
process cannot be started, and when somebody asks how the daemon is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import orbit_os
import orbit_protocol
import orbitd
from orbit_protocol import VERSION

RESTART = "`orbitctl daemon restart` starts the one that is installed now; programs go on meanwhile."

_VERSION_LINE = re.compile(rb'^VERSION = "([0-9A-Za-z.+!-]{1,64})"$', re.MULTILINE)
_MAX_BYTES = 65_536

_Stamp = tuple[int, int, int]


class Installation:
    """Files of an installation as they were at the start of this process.

    Args:
        files: Those that an upgrade replaces; what is missing at the start, as in an archive, is not compared.
        version_file: The one that has the line with the version.
    """

    def __init__(self, files: Sequence[str], version_file: str) -> None:
        self._version_file = version_file
        self._at_start = {path: stamp for path in files if (stamp := _stamp(path)) is not None}

    def change(self) -> str | None:
        """Return a sentence that says how it differs from what it was at the start; None if it does not."""
        for path, stamp in self._at_start.items():
            now = _stamp(path)
            if now is None:
                return f"The installation that orbitd {VERSION} was started from has been moved or removed ({path})"
            if now != stamp:
                return f"The installation of orbitd has changed since it was started ({self._versions(path)})"
        return None

    def warnings(self) -> list[str]:
        """Return the change with what to do, as sentences for `status` and `doctor`; none if there is no change."""
        change = self.change()
        return [] if change is None else [f"{change}. {RESTART}"]

    def _versions(self, path: str) -> str:
        try:
            with open(self._version_file, "rb") as file:
                found = _VERSION_LINE.search(file.read(_MAX_BYTES))
        except OSError:
            found = None
        if found is None or found[1].decode() == VERSION:
            return f"{path} is another file"
        return f"version {found[1].decode()} is installed, {VERSION} runs"


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _of_this_process() -> Installation:
    packages = [module.__file__ for module in (orbit_protocol, orbitd, orbit_os)]
    program = os.path.dirname(os.path.abspath(__file__))
    files = [os.path.abspath(path) for path in (*packages, sys.executable) if path]
    started = [os.path.join(program, "keeper", "__main__.py"), os.path.join(program, "screens", "template.py")]
    return Installation([*files, *started], files[0])


this_installation = _of_this_process()
