"""The stream to a daemon of another machine, over the user's own ssh.

`ssh HOST orbitctl dial-stdio` connects our stream to the remote daemon's socket: ssh authenticates,
and the remote socket stays private. ssh asks for passwords and unknown host keys on the terminal by
itself, and writes its own errors to our stderr; so does `dial-stdio`. What is left here is to name the
host, and to turn ssh's exit status into a message. Nothing reaches a shell unquoted but
`--remote-command`, which is meant for the remote shell.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from orbit_protocol.types import check_ssh_words
from orbitctl.client.process_watch import ProcessWatch
from orbitctl.client.transport import SocketStream, Unreachable
from orbitctl.errors import CommandError, ExitCode

SSH_VARIABLE = "ORBITCTL_SSH"
COMMAND_VARIABLE = "ORBITCTL_REMOTE_COMMAND"
LOCAL = "local"
"""The `--host` that is this machine, to list it among others."""

_OPTIONS = (
    # No terminal, no X11, no agent; and no escape character, which would end the connection at "~." in the data.
    *("-T", "-x", "-a", "-e", "none"),
    # Settings of the user's ssh_config that are for shells: a forwarding fails where another ssh has its port.
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)
_GRACE_SECONDS = 2.0
"""How long ssh may take to exit after the end of its stream; then it is sent SIGTERM, then SIGKILL."""
_URL = re.compile(r"ssh://(?:(?P<user>[^/]*)@)?(?P<host>\[[^\]/]*\]|[^/:\[\]@]*)(?::(?P<port>[^/]*))?/?")


class Host(Struct, frozen=True, kw_only=True):
    """A machine. `name` is as the user wrote it; an empty `address` means this machine."""

    name: str
    address: str = ""
    user: str | None = None
    port: int | None = None

    @property
    def label(self) -> str:
        """Its name in a table."""
        return self.name.removeprefix("ssh://").rstrip("/")


def parse_host(text: str) -> Host:
    """Return the host of `ssh://[user@]host[:port]` or `local`. Raises: ValueError."""
    if text == LOCAL:
        return Host(name=text)
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not ssh://[user@]host[:port]")
    address = found["host"].removeprefix("[").removesuffix("]")
    if ":" in (found["user"] or ""):
        raise ValueError(f"{text!r} has a password in it, which ssh does not take")
    check_ssh_words(address, found["user"])
    return Host(name=text, address=address, user=found["user"], port=_port(found["port"]))


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise ValueError(f"{text!r} is no port (1 to 65535)")
    return int(text)


class Dial(Struct, frozen=True, kw_only=True):
    """How to reach the remote daemon; what is None is left to the remote machine.

    Attributes:
        remote_command: What runs orbitctl there, for the remote shell.
        socket: The path of its socket there.
        autostart: Whether it is started if it does not run.
        quiet: Whether ssh may ask for nothing and print nothing, as while a shell completes a word.
    """

    remote_command: str | None = None
    socket: str | None = None
    autostart: bool = True
    quiet: bool = False


def command_line(host: Host, dial: Dial, environ: Mapping[str, str]) -> list[str]:
    """Return the ssh command whose stdin and stdout are connected to a host's daemon. Raises: CommandError."""
    try:
        ssh = shlex.split(environ.get(SSH_VARIABLE) or "ssh")
    except ValueError as error:
        raise CommandError(f"{SSH_VARIABLE} is no command: {error}", ExitCode.USAGE) from error
    ssh = ssh or ["ssh"]  # blanks name no command, as nothing does
    port = ["-p", str(host.port)] if host.port is not None else []
    user = ["-l", host.user] if host.user is not None else []
    batch = ["-o", "BatchMode=yes"] if dial.quiet else []
    return [*ssh, *_OPTIONS, *batch, *port, *user, "--", host.address, _remote_command(dial, environ)]


def _remote_command(dial: Dial, environ: Mapping[str, str]) -> str:
    program = dial.remote_command or environ.get(COMMAND_VARIABLE, "").strip() or "orbitctl"
    options = [] if dial.socket is None else [f"--socket={dial.socket}"]
    options += [] if dial.autostart else ["--no-autostart"]
    # sshd has the user's login shell run this as one string (ssh(1)), so each word is quoted, and the program is not.
    return f"{program} {shlex.join(['dial-stdio', *options])}"


