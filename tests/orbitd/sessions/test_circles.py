"""Where a client sits, and which attach would make a session show itself."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import subprocess
import sys
from typing import cast

import pytest

from needs import needs
from orbit_protocol.errors import NotRunning, WouldLoop
from orbitd.rpc.connection import PeerProcess
from orbitd.sessions.circles import Process, Programs, find_circle, read_process, sessions_of
from sessions_support import Client, Sessions

PROGRAMS = Programs(by_pid={100: "a", 200: "b"}, by_terminal={1: "a", 2: "b"})
INIT = Process()
SHELL = Process(parent=90, leader=100, terminals=frozenset({1}))


def place(*processes: Process, connected_at: float = 50.0) -> frozenset[str]:
    """Return where the first of some processes sits; each one's parent is the next, and the last one's is init."""
    table = dict(enumerate(processes, 1000))
    return sessions_of(PeerProcess(pid=1000, connected_at=connected_at), PROGRAMS, ({1: INIT} | table).get)


@pytest.mark.parametrize(
    ("processes", "found"),
    [
        ([Process(parent=1001, leader=100, terminals=frozenset({1})), SHELL], {"a"}),
        ([Process(parent=1, leader=100)], {"a"}),
        ([Process(parent=1, leader=1000, terminals=frozenset({1}))], {"a"}),
        ([Process(parent=1001, leader=1000, terminals=frozenset({7})), SHELL], {"a"}),
        ([Process(parent=1001, leader=7), Process(parent=1002, leader=7), Process(parent=1, leader=7)], set()),
        ([Process(parent=1001, leader=7), Process(parent=1, leader=7, terminals=frozenset({1, 2, 9}))], {"a", "b"}),
        ([Process(parent=1001, leader=200, terminals=frozenset({2})), SHELL], {"b"}),
        ([Process(parent=1, leader=1000, variable="a")], {"a"}),
        ([Process(parent=1, leader=1000, variable="of another daemon")], set()),
        ([Process(parent=1001, leader=7)], set()),
        ([], set()),
    ],
    ids=[
        "a child of the shell",
        "its parent has ended",
        "a process with a POSIX session of its own writes to the terminal",
        "a terminal in the terminal",
        "a terminal of somebody else",
        "a multiplexer that two sessions show",
        "the nearest session",
        "a terminal that only the environment tells",
        "a terminal of another daemon",
        "a parent that has just ended",
        "a process that has ended",
    ],
)
def test_a_client_sits_where_its_processes_say(processes: list[Process], found: set[str]) -> None:
    """The nearest process counts that is in a program's POSIX session, or has a program's terminal open."""
    assert place(*processes) == found


def test_another_process_with_the_same_pid_is_not_taken_for_the_client() -> None:
    """A process that was started after the connection had been made has only got the pid of the one that made it."""
    shell = Process(parent=1, leader=100, started_at=50.0)
    assert place(shell, connected_at=50.0) == {"a"}
    assert place(shell, connected_at=49.9) == set()


def test_parents_that_go_round_end() -> None:
    """A table of processes that changes while it is read, so that it has no end, ends the search."""
    assert place(Process(parent=1001), Process(parent=1000)) == set()


@pytest.mark.parametrize(
    ("asked", "sits_in", "shows", "circle"),
    [
        ("a", {"a"}, {}, ["a"]),
        ("b", {"a"}, {}, []),
        ("a", {"b"}, {"a": {"b"}}, ["a", "b"]),
        ("a", {"c"}, {"a": {"b"}, "b": {"c"}}, ["a", "b", "c"]),
        ("b", {"c"}, {"a": {"b"}}, []),
        ("b", {"a"}, {"a": {"b"}}, []),
        ("a", {"x", "c"}, {"a": {"b", "x"}, "b": {"c"}}, ["a", "x"]),
        ("a", {"z"}, {"a": {"b"}, "b": {"c"}, "c": {"b"}}, []),
    ],
)
def test_a_circle_is_found(asked: str, sits_in: set[str], shows: dict[str, set[str]], circle: list[str]) -> None:
    """What a session shows is followed, and what that shows; the shortest way back is the circle."""
    assert find_circle(asked, sits_in, shows) == circle


def test_a_chain_of_a_thousand_sessions_is_followed() -> None:
    """A long chain needs no recursion."""
    shows = {str(number): {str(number + 1)} for number in range(1000)}
    assert len(find_circle("0", {"1000"}, shows)) == 1001


# The kernel's side


@needs(linux=True)
def test_a_process_is_read_from_the_kernel() -> None:
    """Parent, POSIX session, start and open terminals are those of a process that runs; one that has ended is None."""
    ours, theirs = socket.socketpair()
    before = PeerProcess.of(ours)
    master, terminal = pty.openpty()
    number = int(os.ttyname(terminal).rpartition("/")[2])
    with subprocess.Popen(["sleep", "1000"], stdout=terminal, start_new_session=True) as program:
        os.close(terminal)
        found = read_process(program.pid)
        assert found is not None
        assert (found.parent, found.leader, number in found.terminals) == (os.getpid(), program.pid, True)
        assert abs(found.started_at - before.connected_at) < 20
        program.kill()
    assert read_process(program.pid) is None
    os.close(master)
    ours.close()
    theirs.close()


HOLD_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
held = os.open("/dev/tty", os.O_RDWR)
os.closerange(0, 1), os.closerange(2, 3)
if sys.argv[1] == "leave" and os.fork() == 0:
    os.setsid()
print(os.getpid(), flush=True)
os.read(held, 1)
"""


