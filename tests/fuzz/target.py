"""The daemon under fuzzing: conversations with it, whether it lives, and what it weighs."""

from __future__ import annotations

import json
import os
import random
import select
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from fuzz.grammar import World
from support import WAIT_SECS, DaemonProcess

FACTOR = int(os.environ.get("ORBIT_FUZZ_FACTOR", "1"))
COUNTS = os.environ.get("ORBIT_FUZZ_COUNTS")
MAX_PEAK_KIB = 160 * 1024


def bounded(examples: int) -> settings:
    """Return settings for a property: the same examples each time in the suite, new ones in the long mode."""
    return settings(
        max_examples=examples * FACTOR,
        deadline=None,
        derandomize=FACTOR == 1,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@dataclass(frozen=True)
class Target:
    """A daemon that serves, what it holds, and its limit of bytes a message."""

    daemon: DaemonProcess
    world: World
    max_message_bytes: int

    def converse(self, streams: list[bytes], seed: int) -> list[list[Any]]:
        """Send each stream on a connection of its own, cut anywhere and mixed; return what came on each.

        Every connection is shut down after its last byte, so all answers are followed by the end of the stream.
        """
        count("messages", sum(stream.count(b"\n") for stream in streams))
        count("connections", len(streams))
        connections = [_Connection(self.daemon.socket_path, stream) for stream in streams]
        try:
            _exchange(connections, random.Random(seed))
        finally:
            for connection in connections:
                connection.socket.close()
        return [[json.loads(line) for line in one.received.splitlines()] for one in connections]

    def assert_well(self) -> None:
        """Check that it is still the same process, that it answers, and that it never grew beyond its bound."""
        with self.daemon.client() as client:
            assert client.call("daemon.info")["pid"] == self.daemon.pid
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        assert peak < MAX_PEAK_KIB


class _Connection:
    def __init__(self, path: Path, stream: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self.unsent = memoryview(stream)
        self.received = b""
        self.is_open = True
        self.writes = True

    def send_some(self, most: int) -> None:
        """Send a piece; after the last one, say that no more comes."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent[:most]) :] if self.unsent else self.unsent
            if not self.unsent:
                self.socket.shutdown(socket.SHUT_WR)
                self.writes = False
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            if isinstance(error, BlockingIOError):
                return
            self.writes = False  # cut off after a message over the limit

    def receive_some(self) -> None:
        """Take what came; note the end."""
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        self.received += data
        self.is_open = bool(data)


def _exchange(connections: list[_Connection], chance: random.Random) -> None:
    """Send and read until every connection has been closed by the daemon; a silence of WAIT_SECS is a hang."""
    by_socket = {connection.socket: connection for connection in connections}
    while reading := [connection.socket for connection in connections if connection.is_open]:
        writing = [one for one in reading if by_socket[one].writes]
        readable, writable, _ = select.select(reading, writing, [], WAIT_SECS)
        assert readable or writable, f"hung; received so far: {[one.received[-500:] for one in connections]}"
        for one in readable:
            by_socket[one].receive_some()
        for one in writable:
            by_socket[one].send_some(chance.choice([1, 7, 64, 4096, 1 << 16]))


def count(what: str, number: int) -> None:
    """Note how much was tried, where the long mode asks for it."""
    if COUNTS:
        with open(COUNTS, "a") as file:
            file.write(f"{what} {number}\n")
