"""A keeper without descriptors, processes or memory: it refuses by name, loses no descriptor, and never ends."""

from __future__ import annotations

import errno
import os
import resource
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import ModuleType

import pytest

import orbitd.keeper.server
from keeper_support import SECONDS, KeeperProcess, Orbitd, Peer, open_files, request
from live.screens_processes import descriptors
from needs import needs
from orbit_protocol.errors import TooManySessions
from orbitd.keeper import program
from orbitd.keeper.messages import Message

ROOT = Path(orbitd.keeper.server.__file__).parents[2]
SPAWN = (("file", "/bin/cat"), ("argv", "cat"), ("cwd", "/"), ("cols", 80), ("rows", 24), ("umask", 0o22))

pytestmark = needs(linux=True)


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()], ids=["EMFILE", "memory"]
)
@pytest.mark.parametrize(
    ("module", "call"),
    [
        (os, "openpty"),
        (os, "pipe"),
        (termios, "tcsetwinsize"),
        (termios, "tcgetattr"),
        (termios, "tcsetattr"),
        (os, "fork"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_start_that_fails_anywhere(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, call: str, error: Exception
) -> None:
    """Whatever cannot be had for a program, everything that was opened for it is closed again."""
    before = open_files()
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise error

        patched.setattr(module, call, fail)
        with pytest.raises(type(error)):
            program.start_program(Message("spawn", [("rows", b"24"), ("cols", b"80")]))
    assert open_files() == before


@pytest.mark.parametrize(("rows", "cols"), [(-1, 80), (24, 70000), (24, 10**30)])
def test_a_size_that_no_terminal_has(rows: int, cols: int) -> None:
    """Python refuses it, and nothing stays open."""
    before = open_files()
    with pytest.raises((OverflowError, struct.error)):
        program.start_program(Message("spawn", [("rows", b"%d" % rows), ("cols", b"%d" % cols)]))
    assert open_files() == before


class Limited:
    """A keeper with one program and one orbitd, whose descriptors can be limited to those that it has and some more."""

    def __init__(self, keeper: KeeperProcess) -> None:
        self.peer = keeper.peer()
        self.pid = self.peer.ask("hello").number("pid")
        assert self.peer.ask("spawn", ("id", "first"), *SPAWN).kind == "ok"
        self.baseline = self.open()
        self._limits = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)

    def limit(self, spare: int) -> None:
        """Leave so many descriptors."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (self.baseline + spare, self._limits[1]))

    def unlimit(self) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self._limits)

    def forget(self, name: str) -> None:
        """End a program that was started."""
        assert self.peer.ask("signal", ("id", name), ("signal", 9), ("target", "program")).kind == "ok"
        assert self.peer.receive().kind == "exited"
        assert self.peer.ask("forget", ("id", name)).kind == "ok"

    def open(self) -> int:
        """Return how many descriptors the keeper has open, between two requests."""
        assert self.peer.ask("list").kind == "program"
        assert self.peer.receive().kind == "ok"
        return len(descriptors(self.pid))


@pytest.fixture
def limited(keeper: KeeperProcess) -> Limited:
    return Limited(keeper)


@pytest.mark.parametrize("spare", range(7))
def test_a_keeper_without_descriptors(limited: Limited, spare: int) -> None:
    """A start fails with EMFILE or succeeds; a hundred of them leave the keeper with the descriptors that it had."""
    limited.limit(spare)
    answers = set()
    for number in range(100):
        answer = limited.peer.ask("spawn", ("id", str(number)), *SPAWN)
        answers.add((answer.kind, answer.text("reason", ""), answer.text("errno", "")))
        if answer.kind == "ok":
            limited.forget(str(number))
    assert answers == {("error", "spawn_failed", str(errno.EMFILE))} if spare < 4 else {("ok", "", "")}
    assert limited.open() == limited.baseline
    limited.unlimit()
    assert limited.peer.ask("spawn", ("id", "last"), *SPAWN).kind == "ok"


@pytest.mark.parametrize("kind", ["take", "landing"])
def test_an_answer_without_a_descriptor(limited: Limited, kind: str) -> None:
    """A descriptor that cannot be sent is refused with its errno; nothing is lost, and it is had later."""
    limited.limit(0)
    for _ in range(10):
        answer = limited.peer.ask(kind, ("id", "first"))
        assert answer.kind == "error"
        assert "too many open files" in answer.text("words").lower()
    assert limited.open() == limited.baseline
    limited.unlimit()
    assert limited.peer.ask(kind, ("id", "first")).kind == "ok"


def test_a_connection_without_a_descriptor(limited: Limited, keeper: KeeperProcess) -> None:
    """It waits until there is one; the one that is served goes on meanwhile."""
    limited.limit(0)
    waiting = keeper.peer()
    waiting.send("hello", ("version", 1))
    for _ in range(3):
        assert limited.open() == limited.baseline
    limited.unlimit()
    assert waiting.receive().kind == "ok"
    assert limited.peer.receive().kind == "superseded"


def test_a_terminal_that_cannot_be_handed_out(stopped: KeeperProcess) -> None:
    """A program whose terminal nobody could have does not stay; the keeper does."""
    failing_once = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from orbitd.keeper import daemonize\n"
        "dup = os.dup\n"
        "def fail(descriptor):\n"
        "    os.dup = dup\n"
        "    raise OSError(24, 'Too many open files')\n"
        "os.dup = fail\n"
        "daemonize.main(sys.argv[1])"
    )
    command = [sys.executable, "-c", failing_once, stopped.path, str(ROOT), str(ROOT / "protocol")]
    subprocess.run(command, check=True, timeout=SECONDS)
    with Peer(stopped.path) as peer:
        pid = peer.ask("hello").number("pid")
        before = len(descriptors(pid))
        refused = peer.ask("spawn", ("id", "A"), *SPAWN)
        assert (refused.text("reason"), refused.number("errno")) == ("spawn_failed", errno.EMFILE)
        assert peer.ask("list").kind == "ok"
        assert len(descriptors(pid)) == before
        assert peer.ask("spawn", ("id", "A"), *SPAWN).kind == "ok"


async def test_the_client_says_what_is_used_up(orbitd: Orbitd) -> None:
    """The error names it, so that it can be told from a program that cannot be executed."""
    pid = orbitd.client.keeper_pid
    await orbitd.spawn("cat")
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Its first numbers are in use for as long as it lives; poll(2) takes no more descriptors than the limit allows.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, limits[1]))
    with pytest.raises(TooManySessions) as refused:
        await orbitd.client.spawn(request("cat", id="two"))
    assert refused.value.extra["resource"] == "descriptors"
    with pytest.raises(TooManySessions):
        await orbitd.client.take("one")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    await orbitd.spawn("cat", id="two")