@needs(linux=True)
@pytest.mark.parametrize(("step", "variable"), [("leave", "one"), ("stay", "")])
def test_the_environment_counts_for_a_terminal_without_a_name(step: str, variable: str) -> None:
    """ORBIT_SESSION is read of a process that has left the terminal that it holds as /dev/tty, and of no other."""
    master, terminal = pty.openpty()
    command = [sys.executable, "-c", HOLD_TERMINAL, step]
    env = {"ORBIT_SESSION": "one"}
    with subprocess.Popen(command, stdin=terminal, stdout=-1, start_new_session=True, env=env) as program:
        os.close(terminal)
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        while step == "leave" and pid == program.pid:
            pid = int(program.stdout.readline())
        found = read_process(pid)
        assert found is not None
        assert (found.variable, found.terminals) == (variable, frozenset())
        os.kill(pid, signal.SIGKILL)
        program.kill()
    os.close(master)


def test_the_peer_of_a_connection_is_known() -> None:
    """The kernel says which process has made a connection."""
    ours, theirs = socket.socketpair()
    assert PeerProcess.of(ours).pid == os.getpid()
    ours.close()
    theirs.close()


def test_the_peer_of_a_connection_is_known_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the pid is asked for by LOCAL_PEERPID (2) of SOL_LOCAL (0), an int."""

    class Accepted:
        def getsockopt(self, *asked: int) -> bytes:
            assert asked == (0, 2, 4)
            return (4242).to_bytes(4, sys.byteorder)

    monkeypatch.setattr("sys.platform", "darwin")
    assert PeerProcess.of(cast(socket.socket, Accepted())).pid == 4242


def test_without_proc_the_posix_session_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without /proc, the POSIX session of the client itself is what is known."""
    monkeypatch.setattr("sys.platform", "darwin")
    assert read_process(os.getpid()) == Process(leader=os.getsid(0))
    assert read_process(2**30) is None


# Attaching


class Processes:
    """What the kernel says of the clients' processes; each sits in one session."""

    def __init__(self, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sessions = sessions
        self._table: dict[int, Process] = {}
        monkeypatch.setattr("orbitd.sessions.circles.read_process", self._table.get)

    def client(self, sits_in: str, pid: int = 0, *, read_only: bool = False) -> Client:
        """Return a client that sits in a session."""
        client = self._sessions.client(read_only=read_only)
        pid = pid or 5000 + len(self._table)
        self.move(pid, sits_in)
        client.connection.peer = PeerProcess(pid=pid, connected_at=1.0)
        return client

    def move(self, pid: int, sits_in: str) -> None:
        """Let a process sit elsewhere."""
        live = self._sessions.registry.get(sits_in)
        self._table[pid] = Process(leader=live.pid if live else 7)


@pytest.fixture
async def processes(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Three sessions that run, and whatever clients a test wants."""
    for pid, name in enumerate("abc", 100):
        (await sessions.run(name)).pid = pid
    return Processes(sessions, monkeypatch)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_ring_of_three_is_refused_at_its_end(processes: Processes, read_only: bool) -> None:
    """A shows B, and B shows C; C may not show A, also not read-only. What closes no circle still may be attached."""
    await processes.client("a").attach("b")
    await processes.client("b").attach("c")
    with pytest.raises(WouldLoop) as refused:
        await processes.client("c", read_only=read_only).attach("a")
    assert refused.value.data()["sessions"] == ["a", "b", "c"]
    await processes.client("").attach("a")
    await processes.client("a").attach("c")


async def test_two_that_show_the_same_are_no_circle(processes: Processes) -> None:
    """A and C may show B, and A twice."""
    for sits_in in ("a", "a", "c"):
        await processes.client(sits_in).attach("b")


async def test_a_client_that_has_left_shows_nothing(processes: Processes) -> None:
    """Once the client in A has left B, B may show A."""
    client = await processes.client("a").attach("b")
    with pytest.raises(WouldLoop):
        await processes.client("b").attach("a")
    client.connection.close()
    await processes.client("b").attach("a")


async def test_two_attaches_at_once_close_no_circle(processes: Processes) -> None:
    """Of two clients that ask at the same moment, one in A for B and one in B for A, one is refused."""
    ways = [processes.client("a").attach("b"), processes.client("b").attach("a")]
    answers = await asyncio.gather(*ways, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Client, WouldLoop}


async def test_a_client_that_sits_elsewhere_now_counts_where_it_is(processes: Processes) -> None:
    """A multiplexer that showed B nowhere here is shown by A now: in B, A is refused."""
    await processes.client("", 6000).attach("b")
    await (client := processes.client("b")).attach("a")
    client.connection.close()
    processes.move(6000, "a")
    with pytest.raises(WouldLoop):
        await processes.client("b").attach("a")


async def test_a_client_that_goes_while_it_is_looked_for_leaves_nothing(
    sessions: Sessions, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has hung up before it is known where it sits is not attached."""
    client = processes.client("")

    def read(_: int) -> Process | None:
        client.connection.close()
        return None

    monkeypatch.setattr("orbitd.sessions.circles.read_process", read)
    with pytest.raises(NotRunning):
        await client.attach("a")
    live = sessions.registry.get("a")
    assert live is not None
    assert live.attachments == []
