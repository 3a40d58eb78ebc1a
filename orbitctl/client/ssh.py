"""Daemons of other machines, reached over the user's own ssh.

`ssh HOST orbitctl dial-stdio` joins our stream to the far daemon's socket, so that ssh decides who
may come in, and the far side's own socket stays private. ssh asks for passwords and unknown keys on
the terminal by itself and says on our stderr what is wrong; so does `dial-stdio`. What is left here
is to say which host it was, and what ssh's exit code means. Nothing that was typed reaches a shell
unquoted but `--remote-command`, which is a command of the user's for the user's far shell.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from orbitctl.client.process_watch import ProcessWatch
from orbitctl.client.transport import SocketStream, Unreachable
from orbitctl.errors import CommandError, ExitCode

SSH_VARIABLE = "ORBITCTL_SSH"
COMMAND_VARIABLE = "ORBITCTL_REMOTE_COMMAND"
LOCAL = "local"
"""What `--host` calls this machine, so that it can stand among others."""

_OPTIONS = (
    *("-T", "-x", "-a", "-e", "none"),  # bytes only: no terminal, no X11, no agent, no escape character
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),  # the host's own settings are for shells
)
_GRACE_SECONDS = 2.0
"""How long ssh may take to end once its stream has."""
_URL = re.compile(r"ssh://(?:(?P<user>[^/]*)@)?(?P<host>\[[^\]/]*\]|[^/:\[\]@]*)(?::(?P<port>[^/]*))?/?")
_HOST = re.compile(r"[\w.:%][\w.:%-]*")
_USER = re.compile(r"[^\s'\"`;&<>|(){}$\\:/-][^\s'\"`;&<>|(){}$\\:/]*")
# Names as OpenSSH takes them since 9.6: older ones hand them to the shell of a ProxyCommand as they are.


class Host(Struct, frozen=True, kw_only=True):
    """A machine; `name` is how the user wrote it. Without an `address` it is this one."""

    name: str
    address: str = ""
    user: str | None = None
    port: int | None = None

    @property
    def label(self) -> str:
        """How it stands in a table."""
        return self.name.removeprefix("ssh://").rstrip("/")


def parse_host(text: str) -> Host:
    """Read `ssh://[user@]host[:port]`, or `local`. Raises: ValueError."""
    if text == LOCAL:
        return Host(name=text)
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not ssh://[user@]host[:port]")
    address = found["host"].removeprefix("[").removesuffix("]")
    if not _HOST.fullmatch(address):
        raise ValueError(f"{address!r} is no host name or address that ssh may be given")
    if found["user"] is not None and not (_USER.fullmatch(found["user"]) and found["user"].isprintable()):
        raise ValueError(f"{found['user']!r} is no user name that ssh may be given")
    return Host(name=text, address=address, user=found["user"], port=_port(found["port"]))


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise ValueError(f"{text!r} is no port (1 to 65535)")
    return int(text)


class Dial(Struct, frozen=True, kw_only=True):
    """How a far daemon is to be reached; what is None or false is left to the far side."""

    remote_command: str | None = None
    socket: str | None = None
    autostart: bool = True
    quiet: bool = False
    """Ask for nothing and say nothing: a shell is completing a word."""


def command_line(host: Host, dial: Dial, environ: Mapping[str, str]) -> list[str]:
    """Return the ssh command that joins its stdin and stdout to a host's daemon. Raises: CommandError."""
    try:
        ssh = shlex.split(environ.get(SSH_VARIABLE) or "ssh")
    except ValueError as error:
        raise CommandError(f"{SSH_VARIABLE} is no command: {error}", ExitCode.USAGE) from error
    port = ["-p", str(host.port)] if host.port is not None else []
    user = ["-l", host.user] if host.user is not None else []
    batch = ["-o", "BatchMode=yes"] if dial.quiet else []
    return [*ssh, *_OPTIONS, *batch, *port, *user, "--", host.address, _far_command(dial, environ)]


