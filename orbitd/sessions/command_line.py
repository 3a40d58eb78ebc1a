"""What a session runs: file, arguments, environment and working directory of its program.

Nothing is started here; the keeper executes the result. All of it is bytes, as execve(2) takes
it: what a client sent as text is UTF-8. A program gets what a new window of the user's would
give it: the environment of the client that starts it, or that of a fresh login, and nothing of
whoever happened to start orbitd. No shell reads a command: it is split as a shell would split it
(shlex). In ssh's own command line `--` ends the options. Old versions of ssh read options behind
the host all the same; there a blank before it keeps a remote command from being read as one.
"""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from collections.abc import Mapping

from msgspec import Struct

from orbit_protocol.environment import belongs_to_window
from orbit_protocol.errors import SpawnFailed
from orbit_protocol.text import from_text, pairs_from_text
from orbit_protocol.types import Session, SessionConfig, check_ssh_words

TERMINAL = {b"TERM": b"xterm-256color", b"COLORTERM": b"truecolor"}

LOGIN_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What programs find where neither a client nor a service manager says where they are."""

_OF_THE_LOGIN = frozenset((b"HOME", b"USER", b"LOGNAME", b"SHELL", b"LANG", b"LANGUAGE", b"XDG_RUNTIME_DIR",
                           b"DBUS_SESSION_BUS_ADDRESS"))  # fmt: skip
"""Of the environment of a shell that happened to start orbitd, what any other login of this user has too."""
_OF_A_MAC_LOGIN = frozenset((b"TMPDIR", b"__CF_USER_TEXT_ENCODING"))


class Launch(Struct, frozen=True, kw_only=True):
    """A program ready to be executed; `file` is looked up on the PATH of `env`.

    It starts in the first of `folders` that can be entered. `hint` is the next step where it cannot be executed, if
    that is another than to check the command.
    """

    file: bytes
    argv: tuple[bytes, ...]
    env: dict[bytes, bytes]
    folders: tuple[bytes, ...]
    hint: str = ""


def is_login_shell(config: SessionConfig) -> bool:
    """Return whether a session runs the user's login shell."""
    return config.session_type == "local" and not config.command


def build_launch(
    session: Session,
    *,
    client_env: Mapping[bytes, bytes] | None,
    socket_path: str,
    agent: bytes | None,
    daemon_env: Mapping[bytes, bytes] = os.environb,
    is_managed: bool = False,
    may_move: bool = False,
) -> Launch:
    """Return what a session runs. This may ask passwd, which may be a server that is slow: call it in a thread.

    Args:
        session: The session, with its config, and the folder that its program was in last if it ran before.
        client_env: The whole environment of the client that starts it; None where there is none.
        socket_path: This daemon's, for ORBITD_SOCKET and ORBIT_SOCKET.
        agent: For SSH_AUTH_SOCK, the path of an ssh agent; None where there is none.
        daemon_env: The daemon's own environment.
        is_managed: Whether a service manager started the daemon, so that this is the manager's.
        may_move: Whether it starts in HOME where the folder that was asked for is gone: a shell that comes back.

    Raises:
        SpawnFailed: The command cannot be split, or is empty, or ssh would misread its host or user.
    """
    config = session.config
    if client_env is None:
        base = login_environment(daemon_env, is_managed=is_managed)
    else:
        base = {name: value for name, value in client_env.items() if not belongs_to_window(name)}
    base.pop(b"SSH_AUTH_SOCK", None)
    if agent is not None:
        base[b"SSH_AUTH_SOCK"] = agent
    env = {**base, **TERMINAL, **(pairs_from_text(config.env, config.env_bytes) or {})}
    # Last, so that no config overrides them.
    env |= {b"ORBIT_SESSION": session.id.encode(), b"ORBITD_SOCKET": os.fsencode(socket_path)}
    # The same once more: while both are equal, nobody has chosen another socket inside the session.
    env[b"ORBIT_SOCKET"] = env[b"ORBITD_SOCKET"]
    env.pop(b"ORBIT_SESSION_NAME", None)
    if session.name is not None:
        env[b"ORBIT_SESSION_NAME"] = session.name.encode()
    # What the client has not stays out of the environment, and is needed all the same: a shell, and a folder.
    shell, home = env.get(b"SHELL"), env.get(b"HOME")
    if not (shell and home):
        account = _account()
        shell = shell or account.get(b"SHELL") or b"/bin/sh"
        home = home or account.get(b"HOME")
    file, argv = _command(config, shell)
    folders = _folders(session, home or b"", may_move=may_move)
    return Launch(file=file, argv=argv, env=env, folders=folders, hint=_hint(config))


