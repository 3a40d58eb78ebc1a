"""What the keeper's tests share: a keeper process, a raw peer of it, and waits for events."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbitd.keeper.client import KeeperClient, KeeperGone, KeptProgram, SpawnRequest, start_keeper
from orbitd.keeper.messages import Framer, Message, Value, encode

SECONDS = 20
"""The longest wait for anything; none is expected to take a hundredth of it."""

HOME_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/"}

OLDER = """
import sys
sys.path[:0] = sys.argv[2:]
from orbitd.keeper import server
del server.HANDLERS["memory"]
from orbitd.keeper.daemonize import main
main(sys.argv[1])
"""
"""A keeper of before there was memory, as `python -c`: the socket, then where its modules are."""


def open_files() -> set[str]:
    """Return the numbers of the descriptors that this process has open; garbage of other tests has none any more."""
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


class Peer:
    """A raw connection to a keeper."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self.descriptors: list[int] = []
        self._framer = Framer()
        self._messages: list[Message] = []

    def send(self, kind: str, *fields: tuple[str, Value]) -> None:
        self.sock.sendall(encode(kind, *fields))

    def receive(self) -> Message:
        """Return the next message; its descriptors are added to `descriptors`."""
        while not self._messages:
            data, descriptors, _, _ = socket.recv_fds(self.sock, 65536, 16)
            if not data:
                raise EOFError
            self.descriptors += descriptors
            self._messages += self._framer.receive(data)
        return self._messages.pop(0)

    def ask(self, kind: str, *fields: tuple[str, Value]) -> Message:
        self.send(kind, *fields)
        return self.receive()

    def hello(self) -> Peer:
        assert self.ask("hello", ("version", 1)).kind == "ok"
        return self

    def at_end(self) -> bool:
        """Wait until the keeper closes the connection; whatever it says before is passed over."""
        with contextlib.suppress(ConnectionResetError):
            while self.sock.recv(65536):
                pass
        return True

    def close(self) -> None:
        self.sock.close()
        while self.descriptors:
            os.close(self.descriptors.pop())

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class KeeperProcess:
    """A real keeper of one socket path, and everything that was opened to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._peers: list[Peer] = []
        self._orbitds: list[Orbitd] = []

    def start(self) -> None:
        start_keeper(self.path)

    def peer(self) -> Peer:
        peer = Peer(self.path)
        self._peers.append(peer)
        return peer

    async def orbitd(self) -> Orbitd:
        orbitd = Orbitd()
        await orbitd.connect_or_start(self.path)
        self._orbitds.append(orbitd)
        return orbitd

    def greet(self) -> int:
        """Say hello as an orbitd that stays connected; return the keeper's pid."""
        return self.peer().ask("hello", ("version", 1)).number("pid")

    def kill(self) -> None:
        """End the keeper, whatever its state, and every program that it has."""
        with contextlib.suppress(OSError), Peer(self.path) as peer:
            keeper_pid = peer.ask("hello", ("version", 1)).number("pid")
            peer.send("list", ("seq", 2))
            while (message := peer.receive()).kind != "ok":
                if message.kind == "program" and not message.value("ended_at", b""):
                    with contextlib.suppress(ProcessLookupError):  # it has ended this moment
                        os.kill(message.number("pid"), signal.SIGKILL)
            watch = ProcessWatch(keeper_pid)
            os.kill(keeper_pid, signal.SIGKILL)
            watch.wait()
        for orbitd in self._orbitds:
            orbitd.close()
        for peer in self._peers:
            peer.close()


class Orbitd:
    """An orbitd's side: the real client, and what it was told."""

    def __init__(self) -> None:
        self.exits: asyncio.Queue[KeptProgram] = asyncio.Queue()
        self.gone: asyncio.Future[KeeperGone] = asyncio.get_running_loop().create_future()
        self.masters: list[int] = []
        self._client: KeeperClient | None = None

    @property
    def client(self) -> KeeperClient:
        assert self._client is not None
        return self._client

    async def connect_or_start(self, path: str) -> None:
        self._client = await KeeperClient.connect_or_start(
            path, on_exit=self.exits.put_nowait, on_gone=self.gone.set_result
        )

    async def spawn(self, *command: str, **changes: object) -> tuple[int, int]:
        """Start a program; return its pid and master."""
        spawned = await self.client.spawn(request(*command, **changes))
        self.masters.append(spawned.master_fd)
        return spawned.pid, spawned.master_fd

    async def take(self, program_id: str) -> int:
        self.masters.append(await self.client.take(program_id))
        return self.masters[-1]

    async def exit(self) -> KeptProgram:
        """Return the next exit that is told."""
        return await asyncio.wait_for(self.exits.get(), SECONDS)

    def close_masters(self) -> None:
        while self.masters:
            os.close(self.masters.pop())

    def close(self) -> None:
        if self._client is not None:
            with contextlib.suppress(RuntimeError):  # the test's loop is closed already
                self._client.close()
        self.close_masters()


class ProcessWatch:
    """Waits for the end of a process that is not ours; made while it lives."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def wait(self) -> None:
        readable, _, _ = select.select([self._descriptor], [], [], SECONDS)
        os.close(self._descriptor)
        assert readable, "the process lives on"


def request(*command: str, **changes: object) -> SpawnRequest:
    """Return a request for a command found on the PATH, with some fields changed; strings are made bytes."""
    fields: dict[str, Any] = {
        "id": "one",
        "file": command[0],
        "argv": command,
        "env": HOME_ENVIRONMENT,
        "folders": ("/",),
        "cols": 80,
        "rows": 24,
        "umask": 0o022,
        **changes,
    }
    fields["file"], fields["folders"] = os.fsencode(fields["file"]), tuple(map(os.fsencode, fields["folders"]))
    fields["argv"] = tuple(map(os.fsencode, fields["argv"]))
    fields["env"] = {os.fsencode(name): os.fsencode(value) for name, value in fields["env"].items()}
    return SpawnRequest(**fields)


def read_until(master: int, marker: bytes) -> bytes:
    """Read a terminal until a text has appeared."""
    seen = b""
    while marker not in seen:
        readable, _, _ = select.select([master], [], [], SECONDS)
        assert readable, f"only {seen!r}"
        seen += os.read(master, 65536)
    return seen


def read_to_end(master: int) -> bytes:
    """Read a terminal until its last program has closed it."""
    seen = b""
    with contextlib.suppress(OSError):  # EIO is how Linux tells
        while data := os.read(master, 65536):
            seen += data
    return seen


def proc_file(pid: int, name: str) -> str:
    """Return /proc/PID/NAME."""
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")


def status_of(pid: int) -> Mapping[str, str]:
    """Return the fields of /proc/PID/status."""
    fields = (line.partition(":") for line in proc_file(pid, "status").splitlines())
    return {name: value.strip() for name, _, value in fields}
