"""ssh sessions against a real sshd on the loopback: prompts, lost connections, and coming back."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live.sessions import Terminal, create, kill
from live_support import Viewer
from needs import needs, program
from ssh_support import CLIENT, Machine, make_key
from support import DaemonProcess, RawClient

pytestmark = [pytest.mark.slow, needs("ssh", "ssh-keygen", "sshd")]

ECHO = "sh -c 'echo connected as $0; exec cat'"


@pytest.fixture
def machine(home: Path) -> Iterator[Machine]:
    """A machine that lets our key in, and that our ssh does not know yet; it asks."""
    place = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    machine = Machine(place, make_key(home / "key"))
    (home / "bin").mkdir()
    (home / "ssh_config").write_text(CLIENT.format(home=home).replace("Checking yes", "Checking ask"))
    wrapper = home / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {program("ssh")} -F {home}/ssh_config "$@"\n')
    wrapper.chmod(0o755)
    yield machine
    machine.close()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def near(daemon: DaemonProcess, machine: Machine) -> DaemonProcess:
    """A daemon in a home with our ssh."""
    return daemon


def connect(client: RawClient, machine: Machine, **config: Any) -> str:
    """Return the id of a session that runs our ssh."""
    ours = {"PATH": f"{Path(client.socket.getpeername()).parents[2]}/bin:{os.environ['PATH']}"}
    config = {"session_type": "ssh", "host": "127.0.0.1", "port": machine.port, "env": ours, **config}
    session_id = create(client, config.pop("command", ECHO), **config)
    client.call("session.start", id=session_id)
    return session_id


def trust(near: DaemonProcess, machine: Machine) -> None:
    """Let our ssh know the machine."""
    (near.home / "known_hosts").write_text(f"[127.0.0.1]:{machine.port} {machine.host_key}")


def cut(machine: Machine, *, for_good: bool = False) -> None:
    """Lose every connection: kill the processes of sshd that serve one; `for_good` lets nobody come back."""
    serving = machine.connections()
    if for_good:
        machine.close()
    for pid in serving:
        kill(pid)


def lost(client: RawClient, session_id: str) -> dict[str, Any]:
    """Wait until a session's program has ended; return the session."""
    assert client.call("session.wait", id=session_id)["exit_code"] == 255
    session: dict[str, Any] = client.call("session.get", id=session_id)
    return session


def test_prompts_reach_the_user(near: DaemonProcess, machine: Machine) -> None:
    """The host key's question and the passphrase's are on the terminal; answered there, the command runs."""
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a secret", "-f", str(near.home / "key")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with near.client() as client:
        terminal = Terminal(client, connect(client, machine, username=getpass.getuser()))
        terminal.follow_until("continue connecting")
        terminal.type("yes\n")
        terminal.follow_until("Enter passphrase")
        terminal.type("a secret\n")
        terminal.follow_until("connected")
        assert "a secret" not in terminal.text()
        terminal.type("there and back\n")
        terminal.follow_until("there and back\nthere and back")


def test_a_lost_connection_is_no_end(near: DaemonProcess, machine: Machine) -> None:
    """When sshd dies the session is detached with exit code 255, keeps its screen, and is connected anew by start."""
    trust(near, machine)
    with near.client() as client, near.client() as other:
        session_id = connect(client, machine)
        terminal = Terminal(other, session_id)
        terminal.follow_until("connected")
        cut(machine)
        assert terminal.read_to_the_end()["exit_code"] == 255
        session = lost(client, session_id)
        assert (session["status"], session["live"], session["exit_code"]) == ("detached", False, 255)
        assert "connected" in client.call("session.screen", id=session_id)["data"]
        again = client.call("session.start", id=session_id)
        assert (again["live"], again["exit_code"]) == (True, None)
        terminal = Terminal(client, session_id)
        terminal.follow_until("started again")
        terminal.type("and on\n")
        terminal.follow_until("and on\nand on")


def test_an_end_over_there_is_an_end(near: DaemonProcess, machine: Machine) -> None:
    """A remote command that ends by itself ends the session, with its exit code, and is not connected again."""
    trust(near, machine)
    with near.client() as client:
        session_id = connect(client, machine, command="exit 9", reconnect=True)
        assert client.call("session.wait", id=session_id)["exit_code"] == 9
        assert client.call("session.get", id=session_id)["status"] == "terminated"


