"""The client and its transport: what it sends, what it makes of answers, why it cannot connect."""

from __future__ import annotations

import errno
import json
import os
import runpy
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from ctl_support import Orbitctl, Peer, read_line, scripted
from needs import needs
from orbit_os.sockets import MAX_PATH_BYTES
from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.methods import DAEMON_INFO, DAEMON_PING, MAINTENANCE_VACUUM, SESSION_FIND
from orbit_protocol.params import ByRef, Params
from orbit_protocol.results import Pong
from orbitctl.attach.connection import ConnectionLost, DaemonConnection
from orbitctl.client import process_watch
from orbitctl.client.client import Client
from orbitctl.client.transport import SocketStream, UnixStream, Unreachable
from orbitctl.errors import CommandError, ExitCode

Serve = Callable[[Callable[[socket.socket], None]], Client]
PONG = {"result": {"pong": True}}


@pytest.fixture
def serve(home: Path) -> Iterator[Serve]:
    """Return a function that makes a client of a scripted peer."""
    made: list[Any] = []

    def start(answer: Callable[[socket.socket], None]) -> Client:
        path = home / "s"
        made.append(Peer(path, answer))
        client = Client(UnixStream(str(path), 10), 10)
        made.insert(0, client)
        return client

    yield start
    for one in made:
        one.close()


def version(**changes: Any) -> dict[str, Any]:
    return {"result": {"version": VERSION, "protocol_version": PROTOCOL_VERSION, **changes}}


def test_a_call_returns_its_typed_result(serve: Serve) -> None:
    """The result is decoded as the method's type."""
    client = serve(scripted({"daemon.ping": PONG}))
    assert client.call(DAEMON_PING, Params()) == Pong(pong=True)


def test_a_result_is_kept_to_the_letter(serve: Serve) -> None:
    """The raw result has the daemon's own bytes."""
    client = serve(scripted({"daemon.ping": b'{"jsonrpc":"2.0","id":1,"result":{ "pong" : true ,"x":1e400}}\n'}))
    assert client.ask(DAEMON_PING, Params()).raw == b'{ "pong" : true ,"x":1e400}'


def deep(depth: int) -> bytes:
    """Return an answer to the first request that is nested so deep as a whole."""
    inner = b"[" * (depth - 1) + b"]" * (depth - 1)
    return b'{"jsonrpc":"2.0","id":1,"result":' + inner + b"}\n"


def test_an_answer_has_a_limit_of_nesting(serve: Serve) -> None:
    """512 levels are read, and 513 are refused before they are decoded."""
    assert serve(scripted({"daemon.ping": deep(512)})).ask_raw("daemon.ping") == deep(512)[33:-2]


@pytest.mark.parametrize("depth", [513, 950, 100_000])
def test_an_answer_that_is_nested_deeper_is_refused(home: Path, depth: int) -> None:
    """Whatever answers cannot crash the client, with a C stack of 256 KiB neither."""
    peer = Peer(home / "s", scripted({"daemon.ping": deep(depth), "session.get": deep(depth)}))
    ctl = Orbitctl(home)
    ctl.command = ["bash", "-c", 'ulimit -s 256; exec "$@"', "bash", *ctl.command, "--socket", str(home / "s")]
    ended = ctl("rpc", "call", "daemon.ping")
    peer.close()
    assert (ended.code, ended.err.splitlines()[0]) == (
        ExitCode.PROTOCOL,
        "error: what answered does not speak Orbit's protocol: JSON is nested deeper than 512",
    )


def test_an_attachment_refuses_what_is_nested_deeper() -> None:
    """A notification that is nested too deep, or not UTF-8, ends the connection with a reason, and not the client."""
    ours, theirs = socket.socketpair()
    connection = DaemonConnection(SocketStream(ours))
    for line, reason in ((deep(513), "nested deeper than 512"), (b'{"method":"\xff"}\n', "utf-8")):
        theirs.sendall(line)
        with pytest.raises(ConnectionLost, match=reason):
            connection.receive()
    theirs.sendall(deep(512))
    assert [one.id for one in connection.receive()] == [1]
    connection.close()
    theirs.close()


