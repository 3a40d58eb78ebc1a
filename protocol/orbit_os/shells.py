"""Which commands are shells for somebody to type into."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
from collections.abc import Iterator, Set

SHELLS_FILE = "/etc/shells"
_USUAL_SHELLS = ("sh", "bash", "zsh", "fish", "dash", "ash", "ksh", "mksh", "csh", "tcsh")
"""Where there is no such file, as in small containers."""

_VALUES_OF_SH = frozenset({"o", "O", "--rcfile", "--init-file", "--emulate"})
_VALUES_OF_FISH = frozenset({"C", "d", "D", "f", "o", "p", "--init-command", "--debug", "--debug-output", "--features"})
_VALUES_OF_FISH |= {"--debug-stack-frames", "--profile", "--profile-startup"}
_OPTIONS_WITH_VALUES = {
    **dict.fromkeys(("sh", "bash", "rbash", "zsh", "rzsh", "dash", "ash", "ksh", "ksh93", "mksh"), _VALUES_OF_SH),
    **dict.fromkeys(("csh", "tcsh"), frozenset[str]()),
    "fish": _VALUES_OF_FISH,
}
"""The shells whose options are known, and which options take the next word."""


def is_interactive_shell(command: str, *, chosen: str | None = None) -> bool:
    """Return whether a command runs a shell of this system that reads what is typed: no script, and no commands.

    Args:
        command: As a POSIX shell would split it; bytes that are not UTF-8 are surrogates.
        chosen: SHELL of the environment that it runs in, where that has one of its own.
    """
    try:
        program, *arguments = shlex.split(command)
    except ValueError:  # it cannot be split, or is empty
        return False
    name = os.path.basename(program)
    return name in _shells(chosen) and not _has_script(name, arguments)


def _shells(chosen: str | None) -> set[str]:
    """Return the names of the shells of this system, and of this user."""
    shells = [chosen or "", os.environ.get("SHELL", "")]
    with contextlib.suppress(KeyError):
        shells.append(pwd.getpwuid(os.getuid()).pw_shell)
    try:
        with open(SHELLS_FILE, encoding="utf-8", errors="surrogateescape") as file:
            shells += [line.partition("#")[0].strip() for line in file]
    except OSError:
        shells += _USUAL_SHELLS
    return {os.path.basename(each) for each in shells if each}


def _has_script(name: str, arguments: list[str]) -> bool:
    """Return whether a shell is given a script or a command to run.

    Args:
        name: The shell's.
        arguments: What follows it.
    """
    with_value = _OPTIONS_WITH_VALUES.get(name)
    if with_value is None:
        return not set(arguments) <= {"-l", "-i", "-il", "-li", "--login", "--interactive"}
    words = iter(arguments)
    for word in words:
        if word in ("-", "--"):  # what follows is no option
            return next(words, None) is not None
        if word[0:1] not in ("-", "+") or _is_command(name, word, with_value, words):
            return True
    return False


def _is_command(name: str, option: str, with_value: Set[str], words: Iterator[str]) -> bool:
    """Return whether an option has a shell run a command and end; take the values of other options off the words."""
    if option.startswith("--"):
        long, equals, _ = option.partition("=")
        if long in with_value and not equals:
            next(words, None)
        return long == "--command"
    for index, letter in enumerate(option[1:], 2):
        if letter == "c":
            return True
        if letter in with_value:
            if name in ("fish", "zsh", "rzsh") and option[index:]:  # its value follows in the same word
                break
            next(words, None)
    return False