class _SshError(NamedTuple):
    message: str
    exit_code: ExitCode
    hint: str = ""


_ERRORS_BY_STATUS = {
    2: _SshError(
        "orbitctl on {host} does not know `dial-stdio`", ExitCode.PROTOCOL, "Bring orbitctl up to date on that machine."
    ),
    126: _SshError("orbitctl on {host} cannot be executed", ExitCode.UNREACHABLE, "Check its mode there."),
    127: _SshError(
        "there is no orbitctl on {host}, or not on the PATH of a shell without a login",
        ExitCode.UNREACHABLE,
        "Install it there, or say where it is: --remote-command '~/.local/bin/orbitctl'.",
    ),
    255: _SshError(
        "ssh could not reach {host}, or lost it; its own message is above",
        ExitCode.UNREACHABLE,
        "`ssh` must work with the same user, host and port; {variable} can name another ssh or more options.",
    ),
}
"""ssh(1) exits with the remote command's status, or with 255 after an error of its own; 126 and 127 are the remote
shell's."""
_OTHER = _SshError("orbitctl on {host} could not reach its daemon; its own message is above", ExitCode.UNREACHABLE)


class SshStream(SocketStream):
    """A stream to the daemon of another machine, through an ssh process that belongs to it.

    ssh exits when both directions have ended; the daemon never ends one alone.

    Args:
        host: The machine.
        dial: How to reach its daemon there.
        environ: The environment, which may name another ssh.
    """

    def __init__(self, host: Host, dial: Dial, environ: Mapping[str, str]) -> None:
        command = command_line(host, dial, environ)
        # A pair of sockets, not two pipes: the client waits on one descriptor in both directions. ssh gets the other
        # end as stdin and stdout; ours is not inherited, so that ssh sees its end when we close it.
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
        self._watch = ProcessWatch(self._ssh.pid)
        self._host = host
        self._has_received = False

    def receive(self, timeout: float) -> bytes:
        """Return the bytes that came, none at the end.

        Raises:
            TimeoutError, OSError: As `SocketStream.receive` does.
            CommandError: ssh has failed; the message says how.
        """
        try:
            data = super().receive(timeout)
        except ConnectionResetError:  # ssh has ended with bytes of ours unread
            data = b""
        if not data:
            self._raise_exit_error()
        elif not self._has_received:
            self._check_first_byte(data)
        return data

    def close(self) -> None:
        """Close the stream, and wait for ssh to exit.

        It is given the time to do so by itself: other connections may share it (ControlMaster).
        """
        super().close()
        for force in (None, self._ssh.terminate, self._ssh.kill):
            if force is not None:
                force()
            if self._watch.wait(_GRACE_SECONDS):
                break
        self._ssh.wait()  # reaps it
        self._watch.close()

    def _raise_exit_error(self) -> None:
        # The end of the stream can come before the end of the process, whose status has the reason. The watch has a
        # timeout without polling, which Popen.wait has not.
        if not self._watch.wait(_GRACE_SECONDS) or (status := self._ssh.wait()) == 0:
            return
        message, exit_code, hint = _ERRORS_BY_STATUS.get(status if status > 0 else 255, _OTHER)
        if exit_code is ExitCode.UNREACHABLE:
            raise Unreachable(message.format(host=self._host.name), hint=hint.format(variable=SSH_VARIABLE))
        raise CommandError(message.format(host=self._host.name), exit_code, hint=hint)

    def _check_first_byte(self, data: bytes) -> None:
        """Refuse output that is not the daemon's, such as what the remote shell's startup files print."""
        self._has_received = True
        if not data.startswith(b"{"):
            raise CommandError(
                f"{self._host.name} printed something before its orbitctl could speak: {data[:60]!r}",
                ExitCode.PROTOCOL,
                hint="The startup files of its shell must print nothing where there is no terminal.",
            )