def _far_command(dial: Dial, environ: Mapping[str, str]) -> str:
    program = dial.remote_command or environ.get(COMMAND_VARIABLE) or "orbitctl"
    words = [] if dial.socket is None else [f"--socket={dial.socket}"]
    words += [] if dial.autostart else ["--no-autostart"]
    return f"{program} {shlex.join(['dial-stdio', *words])}"


class _Meaning(NamedTuple):
    message: str
    exit_code: ExitCode
    hint: str = ""


_BY_EXIT_STATUS = {
    2: _Meaning(
        "orbitctl on {host} does not know `dial-stdio`", ExitCode.PROTOCOL, "Bring orbitctl up to date on that machine."
    ),
    126: _Meaning("orbitctl on {host} cannot be executed", ExitCode.UNREACHABLE, "Look at it on that machine."),
    127: _Meaning(
        "there is no orbitctl on {host}, or not on the PATH of a shell without a login",
        ExitCode.UNREACHABLE,
        "Install it there, or say where it is: --remote-command '~/.local/bin/orbitctl'.",
    ),
    255: _Meaning(
        "ssh could not reach {host}, or lost it; its own words stand above",
        ExitCode.UNREACHABLE,
        "`ssh` must get there with the same user, host and port; {variable} can name another ssh or more options.",
    ),
}
"""ssh(1) ends with the far command's status, and with 255 where it failed itself; 126 and 127 are the far shell's."""
_OTHER = _Meaning("orbitctl on {host} could not reach its daemon; its own words stand above", ExitCode.UNREACHABLE)


class SshStream(SocketStream):
    """A stream to the daemon of another machine, through an ssh of our own.

    ssh tells of the far side's end when both directions have ended; the daemon never ends one alone.

    Args:
        host: The machine.
        dial: How to reach its daemon there.
        environ: The environment, which may name another ssh.
    """

    def __init__(self, host: Host, dial: Dial, environ: Mapping[str, str]) -> None:
        command = command_line(host, dial, environ)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                stderr = subprocess.DEVNULL if dial.quiet else None
                self._ssh = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=stderr)
            except OSError as error:
                ours.close()
                hint = f"Install OpenSSH's client (Debian: openssh-client), or name one in {SSH_VARIABLE}."
                raise Unreachable(f"cannot run {command[0]}: {error.strerror}", hint=hint) from error
        super().__init__(ours)
        self._ending = ProcessWatch(self._ssh.pid)
        self._host = host
        self._has_spoken = False

    def receive(self, timeout: float) -> bytes:
        """Return the bytes that came, none at the end.

        Raises:
            TimeoutError, OSError: As `SocketStream.receive` does.
            CommandError: ssh has ended; the message has its reason.
        """
        try:
            data = super().receive(timeout)
        except ConnectionResetError:  # it ended before it had read all that we sent
            data = b""
        if not data:
            self._explain_end()
        elif not self._has_spoken:
            self._check_first(data)
        return data

    def close(self) -> None:
        """Close it and let ssh end: in good order, since other connections may share it (ControlMaster)."""
        super().close()
        for push in (None, self._ssh.terminate, self._ssh.kill):
            if push is not None:
                push()
            if self._ending.wait(_GRACE_SECONDS):
                break
        self._ssh.wait()
        self._ending.close()

    def _explain_end(self) -> None:
        if not self._ending.wait(_GRACE_SECONDS) or (status := self._ssh.wait()) == 0:
            return
        message, exit_code, hint = _BY_EXIT_STATUS.get(status if status > 0 else 255, _OTHER)
        if exit_code is ExitCode.UNREACHABLE:
            raise Unreachable(message.format(host=self._host.name), hint=hint.format(variable=SSH_VARIABLE))
        raise CommandError(message.format(host=self._host.name), exit_code, hint=hint)

    def _check_first(self, data: bytes) -> None:
        """Refuse what no daemon says: a far shell's startup files that print something come first."""
        self._has_spoken = True
        if not data.startswith(b"{"):
            raise CommandError(
                f"{self._host.name} printed something before its orbitctl could speak: {data[:60]!r}",
                ExitCode.PROTOCOL,
                hint="Let its shell's startup files print nothing where there is no terminal.",
            )
