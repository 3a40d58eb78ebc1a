"""Have the shell of a session mark its prompts and commands (OSC 133), without a file of the user's being changed.

bash and zsh are started so that they read files of ours (`orbit_os.shell_integration`), which read
the user's own. For bash that is `--rcfile`; a login shell, which reads none, is started in POSIX mode,
where it reads `ENV`, and leaves that mode at once. For zsh it is ZDOTDIR. Only what is known to be an
interactive shell is started so; whatever else stands on its command line leaves all as it is.
"""

from __future__ import annotations

import os
import re

from msgspec import Struct
from msgspec.structs import replace

from orbit_os import shell_integration as files
from orbitd.sessions.command_line import Launch

_VARIABLES = (b"__ORBIT_START", b"__ORBIT_RC", b"__ORBIT_ENV", b"__ORBIT_ZDOTDIR")
"""Read, and unset, by our files before any of the user's."""

_FLAGS = re.compile(rb"-[lis]+")
_LONG = {b"--login", b"--noprofile", b"--norc", b"--noediting", b"--posix"}
_NAMED = {b"--rcfile", b"--init-file"}
_GLOBAL_ZSHENV = ("/etc/zshenv", "/etc/zsh/zshenv")
_MAX_ZSHENV = 64 * 1024


def integrate(launch: Launch) -> Launch:
    """Return how a program is started with the integration: another way if it is an interactive bash or zsh.

    This reads files of the system; call it in a thread.
    """
    launch = replace(launch, env={name: value for name, value in launch.env.items() if name not in _VARIABLES})
    name = os.path.basename(launch.file)
    if name == b"bash" and os.access(files.BASH, os.R_OK):
        return _bash(launch)
    if name == b"zsh" and os.access(os.path.join(files.ZSH, ".zshenv"), os.R_OK):
        return _zsh(launch)
    return launch


class _Bash(Struct):
    """What stands on the command line of bash, as far as it decides what is read."""

    is_login: bool
    is_posix: bool
    long: list[bytes] = []
    short: list[bytes] = []
    rcfile: bytes | None = None


def _bash(launch: Launch) -> Launch:
    found = _read_command_line(launch)
    if found is None:
        return launch
    env, rest = launch.env, [*found.long, *found.short]
    if not (found.is_posix or found.is_login or b"--norc" in found.long):
        added = {b"__ORBIT_START": b"rc"} | ({b"__ORBIT_RC": found.rcfile} if found.rcfile is not None else {})
        words = (b"--rcfile", os.fsencode(files.BASH), *rest)
        return replace(launch, argv=(launch.argv[0], *words), env={**env, **added})
    path = os.fsencode(files.BASH)
    # bash expands ENV; and in POSIX mode it takes over no function whose name is not one of POSIX.
    if not re.fullmatch(rb"[^$`\\\"']+", path) or any(_is_odd_function(name) for name in env):
        return launch
    start = b"posix" if found.is_posix else b"login" if found.is_login and b"--noprofile" not in found.long else b"none"
    if not found.is_posix:
        rest.insert(0, b"--posix")
        start += b"".join(b" " + name.lower() for name in (b"HISTFILE", b"MAILCHECK") if name not in env)
    own = {b"__ORBIT_ENV": env[b"ENV"]} if b"ENV" in env else {}
    if found.rcfile is not None:
        rest = [b"--rcfile", found.rcfile, *rest]
    return replace(launch, argv=(launch.argv[0], *rest), env={**env, **own, b"ENV": path, b"__ORBIT_START": start})


def _read_command_line(launch: Launch) -> _Bash | None:
    """Read the command line of bash; return None if there is anything on it that is not known here."""
    env = launch.env
    found = _Bash(is_login=launch.argv[0].startswith(b"-"), is_posix=b"POSIXLY_CORRECT" in env)
    if b"SHELLOPTS" in env or b"BASHOPTS" in env:  # they are set before any file is read
        return None
    words = iter(launch.argv[1:])
    for word in words:
        if word in _NAMED and not found.short:
            found.rcfile = next(words, None)
            if found.rcfile is None:
                return None
        elif word in _LONG and not found.short:  # bash reads them before all others alone
            found.is_login |= word == b"--login"
            found.is_posix |= word == b"--posix"
            found.long.append(word)
        elif _FLAGS.fullmatch(word):
            found.is_login |= b"l" in word
            found.short.append(word)
        else:
            return None
    return found


def _is_odd_function(variable: bytes) -> bool:
    return variable.startswith(b"BASH_FUNC_") and not re.fullmatch(rb"BASH_FUNC_[A-Za-z_][A-Za-z_0-9]*%%", variable)


def _zsh(launch: Launch) -> Launch:
    if not all(word == b"--login" or _FLAGS.fullmatch(word) for word in launch.argv[1:]):
        return launch  # -f, say, with which ours would not be read, nor ZDOTDIR put back
    if any(_sets_zdotdir(path) for path in _GLOBAL_ZSHENV):
        return launch
    own = {b"__ORBIT_ZDOTDIR": launch.env[b"ZDOTDIR"]} if b"ZDOTDIR" in launch.env else {}
    return replace(launch, env={**launch.env, **own, b"ZDOTDIR": os.fsencode(files.ZSH)})


def _sets_zdotdir(path: str) -> bool:
    """Return whether the system's file, which zsh reads first, may name another folder than ours."""
    try:
        with open(path, "rb") as file:
            return b"ZDOTDIR" in file.read(_MAX_ZSHENV)
    except OSError:
        return False
