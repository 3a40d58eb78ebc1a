"""`orbitctl dial-stdio`, the far end, by itself: each direction ends alone, and it ends when it should."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctl_support import Orbitctl, Peer
from support import WAIT_SECS

Talk = Callable[[socket.socket], None]


class Dialled:
    """A running dial-stdio, and the two ends that a client holds.

    Args:
        ctl: The command line that runs it.
        sockets: Whether it is given one socket for both directions, as some sshd do, instead of two pipes.
    """

    def __init__(self, ctl: Orbitctl, *, sockets: bool) -> None:
        command = [sys.executable, "-m", "orbitctl", "dial-stdio", "--no-autostart"]
        if sockets:
            ours, theirs = socket.socketpair()
            with theirs:
                self.process = subprocess.Popen(command, env=ctl.environment, cwd=ctl.home, stdin=theirs, stdout=theirs)
            self.reader = ours.detach()
            self.writer = os.dup(self.reader)
        else:
            near_in, self.writer = os.pipe()
            self.reader, near_out = os.pipe()
            self.process = subprocess.Popen(command, env=ctl.environment, cwd=ctl.home, stdin=near_in, stdout=near_out)
            os.close(near_in)
            os.close(near_out)
        self.sockets = sockets

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.writer, rest) :]

    def end_sending(self) -> None:
        if self.sockets:
            with socket.socket(fileno=os.dup(self.writer)) as shared:
                shared.shutdown(socket.SHUT_WR)
        self.writer = _closed(self.writer)

    def vanish(self) -> None:
        """Stop reading; with one socket for both directions, that is the end of both."""
        self.reader = _closed(self.reader)
        if self.sockets:
            self.writer = _closed(self.writer)

    def read(self) -> bytes:
        """Return all that comes until the end."""
        data = b""
        while more := os.read(self.reader, 1 << 16):
            data += more
        return data

    def wait(self) -> int:
        return self.process.wait(WAIT_SECS)

    def close(self) -> None:
        self.reader, self.writer = _closed(self.reader), _closed(self.writer)
        self.process.kill()
        self.process.wait(WAIT_SECS)


def _closed(descriptor: int) -> int:
    """Close a descriptor, unless it is closed, and return what stands for a closed one."""
    if descriptor >= 0:
        os.close(descriptor)
    return -1


@pytest.fixture(params=[False, True], ids=["pipes", "socket"])
def dial(request: pytest.FixtureRequest, home: Path) -> Iterator[Callable[[Talk], Dialled]]:
    """Return a function that lets a scripted daemon serve, and dials it."""
    ctl, made = Orbitctl(home), []

    def start(talk: Talk) -> Dialled:
        folder = home / "run" / "orbit"
        folder.mkdir(mode=0o700)
        made.append(Peer(folder / "orbitd.sock", talk))
        made.insert(0, Dialled(ctl, sockets=request.param))
        return made[0]

    yield start
    for one in made:
        one.close()


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while more := connection.recv(1 << 16):
        data += more
    return data


def test_the_client_may_end_first(dial: Callable[[Talk], Dialled]) -> None:
    """The end of stdin reaches the daemon as an end of its own, and the answer still comes back."""
    dialled = dial(lambda connection: connection.sendall(b"you said " + read_all(connection)))
    dialled.send(b"hello")
    dialled.end_sending()
    assert dialled.read() == b"you said hello"
    assert dialled.wait() == 0


def test_the_daemon_may_end_first(dial: Callable[[Talk], Dialled]) -> None:
    """The end of what the daemon sends ends stdout at once, and it still gets what the client sends later."""
    heard: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"enough")
        connection.shutdown(socket.SHUT_WR)
        heard.append(read_all(connection))

    dialled = dial(talk)
    assert dialled.read() == b"enough"
    dialled.send(b"but I")
    dialled.end_sending()
    assert dialled.wait() == 0
    assert heard == [b"but I"]


def test_a_daemon_that_closes_ends_it(dial: Callable[[Talk], Dialled]) -> None:
    """When the daemon has closed altogether nothing waits for the client's end."""
    dialled = dial(lambda connection: connection.sendall(b"bye"))
    assert dialled.read() == b"bye"
    assert dialled.wait() == 0


def test_a_client_that_vanishes_ends_it(dial: Callable[[Talk], Dialled]) -> None:
    """When nobody reads any more it ends, though the daemon has nothing to say, and the daemon sees the end."""
    ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        with contextlib.suppress(ConnectionResetError):
            read_all(connection)
        ended.set()

    dialled = dial(talk)
    assert os.read(dialled.reader, 5) == b"hello"
    dialled.vanish()
    assert dialled.wait() == 0
    assert ended.wait(WAIT_SECS)


def test_much_passes_both_ways_at_once(dial: Callable[[Talk], Dialled]) -> None:
    """5 MB in each direction at the same time arrive whole, through buffers that hold a fraction of it."""

    def echo(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    dialled, blob = dial(echo), os.urandom(5_000_000)

    def send() -> None:
        dialled.send(blob)
        dialled.end_sending()

    sender = threading.Thread(target=send)
    sender.start()
    assert dialled.read() == blob
    sender.join(WAIT_SECS)
    assert dialled.wait() == 0


def test_its_errors_are_text_on_stderr(home: Path) -> None:
    """Where the daemon cannot be reached: exit 3, words on stderr, and not a byte on stdout."""
    ended = Orbitctl(home)("dial-stdio", "--no-autostart")
    assert (ended.code, ended.out) == (3, b"")
    assert ended.err.startswith(f"error: on {os.uname().nodename}: no daemon is running")


def test_a_bad_configuration_does_not_look_like_an_old_orbitctl(home: Path) -> None:
    """What would be exit 2 on the far side is exit 3 here, since 2 means that dial-stdio is not known."""
    config = home / ".config" / "orbit" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("nonsense = 1\n")
    ended = Orbitctl(home)("dial-stdio")
    assert ended.code == 3
    assert "nonsense" in ended.err


def test_it_is_hidden(home: Path) -> None:
    """It is for ssh, not for people: the help does not list it."""
    assert "dial-stdio" not in Orbitctl(home).ok("--help").text
