"""Sessions in a circle: a shell of a session attaches to a session, in each way that a shell has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from attach_support import SHELL
from live.sessions import Terminal, start
from needs import require
from support import DaemonProcess, RawClient

ORBITCTL = f"{sys.executable} -m orbitctl"
STATUS_LINE = "[0] 0:bash"
REFUSED = "cannot be attached here: it would show itself"


class Shell(Terminal):
    """A session with a shell in it, and a client that looks at it from outside of all sessions."""

    def __init__(self, client: RawClient, name: str) -> None:
        self.name = name
        session_id = start(client, " ".join(SHELL))
        client.call("session.rename", id=session_id, name=name)
        super().__init__(client, session_id, (120, 40))
        self.session_id = session_id

    def run(self, line: str) -> None:
        self.type(line + "\r")

    def attach(self, other: Shell, way: str = "{}") -> None:
        """Attach to another session inside of this one."""
        line = way.format(f"{ORBITCTL} session attach {other.name} --detach-key ^q")
        self.run(f"{line}; echo le''ft {other.name}: $?")

    def clients(self) -> int:
        return int(self.client.call("session.get", id=self.session_id)["clients"])

    def wait_for_prompt(self, mark: str) -> None:
        """Wait until the shell that is shown here, of this session or of another one, has carried out a line."""
        self.run(f"echo {mark}''{mark}")
        self.read_until(f"{mark}{mark}\r\n")


@pytest.fixture
def shell(shared_daemon: DaemonProcess) -> Iterator[Callable[[str], Shell]]:
    """Starts sessions with a shell in them."""
    with ExitStack() as clients:
        yield lambda name: Shell(clients.enter_context(shared_daemon.client()), name)


WAYS = {
    "as a child": "{}",
    "without the variable": "env -u ORBIT_SESSION {}",
    "without any variable": 'env -i HOME="$HOME" XDG_RUNTIME_DIR="$XDG_RUNTIME_DIR" {}',
    "with a lie": "ORBIT_SESSION=0b1f7a6e-0000-4000-8000-000000000001 {}",
    "ignoring hang-ups": "nohup sh -c '{} < /dev/tty > /dev/tty 2>&1' 2> /dev/null",
    "in a POSIX session of its own": "setsid -w {}",
    "and its parent has ended": "setsid -f {}",
    "and its terminal is not named": "setsid -f {} < /dev/tty > /dev/tty 2>&1",
    "in a terminal in the terminal": "script -qc '{}' /dev/null",
    "read-only": "{} --read-only",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_session_is_not_attached_inside_itself(shell: Callable[[str], Shell], way: str) -> None:
    """However its shell starts the client, it is refused with a sentence, and the session has its one client."""
    one = shell("one")
    one.attach(one, way)
    one.follow_until(f"one {REFUSED}")
    one.follow_until("Attach from another terminal.")
    one.follow_until("left one: ")
    assert one.clients() == 1


def test_a_ring_of_three_sessions_is_refused_at_its_end(shell: Callable[[str], Shell]) -> None:
    """A shows B, and B shows C: in C, A and B are refused; when A has left B, C may show A."""
    one, two, three = (shell(name) for name in ("one", "two", "three"))
    one.attach(two)
    one.wait_for_prompt("two")
    two.attach(three)
    one.wait_for_prompt("three")
    for other in (one, two, three):
        three.attach(other, "env -u ORBIT_SESSION {}")
        three.read_until(f"{other.name} {REFUSED}")
        three.read_until(f"left {other.name}: 5\r\n")
    one.type(b"\x11")
    one.read_until("[detached from two]")
    three.attach(one)
    three.wait_for_prompt("one")
    assert (one.clients(), two.clients(), three.clients()) == (2, 1, 2)


def test_two_sessions_that_show_a_third_are_no_circle(shell: Callable[[str], Shell]) -> None:
    """A and C may both show B."""
    one, two, three = (shell(name) for name in ("one", "two", "three"))
    for viewer in (one, three):
        viewer.attach(two)
        viewer.wait_for_prompt(viewer.name)
    assert two.clients() == 3


def test_a_new_daemon_refuses_as_well(daemon: DaemonProcess) -> None:
    """A daemon that has taken the programs over knows where their clients sit."""
    with daemon.client() as client:
        Shell(client, "one")
    daemon.kill()
    with daemon.start().client() as client:
        found = client.call("session.find", ref="one")["id"]
        terminal = Terminal(client, found, (120, 40))
        terminal.type(f"env -u ORBIT_SESSION setsid -f {ORBITCTL} session attach one\r")
        terminal.read_until(REFUSED)


def test_a_multiplexer_counts_where_it_is_shown(shell: Callable[[str], Shell], home: Path) -> None:
    """In a tmux that A started, A is refused while A shows it, and is attached while it is shown elsewhere."""
    require("tmux")
    tmux = f"tmux -S {home}/tmux -f /dev/null"
    one, other = shell("one"), shell("other")
    one.run(f"{tmux} new-session {' '.join(SHELL)}")
    one.follow_until(STATUS_LINE)
    one.attach(one)
    one.follow_until(f"one {REFUSED}")
    one.run(f"clear; {tmux} detach-client")
    one.follow_until("[detached (from session 0)]")
    other.run(f"{tmux} attach-session")
    other.follow_until(STATUS_LINE)
    other.attach(one)
    one.run("echo bo''th")
    other.follow_until("both")
    other.type(b"\x11")
    other.follow_until("[detached from one]")
    other.attach(other)
    other.follow_until(f"other {REFUSED}")
    other.run(f"{tmux} kill-server")
    other.follow_until("[server exited]")
