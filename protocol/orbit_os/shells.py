"""Which programs are login shells on this machine."""

from __future__ import annotations

import os
import shlex

SHELLS_FILE = "/etc/shells"
MAX_SHELLS_BYTES = 1 << 16
_USUAL = frozenset({"sh", "csh"})
"""What getusershell(3) takes where there is no such file."""

_WITH_VALUE = frozenset({"--rcfile", "--init-file", "-o", "+o", "-O", "+O"})
"""Options of shells behind which a word follows that is no script."""

_WITH_COMMANDS = frozenset({"-", "--", "--command", "--execute"})
"""What stands before a script or commands."""


def login_shells(path: str = SHELLS_FILE) -> frozenset[str]:
    """Return the names of this machine's login shells, without their folders."""
    try:
        with open(path, "rb") as file:
            lines = file.read(MAX_SHELLS_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return _USUAL
    found = (line.partition("#")[0].strip() for line in lines)
    return frozenset(os.path.basename(each) for each in found if each.startswith("/")) or _USUAL


def is_interactive_shell(command: str, shells: frozenset[str]) -> bool:
    """Return whether a command runs a shell that reads what is typed: no script, and no commands as its argument.

    Args:
        command: As a POSIX shell would split it.
        shells: Names of shells, from `login_shells`.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    if not words or os.path.basename(words[0]) not in shells:
        return False
    rest = iter(words[1:])
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif word in _WITH_COMMANDS or not word.startswith(("-", "+")) or (not word.startswith("--") and "c" in word):
            return False
    return True