def login_environment(daemon_env: Mapping[bytes, bytes], *, is_managed: bool) -> dict[bytes, bytes]:
    """Return the environment of a fresh login, for a program that no client starts.

    The environment of a service manager is one, but for what it gives to the daemon alone. That of a shell, which
    happened to be the first to need a daemon, is not: names, shell and PATH in it are not taken, as it may have been
    started by sudo, nix-shell or in a virtual environment. HOME is: Orbit's own files are there.
    """
    if is_managed:
        env = {name: value for name, value in daemon_env.items() if not belongs_to_window(name)}
        if not {b"HOME", b"USER", b"LOGNAME", b"SHELL"} <= env.keys():
            env = {**_account(), **env}
    else:
        kept = _OF_THE_LOGIN | _OF_A_MAC_LOGIN if sys.platform == "darwin" else _OF_THE_LOGIN
        env = {
            name: value
            for name, value in daemon_env.items()
            if name in kept or (name.startswith(b"LC_") and not belongs_to_window(name))
        }
        account = _account()
        if env.get(b"HOME"):
            account.pop(b"HOME", None)
        env |= account
    env.setdefault(b"PATH", LOGIN_PATH)
    return env


def _account() -> dict[bytes, bytes]:
    """Return the variables that login(1) sets from passwd; none for a uid without an entry, as containers use."""
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:
        return {}
    name = os.fsencode(account.pw_name)
    found = {b"HOME": os.fsencode(account.pw_dir), b"SHELL": os.fsencode(account.pw_shell)}
    return {variable: value for variable, value in {**found, b"USER": name, b"LOGNAME": name}.items() if value}


def _folders(session: Session, home: bytes, *, may_move: bool) -> tuple[bytes, ...]:
    """Return where a program may start, the best first.

    A folder that was asked for is the only one: with another, `rm -r build` would be run somewhere else. The one that
    its program was in last, and has left behind, was not asked for.
    """
    config = session.config
    last, asked = last_folder(session), from_text(config.cwd or "", config.cwd_bytes)
    # The client's HOME may be relative, and nobody is in the folder that it is relative to.
    at_home = (*((home,) if home.startswith(b"/") else ()), b"/")
    followed = (last,) if last else ()
    if asked and config.session_type == "local":
        followed = (*followed, asked) if last != asked else (asked,)
        return (*followed, *at_home) if may_move else followed
    # ssh runs anywhere: the folder that is meant is on the other machine.
    return (*followed, *((asked,) if asked else ()), *at_home)


def last_folder(session: Session) -> bytes | None:
    """Return the folder that a session's program was in last, if it has run."""
    return None if session.cwd is None else from_text(session.cwd, session.cwd_bytes)


def last_size(session: Session) -> tuple[int, int]:
    """Return the columns and rows that a session's terminal had last; 80 and 24 if it has had none."""
    return session.cols or 80, session.rows or 24


def _hint(config: SessionConfig) -> str:
    if config.session_type == "ssh":
        return "Install OpenSSH's client (Debian: openssh-client) where the PATH of orbitd finds it."
    if not config.command:
        return "Give the session a command, or set SHELL to a shell that this machine has."
    return ""


def _command(config: SessionConfig, shell: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    if config.session_type == "ssh":
        return b"ssh", _ssh_command(config)
    if not config.command:
        return shell, (b"-" + os.path.basename(shell),)  # a login shell's name begins with `-`: login(1)
    line = from_text(config.command, config.command_bytes).decode("utf-8", "surrogateescape")
    try:
        words = [word.encode("utf-8", "surrogateescape") for word in shlex.split(line)]
    except ValueError as error:
        raise SpawnFailed(f"The command cannot be split: {error}", hint="Check its quotes.") from error
    if not words:
        raise SpawnFailed("The command is empty", hint="Leave it out to run the login shell.")
    return words[0], tuple(words)


def _ssh_command(config: SessionConfig) -> tuple[bytes, ...]:
    try:
        check_ssh_words(config.host, config.username)
    except ValueError as error:  # recorded by an older version
        raise SpawnFailed(
            f"ssh may not be given this: {error}", hint="Make a session with another host and user in its place."
        ) from error
    port = (b"-p", b"%d" % config.port) if config.port is not None else ()
    user = f"{config.username}@" if config.username is not None else ""
    line = from_text(config.command or "", config.command_bytes)
    blank = b" " if line.startswith(b"-") else b""  # the remote shell skips it
    command = (blank + line,) if line else ()
    return (b"ssh", b"-tt", *port, b"--", f"{user}{config.host}".encode(), *command)