def test_raw_params_cannot_hold_a_second_message(serve: Serve) -> None:
    """JSON that a caller gives as params is one value on one line, or is refused before anything is sent."""
    seen: list[bytes] = []

    def record(connection: socket.socket) -> None:
        while line := read_line(connection):
            seen.append(line)
            connection.sendall(b'{"jsonrpc":"2.0","id":%d,"result":1}\n' % len(seen))

    client = serve(record)
    assert client.ask_raw("m", msgspec.Raw(b'{"a": [\n{"method": "x"}\n]}\n')) == b"1"
    with pytest.raises(ValueError, match="more follows the first value"):
        client.ask_raw("m", msgspec.Raw(b'{}, "method": "x"'))
    assert seen == [b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a": [ {"method": "x"} ]}}\n']


def test_notifications_and_stale_answers_are_skipped(serve: Serve) -> None:
    """Only the answer with the call's own id counts."""
    lines = [
        b'{"jsonrpc":"2.0","method":"session.output","params":{}}',
        b'{"jsonrpc":"2.0","id":77,"result":{"pong":false}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"pong":true}}',
    ]
    client = serve(scripted({"daemon.ping": b"\n".join(lines) + b"\n"}))
    assert client.call(DAEMON_PING, Params()).pong is True


@pytest.mark.parametrize("wants", [True, False])
def test_progress_is_asked_for_by_whoever_shows_it(serve: Serve, wants: bool) -> None:
    """What the daemon reports is handed on, one of another form or call is skipped, and nothing is sent unasked."""
    answer = (
        b'{"jsonrpc":"2.0","method":"$/progress","params":{"id":1,"what":"rows","done":3,"total":9,"new":0}}\n'
        b'{"jsonrpc":"2.0","method":"$/progress","params":{"id":1,"what":7}}\n'
        b'{"jsonrpc":"2.0","method":"$/progress","params":{"id":2,"what":"rows","done":5,"total":9}}\n'
        b'{"jsonrpc":"2.0","id":1,"result":{"bytes_freed":5}}\n'
    )
    asked: list[Any] = []

    def record(connection: socket.socket) -> None:
        data = b""
        while data.count(b"\n") < 1 + wants:
            data += connection.recv(65536)
        asked.extend(json.loads(line) for line in data.splitlines())
        connection.sendall(answer)

    seen: list[tuple[str, int, int]] = []
    client = serve(record)
    on_progress = (lambda *step: seen.append(step)) if wants else None
    assert client.ask(MAINTENANCE_VACUUM, Params(), None, on_progress).value.bytes_freed == 5
    watch = {"jsonrpc": "2.0", "method": "$/watchProgress", "params": {"id": 1}}
    assert asked[1:] == ([watch] if wants else [])
    assert seen == ([("rows", 3, 9)] if wants else [])


def test_an_answer_in_pieces_is_put_together(serve: Serve) -> None:
    """An answer larger than any single read arrives whole."""
    blob = "x" * 3_000_000
    client = serve(scripted({"rpc.discover": {"result": {"blob": blob}}}))
    assert client.ask_raw("rpc.discover") == b'{"blob": "' + blob.encode() + b'"}'


def test_a_daemon_that_closes_in_the_middle_is_told(serve: Serve) -> None:
    """Half an answer and the end of the stream is exit code 3, with the method's name."""

    def half(connection: socket.socket) -> None:
        read_line(connection)
        connection.sendall(b'{"jsonrpc":"2.0",')

    with pytest.raises(CommandError, match=r"closed the connection before it answered daemon\.ping") as raised:
        serve(half).call(DAEMON_PING, Params())
    assert raised.value.exit_code == ExitCode.UNREACHABLE


def test_no_answer_in_time_is_a_timeout(serve: Serve) -> None:
    """A daemon that says nothing is given up after the timeout, with exit code 6."""
    given_up = threading.Event()

    def silent(connection: socket.socket) -> None:
        given_up.wait(20)

    client = serve(silent)
    client.timeout = 0.05
    with pytest.raises(CommandError, match=r"no answer within 0\.05 s") as raised:
        client.call(DAEMON_PING, Params())
    given_up.set()
    assert raised.value.exit_code == ExitCode.TIMEOUT


def test_a_refused_message_is_answered_although_sending_fails(serve: Serve) -> None:
    """The answer of a daemon that refuses a message midway and closes is still read."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        error = b'{"code":-32600,"message":"too large","data":{"kind":"message_too_large","hint":"Send less."}}'
        connection.sendall(b'{"jsonrpc":"2.0","id":null,"error":' + error + b"}\n")

    with pytest.raises(CommandError, match="too large") as raised:
        serve(refuse).ask_raw("snapshot.save", {"x": "y" * 8_000_000})
    assert (raised.value.exit_code, raised.value.hint) == (ExitCode.ERROR, "Send less.")


@pytest.mark.parametrize(
    ("theirs", "advice"),
    [(PROTOCOL_VERSION - 1, "orbitctl daemon restart"), (PROTOCOL_VERSION + 1, "Upgrade orbitctl")],
)
@pytest.mark.parametrize(
    "answer",
    [{"result": {"pong": "certainly"}}, {"error": {"code": -32601, "message": "Method not found"}}],
    ids=["unreadable", "missing"],
)
def test_another_protocol_is_told(serve: Serve, answer: dict[str, Any], theirs: int, advice: str) -> None:
    """An unreadable answer or a missing method of a daemon of another protocol is exit code 7 with advice."""
    client = serve(scripted({"daemon.ping": answer, "daemon.info": version(protocol_version=theirs)}))
    with pytest.raises(CommandError, match=f"speaks protocol {theirs}") as raised:
        client.call(DAEMON_PING, Params())
    assert raised.value.exit_code == ExitCode.PROTOCOL
    assert advice in raised.value.hint


def test_a_missing_method_of_the_same_protocol_is_told_too(serve: Serve) -> None:
    """A daemon of another release that lacks a method is exit code 7, and the hint is to restart it."""
    missing = {"error": {"code": -32601, "message": "Method not found"}}
    client = serve(scripted({"daemon.ping": missing, "daemon.info": version(version="0.0.1")}))
    with pytest.raises(CommandError, match="Method not found") as raised:
        client.call(DAEMON_PING, Params())
    assert raised.value.exit_code == ExitCode.PROTOCOL
    assert "orbitctl daemon restart" in raised.value.hint


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 400 Bad Request\n", b"{}\n", b"[]\n", b"\xff\n", b'"\x00"\n', b'{"jsonrpc":"\xff"}\n']
)
def test_something_else_that_answers_is_told(serve: Serve, line: bytes) -> None:
    """A peer that does not speak JSON-RPC is exit code 7."""
    client = serve(scripted({"daemon.info": line}))
    with pytest.raises(CommandError, match="does not speak Orbit's protocol") as raised:
        client.call(DAEMON_INFO, Params())
    assert raised.value.exit_code == ExitCode.PROTOCOL


def test_the_candidates_of_an_ambiguous_reference_are_listed(serve: Serve) -> None:
    """Ambiguity is exit code 5, and every candidate is named."""
    data = {"kind": "ambiguous_reference", "hint": "More.", "candidates": ["aaaa1", "aaaa2"]}
    client = serve(scripted({"session.find": {"error": {"code": 1003, "message": "two fit", "data": data}}}))
    with pytest.raises(CommandError, match="two fit") as raised:
        client.call(SESSION_FIND, ByRef(ref="aaaa"))
    assert raised.value.exit_code == ExitCode.CONFLICT
    assert raised.value.details == ("could be: aaaa1", "could be: aaaa2")


def test_no_socket_is_told(home: Path) -> None:
    """Where there is no file, nobody serves, and the next step is to start a daemon."""
    with pytest.raises(Unreachable, match="there is no socket at") as raised:
        UnixStream(str(home / "none"), 1)
    assert raised.value.no_daemon
    assert "orbitctl daemon start" in raised.value.hint


def test_a_left_over_socket_is_told(home: Path) -> None:
    """Where a socket's file is left over, nobody serves either."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(home / "s"))
    with pytest.raises(Unreachable, match="nothing listens on") as raised:
        UnixStream(str(home / "s"), 1)
    assert raised.value.no_daemon


def test_a_file_that_is_no_socket_is_told(home: Path) -> None:
    """A regular file is never replaced by starting a daemon."""
    (home / "s").write_text("mine")
    with pytest.raises(Unreachable, match="is not a socket") as raised:
        UnixStream(str(home / "s"), 1)
    assert not raised.value.no_daemon


def test_another_type_of_socket_is_told(home: Path) -> None:
    """A datagram socket is told from a stream."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(home / "s"))
        with pytest.raises(Unreachable, match="another type"):
            UnixStream(str(home / "s"), 1)


def test_a_file_in_the_place_of_a_folder_is_told(home: Path) -> None:
    """A part of the path that is no folder is told from a missing socket."""
    (home / "f").write_text("")
    with pytest.raises(Unreachable, match="is not a folder") as raised:
        UnixStream(str(home / "f" / "s"), 1)
    assert not raised.value.no_daemon


def test_a_path_that_is_too_long_is_told_with_the_limit(home: Path) -> None:
    """The message has the path's length and the limit of the kernel."""
    path = str(home / ("x" * MAX_PATH_BYTES))
    with pytest.raises(Unreachable, match=rf"\({len(path)} bytes, at most {MAX_PATH_BYTES}\)"):
        UnixStream(path, 1)


def test_the_longest_path_works(home: Path) -> None:
    """A path of exactly the limit is used."""
    path = str(home / "x").ljust(MAX_PATH_BYTES, "x")
    peer = Peer(Path(path), scripted({"daemon.ping": PONG}))
    client = Client(UnixStream(path, 10), 10)
    assert client.call(DAEMON_PING, Params()).pong is True
    client.close()
    peer.close()


def test_a_nul_in_the_path_is_told() -> None:
    """A NUL cannot be in a path, and is no traceback."""
    with pytest.raises(Unreachable, match="not a path"):
        UnixStream("/tmp/a\0b", 1)


def test_no_permission_is_told(home: Path) -> None:
    """A folder that we may not enter is told as such; for root, who may, as an empty one."""
    closed = home / "closed"
    closed.mkdir(mode=0o000)
    expected = "no socket at" if os.getuid() == 0 else "no permission"
    with pytest.raises(Unreachable, match=expected):
        UnixStream(str(closed / "s"), 1)
    assert stat.S_IMODE(closed.stat().st_mode) == 0
    closed.chmod(0o700)


def test_a_peer_of_another_user_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that another user serves is told with both uids, and nothing is sent to it."""
    received: list[bytes] = []
    peer = Peer(home / "s", lambda connection: received.append(read_line(connection)))
    monkeypatch.setattr("orbitctl.client.transport.peer_uid", lambda _: 4242)
    with pytest.raises(Unreachable, match=rf"uid 4242, not by you \(uid {os.getuid()}\)"):
        UnixStream(str(home / "s"), 1)
    peer.close()
    assert received == [b""]


def test_a_daemon_that_takes_no_connections_is_a_timeout(home: Path) -> None:
    """A full backlog is waited for as long as the timeout says, then exit code 6."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / "s"))
        listening.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(home / "s"))
            with pytest.raises(CommandError, match="did not take the connection") as raised:
                UnixStream(str(home / "s"), 0.05)
    assert raised.value.exit_code == ExitCode.TIMEOUT


