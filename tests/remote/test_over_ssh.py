"""`orbitctl --host` through a real ssh and a real sshd."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctl_support import Ended, Peer, read_line, scripted
from needs import require_that
from orbit_protocol import PROTOCOL_VERSION
from orbitctl.client.ssh import Dial, SshStream, parse_host
from orbitctl.completion import answer
from ssh_support import Machine, Near, make_key
from support import WAIT_SECS

pytestmark = pytest.mark.slow

PING = b'{"jsonrpc":"2.0","method":"daemon.ping","params":{},"id":1}\n'
NEWER = {"result": {"version": "9.0.0", "protocol_version": PROTOCOL_VERSION + 1}}
MISSING = {"error": {"code": -32601, "message": "no such method"}}


@pytest.fixture
def serve_at(machine: Machine) -> Iterator[Callable[[Callable[[socket.socket], None]], None]]:
    """Return a function that lets a scripted peer serve on the machine's socket."""
    peers: list[Peer] = []

    def serve(answer: Callable[[socket.socket], None]) -> None:
        machine.socket_path.parent.mkdir(mode=0o700)
        peers.append(Peer(machine.socket_path, answer))

    yield serve
    for peer in peers:
        peer.close()


def test_sessions_are_made_and_listed_on_the_other_machine(near: Near, far: Machine) -> None:
    """What --host creates is on that machine and on no other, and the option may stand before or after the command."""
    created = near.ctl.id("--host", far.url, "session", "create", "--name", "there", "--", "top")
    assert near.ctl.ok("session", "list", "-q", "--host", far.url).lines == [created]
    with far.daemon.client() as client:
        assert client.call("session.find", ref="there")["id"] == created
    assert near.ctl("session", "list", "--no-autostart").code == 3


def test_json_is_the_far_daemons_result(near: Near, far: Machine) -> None:
    """With one host --json prints exactly the RPC result."""
    near.ctl.ok("--host", far.url, "session", "create", "--name", "there")
    with far.daemon.client() as client:
        assert near.ctl.ok("--host", far.url, "session", "list", "--json").json == client.call("session.list")


def test_a_large_binary_snapshot_passes_unchanged(near: Near, far: Machine) -> None:
    """8 MB of all byte values are saved and shown over ssh byte for byte."""
    buffer = os.urandom(8_000_000)
    near.ctl.ok("--host", far.url, "session", "create", "--name", "big")
    near.ctl.ok("--host", far.url, "snapshot", "save", "big", stdin=buffer)
    assert near.ctl.ok("--host", far.url, "snapshot", "show", "--latest", "big").out == buffer


def test_the_far_daemon_is_started(near: Near, machine: Machine) -> None:
    """Where no orbitd runs on the other machine, dial-stdio starts it, and it outlives the connection."""
    try:
        created = near.ctl.id("--host", machine.url, "session", "create")
        assert machine.ctl.ok("--no-autostart", "session", "list", "-q").lines == [created]
    finally:
        machine.ctl("daemon", "stop")


def test_no_autostart_counts_on_the_far_side(near: Near, machine: Machine) -> None:
    """--no-autostart starts nothing over there; its words come back, with the name of the machine, and exit 3."""
    ended = near.ctl("--host", machine.url, "--no-autostart", "session", "list")
    assert ended.code == 3
    assert f"error: on {os.uname().nodename}: no daemon is running: there is no socket at" in ended.err
    assert f"orbitctl on {machine.url} could not reach its daemon" in ended.err
    assert not machine.socket_path.exists()


def test_status_of_another_machine_starts_nothing(near: Near, machine: Machine) -> None:
    """`status` asks and starts no daemon, over there as here."""
    assert near.ctl("--host", machine.url, "status").code == 3
    assert not machine.socket_path.exists()


