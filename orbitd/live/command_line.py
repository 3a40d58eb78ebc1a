"""What a session runs: file, arguments, environment and working directory of its program.

Nothing is started here; the keeper executes the result. No shell reads a command: it is
split as a shell would split it (shlex). In ssh's own command line `--` ends the options.
Old versions of ssh read options behind the host all the same; there a blank before it keeps
a remote command from being read as one.
"""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Mapping

from msgspec import Struct

from orbit_protocol.errors import SpawnFailed
from orbit_protocol.types import Session, SessionConfig, check_ssh_words

TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
NEVER_INHERITED = ("TMUX", "TMUX_PANE", "STY", "WINDOW", "COLUMNS", "LINES", "TERMCAP")
"""Variables that describe the terminal that the daemon or the client was started in."""


class Launch(Struct, frozen=True, kw_only=True):
    """A program ready to be executed; `file` is looked up on the PATH of `env`.

    `hint` is the next step where it cannot be executed, if that is another than to check the command.
    """

    file: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    hint: str = ""


def is_login_shell(config: SessionConfig) -> bool:
    """Return whether a session runs the user's login shell."""
    return config.session_type == "local" and not config.command


def build_launch(
    session: Session,
    *,
    client_env: Mapping[str, str] | None,
    socket_path: str,
    agent_link: str,
    cwd: str | None = None,
    daemon_env: Mapping[str, str] = os.environ,
) -> Launch:
    """Return what a session runs.

    Args:
        session: The session, with its config.
        client_env: What the starting client sent; overrides the daemon's own.
        socket_path: This daemon's, for ORBITD_SOCKET.
        agent_link: The session's link to an ssh agent, for SSH_AUTH_SOCK.
        cwd: The directory that the session's program was in last, if it ran before.
        daemon_env: The daemon's own environment.

    Raises:
        SpawnFailed: The command cannot be split, or is empty, or ssh would misread its host or user.
    """
    config = session.config
    # Of two values of a name the later one is used.
    agent = {"SSH_AUTH_SOCK": agent_link}
    env = {**daemon_env, **(client_env or {}), **TERMINAL, **agent, **(config.env or {})}
    for name in NEVER_INHERITED:
        env.pop(name, None)
    # Last, so that no config overrides them: orbitctl compares ORBIT_SESSION to refuse an attach to itself.
    env |= {"ORBIT_SESSION": session.id, "ORBITD_SOCKET": socket_path}
    account = pwd.getpwuid(os.getuid())
    env.setdefault("HOME", account.pw_dir)
    file, argv = _command(config, env.get("SHELL") or account.pw_shell or "/bin/sh")
    return Launch(file=file, argv=argv, env=env, cwd=cwd or config.cwd or env["HOME"], hint=_hint(config))


def _hint(config: SessionConfig) -> str:
    if config.session_type == "ssh":
        return "Install OpenSSH's client (Debian: openssh-client) where the PATH of orbitd finds it."
    if not config.command:
        return "Give the session a command, or set SHELL to a shell that this machine has."
    return ""


def _command(config: SessionConfig, shell: str) -> tuple[str, tuple[str, ...]]:
    if config.session_type == "ssh":
        return "ssh", _ssh_command(config)
    if not config.command:
        return shell, ("-" + os.path.basename(shell),)  # a login shell's name begins with `-`: login(1)
    try:
        words = shlex.split(config.command)
    except ValueError as error:
        raise SpawnFailed(f"The command cannot be split: {error}", hint="Check its quotes.") from error
    if not words:
        raise SpawnFailed("The command is empty", hint="Leave it out to run the login shell.")
    return words[0], tuple(words)


def _ssh_command(config: SessionConfig) -> tuple[str, ...]:
    try:
        check_ssh_words(config.host, config.username)
    except ValueError as error:  # recorded by an older version
        raise SpawnFailed(
            f"ssh may not be given this: {error}", hint="Make a session with another host and user in its place."
        ) from error
    port = ("-p", str(config.port)) if config.port is not None else ()
    user = f"{config.username}@" if config.username is not None else ""
    blank = " " if (config.command or "").startswith("-") else ""  # the remote shell skips it
    command = (blank + config.command,) if config.command else ()
    return ("ssh", "-tt", *port, "--", f"{user}{config.host}", *command)