def test_a_peer_that_is_gone_already(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that closes the connection before its uid was asked, as macOS reports it, is unreachable."""

    def gone(_connection: object) -> int:
        raise OSError(errno.ENOTCONN, "Socket is not connected")

    monkeypatch.setattr("orbitctl.client.transport.peer_uid", gone)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / "s"))
        listening.listen()
        with pytest.raises(Unreachable, match="closed the connection at once"):
            UnixStream(str(home / "s"), 1)


class FakeQueue:
    """A kqueue(2) that watches processes: those in `running`, and that reports the end of those in `ended`."""

    running: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        self.watched: list[int] = []
        self.is_closed = False

    def control(self, changes: list[int] | None, count: int, timeout: float | None = None) -> list[int]:
        for pid in changes or ():
            if pid not in self.running:
                raise ProcessLookupError(errno.ESRCH, "No such process")
            self.watched.append(pid)
        ended = [pid for pid in self.watched if pid not in self.running][:count]
        self.watched = [pid for pid in self.watched if pid not in ended]  # EV_ONESHOT
        return ended

    def close(self) -> None:
        self.is_closed = True


def test_waiting_for_a_process_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kqueue reports the end once, and it is remembered; a process that is gone (ESRCH) has ended."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(select, "kqueue", FakeQueue, raising=False)
    monkeypatch.setattr(select, "kevent", lambda pid, *_flags: pid, raising=False)
    for name in ("KQ_FILTER_PROC", "KQ_EV_ADD", "KQ_EV_ONESHOT", "KQ_NOTE_EXIT"):
        monkeypatch.setattr(select, name, 1, raising=False)
    watch = runpy.run_path(process_watch.__file__)["ProcessWatch"]
    monkeypatch.setattr(FakeQueue, "running", {7})
    running, gone = watch(7), watch(8)
    assert (running.wait(0), gone.wait(0)) == (False, True)
    FakeQueue.running.clear()
    assert (running.wait(0), running.wait(0)) == (True, True)
    running.close()


@needs(linux=True)
@pytest.mark.parametrize("number", [None, errno.ENOSYS, errno.EPERM])
def test_waiting_for_a_process_without_pidfds(monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    """Where Python, the kernel or a filter has none, its start time shows the end, and no signal is sent."""

    def refuse(_pid: int) -> int:
        raise OSError(number, os.strerror(number or 0))

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        if number is None:
            monkeypatch.delattr(os, "pidfd_open")
        else:
            monkeypatch.setattr(os, "pidfd_open", refuse)
        watch = process_watch.ProcessWatch(process.pid)
        assert (watch.wait(0), watch.can_signal, watch.send_signal(9)) == (False, False, False)
        assert process.stdin is not None
        process.stdin.close()
        assert watch.wait(10)
        watch.close()
    assert process.returncode == 0
    assert process_watch.ProcessWatch(process.pid).wait(0)


def test_a_peer_that_has_ended_has_no_pid(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS refuses to say who listened: that is no error of its own."""

    def gone(_connection: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("orbitctl.client.transport.peer_pid", gone)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / "s"))
        listening.listen()
        stream = UnixStream(str(home / "s"), 1)
        assert stream.peer_pid() == 0
        stream.close()