def test_the_socket_is_the_far_sides(near: Near, far: Machine) -> None:
    """--socket names a path on the other machine, and no character of it is for the far shell."""
    ended = near.ctl("--host", far.url, "--no-autostart", "--socket", "/tmp/$(touch x) 'y", "session", "list")
    assert ended.code == 3
    assert "there is no socket at /tmp/$(touch x) 'y" in ended.err
    assert near.ctl.ok("--host", far.url, "--socket", str(far.socket_path), "session", "list", "-q").lines == []


def test_the_sending_side_may_end_first(near: Near, far: Machine) -> None:
    """A client that sends and ends its direction still gets the answer, then the end, and ssh has ended well."""
    stream = SshStream(parse_host(far.url), Dial(), near.ctl.environment)
    connection = socket.socket(fileno=os.dup(stream.fileno()))
    with connection:
        connection.sendall(PING)
        connection.shutdown(socket.SHUT_WR)
        answer = stream.receive(20)
        assert json.loads(answer)["result"] == {"pong": True}
        assert stream.receive(20) == b""
    stream.close()


def test_the_end_of_the_far_daemon_is_seen(near: Near, far: Machine) -> None:
    """A daemon that stops ends the stream, though the client has not ended its own direction."""
    stream = SshStream(parse_host(far.url), Dial(), near.ctl.environment)
    stream.send(memoryview(PING), 20)
    assert b"pong" in stream.receive(20)
    far.daemon.stop()
    assert stream.receive(20) == b""
    stream.close()


def unreachable(ended: Ended, words: str) -> None:
    """Check that a run could not get there, and that ssh's own words are shown."""
    assert ended.code == 3, ended
    assert words in ended.err
    assert "error: ssh could not reach" in ended.err
    assert ended.out == b""


def test_a_wrong_port_is_told(near: Near) -> None:
    """Where no sshd listens: exit 3 and ssh's own words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    unreachable(near.ctl("--host", f"ssh://127.0.0.1:{port}", "session", "list"), "Connection refused")


def test_an_unknown_host_is_told(near: Near) -> None:
    """A name that does not resolve: exit 3 and ssh's own words."""
    ended = near.ctl("--host", "ssh://no-such-host.invalid", "session", "list")
    unreachable(ended, "Could not resolve hostname no-such-host.invalid")


def test_a_rejected_key_is_told(near: Near, far: Machine) -> None:
    """A machine that does not let the user in: exit 3 and ssh's own words."""
    (far.home / "authorized_keys").write_text("")
    unreachable(near.ctl("--host", far.url, "session", "list"), "Permission denied (publickey)")


def test_a_changed_host_key_is_told(near: Near, far: Machine) -> None:
    """A machine that is not the known one is not talked to: ssh's own words, exit 3."""
    (near.home / "known_hosts").unlink()
    near.trust(far, make_key(near.home / "other"))
    unreachable(near.ctl("--host", far.url, "session", "list"), "Host key verification failed")


def test_an_ssh_that_is_not_there_is_told(near: Near) -> None:
    """Without an ssh to run: exit 3, and how to name one."""
    ended = near.ctl("--host", "ssh://far", "session", "list", ORBITCTL_SSH="/none/ssh")
    assert (ended.code, ended.err.splitlines()[0]) == (3, "error: cannot run /none/ssh: No such file or directory")


def test_a_missing_orbitctl_is_told_and_can_be_named(near: Near, far: Machine) -> None:
    """Where the far PATH has no orbitctl the hint is --remote-command, which works; so does its variable."""
    elsewhere = far.home / "my tools"
    elsewhere.mkdir()
    far.program.rename(elsewhere / "orbitctl")
    far.install("exit 127")
    ended = near.ctl("--host", far.url, "session", "list")
    assert ended.code == 3
    assert f"there is no orbitctl on {far.url}, or not on the PATH" in ended.err
    assert "--remote-command" in ended.err
    named = "~/'my tools'/orbitctl"
    assert near.ctl("--host", far.url, "--remote-command", named, "session", "list").code == 0
    assert near.ctl("--host", far.url, "session", "list", ORBITCTL_REMOTE_COMMAND=named).code == 0


