"""Other machines, as far as ssh can tell: a real sshd on the loopback for each, with a home of its own.

sshd gives every command that home as HOME and a PATH with an `orbitctl` in it. The near side
uses the real ssh, with a configuration of its own in which nothing of the user's is read.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from ctl_support import InProcess, Orbitctl
from needs import program
from support import WAIT_SECS, DaemonProcess, clean_environment

TRIES = 10

SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {home}/host_key
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile {home}/authorized_keys
SetEnv {environment}
"""

CLIENT = """
IdentityFile {home}/key
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {home}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
PasswordAuthentication no
KbdInteractiveAuthentication no
"""


def make_key(path: Path) -> str:
    """Make a key pair and return the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path.with_name(path.name + ".pub").read_text()


class Machine:
    """A machine with an sshd and, once it is wanted, an orbitd.

    Args:
        home: Its user's home.
        authorized: The public key that may come in.
    """

    def __init__(self, home: Path, authorized: str) -> None:
        self.home = home
        self.daemon = DaemonProcess(home)
        self.ctl = InProcess(home)
        self.host_key = make_key(home / "host_key")
        (home / "authorized_keys").write_text(authorized)
        self.program = home / "bin" / "orbitctl"
        self.install(f'exec {sys.executable} -m orbitctl "$@"')
        self.port, self._sshd = self._serve()

    @property
    def url(self) -> str:
        return f"ssh://127.0.0.1:{self.port}"

    @property
    def socket_path(self) -> Path:
        return self.daemon.socket_path

    def install(self, script: str) -> None:
        """Make the shell script that is `orbitctl` here."""
        self.program.parent.mkdir(exist_ok=True)
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)

    def connections(self) -> list[int]:
        """Return the processes of sshd that serve a connection each."""
        found = Path(f"/proc/{self._sshd.pid}/task/{self._sshd.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def close(self) -> None:
        self.daemon.end()
        self._sshd.terminate()
        assert self._sshd.stderr is not None
        self._sshd.stderr.close()
        self._sshd.wait(WAIT_SECS)

    def _serve(self) -> tuple[int, subprocess.Popen[str]]:
        """Start sshd on a port that is free, and wait until it listens."""
        if os.geteuid() == 0:  # made by the service of the package, where that is started
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        environment = clean_environment(self.home, PATH=f"{self.program.parent}:{os.environ['PATH']}")
        given = " ".join(f'"{name}={value}"' for name, value in environment.items())
        for _ in range(TRIES):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            config = self.home / "sshd_config"
            config.write_text(SERVER.format(port=port, home=self.home, environment=given))
            command = [program("sshd"), "-D", "-e", "-f", str(config)]
            sshd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            assert sshd.stderr is not None
            said = sshd.stderr.readline()
            if "Server listening" in said:
                return port, sshd
            said += sshd.stderr.read()
            sshd.stderr.close()
            sshd.wait(WAIT_SECS)
            assert "in use" in said, said
        raise AssertionError("no port is free")


class Near:
    """The machine that the user sits at: it knows the others' keys, and has one of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.public_key = make_key(home / "key")
        self.config = home / "ssh_config"
        self.config.write_text(CLIENT.format(home=home))
        self.ctl = Orbitctl(home, clean_environment(home, ORBITCTL_SSH=f"ssh -F '{self.config}'"))

    def trust(self, machine: Machine, key: str | None = None) -> None:
        """Know a machine by its key."""
        with (self.home / "known_hosts").open("a") as file:
            file.write(f"[127.0.0.1]:{machine.port} {key or machine.host_key}")
