"""What a session runs: file, arguments, environment and working directory of its program.

Nothing is started here; the keeper executes the result. All of it is bytes, as execve(2) takes
it: what a client sent as text is UTF-8. No shell reads a command: it is split as a shell would
split it (shlex). In ssh's own command line `--` ends the options.
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
from orbit_protocol.text import from_text, pairs_from_text
from orbit_protocol.types import Session, SessionConfig, check_ssh_words

TERMINAL = {b"TERM": b"xterm-256color", b"COLORTERM": b"truecolor"}
NEVER_INHERITED = (b"TMUX", b"TMUX_PANE", b"STY", b"WINDOW", b"COLUMNS", b"LINES", b"TERMCAP")
"""Variables that describe the terminal that the daemon or the client was started in."""


class Launch(Struct, frozen=True, kw_only=True):
    """A program ready to be executed; `file` is looked up on the PATH of `env`.

    `hint` is the next step where it cannot be executed, if that is another than to check the command.
    """

    file: bytes
    argv: tuple[bytes, ...]
    env: dict[bytes, bytes]
    cwd: bytes
    hint: str = ""


def is_login_shell(config: SessionConfig) -> bool:
    """Return whether a session runs the user's login shell."""
    return config.session_type == "local" and not config.command


def build_launch(
    session: Session,
    *,
    client_env: Mapping[bytes, bytes] | None,
    socket_path: str,
    agent_link: str | None,
    daemon_env: Mapping[bytes, bytes] = os.environb,
) -> Launch:
    """Return what a session runs.

    Args:
        session: The session, with its config, and the folder that its program was in last if it ran before.
        client_env: What the starting client sent; overrides the daemon's own.
        socket_path: This daemon's, for ORBITD_SOCKET and ORBIT_SOCKET.
        agent_link: The session's link to an ssh agent, for SSH_AUTH_SOCK; None leaves the client's own agent.
        daemon_env: The daemon's own environment.

    Raises:
        SpawnFailed: The command cannot be split, or is empty, or ssh would misread its host or user.
    """
    config = session.config
    # Of two values of a name the later one is used.
    agent = {} if agent_link is None else {b"SSH_AUTH_SOCK": os.fsencode(agent_link)}
    own = pairs_from_text(config.env, config.env_bytes) or {}
    env = {**daemon_env, **(client_env or {}), **TERMINAL, **agent, **own}
    for name in NEVER_INHERITED:
        env.pop(name, None)
    # Last, so that no config overrides them.
    env |= {b"ORBIT_SESSION": session.id.encode(), b"ORBITD_SOCKET": os.fsencode(socket_path)}
    # The same once more: while both are equal, nobody has chosen another socket inside the session.
    env[b"ORBIT_SOCKET"] = env[b"ORBITD_SOCKET"]
    shell = env.get(b"SHELL")
    if not (shell and env.get(b"HOME")):
        home_in_passwd, shell_in_passwd = _home_and_shell_in_passwd()
        shell = shell or shell_in_passwd
        if not env.get(b"HOME") and home_in_passwd:
            env[b"HOME"] = home_in_passwd
    file, argv = _command(config, shell or b"/bin/sh")
    home = env.get(b"HOME", b"")
    home = home if home.startswith(b"/") else b"/"  # the client's variable; nobody is in the folder it is relative to
    folder = last_folder(session) or from_text(config.cwd or "", config.cwd_bytes) or home
    return Launch(file=file, argv=argv, env=env, cwd=folder, hint=_hint(config))


def _home_and_shell_in_passwd() -> tuple[bytes, bytes]:
    """Return what passwd has for this uid; two empty strings for a uid without an entry, as containers use."""
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:
        return b"", b""
    return os.fsencode(account.pw_dir), os.fsencode(account.pw_shell)


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