def test_reconnect_keeps_the_clients(near: DaemonProcess, machine: Machine) -> None:
    """With `reconnect` a client stays through the loss, is told of it on its screen, and goes on typing afterwards."""
    trust(near, machine)
    with near.client() as client, near.client() as other:
        session_id = connect(client, machine, reconnect=True)
        terminal = Terminal(other, session_id, (90, 30))
        terminal.follow_until("connected")
        before = client.call("session.get", id=session_id)["pid"]
        for times in (1, 2):
            cut(machine)
            while [part.count("connected") for part in terminal.text().split("started again")] != [1] * (times + 1):
                terminal.step()
        assert terminal.text().count("connection lost") == 2
        terminal.type("once more\n")
        terminal.follow_until("once more\nonce more")
        session = client.call("session.get", id=session_id)
        assert (session["live"], session["status"], session["clients"]) == (True, "active", 1)
        assert (session["cols"], session["rows"]) == (90, 30)
        assert session["pid"] != before
        other.call("session.leave", attachment_id=terminal.id)


def test_clients_come_and_go_while_it_rests(near: DaemonProcess, machine: Machine) -> None:
    """Between loss and return one can attach, look, type into nothing and leave; terminate ends it for all."""
    trust(near, machine)
    with near.client() as client, near.client() as one, near.client() as two:
        session_id = connect(client, machine, reconnect=True)
        terminal = Terminal(one, session_id)
        terminal.follow_until("connected")
        cut(machine, for_good=True)
        terminal.follow_until("connection lost")
        viewer = Viewer(two, session_id)
        assert "connection lost" in viewer.text()
        viewer.type("into nothing")
        two.call("session.resize", attachment_id=viewer.id, cols=70, rows=20)
        two.call("session.leave", attachment_id=viewer.id)
        while terminal.emulator.size != (80, 24) or not terminal.repaints:
            terminal.step()
        started = client.request("session.start", id=session_id)  # as the reconnector may do at the same moment
        assert "result" in started or started["error"]["data"]["kind"] == "already_running"
        assert client.call("session.wait", id=session_id)["exit_code"] == 255
        assert terminal.exit is None
        ended = client.call("session.terminate", id=session_id)
        assert (ended["status"], ended["live"]) == ("terminated", False)
        terminal.read_to_the_end()
        assert client.error("session.attach", id=session_id, cols=80, rows=24)["code"] == 1006


def test_who_deletes_it_wins(near: DaemonProcess, machine: Machine) -> None:
    """A session that is to be connected again is not, once it has been deleted; its clients hear of the end."""
    trust(near, machine)
    with near.client() as client, near.client() as other:
        session_id = connect(client, machine, reconnect=True)
        terminal = Terminal(other, session_id)
        terminal.follow_until("connected")
        cut(machine, for_good=True)
        terminal.follow_until("connection lost")
        client.call("session.delete", id=session_id)
        terminal.read_to_the_end()
        assert client.error("session.get", id=session_id)["code"] == 1000


def test_the_next_daemon_connects_again(near: DaemonProcess, machine: Machine) -> None:
    """A daemon that starts connects what has lost its connection under the one before."""
    trust(near, machine)
    with near.client() as client:
        session_id = connect(client, machine, reconnect=True)
        Terminal(client, session_id).follow_until("connected")
    near.kill()
    cut(machine)
    with near.start().client() as client:
        Terminal(client, session_id).follow_until("started again")
        assert client.call("session.get", id=session_id)["live"]


def test_no_option_gets_through(near: DaemonProcess, machine: Machine) -> None:
    """What looks like an option of ssh is refused as host or user, and runs over there as a command."""
    trust(near, machine)
    proof = near.home / "proof"
    evil = f"-oProxyCommand=touch {proof}"
    with near.client() as client:
        for config in ({"host": evil}, {"host": "127.0.0.1", "username": evil}, {"host": "-v"}):
            error = client.error("session.create", config={"session_type": "ssh", **config})
            assert error["code"] == -32602
        session_id = connect(client, machine, command=evil)
        client.call("session.wait", id=session_id)
        assert "not found" in client.call("session.screen", id=session_id)["data"]
    assert not proof.exists()