def test_an_older_orbitctl_over_there_is_told(near: Near, far: Machine) -> None:
    """An orbitctl that knows no dial-stdio is another protocol: exit 7."""
    far.install("echo \"error: No such command 'dial-stdio'.\" >&2; exit 2")
    ended = near.ctl("--host", far.url, "session", "list")
    assert ended.code == 7
    assert "does not know `dial-stdio`" in ended.err


def test_a_far_daemon_of_another_protocol_is_told(near: Near, machine: Machine, serve_at: Any) -> None:
    """A far daemon that speaks another protocol gives exit 7, as a near one does."""
    serve_at(scripted({"session.list": MISSING, "daemon.info": NEWER}))
    ended = near.ctl("--host", machine.url, "session", "list")
    assert ended.code == 7
    assert f"speaks protocol {PROTOCOL_VERSION + 1}" in ended.err


def test_a_talkative_shell_is_told(near: Near, far: Machine) -> None:
    """A startup file that prints is named as the cause, instead of an answer that cannot be read."""
    shell = Path(pwd.getpwuid(os.getuid()).pw_shell).name
    require_that(shell == "bash", "bash as the login shell, which reads a startup file here")
    (far.home / ".bashrc").write_text("echo welcome\n")
    ended = near.ctl("--host", far.url, "session", "list")
    assert ended.code == 7
    assert "printed something before its orbitctl could speak: b'welcome" in ended.err


def test_a_connection_lost_in_the_middle_is_an_error(near: Near, machine: Machine, serve_at: Any) -> None:
    """When the connection breaks in the middle of an answer the command ends with 3, and does not hang."""
    broken = threading.Event()

    def answer(connection: socket.socket) -> None:
        read_line(connection)
        connection.sendall(b'{"jsonrpc":"2.0","id":1,"res')
        for pid in machine.connections():
            os.kill(pid, signal.SIGKILL)
        broken.set()

    serve_at(answer)
    ended = near.ctl("--host", machine.url, "session", "list")
    assert broken.is_set()
    assert ended.code == 3
    assert "ssh could not reach" in ended.err
    assert "or lost it" in ended.err


def test_a_far_dial_that_is_killed_is_an_error(near: Near, machine: Machine, serve_at: Any) -> None:
    """A daemon that closes without an answer is told as such: the connection itself was well."""
    serve_at(lambda connection: connection.close())
    ended = near.ctl("--host", machine.url, "session", "list")
    assert ended.code == 3
    assert "the daemon closed the connection before it answered session.list" in ended.err


def test_ssh_asks_on_the_terminal(near: Near, far: Machine) -> None:
    """What ssh wants to know, a passphrase here, it asks the user on the terminal, and the command goes on."""
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", str(near.home / "key")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shown = near.ctl.on_terminal(
        "--host", far.url, "session", "create", "-q", prompt=b"Enter passphrase", typed=b"open sesame\r"
    )
    assert shown.code == 0
    with far.daemon.client() as client:
        assert client.call("session.list")["sessions"][0]["id"].encode() in shown.out


def test_settings_for_shells_do_not_get_in_the_way(near: Near, far: Machine) -> None:
    """A RemoteCommand, a terminal and forwardings of the user's configuration are left aside for this connection."""
    with near.config.open("a") as file:
        file.write("RemoteCommand tmux\nRequestTTY force\nLocalForward 1 127.0.0.1:1\nExitOnForwardFailure yes\n")
    assert near.ctl.ok("--host", far.url, "session", "list", "-q").lines == []


def test_names_are_completed_from_the_other_machine(near: Near, far: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell offers the sessions of the machine that the line names."""
    monkeypatch.setattr(answer, "TIMEOUT", WAIT_SECS)  # a busy machine needs longer for ssh than a person waits
    for name, value in near.ctl.environment.items():
        monkeypatch.setenv(name, value)
    near.ctl.ok("--host", far.url, "session", "create", "--name", "faraway")
    line = f"orbitctl --host {far.url} session show far"
    assert answer.answer("bash", [line, ":"]) == ["words", "faraway"]
